"""Where the project lies, files that are either whole or not there, and texts without the secrets in them."""

import contextlib
import hashlib
import math
import os
import platform
import re
import stat
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import yaml

PACKAGE = Path(__file__).resolve().parents[1]
MARK = Path("params", "recipes.yaml")  # a checkout has it, and a folder that `bpilib notebooks` made


def find_project(package: Path) -> Path:
    """Where relative paths start: the checkout that a package lies in; else, since it is installed, the nearest folder
    with copied params at or above the working directory; else the working directory.
    """
    if (package.parent / MARK).is_file():
        return package.parent
    working = Path.cwd()
    return next((place for place in (working, *working.parents) if (place / MARK).is_file()), working)


def find_shipped(package: Path, project: Path, file: Path) -> Path:
    """The folder of a file that comes with the package: the project's own, else the one in an installed package."""
    return (project if (project / file).is_file() else package) / file.parent


PROJECT = find_project(PACKAGE)
PARAMS = find_shipped(PACKAGE, PROJECT, MARK)
NOTEBOOKS = find_shipped(PACKAGE, PROJECT, Path("notebooks", "02_train.ipynb"))
MAX_NPZ_BYTES = 1 << 30  # bytes of an .npz once unpacked; the largest of ours have 50 MB
MOST_YAML = 16 << 20  # bytes or characters; the largest of ours has 0.1 MB
MAX_YAML_ENTRIES = 300_000  # of a YAML once its aliases are followed: the texts of 10,000 classes
MOST_KEYS = 256  # of a YAML that are not text: numbers can be chosen to collide as keys of a dict
DEEPEST = 100  # levels of a YAML
LONGEST = 100  # characters of a number in a YAML
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
SHORTEST_SECRET = 6  # characters, of those that are masked wherever they stand
Content = bytes | str | Callable[[Path], None]  # of a file; a function writes to the path it is given
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32] or "here"  # part of the names of unfinished files
_PART = re.compile(r"\.(?P<name>.+)\.(?P<host>[A-Za-z0-9-]{1,32})\.(?P<process>\d{1,9})\.part", re.DOTALL)
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def in_project(path: str | Path) -> Path:
    """An absolute path; what is relative lies in the project folder, whatever the working directory."""
    return PROJECT / Path(path).expanduser()


def write_atomically(path: str | Path, content: Content, flush: bool = True) -> Path:
    """Write a file beside its place, flush it to the disk, and rename it into place.

    Args:
        path: the file; its folder is made where missing.
        content: bytes, text, or a function that writes to the path it is given.
        flush: wait for the disk; without it the file is whole however the process ends, but not after a power cut.

    Raises:
        OSError: as the OS says; the old file, if any, is then untouched and nothing new is left.
    """
    path = Path(path)
    part = _part_of(path)
    try:
        _write_part(part, content, flush)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def write_together(contents: Mapping[Path, Content]) -> None:
    """Write files that belong together, of which the last one marks that all are there and of each other.

    All are written beside their places and flushed before any is moved: whatever happens until then, the old ones stay.
    Then the old mark goes, the others are renamed into place, and the new mark last: a kill between these renames
    leaves no mark, and another call puts that right.

    Args:
        contents: path → what `write_atomically` takes; the mark is the last.

    Raises:
        OSError: as the OS says; nothing unfinished is left, and the old files are untouched if it could not be written.
    """
    *_, mark = contents
    parts = {path: _part_of(path) for path in contents}
    try:
        for path, content in contents.items():
            _write_part(parts[path], content)
        mark.unlink(missing_ok=True)
        for path, part in parts.items():
            part.replace(path)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise


