"""`prepare`: raw files, or clips that others have prepared, to a store."""

import contextlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm.auto import tqdm

from bpilib.data import ucla
from bpilib.data.archives import suggest_files
from bpilib.data.formats import agcn, clip_folder
from bpilib.data.formats.npz import import_npz
from bpilib.data.formats.pyskl import import_pickle
from bpilib.data.importer import CLASS_NAMES_FILE, check_on_error, refuse_or_warn, warn_of_problems
from bpilib.data.ntu import protocol, raw_files
from bpilib.data.plausibility import Inspection
from bpilib.data.source import Source
from bpilib.data.store import MANIFEST, Problem, SkeletonStore, StoreWriter, find_leftovers, settle
from bpilib.data.synthetic import dataset as dataset_module
from bpilib.data.synthetic import people
from bpilib.errors import MissingInputError
from bpilib.recipes import BENCHMARKS
from bpilib.skeleton import NTU, UCLA, Skeleton
from bpilib.system.lock import lock_of_store, lock_store

LAYOUTS = f"an .npz or a .pkl of prepared clips, a folder of 2s-AGCN's arrays, or a folder with {clip_folder.LIST}"
PROTOCOLS = {  # words in the names of npz files, published (NTU60_CS.npz, NTU120_CSet.npz) or our own → benchmark
    "cs": "xsub", "csub": "xsub", "xsub": "xsub", "cv": "xview", "xview": "xview", "cset": "xset", "xset": "xset",
}  # fmt: skip
Raw = str | Path | Sequence[str | Path]
__all__ = ["Problem", "SkeletonStore", "prepare"]


class _Settings(TypedDict):
    """Arguments of `prepare` that every format takes."""

    overwrite: bool
    on_error: str
    progress: bool


def prepare(
    dataset: str,
    raw: Raw | None = None,
    out: str | Path | None = None,
    *,
    benchmark: str | None = None,
    tracker: str | None = None,
    overwrite: bool = False,
    on_error: str = "skip",
    progress: bool = True,
    n_jobs: int = -1,
    **options: Any,
) -> SkeletonStore:
    """Prepare a data set into a store, or open the store if it is already there.

    Args:
        dataset: "ucla", "ntu60", "ntu120", "synthetic", or for prepared clips also a name of your own.
        raw: folder or zip of the raw files; for NTU also a list of those. For "synthetic" they are written there first
            (default: beside `out`). Or prepared clips: an .npz like NTU60_CS.npz, or a list of such files with the same
            clips; a .pkl of PYSKL or MMAction2; a folder of 2s-AGCN's or ST-GCN's arrays; a folder with clips.csv
            (`bpilib.data.formats.clip_folder`), or the clips.csv. For a data set of your own, class names are read from
            classes.txt beside or in it, one a line, and the skeleton is recognised from the clips.
        out: folder of the store; it appears only when it is complete.
        benchmark: evaluation protocol of a clips.csv, or of an .npz without a protocol (_CS, _CV, ...) in its name;
            None: the only one of the data set, or "split".
        tracker: whose joints the clips of a clips.csv or a .pkl have (`bpilib.data.trackers`); None: NTU's or
            NW-UCLA's.
        overwrite: prepare again, and replace the store at `out` once the new one is complete and has been verified.
            After a kill at any moment the next call finds the old store or the new one at `out`.
        on_error: "skip" leaves a bad file out, lists it in the store's problems.csv and warns; "raise" raises.
        progress: show a bar.
        n_jobs: number of processes that read NTU's files, -1: one per core; joblib.parallel_config sets their backend.
        options: of `synthetic.write_raw` (seed, subjects, episodes).

    Returns:
        The store, open.

    Raises:
        MissingInputError: no raw data.
        ValueError: unknown data set; raw data of another kind, or clips that can't be bodies in metres; a store at
            `out` that was made from other files, or that another process is making (the message says which process,
            where and since when).
    """
    places = _list_places(raw)
    if len(places) == 1 and places[0].is_file() and _is_part(places[0]):
        raw = places[0].parent
        places = [raw]
    layout = _recognise_layout(raw)
    if dataset not in BENCHMARKS and not layout and all(place.exists() for place in places):
        there = "; ".join(hint for place in places for hint in suggest_files(place))
        raise ValueError(
            f"unknown data set {dataset!r}: expected {', '.join(BENCHMARKS)}; or, for one of your own, raw: {LAYOUTS}, "
            f"got {raw}{there and f': {there}'}"
        )
    check_on_error(on_error)
    if options and (dataset != "synthetic" or layout):
        raise ValueError(f"{', '.join(options)}: options of the synthetic data set only")
    if len(places) > 1 and dataset not in protocol.MAX_IDS and layout != "npz":
        raise ValueError(f"raw: expected one folder, zip or file for {dataset}, got {', '.join(map(str, places))}")
    if out is None:
        raise ValueError("out: name the folder of the store, e.g. data/prepared/" + dataset)
    out = Path(out)
    synthetic = dataset == "synthetic" and not layout
    synthetic_raw = places[0] if places else out.with_name(out.name + "_raw")
    if synthetic:
        raw = synthetic_raw
    if raw is None:
        how = raw_files.HOW if dataset in protocol.MAX_IDS else ucla.HOW
        raise ValueError(f"raw: name the folder or zip of the raw files; {how}")
    settings: _Settings = {"overwrite": overwrite, "on_error": on_error, "progress": progress}
    with contextlib.ExitStack() as stack:
        if overwrite or not _is_store(out):
            stack.enter_context(lock_store(out, "data"))
            settle(out)
        else:
            _tidy(out)
        if synthetic:
            dataset_module.write_raw(synthetic_raw, **options)
        if not overwrite and _is_store(out):  # made earlier, or by another process while this one waited
            return _reopen(out, dataset, raw, tracker, benchmark)
        if tracker and layout not in ("folder", "pickle"):
            if missing := [place for place in places if not place.exists()]:
                raise MissingInputError(f"no raw data at {missing[0]}: expected {LAYOUTS}")
            only = f"only clips of a {clip_folder.LIST} or a .pkl are made NTU's"
            raise ValueError(f"tracker: {only}, got {raw}: set tracker to None")
        if layout:
            store = _import(layout, dataset, raw, out, benchmark, tracker, settings)
            differs = protocol.compare_with_published(store) if dataset in protocol.MAX_IDS else ""
        elif dataset in protocol.MAX_IDS:
            from bpilib.data.ntu import build as ntu_build  # here, since it imports numba

            store, differs = ntu_build.build(dataset, raw, out, n_jobs=n_jobs, **settings)
            warn_of_problems(store)
        elif dataset in BENCHMARKS:
            store, differs = _build_ucla(dataset, _list_places(raw)[0], out, **settings), ""
            warn_of_problems(store)
        else:
            raise MissingInputError(f"no raw data at {raw}: expected {LAYOUTS}")
    if dataset == "ucla" and len(store) != ucla.CLIPS:
        differs = f"{len(store)} clips, but ucla has {ucla.CLIPS}: accuracies will not compare with published ones"
    if differs:
        warnings.warn(differs, stacklevel=2)
    return store


