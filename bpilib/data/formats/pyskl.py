"""Imports and exports annotation pickles of PYSKL and MMAction2.

Such a pickle is a dict of `split`, {name: [frame_dir, ...]}, and `annotations`, a list of dicts with frame_dir (the
clip's name), label, total_frames and keypoint (M, T, V, C), and for keypoints in an image keypoint_score (M, T, V);
other keys are ignored. NTU's joints are in camera coordinates, and are moved as by NTU's preparation.

Source: Duan et al., "PYSKL: Towards Good Practices for Skeleton Action Recognition", ACM MM 2022.
"""

import pickle
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.conventions import CROWD, Convention, choose_probed
from bpilib.data.formats.safe_pickle import PickledArray, open_pickle
from bpilib.data.importer import CLASS_NAMES_FILE, ImportWriter, choose_class_names, find_skeleton, fit_persons
from bpilib.data.ntu.protocol import FILE_NAME as NTU_NAME
from bpilib.data.ntu.protocol import MAX_IDS
from bpilib.data.source import Source
from bpilib.data.store import Clip, SkeletonStore
from bpilib.data.tables import detect_base, shift_label
from bpilib.data.trackers import MAPPINGS, start_inspection, suggest_for_clip, suggest_trackers, to_ntu
from bpilib.data.ucla import ACTIONS
from bpilib.data.ucla import FILE_NAME as UCLA_NAME
from bpilib.skeleton import NTU, Skeleton
from bpilib.system.files import write_atomically

EXPECTED = "expected a dict of split {name: [frame_dir, ...]} and annotations, a list of dicts, as PYSKL has them"
SPLIT = re.compile(r"(?:(.+)_)?(train|val|test)(\d*)")  # xsub_train, xset_val; train1 of data sets with numbered splits
NAME_PATTERNS = (  # names of clips, and the meaning of their numbers
    (NTU_NAME, ("setup", "camera", "subject")),
    (UCLA_NAME, ("action", "subject", "episode", "camera")),
)


def import_pickle(
    path: str | Path,
    out: str | Path,
    dataset: str,
    classes: Iterable[str] | None = None,
    skeleton: Skeleton | None = NTU,
    *,
    tracker: str | None = None,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: bool = True,
) -> SkeletonStore:
    """Make a store from an annotation pickle; no code in it is run, and its arrays are read one by one.

    Clips keep their names and their order. Subject, camera and setup come from the annotation if it has them (ours do),
    or from names in the form of NTU RGB+D and NW-UCLA; else they are 0. Splits xsub_train and xsub_val (or xsub_test)
    become benchmark "xsub", train and test, and so on; plain train and val become benchmark "split".
    Missing persons are zeros; of too many, those that move most are kept (`fit_persons`), and problems.csv lists it.

    Args:
        path: the pickle.
        out: folder of the store.
        dataset: name of the data set.
        classes: its K class names in label order; None: those of classes.txt beside the pickle, else "class 0" and so
            on to the highest label.
        skeleton: V and M of the clips; None: recognised by the joints of the first.
        tracker: whose joints the clips have, to be converted to NTU's (`bpilib.data.trackers`); None: `skeleton`'s.
        on_error: "skip" leaves a bad clip out, lists it in problems.csv and warns; "raise" raises.
        overwrite: replace a store at `out` once the new one is complete.
        progress: show bars.

    Raises:
        MissingInputError: no such file.
        ValueError: a pickle of another kind, or with more than plain containers and arrays; a clip in both parts of a
            split.
    """
    path = Path(path)
    with open_pickle(path, progress) as content:
        split, annotations = _check_content(content, path)
        dicts = [annotation for annotation in annotations if isinstance(annotation, dict)]
        labelled = [entry for entry in dicts if type(entry.get("label")) is int and 0 <= entry["label"] < 1 << 31]
        labels, published = [entry["label"] for entry in labelled], classes is not None
        classes = choose_class_names(path.parent, map(str, labels), classes)
        told = (read_class(dataset, str(entry.get("frame_dir")), len(classes)) for entry in labelled)
        base, said = detect_base(labels, classes, told, published=published)
        arrays = [entry["keypoint"] for entry in dicts if isinstance(entry.get("keypoint"), PickledArray)]
        arrays = [array for array in arrays if len(array.shape) == 4 and 0 not in array.shape]
        if tracker:
            if skeleton not in (None, NTU):
                got = skeleton.num_joints
                raise ValueError(f"tracker {tracker} gives NTU's joints, {dataset} has {got}: set it to None")
            skeleton = NTU
        elif skeleton is None:
            skeleton = _recognise_skeleton(arrays[0] if arrays else None, path)
        inspection = start_inspection(skeleton, tracker)
        convention = Convention(skeleton, () if tracker else _probe(arrays, skeleton), dataset == "ntu120")
        with ImportWriter(out, dataset, skeleton, classes, on_error, overwrite, inspection) as writer:
            writer.said += [said] if said else []
            clips: dict[str, int | None] = {}  # name → index; None: left out
            bar = tqdm(annotations, unit=" clips", disable=not progress, desc="import")
            for number, annotation in enumerate(bar):
                name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
                name = name if isinstance(name, str) else f"annotations[{number}]"
                try:
                    if clips.get(name) is not None:  # before its array is loaded: a repetition takes only two bytes
                        raise ValueError("its frame_dir comes a second time")
                    clip, raw, dropped = _make_clip(annotation, skeleton, tracker, convention, base, len(classes))
                    check_label(dataset, clip.name, clip.label, len(classes))
                    index = writer.add_checked(clip, raw)
                except ValueError as error:
                    writer.skip(name, error)
                    clips.setdefault(name, None)
                else:
                    clips[name] = index
                    writer.note_dropped_persons(name, dropped)
            writer.said += convention.said()
            names = None if published else path.parent / CLASS_NAMES_FILE
            source = Source([path], tracker=tracker, names=names).describe()
            return writer.finish_import(_make_splits(split, clips, writer), source)


