"""Measurements of the bodies in a clip, and whether they have the proportions of people."""

from dataclasses import dataclass

import numpy as np

from bpilib.data.store import mark_present
from bpilib.skeleton import Skeleton

FRAMES = 32  # of a clip, evenly spread, that are measured
STEADY = 0.3  # relative change of bone lengths over time above which it is not a body
BODY = 0.8  # share of the tests below that a body passes; trackers err, people differ
TORN = 3  # sizes: a joint that is farther from its parent, always at one place, was not tracked there
NO_DEPTH = 1e-3  # extent along z, in body sizes, below which there is no depth
IN_LINE = 0.98  # cosine of shin and foot above which the foot is only an extension of the shin
# sizes: a body that is farther away one frame later, and at rest before and after, was not followed. Gravity and
# muscles, of 10 to 20 m/s², bring it half as far at 5 frames a second
JUMP = 1.2
AWAY = 3  # frames that a body stays at most where it has jumped to; longer ones are also another body's in its place
REST = 0.25  # of a jump: how long the steps beside it, and how far apart the places before and after, may be
NOBODY_THERE = "nobody in it: all coordinates are 0"
LENGTHS = {  # of human bones, in torsos, from small children to long limbs and noisy trackers
    "shoulder": (0.08, 0.9), "elbow": (0.25, 1.1), "wrist": (0.2, 1.0), "hand": (0.0, 0.6), "hip": (0.02, 0.6),
    "knee": (0.4, 1.7), "ankle": (0.35, 1.7), "foot": (0.0, 0.7), "head": (0.1, 0.9),
}  # fmt: skip
TYPICAL = dict(zip(LENGTHS, (0.34, 0.58, 0.5, 0.17, 0.17, 0.85, 0.8, 0.22, 0.33)))
ALIKE = ("elbow", "wrist", "knee", "ankle")  # bones of the same length on both sides, to a factor of two
LONGER = (("knee", "foot"), ("ankle", "foot"), ("knee", "hip"), ("elbow", "hand"), ("wrist", "hand"))  # first > second


@dataclass(frozen=True)
class Figures:
    """Measurements of one clip; a "size" is the unit of a body, see `size`.

    Attributes:
        name: of the clip.
        rows: number of poses measured (frames times persons).
        torso: median distance from hips to shoulders, metres.
        size: length of the torso as estimated from the other bones, metres; valid also if shoulders or hips are lost.
        upright: median cosine of hips → head with y.
        lean: (3,) mean unit vector of hips → head; short if the direction changes.
        origin: distance from the origin of the spine in the first person's first frame, metres.
        depth: extent of the body along z, in sizes; 0: no depth.
        level: median of z, metres.
        bones: (B,) median lengths in sizes, in the order of `list_limbs`.
        steady: relative standard deviation of bone lengths, median over bones; NaN: too few frames.
        turning: median cosine of up × forward (ankles → feet) with right → left hip; below 0 for a mirror image.
        share: all x and y lie from 0 to 1.
        scaled: every axis spans exactly 0 to 1, or -1 to 1.
        repeated: names of joints that, in most frames, coincide with their parent or are 0, 0, 0.
        torn: names of joints that, in several frames, are at the same place more than `TORN` sizes from their parent.
        jumps: number of frames at which a body has jumped to another place and back, or two have changed places.
    """

    name: str
    rows: int
    torso: float
    size: float
    upright: float
    lean: np.ndarray
    origin: float
    depth: float
    level: float
    bones: np.ndarray
    steady: float
    turning: float
    share: bool
    scaled: bool
    repeated: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    jumps: int = 0


def list_limbs(skeleton: Skeleton) -> list[tuple[str, int, int]]:
    """List the bones that are measured, those that both skeletons have: (name, joint, parent joint)."""
    at = {name: i for i, name in enumerate(skeleton.joints)}
    upper = skeleton.root
    out = [("head", at["head"], upper)]
    for side in ("left", "right"):
        for chain in (("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot")):
            above = upper if chain[0] == "shoulder" else 0
            for name in chain:
                out.append((f"{side} {name}", at[f"{side} {name}"], above))
                above = at[f"{side} {name}"]
    return out


