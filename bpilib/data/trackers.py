"""Joints of other trackers to NTU's 25: each a weighted sum of the tracker's, turned to Kinect's axes, in metres.

    mediapipe    33 world landmarks of MediaPipe Pose: metres, x to the image's right, y down, z away from the camera
    kinect_v1    20 joints of the first Kinect (NW-UCLA's), metres, camera axes
    kinect_v2    25 joints of the second (NTU's own), metres, camera axes
    coco         17 keypoints in an image: pixels, x to the right, y down, no depth, so that z is 0 throughout

What follows the coordinates in the last axis (visibility, presence, a score, Kinect's tracking state) is not looked at.
Kinect's camera axes: x to the camera's left (the right hand of a person who faces it has the larger x), y up, z away.
Left is the person's own left everywhere, in an image that is not mirrored.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bpilib.skeleton import NTU, UCLA

TORSO = 0.5  # metres from the base of the spine to the upper spine, where a tracker knows no metres
TORSOS = (0.15, 1.2)  # what it may be, in metres, from a small child to a bad fit
SPINE, BASE, UPPER = (NTU.joints.index(name) for name in ("middle of spine", "base of spine", "upper spine"))
Weights = dict[str, float]


def _mean(*joints: str) -> Weights:
    return {joint: 1 / len(joints) for joint in joints}


def _beyond(near: str, far: str, share: float) -> Weights:
    """The point that lies `share` of the way from `near` to `far` beyond `far` (before it, where negative)."""
    return {far: 1 + share, near: -share}


def _both_sides(joints: dict[str, Weights]) -> dict[str, Weights]:
    """Joints of the middle and of the left; those of the left again for the right."""
    right = {_other(name): {_other(joint): w for joint, w in weights.items()}
             for name, weights in joints.items() if name.startswith("left ")}  # fmt: skip
    return joints | right


def _other(name: str) -> str:
    return name.replace("left ", "right ")


@dataclass(frozen=True)
class Mapping:
    """How the joints of a tracker become NTU's.

    Attributes:
        name: of the tracker.
        joints: its joint names, in its order.
        weights: for each of NTU's joints, the tracker's joints with their weights, which sum to 1.
        signs: of x, y and z in Kinect's axes.
        metres: its coordinates are in metres; else they are scaled to a torso of `TORSO`.
        guessed: NTU's joints that the tracker does not have, extended from the limb or put between others.
    """

    name: str
    joints: tuple[str, ...]
    weights: dict[str, Weights] = field(repr=False)
    signs: tuple[int, int, int] = (1, 1, 1)
    metres: bool = True
    guessed: frozenset[str] = frozenset()

    def matrix(self) -> np.ndarray:
        """(25, V) float64: NTU's joints from the tracker's; rows sum to 1."""
        out = np.zeros((NTU.num_joints, len(self.joints)))
        for row, name in enumerate(NTU.joints):
            for joint, weight in self.weights[name].items():
                out[row, self.joints.index(joint)] = weight
        return out

    def table(self) -> pd.DataFrame:
        """joint (NTU's), made of (the tracker's, with weights), guessed: a row each, for a notebook."""
        rows = []
        for name in NTU.joints:
            weights = self.weights[name]
            parts = [(f"{w:.3g} × " if w != 1 else "") + joint for joint, w in weights.items()]
            mean = len(weights) > 1 and len({*weights.values()}) == 1
            made = f"mean of {', '.join(weights)}" if mean else " + ".join(parts).replace("+ -", "− ")
            rows.append((name, made, "guessed" if name in self.guessed else ""))
        return pd.DataFrame(rows, columns=["joint", "made of", "guessed"])


def _sides(*names: str) -> list[str]:
    """"left <name>", "right <name>" for each name."""
    return [f"{side} {name}" for name in names for side in ("left", "right")]


_SHOULDERS, _HIPS, _EARS = _sides("shoulder"), _sides("hip"), _sides("ear")
_BODY = {  # what trackers of images share; the neck is a third of the way from the shoulders to the head
    "base of spine": _mean(*_HIPS), "middle of spine": _mean(*_HIPS, *_SHOULDERS), "upper spine": _mean(*_SHOULDERS),
    "neck": dict.fromkeys(_SHOULDERS, 1 / 3) | dict.fromkeys(_EARS, 1 / 6), "head": _mean(*_EARS),
}  # fmt: skip
_LIMBS = {name: _mean(name) for name in _sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")[::2]}
_FACE = "nose|left eye inner|left eye|left eye outer|right eye inner|right eye|right eye outer|left ear|right ear"
MAPPINGS = {
    mapping.name: mapping
    for mapping in (
        Mapping(
            "mediapipe",
            (*_FACE.split("|"), "mouth left", "mouth right", *_sides("shoulder", "elbow", "wrist", "pinky", "index",
             "thumb", "hip", "knee", "ankle", "heel", "foot")),
            _both_sides({
                **_BODY, **_LIMBS,
                "left hand": _mean("left wrist", "left index", "left pinky"), "left hand tip": _mean("left index"),
                "left thumb": _mean("left thumb"), "left foot": _mean("left foot"),
            }),
            signs=(-1, -1, 1),
            guessed=frozenset(("middle of spine", "neck")),
        ),
        Mapping(
            "kinect_v1",
            UCLA.joints,
            _both_sides({
                "base of spine": _mean("hip centre"), "middle of spine": _mean("hip centre", "shoulder centre"),
                "upper spine": _mean("shoulder centre"), "head": _mean("head"),
                "neck": {"shoulder centre": 2 / 3, "head": 1 / 3}, **_LIMBS,
                "left hand": _mean("left hand"), "left foot": _mean("left foot"),
                "left hand tip": _beyond("left wrist", "left hand", 1.0),
                "left thumb": _beyond("left wrist", "left hand", -0.3),
            }),
            guessed=frozenset(("middle of spine", "neck", *_sides("hand tip", "thumb"))),  # its spine is near the hips
        ),
        Mapping("kinect_v2", NTU.joints, {name: _mean(name) for name in NTU.joints}),
        Mapping(
            "coco",
            ("nose", *_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
            _both_sides({
                **_BODY, **_LIMBS,
                "left hand": _beyond("left elbow", "left wrist", 0.3),
                "left hand tip": _beyond("left elbow", "left wrist", 0.6),
                "left thumb": _beyond("left elbow", "left wrist", 0.2),
                "left foot": _beyond("left knee", "left ankle", 0.2),
            }),
            signs=(-1, -1, 0),
            metres=False,
            guessed=frozenset(("middle of spine", "neck", *_sides("hand", "hand tip", "thumb", "foot"))),
        ),
    )
}  # fmt: skip


def to_ntu(poses: np.ndarray, tracker: str) -> np.ndarray:
    """A clip of another tracker as NTU's are stored: metres, Kinect's axes, first middle of a spine at the origin.

    Args:
        poses: (L, V, C) or (L, M, V, C) of numbers, V and axes as the tracker has them. C is 3 to 5: x, y, z and what
            else there may be; of coco 2 or 3: x, y and maybe a score. A person who is not there has zeros.
        tracker: "mediapipe", "kinect_v1", "kinect_v2" or "coco".

    Returns:
        (L, M, 25, 3) float32.

    Raises:
        ValueError: unknown tracker, other joints, numbers that are not finite, no person at all, no metres.
    """
    if tracker not in MAPPINGS:
        raise ValueError(f"unknown tracker {tracker!r}: expected one of {', '.join(MAPPINGS)}")
    mapping, poses = MAPPINGS[tracker], np.asarray(poses)
    joints, dims = len(mapping.joints), 3 if mapping.signs[2] else 2
    channels = range(3, 6) if dims == 3 else (2, 3)
    if poses.ndim == 3:
        poses = poses[:, None]
    if poses.ndim != 4 or poses.shape[2] != joints or poses.shape[3] not in channels or poses.dtype.kind not in "fiu":
        other = poses.ndim == 4 and poses.shape[2] != joints
        raise ValueError(
            f"expected numbers (L, {joints}, {dims}) or (L, M, {joints}, {dims}), the joints of {tracker}, got "
            f"{poses.dtype} {poses.shape}" + (f": {trackers_with_joints(poses.shape[2])}" if other else "")
        )
    flat = np.pad(poses[..., :dims], ((0, 0), (0, 0), (0, 0), (0, 3 - dims))).astype(float)
    if not np.isfinite(flat).all():
        raise ValueError("coordinates that are not finite: leave frames without a person out, or fill them with zeros")
    present = flat.any((2, 3))  # (L, M)
    if not present.any():
        raise ValueError("no person in any frame")
    if tracker == "mediapipe" and ((there := flat[present][..., :2]) > 0).mean() > 0.9 and (there < 1).mean() > 0.9:
        raise ValueError(
            "expected world landmarks, in metres around the hips, got x and y from 0 to 1, as of landmarks in an "
            "image: save pose_world_landmarks, not pose_landmarks"
        )
    out = np.einsum("uv,lmvc->lmuc", mapping.matrix(), flat) * mapping.signs
    torso = np.median(np.linalg.norm(out[..., UPPER, :] - out[..., BASE, :], axis=-1)[present])
    if not torso:
        raise ValueError("a torso without length: hips and shoulders coincide")
    if not mapping.metres:
        out *= TORSO / torso
    elif not TORSOS[0] < torso < TORSOS[1]:
        raise ValueError(
            f"expected metres, a torso of about {TORSO}, got one of {torso:.3g}: divide millimetres by 1000, "
            "centimetres by 100"
        )
    frame, person = np.argwhere(present)[0]
    return np.where(present[..., None, None], out - out[frame, person, SPINE], 0).astype(np.float32)


def trackers_with_joints(joints: int) -> str:
    """What to do with clips of so many joints that are not what was expected, to end an error message with."""
    fitting = [mapping.name for mapping in MAPPINGS.values() if len(mapping.joints) == joints]
    return f"set tracker to {' or '.join(fitting)}" if fitting else f"the trackers there are: {', '.join(MAPPINGS)}"
