"""Clips of one's own, a folder of `.npy` files and a list, to a store.

    clips.csv       name,label,subject,split (camera and setup too, if known), a row for each clip
    <name>.npy      (L, V, 3) or (L, M, V, 3) numbers, joints in the order of `bpilib.skeleton`, or of a tracker's
    classes.txt     optional: class names, one a line, in label order

A label is a class name or its number from 0; a split is train, test or empty; a subject is a whole number, or empty.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.importer import (
    CLASS_NAMES_FILE,
    MAX_CLIP_BYTES,
    ImportWriter,
    class_names,
    describe_source,
    fit_persons,
    skeleton_by_joints,
)
from bpilib.data.store import Clip, SkeletonStore
from bpilib.data.trackers import to_ntu, trackers_with_joints
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, SKELETONS, Skeleton

LIST = "clips.csv"
MOST_COLUMNS = 100  # of it
JOINTS = tuple(skeleton.num_joints for skeleton in SKELETONS.values())
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
    """Make a store of a folder of clips, in the order of clips.csv.

    Missing persons are zeros; of too many, those that move most are kept (`fit_persons`), and problems.csv says so.

    Args:
        folder: clips.csv, the clips it names (also in folders below), and maybe classes.txt.
        out: folder of the store.
        dataset: name of the data set.
        skeleton: NTU or UCLA, whose joints the clips have; None: by the number of joints.
        classes: class names in label order; else those of classes.txt; else the labels of clips.csv, sorted, or
            "class 0" and so on where all of them are numbers.
        benchmark: name of the one evaluation protocol, the column split.
        tracker: whose joints the clips have, to be made NTU's (`bpilib.data.trackers`); None: those of `skeleton`.
        on_error: "skip" leaves a bad clip out, lists it in problems.csv and warns; "raise" raises.
        overwrite: replace a store at `out` once the new one is whole.
        progress: show a bar.

    Raises:
        MissingInputError: no folder, or no clips.csv in it.
        ValueError: a clips.csv or classes.txt that is something else.
    """
    folder = Path(folder)
    if not (folder / LIST).is_file():
        raise MissingInputError(f"no {LIST} in {folder}: {HOW}")
    rows = list(_rows(folder / LIST))
    names = class_names(folder, ((row["label"] or "").strip() for _, row in rows), classes)
    if tracker and skeleton not in (None, NTU):
        raise ValueError(f"tracker {tracker} gives NTU's joints, {dataset} has {skeleton.num_joints}: set it to None")
    skeleton = NTU if tracker else skeleton or _skeleton(folder, rows)
    unnamed = {path.relative_to(folder).as_posix(): None for path in sorted(folder.rglob("*.npy"))}
    with ImportWriter(out, dataset, skeleton, names, on_error, overwrite) as writer:
        parts: dict[str, list[int]] = {"train": [], "test": []}
        seen: set[str] = set()
        for line, row in tqdm(rows, unit=" clips", disable=not progress, desc=f"import {dataset}"):
            name, place = (row["name"] or "").removesuffix(".npy"), (LIST, line)
            try:
                path = _path(folder, name)
                unnamed.pop(f"{name}.npy", None)
                if name in seen:
                    raise ValueError(f"name {name} comes a second time")
                seen.add(name)
                if None in row or None in row.values():
                    raise ValueError("more or fewer cells than the header has")
                part = row["split"].strip()
                if part not in ("", *parts):
                    raise ValueError(f"split: expected train, test or nothing, got {part[:50]!r}")
                numbers = {key: _number(key, row.get(key, "")) for key in ("subject", "camera", "setup")}
                label = _label(row["label"].strip(), names)
                place = (f"{name}.npy", 0)
                poses, dropped = fit_persons(load(path, (skeleton.num_joints,), tracker), skeleton.persons)
                index = writer.add_checked(Clip(name, poses, label, **numbers))
            except (ValueError, OSError) as error:
                writer.skip(place[0], error, place[1])
                continue
            writer.note_dropped_persons(place[0], dropped)
            if part:
                parts[part].append(index)
        for name in unnamed:
            writer.skip(name, f"not named in {LIST}")
        return writer.finish({benchmark: parts}, folder_source(folder, tracker))


def folder_source(folder: Path, tracker: str | None = None) -> dict[str, object]:
    """What a store of a folder is made of: names, sizes and content of all files, and whose joints they have.

    Raises:
        MissingInputError: no clips.csv.
    """
    lists = [path for path in (folder / LIST, folder / CLASS_NAMES_FILE) if path.name == LIST or path.is_file()]
    files = [*lists, *sorted(path for path in folder.rglob("*.npy") if path.is_file())]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return describe_source(*files) | {"sha256": digest.hexdigest(), "tracker": tracker}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a clips.csv."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if len(reader.fieldnames or ()) > MOST_COLUMNS:  # each row would take as many entries
                raise ValueError(f"{len(reader.fieldnames)} columns, more than the {MOST_COLUMNS} it may have")
            missing = {"name", "label", "split"} - {*(reader.fieldnames or ())}
            if missing:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            for row in reader:
                yield reader.line_num, row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}; {HOW}") from error


def _skeleton(folder: Path, rows: list[tuple[int, dict[str, str]]]) -> Skeleton:
    """That of the first clip that can be read."""
    wrong = f"it names none: {HOW}"
    for _, row in rows:
        try:
            path = _path(folder, (row["name"] or "").removesuffix(".npy"))
            return skeleton_by_joints(load(path, JOINTS).shape[2], path)
        except (ValueError, OSError) as error:
            wrong = f"{row['name']}: {error}"
    raise ValueError(f"{folder / LIST}: no clip of it can be read; {wrong}")


def _path(folder: Path, name: str) -> Path:
    """The file of a name, which must not leave the folder."""
    if {"", ".", ".."} & {*name.split("/")} or {"\\", "\0", ":"} & {*name}:
        raise ValueError(f"name {name[:100]!r}: expected that of a .npy file in the folder")
    return folder / PurePosixPath(f"{name}.npy")


def _number(key: str, text: str) -> int:
    text = text.strip()
    if text and not (text.isdecimal() and len(text) < 10):
        raise ValueError(f"{key}: expected a whole number or nothing, got {text[:50]!r}")
    return int(text or 0)


def _label(text: str, classes: list[str]) -> int:
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and len(text) < 10:
        return int(text)  # the writer knows the range
    raise ValueError(f"label: expected the name of one of the {len(classes)} classes or its number, got {text[:50]!r}")


def load(path: Path, joints: tuple[int, ...], tracker: str | None = None) -> np.ndarray:
    """A `.npy` to (L, M, V, 3), V one of `joints`, or a tracker's joints to NTU's; ValueError says what is wrong."""
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size > MAX_CLIP_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes, more than the {MAX_CLIP_BYTES} a clip may have")
    try:
        poses = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a shape that lies takes no memory
    except (ValueError, EOFError) as error:
        raise ValueError(f"not a .npy file of numbers ({error})") from error
    if not isinstance(poses, np.ndarray) or poses.dtype.kind not in "fiu":
        raise ValueError(f"expected a .npy file of numbers, got {getattr(poses, 'dtype', 'an npz')}")
    if tracker:
        return to_ntu(poses, tracker)
    if poses.ndim not in (3, 4) or poses.shape[-1] != 3 or poses.shape[-2] not in joints or 0 in poses.shape:
        v, other = "/".join(map(str, joints)), poses.ndim in (3, 4) and poses.shape[-2] not in joints
        what = f"expected (L, {v}, 3) or (L, M, {v}, 3) with L of at least 1, got {poses.shape}"
        raise ValueError(what + (f": {trackers_with_joints(poses.shape[-2])}" if other else ""))
    return poses[:, None] if poses.ndim == 3 else poses
