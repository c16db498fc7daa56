"""Raw files to one store per data set."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from bpilib.data import ntu, ntu_files, synthetic, ucla
from bpilib.data.store import Problem, SkeletonStore, StoreWriter
from bpilib.files import MissingInputError
from bpilib.skeleton import UCLA

DATASETS = ("ucla", "ntu60", "ntu120", "synthetic")
__all__ = ["Problem", "SkeletonStore", "prepare"]


def prepare(
    dataset: str,
    raw: str | Path | Sequence[str | Path] | None = None,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    on_error: str = "skip",
    progress: bool = True,
    n_jobs: int = -1,
    **options: Any,
) -> SkeletonStore:
    """Prepare a data set into a store, or open the store if it is already there.

    Args:
        dataset: "ucla", "ntu60", "ntu120" or "synthetic".
        raw: folder or zip of the raw files; for NTU also a list of those. "synthetic" writes its raw files there first;
            by default beside `out`.
        out: folder of the store; it appears only when it is whole.
        overwrite: prepare again, and replace the store at `out` once the new one is whole.
        on_error: "skip" leaves a bad file out, counts it in the store's problems.csv and warns; "raise" raises.
        progress: show a bar.
        n_jobs: processes that read NTU's files, -1: as many as cores; joblib.parallel_config chooses their backend.
        options: of `synthetic.write_raw` (seed, subjects, episodes).

    Raises:
        MissingInputError: no raw data.
        ValueError: unknown data set; raw that is something else; a store at `out` that was made of other files.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r}: expected {', '.join(DATASETS)}")
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error: expected 'skip' or 'raise', got {on_error!r}")
    if options and dataset != "synthetic":
        raise ValueError(f"{', '.join(options)}: options of the synthetic data set only")
    if out is None:
        raise ValueError("out: name the folder of the store, e.g. data/prepared/" + dataset)
    out = Path(out)
    classes, actions = ucla.CLASSES, ucla.ACTIONS
    if dataset == "synthetic":
        raw = synthetic.write_raw(raw or out.with_name(out.name + "_raw"), **options)
        classes, actions = synthetic.CLASSES, tuple(range(1, 1 + len(synthetic.CLASSES)))
    if raw is None:
        how = ntu_files.HOW if dataset in ntu.LIMITS else ucla.HOW
        raise ValueError(f"raw: name the folder or zip of the raw files; {how}")
    if out.exists() and not overwrite:
        return _reopen(out, dataset, raw)
    if dataset in ntu.LIMITS:
        from bpilib.data import ntu_build  # brings the compiler along, which nobody else needs

        store, differs = ntu_build.build(
            dataset, raw, out, overwrite=overwrite, on_error=on_error, progress=progress, n_jobs=n_jobs
        )
        _report(store, differs)
        return store
    raw = Path(raw)
    with StoreWriter(out, dataset, UCLA, classes, overwrite=overwrite) as writer:
        cameras: list[int] = []
        with tqdm(unit=" files", disable=not progress, desc=f"prepare {dataset}") as bar:
            for total, found in ucla.read(raw, actions):
                bar.total = total
                bar.update()
                if isinstance(found, Problem):
                    if on_error == "raise":
                        raise ValueError(f"{found.file}: {found.what}")
                    writer.problems.append(found)
                else:
                    writer.add(found)
                    cameras.append(found.camera)
        store = writer.finish(ucla.splits(np.array(cameras)), _source(dataset, raw))
    differs = ""
    if dataset == "ucla" and len(store) != ucla.CLIPS:
        differs = f"{len(store)} clips, but ucla has {ucla.CLIPS}: accuracies will not compare with published ones"
    _report(store, differs)
    return store


def _source(dataset: str, raw: str | Path | Sequence[str | Path]) -> dict[str, object]:
    """What a store is made of, so far as it can be told at once: names and sizes."""
    if dataset in ntu.LIMITS:
        return ntu.listing(dataset, raw).source
    raw = Path(raw)
    if not raw.exists():
        raise MissingInputError(f"no raw data at {raw}")
    files = [path for path in raw.rglob("*") if path.suffix in (".json", ".zip")] if raw.is_dir() else [raw]
    return {"name": raw.name, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def _reopen(out: Path, dataset: str, raw: str | Path | Sequence[str | Path]) -> SkeletonStore:
    """The store that is there already, if it is the one that would be made."""
    store = SkeletonStore.open(out)
    again = "choose another folder, or pass overwrite=True to replace it"
    if store.dataset != dataset:
        raise ValueError(f"{out} holds the data set {store.dataset}, not {dataset}: {again}")
    source = store.manifest["source"]
    try:
        now = _source(dataset, raw)
    except MissingInputError:  # the raw files are gone, which is fine
        return store
    if any(now[key] != source.get(key) for key in now if key != "name"):
        raise ValueError(f"{out} was made of other files ({source}) than there are at {raw} ({now}): {again}")
    return store


def _report(store: SkeletonStore, differs: str) -> None:
    """Say loudly what was left out, and where counts differ from the published."""
    problems = store.problems()
    if problems:
        lines = "\n".join(f"  {p.file}{f', line {p.line}' if p.line else ''}: {p.what}" for p in problems[:10])
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        warnings.warn(
            f"{len(problems)} files were left out (all of them in {store.path / 'problems.csv'}):\n{lines}{more}",
            stacklevel=3,
        )
    if differs:
        warnings.warn(differs, stacklevel=3)
