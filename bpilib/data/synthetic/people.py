"""A procedural person acting ten classes: proportions and habits, movements, and the body that carries them out.

World axes are those of a camera the person faces: x to the person's right, y up from the floor, z to the person's back;
metres. The trunk is posed by rotations, arms and legs by two-bone inverse kinematics, so bones keep their lengths,
elbows and knees bend one way only, and standing feet stay where they are.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

CLASSES = (
    "wave",
    "clap",
    "drink",
    "put on a hat",
    "kick",
    "touch knee",
    "squat",
    "bow",
    "jumping jack",
    "march in place",
)
SPINE, NECK, HEAD, SHOULDERS, KNEES = 1, 2, 3, (4, 8), (13, 17)  # left, right
MIRROR = np.array([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15])
# bone lengths in metres, by the joint at the bone's far end, about the medians of NW-UCLA
TRUNK, ARM, LEG = ({1: 0.068, 2: 0.335, 3: 0.185}, {4: 0.19, 5: 0.25, 6: 0.236, 7: 0.078},
                   {12: 0.097, 13: 0.46, 14: 0.4, 15: 0.09})  # fmt: skip


def check(name: str, value: int, low: int, high: int | None = None):
    """Raises ValueError unless value is a whole number within its bounds."""
    if not isinstance(value, int | np.integer) or value < low or (high is not None and value > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"expected {name} to be a whole number, {bounds}; got {value!r}")


@dataclass(frozen=True)
class Person:
    """What stays the same in all clips of a subject.

    Attributes:
        bones: (20,) float64, metres, length of the bone that ends at each joint (hip centre: 0).
        left_handed: acts as the mirror image of a right-handed person.
        tempo, amplitude: factors of speed and extent around 1.
        stance: metres between hip and foot sideways.
        slouch: radians the trunk leans forward at rest.
        habit: (4,) float64 in [-1, 1], personal ways: height and reach of gestures, elbows out, toes out.
    """

    bones: np.ndarray
    left_handed: bool
    tempo: float
    amplitude: float
    stance: float
    slouch: float
    habit: np.ndarray


def make_person(subject: int, seed: int = 0) -> Person:
    """The subject of that number (from 1): every fourth is left-handed.

    Raises:
        ValueError: a subject below 1 or a seed below 0.
    """
    check("subject", subject, 1), check("seed", seed, 0)
    r = np.random.default_rng((1, seed, subject))
    bones, height = np.zeros(20), r.uniform(0.88, 1.14)
    for group in (TRUNK, ARM, LEG):
        factor = height * r.uniform(0.93, 1.07)
        for joint, length in group.items():
            bones[[joint, MIRROR[joint]]] = length * factor
    return Person(bones, (subject + seed) % 4 == 0, r.uniform(0.75, 1.3), r.uniform(0.7, 1.2), r.uniform(0.0, 0.07),
                  r.uniform(-0.03, 0.12), r.uniform(-1, 1, 4))  # fmt: skip


@dataclass
class Pose:
    """Channels over L frames in the floor's frame; sides: 0 left, 1 right; sideways offsets count outward."""

    frames: int
    hips: np.ndarray = field(init=False)  # (L,3) hip centre, offset from standing
    trunk: np.ndarray = field(init=False)  # (L,3) bend forward, lean right, turn left
    head: np.ndarray = field(init=False)  # (L,3) nod, lean right, turn left
    feet: np.ndarray = field(init=False)  # (2,L,3) ankle, offset from standing
    toes: np.ndarray = field(init=False)  # (2,L) toes pointed down
    hands: list = field(default_factory=list)  # (side, weight (L,), anchor joint, offset (L,3)), in order

    def __post_init__(self):
        self.hips, self.trunk, self.head = (np.zeros((self.frames, 3)) for _ in range(3))
        self.feet, self.toes = np.zeros((2, self.frames, 3)), np.zeros((2, self.frames))

    def reach(self, side: int, weight, anchor: int, x, y, z):
        """Moves a hand, to the extent of `weight`, to a place seen from a joint (x outward, y up, z back)."""
        offset = np.stack(np.broadcast_arrays(x, y, z, np.zeros(self.frames))[:3], -1)
        self.hands.append((side, np.broadcast_to(weight, self.frames), anchor, offset))


def turn(angles: np.ndarray) -> np.ndarray:
    """(L,3) bend forward, lean right, turn left → (L,3,3), Ry·Rz·Rx for column vectors."""
    (cx, cz, cy), (sx, sz, sy) = np.cos(angles).T, np.sin(angles).T
    sx, sz, o, i = -sx, -sz, 0 * cx, 0 * cx + 1
    rx, ry, rz = ([[i, o, o], [o, cx, -sx], [o, sx, cx]], [[cy, o, sy], [o, i, o], [-sy, o, cy]],
                  [[cz, -sz, o], [sz, cz, o], [o, o, i]])  # fmt: skip
    return np.einsum("ijl,jkl,kml->lim", ry, rz, rx)