def measure(poses: np.ndarray, skeleton: Skeleton, name: str = "") -> Figures:
    """Measure a clip (L, M, V, 3) with the joints of `skeleton`; absent persons are zeros.

    Raises:
        ValueError: no person in any frame.
    """
    if not poses.any():
        raise ValueError(NOBODY_THERE)
    frame, person = find_first_body(poses)
    bodies = poses[_mark_bodies(poses)]  # (P, V, 3), of all frames
    rows = bodies
    ends = rows.min((0, 1)), rows.max((0, 1))
    scaled = all(np.abs(ends[1] - 1) < 1e-4) and (all(np.abs(ends[0]) < 1e-4) or all(np.abs(ends[0] + 1) < 1e-4))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), FRAMES * poses.shape[1])).astype(int)].astype(float)
    at = {joint: i for i, joint in enumerate(skeleton.joints)}
    shoulders, hips = ([at[f"{side} {n}"] for side in ("left", "right")] for n in ("shoulder", "hip"))
    spine = rows[:, skeleton.root] - rows[:, 0], rows[:, shoulders].mean(1) - rows[:, hips].mean(1)
    torso = max(float(np.median(np.linalg.norm(way, axis=-1))) for way in spine)  # one of them may be untracked
    up = _normalise(rows[:, at["head"]] - rows[:, 0])
    bones = list_limbs(skeleton)
    lengths = np.linalg.norm(rows[:, [j for _, j, _ in bones]] - rows[:, [p for _, _, p in bones]], axis=-1)  # (P, B)
    typical = np.array([TYPICAL[name.split()[-1]] for name, _, _ in bones])
    size = float(np.median(np.median(lengths, 0) / typical))
    unit, mean = size or 1.0, lengths.mean(0)
    changes = np.divide(lengths.std(0, ddof=len(rows) > 1), mean, out=np.zeros_like(mean), where=mean > 0)
    feet, ankles, knees = ([at["left " + n], at["right " + n]] for n in ("foot", "ankle", "knee"))
    shins, forward = rows[:, ankles] - rows[:, knees], rows[:, feet] - rows[:, ankles]  # (P, 2, 3)
    # a foot that only extends the shin has no direction of its own
    guessed = np.median((_normalise(shins) * _normalise(forward)).sum(-1)) > IN_LINE
    forward = 0 * forward[:, 0] if guessed else forward.mean(1)
    left = rows[:, hips[0]] - rows[:, hips[1]]
    turning = (_normalise(np.cross(up, forward)) * _normalise(left)).sum(-1)
    parents = skeleton.parents
    bound = np.array([j for j in range(skeleton.num_joints) if parents[j] != j])
    twice = (rows[:, bound] == rows[:, parents[bound]]).all(-1).mean(0) > 0.5
    # the origin itself is where a spine or hips may be
    zero = (rows == 0).all(-1).mean(0) > 0.5
    zero[[0, 1, skeleton.root]] = False
    again = {int(j) for j in bound[twice]} | {int(j) for j in np.flatnonzero(zero)}
    reach = np.linalg.norm(bodies - bodies[:, parents], axis=-1)  # (P, V)
    away = reach > TORN * unit
    places = {j: bodies[away[:, j], j] for j in np.flatnonzero(away.sum(0) > 1)}
    torn = [j for j, place in places.items() if np.ptp(place, axis=0).max() < 1e-3]
    xy = rows[..., :2]
    return Figures(
        name, len(rows), torso, size, float(np.median(up[:, 1])), up.mean(0),
        float(np.linalg.norm(poses[frame, person, 1].astype(float))),
        float(np.median(np.ptp(rows[..., 2], axis=1))) / unit, float(np.median(rows[..., 2])),
        np.median(lengths, 0) / unit,
        float(np.median(changes)) if len(rows) > 2 else np.nan, float(np.median(turning)),
        bool(((xy >= 0) & (xy <= 1)).mean() > 0.99), scaled, tuple(skeleton.joints[j] for j in sorted(again)),
        tuple(skeleton.joints[j] for j in torn), _count_jumps(poses, skeleton.root, unit),
    )  # fmt: skip


