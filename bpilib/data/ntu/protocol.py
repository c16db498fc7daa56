"""The protocols of NTU RGB+D 60 and 120: file names, splits, classes, the official list of missing samples.

A file `SsssCcccPpppRrrrAaaa.skeleton` is named by setup, camera, subject, replication and action.

Source: Shahroudy et al., "NTU RGB+D", CVPR 2016; Liu et al., "NTU RGB+D 120", TPAMI 2020.
"""

import functools
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bpilib.data.ntu.raw_files import ENDING, BadFileError, RawFile, differ, find_raw_files, fingerprint
from bpilib.data.store import Problem, SkeletonStore
from bpilib.errors import MissingInputError
from bpilib.system.files import PARAMS, parse_yaml

FILE_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
ID_FIELDS = ("setup", "camera", "subject", "replication", "action")
MAX_IDS = {"ntu60": (17, 3, 40, 2, 60), "ntu120": (32, 3, 106, 2, 120)}
TRAIN_SUBJECTS = (
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,  # these 20 are NTU60's
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94,
    95, 97, 98, 100, 103,
)  # fmt: skip
PUBLISHED_SIZES = {  # published, train and test
    "ntu60": {"xsub": (40_091, 16_487), "xview": (37_646, 18_932)},
    "ntu120": {"xsub": (63_026, 50_919), "xset": (54_468, 59_477)},
}
CLASS_NAMES_FILE = PARAMS / "prompts" / "ntu120.yaml"
MISSING = PARAMS / "ntu_missing.txt"


@functools.cache
def read_missing() -> frozenset[str]:
    """Read the official list of samples without usable skeletons: 302 of NTU60, 535 of NTU120."""
    return frozenset(MISSING.read_text().split())


def read_classes(dataset: str) -> list[str]:
    """Read the official class names in the order A001, A002, ...

    Raises:
        MissingInputError: their file is missing.
        ValueError: it holds another number of them.
    """
    if not CLASS_NAMES_FILE.is_file():
        raise MissingInputError(f"no class names at {CLASS_NAMES_FILE}: restore the file from git")
    names = parse_yaml(CLASS_NAMES_FILE.read_bytes())["classes"]
    if len(names) != MAX_IDS["ntu120"][-1]:
        raise ValueError(f"{CLASS_NAMES_FILE}: expected {MAX_IDS['ntu120'][-1]} classes, got {len(names)}")
    return names[: MAX_IDS[dataset][-1]]


def parse_ids(name: str, dataset: str) -> tuple[int, ...]:
    """Parse a file's name, without ending: setup, camera, subject, replication and action.

    Raises:
        BadFileError: a name of another form, or a number outside the data set's protocol.
    """
    match = FILE_NAME.fullmatch(name)
    if match is None:
        raise BadFileError("its name is not like S001C002P003R002A013")
    ids = tuple(int(number) for number in match.groups())
    for what, number, most in zip(ID_FIELDS, ids, MAX_IDS[dataset]):
        if not 1 <= number <= most:
            raise BadFileError(f"{what} {number} is outside the protocol of {dataset} (1 to {most})")
    return ids