def _limb(base, target, upper: float, lower: float, pole, tightest: float) -> tuple[np.ndarray, np.ndarray]:
    """Two bones from base towards target: (middle, end), each (L,3); the middle joint points to `pole`.

    The angle at the middle joint stays between `tightest` and 172 degrees (cosine law).
    """
    near, far = (np.sqrt(upper**2 + lower**2 - 2 * upper * lower * np.cos(np.radians(a))) for a in (tightest, 172))
    way = target - base
    distance = np.linalg.norm(way, axis=-1, keepdims=True)
    way, distance = way / distance, np.clip(distance, near, far)
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    side = pole - (pole * way).sum(-1, keepdims=True) * way
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    return base + way * along + side * np.sqrt(np.maximum(upper**2 - along**2, 0)), base + way * distance


def solve(p: Person, pose: Pose) -> np.ndarray:
    """Pose channels → (L,20,3) joints, right-handed, facing -z."""
    b, x = p.bones, np.zeros((pose.frames, 20, 3))
    hip, shoulder = b[12] * np.array([0.67, -0.742, 0]), b[4] * np.array([0.91, -0.414, 0.03])
    sole, leg = 0.65 * b[15], b[13] + b[14]
    bend = pose.trunk + np.array([p.slouch, 0, 0])
    pelvis, belly, chest = (turn(bend * share) for share in ([0.3, 0.6, 0.2], [0.7, 0.8, 0.5], [1, 1, 1]))
    skull = chest @ turn(pose.head)
    x[:, 0] = pose.hips + np.array([0, sole + 0.985 * leg - hip[1], 0])
    x[:, SPINE] = x[:, 0] + belly @ [0, b[SPINE], 0]
    x[:, NECK] = x[:, SPINE] + chest @ [0, b[NECK], 0]
    x[:, HEAD] = x[:, NECK] + skull @ (b[HEAD] * np.array([0, 0.98, -0.2]))
    for side, out in ((0, [-1, 1, 1]), (1, [1, 1, 1])):
        h, k, a, f = range(12 + 4 * side, 16 + 4 * side)
        x[:, h] = x[:, 0] + pelvis @ (hip * out)
        ankle = pose.feet[side] * out + np.array([hip[0] + p.stance, sole, 0.02]) * out
        toe_out = np.array([0.25 + 0.2 * p.habit[3], 0, -1]) * out
        x[:, k], x[:, a] = _limb(x[:, h], ankle, b[k], b[a], toe_out + 0 * ankle, 40)
        down = np.arctan2(0.6, 0.8) + pose.toes[side][:, None]
        x[:, f] = x[:, a] + b[f] * (np.cos(down) * toe_out / np.linalg.norm(toe_out) - np.sin(down) * [0, 1, 0])
    for side, out in ((0, [-1, 1, 1]), (1, [1, 1, 1])):
        s, e, w, h = range(4 + 4 * side, 8 + 4 * side)
        x[:, s] = x[:, NECK] + chest @ (shoulder * out)
        arm = b[e] + b[w] + b[h]
        hand = x[:, s] + arm * np.array([0.2 + 0.06 * p.habit[2], -0.95, -0.08]) * out
        for which, weight, anchor, offset in pose.hands:
            if which == side:
                frame = skull if anchor == HEAD else chest if anchor in (NECK, *SHOULDERS) else np.eye(3)
                goal = x[:, anchor] + np.einsum("lij,lj->li", np.broadcast_to(frame, chest.shape), offset * out)
                weight = weight[:, None]
                around = chest @ (np.array([0.25, 0, -0.45]) * out)  # the way there keeps clear of the trunk
                hand = hand + weight * (goal - hand) + weight * (1 - weight) * around
        # elbows point back when hands hang, ahead when they are raised
        high = np.clip(0.6 + (hand - x[:, s])[:, 1:2] / arm, 0, 1)
        pole = np.array([0.6 + 0.2 * p.habit[2], -1, 0.4]) + high * [0.3, 0, -0.9]
        pole = np.einsum("lij,lj->li", chest, pole * out)
        x[:, e], x[:, h] = _limb(x[:, s], hand, b[e], b[w] + b[h], pole, 32)
        x[:, w] = x[:, e] + (x[:, h] - x[:, e]) * b[w] / (b[w] + b[h])
    return x


