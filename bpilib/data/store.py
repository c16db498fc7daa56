"""The store: one folder of memory-mapped, variable-length clips that every data set is prepared into.

    manifest.json   format, data set, source, classes, counts, checksums
    poses.npy       (sum of L, M, V, 3) float32, the clips one after the other, nothing padded
    index.npz       names, labels, offsets, valid frames, subjects, cameras, setups, splits
    problems.csv    raw files that were left out, with the reason (may hold the header alone)

A store is made in <store>.partial, checked there, and renamed into its place; one that it replaces is <store>.replaced
for that moment. `settle` ends what a kill has interrupted.
"""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from bpilib.errors import MissingInputError
from bpilib.skeleton import SKELETONS, Skeleton
from bpilib.system.files import hash_file, read_npz, sync, write_atomically

VERSION = 1
FILES, MANIFEST = ("poses.npy", "index.npz", "problems.csv"), "manifest.json"
PARTS, RESUME = "parts", "resume.txt"  # in the folder of an unfinished store
Splits = Mapping[str, Mapping[str, Sequence[int] | np.ndarray]]  # benchmark → part → clip indices


@dataclass(frozen=True)
class Problem:
    """A raw file that could not be used as it is: what is wrong, on which line (0: whole file), what was done."""

    file: str
    what: str
    line: int = 0
    done: str = "left out"


@dataclass(frozen=True)
class Clip:
    """One clip on its way into a store; poses (L, M, V, 3) float32, label counted from 0."""

    name: str
    poses: np.ndarray
    label: int
    subject: int = 0
    camera: int = 0
    setup: int = 0


def mark_present(poses: np.ndarray) -> np.ndarray:
    """(L, M) bool, which persons are in which frames of poses (L, M, V, C); an absent person's numbers are all 0."""
    return np.asarray(poses.any((2, 3)))


def count_valid_frames(poses: np.ndarray) -> int:
    """Count the frames of poses (L, M, V, 3) whose coordinates do not sum to 0 (the published definition)."""
    return int((poses.sum((1, 2, 3), dtype=np.float64) != 0).sum())