def make_splits(dataset: str, subjects: np.ndarray, cameras: np.ndarray, setups: np.ndarray) -> dict[str, dict]:
    """Split clips as published, by their subjects, cameras and setups, (n,) int64 each.

    Returns:
        benchmark → part ("train", "test") → (n_part,) int64 clip indices, sorted by subject, camera or setup (whichever
        the benchmark goes by), else in their order.
    """

    def ordered(key: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        indices = np.flatnonzero(chosen)
        return indices[np.argsort(key[indices], kind="stable")]

    rules = {
        "xsub": (subjects, np.isin(subjects, TRAIN_SUBJECTS)),
        "xview": (cameras, np.isin(cameras, (2, 3))),
        "xset": (setups, setups % 2 == 0),
    }
    return {
        benchmark: {"train": ordered(key, train), "test": ordered(key, ~train)}
        for benchmark, (key, train) in rules.items()
        if benchmark in PUBLISHED_SIZES[dataset]
    }


@dataclass
class Listing:
    """The raw files that were found, sorted by name in each list.

    Attributes:
        files: to be read.
        problems: bad by their names or sizes.
        missing: names on the official list of missing samples; their files are skipped.
        elsewhere: number of files from NTU120's setups, which NTU60 does not use.
        source: description of the files for a store's manifest.
    """

    files: list[RawFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    elsewhere: int = 0
    source: dict[str, object] = field(default_factory=dict)

    def absent(self) -> list[str]:
        """Names of recordings whose files are missing.

        Every subject recorded in a setup performed its 60 actions twice before three cameras. A setup and subject of
        whom there is no file at all can't be noticed.
        """
        bad = {problem.file.removesuffix(ENDING) for problem in self.problems}
        here = {file.name for file in self.files} | bad | read_missing()
        every = (range(1, 4), range(1, 3), range(1, 61))
        found: list[str] = []
        for setup, subject, half in sorted({(f.name[:4], f.name[8:12], f.name[17:] > "060") for f in self.files}):
            names = (
                f"{setup}C{camera:03}{subject}R{replication:03}A{action + 60 * half:03}"
                for camera, replication, action in itertools.product(*every)
            )
            found += (name for name in names if name not in here)
        return found


def list_raw_files(dataset: str, raw: str | Path | Sequence[str | Path]) -> Listing:
    """Find the raw files, and sort them by what their names tell.

    Raises:
        MissingInputError, ValueError: see `bpilib.data.ntu.raw_files.find_raw_files`.
    """
    listed, taken = Listing(), []
    for name, group in itertools.groupby(find_raw_files(raw), key=lambda file: file.name):
        file, *others = group
        match = FILE_NAME.fullmatch(name)
        if dataset == "ntu60" and match and MAX_IDS["ntu60"][0] < int(match[1]) <= MAX_IDS["ntu120"][0]:
            listed.elsewhere += 1
            continue
        taken.append(file)
        try:
            parse_ids(name, dataset)
            if any(other.size != file.size for other in others):  # else perhaps the same, unpacked and in the zip
                raise BadFileError(f"{1 + len(others)} files of this name, of different sizes")
            if any(differ(file, other) for other in others):
                raise BadFileError(f"{1 + len(others)} files of this name, that differ")
        except BadFileError as error:
            listed.problems.append(Problem(name + ENDING, str(error)))
            continue
        if name in read_missing():
            listed.missing.append(name)
        else:
            listed.files.append(file)
    places = [raw] if isinstance(raw, str | Path) else raw
    listed.source = {
        "name": ", ".join(Path(place).name for place in places),
        "files": len(taken),
        "bytes": sum(file.size for file in taken),
        "fingerprint": fingerprint(taken),
    }
    if all(file.start >= 0 for file in taken):
        listed.source["crcs"] = fingerprint(taken, [file.stamp for file in taken])
    else:
        listed.source["modified"] = max(file.stamp for file in taken if file.start < 0)
    return listed


def compare_listings(saved: Mapping[str, object], now: Mapping[str, object]) -> str:
    """What differs between the raw files that a store was made from and those of a `Listing.source`; "" if nothing.

    Names and sizes tell, and in zips the checksums. Of unpacked files, which are too many to read once more, one that
    was changed later than all were then is warned of. What a manifest does not have is not compared.
    """
    for key in ("files", "bytes", "fingerprint", "crcs"):
        if key in saved and key in now and saved[key] != now[key]:
            return "their content was changed" if key == "crcs" else f"{key}: {saved[key]} then, {now[key]} now"
    then, newest = saved.get("modified"), now.get("modified")
    if isinstance(then, int) and isinstance(newest, int) and newest > then:
        warnings.warn(
            "some raw files, of the names and sizes that they had, were written after this store was made of them: if "
            "their content was changed as well, pass overwrite=True",
            stacklevel=4,
        )
    return ""


def compare_with_published(store: SkeletonStore, listed: Listing | None = None) -> str:
    """Describe how the sizes of a store's splits differ from the published ones, and why; "" if they do not.

    Args:
        store: of NTU60 or NTU120; benchmarks that it does not have are not compared.
        listed: the raw files it was made from; None: it was imported.
    """
    lines = []
    for benchmark, sizes in PUBLISHED_SIZES[store.dataset].items():
        for part, published in zip(("train", "test"), sizes) if benchmark in store.benchmarks else ():
            count = len(store.split(benchmark, part))
            if count != published:
                lines.append(f"  {benchmark} {part}: {count:,} clips, published {published:,} ({count - published:+,})")
    if not lines:
        return ""
    differ = f"{store.dataset} differs from the published splits, accuracies will not compare:\n"
    if listed is None:
        return differ + "\n".join(lines)
    left_out = [problem.file for problem in store.problems() if problem not in listed.problems]
    published = sum(PUBLISHED_SIZES[store.dataset]["xsub"])
    if left_out:
        lines.append(f"  left out as bad: {_list_some(left_out)}")
    if len(listed.files) > published / 2:
        absent = listed.absent()
        if absent:
            lines.append(f"  not among the raw files: {_list_some(absent)}")
    else:
        lines.append(f"  the raw files are {len(listed.files):,} of {published:,}")
    return differ + "\n".join(lines)


def _list_some(names: list[str]) -> str:
    more = f", ... and {len(names) - 20:,} more" if len(names) > 20 else ""
    return f"{len(names):,} files ({', '.join(names[:20])}{more})"