def ramp(t, start, stop):
    """0 before start, 1 after stop, smooth between."""
    t = np.clip((t - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)


def bump(t, a, b, c, d):
    """0, up from a to b, 1, down from c to d."""
    return ramp(t, a, b) * (1 - ramp(t, c, d))


def _drift(r: Generator, t: np.ndarray, size) -> np.ndarray:
    """Slow aimless movement, one column per entry of `size`: (L,len(size))."""
    size = np.asarray(size)
    hz, start = r.uniform(0.1, 0.7, (3, len(size))), r.uniform(0, 2 * np.pi, (3, len(size)))
    return size * np.sin(2 * np.pi * hz * t[:, None, None] + start).mean(1)


def idle(q: Pose, p: Person, t: np.ndarray, r: Generator):
    """Sway, and now and then something that belongs to no class or to part of one."""
    q.hips += _drift(r, t, [0.03, 0.0, 0.03]) - [0, 0.008, 0]
    q.trunk += _drift(r, t, [0.06, 0.05, 0.12])
    q.head += _drift(r, t, [0.15, 0.1, 0.35])
    arm = p.bones[5:8].sum()
    for side in (0, 1):
        wander = _drift(r, t, [0.05, 0.03, 0.08])
        hang = np.array([0.2 + r.uniform(-0.06, 0.1), -0.93, -0.1 + r.uniform(-0.2, 0.05)]) * arm + wander
        q.reach(side, 1.0, SHOULDERS[side], *hang.T)
        if r.random() < 0.6:
            middle, half, most = r.uniform(t[0], t[-1]), r.uniform(0.5, 1.2), r.uniform(0.5, 1)
            weight = most * bump(t, middle - half, middle - 0.3 * half, middle + 0.3 * half, middle + half)
            place = (
                (HEAD, 0.12, 0.0, -0.08),  # scratches the head
                (0, 0.22, 0.02, 0.02),  # hand on the hip
                (NECK, 0.02, -0.2, -0.22),  # hand before the chest
                (SHOULDERS[side], 0.15, -0.15, -0.42),  # points ahead
                (SHOULDERS[side], 0.35, 0.1, -0.2),  # lifts the arm aside
            )[r.integers(5)]
            q.reach(side, weight, *place)
    if r.random() < 0.65:
        middle, half = r.uniform(t[0], t[-1]), r.uniform(0.4, 1.0)
        weight = bump(t, middle - half, middle - 0.2 * half, middle + 0.2 * half, middle + half)
        side = int(r.integers(2))
        kind = r.integers(3)
        if kind == 0:  # lifts a foot
            q.feet[side] += weight[:, None] * np.array([0, r.uniform(0.08, 0.35), r.uniform(-0.3, 0.15)])
            q.hips[:, 0] -= weight * 0.05 * (-1, 1)[side]
        elif kind == 1:  # gives in the knees
            q.hips[:, 1:] += weight[:, None] * r.uniform(0.05, 0.22) * np.array([-1, 0.3])
        else:  # leans forward
            q.trunk[:, 0] += weight * r.uniform(0.15, 0.6)


def act(label: int, p: Person, q: Pose, u: np.ndarray, e: np.ndarray, r: Generator):
    """Adds the action of a right-handed person to a pose.

    u (L,): time in repetitions; e (L,): 1 where the action is on, 0 before and after.
    """
    a, arm, leg, wave = p.amplitude * r.uniform(0.8, 1.2), p.bones[5:8].sum(), p.bones[[13, 14]].sum(), 2 * np.pi * u
    high, far, out, _ = np.clip(0.7 * p.habit + 0.6 * r.uniform(-1, 1, 4), -1, 1)
    one = bump(u % 1, 0.05, 0.35, 0.6, 0.95) * e
    name = CLASSES[label - 1]
    if name == "wave":
        x, y = 0.12 + 0.06 * out + 0.16 * a * np.sin(wave), 0.22 + 0.16 * high - 0.03 * np.cos(2 * wave)
        q.reach(1, e, SHOULDERS[1], x, y, -0.2 - 0.08 * far)
    elif name == "clap":
        gap = 0.015 + 0.17 * a * (0.5 + 0.5 * np.cos(wave)) ** 0.8
        for side in (0, 1):
            q.reach(side, e, NECK, gap, -0.16 + 0.12 * high, -0.32 - 0.06 * far)
    elif name == "drink":
        grasp = bump(u % 1, 0.0, 0.15, 0.15, 0.4) * e * (r.random() < 0.5)
        q.reach(1, grasp, SHOULDERS[1], 0.0, -0.2 + 0.1 * high, -0.35 - 0.1 * far)
        q.reach(1, one, HEAD, 0.03, -0.05, -0.13)
        q.head[:, 0] -= bump(u % 1, 0.3, 0.42, 0.55, 0.7) * e * (0.15 + 0.3 * a)
    elif name == "put on a hat":
        for side in (0, 1):
            take = bump(u % 1, -0.05, 0.12, 0.2, 0.5) * e
            q.reach(side, take, NECK, 0.13, -0.35 + 0.15 * high, -0.3 - 0.06 * far)
            q.reach(side, one, HEAD, 0.1 + 0.02 * out, 0.06 + 0.04 * high, -0.03 + 0.03 * far)
        q.head[:, 0] += one * r.uniform(-0.1, 0.3)
    elif name == "kick":
        back, swing = bump(u % 1, 0.02, 0.22, 0.25, 0.42) * e, bump(u % 1, 0.27, 0.45, 0.52, 0.9) * e
        q.feet[1] += back[:, None] * np.array([0, 0.12, 0.25 * a]) * leg
        q.feet[1] += swing[:, None] * np.array([0.03 * out, 0.12 + 0.28 * a, -0.45 - 0.2 * a]) * leg
        q.toes[1] += 0.5 * back - 0.3 * swing
        q.hips += swing[:, None] * [-0.05, -0.015, 0.03]
        q.trunk[:, 0] += 0.1 * back - 0.2 * a * swing
        q.reach(0, swing * 0.9, SHOULDERS[0], 0.2 + 0.15 * out, -0.25 + 0.15 * high, -0.3)
        q.reach(1, swing * 0.8, SHOULDERS[1], 0.2, -0.42, 0.15)
    elif name == "touch knee":
        other = (np.floor(u) % 2) * (r.random() < 0.5)  # some change sides from one repetition to the next
        for side, on in ((1, one * (1 - other)), (0, one * other)):
            lift = np.array([-0.06, 0.32 + 0.13 * a, -0.26]) * leg
            q.feet[1 - side] += on[:, None] * lift
            q.toes[1 - side] += 0.5 * on
            q.hips[:, 0] += 0.05 * on * (-1, 1)[side]
            q.trunk += on[:, None] * [0.32 + 0.1 * far, 0, 0.3 * (-1, 1)[side]]
            q.reach(side, on, KNEES[1 - side], 0.0, 0.04, -0.03)
    elif name == "squat":
        deep = one * np.clip(0.42 * a, 0.24, 0.55) * leg
        q.hips += deep[:, None] * [0, -1, 0.45]
        q.trunk[:, 0] += deep * (1.3 + 0.4 * far)
        if r.random() < 0.6:
            for side in (0, 1):
                q.reach(side, one * 0.95, SHOULDERS[side], -0.02, -0.12 + 0.1 * high, -0.82 * arm)
    elif name == "bow":
        deep = one * np.clip(0.95 * a, 0.5, 1.25)
        q.trunk[:, 0] += deep
        q.hips += deep[:, None] * [0, -0.02, 0.13]
        q.head[:, 0] += 0.25 * deep * r.uniform(-0.5, 1)
        for side in (0, 1):
            q.reach(side, one, (13, 17)[side], -0.01, 0.22 + 0.06 * high, -0.1)
    elif name == "jumping jack":
        open_ = (0.5 - 0.5 * np.cos(wave)) * e
        spread, rise = 0.3 * np.clip(a, 0.6, 1.2) * leg * open_, 0.15 + np.clip(2.5 * a, 1.5, 2.75) * open_
        q.hips[:, 1] += np.sqrt(leg**2 - spread**2) - leg + 0.05 * a * (0.5 - 0.5 * np.cos(2 * wave)) * e
        q.feet[..., 0] += spread
        q.feet[..., 1] += 0.05 * a * (0.5 - 0.5 * np.cos(2 * wave)) * e
        for side in (0, 1):
            q.reach(side, e, SHOULDERS[side], arm * 0.94 * np.sin(rise), -arm * 0.94 * np.cos(rise), -0.06 - 0.05 * far)
    elif name == "march in place":
        for side, beat in ((0, np.sin(wave)), (1, -np.sin(wave))):
            up = np.maximum(beat, 0) ** 0.8 * e
            q.feet[side] += up[:, None] * np.array([0, 0.16 + 0.22 * a, -0.04 - 0.14 * a]) * leg
            q.toes[side] += 0.5 * up
            q.hips[:, 0] += 0.03 * up * (1, -1)[side]
            y, z = -0.75 * arm + 0.04 * a * np.abs(beat), -0.08 + 0.22 * a * beat
            q.reach(side, e, SHOULDERS[side], 0.08, y, z)
