"""Error messages about zips: what a file is that can't be opened as one, and what an unusable zip holds."""

import os
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

KINDS = {  # first bytes → what it is, what to do
    b"Rar!": ("a rar archive", "unpack it and name the folder"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it and name the folder"),
    b"\x1f\x8b": ("packed with gzip (.gz, .tar.gz)", "unpack it and name the folder"),
    b"BZh": ("packed with bzip2", "unpack it and name the folder"),
    b"\xfd7zXZ": ("packed with xz", "unpack it and name the folder"),
    b"\x93NUMPY": ("a NumPy array", "clips of one's own are a folder with clips.csv; an npz has x_train, y_train, ..."),
    b"\x89HDF": ("an HDF5 or .mat file", "save its clips as a folder with clips.csv"),
    b"MATLAB": ("a .mat file", "save its clips as a folder with clips.csv"),
    b"\x80": ("a pickle", "call it .pkl"),
}
PAGE = (b"<!doctype", b"<html")
# What opening a file that is no zip, or a damaged one, raises.
NO_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error)
DEEPEST = 3  # folders below, and
MOST_FILES = 20_000  # files that are looked at
STREAM = r"(?:train|val|test)_data"  # of 2s-AGCN's arrays
# What a file is called → what to do with it; {0}: the file, {1}: its folder, {2}: its name. Lists of clips,
LISTS = {
    r"clips\.csv": "{0} is there: name its folder {1}",
    r"clips\.(?:csv\.)?(?:csv|txt|tsv)|clips": "{0} is there: call it clips.csv",
    r"clips\.(?:xlsx?|ods)": "{0} is there: save it as clips.csv",
    r".*\.csv": "{0} is there: is it the list of clips? Call it clips.csv",
}
BARE = r".*\.npy"
HINTS = LISTS | {  # and others.
    rf"{STREAM}(?:_joint)?\.npy": "{2} is there: name its folder {1}",
    rf"{STREAM}_\w+\.npy": "{0} holds no joints, and they can't be computed from it: get train_data_joint.npy and "
    "val_data_joint.npy, with their labels",
    r".*\.npz|.*(?<!_label)\.(?:pkl|pickle)": "to import {0}, name it itself",
    r".*\.skeleton\.\w+": "{0} is packed or renamed: its name must end with .skeleton",
    r".*\.(?:tar|tgz|gz|bz2|xz|rar|7z)": "unpack {0}, and name the folder",
    r".*\.zip": "unpack {0}, and name the folder, if it holds clips of your own",
    BARE: "{1} holds .npy files: list them in a clips.csv in it",
}


def explain_no_zip(path: Path, error: object, how: str) -> str:
    """The error message for a file that can't be opened as a zip: what it is, and `how` to get the right one."""
    with path.open("rb") as file:
        start = file.read(512)
    for mark, (what, do) in KINDS.items():
        if start.startswith(mark):
            return f"{path} is not a zip file but {what}: {do}"
    if start[257:262] == b"ustar":
        return f"{path} is not a zip file but a tar archive: unpack it and name the folder"
    if start.startswith(b"PK") or not start or start.lstrip().lower().startswith(PAGE):
        return f"{path} is not a zip file ({error}); a broken download? {how}"
    return f"{path} is not a zip file, nor any other file that can be read (it starts with {start[:12]!r}): {how}"


def suggest_files(place: Path) -> list[str]:
    """Say what to do with files that are there, in a folder or at a path, and are not what was looked for.

    Returns:
        Up to three sentences; a kind of file is said once.
    """
    said: dict[str, str] = {}
    for count, path in enumerate(_iterate_files(place)):
        name = path.name.lower()
        kind = next((kind for kind in HINTS if re.fullmatch(kind, name)), None)
        if kind == r"clips\.csv" and path.name != name:
            kind = next(other for other in HINTS if re.fullmatch(other, "clips.txt"))
        if kind is not None:
            said.setdefault(kind, HINTS[kind].format(path, path.parent, path.name))
        if count > MOST_FILES:
            break
    found = [kind for kind in HINTS if kind in said and not (kind == BARE and said.keys() & LISTS.keys())]
    return [said[kind] for kind in found[:3]]


def _iterate_files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, below, files in os.walk(place):
        below[:] = sorted(below) if len(Path(folder).relative_to(place).parts) < DEEPEST else []
        yield from (Path(folder, file) for file in sorted(files) if not file.startswith("."))


def parse_member_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """The path of a zip's member; some Windows programs write backslashes."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def describe_contents(names: list[str]) -> str:
    """Describe what a zip holds: its first members, or that there are zips in it."""
    if inner := _keep_zips(names):
        return f"zips in a zip: {', '.join(inner[:3])}: unpack it once, and name the folder"
    return f"first members: {', '.join(names[:3]) or 'none'}"


def list_inner_zips(path: Path) -> list[str]:
    """The first zips in a zip."""
    with zipfile.ZipFile(path) as archive:
        return _keep_zips(archive.namelist())[:3]


def _keep_zips(names: list[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(".zip")]
