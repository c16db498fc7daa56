"""MediaPipe's PoseLandmarker over films, in processes of its own: landmarks in the image and in metres.

MediaPipe runs apart so that what it prints stays out of the notebook, and so that several films are read at a time.
0.10.31 is the version: from 0.10.35 on it sends usage metrics to its maker; this one opens no connection
(`tests/test_video_mediapipe.py`).
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import zipfile
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.video.film import HOW, open_film, opencv
from bpilib.errors import MissingInputError
from bpilib.system.files import hash_file, in_project, read_npz, write_atomically
from bpilib.system.scratch import scratch_folder

VERSION = "0.10.31"
JOINTS = 33
RATE = 30.0  # frames a second of the clips, NTU's
NAME = "pose_landmarker_full.task"
URL = f"https://storage.googleapis.com/mediapipe-models/pose_landmarker/pose_landmarker_full/float16/1/{NAME}"
SHA256 = "5134a3aad27a58b93da0088d431f366da362b44e3ccfbe3462b3827a839011b1"
MEMBERS = ("pose_detector.tflite", "pose_landmarks_detector.tflite")
GET_IT = f"set download to True to fetch {NAME} (9 MB, checked) from {URL}, or get it by hand and name it in pose_model"


@dataclass(frozen=True)
class Landmarks:
    """What was found in the K frames of a film that were looked at, before anybody is followed.

    Attributes:
        numbers: (K,) int64, the film's frames, from 0.
        seconds: (K,) float64, since its first frame.
        image: (K, P, 33, 2) float32, pixels, x to the right, y down; NaN where there is no P-th pose.
        world: (K, P, 33, 3) float32, metres from the middle of each person's own hips, y down, z away; NaN likewise.
        visibility: (K, P, 33) float32, 0 to 1.
        size: (2,) int64, the film's width and height.
        counts: (2,) int64, frames that the film's header promises (0: none) and frames that came.
    """

    numbers: np.ndarray
    seconds: np.ndarray
    image: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    size: np.ndarray
    counts: np.ndarray

    def save(self, path: Path, key: str) -> Path:
        """Write an .npz that `load` takes for the same key."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)} | {"key": np.array(key)}

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)

        return write_atomically(path, write)

    @classmethod
    def load(cls, path: Path, key: str | None = None) -> "Landmarks | None":
        """From `save`; None where there is none, a damaged one, or one of another key."""
        try:
            arrays = read_npz(path)
            known = str(arrays.pop("key"))
            return cls(**arrays) if key in (None, known) else None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None


def find_model(path: str | Path | None = None, download: bool = False) -> Path:
    """The PoseLandmarker's model file: one that MediaPipe can open.

    Args:
        path: a .task; None: data/models/pose_landmarker_full.task.
        download: fetch that one where it is missing; its checksum is known.

    Raises:
        MissingInputError: it is not there; says where to get it.
        ValueError: another file, a bare or a deflated model; a download with another checksum, or without a network.
    """
    place = in_project(path or f"data/models/{NAME}")
    if not place.exists() and path is None and download:
        import pooch

        try:
            pooch.retrieve(URL, known_hash=f"sha256:{SHA256}", fname=NAME, path=place.parent, progressbar=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"{URL} could not be fetched ({error}): get it by hand, name it in pose_model") from error
    if not place.is_file():
        raise MissingInputError(f"no pose model at {place}: {GET_IT}")
    with place.open("rb") as file:
        head = file.read(8)
    if not zipfile.is_zipfile(place):
        bare = head[4:] == b"TFL3"
        what = "a bare .tflite, one network of the two" if bare else f"{place.stat().st_size:,} bytes of something else"
        raise ValueError(f"{place}: expected a .task, a zip of {' and '.join(MEMBERS)}, got {what}: {GET_IT}")
    with zipfile.ZipFile(place) as archive:
        members = {info.filename: info for info in archive.infolist()}
    if lacking := [name for name in MEMBERS if name not in members]:
        got = ", ".join(list(members)[:4]) or "nothing"
        raise ValueError(f"{place}: expected a pose model, with {' and '.join(lacking)}, got {got}: {GET_IT}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError(
            f"{place}: expected a zip whose members are stored, got a deflated one, which MediaPipe cannot open: "
            f"unpack it and zip it again with `zip -0 {NAME} {' '.join(MEMBERS)}`, or {GET_IT}"
        )
    return place


def check_mediapipe() -> str:
    """MediaPipe's version; ValueError that says how to get it, and that recorded landmarks need none of it."""
    try:
        return importlib.metadata.version("mediapipe")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"films need mediapipe, which is not here: {HOW}") from None


def check_people(people: int) -> None:
    """ValueError unless that many can be followed."""
    if people not in (1, 2):
        raise ValueError(f"people: expected 1 or 2, as many as a clip of NTU has, got {people}")


class Wanted(NamedTuple):
    """A film and where its landmarks go."""

    film: Path
    out: Path


def key_of(film: Path, model: Path, people: int, mirrored: bool) -> str:
    """What landmarks depend on; the same key, the same landmarks."""
    files = f"film {hash_file(film)} model {hash_file(model)}"
    return f"{files} mediapipe {check_mediapipe()} people {people} mirrored {mirrored}"