def _compute_checksum(manifest: dict) -> str:
    """SHA-256 of a manifest's content without its checksum, independent of whitespace and order."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class StoreWriter:
    """Writes clips one by one to a folder beside `out`, which is renamed into place when it is complete.

    Only the index is kept in memory. Use as a context manager: an exception removes what was written; a kill leaves a
    folder `<out>.partial`, which the next writer removes or, if it is complete, puts into its place (`settle`). With
    `resume`, the writer's folder `parts` survives both, for the next writer with the same fingerprint.

    Args:
        out: the store's folder; must be empty or missing, unless `overwrite` and it holds a store.
        dataset: name of the data set.
        skeleton, persons: V and M of the clips.
        classes: class names in label order.
        overwrite: replace a store at `out` once the new one is complete and has been opened and verified.
        resume: fingerprint of everything that the store is made from; None: nothing is kept for another attempt.
    """

    def __init__(self, out: str | Path, dataset: str, skeleton: Skeleton, classes: Iterable[str],
                 persons: int | None = None, overwrite: bool = False, resume: str | None = None):  # fmt: skip
        self.out, self.resume = Path(out), resume
        settle(self.out)
        there = self.out.is_file() or (self.out.is_dir() and any(self.out.iterdir()))
        store = any((self.out / name).is_file() for name in ("poses.npy", "index.npz"))
        if there and not (store and overwrite):
            how = ", or pass overwrite=True to replace it" if store else "; it holds no store, so it is not replaced"
            raise ValueError(f"{self.out} exists already: choose another folder{how}")
        self.folder = _unfinished(self.out)
        self.parts = self.folder / PARTS
        self.dataset, self.skeleton, self.classes = dataset, skeleton, list(classes)
        self.shape = (skeleton.persons if persons is None else persons, skeleton.num_joints, 3)
        self.problems: list[Problem] = []
        self._rows: list[tuple] = []
        self._offsets = [0]

    def __enter__(self) -> Self:
        key = self.folder / RESUME
        if self.resume is None or not key.is_file() or key.read_text() != self.resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                whose = f"{self.folder}, of a preparation that was killed, can't be removed"
                raise PermissionError(f"{whose}: ask its owner to, or set the parameter data to another folder")
            self.folder.mkdir(parents=True)
        if self.resume is not None:
            self.parts.mkdir(exist_ok=True)
            write_atomically(key, self.resume)
        self._poses = (self.folder / "poses.npy").open("wb")
        self._header()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._poses.close()
        if kind is not None and self.resume is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _header(self) -> None:
        """Write the header of poses.npy; NumPy pads it, so it can be overwritten when the first axis has grown."""
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._offsets[-1], *self.shape)}
        np.lib.format.write_array_header_1_0(self._poses, header)

    def check_clip(self, clip: Clip) -> np.ndarray:
        """Check a clip, and return its poses (L, M, V, 3) float32.

        Raises:
            ValueError: wrong shape, no frame, a number that is not finite, a label without a class, or a name that
                leads out of a folder (figures are named after clips).
        """
        poses = np.asarray(clip.poses, np.float32)
        if poses.ndim != 4 or poses.shape[1:] != self.shape or not len(poses):
            m, v, _ = self.shape
            raise ValueError(f"expected poses (L, {m}, {v}, 3) with L of at least 1, got {poses.shape}")
        if not np.isfinite(poses).all():
            raise ValueError("coordinates that are not finite (NaN or infinite)")
        if not 0 <= clip.label < len(self.classes):
            raise ValueError(f"label {clip.label} outside 0...{len(self.classes) - 1}")
        if _leads_out(clip.name):
            raise ValueError(f"expected a name without '..', which leads out of a folder, got {clip.name[:200]!r}")
        return poses

    def add(self, clip: Clip) -> None:
        """Append a clip; raises ValueError as `check_clip`."""
        poses = self.check_clip(clip)
        self._poses.write(np.ascontiguousarray(poses, "<f4").tobytes())
        self._offsets.append(self._offsets[-1] + len(poses))
        self._rows.append((clip.name, clip.label, count_valid_frames(poses), clip.subject, clip.camera, clip.setup))

    def finish(
        self,
        splits: Splits,
        source: Mapping[str, object],
        counts: Mapping[str, int] | None = None,
        options: Mapping[str, object] | None = None,
        plausibility: Mapping[str, object] | None = None,
    ) -> "SkeletonStore":
        """Close the files, write index and manifest, open and verify the whole, rename the folder into place.

        Args:
            splits: benchmark → part ("train", "test") → clip indices in the published order.
            source: what the store was made from; compared when the same store is prepared again.
            counts: more counts for the manifest.
            options: for the manifest, how the clips were made.
            plausibility: for the manifest, a summary of `bpilib.data.plausibility`.

        Raises:
            ValueError: no clip, or what was written can't be opened as it was meant; a store at `out` stays.
        """
        if not self._rows:
            first = "; ".join(f"{problem.file}: {problem.what}" for problem in self.problems[:3])
            raise ValueError(f"no usable clip for {self.out}; first problems: {first or 'there is none at all'}")
        self._poses.seek(0)
        self._header()
        self._poses.close()
        names = ("names", "labels", "valid_frames", "subjects", "cameras", "setups")
        index = {key: np.array(column) for key, column in zip(names, zip(*self._rows))}
        index["offsets"] = np.array(self._offsets, np.int64)
        for benchmark, parts in splits.items():
            for part, indices in parts.items():
                index[f"split/{benchmark}/{part}"] = np.asarray(indices, np.int64)
        buffer = io.BytesIO()
        np.savez(buffer, **index)  # type: ignore[arg-type]  # NumPy's stubs take every keyword for `allow_pickle`
        (self.folder / "index.npz").write_bytes(buffer.getvalue())
        with (self.folder / "problems.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows([("file", "what", "line", "done"), *map(astuple, self.problems)])
        manifest = {
            "format": "bpilib store",
            "version": VERSION,
            "dataset": self.dataset,
            "skeleton": self.skeleton.name,
            "persons": self.shape[0],
            "classes": self.classes,
            "counts": {
                "clips": len(self._rows),
                "frames": self._offsets[-1],
                "problems": len(self.problems),
                **(counts or {}),
                "splits": {b: {p: len(i) for p, i in parts.items()} for b, parts in splits.items()},
            },
            "source": source,
            **({"options": options} if options else {}),
            **({"plausibility": plausibility} if plausibility else {}),
            "sha256": {name: hash_file(self.folder / name) for name in FILES},
        }
        manifest["checksum"] = _compute_checksum(manifest)
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for name in (*FILES, MANIFEST):
            sync(self.folder / name)
        try:
            SkeletonStore.open(self.folder).verify()
        except ValueError as error:
            what = "what was written is not what is there, and replaces nothing"
            raise ValueError(f"{self.out}: {what} ({error}): is the disk full or faulty?") from error
        _put_in_place(self.folder, self.out)
        return SkeletonStore.open(self.out)


def _unfinished(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _replaced(out: Path) -> Path:
    return out.with_name(out.name + ".replaced")


def _leads_out(name: str) -> bool:
    return ".." in name.split("/")


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename a whole store to `out`. At every moment one of `out`, <out>.replaced and `folder` is a whole store."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    (folder / RESUME).unlink(missing_ok=True)
    old = _replaced(out)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether a folder is a store with every byte that was written into it."""
    try:
        SkeletonStore.open(folder).verify()
    except (ValueError, OSError):
        return False
    return True