def _count_jumps(poses: np.ndarray, root: int, unit: float) -> int:
    """`Figures.jumps` of a clip (L, M, V, 3); a body is where its joints are on average, and its root goes along."""
    places = np.where(_mark_bodies(poses)[..., None], poses.mean(2, dtype=float), np.nan)  # (L, M, 3)
    steps, of_root = np.diff(places, axis=0), np.diff(poses[:, :, root].astype(float), axis=0)
    lengths = np.minimum(np.linalg.norm(steps, axis=-1), np.linalg.norm(of_root, axis=-1))  # (L - 1, M)
    back = np.linalg.norm(steps[1:] + steps[:-1], axis=-1)  # of two steps, the way that remains
    sudden = lengths > JUMP * unit
    before, after = np.s_[:-1], np.s_[1:]
    for one, beside in ((after, before), (before, after)):  # who runs has long steps beside it, in the same direction
        sudden[one] &= ~(np.minimum(lengths[beside], back) > REST * lengths[one])  # also where nobody was beside it
    jumped = np.zeros(len(lengths), bool)
    for person in range(poses.shape[1]):
        at, path = np.flatnonzero(sudden[:, person]), places[:, person]
        out, home = at[:-1], at[1:]
        apart = np.linalg.norm(path[home + 1] - path[out], axis=-1)
        returned = (apart <= REST * lengths[[out, home], person].min(0)) & (home - out <= AWAY)
        jumped[home[returned]] = True
    if poses.shape[1] > 1:
        swapped = np.linalg.norm(places[1:, [1, 0]] - places[:-1, :2], axis=-1).sum(1)
        jumped |= sudden[:, :2].all(1) & (swapped <= REST * lengths[:, :2].sum(1))
    return int(jumped.sum())


def find_first_body(poses: np.ndarray) -> tuple[int, int]:
    """Find (frame, person) of the first pose of a clip's (L, M, V, 3) first person whose joints do not all coincide.

    They coincide where NTU's tracker has lost the only person of a recording for a moment.
    """
    there = _mark_bodies(poses)
    person = int(np.argmax(there.any(0)))
    return int(np.argmax(there[:, person])), person


def _mark_bodies(poses: np.ndarray) -> np.ndarray:
    """(L, M) bool, where the joints of a clip (L, M, V, 3) lie apart; if they never do, where persons are present."""
    sized = mark_present(poses != poses[:, :, :1])
    return sized if sized.any() else mark_present(poses)


def _normalise(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def find_odd_bones(bones: np.ndarray, skeleton: Skeleton, flat: bool = False) -> tuple[float, list[str]]:
    """Test bone lengths (B,) in torsos against those of human bodies.

    Args:
        bones: in the order of `list_limbs`.
        skeleton: NTU or UCLA.
        flat: in an image, where bones are foreshortened: none is too short, or different from the other side's.

    Returns:
        The share of tests passed, and the failed ones in words.
    """
    names = [name for name, _, _ in list_limbs(skeleton)]
    length = dict(zip(names, bones))
    failed, tests = [], 0
    for name, value in length.items():
        low, high = LENGTHS[name.split()[-1]]
        low, high = (0, 1.5 * high) if flat else (low, high)
        tests += 1
        if not low <= value <= high:
            failed.append(f"{name} {value:.2f} (expected {low:g} to {high:g})")
    for name in () if flat else ALIKE:
        one, other = length[f"left {name}"], length[f"right {name}"]
        tests += 1
        if not 0.5 * other <= one <= 2 * other:
            failed.append(f"left {name} {one:.2f}, right {other:.2f}")
    for side in () if flat else ("left", "right"):
        for one, other in LONGER:
            tests += 1
            if length[f"{side} {one}"] < 1.2 * length[f"{side} {other}"]:
                failed.append(f"{side} {one} {length[f'{side} {one}']:.2f}, {other} {length[f'{side} {other}']:.2f}")
    return 1 - len(failed) / tests, failed


def is_body(figures: Figures, skeleton: Skeleton, flat: bool = False) -> bool:
    """Whether a clip's bones have the proportions of a body, in any unit; `flat`: in an image."""
    passed, _ = find_odd_bones(figures.bones, skeleton, flat)
    if not flat and (figures.depth < NO_DEPTH or figures.share or figures.scaled):
        return False
    return figures.size > 0 and passed >= BODY and not figures.steady > STEADY


def estimate_size(poses: np.ndarray, skeleton: Skeleton) -> float:
    """`Figures.size` from at most eight poses."""
    rows = poses[_mark_bodies(poses)]  # (P, V, 3)
    rows, bones = rows[:: max(1, len(rows) // 8)], list_limbs(skeleton)
    ends = rows[:, [j for _, j, _ in bones]].astype(float) - rows[:, [p for _, _, p in bones]]
    lengths = np.median(np.sqrt((ends**2).sum(-1)), 0)
    return float(np.median(lengths / [TYPICAL[name.split()[-1]] for name, _, _ in bones]))
