"""Followed persons to clips: who is taken, gaps filled or cut, 30 frames a second, each person where they stand."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d

from bpilib.data.video.landmarks import JOINTS, RATE, Landmarks, check_people
from bpilib.data.video.tracking import Event, Track, follow, middle_and_size

MAX_GAP = 0.3  # seconds without a person that are filled by interpolation; longer ones cut the clip
SHORTEST = 0.5  # seconds of a clip; what is shorter is left out
FOCAL = 0.9  # assumed focal length by the frame's longer side, about that of a phone; only depth depends on it
SCALE_SECONDS = 3.0  # over which a person's scale in the image is smoothed, since a bent body changes it
BODY = np.r_[11:17, 23:29]  # shoulders to wrists, hips to ankles


@dataclass(frozen=True)
class Piece:
    """A stretch of a film without a gap and without a change of person: L frames at 30 a second.

    Attributes:
        poses: (L, M, 33, 3) float32, metres, x to the image's right, y down, z away, persons where they stand, the
            middle of the first one's hips in the first frame at the origin; a person who is not there has zeros.
        image: (L, M, 33, 2) float32, pixels; NaN for a person who is not there.
        seconds: (L,) float64, since the film's first frame.
        frames: (L,) int64, the film's frame nearest to each, from 0.
        filled: (L,) bool, where a person was interpolated over a gap.
    """

    poses: np.ndarray
    image: np.ndarray
    seconds: np.ndarray
    frames: np.ndarray
    filled: np.ndarray


def cut(found: Landmarks, people: int = 1, name: str = "the film") -> tuple[list[Piece], list[Event]]:
    """Clips of a film, and what happened on the way, with the film's frame numbers.

    Args:
        found: landmarks of the film.
        people: persons taken, 1 or 2: those that are large in the image and long in the film; the others are left out.
        name: of the film, for errors.

    Raises:
        ValueError: no frame, nobody in any, or nobody for as long as a clip must be.
    """
    check_people(people)
    promised, came = map(int, found.counts)
    if not len(found.numbers):
        raise ValueError(f"{name}: expected frames, got none")
    tracks, events = follow(found)
    whole = (1, int(found.numbers[-1]) + 1)
    if promised > came + max(2, 0.02 * promised):
        what = f"the film ends after {came} of the {promised} frames that its header promises"
        events.append(Event(whole[1], whole[1], what, "the frames that came are used: is the file whole?"))
    if not tracks:
        raise ValueError(
            f"{name}: expected a person, but none was found in any of {len(found.numbers)} frames "
            f"({found.size[0]} × {found.size[1]}): is somebody in the picture, upright, whole, and well lit? "
            "A film that lies on its side has to be turned"
        )
    slots, left_out = _choose(found, tracks, people)
    if left_out:
        names = f"{len(left_out)} more person{'s' * (len(left_out) > 1)} or stray pose{'s' * (len(left_out) > 1)}"
        share = max(len(track.rows) for track in left_out) / len(found.numbers)
        taken = "the one who is largest and longest there is taken" if people == 1 else "the two largest are taken"
        events.append(Event(*whole, f"{names}, there in up to {share:.0%} of the frames", taken))
    pieces: list[Piece] = []
    for rows in _stretches(found, slots, events):
        piece = _piece(found, slots, rows)
        seconds = len(piece.seconds) / RATE
        if seconds < SHORTEST:
            first, last = found.numbers[[rows[0], rows[1]]] + 1
            what = f"a person for {seconds:.2f} s, shorter than the {SHORTEST} s a clip must have"
            events.append(Event(int(first), int(last), what, "left out"))
            continue
        pieces.append(piece)
        events += _notes(piece)
    if not pieces:
        length = found.seconds[-1] - found.seconds[0]
        raise ValueError(
            f"{name}: expected a person for at least {SHORTEST} s without a gap, got a film of {length:.2f} s with "
            f"{len(tracks)} short appearance{'s' * (len(tracks) > 1)}: use a longer film (an action takes 2 to 4 s) "
            f"of 10 or more frames a second; {'; '.join(e.what for e in sorted(events)[:3])}"
        )
    return pieces, sorted(events)


def _notes(piece: Piece) -> list[Event]:
    """What was filled in a clip, and who is there for a part of it only."""
    notes = []
    if piece.filled.any():
        first, last = piece.frames[np.flatnonzero(piece.filled)[[0, -1]]] + 1
        what = f"a person missing for moments, {piece.filled.sum()} frames of the clip in all"
        notes.append(Event(int(first), int(last), what, "interpolated"))
    for person, there in enumerate(np.isfinite(piece.image).all((-1, -2)).T, 1):
        if not there.all():
            first, last = piece.frames[np.flatnonzero(~there)[[0, -1]]] + 1
            what = f"person {person} is there in {there.mean():.0%} of the clip"
            notes.append(Event(int(first), int(last), what, "zeros where they are not"))
    return notes


def _choose(found: Landmarks, tracks: list[Track], people: int) -> tuple[list[list[Track]], list[Track]]:
    """Tracks by person taken, and those left out; two of one person never overlap in time."""
    _, sizes = middle_and_size(found.image)
    weights = [sizes[track.rows, track.poses].sum() for track in tracks]
    slots: list[list[Track]] = [[] for _ in range(people)]
    left_out = []
    for i in sorted(range(len(tracks)), key=lambda i: -weights[i]):
        track = tracks[i]
        free = [s for s in slots if all(track.last < other.first or other.last < track.first for other in s)]
        if free:
            free[0].append(track)
        else:
            left_out.append(track)
    for slot in slots:
        slot.sort(key=lambda track: track.first)
    return [slot for slot in slots if slot], left_out


def _stretches(found: Landmarks, slots: list[list[Track]], events: list[Event]) -> list[tuple[int, int]]:
    """(first, last) rows between which somebody is there without a long gap, and nobody becomes another."""
    there = np.zeros(len(found.numbers), bool)
    for track in (track for slot in slots for track in slot):
        there[track.rows] = True
    rows = np.flatnonzero(there)
    changes = {track.first: slot for slot in slots for track in slot[1:]}  # a slot's next person begins here
    out = [[rows[0], rows[0]]]
    for before, row in pairwise(rows):
        gap = found.seconds[row] - found.seconds[before]
        numbers = int(found.numbers[before]) + 1, int(found.numbers[row]) + 1
        if gap > MAX_GAP + 1e-6:
            events.append(Event(*numbers, f"nobody for {gap:.2f} s", "the clip is cut"))
        elif row in changes:
            what = "another person, or the same one somewhere else"
            events.append(Event(numbers[1], numbers[1], what, "the clip is cut, so that nobody becomes another"))
        else:
            out[-1][1] = row
            continue
        out.append([row, row])
    return [(int(first), int(last)) for first, last in out]


def _piece(found: Landmarks, slots: list[list[Track]], rows: tuple[int, int]) -> Piece:
    """One stretch at 30 frames a second."""
    start, stop = found.seconds[list(rows)]
    seconds = start + np.arange(int((stop - start) * RATE + 1e-6) + 1) / RATE
    times = found.seconds[rows[0] : rows[1] + 1]
    nearest = np.searchsorted((times[1:] + times[:-1]) / 2, seconds)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    persons, filled = [], np.zeros(len(seconds), bool)
    for slot in slots:
        image = np.full((len(seconds), JOINTS, 2), np.nan, np.float32)
        poses = np.zeros((len(seconds), JOINTS, 3), np.float32)
        for track in slot:
            at = np.array([(k, p) for k, p in zip(track.rows, track.poses) if rows[0] <= k <= rows[1]]).reshape(-1, 2)
            if not len(at):
                continue
            k, p = at.T
            known, hole = _covered(found.seconds[k], seconds, step)
            image[known] = _resample(found.image[k, p], found.seconds[k], seconds[known])
            world = _resample(found.world[k, p], found.seconds[k], seconds[known])
            poses[known] = place(image[known], world, found.size)
            filled |= hole
        if np.isfinite(image).any():
            persons.append((poses, image))
    poses, image = (np.stack(arrays, 1) for arrays in zip(*persons))  # (L, M, 33, ·)
    there = np.asarray(np.isfinite(image).all((-1, -2)))  # (L, M)
    frame, person = np.argwhere(there)[0]
    hips = poses[frame, person, [23, 24]].mean(0)
    poses = np.where(there[..., None, None], poses - hips, 0).astype(np.float32)
    return Piece(poses, image, seconds, found.numbers[rows[0] : rows[1] + 1][nearest], filled)


def _covered(times: np.ndarray, seconds: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Which moments lie between two of `times` that are near enough, and which of those in a hole of several steps."""
    after = np.searchsorted(times, seconds - 1e-6)
    inside = (seconds >= times[0] - 1e-6) & (seconds <= times[-1] + 1e-6)
    after = after.clip(0, len(times) - 1)
    exact = np.abs(times[after] - seconds) < 1e-4
    gap = np.where(exact, 0, times[after] - times[(after - 1).clip(0)])
    known = inside & (gap <= MAX_GAP + 1e-6)
    return known, known & (gap > 1.5 * max(step, 1 / RATE))