def _part_of(path: Path) -> Path:
    """Where this process writes a file before it is renamed into place; the folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.part")


def _write_part(part: Path, content: Content, flush: bool = True) -> None:
    """Write a file that is to be renamed into place; nothing that lies there, such as a link, is followed."""
    part.unlink(missing_ok=True)
    if callable(content):
        content(part)
    else:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    if flush:
        sync(part)


def is_leftover(path: Path, names: Iterable[str]) -> bool:
    """Whether a file is what `write_atomically` or `write_together` has not finished, or not yet, of one so named."""
    match = _PART.fullmatch(path.name)
    return match is not None and match["name"] in names


def open_in_place(path: str | Path, mode: str, buffering: int = -1) -> IO:
    """Open a file that is written where it stands, such as a lock or a log; all of them are opened here.

    Whoever made the folder may have put a link there, and what is written would go into a file elsewhere.

    Args:
        path: the file; made where missing, if the mode says so.
        mode: as of `open`, without "w".
        buffering: as of `open`.

    Raises:
        ValueError: a link, or no plain file; says what to do. Nothing was changed then.
        OSError: as the OS says.
    """

    def opened(name: str, flags: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            _check_own(path, os.lstat(name))  # before it is opened, since a pipe would wait for who reads it
        handle = os.open(name, flags | os.O_NOFOLLOW, 0o666)
        try:
            _check_own(path, os.fstat(handle))
        except ValueError:
            os.close(handle)
            raise
        return handle

    return open(path, mode, buffering, opener=opened)


def _check_own(path: str | Path, found: os.stat_result) -> None:
    """Raise ValueError if what is written to a file would be written elsewhere, too."""
    if stat.S_ISLNK(found.st_mode):
        what = "a symbolic link"
    elif not stat.S_ISREG(found.st_mode):
        what = "no plain file"
    elif found.st_nlink > 1:  # 0 if it has just been removed
        what = f"one of {found.st_nlink} names of a file"
    else:
        return
    raise ValueError(
        f"{path} is {what}, and writing there would change something elsewhere: remove it, or put a copy in its place. "
        "Nothing was changed"
    )


def remove_leftovers(folder: str | Path, *patterns: str) -> None:
    """Remove what `write_atomically` and `write_together` have left unfinished in a folder, of processes that were
    killed meanwhile.

    Of another machine that shares the folder it can't be known whether a process is still at work: its files go once
    they are an hour old. Those of this machine go by their process alone, since clocks jump.

    Args:
        folder: whose files are looked at, not those in folders within it.
        patterns: of other hidden files to remove, ".<pattern>", which nobody can be writing now.
    """
    for pattern in patterns:
        for path in Path(folder).glob(f".{pattern}"):
            path.unlink(missing_ok=True)
    for part in Path(folder).glob(".*.part"):
        match = _PART.fullmatch(part.name)
        with contextlib.suppress(OSError):
            if match and match["host"] == _HOST:
                gone = not psutil.pid_exists(int(match["process"]))
            else:
                gone = time.time() - part.stat().st_mtime > 3600
            if gone:
                part.unlink()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape, whether in Fortran order, and the data type that a .npy file begins with; `file` is left behind them.

    Raises:
        ValueError: no .npy file, one of a format for objects and records, or a damaged header.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"NumPy file format {version} is none that holds plain numbers")
    try:
        shape, fortran, dtype = HEADERS[version](file)
    except ValueError:
        raise
    except Exception as error:  # NumPy parses the header as Python, which raises whatever its tokenizer does
        raise ValueError(f"its header is damaged ({type(error).__name__}: {error})") from error
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"its header is damaged: shape {shape!r:.100}")
    return shape, fortran, dtype


def map_array(path: str | Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory, so that a false shape takes none; no pickle is read.

    Raises:
        ValueError: no .npy file, a damaged one, or one of Python objects.
        EOFError, OSError: it ends too early, or can't be read.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # an npz, which has no header of its own
            file.seek(0)
            shape, _, dtype = array_header(file)
            needed = 0 if dtype.hasobject else file.tell() + math.prod(shape) * dtype.itemsize
            if needed > os.fstat(file.fileno()).st_size:
                raise ValueError(f"an array {shape!r:.100} of {dtype} is greater than file size")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; no pickle is read, and nothing that unpacks to more than a gigabyte.

    Raises:
        ValueError: too large, an array of objects, or one whose shape asks for more bytes or fewer than it has.
        zipfile.BadZipFile, OSError, EOFError, KeyError: damaged, in other ways.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > MAX_NPZ_BYTES:
            raise ValueError(f"{size} bytes once unpacked, more than the {MAX_NPZ_BYTES} it may have")
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, _, dtype = array_header(file)
                expected = file.tell() + math.prod(shape) * dtype.itemsize
            if dtype.hasobject or expected != member.file_size:  # NumPy would take the memory first, and then read
                raise ValueError(f"{member.filename}: {shape} {dtype} needs {expected} bytes, got {member.file_size}")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def parse_yaml(text: str | bytes) -> Any:
    """A YAML document as plain values; no tag makes an object, and nothing in it takes more memory or time than a
    long document does. All YAML is read here.

    Raises:
        yaml.YAMLError: it is no YAML; too long, too deep, or more than `MAX_YAML_ENTRIES` once its aliases are
            followed; a key comes twice, too many keys are numbers, or a number is too long.
    """
    if len(text) > MOST_YAML:
        raise yaml.YAMLError(f"{len(text):,} characters, more than the {MOST_YAML:,} it may have")
    depth = 0
    for count, event in enumerate(yaml.parse(text, YAML)):  # before anything is made of them
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        if count > 2 * MAX_YAML_ENTRIES:
            raise yaml.YAMLError(f"more than {MAX_YAML_ENTRIES:,} entries")
    loader = YAML(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _entries(node, {}, [MOST_KEYS]) >= MAX_YAML_ENTRIES:
            raise yaml.YAMLError(f"more than {MAX_YAML_ENTRIES:,} entries once its aliases are followed")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:  # of a value its tag belies
        raise yaml.YAMLError(f"a value is not what its tag or look says ({error!r:.100})") from error
    finally:
        loader.dispose()


def _entries(node: yaml.Node, known: dict[int, int], keys: list[int]) -> int:
    """How many there are in a node; counted once where it stands often. One that holds itself has too many.

    Args:
        node: of any kind.
        known: counted nodes, by id.
        keys: in its one place, how many more may be other than text.
    """
    if id(node) not in known:
        known[id(node)] = MAX_YAML_ENTRIES
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, keys)
        elif isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS and len(node.value) > LONGEST:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value):,} characters")
        parts = (part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_entries(part, known, keys) for part in parts)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode, keys: list[int]) -> None:
    """That no key comes twice, and not too many can collide."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        if (key.tag, key.value) in seen:
            raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r:.50} comes a second time")
        seen.add((key.tag, key.value))
        keys[0] -= not key.tag.endswith(":str")
        if keys[0] < 0:
            raise yaml.YAMLError(f"more than {MOST_KEYS} keys that are not text: put them in quotes")


