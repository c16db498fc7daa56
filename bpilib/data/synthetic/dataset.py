"""A synthetic data set in NW-UCLA's raw format: people acting ten classes, seen by three cameras.

The people and their movements are in `people`; here are the cameras, their errors, and the files.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from bpilib.data.synthetic.people import (
    CLASSES,
    MIRROR,
    NECK,
    Person,
    Pose,
    act,
    bump,
    check,
    idle,
    make_person,
    solve,
    turn,
)
from bpilib.system.files import write_atomically
from bpilib.system.lock import lock_store

FPS = 15
CYCLES = (0.6, 0.6, 2.2, 2.2, 1.5, 1.6, 2.0, 2.0, 1.1, 1.1)  # seconds, one repetition of each class at tempo 1
VIEWS = (1, 2, 3)
AZIMUTH = {1: -50.0, 2: 0.0, 3: 50.0}  # degrees around the person; view 3 is the test view
VERSION = 1  # of the generator; a folder of another version is refused
# position of each joint along its limb: trackers err most at the far end
OUTER = np.array([0, 0, 0.3, 0.5] + 2 * [0.4, 0.8, 1.2, 1.6] + 2 * [0.2, 0.7, 1.1, 1.5])
CHAINS = ((5, 6, 7), (9, 10, 11), (13, 14, 15), (17, 18, 19))  # joints lost together


def enact(label: int, p: Person, rng: Generator) -> np.ndarray:
    """Make one noise-free clip; like `perform`, but with a given person and random generator.

    Args:
        label: class number, 1 to 10.
        p: who acts.
        rng: drawn from in a fixed order.

    Returns:
        (L,20,3) float64, metres, world axes; L from 12 to 200.
    """
    name, cycle = CLASSES[label - 1], CYCLES[label - 1] / (p.tempo * rng.uniform(0.8, 1.25))
    if name in ("wave", "clap", "jumping jack", "march in place"):
        repeats = rng.uniform(1.5, 5) if cycle > 0.8 else rng.uniform(2.5, 7)
        rest, first = rng.uniform(0, 0.9, 2) * (rng.random(2) < 0.5), rng.random()  # seconds of standing around it
        seconds = repeats * cycle + rest.sum()
        t = np.arange(np.clip(round(seconds * FPS), 12, 200)) / FPS
        on = bump(t, rest[0] - 0.45, rest[0] + 0.1, seconds - rest[1] - 0.1, seconds - rest[1] + 0.45)
        u = first + (t - rest[0]) / cycle
    else:
        start, stop = rng.uniform(-0.2, 0.3), rng.choice([1, 1, 1, 2, 3]) - rng.uniform(-0.1, 0.3)
        t = np.arange(np.clip(round((stop - start) * cycle * FPS), 12, 200)) / FPS
        u = np.linspace(start, stop, len(t))
        on = ((u > 0) & (u < np.ceil(stop - 0.31))).astype(float)
    pose = Pose(len(t))
    idle(pose, p, t, rng)
    if rng.random() < 0.22:  # half-hearted: stops on the way
        on = on * rng.uniform(0.35, 0.75)
    act(label, p, pose, u, on, rng)
    clip = solve(p, pose) @ turn(np.radians([[0, 0, rng.uniform(-40, 40)]]))[0].T
    return clip[:, MIRROR] * [-1, 1, 1] if p.left_handed else clip


def perform(label: int, subject: int, episode: int, seed: int = 0) -> np.ndarray:
    """Make a performance in world coordinates, before any camera.

    Args:
        label: class number as in the files, 1 to 10 (`CLASSES[label - 1]`).
        subject: from 1.
        episode: from 0.
        seed: from 0.

    Returns:
        (L,20,3) float64, metres, world axes (x right of a person who faces camera 2, y up from the floor, z away).

    Raises:
        ValueError: a number out of its range.
    """
    check("label", label, 1, len(CLASSES)), check("episode", episode, 0)
    return enact(label, make_person(subject, seed), np.random.default_rng((2, seed, label, subject, episode)))


def observe(clip: np.ndarray, view: int, rng: Generator, noise: float = 1.0) -> np.ndarray:
    """Simulate a depth camera's tracker observing a performance.

    Args:
        clip: (L,20,3) float64, metres, world axes.
        view: 1, 2 or 3; the camera stands at `AZIMUTH[view]` degrees, a little above and off.
        rng: drawn from in a fixed order; the camera's own draws come first.
        noise: factor of the sensor's errors; 0: only a rigid motion of the clip.

    Returns:
        (L,20,3) float64, metres, Kinect camera axes as in NW-UCLA (x to the right of a
        person who faces it, y up, z away). With errors, up to a quarter of the frames is missing at either end.

    Raises:
        ValueError: an unknown view.
    """
    check("view", view, min(VIEWS), max(VIEWS))
    azimuth, pitch, roll = np.radians(rng.normal([AZIMUTH[view], 11, 0], [5, 3, 1.5]))
    place = np.array([rng.normal(0, 0.3), rng.normal(0.25, 0.1), rng.uniform(2.2, 3.1)])
    level = (clip - clip[0, 0]) @ turn(np.array([[0, 0, azimuth]]))[0].T  # seen without the camera's tilt
    x = level @ turn(np.array([[pitch, roll, 0]]))[0].T + place
    if noise == 0:
        return x
    # each tracker finds and loses the person at another time
    late, early = (rng.uniform(0, 0.25, 2) * len(x)).astype(int)
    if len(x) - late - early >= 10:
        level, x = level[late : len(x) - early], x[late : len(x) - early]
    length = len(x)
    # joints hidden behind the trunk are noisier, most of all at the far end of a limb
    behind = 1 / (1 + np.exp(-(level[..., 2] - level[:, [0, NECK], 2].mean(1)[:, None] - 0.1) / 0.04))
    aside = np.exp(-(((level[..., 0] - level[:, [NECK], 0]) / 0.25) ** 2))
    hidden = behind * (0.3 + 0.7 * aside)
    speed = np.linalg.norm(np.gradient(x, axis=0), axis=-1) if length > 1 else np.zeros((length, 20))
    sigma = noise * (0.006 + 0.02 * OUTER + 0.4 * speed + 0.15 * hidden * OUTER)
    white, slow = rng.normal(size=(2, length, 20, 3)) * [0.8, 0.8, 1.3]
    for i in range(1, length):
        slow[i] = 0.9 * slow[i - 1] + 0.44 * slow[i]
    x = x + sigma[..., None] * (0.25 * white + slow)
    # short losses of a limb: frozen where it was, or drawn to the joint before it
    for chain in map(list, CHAINS):
        risk = noise * (0.012 + 0.06 * hidden[:, chain[1:]].mean(1))
        for start in np.flatnonzero(rng.random(length) < risk):
            frames, joints = slice(start, start + rng.integers(2, 12)), chain[rng.integers(3) :]
            if rng.random() < 0.5:
                x[frames, joints] = x[start, joints]
            else:
                x[frames, joints] += rng.uniform(0.3, 0.9) * (x[frames, chain[0] - 1][:, None] - x[frames, joints])
    return x


def write_raw(
    folder: str | Path,
    seed: int = 0,
    subjects: int = 8,
    episodes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the whole data set as raw files in NW-UCLA's format, `aNN_sNN_eNN_vNN.json`.

    Every file depends on (seed, class, subject, episode, view) alone. An incomplete folder is completed, a complete one
    is left as it is.

    Args:
        folder: made if missing; must be empty or come from a call with the same arguments.
        seed: from 0.
        subjects, episodes: 1 to 99 and 1 to 100; 10 classes × subjects × episodes × 3 views files are written.
        progress: called as progress(files done, files in all).

    Returns:
        The folder.

    Raises:
        ValueError: an argument out of range; a folder that was made with other arguments, holds other files, or is
            being written by another process.
    """
    check("seed", seed, 0), check("subjects", subjects, 1, 99), check("episodes", episodes, 1, 100)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clips = [(a, s, e) for a in range(1, len(CLASSES) + 1) for s in range(1, subjects + 1) for e in range(episodes)]
    names = {(*clip, v): f"a{clip[0]:02d}_s{clip[1]:02d}_e{clip[2]:02d}_v{v:02d}" for clip in clips for v in VIEWS}
    wanted = {"generator": "bpilib.data.synthetic", "version": VERSION, "seed": seed, "subjects": subjects,
              "episodes": episodes, "classes": list(CLASSES)}  # fmt: skip
    note = folder / "synthetic.json"
    _check_folder(folder, note, wanted, {f"{name}.json" for name in names.values()})
    complete = note.exists() and all((folder / f"{name}.json").exists() for name in names.values())
    with contextlib.nullcontext() if complete else lock_store(folder, "raw"):
        for left in folder.glob(".*.part"):  # by a kill in the middle of a write
            left.unlink()
        if not note.exists():
            write_atomically(note, json.dumps(wanted, indent=1))
        for done, (label, subject, episode) in enumerate(clips):
            missing = [v for v in VIEWS if not (folder / f"{names[label, subject, episode, v]}.json").exists()]
            if missing:
                clip = perform(label, subject, episode, seed)
            for v in missing:
                name = names[label, subject, episode, v]
                seen = observe(clip, v, np.random.default_rng((3, seed, label, subject, episode, v)))
                record = {"file_name": name, "skeletons": np.round(seen, 5).tolist(), "label": label}
                write_atomically(folder / f"{name}.json", json.dumps(record))
            if progress:
                progress(len(VIEWS) * (done + 1), len(names))
    return folder


def _check_folder(folder: Path, note: Path, wanted: dict, names: set[str]):
    found = {p.name for p in folder.iterdir() if p.suffix != ".part"} - {note.name}
    foreign = sorted(found - names) if note.exists() else sorted(found)
    if note.exists():
        try:
            made = dict(json.loads(note.read_bytes()))
        except ValueError as error:
            raise ValueError(
                f"expected {note} to hold a synthetic data set's arguments; choose another folder"
            ) from error
        differing = ", ".join(f"{k} {wanted[k]!r}, got {made.get(k)!r}" for k in wanted if made.get(k) != wanted[k])
        if differing:
            raise ValueError(f"{folder} was made otherwise: expected {differing}; choose another folder")
    if foreign:
        some = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise ValueError(
            f"expected {folder} to be empty or to hold this data set alone; got {some}; choose another folder"
        )
