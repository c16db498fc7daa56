"""Imports a folder of the user's own clips: `.npy` files and a list.

    clips.csv       name,label,subject,split (optionally camera and setup), one row per clip
    <name>.npy      (L, V, 3) or (L, M, V, 3) numbers, joints in the order of `bpilib.skeleton`, or of a tracker
    <name>/         instead of a .npy: OpenPose's files of a clip, ..._keypoints.json, one per frame
    classes.txt     optional: class names in label order, one a line

A label is a class name or its number, from 0 (from 1, if none is 0 and one is the number of classes); a split is train,
test or empty; a subject is a whole number or empty.
"""

import contextlib
import csv
import difflib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.conventions import Convention, choose_probed, turn_axes
from bpilib.data.formats.openpose import is_folder, list_frames, read_folder
from bpilib.data.formats.pyskl import check_label, read_class
from bpilib.data.importer import (
    CLASS_NAMES_FILE,
    KEPT,
    MAX_CLIP_BYTES,
    ImportWriter,
    choose_class_names,
    describe_dropped,
    find_skeleton,
    fit_persons,
    refuse_or_warn,
)
from bpilib.data.source import Source
from bpilib.data.store import Clip, SkeletonStore, mark_present
from bpilib.data.tables import compose, detect_base, normalise_name, parse_whole, read_rows, shift_label
from bpilib.data.trackers import MAPPINGS, start_inspection, suggest_for_clip, to_ntu
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, SKELETONS, Skeleton
from bpilib.system.files import map_array

LIST = "clips.csv"
JOINTS = tuple(skeleton.num_joints for skeleton in SKELETONS.values())
ENDINGS = (".npz", ".csv", ".txt", ".json", ".mat", ".pkl", ".mp4")  # of what clips are kept in, too
STRAYS = 100  # files that a name without one is compared with
HOW = "expected clips.csv with the columns name,label,subject,split, and a .npy file for each name"


def import_folder(
    folder: str | Path,
    out: str | Path,
    dataset: str,
    skeleton: Skeleton | None = None,
    classes: Iterable[str] | None = None,
    benchmark: str = "split",
    *,
    tracker: str | None = None,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: bool = True,
) -> SkeletonStore:
    """Make a store from a folder of clips, in the order of clips.csv.

    Missing persons are zeros; of too many, those that move most are kept (`fit_persons`), and problems.csv lists it.

    Args:
        folder: clips.csv, the clips it names (also in subfolders), and optionally classes.txt.
        out: folder of the store.
        dataset: name of the data set.
        skeleton: NTU or UCLA, whose joints the clips have; None: recognised by the number of joints.
        classes: class names in label order; None: those of classes.txt, else the labels of clips.csv, sorted, or
            "class 0" and so on if all are numbers.
        benchmark: name of the evaluation protocol that the column split defines.
        tracker: whose joints the clips have, to be converted to NTU's (`bpilib.data.trackers`); None: `skeleton`'s.
        on_error: "skip" leaves a bad clip out, lists it in problems.csv and warns; "raise" raises.
        overwrite: replace a store at `out` once the new one is complete.
        progress: show a bar.

    Raises:
        MissingInputError: no folder, or no clips.csv in it.
        ValueError: clips.csv or classes.txt can't be read.
    """
    folder = Path(folder)
    if not (folder / LIST).is_file():
        raise MissingInputError(f"no {LIST} in {folder}: {HOW}")
    rows = list(read_list(folder / LIST))
    names = choose_class_names(folder, ((row["label"] or "").strip() for _, row in rows), classes)
    if tracker and skeleton not in (None, NTU):
        raise ValueError(f"tracker {tracker} gives NTU's joints, {dataset} has {skeleton.num_joints}: set it to None")
    skeleton = NTU if tracker else skeleton or _recognise_skeleton(folder, rows)
    inspection = start_inspection(skeleton, tracker)
    convention = Convention(skeleton, () if tracker else _probe(folder, rows, skeleton), dataset == "ntu120")
    base, said = _detect_base(dataset, rows, names, classes is not None)
    unnamed = {path.relative_to(folder).as_posix(): None for path in sorted(folder.rglob("*.npy"))}
    strays: list[str] | None = None  # from the first row on whose file is not there
    turned: dict[str, str] = {}  # clip → how its axes were read
    with ImportWriter(out, dataset, skeleton, names, on_error, overwrite, inspection) as writer:
        parts: dict[str, list[int]] = {"train": [], "test": []}
        seen: set[str] = set()
        for line, row in tqdm(rows, unit=" clips", disable=not progress, desc=f"import {dataset}"):
            name, place = (row["name"] or "").removesuffix(".npy"), (LIST, line)
            try:
                path = locate_clip(folder, name)
                unnamed.pop(path.relative_to(folder).as_posix(), None)
                if name in seen:
                    raise ValueError(f"name {name} comes a second time")
                seen.add(name)
                if None in row or None in row.values():
                    raise ValueError("more or fewer cells than the header has")
                part = row["split"].strip().lower()
                if part not in ("", *parts):
                    raise ValueError(f"split: expected train, test or nothing, got {part[:50]!r}")
                numbers = {key: _parse_number(key, row.get(key, "")) for key in ("subject", "camera", "setup")}
                label = _parse_label(row["label"].strip(), names, base)
                check_label(dataset, PurePosixPath(name).name, label, len(names))
                if not path.exists() and (there := [other for other in unnamed if other.endswith(f"/{name}.npy")]):
                    raise ValueError(f"no such file, but {', '.join(there[:3])}: add the folder to the name")
                place = (f"{name}.npy" if path.suffix else name, 0)
                if not path.exists():
                    strays = _find_strays(folder, rows) if strays is None else strays
                    raise ValueError(_describe_missing(folder, name, strays))
                clip = load_clip(path, (skeleton.num_joints,), tracker)
                if clip.said:
                    turned[name] = clip.said
                poses, dropped = fit_persons(clip.poses, skeleton.persons)
                poses = convention.bring(poses, int(mark_present(poses).any(0).sum()))
                index = writer.add_checked(Clip(name, poses, label, **numbers), clip.raw)
            except (ValueError, OSError) as error:
                writer.skip(place[0], error, place[1])
                continue
            writer.note_dropped_persons(place[0], dropped)
            if part:
                parts[part].append(index)
        for name in unnamed:
            writer.skip(name, f"not named in {LIST}")
        if turned:
            first = next(iter(turned))
            writer.said.append(f"{len(turned)} of {len(rows)} clips, the first {first}: {turned[first]}")
        writer.said += [*([said] if said else []), *convention.said()]
        return writer.finish_import({benchmark: parts}, find_source(folder, tracker).describe())


