"""Converts joints of other trackers to NTU's 25: weighted sums of the tracker's joints, in Kinect's axes, in metres.

    mediapipe    33 world landmarks of MediaPipe Pose: metres, x to the image's right, y down, z away from the camera
    kinect_v1    20 joints of the first Kinect (NW-UCLA's), metres, camera axes
    kinect_v2    25 joints of the second (NTU's own), metres, camera axes
    azure_kinect 32 joints of the third: millimetres, x to the image's right, y down, z away
    human36m     17 joints of Human3.6M as 3D lifters give them: metres, camera axes as MediaPipe's
    smpl         24 joints of the body model: metres, x to the person's left, y up, z to the front
    coco         17 keypoints in an image: pixels, x to the right, y down, no depth (z is always 0)
    openpose_25  OpenPose's BODY_25: like coco in another order, and feet
    openpose_18  OpenPose's COCO model: like coco in another order, and a neck

In an image a keypoint at (0, 0) or (-1, -1), NaN, or with a score of 0 was not seen, and is interpolated between
frames. Other values after the coordinates in the last axis (visibility, Kinect's tracking state) are ignored.
Kinect's camera axes: x to the camera's left (the right hand of a person who faces it has the larger x), y up, z away.
Left is always the person's own left, and images are not mirrored.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bpilib.data.bodies import is_body, measure
from bpilib.data.plausibility import Inspection
from bpilib.data.store import mark_present
from bpilib.skeleton import NTU, UCLA, Skeleton

TORSO = 0.5  # metres from the base of the spine to the upper spine, if a tracker does not know metres
TORSOS = (0.15, 1.2)  # metres; plausible lengths of it, from a small child to a poor fit
LEAST_SCORE = 0.05  # of 1; with less, a point was not seen
MAX_SCORE = 100  # some trackers give percentages
FEW_PIXELS = 5  # extent in pixels below which there is no body in an image
SPINE, BASE, UPPER = (NTU.joints.index(name) for name in ("middle of spine", "base of spine", "upper spine"))
Weights = dict[str, float]


def _mean(*joints: str) -> Weights:
    return {joint: 1 / len(joints) for joint in joints}


def _beyond(near: str, far: str, share: float) -> Weights:
    """The point beyond `far` on the line from `near` to `far`, by `share` of their distance (negative: before it)."""
    return {far: 1 + share, near: -share}


def _both_sides(joints: dict[str, Weights]) -> dict[str, Weights]:
    """Add the joints of the right side, mirrored from those of the left."""
    right = {_other(name): {_other(joint): w for joint, w in weights.items()}
             for name, weights in joints.items() if name.startswith("left ")}  # fmt: skip
    return joints | right


def _other(name: str) -> str:
    return name.replace("left ", "right ")


@dataclass(frozen=True)
class Mapping:
    """How the joints of a tracker are converted to NTU's.

    Attributes:
        name: of the tracker.
        joints: its joint names, in its order.
        weights: for each of NTU's joints, the tracker's joints with their weights, which sum to 1.
        signs: of x, y and z in Kinect's axes; z is 0 in an image.
        metres: its coordinates have a known unit; else clips are scaled to a torso of `TORSO`.
        unit: of its coordinates, metres.
        guessed: NTU's joints that the tracker does not have, extrapolated or interpolated from others.
    """

    name: str
    joints: tuple[str, ...]
    weights: dict[str, Weights] = field(repr=False)
    signs: tuple[int, int, int] = (1, 1, 1)
    metres: bool = True
    guessed: frozenset[str] = frozenset()
    unit: float = 1.0

    @property
    def flat(self) -> bool:
        """Whether the tracker has no depth."""
        return not self.signs[2]

    def matrix(self) -> np.ndarray:
        """(25, V) float64, from the tracker's joints to NTU's; rows sum to 1."""
        out = np.zeros((NTU.num_joints, len(self.joints)))
        for row, name in enumerate(NTU.joints):
            for joint, weight in self.weights[name].items():
                out[row, self.joints.index(joint)] = weight
        return out

    def table(self) -> pd.DataFrame:
        """One row per joint of NTU's: joint, made of (the tracker's joints, with weights), guessed."""
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


def _arm(side: str) -> list[str]:
    return [f"{side} {name}" for name in ("shoulder", "elbow", "wrist")]


def _leg(side: str) -> list[str]:
    return [f"{side} {name}" for name in ("hip", "knee", "ankle")]


_SHOULDERS, _HIPS, _EARS = _sides("shoulder"), _sides("hip"), _sides("ear")
_BODY = {  # what trackers of images share; the neck is a third of the way from the shoulders to the head
    "base of spine": _mean(*_HIPS), "middle of spine": _mean(*_HIPS, *_SHOULDERS), "upper spine": _mean(*_SHOULDERS),
    "neck": dict.fromkeys(_SHOULDERS, 1 / 3) | dict.fromkeys(_EARS, 1 / 6), "head": _mean(*_EARS),
}  # fmt: skip
_LIMBS = {name: _mean(name) for name in _sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")[::2]}
_HANDS = {  # in line with the forearm
    "left hand": _beyond("left elbow", "left wrist", 0.3), "left hand tip": _beyond("left elbow", "left wrist", 0.6),
    "left thumb": _beyond("left elbow", "left wrist", 0.2),
}  # fmt: skip
_EYES_AND_EARS = ("right eye", "left eye", "right ear", "left ear")
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
                **_BODY, **_LIMBS, **_HANDS,
                "left foot": _beyond("left knee", "left ankle", 0.2),
            }),
            signs=(-1, -1, 0),
            metres=False,
            guessed=frozenset(("middle of spine", "neck", *_sides("hand", "hand tip", "thumb", "foot"))),
        ),
        Mapping(
            "openpose_25",
            ("nose", "neck", *_arm("right"), *_arm("left"), "mid hip", *_leg("right"), *_leg("left"),
             *_EYES_AND_EARS, *(f"{side} {n}" for side in ("left", "right") for n in ("big toe", "small toe", "heel"))),
            _both_sides({**_BODY, **_LIMBS, **_HANDS, "left foot": _mean("left big toe")}),
            signs=(-1, -1, 0),
            metres=False,
            guessed=frozenset(("middle of spine", "neck", *_sides("hand", "hand tip", "thumb"))),
        ),
        Mapping(
            "openpose_18",
            ("nose", "neck", *_arm("right"), *_arm("left"), *_leg("right"), *_leg("left"), *_EYES_AND_EARS),
            _both_sides({**_BODY, **_LIMBS, **_HANDS, "left foot": _beyond("left knee", "left ankle", 0.2)}),
            signs=(-1, -1, 0),
            metres=False,
            guessed=frozenset(("middle of spine", "neck", *_sides("hand", "hand tip", "thumb", "foot"))),
        ),
        Mapping(
            "human36m",
            ("hip", *_leg("right"), *_leg("left"), "spine", "thorax", "neck", "head", *_arm("left"), *_arm("right")),
            _both_sides({
                "base of spine": _mean("hip"), "middle of spine": _mean("spine"), "upper spine": _mean("thorax"),
                "neck": _mean("neck"), "head": _mean("head"), **_LIMBS, **_HANDS,
                "left foot": _beyond("left knee", "left ankle", 0.2),
            }),
            signs=(-1, -1, 1),
            guessed=frozenset(_sides("hand", "hand tip", "thumb", "foot")),
        ),
        Mapping(
            "smpl",
            ("pelvis", *_sides("hip"), "spine 1", *_sides("knee"), "spine 2", *_sides("ankle"), "spine 3",
             *_sides("foot"), "neck", *_sides("collar"), "head", *_sides("shoulder", "elbow", "wrist", "hand")),
            _both_sides({
                "base of spine": _mean("pelvis"), "middle of spine": _mean("spine 2"),
                "upper spine": {"spine 3": 1 / 3, "neck": 2 / 3}, "neck": {"neck": 0.7, "head": 0.3},
                "head": _beyond("neck", "head", 0.5), **_LIMBS,
                "left hand": _mean("left hand"), "left hand tip": _beyond("left wrist", "left hand", 1.0),
                "left thumb": _beyond("left wrist", "left hand", -0.3), "left foot": _mean("left foot"),
            }),
            signs=(-1, 1, -1),
            guessed=frozenset(("upper spine", "neck", "head", *_sides("hand tip", "thumb"))),
        ),
        Mapping(
            "azure_kinect",
            ("pelvis", "spine navel", "spine chest", "neck",
             *(f"{side} {name}" for side in ("left", "right")
               for name in ("clavicle", "shoulder", "elbow", "wrist", "hand", "hand tip", "thumb")),
             *(f"{side} {name}" for side in ("left", "right") for name in ("hip", "knee", "ankle", "foot")),
             "head", "nose", "left eye", "left ear", "right eye", "right ear"),
            _both_sides({
                "base of spine": _mean("pelvis"), "middle of spine": _mean("spine navel"),
                "upper spine": _mean("left clavicle", "right clavicle"), "neck": {"neck": 2 / 3, "head": 1 / 3},
                "head": _mean("head"), **_LIMBS,
                **{f"left {name}": _mean(f"left {name}") for name in ("hand", "hand tip", "thumb", "foot")},
            }),
            signs=(-1, -1, 1),
            unit=0.001,
        ),
    )
}  # fmt: skip


def find_mapping(tracker: str) -> Mapping:
    """Find a tracker's mapping by its name.

    Raises:
        ValueError: unknown tracker.
    """
    if tracker not in MAPPINGS:
        raise ValueError(f"unknown tracker {tracker!r}: expected one of {', '.join(MAPPINGS)}")
    return MAPPINGS[tracker]


def to_ntu(poses: np.ndarray, tracker: str) -> np.ndarray:
    """Convert a clip of another tracker to NTU's joints.

    Args:
        poses: (L, V, C) or (L, M, V, C) numbers, with the tracker's V and axes. C is 3 to 5: x, y, z and others, which
            are ignored; in an image 2 or 3: x, y and optionally a score. Absent persons are zeros.
        tracker: one of `MAPPINGS`.

    Returns:
        (L, M, 25, 3) float32, metres, Kinect's axes, the middle of the first present person's spine at the origin.

    Raises:
        ValueError: unknown tracker, different joints, numbers that are not finite, no person at all, not metres; in an
            image, keypoints that are hardly ever seen, or normalised coordinates instead of pixels.
    """
    mapping, poses = find_mapping(tracker), np.asarray(poses)
    joints, dims = len(mapping.joints), 2 if mapping.flat else 3
    channels = (2, 3) if mapping.flat else range(3, 6)
    if poses.ndim == 3:
        poses = poses[:, None]
    if poses.ndim != 4 or poses.shape[2] != joints or poses.shape[3] not in channels or poses.dtype.kind not in "fiu":
        other = poses.ndim == 4 and poses.shape[2] != joints
        raise ValueError(
            f"expected numbers (L, {joints}, {dims}) or (L, M, {joints}, {dims}), the joints of {tracker}, got "
            f"{poses.dtype} {poses.shape}"
            + (f": {suggest_trackers(poses.shape[2])}" if other else "")
            + (f"; if a row holds the joints of a frame: reshape(len(clip), {joints}, -1)" if poses.ndim == 2 else "")
        )
    flat = np.pad(poses[..., :dims], ((0, 0), (0, 0), (0, 0), (0, 3 - dims))).astype(float)
    if mapping.flat:  # NaN and -1 are what some trackers write for a point that was not seen
        flat = np.where(np.isnan(flat).any(-1, keepdims=True) | (flat[..., :2] == -1).all(-1, keepdims=True), 0, flat)
    if not np.isfinite(flat).all():
        raise ValueError("coordinates that are not finite: leave frames without a person out, or fill them with zeros")
    if mapping.flat:
        seen = np.asarray(flat.any(-1))  # (L, M, V)
        if poses.shape[3] == 3:
            least, most = poses[..., 2].min(initial=0), poses[..., 2].max(initial=0)
            if least < 0 or most > MAX_SCORE:
                raise ValueError(
                    f"expected a score as the third number, 0 or more, got {least:.3g} to {most:.3g}: are these points "
                    f"in 3D? {tracker} has points of an image{describe_likely_trackers([poses], tracker)}"
                )
            sure = seen & (poses[..., 2] > LEAST_SCORE * (100 if most > 10 else 1))
            often = 2 * sure.sum(0) >= seen.any(-1).sum(0)[:, None]  # (M, V); else a guess is better than none
            seen &= np.where(often, sure, poses[..., 2] > 0)
        if seen.any() and is_in_unit_square(flat[seen]):
            raise ValueError(
                "expected pixels, got x and y from 0 to 1, shares of the image, in which a body is squeezed: multiply "
                "x by the image's width in pixels and y by its height"
            )
        if seen.any() and 0 < np.ptp(flat[seen][:, :2]) < FEW_PIXELS:
            raise ValueError(
                f"expected pixels, got x and y within {np.ptp(flat[seen][:, :2]):.2g}: metres, or shares of the image? "
                f"{tracker} has points of an image{describe_likely_trackers([poses], tracker)}"
            )
        flat = fill_unseen(flat, seen, mapping)
    else:
        seen = np.abs(flat).sum(-1) > 0  # (L, M, V)
        here = mark_present(flat)  # (L, M)
        rare = 2 * seen.sum(0) < here.sum(0)[:, None]  # (M, V), as of joints that a sensor does not have
        rare[:, mapping.matrix()[[BASE, SPINE, UPPER]].any(0)] = True  # where the origin may be
        flat = fill_unseen(flat, (seen | rare) & here[..., None], mapping)
    present = mark_present(flat)
    if not present.any():
        raise ValueError("no person in any frame")
    if tracker == "mediapipe" and ((there := flat[present][..., :2]) > 0).mean() > 0.9 and (there < 1).mean() > 0.9:
        raise ValueError(
            "expected world landmarks, in metres around the hips, got x and y from 0 to 1, as of landmarks in an "
            "image: save pose_world_landmarks, not pose_landmarks"
        )
    out = np.einsum("uv,lmvc->lmuc", mapping.matrix(), flat) * mapping.signs * mapping.unit
    torso = np.median(np.linalg.norm(out[..., UPPER, :] - out[..., BASE, :], axis=-1)[present])
    if not torso:
        raise ValueError("a torso without length: hips and shoulders coincide")
    if not mapping.metres:
        out *= TORSO / torso
    elif not TORSOS[0] < torso < TORSOS[1]:
        mend = "divide millimetres by 1000, centimetres by 100"
        if tracker == "mediapipe" and torso > FEW_PIXELS:
            mend += "; if these are landmarks in an image, save pose_world_landmarks, not pose_landmarks"
        if mapping.unit != 1:
            mend = f"{tracker} gives millimetres, so that metres are to be multiplied by 1000"
        told = describe_likely_trackers([poses], tracker)
        raise ValueError(f"expected metres, a torso of about {TORSO}, got one of {torso:.3g}{told or f': {mend}'}")
    frame, person = np.argwhere(present)[0]
    return np.where(present[..., None, None], out - out[frame, person, SPINE], 0).astype(np.float32)


def is_in_unit_square(points: np.ndarray) -> bool:
    """Whether x and y of points (..., C) lie from 0 to 1, apart from a few outside of the image; pixels never do."""
    xy = points[..., :2]
    return bool(((xy >= 0) & (xy <= 1)).mean() > 0.8 and np.abs(xy).max() < 3 and np.ptp(xy) > 0)


def fill_unseen(points: np.ndarray, seen: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Fill in keypoints that were not seen: in the face by the mean of its other points, then by interpolating in time.

    Args:
        points: (L, M, V, C); a person of whom nothing was seen in a frame is absent.
        seen: (L, M, V) bool.
        mapping: of a tracker of images.

    Returns:
        (L, M, V, C), zeros for absent persons.

    Raises:
        ValueError: a keypoint that NTU's joints need is seen in fewer than half of a person's frames.
    """
    points, seen = np.where(seen[..., None], points, 0), seen.copy()
    face = [i for i, joint in enumerate(mapping.joints) if joint.split()[-1] in ("nose", "eye", "ear")]
    needed = np.flatnonzero(mapping.matrix().any(0))
    for person in range(points.shape[1]):
        frames = np.flatnonzero(seen[:, person].any(1))
        of_face = seen[frames, person][:, face]
        mean = points[frames, person][:, face].sum(1) / np.maximum(of_face.sum(1), 1)[:, None]  # (F, C)
        for joint in needed if len(frames) else ():
            track, there = points[frames, person, joint], seen[frames, person, joint]
            if joint in face:
                track, there = np.where(there[:, None], track, mean), of_face.any(1)
            if 2 * there.sum() < len(frames):
                raise ValueError(
                    f"{mapping.joints[joint]} is seen in {there.sum()} of {len(frames)} frames (0, 0 or a score of 0: "
                    "not seen), too few to fill in the rest: leave out such frames, or the clip"
                )
            for axis in range(points.shape[3]):
                points[frames, person, joint, axis] = np.interp(frames, frames[there], track[there, axis])
    return points


