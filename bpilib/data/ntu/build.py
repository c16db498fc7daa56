"""Builds the store of NTU RGB+D from raw files: in parallel, resumable, in bounded memory, tolerant of bad files."""

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
from bpilib.data.ntu.actors import select_actors
from bpilib.data.ntu.parser import compile_now, parse
from bpilib.data.ntu.protocol import compare_with_published, list_raw_files, make_splits, parse_ids, read_classes
from bpilib.data.ntu.raw_files import ENDING, HOW, BadFileError, RawFile, Reader, fingerprint
from bpilib.data.plausibility import Inspection
from bpilib.data.store import Clip, Problem, SkeletonStore, StoreWriter
from bpilib.skeleton import NTU

CHUNK = 64  # files in a part
FEW = 32  # parts; fewer are read by one process, which is done before others have started
LAYOUT = 1  # version of the part files; those of another version are not reused


def parse_clip(name: str, content: bytes | memoryview, dataset: str) -> Clip:
    """Convert a file to a clip of poses (L, 2, 25, 3).

    Args:
        name: the file's name without ending.
        content: its bytes.
        dataset: "ntu60" or "ntu120"; if there is a single actor, the second person is zeros or a copy, respectively.

    Raises:
        BadFileError: what is wrong with it, and on which line.
    """
    setup, camera, subject, _, action = parse_ids(name, dataset)
    return Clip(name, parse_poses(content, dataset), action - 1, subject, camera, setup)


def parse_poses(content: bytes | memoryview, dataset: str) -> np.ndarray:
    """Convert a file's content to poses (L, 2, 25, 3) float32; raises as `parse_clip` does."""
    with np.errstate(over="ignore", invalid="ignore"):
        return select_actors(parse(content), copy_single=dataset == "ntu120")


def _make_part(path: str, files: list[RawFile], dataset: str) -> None:
    """Read a chunk of files into one file of arrays, which appears when it is complete."""
    clips, problems, reader = [], [], Reader()
    for file in files:
        try:
            clips.append(parse_clip(file.name, reader.read(file), dataset))
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


def _is_whole(path: Path) -> bool:
    """Whether a part exists and is undamaged (by its checksums)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _read_part(path: Path, dataset: str) -> Iterator[Clip | Problem]:
    """Read a part: its clips, then its problems."""
    with np.load(path, allow_pickle=False) as part:
        names, lengths, poses, problems = (part[key] for key in ("names", "lengths", "poses", "problems"))
    for name, own in zip(names.tolist(), np.split(poses, np.cumsum(lengths)[:-1])):
        setup, camera, subject, _, action = parse_ids(name, dataset)
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
    """Build a store; see `bpilib.data.prepare` for the arguments.

    Chunks of files are read in parallel by joblib into part files in `<out>.partial`, and appended to the store in
    order. A preparation that was killed continues with the parts that exist. Until it is done, it takes twice the disk
    space of the store. The backend is that of `joblib.parallel_config`.

    Returns:
        The store, and how it differs from the published sizes ("" if it does not).
    """
    listed, names = list_raw_files(dataset, raw), read_classes(dataset)
    if on_error == "raise" and listed.problems:
        raise ValueError(f"{listed.problems[0].file}: {listed.problems[0].what}")
    if not listed.files:
        count = len(listed.problems) + len(listed.missing) + listed.elsewhere
        raise ValueError(f"none of the {count:,} raw files is to be read for {dataset}: {HOW}")
    chunks = [listed.files[i : i + CHUNK] for i in range(0, len(listed.files), CHUNK)]
    key = fingerprint(listed.files, [file.stamp for file in listed.files], dataset, CHUNK, LAYOUT)
    with StoreWriter(out, dataset, NTU, names, overwrite=overwrite, resume=key) as writer:
        parts = [writer.parts / f"{number:05}.npz" for number in range(len(chunks))]
        todo = {number for number, part in enumerate(parts) if not _is_whole(part)}
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
                for found in _read_part(part, dataset):
                    if isinstance(found, Clip):
                        try:
                            inspection.see(found.name, writer.check_clip(found))
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
            make_splits(dataset, *np.array(ids, np.int64).reshape(-1, 3).T),
            listed.source,
            counts={"missing": len(listed.missing), "other_setups": listed.elsewhere},
            options={"second_person": "a copy of the first" if dataset == "ntu120" else "zeros"},
            plausibility=inspection.summary(),
        )
    for said in warned:
        warnings.warn(said, stacklevel=3)
    return store, compare_with_published(store, listed)