def sync(path: Path) -> None:
    """Flush a written file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_SURE = r"tokens?|passwo?r?d|passwd|pwd|passphrase|secret|signature|credentials?|(?:access|api|private)[_-]?key"
# A word of a name such as HF_TOKEN. Every repetition is bounded: a long text must not take quadratic time.
_EDGES = r"(?<![A-Za-z0-9])(?:[A-Za-z0-9_-]{{0,40}}[_-])?(?:{})(?:[_-][A-Za-z0-9_-]{{0,40}})?"
_NAME = _EDGES.format(rf"{_SURE}|sig|key|auth")
_VALUE = r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^&\s\"',;}]+)"
_IN_URL = (
    r"(\b[a-z][a-z0-9+.-]{1,20}:/{1,2}(?:[^/\s:@\"']{0,200}:)?)[^\s\"']{1,500}(?=@)"  # https://user:password@host, https://token@host
    rf"|([?&;]{_NAME}=)[^&\s\"'#]+"  # ?token=...
)
_SECRET_IN_URL = re.compile(_IN_URL, re.IGNORECASE)
_SECRET = re.compile(
    rf"{_IN_URL}"
    r"|(\b(?:bearer|basic)\s+)[\w.~+/=-]{4,}"  # Authorization: Bearer ...
    rf"|({_NAME}[\"']?\s*=\s*|{_EDGES.format(_SURE)}[\"']?:\s*){_VALUE}"  # TOKEN="..." or password: ...
    rf"|(--{_NAME}\s+){_VALUE}",  # --password ...
    re.IGNORECASE,
)


def mask_secrets(value: Any) -> Any:
    """A text, or the texts of a list, tuple or dict, with *** for passwords and tokens; other values as they are."""
    return _masked(value, _SECRET)


def mask_url_secrets(value: Any) -> Any:
    """As `mask_secrets`, but only what is secret in a URL: user names' passwords, tokens, and values of its query."""
    return _masked(value, _SECRET_IN_URL)


def _masked(value: Any, secret: re.Pattern) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_masked(entry, secret) for entry in value)
    if isinstance(value, dict):
        return {_masked(name, secret): _masked(entry, secret) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    return secret.sub(lambda match: f"{next(filter(None, match.groups()))}***", value)


def _secrets_in(value: Any) -> set[str]:
    """What `mask_secrets` would put *** for, where it is long enough to be told from other words."""
    if isinstance(value, list | tuple):
        return set().union(*map(_secrets_in, value))
    if isinstance(value, dict):
        return _secrets_in([*value, *value.values()])
    if not isinstance(value, str):
        return set()
    found = {match[0][len(next(filter(None, match.groups()))) :].strip("\"'") for match in _SECRET.finditer(value)}
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def mask_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Mask the secrets of an executed notebook, in place: in the parameters that papermill writes into it in plain
    text, in what cells print and raise, and wherever else a secret of the parameters stands, but for pictures.

    Returns:
        The notebook.
    """
    given = notebook["metadata"].get("papermill", {}).get("parameters", {})
    known = sorted(_secrets_in(given), key=len, reverse=True)

    def masked(value: Any, mask: Callable[[Any], Any]) -> Any:
        if isinstance(value, list):
            return [masked(entry, mask) for entry in value]
        if isinstance(value, dict):
            return type(value)({name: masked(entry, mask) for name, entry in value.items()})
        if not isinstance(value, str):
            return value
        for secret in known:
            value = value.replace(secret, "***")
        return mask(value)

    if "papermill" in notebook["metadata"]:
        notebook["metadata"]["papermill"] = masked(notebook["metadata"]["papermill"], mask_secrets)
    for cell in notebook["cells"]:
        injected = "injected-parameters" in cell["metadata"].get("tags", ())
        cell["source"] = masked(cell["source"], mask_secrets if injected else str)
        for output in cell.get("outputs", ()):
            for name in {"text", "evalue", "traceback"} & output.keys():
                output[name] = masked(output[name], mask_secrets)
            for kind, content in output.get("data", {}).items():
                if not kind.startswith("image/"):  # in a page that plays, key= may be part of a program
                    output["data"][kind] = masked(content, mask_secrets if kind == "text/plain" else mask_url_secrets)
    return notebook
