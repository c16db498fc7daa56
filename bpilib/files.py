"""Where the project lies, and files that are either whole or not there."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

PROJECT = Path(__file__).resolve().parents[1]
PARAMS = PROJECT / "params"
MOST = 1 << 30  # bytes of an .npz once unpacked; the largest of ours have 50 MB
MOST_ENTRIES = 1_000_000  # of a YAML once its aliases are followed


class MissingInputError(FileNotFoundError, ValueError):
    """Something to be read is not there; the message says what makes it."""


def in_project(path: str | Path) -> Path:
    """An absolute path; what is relative lies in the project folder, wherever a notebook is run from."""
    return PROJECT / Path(path).expanduser()


def write_atomically(path: str | Path, content: bytes | str | Callable[[Path], None]) -> Path:
    """Write a file beside its place, flush it to the disk, and rename it into place.

    Args:
        path: the file; its folder is made where missing.
        content: bytes, text, or a function that writes to the path it is given.

    Raises:
        OSError: as the system says; the old file, if any, is then untouched and nothing new is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; no pickle is read, and nothing that unpacks to more than a gigabyte."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MOST:
        raise ValueError(f"{size} bytes once unpacked, more than the {MOST} it may have")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def parse_yaml(text: str | bytes) -> Any:
    """A YAML document as plain values; no tag makes an object, and no aliases make a bomb.

    Raises:
        yaml.YAMLError: it is no YAML, or too deep, or more than a million entries once its aliases are followed.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _entries(node, {}) >= MOST_ENTRIES:
            raise yaml.YAMLError(f"more than {MOST_ENTRIES:,} entries once its aliases are followed")
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


def _entries(node: yaml.Node, known: dict[int, int]) -> int:
    """How many there are in a node; counted once where it stands often. One that holds itself has too many."""
    if id(node) not in known:
        known[id(node)] = MOST_ENTRIES
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = (part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_entries(part, known) for part in parts)
    return known[id(node)]


def sync(path: Path) -> None:
    """Flush a written file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
