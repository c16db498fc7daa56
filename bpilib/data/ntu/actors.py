"""Selects the two actors of an NTU clip from its tracked bodies, and moves them to the first actor's spine.

Source: the published preparation of CTR-GCN (Chen et al., ICCV 2021; github.com/Uason-Chen/CTR-GCN), which most later
work uses. Sums and variances are computed by the same NumPy operations on arrays of the same shape, in float32, so the
result is bit for bit the published one.
"""

from dataclasses import dataclass

import numpy as np

from bpilib.data.ntu.parser import JOINTS, Bodies
from bpilib.data.ntu.raw_files import BadFileError

MIN_FRAMES = 12  # of several bodies, one with fewer frames is noise
MAX_SPREAD = np.float32(0.8)  # width over height of a body, above which a frame is noisy
MAX_NOISY = 0.69754  # share of noisy frames from which a body is noise
COLUMNS = 3 * JOINTS


@dataclass(eq=False)
class _Track:
    """A body's frames, always contiguous from its first: joints (F, 25, 3)."""

    start: int
    joints: np.ndarray
    motion: np.float32

    @property
    def end(self) -> int:
        return self.start + len(self.joints) - 1


def select_actors(bodies: Bodies, copy_single: bool = False) -> np.ndarray:
    """Select and place two actors as published.

    Args:
        bodies: from `bpilib.data.ntu.parser.parse`.
        copy_single: if there is a single actor, the second is a copy of the first (NTU120), else zeros (NTU60).

    Returns:
        (L, 2, 25, 3) float32, metres, joint 2 of the first actor's first non-zero frame at the origin.

    Raises:
        BadFileError: no actor is left.
    """
    if int(bodies.ids.max()) == 0:
        frames, single = bodies.joints.reshape(-1, COLUMNS), True
    else:
        tracks = _denoise(_make_tracks(bodies))
        single = len(tracks) == 1
        frames = _place(tracks, bodies.frames)
        frames = frames[frames.sum(axis=1) != 0]
    seen = np.flatnonzero((frames[:, :COLUMNS] != 0).any(1))
    if not len(seen):
        raise BadFileError("all coordinates of its first actor are zero")
    origin = frames[seen[0], 3:6]
    out = np.zeros((len(frames), 2, COLUMNS), np.float32)
    if single:
        out[:, 0] = frames - np.tile(origin, JOINTS)
        if copy_single:
            out[:, 1] = out[:, 0]
    else:
        absent = [frames[:, :COLUMNS].sum(axis=1) == 0, frames[:, COLUMNS:].sum(axis=1) == 0]
        moved = frames - np.tile(origin, 2 * JOINTS)
        for person in range(2):
            out[:, person] = moved[:, person * COLUMNS : (person + 1) * COLUMNS]
            out[absent[person], person] = 0
    if not np.isfinite(out).all():
        raise BadFileError("coordinates too large to be moved")
    return out.reshape(-1, 2, JOINTS, 3)


def _measure_motion(joints: np.ndarray) -> np.float32:
    """Variance over frames and joints of (F, 25, 3), summed over the axes."""
    return np.sum(np.var(joints.reshape(-1, 3), axis=0))


def _make_tracks(bodies: Bodies) -> list[_Track]:
    """Make a track of each body, in the order they first appear."""
    tracks = []
    for body in range(int(bodies.ids.max()) + 1):
        rows = np.flatnonzero(bodies.ids == body)
        joints = bodies.joints[rows]
        tracks.append(_Track(int(bodies.at[rows[0]]), joints, _measure_motion(joints)))
    return tracks


def _denoise(tracks: list[_Track]) -> list[_Track]:
    """Remove bodies with too few frames and, while two are left, too wide ones; sort by motion, descending."""
    kept = [track for track in tracks if len(track.joints) >= MIN_FRAMES]
    if not kept:
        raise BadFileError(f"none of its {len(tracks)} bodies has {MIN_FRAMES} frames or more")
    for track in list(kept):
        if len(kept) == 1:
            break
        x, y = track.joints[..., 0], track.joints[..., 1]
        good = x.max(1) - x.min(1) <= MAX_SPREAD * (y.max(1) - y.min(1))
        noisy = len(good) - int(good.sum())
        if noisy / len(good) >= MAX_NOISY:
            kept.remove(track)
        elif noisy:
            track.motion = min(track.motion, _measure_motion(track.joints[good]))
    return sorted(kept, key=lambda track: track.motion, reverse=True)


def _place(tracks: list[_Track], frames: int) -> np.ndarray:
    """Write tracks into two actors: (frames, 150), or (frames, 75) if there is one track."""
    out = np.zeros((frames, COLUMNS * min(len(tracks), 2)), np.float32)
    spans = [(tracks[0].start, tracks[0].start), (0, 0)]  # the published code starts the second at frame 0
    for number, track in enumerate(tracks):
        for actor, (start, end) in enumerate(spans):
            if number == 0 or min(end, track.end) - max(start, track.start) <= 0:
                columns = slice(actor * COLUMNS, (actor + 1) * COLUMNS)
                out[track.start : track.end + 1, columns] = track.joints.reshape(-1, COLUMNS)
                spans[actor] = (min(start, track.start), max(end, track.end))
                break
    return out
