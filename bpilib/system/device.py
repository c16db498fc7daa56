"""What depends on the machine: device, memory and what is used of it, precision, seeds."""

import contextlib
import ctypes
import random
import re
import traceback
import warnings
from collections.abc import Iterator

import numpy as np
import psutil
import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device of a `device` parameter; auto is the first GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"parameter device: {name!r} is no device (auto, cpu, cuda, cuda:1)") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"parameter device: {name} was asked for, but PyTorch sees no GPU here: use auto or cpu")
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, for what is drawn outside the feeder: initial weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def keep_malloc_memory() -> None:
    """Have the C library keep what tensors free, which otherwise goes back to the system and comes page by page.

    Saves up to half the time of a step on a CPU. For Linux with glibc; elsewhere nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


_NO_MEMORY = re.compile("can't allocate memory|out of memory|ALLOC_FAILED|bad_alloc")


@contextlib.contextmanager
def out_of_memory(what: str, change: str) -> Iterator[None]:
    """Where memory runs out, on a GPU or not, raise a MemoryError that says how much was wanted and what to change.

    Args:
        what: was to be done, with the sizes that count.
        change: what to do about it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # what PyTorch raises on a CPU has no kind of its own
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))
        if not known or str(error).startswith("out of memory in "):  # said already, by what is within
            raise
        traceback.clear_frames(error.__traceback__)  # the tensors there would live as long as the error does
        said = (str(error).strip().splitlines() or ["no memory"])[0].rpartition("DefaultCPUAllocator: ")[2][:300]
        said = re.sub(r"\b(\d{6,}) bytes", lambda match: f"{int(match[1]) / 1e6:,.0f} MB", said)
        raise MemoryError(f"out of memory in {what} ({said}): {change}") from error


def usage(device: torch.device) -> dict[str, float]:
    """What this process and its GPU use now.

    Returns:
        memory_gb of the process; on a GPU also gpu_memory_gb, of all its processes, gpu_memory_whole_gb, and
        gpu_busy_percent where PyTorch can tell (it asks the package nvidia-ml-py).
    """
    found = {"memory_gb": psutil.Process().memory_info().rss / 1e9}
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        found |= {"gpu_memory_gb": (whole - free) / 1e9, "gpu_memory_whole_gb": whole / 1e9}
        with contextlib.suppress(Exception):  # no package, no driver, a GPU that does not say: each has its own
            found["gpu_busy_percent"] = float(torch.cuda.utilization(device))
    return found


def format_usage(used: dict[str, float]) -> str:
    """`usage` in a line, such as "memory 1.2 GB, GPU 87 %, 6.1 of 24.0 GB"."""
    said = f"memory {used['memory_gb']:.1f} GB"
    if "gpu_memory_gb" in used:
        busy = f" {used['gpu_busy_percent']:.0f} %," if "gpu_busy_percent" in used else ""
        said += f", GPU{busy} {used['gpu_memory_gb']:.1f} of {used['gpu_memory_whole_gb']:.1f} GB"
    return said


def autocast(precision: str, device: torch.device) -> tuple[contextlib.AbstractContextManager, str]:
    """The context of the forward pass in training, and the precision's name, from the parameter precision.

    auto: on a GPU bf16 (fp16 on those without), on a CPU bf16 if its instructions are there, else fp32. tf32: float32
    whose products a GPU rounds to 10 bits; otherwise they are full.
    """
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            has = [getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
            precision = "bf16" if any(has) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("parameter precision: fp16 is for GPUs; use bf16 or fp32 on a CPU")
    _round_products(precision == "tf32")
    kind = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=kind, enabled=kind != torch.float32), precision


def _round_products(allowed: bool) -> bool:
    """Allow TF32 in a GPU's products and convolutions, or not; returns what was."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    return before


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Products in full float32 on GPUs, too (PyTorch rounds convolutions to TF32 by default)."""
    before = _round_products(False)
    try:
        yield
    finally:
        _round_products(before)


def compile_network(network: torch.nn.Module, wanted: bool = True) -> torch.nn.Module:
    """The network through torch.compile, or as it is, where that is not wanted or, with a warning, does not work.

    Parts that the compiler can't take run as they are (PyTorch logs which).
    """
    if not wanted:
        return network
    device = next(network.parameters()).device
    try:
        torch.compile(torch.nn.Linear(2, 2).to(device))(torch.ones(1, 2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a GPU too old, ...: each has its own
        reason = str(error).strip().splitlines()[0][:200]
        warnings.warn(f"torch.compile does not work here, going on without ({reason})", stacklevel=2)
        return network
    torch._dynamo.config.suppress_errors = True
    return torch.compile(network)
