"""Where the project lies, and files that are either whole or not there."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
PARAMS = PROJECT / "params"
MOST = 1 << 30  # bytes of an .npz once unpacked; the largest of ours have 50 MB


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


def sync(path: Path) -> None:
    """Flush a written file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