def read_class(dataset: str, name: str, classes: int) -> int | None:
    """Read the class of a clip of NTU or NW-UCLA, from 0, in its name: -1 if there is no such class; None: not told."""
    if dataset in MAX_IDS and (match := NTU_NAME.fullmatch(name)):
        return int(match[5]) - 1
    if dataset == "ucla" and (match := UCLA_NAME.fullmatch(name)) and classes == len(ACTIONS):
        return ACTIONS.index(int(match[1])) if int(match[1]) in ACTIONS else -1
    return None


def check_label(dataset: str, name: str, label: int, classes: int) -> None:
    """Check the label of a clip of NTU or NW-UCLA, from 0, against the action in its name.

    Raises:
        ValueError: they differ.
    """
    expected = read_class(dataset, name, classes)
    if expected is not None and label != expected:
        hint = ": do the labels count from 1? subtract 1" if label == expected + 1 else ""
        raise ValueError(f"label {label}, but its name says that it is class {expected} (counted from 0){hint}")


def _recognise_skeleton(keypoint: PickledArray | None, path: Path) -> Skeleton:
    """Recognise the skeleton of keypoints (M, T, V, C)."""
    try:
        return find_skeleton(keypoint.shape[2] if keypoint else 0, f"{path}, keypoint of the first annotation")
    except ValueError as error:
        raise ValueError(f"{error}{suggest_for_clip(keypoint.load().swapaxes(0, 1)) if keypoint else ''}") from None


def _probe(arrays: list[PickledArray], skeleton: Skeleton) -> Iterator[np.ndarray]:
    """Some of the clips (L, M, V, 3), evenly spread; an array that occurs several times in the file counts once."""
    arrays = list({id(array): array for array in arrays}.values())
    for number in choose_probed(len(arrays)):
        if arrays[number].shape[2:] == (skeleton.num_joints, 3):
            yield arrays[number].load().transpose(1, 0, 2, 3)


