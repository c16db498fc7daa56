"""Who is who from frame to frame: poses matched by where they are in the image, and everything doubtful said.

MediaPipe has no identities: its pose may jump to another person, two poses may lie on one person, and two persons may
change places in its list. Here a person is a track: poses that follow each other in place and size. A pose that is
somewhere else begins a track of its own, so that no track ever changes its person by a jump.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from bpilib.data.video.landmarks import Landmarks

TORSO = ((11, 12), (23, 24))  # MediaPipe's shoulders and hips
REACH, SPEED, FAR = 0.5, 3.0, 1.2  # how far a body may be from where it was: at once, a second, at most; in torsos
RATIO = 0.5  # of its size, as a natural logarithm
ALIVE = 1.0  # seconds that a track may be lost and found again
SAME = 0.35  # two poses nearer to each other than this, joint by joint in torsos, are on one person
CLOSE = 0.6  # two persons whose middles are nearer than this, in torsos, may be taken for each other


class Event(NamedTuple):
    """Something about frames `first` to `last` of the film (counted from 1): what was found, and what was done."""

    first: int
    last: int
    what: str
    done: str


@dataclass
class Track:
    """One person: rows (n,) of the frames looked at, in order, and which pose (n,) of each is theirs."""

    rows: list[int]
    poses: list[int]
    place: np.ndarray
    speed: np.ndarray
    size: float

    @property
    def first(self) -> int:
        return self.rows[0]

    @property
    def last(self) -> int:
        return self.rows[-1]


def middle_and_size(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 33, 2) pixels to the middle of the torso (..., 2) and the torso's length (...) as the body's size."""
    shoulders, hips = (image[..., pair, :].mean(-2) for pair in TORSO)
    spread = np.linalg.norm(image.max(-2) - image.min(-2), axis=-1)  # a torso bent towards the camera looks short
    return (shoulders + hips) / 2, np.maximum(np.maximum(np.linalg.norm(shoulders - hips, axis=-1), spread / 4), 1e-6)


def follow(found: Landmarks) -> tuple[list[Track], list[Event]]:
    """Tracks of all persons in the order in which they appear, and what happened.

    Args:
        found: of one film.

    Returns:
        tracks, no pose in two of them; events: jumps, second poses on one person, exchanged and close persons.
    """
    places, sizes = middle_and_size(found.image)  # (K, P, 2), (K, P)
    there = np.isfinite(places).all(-1) & np.isfinite(sizes)
    tracks: list[Track] = []
    marks: dict[tuple[str, str], list[int]] = defaultdict(list)  # what and what was done → frames
    events: list[Event] = []
    for k in range(len(found.numbers)):
        poses = _one_each(found, k, np.flatnonzero(there[k]), sizes[k], marks)
        now = found.seconds[k]
        alive = [t for t in tracks if now - found.seconds[t.last] <= ALIVE]
        chosen = _match(alive, poses, places[k], sizes[k], now, found.seconds)
        for track, pose in chosen.items():
            t = alive[track]
            if t.last == k - 1 and t.poses[-1] != pose and len(poses) > 1:
                marks["MediaPipe changed the order of the persons", "each followed by place"].append(k)
            gap = max(now - found.seconds[t.last], 1e-3)
            away = np.linalg.norm(places[k, pose] - t.place) / t.size
            if t.last < k - 1 and away > REACH:
                what = f"a person found again after {gap:.2f} s, {away:.1f} torsos away"
                events.append(_event(found, t.last, k, what, "taken for the same one; look whether it is"))
            t.speed = 0.7 * t.speed + 0.3 * (places[k, pose] - t.place) / gap if t.last == k - 1 else t.speed * 0
            t.place, t.size = places[k, pose], 0.7 * t.size + 0.3 * float(sizes[k, pose])
            t.rows.append(k)
            t.poses.append(pose)
        lost = [i for i in range(len(alive)) if i not in chosen]
        for pose in poses:
            if pose in chosen.values():
                continue
            from_here = [alive[i] for i in lost if alive[i].last == k - 1]
            if from_here:
                away = min(np.linalg.norm(places[k, pose] - t.place) / t.size for t in from_here)
                events.append(_event(found, k, k, f"the pose jumped by {away:.1f} torsos", "taken for another person"))
            tracks.append(Track([k], [pose], places[k, pose], np.zeros(2), float(sizes[k, pose])))
        for i, pose in chosen.items():
            near = [o for j, o in chosen.items() if j > i]
            if any(np.linalg.norm(places[k, pose] - places[k, o]) < CLOSE * alive[i].size for o in near):
                what = "two persons lie over each other in the image"
                marks[what, "followed by place and speed; look whether they were exchanged"].append(k)
    for (what, done), rows in marks.items():
        events += [_event(found, first, last, what, done) for first, last in _runs(rows)]
    return tracks, sorted(events)


def _event(found: Landmarks, first: int, last: int, what: str, done: str) -> Event:
    return Event(int(found.numbers[first]) + 1, int(found.numbers[last]) + 1, what, done)


def _runs(rows: Iterable[int], apart: int = 5) -> list[tuple[int, int]]:
    """Rising numbers to (first, last) of their runs; holes of fewer than `apart` are passed over."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row - runs[-1][1] < apart:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    return [(first, last) for first, last in runs]


def _one_each(found: Landmarks, k: int, poses: np.ndarray, sizes: np.ndarray, marks: dict) -> list[int]:
    """Of poses that lie on one person, the one that is seen best."""
    kept: list[int] = []
    for pose in sorted(poses, key=lambda p: -found.visibility[k, p].mean()):
        apart = [np.linalg.norm(found.image[k, pose] - found.image[k, other], axis=-1).mean() for other in kept]
        if any(distance < SAME * sizes[other] for distance, other in zip(apart, kept)):
            marks["a second pose on the same person", "left out"].append(k)
        else:
            kept.append(int(pose))
    return sorted(kept)


def _match(
    alive: list[Track], poses: list[int], places: np.ndarray, sizes: np.ndarray, now: float, seconds: np.ndarray
) -> dict[int, int]:
    """Number of a track → its pose: least sum of distances, none beyond what a body can do."""
    if not alive or not poses:
        return {}
    cost = np.full((len(alive), len(poses)), 1e3)
    for i, track in enumerate(alive):
        gap = now - seconds[track.last]
        expected = track.place + track.speed * min(gap, 0.2)
        reach = min(REACH + SPEED * gap, FAR)
        for j, pose in enumerate(poses):
            away = np.linalg.norm(places[pose] - expected) / track.size
            if away <= reach and abs(np.log(sizes[pose] / track.size)) <= RATIO:
                cost[i, j] = away + gap  # a track that was just here goes before one that is long lost
    return {int(i): poses[j] for i, j in zip(*linear_sum_assignment(cost)) if cost[i, j] < 1e3}