def _is_store(out: Path) -> bool:
    """Whether a folder holds a store."""
    return (out / MANIFEST).is_file()


def _tidy(out: Path) -> None:
    """Remove what a killed preparation has left beside a store, if nobody is at work and it can be written there."""
    if find_leftovers(out) or lock_of_store(out).exists():
        with contextlib.suppress(ValueError, OSError), lock_store(out, "data", patience=0):
            settle(out)


def _build_ucla(dataset: str, raw: Path, out: Path, overwrite: bool, on_error: str, progress: bool) -> SkeletonStore:
    """Build the store of NW-UCLA or of the synthetic set from JSON clips."""
    classes: Sequence[str] = ucla.CLASSES
    actions: tuple[int, ...] = ucla.ACTIONS
    if dataset == "synthetic":
        classes, actions = people.CLASSES, tuple(range(1, 1 + len(people.CLASSES)))
    with StoreWriter(out, dataset, UCLA, classes, overwrite=overwrite) as writer:
        cameras: list[int] = []
        inspection = Inspection(UCLA)
        with tqdm(unit=" files", disable=not progress, desc=f"prepare {dataset}") as bar:
            for total, found in ucla.read(raw, actions):
                bar.total = total
                bar.update()
                if not isinstance(found, Problem):
                    try:
                        inspection.see(found.name, writer.check_clip(found))
                    except ValueError as error:
                        found = Problem(f"{found.name}.json", str(error))
                if isinstance(found, Problem):
                    if on_error == "raise":
                        raise ValueError(f"{found.file}: {found.what}")
                    writer.problems.append(found)
                else:
                    writer.add(found)
                    cameras.append(found.camera)
        warned = refuse_or_warn(inspection.findings(), out)
        summary = inspection.summary()
        source = _find_source(dataset, raw).describe()
        store = writer.finish(ucla.make_splits(np.array(cameras)), source, plausibility=summary)
        for said in warned:
            warnings.warn(said, stacklevel=3)
        return store


def _list_places(raw: Raw | None) -> list[Path]:
    return [Path(raw)] if isinstance(raw, str | Path) else [Path(place) for place in raw or ()]