def track_films(
    wanted: Mapping[str, Wanted],
    model: Path,
    people: int = 1,
    mirrored: bool = False,
    processes: int | None = None,
    progress: bool = True,
) -> dict[str, Landmarks | Exception]:
    """Landmarks of films: each film in one process, several at a time; those that are there already are read.

    Args:
        wanted: name → film and the .npz that its landmarks are kept in.
        model: of `find_model`.
        people: poses looked for in a frame, 1 or 2.
        mirrored: the films show the world as a mirror does.
        processes: how many; None: one for each core, at most one for each film.
        progress: show a bar of frames, with frames a second.

    Returns:
        name → landmarks, or the ValueError or MissingInputError that says what is wrong with that film.

    Raises:
        ValueError: MediaPipe is not here.
    """
    check_mediapipe()
    check_people(people)
    found: dict[str, Landmarks | Exception] = {}
    todo: dict[str, tuple[Any, ...]] = {}
    total = 0
    for name, (path, out) in wanted.items():
        try:
            film = open_film(path)
            key = key_of(path, model, people, mirrored)
            known = Landmarks.load(out, key)
        except (ValueError, OSError) as error:
            found[name] = error
            continue
        if known is not None:
            found[name] = known
        else:
            todo[name] = (path, str(model), people, mirrored, out, key)
            total += film.frames
    if todo:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found |= _track(todo, min(processes or cores, len(todo)), total, progress)
    return {name: found[name] for name in wanted}


def _track(todo: dict[str, tuple], processes: int, total: int, progress: bool) -> dict[str, Landmarks | Exception]:
    """Runs `_track_film` for each of them."""
    context = multiprocessing.get_context("spawn")  # MediaPipe has threads: a fork of them would hang
    done, stop = context.Value("q", 0), context.Value("b", 0)
    found: dict[str, Landmarks | Exception] = {}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(scratch_folder("bpi_mediapipe_")) / "log"
        bar = stack.enter_context(tqdm(total=total or None, unit=" frames", disable=not progress, desc="landmarks"))
        pool = stack.enter_context(
            ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(done, stop, str(log)))
        )
        names: dict[Future, str] = {pool.submit(_track_film, *task): name for name, task in todo.items()}
        waiting = {*names}
        try:
            while waiting:
                ready, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                for future in ready:
                    found[names[future]] = _result(future, todo[names[future]], log)
        except BaseException:
            stop.value = 1  # each process looks at it before every frame
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _result(future: Future, task: tuple, log: Path) -> Landmarks | Exception:
    film, model, *_, out, key = task
    try:
        future.result()
    except (ValueError, OSError) as error:
        return error
    except BrokenProcessPool:
        said = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        return ValueError(f"{film}: MediaPipe's process ended; its last words: {' / '.join(said)[-400:] or 'none'}")
    except RuntimeError as error:  # what MediaPipe raises
        lines = str(error).splitlines()[-1:] or [repr(error)]
        return ValueError(f"{film}: MediaPipe could not follow it with {model} ({lines[0][:300]}): {GET_IT}")
    return Landmarks.load(out, key) or ValueError(f"{out}: landmarks just written cannot be read: is the disk full?")


_shared: dict[str, Any] = {}  # of a process of the pool


def _begin(done: Any, stop: Any, log: str) -> None:
    """Once in each process: what is printed, also by MediaPipe's C++, goes to a file."""
    _shared.update(done=done, stop=stop)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)


def _track_film(path: Path, model: str, people: int, mirrored: bool, out: Path, key: str) -> None:
    """One film to landmarks, in a process of the pool; memory is that of a frame and of the landmarks."""
    film = open_film(path)
    opencv().setNumThreads(1)
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=model), running_mode=vision.RunningMode.VIDEO, num_poses=people
    )
    every = max(1, int(film.fps / RATE + 0.05))  # of 60 a second every second one; 30 are needed
    numbers, seconds, poses = [], [], []
    number, counted, clock = -1, -1, -1
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        for number, second, image in film.read(every, mirrored):
            if _shared["stop"].value:
                raise ValueError("interrupted")
            frame = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            clock = max(clock + 1, round(second * 1000))  # milliseconds that must rise
            result = landmarker.detect_for_video(frame, clock)
            numbers.append(number)
            seconds.append(second)
            poses.append(_as_array(result, people))
            with _shared["done"].get_lock():
                _shared["done"].value += number - counted
            counted = number
    both = np.stack(poses) if poses else np.zeros((0, people, JOINTS, 6), np.float32)
    image = both[..., :2] * np.array([film.width, film.height], np.float32)
    came = min(film.frames, number + every) if film.frames else number + 1  # those passed over came, too
    Landmarks(
        np.array(numbers, np.int64), np.array(seconds), image, both[..., 2:5], np.nan_to_num(both[..., 5]),
        np.array([film.width, film.height]), np.array([film.frames, came]),
    ).save(out, key)  # fmt: skip


def _as_array(result: Any, people: int) -> np.ndarray:
    """(P, 33, 6) float32: x and y in the image from 0 to 1, x y z in metres, visibility; NaN where nobody is."""
    out = np.full((people, JOINTS, 6), np.nan, np.float32)
    for person, (image, world) in enumerate(zip(result.pose_landmarks, result.pose_world_landmarks)):
        out[person] = [(p.x, p.y, q.x, q.y, q.z, q.visibility) for p, q in zip(image, world)]
    return out