def _check_content(content: object, path: Path) -> tuple[dict, list]:
    """Check the content of a pickle: its splits and its annotations."""
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        got = (
            f"a dict of {', '.join(map(str, [*content][:6]))}" if isinstance(content, dict) else type(content).__name__
        )
        raise ValueError(f"{path}: {EXPECTED}; got {got:.200}")
    split = content.get("split")
    if not isinstance(split, dict) or not split:
        raise ValueError(f"{path}: {EXPECTED}; its split is {type(split).__name__}, or empty")
    for name, names in split.items():
        if not isinstance(name, str) or not SPLIT.fullmatch(name):
            raise ValueError(f"{path}: split {name!r:.100}: expected names like xsub_train, xsub_val or train, test")
        if not isinstance(names, list | tuple) or not all(isinstance(clip, str) for clip in names):
            raise ValueError(f"{path}: split {name}: expected a list of frame_dir, got {type(names).__name__}")
    return split, content["annotations"]


def _make_clip(
    annotation: object, skeleton: Skeleton, tracker: str | None, convention: Convention, base: int, classes: int
) -> tuple[Clip, np.ndarray, int]:
    """Convert an annotation: the clip, the array it was made from (L, M, V, C), and the number of persons left out."""
    if not isinstance(annotation, dict):
        raise ValueError(f"expected a dict, got {type(annotation).__name__}")
    missing = [key for key in ("frame_dir", "label", "total_frames", "keypoint") if key not in annotation]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    name, label, frames = annotation["frame_dir"], annotation["label"], annotation["total_frames"]
    if not isinstance(name, str):
        raise ValueError(f"frame_dir: expected str, got {type(name).__name__}")
    if ".." in name.split("/"):
        raise ValueError("frame_dir: expected a name without '..', which a store does not accept")
    if type(label) is not int or type(frames) is not int:
        raise ValueError("label and total_frames: expected whole numbers")
    keypoint = annotation["keypoint"]
    shape = keypoint.shape if isinstance(keypoint, PickledArray) else ()
    expected = (frames, len(MAPPINGS[tracker].joints) if tracker else skeleton.num_joints, 3)
    fits = len(shape) == 4 and shape[1:3] == expected[:2] and 0 not in shape
    fits = fits and (shape[3] == 3 or (bool(tracker) and shape[3] in (2, 4, 5)))
    if not isinstance(keypoint, PickledArray) or not fits:
        got = shape if isinstance(keypoint, PickledArray) else type(keypoint).__name__
        flat = len(shape) == 4 and shape[3] == 2 and not tracker
        raise ValueError(
            f"keypoint: expected (M, total_frames, V, C) = (M, {', '.join(map(str, expected))}), got {got}"
            + (f"; keypoints in an image: {suggest_trackers(shape[2])}" if flat else "")
        )
    if shape[0] > max(CROWD, frames):
        raise ValueError(f"keypoint: {shape[0]} persons in {frames} frames: expected (persons, frames, V, C); swapped?")
    numbers = {}
    for pattern, meaning in NAME_PATTERNS:
        if match := pattern.fullmatch(name):
            numbers = dict(zip(meaning, map(int, match.groups())))
    numbers |= {key: value for key, value in annotation.items() if type(value) is int}
    subject, camera, setup = (numbers.get(key, 0) for key in ("subject", "camera", "setup"))
    raw = keypoint.load().transpose(1, 0, 2, 3)  # (M,T,V,C) -> (T,M,V,C)
    if tracker:
        score = annotation.get("keypoint_score")
        if shape[3] == 2 and isinstance(score, PickledArray) and score.shape == shape[:3]:
            raw = np.concatenate([raw, score.load().transpose(1, 0, 2)[..., None]], -1)
        poses, dropped = fit_persons(to_ntu(raw, tracker), skeleton.persons)
    else:
        poses, dropped = fit_persons(raw, skeleton.persons)
        poses = convention.bring(poses, shape[0])
    return Clip(name, poses, shift_label(label, base, classes), subject, camera, setup), raw, dropped


