"""Reads the JSON clips of NW-UCLA and of the synthetic set, one per file, from a folder or a zip.

A file `aAA_sSS_eEE_vVV.json` (action, subject, episode, view) holds `file_name`, `skeletons` (L, 20, 3) and `label`,
the class counted from 1.

Source: Wang et al., "Cross-view Action Modeling, Learning, and Recognition", CVPR 2014; the skeletons in JSON as the
CTR-GCN authors share them.
"""

import contextlib
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bpilib.data.archives import NO_ZIP, describe_contents, explain_no_zip, parse_member_path
from bpilib.data.store import Clip, Problem
from bpilib.errors import MissingInputError

CLASSES = (
    "pick up with one hand", "pick up with two hands", "drop trash", "walk around", "sit down", "stand up",
    "donning", "doffing", "throw", "carry",
)  # fmt: skip
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
VIEWS = (1, 2, 3)
CLIPS = 1484
DAMAGED = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # a zip member
URL = "https://www.dropbox.com/s/10pcm4pksjy6mkq/all_sqe.zip?dl=1"
CONTENT = "64a21ec5e56332613349ae99a400a1f6ceb3aa9a8a0a945a81083ff741287b94"  # SHA-256 of names, sizes and CRCs
FILE_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)")
MAX_FILE_BYTES = 64 << 20  # of one clip's file; the largest real one has 0.2 MB
MAX_ZIP_BYTES = 1 << 30  # of a zip in a zip, which is read whole
HOW = f"download all_sqe.zip ({URL}) or set the parameter download=True"


@contextmanager
def open_raw_files(raw: str | Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Find the JSON files in `raw`: clip name → function that reads the file, sorted by name.

    Args:
        raw: a zip (possibly of one zip), a folder of JSON files, or a folder that holds either at any depth. Zips are
            read in place: nothing is unpacked, so a hostile member name has no effect.

    Raises:
        MissingInputError: nothing at `raw`.
        ValueError: a file that is not a zip, or no clip found.
    """
    raw = Path(raw)
    if not raw.exists():
        raise MissingInputError(f"no raw data at {raw}: {HOW}")
    if raw.is_dir():
        files: dict[str, list[Path]] = {}
        for path in sorted(raw.rglob("*")):
            if path.suffix.lower() == ".json" and FILE_NAME.fullmatch(path.stem.lower()):
                files.setdefault(path.stem.lower(), []).append(path)
        zips = sorted(path for path in raw.rglob("*") if path.suffix.lower() == ".zip" and path.is_file())
        if files or len(zips) != 1:
            if not files:
                there = f" (there are {', '.join(path.name for path in zips[:3])})" if zips else ""
                raise MissingInputError(
                    f"no clip named like a01_s01_e00_v01.json and no single zip below {raw}{there}: {HOW}, "
                    "and put it there"
                )
            yield {n: _make_reader([_make_file_reader(path) for path in files[n]]) for n in sorted(files)}
            return
        raw = zips[0]
    try:
        archive = zipfile.ZipFile(raw)
    except NO_ZIP as error:
        raise ValueError(explain_no_zip(raw, error, HOW)) from error
    readers: dict[str, Callable[[], bytes]] = {}
    with archive:
        members = _find_members(archive)
        inner = [member for member in archive.infolist() if member.filename.lower().endswith(".zip")]
        if not members and len(inner) == 1 and inner[0].file_size <= MAX_ZIP_BYTES:
            with contextlib.suppress(*DAMAGED):
                archive = zipfile.ZipFile(io.BytesIO(archive.read(inner[0])))
                members = _find_members(archive)
        if not members:
            raise ValueError(
                f"{raw} is a zip of something else ({describe_contents(archive.namelist())}): expected clips named "
                f"like all_sqe/a01_s01_e00_v01.json; {HOW}"
            )
        for name in sorted(members):
            readers[name] = _make_reader([_make_zip_reader(archive, member) for member in members[name]])
        yield readers


def _find_members(archive: zipfile.ZipFile) -> dict[str, list[zipfile.ZipInfo]]:
    """Clip name → members of that name."""
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for member in archive.infolist():
        path = parse_member_path(member)
        if path.suffix.lower() == ".json" and FILE_NAME.fullmatch(path.stem.lower()):
            found.setdefault(path.stem.lower(), []).append(member)
    return found


def _make_reader(readers: list[Callable[[], bytes]]) -> Callable[[], bytes]:
    """A function that reads a clip which may lie there several times; all of its files must then be equal."""

    def read() -> bytes:
        first, *others = (reader() for reader in readers)
        if any(other != first for other in others):
            raise ValueError(f"{len(readers)} files of this name, that differ: keep one of them")
        return first

    return read if len(readers) > 1 else readers[0]


def _make_file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, more than the {MAX_FILE_BYTES} a clip may have")
        return path.read_bytes()

    return read


def _make_zip_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with archive.open(member) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"more than the {MAX_FILE_BYTES} bytes a clip may have")
        return content

    return read


def parse_poses(skeletons: object) -> np.ndarray:
    """Convert a clip's `skeletons`, nested lists (L, 20, 3), to poses (L, 1, 20, 3) float32.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    try:
        with np.errstate(over="ignore"):
            poses = np.array(skeletons, np.float64).astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"skeletons are not (L, 20, 3) numbers ({error})") from error
    if poses.ndim != 3 or poses.shape[1:] != (20, 3) or not len(poses):
        raise ValueError(f"expected skeletons (L, 20, 3) with L of at least 1, got {poses.shape}")
    if not np.isfinite(poses).all():
        frame = int(np.argwhere(~np.isfinite(poses))[0, 0])
        raise ValueError(f"coordinates that are not finite (first in frame {frame})")
    return poses[:, None]


