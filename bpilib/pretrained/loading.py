"""From the files of a pretrained network to the network; whatever they hold, no code is run and memory is bounded."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bpilib.classify import prepare
from bpilib.data.store import SkeletonStore
from bpilib.model import MODELS, CTRGCNClassifier, build_model
from bpilib.ops.feeder_kernels import UCLA_COPIES
from bpilib.pretrained.places import CONFIG, MOST, TENSORS, locate
from bpilib.recipes import PLAIN_NAME
from bpilib.skeleton import MODALITIES, SKELETONS

FORMAT = 1
MOST_HEADER = 1 << 20  # bytes of the names and shapes of a .safetensors; ours have 50 kB
MOST_CLASSES = 10_000
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
CHOICES = {"model_type": MODELS, "modality": MODALITIES, "fed": MODALITIES, "skeleton": tuple(SKELETONS),
           "attention": ("learned", "even"), "true_bones": (False, True), "format": (FORMAT,)}  # fmt: skip
LIMITS = {"persons": (1, 16), "window": (1, UCLA_COPIES), "width": (4, 1024), "epoch": (0, 1 << 32)}
OPTIONAL_LIMITS = {"k": (1, 64), "embed_dim": (1, 1 << 14)}  # None: the network has no such thing


class Found(NamedTuple):
    """What the files of a pretrained network hold.

    Attributes:
        name: as given; of a folder its name.
        config: of config.json, checked; beside what is written there: `model` and `classes`, as of
            `bpilib.classify.describe`, and id2label by number.
        state: name → tensor as stored, of exactly the names and shapes of the network.
    """

    name: str
    config: dict[str, Any]
    state: dict[str, Tensor]


def from_pretrained(name: str | Path, store: SkeletonStore | None = None) -> CTRGCNClassifier:
    """Load a trained network: in eval mode, on the CPU, of float32 weights, ready for clips.

        network = from_pretrained("ucla_bpi_joint")
        network(network.prepare(poses)).logits                # poses: a raw clip, (L, M, V, 3)
        bpilib.classify.classify(network, poses)              # probabilities by class name

    Args:
        name: of a shipped network (`python -m bpilib.pretrained list`), a folder that `save_pretrained` wrote, or a
            Hub id, owner/name or owner/name@revision, which is downloaded.
        store: of clips that it is to classify; checked to have the network's classes.

    Returns:
        The network, as of `bpilib.model.build_model`; its `config` is that of config.json, `prepare` makes its input.

    Raises:
        MissingInputError: no such network; those shipped are listed.
        ValueError: files that are damaged, too large, or not those of a network; a store of other classes.
    """
    found = read(name)
    if store is not None:
        check_store(found.config, store)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and then replaced
        network = _build(found.config)
    network.load_state_dict(found.state)
    network.config, network.prepare = found.config, functools.partial(_prepare, found.config)
    return network.eval()


def _prepare(config: dict[str, Any], poses: np.ndarray) -> Tensor:
    return torch.from_numpy(prepare(config, poses))


def _build(config: dict[str, Any]) -> CTRGCNClassifier:
    return build_model(
        config["model"],
        SKELETONS[config["skeleton"]],
        len(config["classes"]),
        config["modality"],
        config["persons"],
        config["embed_dim"] or 1,  # of ctrgcn, which has none
        config["k"],
        config["width"],
        config["attention"],
        config["true_bones"],
    )


def check_store(config: dict[str, Any], store: SkeletonStore) -> None:
    """Raise ValueError if a store's clips are not what a network was trained for: skeleton, persons, classes."""
    differ = [
        f"{what}: {its}, the store's {here}"
        for what, its, here in (
            ("data set", config["dataset"], store.dataset),
            ("skeleton", config["skeleton"], store.skeleton.name),
            ("persons", config["persons"], store.persons),
            ("number of classes", len(config["classes"]), len(store.classes)),
        )
        if its != here
    ]
    differ += [f"class {i}: {its!r}, the store's {here!r}"
               for i, (its, here) in enumerate(zip(config["classes"], store.classes)) if its != here]  # fmt: skip
    if differ:
        more = f"; and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise ValueError(
            f"the network is of other data than {store.path} holds ({'; '.join(differ[:4])}{more}): set data to the "
            "store it was trained on, or start_from to train it on with these classes"
        )


def read(name: str | Path) -> Found:
    """Read the files of a pretrained network and check them; arguments and errors as of `from_pretrained`."""
    folder = locate(name)
    config = read_config(folder / CONFIG)
    path = folder / TENSORS
    content = _read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != config["weights"]["sha256"]:
        raise ValueError(
            f"{path} is damaged, or not the file that {CONFIG} is of: its sha256 is {digest}, expected "
            f"{config['weights']['sha256']}. Get both anew"
        )
    state = _read_tensors(path, content)
    _check_fit(path, config, state)
    shown = Path(name).name if folder.name == Path(name).name else str(name)
    return Found(shown, config, state)


