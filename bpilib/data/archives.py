"""Error messages about zips: what a file is that can't be opened as one, and what an unusable zip holds."""

import zipfile
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


def parse_member_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """The path of a zip's member; some Windows programs write backslashes."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def describe_contents(names: list[str]) -> str:
    """Describe what a zip holds: its first members, or that there are zips in it."""
    inner = [name for name in names if name.lower().endswith(".zip")]
    if inner:
        return f"zips in a zip: {', '.join(inner[:3])}: unpack it once, and name the folder"
    return f"first members: {', '.join(names[:3]) or 'none'}"
