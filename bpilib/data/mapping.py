"""Joints of other trackers to NTU's 25: each a weighted sum of the tracker's, turned to Kinect's axes, in metres.

    mediapipe    33 world landmarks of MediaPipe Pose: metres, x to the image's right, y down, z away from the camera
    kinect_v1    20 joints of the first Kinect (NW-UCLA's), metres, camera axes
    kinect_v2    25 joints of the second (NTU's own), metres, camera axes
    coco         17 keypoints in an image: pixels, x to the right, y down, no depth, so that z is 0 throughout

Kinect's camera axes: x to the camera's left (the right hand of a person who faces it has the larger x), y up, z away.
Left is the person's own left everywhere, in an image that is not mirrored.
"""

import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bpilib.data.custom import HOW, LIST
from bpilib.data.intake import CLASSES
from bpilib.files import MissingInputError, write_atomically
from bpilib.skeleton import NTU, UCLA

TORSO = 0.5  # metres from the base of the spine to the upper spine, where a tracker knows no metres
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
            parts = [(f"{w:.3g} × " if w != 1 else "") + joint for joint, w in self.weights[name].items()]
            rows.append((name, " + ".join(parts).replace("+ -", "− "), "guessed" if name in self.guessed else ""))
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
        poses: (L, V, C) or (L, M, V, C) of numbers, V and axes as the tracker has them. C is 3; of coco, x, y and maybe
            a score, which is not looked at. A person who is not there has zeros.
        tracker: "mediapipe", "kinect_v1", "kinect_v2" or "coco".

    Returns:
        (L, M, 25, 3) float32.

    Raises:
        ValueError: unknown tracker, other joints, numbers that are not finite, no person at all.
    """
    if tracker not in MAPPINGS:
        raise ValueError(f"unknown tracker {tracker!r}: expected one of {', '.join(MAPPINGS)}")
    mapping, poses = MAPPINGS[tracker], np.asarray(poses)
    joints, channels = len(mapping.joints), (3,) if mapping.signs[2] else (2, 3)
    if poses.ndim == 3:
        poses = poses[:, None]
    if poses.ndim != 4 or poses.shape[2] != joints or poses.shape[3] not in channels or poses.dtype.kind not in "fiu":
        raise ValueError(
            f"expected numbers (L, {joints}, 3) or (L, M, {joints}, 3), the joints of {tracker}, got {poses.dtype} "
            f"{poses.shape}: choose the tracker that made the clips ({', '.join(MAPPINGS)})"
        )
    if not np.isfinite(poses).all():
        raise ValueError("coordinates that are not finite: leave frames without a person out, or fill them with zeros")
    flat = poses[..., :3] if mapping.signs[2] else np.pad(poses[..., :2], ((0, 0), (0, 0), (0, 0), (0, 1)))
    present = flat.any((2, 3))  # (L, M)
    if not present.any():
        raise ValueError("no person in any frame")
    out = np.einsum("uv,lmvc->lmuc", mapping.matrix(), flat.astype(float)) * mapping.signs
    if not mapping.metres:
        torso = np.median(np.linalg.norm(out[..., UPPER, :] - out[..., BASE, :], axis=-1)[present])
        if not torso:
            raise ValueError("a torso without length: hips and shoulders coincide")
        out *= TORSO / torso
    frame, person = np.argwhere(present)[0]
    return np.where(present[..., None, None], out - out[frame, person, SPINE], 0).astype(np.float32)


def convert_folder(folder: str | Path, out: str | Path, tracker: str) -> Path:
    """A folder of clips (as `bpilib.data.custom` reads it) with another tracker's joints, as one with NTU's.

    Clips that can't be converted are left out and warned of.

    Args:
        folder: clips.csv, its .npy clips (also in folders below), maybe classes.txt.
        out: folder for the same with NTU's joints; clips that are no longer in `folder` are removed from it.
        tracker: as of `to_ntu`.

    Returns:
        `out`.

    Raises:
        MissingInputError: no clips.csv.
        ValueError: unknown tracker, or the two folders are the same.
    """
    folder, out = Path(folder), Path(out)
    if not (folder / LIST).is_file():
        raise MissingInputError(f"no {LIST} in {folder}: {HOW}")
    if tracker not in MAPPINGS or folder.resolve() in (out.resolve(), *out.resolve().parents):
        trackers = ", ".join(MAPPINGS)
        raise ValueError(f"expected a tracker of {trackers} and a folder outside {folder}, got {tracker} and {out}")
    problems, names = [], {path.relative_to(folder) for path in folder.rglob("*.npy")}
    for stale in out.rglob("*.npy"):
        if stale.relative_to(out) not in names:
            stale.unlink()
    for name in sorted(names):
        try:
            poses = to_ntu(np.load(folder / name, allow_pickle=False), tracker)
        except (ValueError, OSError, EOFError) as error:
            (out / name).unlink(missing_ok=True)
            problems.append(f"  {name}: {error}")
            continue
        write_atomically(out / name, lambda part, poses=poses: save_clip(part, poses))
    for name in (LIST, CLASSES):
        if (folder / name).is_file():
            write_atomically(out / name, lambda part, name=name: shutil.copyfile(folder / name, part))
    if problems:
        warnings.warn(f"{len(problems)} clips were left out:\n" + "\n".join(problems[:10]), stacklevel=2)
    return out


def save_clip(path: Path, poses: np.ndarray) -> None:
    """Write a .npy to exactly this path; np.save by name would add .npy to it."""
    with path.open("wb") as file:
        np.save(file, poses)
