"""Finds and reads raw files of NTU RGB+D, in folders or in zips, without unpacking."""

import filecmp
import hashlib
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bpilib.data.archives import (
    NO_ZIP,
    describe_contents,
    explain_no_zip,
    list_inner_zips,
    parse_member_path,
    suggest_files,
)
from bpilib.errors import MissingInputError

ENDING = ".skeleton"
MAX_FILE_BYTES = 32 << 20  # of one file; the largest real ones have a few MB
HOW = (
    "get nturgbd_skeletons_s001_to_s017.zip (and nturgbd_skeletons_s018_to_s032.zip for ntu120) from "
    "https://rose1.ntu.edu.sg/dataset/actionRecognition and name the folder they are in, or where they are unpacked"
)


class BadFileError(ValueError):
    """A raw file that can't be used: what is wrong, and on which line (0: the whole file)."""

    def __init__(self, what: str, line: int = 0):
        super().__init__(what)
        self.line = line


class RawFile(NamedTuple):
    """A `.skeleton` file in a folder or in a zip.

    Attributes:
        name: without ending.
        path: of the file, or of the zip.
        size: bytes of its content.
        stamp: time of its last change; in a zip its CRC.
        start, packed, method: in a zip the position of its header, the bytes and the method of its compressed content;
            else -1.
    """

    name: str
    path: str
    size: int
    stamp: int
    start: int = -1
    packed: int = -1
    method: int = -1


def find_raw_files(raw: str | Path | Sequence[str | Path]) -> list[RawFile]:
    """Find all `.skeleton` files in `raw`, sorted by name.

    Args:
        raw: a folder (files and zips at any depth), a zip, or several of either.

    Raises:
        MissingInputError: none there.
        ValueError: a file that is not a zip.
    """
    places = [Path(raw)] if isinstance(raw, str | Path) else [Path(place) for place in raw]
    found: list[RawFile] = []
    others: list[Path] = []  # zips of something else
    for place in places:
        if not place.exists():
            raise MissingInputError(f"no raw data at {place}: {HOW}")
        archives = [place]
        if place.is_dir():
            files, archives = _search_folder(place)
            found += files
        for archive in archives:
            members = list(_search_zip(archive))
            found += members
            others += [] if members else [archive]
            if members and (zips := list_inner_zips(archive)):
                warnings.warn(f"{archive} also holds zips, which are not read: {', '.join(zips)}: unpack it", None, 2)
    if not found:
        held = [f"{archive} holds {_describe_zip(archive)}" for archive in others[:3]]
        held += [hint for place in places if place.is_dir() for hint in suggest_files(place) if ".zip" not in hint]
        what = f"no {ENDING} file and no zip of them in {', '.join(map(str, places))}"
        raise MissingInputError(f"{what}: {'; '.join(held) or HOW}")
    return sorted(found, key=lambda file: file.name)


def _describe_zip(archive: Path) -> str:
    with zipfile.ZipFile(archive) as opened:
        return describe_contents(opened.namelist())


def _strip_ending(file: str) -> str | None:
    """The name of a raw file without its ending; None for any other file."""
    stem, ending = os.path.splitext(file)
    return stem if ending.lower() == ENDING and not file.startswith(".") else None


def _search_folder(folder: Path) -> tuple[list[RawFile], list[Path]]:
    """Find raw files and zips in a folder, at any depth."""
    found, archives = [], []
    seen = set()  # links are followed, but no folder is entered twice
    for place, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(f for f in folders if os.path.realpath(os.path.join(place, f)) not in seen)
        for file in files:
            path = os.path.join(place, file)
            if file.lower().endswith(".zip") and not file.startswith("."):
                archives.append(Path(path))
            if (name := _strip_ending(file)) is not None:
                try:
                    state = os.stat(path)
                    found.append(RawFile(name, path, state.st_size, state.st_mtime_ns))
                except OSError:  # a dead link: reading it will say so
                    found.append(RawFile(name, path, 0, 0))
    return found, sorted(archives)


def _search_zip(path: Path) -> Iterator[RawFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except NO_ZIP as error:
        raise ValueError(explain_no_zip(path, error, HOW)) from error
    for member in members:
        if (name := _strip_ending(parse_member_path(member).name)) is not None:
            method = member.compress_type if not member.flag_bits & 1 else -2  # 1: encrypted
            where = (member.header_offset, member.compress_size, method)
            yield RawFile(name, str(path), member.file_size, member.CRC, *where)


def differ(one: RawFile, other: RawFile) -> bool:
    """Whether two files of the same size differ; a file in a zip and one outside are not compared."""
    if one.start >= 0 and other.start >= 0:
        return one.stamp != other.stamp
    return one.start < 0 and other.start < 0 and not filecmp.cmp(one.path, other.path, shallow=False)


class Reader:
    """Reads raw files one after the other into the same memory: allocating it anew takes longer than reading."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def read(self, file: RawFile) -> memoryview:
        """The content of a file, valid until the next is read.

        Raises:
            BadFileError: too large, unreadable, or damaged in its zip.
        """
        if max(file.size, file.packed) > MAX_FILE_BYTES:
            raise BadFileError(f"{max(file.size, file.packed)} bytes, more than the {MAX_FILE_BYTES} a file may have")
        if len(self._memory) <= file.size:
            self._memory = bytearray(2 * file.size + 1)
        try:
            if file.start >= 0:
                return memoryview(_read_member(file))
            with open(file.path, "rb", buffering=0) as source:
                count = source.readinto(self._memory)
        except (OSError, struct.error, zlib.error) as error:
            raise BadFileError(f"can't be read: {error}") from error
        if count != file.size:
            raise BadFileError(f"{count} bytes or more, but it had {file.size} when it was listed")
        return memoryview(self._memory)[:count].toreadonly()


def _read_member(file: RawFile) -> bytes:
    """Read a file in a zip without reading the zip's table of contents again."""
    with open(file.path, "rb") as source:
        source.seek(file.start)
        kind, name, extra = struct.unpack("<4s22xHH", source.read(30))
        source.seek(name + extra, os.SEEK_CUR)
        content = source.read(file.packed)
    if kind != b"PK\3\4" or file.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFileError("packed in its zip in a way that is not supported (expected deflated, not encrypted)")
    if file.method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_FILE_BYTES + 1)
    if len(content) != file.size or zlib.crc32(content) != file.stamp:
        raise BadFileError("damaged in its zip (the checksum differs)")
    return content


def fingerprint(files: Iterable[RawFile], *others: object) -> str:
    """SHA-256 of the files' names and sizes, and of any other values."""
    digest = hashlib.sha256(repr(others).encode())
    for file in files:
        digest.update(f"\n{file.name} {file.size}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
