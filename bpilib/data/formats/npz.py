"""Imports and exports arrays of prepared clips, `NTU60_CS.npz` and the like.

Such a file holds x_train and x_test (n, T, M·V·3) float32, clips padded with zero frames to T = 300 (columns: x y z of
the first person's joints, then of the second's), and y_train and y_test (n, K), one-hot. Also accepted: x (n, 3, T, V,
M), and y (n,) of class numbers. Files can be larger than memory: both directions work clip by clip.

Source: the preparation scripts that CTR-GCN, InfoGCN, HD-GCN, GAP and BPI share.
"""

import hashlib
import itertools
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.conventions import PROBED, Convention
from bpilib.data.importer import CLASS_NAMES_FILE, MAX_CLIP_BYTES, ImportWriter, choose_class_names
from bpilib.data.source import Source
from bpilib.data.store import Clip, SkeletonStore
from bpilib.data.tables import detect_base, shift_label
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, SKELETONS, Skeleton
from bpilib.system.files import array_header, write_atomically

PARTS = ("train", "test")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever error reading raises into a ValueError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged or no npz ({error}): get or make it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Rows:
    """An array of an npz, read row by row from the zip: `shape`, `dtype`, and iteration over the first axis."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, key: str):
        self.archive, self.path = archive, path
        try:
            self.info = archive.getinfo(f"{key}.npy")
        except KeyError:
            names = ", ".join(archive.namelist()[:6]) or "nothing"
            raise ValueError(f"no {key} in it: expected x_train, y_train, x_test and y_test, got {names}") from None
        with archive.open(self.info) as file:
            self.shape, fortran, self.dtype = array_header(file)
            self.start = file.tell()
        if fortran or self.dtype.kind not in "fiub":
            raise ValueError(f"{key}: expected numbers in C order, got {'Fortran order' if fortran else self.dtype}")
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not self.shape or self.row_bytes > MAX_CLIP_BYTES:
            raise ValueError(f"{key}: expected an array of clips, got shape {self.shape}")
        expected, size = self.start + self.shape[0] * self.row_bytes, self.info.file_size
        if size != expected:
            raise ValueError(f"{key}: shape {self.shape} {self.dtype} needs {expected} bytes, the file has {size}")

    def __iter__(self) -> Iterator[np.ndarray]:
        with self.archive.open(self.info) as file:
            file.read(self.start)
            for _ in range(self.shape[0]):
                with _reading(self.path):
                    row = np.frombuffer(file.read(self.row_bytes), self.dtype).reshape(self.shape[1:])
                yield row


def _open(path: Path, stack: ExitStack) -> dict[str, tuple[_Rows, _Rows]]:
    """Open an npz: part → (x, y); the file is closed with the stack."""
    if not path.is_file():
        raise MissingInputError(f"no file {path}: expected an npz with x_train, y_train, x_test and y_test")
    with _reading(path):
        archive = stack.enter_context(zipfile.ZipFile(path))
        return {part: (_Rows(archive, path, f"x_{part}"), _Rows(archive, path, f"y_{part}")) for part in PARTS}


def _check(parts: dict[str, tuple[_Rows, _Rows]], shape: tuple[int, int, int], classes: int, first: int) -> None:
    """Check the shapes of the arrays: clips of (M, V, 3), classes counted from `first`."""
    columns = math.prod(shape)
    for part, (x, y) in parts.items():
        axes = len(x.shape) == 5 and x.shape[1::3] == (3, shape[0]) and x.shape[3] == shape[1]
        rows = len(x.shape) == 3 and x.shape[2] == columns
        if not (axes or rows) or 0 in x.shape[1:] or x.dtype.kind != "f":
            raise ValueError(f"x_{part}: expected (n, T, {columns}) floats, got {x.shape} {x.dtype}")
        numbers = y.shape == x.shape[:1] and y.dtype.kind in "iu"
        if not numbers and y.shape != (x.shape[0], classes + first):
            raise ValueError(
                f"y_{part}: expected ({x.shape[0]}, {classes}), one-hot: a row for each of x_{part}, a column for "
                f"each class; got {y.shape}"
            )


def _cut_padding(row: np.ndarray) -> np.ndarray:
    """Remove the padding of a row of x, (T, MV3) or (3, T, V, M): (L, MV3)."""
    if row.ndim == 4:
        row = row.transpose(1, 3, 2, 0).reshape(row.shape[1], -1)  # (3,T,V,M) -> (T,M,V,3) -> (T,MV3)
    return row[: 1 + np.flatnonzero(row.any(1)).max(initial=-1)]


def _read_labels(opened: dict[str, dict[str, tuple[_Rows, _Rows]]]) -> tuple[list[int], int]:
    """Read the labels of all files, benchmark → part → (x, y), and the number of columns of one-hot ones, else 0.

    The last column is one of the labels, since it was made for a class.
    """
    every = [y for parts in opened.values() for _, y in parts.values()]
    columns = every[0].shape[-1] if len(every[0].shape) == 2 else 0
    labels = [label for y in every for label in map(_parse_label, y) if label is not None]
    return [*labels, *([columns - 1] if columns else [])], columns


def _recognise_skeleton(shape: tuple[int, ...]) -> Skeleton:
    """Recognise the skeleton by the number of columns, or by the axes V and M."""
    columns = math.prod(shape[1::2]) * shape[4] if len(shape) == 5 else shape[-1]
    for skeleton in SKELETONS.values():
        if skeleton.persons * skeleton.num_joints * 3 == columns:
            return skeleton
    known = " or ".join(f"{s.persons * s.num_joints * 3} ({name})" for name, s in SKELETONS.items())
    raise ValueError(f"x_train: expected (n, T, M·V·3) with {known} columns, got {columns}")


def _parse_label(row: np.ndarray) -> int | None:
    """The class of a row of y, one-hot or a whole number; None if it is neither."""
    if row.ndim == 0:
        return int(row) if row == np.floor(row) and 0 <= row < 1 << 31 else None
    hot = np.flatnonzero(row)
    return int(hot[0]) if len(hot) == 1 and row[hot[0]] == 1 else None


def import_npz(
    files: Mapping[str, str | Path],
    out: str | Path,
    dataset: str,
    classes: Iterable[str] | None = None,
    skeleton: Skeleton | None = NTU,
    *,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: bool = True,
) -> SkeletonStore:
    """Make a store from published arrays; memory holds one clip and the index, whatever the size of the files.

    Padding is cut: trailing frames that are zero throughout. The files have neither names nor subjects: clips are named
    train_000001, test_000001 and so on by the first file, and are in its order; subjects, cameras and setups are 0.

    Args:
        files: benchmark → npz, e.g. {"xsub": "NTU60_CS.npz", "xview": "NTU60_CV.npz"}. Files with the same clips in
            different splits become one store: clips are identified by the SHA-256 of their frames, and their label.
        out: folder of the store.
        dataset: name of the data set.
        classes: its K class names in label order; None: those of classes.txt beside the first file, else "class 0" and
            so on.
        skeleton: V and M; None: recognised by the number of columns.
        on_error: "skip" leaves a bad clip out, lists it in problems.csv (file: x_train or x_test; line: row, from 1)
            and warns; "raise" raises.
        overwrite: replace a store at `out` once the new one is complete.
        progress: show a bar.

    Raises:
        MissingInputError: no such file.
        ValueError: a file that is damaged or of another kind; files that do not hold the same clips.
    """
    paths = {benchmark: Path(path) for benchmark, path in files.items()}
    if not paths:
        raise ValueError("files: expected at least one benchmark and its npz, e.g. {'xsub': 'NTU60_CS.npz'}")
    apart = "import each file into a store of its own"
    with ExitStack() as stack:
        opened = {b: _open(path, stack) for b, path in paths.items()}
        first = next(iter(paths.values()))
        x, y = opened[next(iter(paths))]["train"]
        with _reading(first):
            if not x.shape or not y.shape:
                raise ValueError(f"expected arrays of clips, got {x.shape} and {y.shape}")
            skeleton = skeleton or _recognise_skeleton(x.shape)
            labels, columns = _read_labels(opened)
            published = classes is not None
            named = published or (first.parent / CLASS_NAMES_FILE).is_file()
            classes = choose_class_names(first.parent, [str(max(labels, default=0))], classes)
            sure = named and columns == len(classes)  # a column for each class
            base, said = (0, "") if sure else detect_base(labels, classes, published=published)
        shape = (skeleton.persons, skeleton.num_joints, 3)
        for benchmark, parts in opened.items():
            with _reading(paths[benchmark]):
                _check(parts, shape, len(classes), base)
        convention = Convention(skeleton, _probe(x, shape))
        totals = {b: sum(x.shape[0] for x, _ in parts.values()) for b, parts in opened.items()}
        if len(set(totals.values())) > 1:
            raise ValueError(f"the files do not hold the same clips, their counts differ ({totals}): {apart}")
        writer = stack.enter_context(ImportWriter(out, dataset, skeleton, classes, on_error, overwrite))
        writer.said += [said] if said else []
        bar = stack.enter_context(tqdm(unit=" clips", total=sum(totals.values()), disable=not progress, desc="import"))
        # (SHA-256, label) → clips of the first file, None for those left out; empty if there is no second file
        taken: dict[tuple[bytes, int | None] | None, list[int | None]] = {}
        splits: dict[str, dict[str, list[int]]] = {}
        for benchmark, parts in opened.items():
            left = {key: list(indices) for key, indices in taken.items()} if splits else None
            splits[benchmark] = {part: [] for part in parts}
            for part, (x, y) in parts.items():
                for row, (frames, onehot) in enumerate(zip(x, y), 1):
                    bar.update()
                    place = (f"{paths[benchmark].name}: x_{part}", row)
                    label = _parse_label(onehot)
                    frames = _cut_padding(frames)
                    key = (hashlib.sha256(frames.data).digest(), label) if len(paths) > 1 else None
                    if left is None:
                        poses = frames.reshape(-1, *shape)
                        index = _take(writer, f"{part}_{row:06d}", poses, label, base, place, convention)
                        if key:
                            taken.setdefault(key, []).append(index)
                    elif left.get(key):
                        index = left[key].pop(0)
                        if index is None:
                            writer.skip(place[0], f"the clip was left out of {next(iter(paths))} already", place[1])
                    else:
                        raise ValueError(
                            f"{paths[benchmark]}: row {row} of x_{part} (label {label}) is not among the clips of "
                            f"{first}, so they do not hold the same clips: {apart}"
                        )
                    if index is not None:
                        splits[benchmark][part].append(index)
        bar.close()
        writer.said += convention.said()
        names_file = None if published else first.parent / CLASS_NAMES_FILE
        return writer.finish_import(splits, Source([*paths.values()], names=names_file).describe())


def _probe(x: _Rows, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The first clips (L, M, V, 3)."""
    for row in itertools.islice(x, PROBED):
        yield _cut_padding(row).reshape(-1, *shape)


