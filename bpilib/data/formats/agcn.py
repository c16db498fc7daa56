"""Imports the arrays of ST-GCN and 2s-AGCN.

A folder holds `train_data_joint.npy` (or `train_data.npy`), (N, 3, T, V, M) padded to T = 300, and `train_label.pkl`, a
pair of lists, names and labels; and the same for `val`. It may also hold one such folder per benchmark (`xsub`,
`xview`). ST-GCN keeps camera coordinates and pads with zeros; 2s-AGCN pads by repeating the clip, centres every frame,
and turns the axes so that z is up. Which of both a file is, is recognised from its numbers.

Sources: Yan et al., ST-GCN, AAAI 2018; Shi et al., 2s-AGCN, CVPR 2019, their preparation of NTU RGB+D.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.bodies import is_body, measure
from bpilib.data.conventions import Convention, choose_probed, is_z_up, turn_y_up
from bpilib.data.formats.pyskl import check_label, read_class
from bpilib.data.formats.safe_pickle import PickledArray, open_pickle
from bpilib.data.importer import CLASS_NAMES_FILE, ImportWriter, choose_class_names, find_skeleton, fit_persons
from bpilib.data.ntu.protocol import FILE_NAME as NTU_NAME
from bpilib.data.ntu.protocol import MAX_IDS, TRAIN_SUBJECTS
from bpilib.data.source import Source
from bpilib.data.store import Clip, SkeletonStore
from bpilib.data.tables import detect_base, shift_label
from bpilib.skeleton import NTU, Skeleton
from bpilib.system.files import map_array

PARTS = {"train": ("train",), "test": ("val", "test")}  # part of a benchmark → prefixes of its files
DATA = ("_data_joint.npy", "_data.npy")
ARRAY = re.compile(r"(?:train|val|test)_data(?:_joint)?\.npy")
DEEPEST = 2  # folders below the one that is named
HOW = "expected train_data_joint.npy, train_label.pkl, val_data_joint.npy and val_label.pkl, as 2s-AGCN writes them"


def find_folders(folder: Path) -> dict[str, Path]:
    """Find the folders with such arrays, `folder` itself or below it, by name (`xsub`, ...; if it repeats, by path)."""
    if not folder.is_dir():
        return {}
    below = (path for depth in range(1, DEEPEST + 1) for path in folder.glob("*/" * depth) if path.is_dir())
    found = [path for path in [folder, *sorted(below)] if any(_find_data(path, part) for part in PARTS)]
    count = Counter(path.name for path in found)
    return {path.name if count[path.name] == 1 else str(path.relative_to(folder)): path for path in found}


def _find_data(folder: Path, part: str) -> Path | None:
    """Find the array of a part."""
    paths = (folder / f"{start}{ending}" for start in PARTS[part] for ending in DATA)
    return next((path for path in paths if path.is_file()), None)


def _locate_labels(data: Path) -> Path:
    return data.with_name(data.name.split("_data")[0] + "_label.pkl")


def list_files(folder: Path) -> list[Path]:
    """List the arrays of a folder and their label files.

    Raises:
        ValueError: arrays without labels.
    """
    found = []
    for part in PARTS:
        if (data := _find_data(folder, part)) is not None:
            label = _locate_labels(data)
            if not label.is_file():
                raise ValueError(f"no {label.name} beside {data}: {HOW}")
            found += [data, label]
    return found


def import_arrays(
    folder: str | Path,
    out: str | Path,
    dataset: str,
    classes: Iterable[str] | None = None,
    skeleton: Skeleton | None = None,
    benchmark: str | None = None,
    *,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: bool = True,
) -> SkeletonStore:
    """Make a store from a folder of arrays, clip by clip.

    Padding is cut: trailing zeros, or repetitions of the clip. Clips have the names in the label files; if these are
    NTU's, subjects, cameras and setups are read from them.

    Args:
        folder: holds the arrays, or folders of them; `benchmark` chooses one of several.
        out: folder of the store.
        dataset: name of the data set.
        classes: its class names in label order; None: those of classes.txt in the folder, else "class 0" and so on.
        skeleton: V and M; None: recognised from the shape of the arrays.
        benchmark: name of the split; None: the folder's name if it is xsub, xview or xset, else the protocol that the
            subjects, cameras or setups follow, else "split".
        on_error, overwrite, progress: see `bpilib.data.prepare`.

    Raises:
        ValueError: arrays and labels that do not fit each other.
    """
    found = find_folders(Path(folder))
    if len(found) > 1 and benchmark not in found:
        raise ValueError(f"{folder} holds {', '.join(found)}: name one of these folders, or its benchmark")
    folder = found.get(benchmark or "") or next(iter(found.values()))
    files = list_files(folder)
    parts = {part: data for part in PARTS if (data := _find_data(folder, part)) is not None}
    arrays = {part: _open(path) for part, path in parts.items()}
    labelled = {part: _read_labels(_locate_labels(path)) for part, path in parts.items()}
    for part, array in arrays.items():
        if len(array) != len(labelled[part][1]):
            raise ValueError(f"{parts[part]}: {len(array)} clips, but {len(labelled[part][1])} labels")
    first = next(iter(arrays.values()))
    skeleton = skeleton or find_skeleton(first.shape[3], folder)
    shapes = {array.shape[1:2] + array.shape[3:] for array in arrays.values()}
    if shapes != {(3, skeleton.num_joints, first.shape[4])} or first.shape[4] > skeleton.persons:
        raise ValueError(f"{folder}: expected (N, 3, T, {skeleton.num_joints}, {skeleton.persons}), got {first.shape}")
    names, labels = (list(itertools.chain(*lists)) for lists in zip(*labelled.values()))
    published = classes is not None
    classes = choose_class_names(folder, (str(label) for label in labels if label >= 0), classes)
    told = (read_class(dataset, name, len(classes)) for name in names)
    base, said = detect_base(labels, classes, told, published=published)
    probe = list(_probe(first))
    turn = skeleton is NTU and is_z_up(clip for clip in probe if is_body(measure(clip, NTU), NTU))
    convention = Convention(skeleton, [turn_y_up(clip) if turn else clip for clip in probe])
    splits: dict[str, list[int]] = {part: [] for part in PARTS}
    subjects: dict[str, set] = {}
    total = sum(map(len, arrays.values()))
    with ImportWriter(out, dataset, skeleton, classes, on_error, overwrite) as writer:
        bar = tqdm(total=total, unit=" clips", disable=not progress, desc=f"import {dataset}")
        for part, array in arrays.items():
            for row, (name, label) in enumerate(zip(*labelled[part])):
                bar.update()
                try:
                    match = NTU_NAME.fullmatch(name)
                    setup, camera, subject = (int(match[i]) for i in (1, 2, 3)) if match else (0, 0, 0)
                    label = shift_label(label, base, len(classes))
                    check_label(dataset, name, label, len(classes))
                    clip = _cut(array[row])
                    poses, _ = fit_persons(turn_y_up(clip) if turn else clip, skeleton.persons)
                    poses = convention.bring(poses)
                    splits[part].append(writer.add_checked(Clip(name, poses, label, subject, camera, setup)))
                    subjects.setdefault(part, set()).add((setup, camera, subject))
                except ValueError as error:
                    writer.skip(parts[part].name, f"{name}: {error}", row + 1)
        bar.close()
        writer.said += [said] if said else []
        if turn:
            writer.said.append("recognised axes with z up: turned (x, y, z) to (x, z, -y), so that y is")
        writer.said += convention.said()
        known = folder.name in ("xsub", "xview", "xset")
        name = benchmark or (folder.name if known else _recognise_protocol(dataset, subjects))
        names_file = None if published else folder / CLASS_NAMES_FILE
        return writer.finish_import({name: splits}, Source(files, names=names_file).describe())


def _open(path: Path) -> np.ndarray:
    """Open an array (N, 3, T, V, M), memory-mapped."""
    try:
        array = map_array(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 5 or array.shape[1] != 3 or array.dtype.kind != "f":
        raise ValueError(f"{path}: expected numbers (N, 3, T, V, M), got {getattr(array, 'shape', 'an npz')}")
    return array


def _read_labels(path: Path) -> tuple[list[str], list[int]]:
    """Read names, without ending, and labels."""
    with open_pickle(path, False) as content:
        names, labels = content if isinstance(content, tuple | list) and len(content) == 2 else (None, None)
        labels = labels.load().tolist() if isinstance(labels, PickledArray) else labels
    if not (
        isinstance(names, tuple | list)
        and isinstance(labels, tuple | list)
        and len(names) == len(labels)
        and all(isinstance(name, str) for name in names)
        and all(type(label) is int for label in labels)
    ):
        raise ValueError(f"{path}: expected a pair of lists as long as each other, names and whole numbers")
    return [name.removesuffix(".skeleton") for name in names], list(labels)


def _cut(array: np.ndarray) -> np.ndarray:
    """Remove the padding of a clip (3, T, V, M): (L, M, V, 3) float32.

    Raises:
        ValueError: numbers that are not finite, no frame.
    """
    with np.errstate(over="ignore"):
        frames = np.ascontiguousarray(array.transpose(1, 3, 2, 0), np.float32)  # (3,T,V,M) -> (T,M,V,3)
    if not np.isfinite(frames).all():
        raise ValueError("coordinates that are not finite (NaN or infinite)")
    length = 1 + np.flatnonzero(frames.any((1, 2, 3))).max(initial=-1)
    if not length:
        raise ValueError("all its frames are zero")
    again = np.flatnonzero((frames[1:length] == frames[0]).all((1, 2, 3))) + 1
    for period in again if length == len(frames) else ():
        if period >= 2 and (frames[period:] == frames[:-period]).all():
            return frames[:period]
    return frames[:length]


def _probe(array: np.ndarray) -> Iterator[np.ndarray]:
    """Some of the clips (L, M, V, 3), evenly spread."""
    for row in choose_probed(len(array)):
        try:
            yield _cut(array[row])
        except ValueError:
            continue


def _recognise_protocol(dataset: str, seen: dict[str, set]) -> str:
    """Recognise the benchmark by the subjects, cameras or setups of its training part."""
    train, test = (seen.get(part, set()) for part in ("train", "test"))
    if dataset not in MAX_IDS or not train or not test or (0, 0, 0) in train | test:
        return "split"
    rules = {
        "xsub": lambda setup, camera, subject: subject in TRAIN_SUBJECTS,
        "xview": lambda setup, camera, subject: camera in (2, 3),
        "xset": lambda setup, camera, subject: setup % 2 == 0,
    }
    for name, rule in rules.items():
        if all(rule(*ids) for ids in train) and not any(rule(*ids) for ids in test):
            return name
    return "split"