def find_source(folder: Path, tracker: str | None = None) -> Source:
    """The files that a store is made from: clips.csv, classes.txt and the clips that clips.csv names.

    Raises:
        MissingInputError: no clips.csv.
        ValueError: it can't be read.
    """
    lists = [path for path in (folder / LIST, folder / CLASS_NAMES_FILE) if path.name == LIST or path.is_file()]
    found: dict[Path, None] = {}
    for _, row in read_list(folder / LIST) if lists[0].is_file() else ():
        with contextlib.suppress(ValueError, OSError):
            path = locate_clip(folder, (row["name"] or "").removesuffix(".npy"))
            found |= dict.fromkeys(list_frames(path) if is_folder(path) else [path] if path.is_file() else [])
    files = sorted(found, key=lambda path: (path.suffix.lower() != ".npy", path))
    return Source([*lists, *files], folder, tracker)


def read_list(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a clips.csv: (line, row) of each row."""
    try:
        for line, row in read_rows(path, ("name", "label", "split")):
            cells = {key: row[key] for key in ("label", "subject", "camera", "setup") if row.get(key)}
            yield line, row | {key: parse_whole(compose(cell)) for key, cell in cells.items()}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}; {HOW}") from error


def _recognise_skeleton(folder: Path, rows: list[tuple[int, dict[str, str]]]) -> Skeleton:
    """Recognise the skeleton of the first clip that can be read."""
    wrong = f"it names none: {HOW}"
    for _, row in rows:
        try:
            path = locate_clip(folder, (row["name"] or "").removesuffix(".npy"))
            return find_skeleton(load_clip(path, JOINTS).poses.shape[2], path)
        except (ValueError, OSError) as error:
            wrong = f"{row['name']}: {error}"
    raise ValueError(f"{folder / LIST}: no clip of it can be read; {wrong}")


def locate_clip(folder: Path, name: str) -> Path:
    """Find the file of a clip, or its folder of OpenPose's frames.

    Raises:
        ValueError: a name that leads out of the folder.
    """
    if {"", ".", ".."} & {*name.split("/")} or {"\\", "\0", ":"} & {*name}:
        slash = ", with / between folders" if "\\" in name else ""
        raise ValueError(f"name {name[:100]!r}: expected that of a .npy file in the folder{slash}")
    path, frames = folder / PurePosixPath(f"{name}.npy"), folder / PurePosixPath(name)
    # An "ä" is one character or two: lists have it in one, files that were copied from a Mac in two.
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    files = [path, *(folder / PurePosixPath(f"{form}.npy") for form in forms)]
    if found := next((file for file in files if file.is_file()), None):
        return found
    return frames if is_folder(frames) else path


def _find_strays(folder: Path, rows: list[tuple[int, dict[str, str]]]) -> list[str]:
    """Find clips, at most `STRAYS`, that no row names, or that are not found since .npy has other capitals."""
    named = {(row["name"] or "").removesuffix(".npy") for _, row in rows}
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() == ".npy")
    strays = (file for file in files if file.suffix != ".npy" or file.with_suffix("").as_posix() not in named)
    return [file.as_posix() for file in itertools.islice(strays, STRAYS)]


def _describe_missing(folder: Path, name: str, strays: list[str]) -> str:
    """Say of a clip that its file is not there, and what may be it."""
    others = (folder / f"{name}{ending}" for ending in ENDINGS)
    if other := next((path for path in others if path.is_file()), None):
        return f"no such file, but {other.name}: expected a .npy file, which numpy.save writes of the clip's numbers"
    names = {file[: -len(".npy")]: file for file in strays}
    if near := difflib.get_close_matches(name, names, 1):
        return f"no such file, but {names[near[0]]}: one name for both the file and its row, .npy in small letters"
    return "no such file"


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _parse_number(key: str, text: str) -> int:
    text = text.strip()
    if text and not _is_number(text):
        raise ValueError(f"{key}: expected a whole number or nothing, got {text[:50]!r}")
    return int(text or 0)


def _detect_base(
    dataset: str, rows: list[tuple[int, dict[str, str]]], classes: list[str], published: bool
) -> tuple[int, str]:
    """Detect whether labels count classes from 0 or 1 (`detect_base`), if most are numbers, not names of classes."""
    clips: dict[str, list[str]] = {}  # label → names of its clips
    for _, row in rows:
        clips.setdefault(row["label"] or "", []).append(PurePosixPath(row["name"] or "").name.removesuffix(".npy"))
    named = {text for text in clips if _find_class(text, classes) is not None}
    numbers = [(int(text), name) for text in clips if _is_number(text) and text not in named for name in clips[text]]
    if len(numbers) <= sum(len(clips[text]) for text in named):
        return 0, ""
    told = (read_class(dataset, name, len(classes)) for _, name in numbers)
    base, said = detect_base((number for number, _ in numbers), classes, told, published=published)
    return base, said if base or not named else ""  # a name may be that of the first class


def _find_class(text: str, classes: list[str]) -> int | None:
    """Find the class of this name, from 0, or the only one that is alike."""
    if text in classes:
        return classes.index(text)
    alike = [normalise_name(name) for name in classes]
    return alike.index(normalise_name(text)) if text and alike.count(normalise_name(text)) == 1 else None


def _parse_label(text: str, classes: list[str], base: int) -> int:
    found = _find_class(text, classes)
    if found is not None:
        return found
    if _is_number(text):
        return shift_label(int(text), base, len(classes))
    if not text:
        raise ValueError("label: expected the name of a class or its number, got nothing")
    raise ValueError(f"label: expected the name of one of the {len(classes)} classes or its number, got {text[:50]!r}")


def _probe(folder: Path, rows: list[tuple[int, dict[str, str]]], skeleton: Skeleton) -> Iterator[np.ndarray]:
    """Some of the clips that can be read, evenly spread."""
    for number in choose_probed(len(rows)):
        with contextlib.suppress(ValueError, OSError):
            path = locate_clip(folder, (rows[number][1]["name"] or "").removesuffix(".npy"))
            yield load_clip(path, (skeleton.num_joints,)).poses


class Loaded(NamedTuple):
    """A clip as it was read.

    Attributes:
        poses: (L, M, V, 3), with the tracker's joints converted to NTU's.
        raw: (L, M, V, C), before that.
        said: a sentence if its axes were swapped, else "".
    """

    poses: np.ndarray
    raw: np.ndarray
    said: str = ""


def load_clip(path: Path, joints: tuple[int, ...], tracker: str | None = None) -> Loaded:
    """Read a clip.

    Args:
        path: a `.npy` of (L, V, 3), (L, M, V, 3) or (M, L, V, 3) numbers, or a folder of OpenPose's frames.
        joints: the numbers of joints V that are accepted.
        tracker: whose joints they are, to be converted to NTU's; None: those of a skeleton.

    Raises:
        ValueError: what is wrong with it.
    """
    if is_folder(path):
        poses = read_folder(path)
    else:
        poses = _read_npy(path)
    poses, said = (poses[:, None], "") if poses.ndim == 3 else turn_axes(poses) if poses.ndim == 4 else (poses, "")
    if tracker:
        return Loaded(to_ntu(poses, tracker), poses, said)
    if poses.ndim != 4 or poses.shape[-1] != 3 or poses.shape[-2] not in joints or 0 in poses.shape:
        v = "/".join(map(str, joints))
        other = poses.ndim == 4 and (poses.shape[-2] not in joints or poses.shape[-1] == 2)
        what = f"expected (L, {v}, 3) or (L, M, {v}, 3) with L of at least 1, got {poses.shape}"
        if poses.ndim == 2:
            what += "; if a row holds the joints of a frame: reshape(len(clip), joints, 3)"
        raise ValueError(what + (suggest_for_clip(poses) if other else ""))
    return Loaded(poses, poses, said)


def load_single_clip(
    path: Path, skeleton: Skeleton, tracker: str | None, trained_with: str | None, copy_single: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Read a single clip for a classifier, converted as in a store.

    Args:
        path: see `load_clip`.
        skeleton: of the classifier.
        tracker: whose joints the clip has; None: `trained_with`, if the number of joints fits.
        trained_with: the tracker of the clips that the classifier was trained with.
        copy_single: copy a person who is alone to the second place (NTU120).

    Returns:
        (L, M, V, 3) float32, and sentences for the user.

    Raises:
        ValueError: what is wrong with it; not a body in metres.
    """
    if tracker is None and trained_with in MAPPINGS:
        joints = len(MAPPINGS[trained_with].joints)
        shape = read_folder(path).shape if is_folder(path) else _read_npy(path).shape
        if len(shape) > 2 and (shape[-2] == joints or shape[-2] != skeleton.num_joints):
            tracker = trained_with
    clip = load_clip(path, (skeleton.num_joints,), tracker)
    inspection = start_inspection(skeleton, tracker)
    convention = Convention(skeleton, () if tracker else (clip.poses,), copy_single)
    most = skeleton.persons if copy_single else min(skeleton.persons, clip.poses.shape[1])
    poses, dropped = fit_persons(clip.poses, most)
    poses = convention.bring(poses, int(mark_present(poses).any(0).sum()))
    inspection.see(path.name, poses, clip.raw)
    warned = refuse_or_warn(inspection.findings(), path)
    said = [clip.said] if clip.said else []
    said += [f"{describe_dropped(skeleton.persons, dropped)}: {KEPT}"] if dropped else []
    return poses, [*said, *convention.said(), *warned]


def _read_npy(path: Path) -> np.ndarray:
    """Open the array of a `.npy` file, memory-mapped."""
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size > MAX_CLIP_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes, more than the {MAX_CLIP_BYTES} a clip may have")
    with path.open("rb") as file:
        start = file.read(6)
    if start != b"\x93NUMPY" and start[:2] != b"PK":
        what = f"it begins with {start!r}" if start else "it is empty"
        raise ValueError(f"not a .npy file of numbers ({what}): numpy.save writes such files")
    try:
        poses = map_array(path)
    except (ValueError, EOFError) as error:
        why = f"not a .npy file of numbers ({error})"
        if "Python objects" in str(error):
            why += ": save one array, all frames with the same joints and persons, absent persons as zeros"
        elif "greater than file size" in str(error):
            why += ": it ends too early; copy it again"
        raise ValueError(why) from error
    if not isinstance(poses, np.ndarray) or poses.dtype.kind not in "fiu":
        raise ValueError(f"expected a .npy file of numbers, got {getattr(poses, 'dtype', 'an npz')}")
    return poses