def _is_part(file: Path) -> bool:
    """Whether a file is one of a folder that is imported as a whole: clips.csv, or an array of 2s-AGCN."""
    return file.name.lower() == clip_folder.LIST or bool(agcn.ARRAY.fullmatch(file.name))


def _recognise_layout(raw: Raw | None) -> str | None:
    """Recognise the layout of prepared clips: "npz", "pickle", "arrays" or "folder"; None: raw files."""
    places = _list_places(raw)
    if places and all(place.suffix.lower() == ".npz" for place in places):
        return "npz"
    if len(places) != 1:
        return None
    if places[0].suffix.lower() in (".pkl", ".pickle"):
        return "pickle"
    if (places[0] / clip_folder.LIST).is_file():
        return "folder"
    return "arrays" if agcn.find_folders(places[0]) else None


def _import(
    layout: str, dataset: str, raw: Raw, out: Path, benchmark: str | None, tracker: str | None, settings: _Settings
) -> SkeletonStore:
    """Import prepared clips, of a published data set with its skeleton and classes, or of the user's own."""
    skeleton: Skeleton | None = None
    classes: Sequence[str] | None = None
    if dataset in protocol.MAX_IDS:
        skeleton, classes = NTU, protocol.read_classes(dataset)
    elif dataset in BENCHMARKS:
        skeleton, classes = UCLA, people.CLASSES if dataset == "synthetic" else ucla.CLASSES
    first, *more = _list_places(raw)
    if layout == "pickle":
        return import_pickle(first, out, dataset, classes, skeleton, tracker=tracker, **settings)
    if layout == "arrays":
        return agcn.import_arrays(first, out, dataset, classes, skeleton, benchmark, **settings)
    if benchmark is None and len(every := BENCHMARKS.get(dataset, ("split",))) == 1:
        (benchmark,) = every
    if layout == "folder":
        return clip_folder.import_folder(
            first, out, dataset, skeleton, classes, benchmark or "split", tracker=tracker, **settings
        )
    files: dict[str, Path] = {}
    for path in (first, *more):
        told = [PROTOCOLS[word] for word in re.split(r"[\W_\d]+", path.stem.lower()) if word in PROTOCOLS]
        name = told[0] if told else benchmark
        if name is None or name in files:
            what = f"the name of {path} does not tell its benchmark" if name is None else f"{path} is of {name}, too"
            raise ValueError(f"{what}: name it as NTU60_CS.npz or ntu60_xsub.npz, or pass benchmark for a single file")
        files[name] = path
    return import_npz(files, out, dataset, classes, skeleton, **settings)


def _find_source(dataset: str, raw: Raw, tracker: str | None = None, benchmark: str | None = None) -> Source:
    """The files that a store would be made from; those of NTU's raw files are listed by `protocol.list_raw_files`."""
    layout = _recognise_layout(raw)
    first, *more = _list_places(raw)
    if layout == "folder":
        return clip_folder.find_source(first, tracker)
    if layout == "arrays":
        found = agcn.find_folders(first)
        first = found.get(benchmark or "") or next(iter(found.values()))
        names = None if dataset in BENCHMARKS else first / CLASS_NAMES_FILE
        return Source(agcn.list_files(first), names=names)
    if layout:
        names = None if dataset in BENCHMARKS else first.parent / CLASS_NAMES_FILE
        return Source([first, *more], tracker=tracker, names=names)
    if not first.exists():
        raise MissingInputError(f"no raw data at {first}")
    if not first.is_dir():
        return Source([first])
    inside = (path for path in first.rglob("*") if path.suffix.lower() in (".json", ".zip") and path.is_file())
    return Source(sorted(inside), first)


def _reopen(out: Path, dataset: str, raw: Raw, tracker: str | None, benchmark: str | None) -> SkeletonStore:
    """Open the existing store, if it is the one that would be made.

    Raises:
        ValueError: a store of another data set, or made from other files.
    """
    store = SkeletonStore.open(out)
    again = "choose another folder, or pass overwrite=True to replace it"
    if store.dataset != dataset:
        raise ValueError(f"{out} holds the data set {store.dataset}, not {dataset}: {again}")
    saved = store.manifest["source"]
    try:
        if dataset in protocol.MAX_IDS and not _recognise_layout(raw):
            differs = protocol.compare_listings(saved, protocol.list_raw_files(dataset, raw).source)
        else:
            differs = _find_source(dataset, raw, tracker, benchmark).differs(saved)
    except MissingInputError:  # the raw files are gone, which is fine
        return store
    if differs:
        raise ValueError(f"{out} was made from other files than those at {raw} ({differs}): {again}")
    return store