def parse(name: str, content: bytes, actions: tuple[int, ...] = ACTIONS) -> Clip:
    """Parse a JSON file to a clip of poses (L, 1, 20, 3).

    Args:
        name: the file's name without ending.
        content: its bytes.
        actions: the action numbers of the classes, in label order.

    Raises:
        ValueError: what is wrong with it.
    """
    match = FILE_NAME.fullmatch(name)
    if match is None:
        raise ValueError("its name is not like a01_s01_e00_v01")
    action, subject, _, view = (int(number) for number in match.groups())
    if view not in VIEWS:
        raise ValueError(f"view v{view:02d} is not one of {', '.join(f'v{v:02d}' for v in VIEWS)}")
    if action not in actions:
        raise ValueError(f"action a{action:02d} is not one of {', '.join(f'a{a:02d}' for a in actions)}")
    try:
        clip = json.loads(content)
        skeletons, label, own_name = clip["skeletons"], clip["label"], clip["file_name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a clip's JSON with file_name, skeletons and label ({error})") from error
    if not isinstance(own_name, str) or own_name.lower() != name:
        raise ValueError(f"the file says it is {own_name!r}")
    if label != actions.index(action) + 1:
        raise ValueError(f"label {label!r}, but action a{action:02d} has label {actions.index(action) + 1}")
    return Clip(name, parse_poses(skeletons), actions.index(action), subject=subject, camera=view)


def read(raw: str | Path, actions: tuple[int, ...] = ACTIONS) -> Iterator[tuple[int, Clip | Problem]]:
    """Read every clip in `raw` in the order of names: (number of files, clip or the problem with it)."""
    with open_raw_files(raw) as files:
        for name, content in files.items():
            try:
                yield len(files), parse(name, content(), actions)
            except (ValueError, *DAMAGED) as error:
                yield len(files), Problem(f"{name}.json", str(error))


def make_splits(cameras: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Split clips by their views, `cameras` (n,) int64: 1 and 2 are for training, 3 for testing.

    Returns:
        "xview" → part ("train", "test") → (n_part,) int64 clip indices.
    """
    return {"xview": {"train": np.flatnonzero(cameras != 3), "test": np.flatnonzero(cameras == 3)}}


def download(folder: str | Path, url: str = URL, content: str = CONTENT) -> Path:
    """Download all_sqe.zip into `folder` (data/NW-UCLA), unless it is there; return its path.

    The file appears only when it is complete and its content is that of the published one.

    Raises:
        ValueError: the address returned something else, or could not be reached.
    """
    target = Path(folder) / "all_sqe.zip"
    if target.exists():
        return target
    import pooch  # here, so that a machine without it can do all but download

    part = target.with_name("all_sqe.zip.part")
    try:
        pooch.retrieve(url, known_hash=None, fname=part.name, path=target.parent, progressbar=True)
        with zipfile.ZipFile(part) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
            lines = "".join(f"{m.filename} {m.file_size} {m.CRC:08x}\n" for m in members)
            if hashlib.sha256(lines.encode()).hexdigest() != content or archive.testzip() is not None:
                raise ValueError(f"its {len(members)} members are not the published {CLIPS} clips")
    except (ValueError, *DAMAGED) as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"could not get all_sqe.zip from {url} ({error}): download it by hand to {target}") from error
    part.rename(target)
    return target