def _take(
    writer: ImportWriter,
    name: str,
    poses: np.ndarray,
    label: int | None,
    base: int,
    place: tuple[str, int],
    convention: Convention,
) -> int | None:
    """Add a row of the first file to the store: its index, or None if it was refused."""
    try:
        if label is None:
            raise ValueError("its label is not one-hot: expected a single 1 among zeros")
        if not len(poses):
            raise ValueError("all its frames are zero")
        with np.errstate(over="ignore"):
            label = shift_label(label, base, len(writer.classes))
            return writer.add_checked(Clip(name, convention.bring(poses.astype(np.float32)), label))
    except ValueError as error:
        writer.skip(place[0], error, place[1])
        return None


def export_npz(
    store: SkeletonStore,
    benchmark: str,
    path: str | Path,
    frames: int | None = 300,
    *,
    progress: bool = True,
) -> Path:
    """Write the clips of a benchmark as published arrays, clip by clip; the file appears when it is complete.

    Args:
        store: any store; `import_npz` reads the file, with its skeleton and classes.
        benchmark: its split "train" becomes x_train (n, T, M·V·3) float32 and y_train (n, K) float64; "test" likewise.
        path: the npz. NTU60 takes 10.2 GB for each benchmark, NTU120 20.5 GB.
        frames: T; None: that of the longest clip.
        progress: show a bar.

    Raises:
        ValueError: no such benchmark; clips longer than T.
    """
    parts = {part: store.split(benchmark, part) for part in PARTS}
    lengths = store.lengths[np.concatenate([*parts.values()])]
    frames = int(lengths.max(initial=1)) if frames is None else frames
    if frames < 1:
        raise ValueError(f"frames: expected at least 1, got {frames}")
    if (lengths > frames).any():
        what = f"{(lengths > frames).sum()} clips are longer than {frames} frames, the longest has {lengths.max()}"
        raise ValueError(f"{what}: pass frames=None for all of them")
    ended = sum(not store.sample(i)[-1].any() for i in np.concatenate([*parts.values()]))
    if ended:
        warnings.warn(
            f"{ended} clips end with frames that are zero throughout: in this format they look like padding, and "
            f"readers cut them",
            stacklevel=2,
        )
    onehot = np.eye(len(store.classes))
    padded = np.zeros((frames, math.prod(store.poses.shape[1:])), "<f4")

    def pose_rows(indices: np.ndarray) -> Iterator[np.ndarray]:
        for i in tqdm(indices, unit=" clips", disable=not progress, desc=Path(path).name):
            poses = store.sample(i)
            padded[: len(poses)] = poses.reshape(len(poses), -1)  # (L, M, V, 3) -> (L, MV3)
            padded[len(poses) :] = 0
            yield padded

    def write(target: Path) -> None:
        with zipfile.ZipFile(target, "w") as archive:
            for part, indices in parts.items():
                _write_rows(archive, f"x_{part}", (len(indices), *padded.shape), "<f4", pose_rows(indices))
                labels = store.labels[indices]
                _write_rows(archive, f"y_{part}", (len(indices), len(onehot)), "<f8", onehot[labels])

    return write_atomically(path, write)


def _write_rows(archive: zipfile.ZipFile, key: str, shape: tuple, descr: str, rows: Iterable[np.ndarray]) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for row in rows:
            file.write(row.tobytes())
