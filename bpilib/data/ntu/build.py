"""NTU RGB+D raw files to a store: in parallel, resumable, in bounded memory, whatever some of the files hold."""

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from bpilib.data.importer import refuse_or_warn
from bpilib.data.ntu.actors import actors
from bpilib.data.ntu.parser import compile_now, parse
from bpilib.data.ntu.protocol import classes, compare_with_published, ids_of, listing, splits
from bpilib.data.ntu.raw_files import ENDING, HOW, BadFileError, RawFile, Reader, fingerprint
from bpilib.data.plausibility import Inspection
from bpilib.data.store import Clip, Problem, SkeletonStore, StoreWriter
from bpilib.skeleton import NTU

CHUNK = 64  # files of a part
FEW = 32  # parts that one process has done before others have started
LAYOUT = 1  # of the parts; those of another are not taken up again


def clip(name: str, content: bytes | memoryview, dataset: str) -> Clip:
    """One file to a clip of poses (L, 2, 25, 3).

    Args:
        name: the file's name without ending.
        content: its bytes.
        dataset: "ntu60" or "ntu120"; they differ in the second person where there is one actor: zeros, or a copy.

    Raises:
        BadFileError: what is wrong with it, and on which line.
    """
    setup, camera, subject, _, action = ids_of(name, dataset)
    return Clip(name, poses_of(content, dataset), action - 1, subject, camera, setup)


def poses_of(content: bytes | memoryview, dataset: str) -> np.ndarray:
    """A file's content to poses (L, 2, 25, 3) float32; see `clip`, which raises the same."""
    with np.errstate(over="ignore", invalid="ignore"):
        return actors(parse(content), copy_single=dataset == "ntu120")


def _make_part(path: str, files: list[RawFile], dataset: str) -> None:
    """Read a chunk of files into one file of arrays, which appears when it is whole."""
    clips, problems, reader = [], [], Reader()
    for file in files:
        try:
            clips.append(clip(file.name, reader.read(file), dataset))
        except BadFileError as error:
            problems.append((file.name + ENDING, str(error), str(error.line)))
    started = f"{path}.{os.getpid()}"
    with open(started, "wb") as out:
        np.savez(
            out,
            names=np.array([c.name for c in clips], "U20"),
            lengths=np.array([len(c.poses) for c in clips], np.int64),
            poses=np.concatenate([np.zeros((0, 2, 25, 3), np.float32), *(c.poses for c in clips)]),
            problems=np.array(problems, str).reshape(-1, 3),
        )
    os.replace(started, path)


def _whole(path: Path) -> bool:
    """Whether a part is there and undamaged (its checksums are compared)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _taken_from(path: Path, dataset: str) -> Iterator[Clip | Problem]:
    """The clips of a part, and the problems after them."""
    with np.load(path, allow_pickle=False) as part:
        names, lengths, poses, problems = (part[key] for key in ("names", "lengths", "poses", "problems"))
    for name, own in zip(names.tolist(), np.split(poses, np.cumsum(lengths)[:-1])):
        setup, camera, subject, _, action = ids_of(name, dataset)
        yield Clip(name, own, action - 1, subject, camera, setup)
    for file, what, line in problems.tolist():
        yield Problem(file, what, int(line))


def build(
    dataset: str,
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    on_error: str = "skip",
    progress: bool = True,
    n_jobs: int = -1,
) -> tuple[SkeletonStore, str]:
    """Prepare a store; arguments as for `bpilib.data.prepare`.

    Chunks of files are read in parallel by joblib, into part files in `<out>.partial`, and appended to the store in
    order. A killed preparation of the same raw files continues with the parts that are there; it takes twice the
    store's place on the disk until it is done. The backend is the one of `joblib.parallel_config`.

    Returns:
        the store, and in what it differs from the published sizes (empty: in nothing).
    """
    listed, names = listing(dataset, raw), classes(dataset)
    if on_error == "raise" and listed.problems:
        raise ValueError(f"{listed.problems[0].file}: {listed.problems[0].what}")
    if not listed.files:
        count = listed.source["files"] + listed.elsewhere
        raise ValueError(f"none of the {count:,} raw files is to be read for {dataset}: {HOW}")
    chunks = [listed.files[i : i + CHUNK] for i in range(0, len(listed.files), CHUNK)]
    key = fingerprint(listed.files, [file.stamp for file in listed.files], dataset, CHUNK, LAYOUT)
    with StoreWriter(out, dataset, NTU, names, overwrite=overwrite, resume=key) as writer:
        parts = [writer.parts / f"{number:05}.npz" for number in range(len(chunks))]
        todo = {number for number, part in enumerate(parts) if not _whole(part)}
        if todo:
            compile_now()  # once, before the workers look for the result
        work = (delayed(_make_part)(str(parts[number]), chunks[number], dataset) for number in sorted(todo))
        done = Parallel(n_jobs=n_jobs if len(todo) >= FEW else 1, return_as="generator")(work)
        start = sum(len(chunk) for number, chunk in enumerate(chunks) if number not in todo)
        settings = {"total": len(listed.files), "initial": start, "unit": " files", "desc": f"prepare {dataset}"}
        ids: list[tuple[int, int, int]] = []
        inspection = Inspection(NTU)
        with contextlib.closing(done), tqdm(**settings, disable=not progress) as bar:
            for number, part in enumerate(parts):
                if number in todo:
                    next(done)
                    bar.update(len(chunks[number]))
                for found in _taken_from(part, dataset):
                    if isinstance(found, Clip):
                        try:
                            inspection.see(found.name, writer.checked(found))
                        except ValueError as error:
                            found = Problem(found.name + ENDING, str(error))
                    if isinstance(found, Clip):
                        writer.add(found)
                        ids.append((found.subject, found.camera, found.setup))
                    elif on_error == "raise":
                        raise ValueError(f"{found.file}, line {found.line}: {found.what}")
                    else:
                        writer.problems.append(found)
        warned = refuse_or_warn(inspection.findings(), out)
        writer.problems = sorted([*listed.problems, *writer.problems], key=lambda problem: problem.file)
        store = writer.finish(
            splits(dataset, *np.array(ids, np.int64).reshape(-1, 3).T),
            listed.source,
            counts={"missing": len(listed.missing), "other_setups": listed.elsewhere},
            options={"second_person": "a copy of the first" if dataset == "ntu120" else "zeros"},
            plausibility=inspection.summary(),
        )
    for said in warned:
        warnings.warn(said, stacklevel=3)
    return store, compare_with_published(store, listed)
