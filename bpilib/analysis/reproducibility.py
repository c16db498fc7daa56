"""A reproducibility statement: the hardware, the software and the state of the code that produced results."""

from collections.abc import Callable, Sequence
from typing import Any

from bpilib.analysis.results import Result

UNKNOWN = "not recorded"


def write_statement(results: Sequence[Result]) -> str:
    """Write a plain text for a paper's appendix from the environments that training recorded.

    Args:
        results: from `find_results`; ensembles are left out, since they consist of runs.

    Returns:
        Lines of text: what all runs share, once; what differs, with the runs it applies to; how to repeat a run; and
        warnings about runs that can't be repeated exactly.
    """
    runs = [result for result in results if " + " not in result.modality]
    recorded = [result for result in runs if result.environment]
    lines = [f"Reproducibility of {len(runs)} runs ({len(recorded)} with a recorded environment)", ""]
    lines += [line for name, read in FACTS.items() for line in _describe_fact(name, read, recorded)]
    lines += ["", "To repeat a run: check the commit out, install constraints.txt, prepare the data with 01, and train"]
    lines += ["with the parameters in the run's config.yaml. The same processor, number of threads and libraries give"]
    lines += ["the same bits; others give the same numbers up to rounding, which training amplifies."]
    lines += [f"Not repeatable as it stands: {text}" for text in _list_warnings(runs)]
    return "\n".join(lines) + "\n"


def _describe_fact(name: str, read: Callable[[dict[str, Any]], str], recorded: Sequence[Result]) -> list[str]:
    by_value: dict[str, list[str]] = {}
    for result in recorded:
        by_value.setdefault(_read_safely(read, result.environment), []).append(result.name)
    if len(by_value) == 1:
        return [f"{name}: {next(iter(by_value))}"]
    return [f"{name}: {value} ({', '.join(names)})" for value, names in by_value.items()]


def _read_safely(read: Callable[[dict[str, Any]], str], environment: dict[str, Any]) -> str:
    try:
        return " ".join(read(environment).split())[:300] or UNKNOWN
    except (KeyError, TypeError, ValueError, AttributeError):  # written by another version, or edited by hand
        return UNKNOWN


def _describe_git(environment: dict[str, Any]) -> str:
    state = environment["git"]
    return "no checkout" if state is None else f"{state['commit']}{'' if state['clean'] else ' with changes'}"


def _describe_hardware(environment: dict[str, Any]) -> str:
    gpu = environment["gpu"]
    cpu = f"{environment['cpu']}, {environment['cores']} cores"
    return cpu if gpu is None else f"{gpu} (CUDA {environment['cuda']}), {cpu}"


def _describe_software(environment: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())
    return f"Python {environment['python']}, {libraries}, {environment['platform']}"


def _describe_memory(environment: dict[str, Any]) -> str:
    gpu = f", {environment['peak_gpu_memory_gb']:.1f} GB on the GPU" if "peak_gpu_memory_gb" in environment else ""
    return f"{environment['peak_memory_gb']:.1f} GB{gpu}"


def _describe_size(environment: dict[str, Any]) -> str:
    flops = environment["flops_per_clip"] / 1e9
    return f"{environment['parameters'] / 1e6:.3f} M parameters, {flops:.2f} GFLOPs a clip (2 a multiply-add)"


FACTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "code": _describe_git,
    "hardware": _describe_hardware,
    "software": _describe_software,
    "threads": lambda environment: str(environment["threads"]),
    "seed": lambda environment: str(environment["seed"]),
    "texts": lambda environment: f"SHA-256 {environment['text_digest']}" if environment["text_digest"] else "none",
    "network": _describe_size,
    "peak memory": _describe_memory,
    "date": lambda environment: str(environment["date"]),
}


def _list_warnings(runs: Sequence[Result]) -> list[str]:
    def names(found: Sequence[Result]) -> str:
        return ", ".join(result.name for result in found)

    without = [result for result in runs if not result.environment]
    changed = [result for result in runs if _read_safely(_describe_git, result.environment).endswith("with changes")]
    texts = []
    if without:
        texts.append(f"no environment was recorded for {names(without)}")
    if changed:
        texts.append(f"the code had changes that are in no commit when these were made: {names(changed)}")
    return texts
