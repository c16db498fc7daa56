"""Checkpoints: whole or not there, with a checksum inside, the one before kept, no pickle executed."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpilib.errors import MissingInputError
from bpilib.system.files import sync, write_atomically
from bpilib.system.pickle_keys import check_keys

FORMAT = 1
MAX_SHARING = 4  # times that what is read from a file may have its size: few tensors of a network share their numbers
MAX_DEPTH = 100  # levels of nested dicts and lists
Check = Callable[[dict[str, Any], Path], None]


def _feed(digest: Any, value: Any) -> None:
    """Put a nested value of dicts, lists, tensors and plain values into a hash, structure included."""
    if isinstance(value, dict):
        digest.update(b"{")
        for key, entry in value.items():
            digest.update(json.dumps(key).encode())
            _feed(digest, entry)
        digest.update(b"}")
    elif isinstance(value, list | tuple):
        digest.update(b"[")
        for entry in value:
            _feed(digest, entry)
        digest.update(b"]")
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    else:
        digest.update(json.dumps(value).encode())


def _checksum(content: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    _feed(digest, content)
    return digest.hexdigest()


def save(path: str | Path, content: dict[str, Any], urgent: bool = False) -> None:
    """Save atomically; what was at `path` stays beside it as <stem>.previous.pt.

    Args:
        path: ends in .pt.
        content: nested dicts and lists of tensors and plain JSON values.
        urgent: the process may be killed at any moment: the checkpoint is in its place before it is flushed to the
            disk, which takes seconds while others write much. A power cut in between costs it, not the one before.

    Raises:
        OSError: it can't be written; what was there stays.
    """
    path = Path(path)
    whole = {"format": FORMAT, "sha256": _checksum(content), "content": content}
    try:
        fresh = write_atomically(path.with_name(f".{path.name}.new"), lambda part: torch.save(whole, part), not urgent)
    except RuntimeError as error:  # of PyTorch's writer, which does not say what the system said
        raise OSError(f"can't write {path} ({str(error)[:80]}): is the disk full?") from error
    if path.exists():
        path.replace(_previous(path))
    fresh.replace(path)
    if urgent:
        sync(path)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous.pt")


def check_archive(path: Path) -> None:
    """Check that a file is a zip without compression, since packed or overlapping members could be far larger than the
    file, and that no keys in its pickle were chosen to collide.

    Raises:
        ValueError: it is packed, or has such keys. zipfile.BadZipFile: it is no zip.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        held = sum(member.file_size for member in archive.infolist())
        if held > size:
            raise ValueError(f"{held} bytes once unpacked, in a file of {size}")
        for name in archive.namelist():
            if name.endswith(".pkl"):
                check_keys(archive.read(name))


def check_pickles(path: Path) -> None:
    """Check the pickles of a weight file as `check_archive` does, also of one that PyTorch before 1.6 has written.

    Raises:
        ValueError: it is packed, or has keys that could collide. pickle.UnpicklingError: damaged, or no such file.
    """
    if zipfile.is_zipfile(path):
        check_archive(path)
    else:  # magic number, version, system and content as pickles, then the numbers
        with path.open("rb") as file:
            for _ in range(4):
                check_keys(file)


def check_size(content: Any, size: int) -> None:
    """Check that a loaded value holds no more than its file can, with everything that it refers to counted.

    A tensor may claim numbers that it shares (stride 0), and a list may stand in others many times over.

    Args:
        content: dicts, lists, tuples, tensors and plain values.
        size: bytes of the file.

    Raises:
        ValueError: more than that, or nested deeper than `MAX_DEPTH`.
    """
    left, stack = MAX_SHARING * size + 1000, [(content, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, Tensor):
            if value.layout == torch.strided and value.nbytes > value.untyped_storage().nbytes():
                what = f"{tuple(value.shape)} {value.dtype} of {value.untyped_storage().nbytes()} bytes"
                raise ValueError(f"a tensor whose numbers are stored once and stand often: {what}")
            left -= value.nbytes
        elif isinstance(value, dict | list | tuple):
            stack += [(v, depth + 1) for v in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, str | bytes):
            left -= len(value)
        left -= 1
        if depth > MAX_DEPTH or left < 0:
            raise ValueError(f"nested too deeply, or more than {MAX_SHARING} times what its {size} bytes can hold")


def _read(path: Path) -> dict[str, Any]:
    try:
        check_archive(path)
        whole = torch.load(path, map_location="cpu", weights_only=True)
        check_size(whole, path.stat().st_size)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ValueError(f"{path} can't be read ({type(error).__name__}: {str(error)[:60]})") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT or not {"content", "sha256"} <= whole.keys():
        raise ValueError(f"{path} is not a checkpoint of this workbench (format {FORMAT})")
    if _checksum(whole["content"]) != whole["sha256"]:
        raise ValueError(f"{path} is damaged: its content differs from its checksum")
    return whole["content"]


def load(path: str | Path, check: Check = lambda content, path: None, *others: Path) -> dict[str, Any]:
    """Load a checkpoint; if it is missing, damaged or not what it should be, the first good one of those that may
    stand in for it, with a warning.

    Args:
        path: the one before it may stand in for it.
        check: called with content and path; ValueError if it is not what it should be.
        others: checkpoints that may stand in, too.

    Returns:
        What `save` was given, tensors on the CPU.

    Raises:
        MissingInputError: none is there.
        ValueError: damaged, or not a checkpoint of ours.
    """
    path = Path(path)
    problems: list[ValueError] = []
    for place in (path, _previous(path), *others):
        try:
            content = _read(place)
            check(content, place)
        except FileNotFoundError:
            problems.append(MissingInputError(f"no checkpoint at {path}: run notebooks/02_train.ipynb first"))
        except ValueError as error:
            problems.append(error)
        else:
            if problems:
                which = ", the checkpoint before" if place == _previous(path) else ""
                warnings.warn(f"{problems[0]}; going on from {place.name}{which}", stacklevel=2)
            return content
    raise problems[0]


def take_fitting(module: torch.nn.Module, state: dict[str, Tensor], skip: str = "") -> tuple[int, list[str]]:
    """Give a module the tensors of a state dict that have its names and shapes, and leave the rest of it as it is.

    Args:
        module: changed in place.
        state: of another run's module.
        skip: the child module, by name, to leave out whatever its shapes.

    Returns:
        How many tensors were taken; what was not: "name (3, 8) here, (4, 8) there", one for each.
    """
    mine, taken, left = module.state_dict(), {}, []
    for name, tensor in mine.items():
        there = state.get(name)
        if there is None or there.shape != tensor.shape:
            left.append(f"{name} {tuple(tensor.shape)} here, {'none' if there is None else tuple(there.shape)} there")
        elif skip and name.startswith(f"{skip}."):
            left.append(f"{name}, of other classes")
        else:
            taken[name] = there
    module.load_state_dict(mine | taken)
    return len(taken), left


def exists(path: str | Path) -> bool:
    """Whether there is anything for `load` to read."""
    return Path(path).exists() or _previous(Path(path)).exists()


def find_weights(directory: Path) -> Path:
    """The checkpoint of a run's weights: its best.pt, or its last.pt until training has ended and there is one.

    Args:
        directory: of the run. Where neither is there, the answer is best.pt.
    """
    best, last = directory / "best.pt", directory / "last.pt"
    return last if exists(last) and not exists(best) else best