def find_leftovers(out: str | Path) -> list[Path]:
    """Find the folders that a killed preparation has left beside a store."""
    found = [path for path in (_unfinished(Path(out)), _replaced(Path(out))) if path.is_dir()]
    return [path for path in found if {entry.name for entry in path.iterdir()} <= {*FILES, MANIFEST, PARTS, RESUME}]


def settle(out: str | Path) -> None:
    """End what a killed writer began, for the one process that may write there.

    Where nothing is at `out`, a new store that was whole is put into its place, or else the one that it should have
    replaced. What is left over is removed, but for parts that another try goes on with.
    """
    out = Path(out)
    new, old = _unfinished(out), _replaced(out)
    if not out.exists() and find_leftovers(out):
        if _is_whole(new):
            _put_in_place(new, out)
        elif _is_whole(old):
            old.rename(out)
    if (out / MANIFEST).exists():
        for folder in find_leftovers(out):
            if not (folder / RESUME).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _nothing_there(path: Path) -> str:
    """That there is no store, and where there is one that a killed preparation was about to replace."""
    run = "run notebooks/01_prepare_data.ipynb (or bpilib.data.prepare)"
    for folder, what in ((_unfinished(path), "the new one"), (_replaced(path), "the one that was there")):
        if (folder / MANIFEST).is_file():
            where = f"a preparation was killed as it replaced it, and {what} is in {folder}"
            return f"no prepared data at {path}: {where}. To go on, {run}"
    return f"no prepared data at {path}: {run} first"


