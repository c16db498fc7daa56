"""Shared by all imports: writing clips, listing problems, fitting skeleton, classes and persons."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bpilib.data.plausibility import Finding, Inspection
from bpilib.data.store import Clip, Problem, SkeletonStore, Splits, StoreWriter, mark_present
from bpilib.data.tables import normalise_name, read_names
from bpilib.recipes import PLAIN_NAME
from bpilib.skeleton import SKELETONS, Skeleton

CLASS_NAMES_FILE = "classes.txt"
MAX_CLIP_BYTES = 64 << 20  # of one clip; the largest real one has 0.2 MB
MAX_CLASSES = 10_000
KEPT = "kept those that move most"  # of too many persons
FEW = 0.25  # share of frames


def check_on_error(on_error: str) -> None:
    """ValueError unless a bad clip is to be left out ("skip") or to end it all ("raise")."""
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error: expected 'skip' or 'raise', got {on_error!r}")


class ImportWriter(StoreWriter):
    """A StoreWriter that lists bad clips, or raises, and checks whether the clips are bodies in metres.

    Args:
        out, dataset, skeleton, classes, overwrite: see `StoreWriter`.
        on_error: "skip" leaves a bad clip out, lists it in problems.csv and warns; "raise" raises.
        inspection: of the clips; None: one for `skeleton`.
    """

    def __init__(
        self,
        out: str | Path,
        dataset: str,
        skeleton: Skeleton,
        classes: Iterable[str],
        on_error: str = "skip",
        overwrite: bool = False,
        inspection: Inspection | None = None,
    ):
        check_on_error(on_error)
        super().__init__(out, dataset, skeleton, classes, overwrite=overwrite)
        self.on_error, self.count = on_error, 0
        self.inspection = inspection or Inspection(skeleton)
        self.said: list[str] = []

    def add_checked(self, clip: Clip, raw: np.ndarray | None = None) -> int:
        """Check a clip, append it, and return its index.

        Args:
            clip: the clip.
            raw: the poses as they came in, from which a wrong tracker is recognised.

        Raises:
            ValueError: see `add`; also a bad name or number, or a clip that can't be a body in metres. Nothing is
                appended then.
        """
        if not is_printable(clip.name):
            raise ValueError(f"expected a name of 1 to 200 printable characters, got {clip.name[:200]!r}")
        if not all(0 <= number < 1 << 31 for number in (clip.subject, clip.camera, clip.setup)):
            raise ValueError("subject, camera and setup: expected whole numbers from 0")
        self.inspection.see(clip.name, self.check_clip(clip), raw)
        self.add(clip)
        self.count += 1
        return self.count - 1

    def skip(self, file: str, what: object, line: int = 0, done: str = "left out") -> None:
        """List a problem, or raise a ValueError, as `on_error` says."""
        if self.on_error == "raise":
            raise ValueError(f"{file}{f', {line}' if line else ''}: {what}")
        self.problems.append(Problem(file, str(what), line, done))

    def note_dropped_persons(self, file: str, dropped: int) -> None:
        """List that a clip has lost persons to `fit_persons`, if it has."""
        if dropped:
            self.skip(file, describe_dropped(self.shape[0], dropped), done=KEPT)

    def finish_import(self, splits: Splits, source: Mapping[str, object]) -> SkeletonStore:
        """Finish the store, then warn of conversions (`said`), implausible clips and the first problems.

        Raises:
            ValueError: see `finish`; also clips that can't be bodies in metres with the joints of this skeleton.
        """
        for benchmark in splits:
            if not PLAIN_NAME.fullmatch(benchmark):
                raise ValueError(f"a benchmark needs a name of letters (a-z), digits, _ . and -, got {benchmark!r:.80}")
        warned = refuse_or_warn(self.inspection.findings(), self.out)
        options = {"conventions": self.said} if self.said else None
        store = self.finish(splits, source, options=options, plausibility=self.inspection.summary())
        for said in (*self.said, *warned):
            warnings.warn(said, stacklevel=3)
        warn_of_problems(store)
        return store


def refuse_or_warn(findings: Iterable[Finding], where: object) -> list[str]:
    """Turn findings into warnings; raise ValueError if one of them says to refuse."""
    found = {severity: [f.what for f in findings if f.severity == severity] for severity in ("refuse", "warn")}
    if found["refuse"]:
        what = "; ".join(map(_capitalise, found["refuse"]))
        raise ValueError(f"{where}: these clips can't be what they are taken for. {what}")
    return [f"{where}: look at the clips (01 and 08 draw them). {_capitalise(what)}" for what in found["warn"]]


def _capitalise(what: str) -> str:
    return what[0].upper() + what[1:]


def warn_of_problems(store: SkeletonStore) -> None:
    """Warn of the problems that were met when a store was made."""
    problems = store.problems()
    if not problems:
        return
    left_out = sum(problem.done == "left out" for problem in problems)
    lines = [f"  {p.file}{f', line {p.line}' if p.line else ''}: {p.what}: {p.done}" for p in problems[:10]]
    lines += [f"  ... and {len(problems) - 10:,} more"] if len(problems) > 10 else []
    count = f"{len(problems):,} problem{'s' * (len(problems) != 1)}"
    where = store.path / "problems.csv"
    warnings.warn(f"{count}, {left_out:,} left out (all of them in {where}):\n" + "\n".join(lines), stacklevel=3)


def find_skeleton(joints: int, where: object) -> Skeleton:
    """Find the skeleton that has this number of joints.

    Raises:
        ValueError: there is none; `where` begins the message.
    """
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == joints:
            return skeleton
    known = " or ".join(f"{skeleton.num_joints} joints ({name})" for name, skeleton in SKELETONS.items())
    raise ValueError(f"{where}: expected {known}, got {joints}")


def describe_dropped(persons: int, dropped: int) -> str:
    """Say of a clip that `fit_persons` has left out `dropped` of its persons."""
    return f"{persons + dropped} persons, {persons} expected"


def is_printable(name: str) -> bool:
    """Check whether a clip or class may have this name, which tables and figures show."""
    return 0 < len(name) <= 200 and name.isprintable()


def choose_class_names(folder: Path, labels: Iterable[str], classes: Iterable[str] | None) -> list[str]:
    """Choose the class names, in label order.

    Args:
        folder: in which classes.txt may lie, one name a line.
        labels: of the clips. One that can't be shown makes no class, so that its clips are left out.
        classes: the names, if they are given; they come first, then classes.txt, then the labels: sorted, or "class 0"
            and so on if all are numbers.

    Raises:
        ValueError: no name, too many, two that are equal but for capitals, blanks, underscores and hyphens, or one in
            classes.txt that can't be shown.
    """
    labels = {label for label in labels if is_printable(label)}
    if classes is not None:
        names = list(classes)
    elif (folder / CLASS_NAMES_FILE).is_file():
        names = read_names(folder / CLASS_NAMES_FILE)
    elif all(label.isdecimal() for label in labels):
        last = max((int(label) for label in labels), default=0)
        names = [f"class {i}" for i in range(min(last, MAX_CLASSES) + 1)]
    else:
        names = sorted(labels)
    if not names or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise ValueError(
            f"{folder}: expected 1 to {MAX_CLASSES} different class names, got {len(names)}, {len(set(names))} of them "
            f"different; write them into {CLASS_NAMES_FILE}, one a line"
        )
    if wrong := [name for name in names if not is_printable(name)]:
        where = folder / CLASS_NAMES_FILE
        raise ValueError(f"{where}: expected names of 1 to 200 printable characters, got {wrong[0][:200]!r}")
    count = Counter(map(normalise_name, names))
    if classes is None and (alike := [name for name in names if count[normalise_name(name)] > 1]):
        raise ValueError(f"{folder}: {', '.join(map(repr, alike[:6]))} would be different classes: write them alike")
    return names


def fit_persons(poses: np.ndarray, persons: int) -> tuple[np.ndarray, int]:
    """Fit a clip (L, any M, V, 3) to a number of persons.

    Missing persons are filled with zeros. Of too many, those that move most are kept, in their order. The measure is
    the published one, variance over frames, summed over joints and axes, of the frames in which a person is there:
    being lost is no movement. Persons who are there in less than `FEW` of the frames of the one seen most come last.

    Returns:
        (L, persons, V, 3) float32, and the number of present persons that were left out.

    Raises:
        ValueError: coordinates that are not finite, also as float32.
    """
    with np.errstate(over="ignore"):
        poses = poses.astype(np.float32)
    if not np.isfinite(poses).all():
        raise ValueError("coordinates that are not finite (NaN or infinite)")
    there = mark_present(poses)
    present = np.flatnonzero(there.any(0))
    if poses.shape[1] > persons:
        motion = np.array([poses[there[:, m], m].var(0, dtype=np.float64).sum() for m in present])
        seen = there[:, present].sum(0)
        kept = np.sort(present[np.lexsort((-motion, seen < FEW * seen.max(initial=0)))[:persons]])
        poses = poses[:, kept]
    missing = persons - poses.shape[1]
    return np.pad(poses, ((0, 0), (0, missing), (0, 0), (0, 0))), max(len(present) - persons, 0)