def _read_bytes(path: Path) -> bytes:
    """Read the bytes of one of the files."""
    most = MOST[path.name]
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): expected {CONFIG} and {TENSORS} there") from error
    if len(content) > most:
        raise ValueError(f"{path} has more than the {most} bytes it may have")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json, as `Found.config` has it.

    Raises:
        ValueError: not there, damaged, or not of a network of this workbench; what is wrong is named.
    """
    content = _read_bytes(path)
    try:
        config = json.loads(content, parse_constant=lambda name: _refuse(f"{name} is no number of JSON"))
        if not isinstance(config, dict):
            raise ValueError(f"expected an object, got {type(config).__name__}")
        _check(config)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not the config.json of a network of this workbench ({str(error)[:300]}): expected one that "
            "`python -m bpilib.pretrained save` wrote"
        ) from error
    labels = {number: config["id2label"][str(number)] for number in range(len(config["id2label"]))}
    return config | {"model": config["model_type"], "id2label": labels, "classes": list(labels.values())}


def _refuse(what: str) -> None:
    raise ValueError(what)


def _check(config: dict[str, Any]) -> None:
    """Raise ValueError if something in a config.json is missing, or not what it can be."""
    for name, choices in CHOICES.items():
        if not any(type(config.get(name)) is type(choice) and config[name] == choice for choice in choices):
            raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {config.get(name)!r:.60}")
    for name, (least, most) in (LIMITS | OPTIONAL_LIMITS).items():
        value = config.get(name)
        if value is None and name in OPTIONAL_LIMITS and name in config:
            continue
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name}: expected a whole number from {least} to {most}, got {value!r:.60}")
    ctrgcn = config["model_type"] == "ctrgcn"
    for name in OPTIONAL_LIMITS:
        if (config[name] is None) != ctrgcn:
            raise ValueError(f"{name}: ctrgcn has none, gap and bpi have one, got {config[name]}")
    for name in ("dataset", "benchmark"):
        if not isinstance(config.get(name), str) or not PLAIN_NAME.fullmatch(config[name]):
            raise ValueError(f"{name}: expected letters, digits, '.', '_' or '-', got {config.get(name)!r:.60}")
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not 1 <= len(labels) <= MOST_CLASSES:
        raise ValueError(f"id2label: expected 1 to {MOST_CLASSES} classes by number")
    names = [labels.get(str(number)) for number in range(len(labels))]
    if not all(isinstance(name, str) and len(name) <= 1000 for name in names):
        raise ValueError(f'id2label: expected a name for each of "0" to "{len(labels) - 1}"')
    for name, keys in (("weights", ("sha256",)), ("data", ("sha256",)), ("training", ()), ("expected", ())):
        if not isinstance(config.get(name), dict) or not config[name].keys() >= {*keys}:
            raise ValueError(f"{name}: expected an object{' with ' if keys else ''}{', '.join(keys)}")
    for figures in (config["expected"], config["expected"].get("without_copies", {})):
        _check_figures(figures)
    if not isinstance(config["data"]["sha256"], dict):
        raise ValueError("data: expected sha256 to be an object, a checksum for each file")
    joints = list(SKELETONS[config["skeleton"]].joints)
    if config.get("joints") != joints:
        raise ValueError(f"joints: expected those of the {config['skeleton']} skeleton: {', '.join(joints)}")
    if not isinstance(config.get("tracker"), str | None):
        raise ValueError(f"tracker: expected a name or null, got {config['tracker']!r:.60}")


def _check_figures(figures: Any) -> None:
    """Raise ValueError if stated figures are not as `bpilib.pretrained.figures.state_figures` makes them, or none."""
    whole = ("clips", "right", "undecided")
    if isinstance(figures, dict) and not figures:
        return
    if not isinstance(figures, dict) or any(type(figures.get(name)) is not int for name in whole):
        raise ValueError(f"expected: expected whole numbers {', '.join(whole)}")
    if not isinstance(figures.get("top1"), int | float):
        raise ValueError("expected: expected a number top1")


def _read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Parse the tensors of a .safetensors; ValueError: it is damaged."""
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(MOST_HEADER, len(content) - 8):
        raise ValueError(
            f"{path} is damaged or no .safetensors of a network: of its {len(content)} bytes {header} would be names "
            f"and shapes, at most {MOST_HEADER} expected"
        )
    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged or no .safetensors ({str(error)[:120]})") from error


class _Undrawn(TorchFunctionMode):
    """First weights are not drawn: on the meta device this would bring PyTorch's compiler along, for nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or return the tensor that it would fill with draws as it is."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_fit(path: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Raise ValueError if the tensors are not those of the network that a config describes, each difference named.

    That network is not built for it: its size is what the config says, and nothing says that the file has as much.
    """
    with torch.device("meta"), _Undrawn():
        wanted = _build(config).state_dict()
    problems = [f"missing: {name}" for name in sorted(wanted.keys() - state.keys())]
    problems += [f"not in this network: {name!r:.80}" for name in sorted(state.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & state.keys()):
        want, got = wanted[name], state[name]
        if got.shape != want.shape:
            problems.append(f"{name}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
        elif got.dtype not in (FLOATS if want.is_floating_point() else (torch.int64,)):
            problems.append(f"{name}: expected {want.dtype}, got {got.dtype}")
        elif got.is_floating_point() and not torch.isfinite(got).all():
            problems.append(f"{name}: numbers that are not finite")
    if problems:
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(f"{path} does not fit the network of its {CONFIG}:\n  " + "\n  ".join(problems[:12]) + more)