class SkeletonStore:
    """Clips of one data set, read from a prepared folder. Open with `SkeletonStore.open`.

    Attributes:
        path: of its folder.
        manifest: content of manifest.json.
        poses: (sum of L, M, V, 3) float32, memory-mapped; clip i is poses[offsets[i] : offsets[i + 1]].
        names: (n,) str.
        labels: (n,) int64, from 0.
        lengths, valid_frames: (n,) int64, frames of each clip, and those whose coordinates do not sum to 0.
        offsets: (n+1,) int64.
        subjects, cameras, setups: (n,) int64; 0: unknown.
        classes: class names in label order.
        skeleton: NTU or UCLA.
        persons: M.
    """

    def __init__(self, path: Path, manifest: dict, poses: np.ndarray, index: dict[str, np.ndarray]):
        self.path, self.manifest, self.poses = path, manifest, poses
        self.names, self.labels, self.offsets = index["names"], index["labels"], index["offsets"]
        self.subjects, self.cameras, self.setups = index["subjects"], index["cameras"], index["setups"]
        self.valid_frames, self.lengths = index["valid_frames"], np.diff(self.offsets)
        self.dataset: str = manifest["dataset"]
        self.classes: list[str] = manifest["classes"]
        self.skeleton = SKELETONS[manifest["skeleton"]]
        self.persons: int = manifest["persons"]
        self._splits = {key.removeprefix("split/"): value for key, value in index.items() if key.startswith("split/")}

    @classmethod
    def open(cls, path: str | Path) -> "SkeletonStore":
        """Open a prepared folder; only the index is read.

        Raises:
            MissingInputError: no store there.
            ValueError: not a store, a store of another version, or a damaged one.
        """
        file = (path := Path(path)) / MANIFEST
        if not file.is_file():
            raise MissingInputError(_nothing_there(path))
        renew = f"prepare the data again into another folder, or with overwrite=True (notebook 01), to replace {path}"
        try:
            manifest = json.loads(file.read_bytes())
            version = manifest["version"] if manifest["format"] == "bpilib store" else None
            if version == VERSION:
                SKELETONS[manifest["skeleton"]], manifest["counts"]["splits"]
                int(manifest["persons"]), list(manifest["classes"]), str(manifest["dataset"]), dict(manifest["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a store's manifest ({error}): {renew}") from error
        if version != VERSION:
            raise ValueError(f"{path} is a store of version {version}, this bpilib reads version {VERSION}: {renew}")
        if "checksum" in manifest and manifest["checksum"] != _compute_checksum(manifest):  # older stores have none
            raise ValueError(
                f"{file} was changed after it was written (its checksum differs). If class names were edited, labels "
                f"and scores would belong to other classes; {renew}"
            )
        try:
            poses = np.load(path / "poses.npy", mmap_mode="c", allow_pickle=False)
            index = read_npz(path / "index.npz")
            frames = int(index["offsets"][-1])
            if hash_file(path / "index.npz") != manifest["sha256"]["index.npz"]:
                raise ValueError("index.npz differs from its checksum")
            if out := next(filter(_leads_out, index["names"].tolist()), None):
                raise ValueError(f"the clip name {out!r} leads out of its folder")
        except Exception as error:  # zip, zlib and NumPy each have their own for a damaged file
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): {renew}") from error
        if len(poses) != frames or frames != manifest["counts"]["frames"]:
            raise ValueError(f"{path} is damaged (expected {frames} frames, found {len(poses)}): {renew}")
        return cls(path, manifest, poses, index)

    def verify(self) -> None:
        """Read every file, and compare its SHA-256 with the manifest's.

        Raises:
            ValueError: names the files that differ.
        """
        files = {name: self.path / name for name in self.manifest["sha256"]}
        wrong = [n for n, file in files.items() if not file.is_file() or hash_file(file) != self.manifest["sha256"][n]]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of {self.path} differ from the manifest: prepare the data again")

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, i: int) -> np.ndarray:
        """Clip i, float32 (L, M, V, 3), read-only, as the feeder takes it."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        i %= len(self)
        clip = self.poses[self.offsets[i] : self.offsets[i + 1]]
        clip.flags.writeable = False
        return clip

    @property
    def benchmarks(self) -> list[str]:
        """Names of the evaluation protocols, e.g. ["xview"]."""
        return list(self.manifest["counts"]["splits"])

    def split(self, benchmark: str, part: str) -> np.ndarray:
        """The clip indices, int64, of a part ("train" or "test") of a benchmark, in the published order.

        Raises:
            ValueError: no such split; names those there are.
        """
        key = f"{benchmark}/{part}"
        if key not in self._splits:
            raise ValueError(f"no split {key!r} in {self.path}: expected one of {', '.join(self._splits)}")
        return self._splits[key]

    def problems(self) -> list[Problem]:
        """The raw files that were left out when the store was made."""
        with (self.path / "problems.csv").open(newline="", encoding="utf-8", errors="replace") as file:
            return [Problem(row["file"], row["what"], int(row["line"]), row["done"]) for row in csv.DictReader(file)]