def suggest_trackers(joints: int) -> str:
    """The end of an error message about clips with an unexpected number of joints: which tracker to set."""
    fitting = [mapping.name for mapping in MAPPINGS.values() if len(mapping.joints) == joints]
    if len(fitting) > 1:
        about = (f"{n}: {_describe_axes(MAPPINGS[n])}, first {', '.join(MAPPINGS[n].joints[:3])}" for n in fitting)
        return f"set tracker to {' or '.join(fitting)} ({'; '.join(about)})"
    return f"set tracker to {fitting[0]}" if fitting else f"the trackers there are: {', '.join(MAPPINGS)}"


def _describe_axes(mapping: Mapping) -> str:
    if mapping.flat:
        return "x, y in an image"
    return f"x, y, z in {'millimetres' if mapping.unit != 1 else 'metres'}"


def suggest_for_clip(clip: np.ndarray) -> str:
    """The end of an error message about a clip (L, M, V, C) with unexpected joints: the trackers that may fit."""
    return describe_likely_trackers([clip]) or f": {suggest_trackers(clip.shape[2])}"


def describe_likely_trackers(clips: list[np.ndarray], tracker: str | None = None) -> str:
    """The end of an error message about implausible clips: the trackers whose joints they look like, "" if none.

    Args:
        clips: (L, M, V, C) each, as they came in.
        tracker: the one that was assumed; not suggested again.
    """
    fitting = []
    for mapping in MAPPINGS.values():
        if mapping.name == tracker or (tracker is None and mapping.joints in (NTU.joints, UCLA.joints)):
            continue
        if all(_fits(clip, mapping) for clip in clips):
            fitting.append(f"{mapping.name} ({_describe_axes(mapping)})")
    return f"; they look like those of {' or '.join(fitting)}: set tracker to it" if fitting else ""


