"""Invented people on NTU's joints, as trackers see them: the synthetic set's, standing, lying, falling, crawling."""

import numpy as np

from bpilib.data import synthetic
from bpilib.data.trackers import MAPPINGS, to_ntu
from bpilib.skeleton import NTU

AT = {name: i for i, name in enumerate(NTU.joints)}
# joints of other trackers → NTU's that they are put at, and how far beyond it from another: (at, from, share)
LIKE = {
    "pinky": ("hand", "wrist", 0.2), "index": ("hand", "wrist", 0.6), "nose": ("head", "", 0),
    "eye": ("head", "", 0), "ear": ("head", "", 0), "big toe": ("foot", "", 0),
    "small toe": ("foot", "ankle", -0.1), "heel": ("ankle", "foot", 0.3), "mid hip": ("base of spine", "", 0),
    "hip centre": ("base of spine", "", 0), "pelvis": ("base of spine", "", 0), "thorax": ("upper spine", "", 0),
    "spine navel": ("middle of spine", "", 0), "spine chest": ("upper spine", "middle of spine", -0.3),
    "spine": ("middle of spine", "", 0), "spine 1": ("middle of spine", "base of spine", -0.5),
    "spine 2": ("middle of spine", "", 0), "spine 3": ("upper spine", "middle of spine", -0.4),
    "clavicle": ("shoulder", "upper spine", -0.7), "collar": ("shoulder", "upper spine", -0.7),
}  # fmt: skip


def acted(count=12, first=1):
    """`count` clips (L, 25, 3), metres, Kinect's axes, first spine at the origin."""
    which = [(1 + i % 10, first + i // 10) for i in range(count)]
    return [to_ntu(synthetic.perform(label, subject, 0), "kinect_v1")[:, 0].astype(float) for label, subject in which]


def in_room(poses, place=(0.2, 0.1, 3.0)):
    """Camera coordinates."""
    return poses + np.array(place)


def skeleton_file(bodies):
    """The content of a .skeleton file of NTU's in which these clips (L, 25, 3) move at the same time."""
    lines = [str(len(bodies[0]))]
    for frame in range(len(bodies[0])):
        lines.append(str(len(bodies)))
        for number, body in enumerate(bodies):
            lines += [f"{72057594037900000 + number} 0 1 1 1 1 0 0.1 0.1 2", "25"]
            lines += [f"{x:.7f} {y:.7f} {z:.7f} 250 200 900 500 0 0 0 1 2" for x, y, z in body[frame]]
    return ("\n".join(lines) + "\n").encode()


def rotation(axis, degrees):
    """(3, 3), for row vectors."""
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out, angle = np.eye(3), np.radians(degrees)
    out[[a, b], [a, b]], out[a, b], out[b, a] = np.cos(angle), np.sin(angle), -np.sin(angle)
    return out


def lying(poses, towards=0):
    """On the back, the head in any direction of the floor."""
    return poses @ rotation("x", 90) @ rotation("y", towards)


def crawling(poses, towards=0):
    return poses @ rotation("x", -75) @ rotation("y", towards)


def falling(poses, towards=0):
    """Upright at first, on the side from the middle of the clip on."""
    turn = np.clip(np.arange(len(poses)) / (len(poses) / 2), 0, 1)
    fallen = np.stack([frame @ rotation("z", 85 * part) for frame, part in zip(poses, turn)])
    return fallen @ rotation("y", towards)


def jumping(poses):
    height = 0.4 * abs(np.sin(np.linspace(0, 3 * np.pi, len(poses))))
    return poses + height[:, None, None] * (0, 1, 0)


def seen_by(tracker, poses):
    """A clip (L, 25, 3) in Kinect's axes as a tracker gives it: its joints, axes and units; (L, V, 3 or 2)."""
    mapping = MAPPINGS[tracker]
    points = []
    for joint in mapping.joints:
        side, _, name = joint.partition(" ")
        side, name = (f"{side} ", name) if side in ("left", "right") else ("", joint)
        name = "nose" if name.startswith(("eye", "mouth")) else "pelvis" if joint == "hip" else name
        at, source, share = LIKE.get(name, (name, "", 0))
        at, source = (AT.get(f"{side}{word}", AT.get(word)) for word in (at, source))
        points.append(poses[:, at] + (share * (poses[:, at] - poses[:, source]) if source is not None else 0))
    out = np.stack(points, 1)
    if not mapping.flat:
        return out * mapping.signs / mapping.unit
    room = in_room(out, (0, 0, 3))
    return np.stack([640 - 900 * room[..., 0] / room[..., 2], 360 - 900 * room[..., 1] / room[..., 2]], -1)