def _resample(values: np.ndarray, times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(n, 33, C) at `times` to (L, 33, C) at `seconds`, linear between neighbours."""
    after = np.searchsorted(times, seconds).clip(1, max(len(times) - 1, 1))
    before, after = after - 1, np.minimum(after, len(times) - 1)
    span = np.maximum(times[after] - times[before], 1e-9)
    share = ((seconds - times[before]) / span).clip(0, 1)[:, None, None]
    return ((1 - share) * values[before] + share * values[after]).astype(np.float32)


def place(image: np.ndarray, world: np.ndarray, size: np.ndarray) -> np.ndarray:
    """World landmarks, which are centred on each person's hips, where the person stands before the camera.

    How many pixels a metre has at a person is the scale between their world landmarks and those in the image; it gives
    the way to the side and up exactly, and the distance for an assumed focal length (`FOCAL`).

    Args:
        image: (L, 33, 2) pixels.
        world: (L, 33, 3) metres.
        size: (2,) the frame's width and height.

    Returns:
        (L, 33, 3) float32, metres from the camera, x to the right, y down, z away.
    """
    flat, seen = world[:, BODY, :2].astype(float), image[:, BODY].astype(float)
    flat_mean, seen_mean = flat.mean(1, keepdims=True), seen.mean(1, keepdims=True)
    flat_from, seen_from = flat - flat_mean, seen - seen_mean
    scale = (flat_from * seen_from).sum((1, 2)) / np.maximum((flat_from**2).sum((1, 2)), 1e-9)  # pixels a metre
    frames = max(1, min(len(scale), round(SCALE_SECONDS * RATE))) | 1
    scale = np.maximum(uniform_filter1d(median_filter(scale, frames, mode="nearest"), frames, mode="nearest"), 1e-3)
    origin = seen_mean[:, 0] - scale[:, None] * flat_mean[:, 0]  # the hips in the image
    middle, longer = np.asarray(size, float) / 2, float(np.max(size))
    at = np.concatenate([(origin - middle) / scale[:, None], FOCAL * longer / scale[:, None]], 1)
    return (world + at[:, None]).astype(np.float32)