def start_inspection(skeleton: Skeleton, tracker: str | None) -> Inspection:
    """Start the inspection of clips that come with the joints of a tracker, or (None) of `skeleton`.

    Raises:
        ValueError: unknown tracker.
    """
    flat = find_mapping(tracker).flat if tracker else False
    return Inspection(skeleton, flat, lambda clips: describe_likely_trackers(clips, tracker))


def _fits(clip: np.ndarray, mapping: Mapping) -> bool:
    """Whether a clip, read as one of the tracker's, shows an upright body."""
    if clip.ndim != 4 or clip.shape[2] != len(mapping.joints) or clip.shape[3] < (2 if mapping.flat else 3):
        return False
    if mapping.flat and clip.shape[3] > 2 and not ((clip[..., 2] >= 0) & (clip[..., 2] <= 1)).all():  # no score
        return False
    points = np.asarray(clip[..., : 2 if mapping.flat else 3], float)
    points = np.pad(points, ((0, 0),) * 3 + ((0, 3 - points.shape[3]),))
    rows = points[mark_present(points)]  # (P, V, 3)
    if not len(rows) or not np.isfinite(rows).all():
        return False
    figures = measure((mapping.matrix() @ rows * mapping.signs)[:, None], NTU)
    fits = is_body(figures, NTU, mapping.flat) and figures.upright > 0.5
    return fits and (mapping.flat or TORSOS[0] < figures.torso * mapping.unit < TORSOS[1])