def _make_splits(
    split: dict[str, Iterable[str]], clips: dict[str, int | None], writer: ImportWriter
) -> dict[str, dict[str, np.ndarray]]:
    """Convert splits to clip indices, benchmark → part → (n,); unknown clips are listed as problems."""
    splits: dict[str, dict[str, np.ndarray]] = {}
    for split_name, names in split.items():
        match = SPLIT.fullmatch(split_name)
        assert match is not None, "`_check_content` has checked the names"
        benchmark = (match[1] or "split") + match[3]
        part = "train" if match[2] == "train" else "test"
        parts = splits.setdefault(benchmark, {})
        if part in parts:
            raise ValueError(f"split {split_name}: {benchmark} has a val and a test part; take one of them out")
        indices: dict[int, None] = {}
        for name in names:
            if name not in clips:
                writer.skip(name[:200], f"named in split {split_name}, but there is no annotation of it")
                continue
            index = clips[name]
            if index in indices:
                writer.skip(name, f"named twice in split {split_name}", done="taken once")
            elif index is not None:
                indices[index] = None
        parts[part] = np.array([*indices], np.int64)
        train, test = (parts.get(part, np.empty(0, np.int64)) for part in ("train", "test"))
        if len(both := np.intersect1d(train, test)):
            name = next(name for name, index in clips.items() if index == both[0])
            raise ValueError(f"{len(both)} clips are in both parts of {benchmark}, {name} among them")
    return splits


def export_pickle(store: SkeletonStore, path: str | Path, *, progress: bool = True) -> Path:
    """Write a store as an annotation pickle, clip by clip; the file appears when it is complete.

    keypoint is float32 (M, T, V, 3) without trailing persons that are zero throughout (they are kept for NTU120, where
    a single person would be doubled when the file is read); the part "test" of a benchmark is called val, as in PYSKL.
    Annotations also have subject, camera and setup, which other readers ignore.

    Args:
        store: any store.
        path: the pickle, of protocol 3, which old versions of NumPy read as well.
        progress: show a bar.

    Raises:
        ValueError: clips of the same name, which a split could not distinguish.
    """
    if len(set(store.names)) < len(store):
        raise ValueError("some clips have the same name: a pickle's splits could not tell them apart")
    split = {
        f"{benchmark}_{'val' if part == 'test' else part}": store.names[store.split(benchmark, part)].tolist()
        for benchmark, parts in store.manifest["counts"]["splits"].items()
        for part in parts
    }

    def write(target: Path) -> None:
        with target.open("wb") as file:  # opcodes by hand, since no pickler writes a list piece by piece
            file.write(pickle.PROTO + b"\x03" + pickle.EMPTY_DICT + pickle.MARK)
            _append(file, "split", split, "annotations", [])
            file.write(pickle.MARK)
            for i in tqdm(range(len(store)), unit=" clips", disable=not progress, desc=Path(path).name):
                _append(file, _make_annotation(store, i))
            file.write(pickle.APPENDS + pickle.SETITEMS + pickle.STOP)

    return write_atomically(path, write)


def _append(file: BinaryIO, *values: object) -> None:
    """Write values as pickles without beginning and end; each overwrites the memo of the one before."""
    for value in values:
        content = pickle.dumps(value, protocol=3)[2:-1]
        new, old = b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n"
        file.write(content.replace(new, old, 1))  # the name that NumPy 1 and 2 know; it precedes the bytes of arrays


def _make_annotation(store: SkeletonStore, i: int) -> dict[str, object]:
    poses = np.array(store.sample(i)).transpose(1, 0, 2, 3)  # (T,M,V,C) -> (M,T,V,C)
    persons = 1 + np.flatnonzero(poses.view(np.uint32).any((1, 2, 3))).max(initial=0)  # by bits: -0 is kept
    persons = len(poses) if store.dataset == "ntu120" else persons
    return {
        "frame_dir": str(store.names[i]),
        "label": int(store.labels[i]),
        "total_frames": poses.shape[1],
        "subject": int(store.subjects[i]),
        "camera": int(store.cameras[i]),
        "setup": int(store.setups[i]),
        "keypoint": np.ascontiguousarray(poses[:persons]),
    }
