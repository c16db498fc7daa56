"""The conventions of a store of NTU's joints, and the conversion of clips prepared by others.

The published preparation moves the middle of the spine of the first person's first frame to the origin, sets absent
persons to zero, and in NTU120 copies a person who is alone to the second place. PYSKL's and MMAction2's pickles hold
camera coordinates as recorded; some arrays have z up, or are centred in every frame. The convention of a file is
recognised from its numbers.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from bpilib.data.bodies import find_first_body, is_body, measure
from bpilib.data.store import mark_present
from bpilib.skeleton import NTU, Skeleton

PROBED = 64  # clips that a decision is based on
AT_ORIGIN = 1e-3  # metres; a spine that is nearer to the origin counts as being there
CROWD = 6  # persons that Kinect tracks at most; a longer axis holds frames
STEP = 0.3  # torsos; how far a body typically moves at most from one frame to the next


class Convention:
    """Converts clips to the convention of a store, and counts what it changed.

    Args:
        skeleton: of the clips. Those of NW-UCLA's stay in camera coordinates, as published.
        probe: some clips (L, M, V, 3), of which those count that are finite as float32; if most of them are bodies, all
            clips are moved.
        copy_single: if a clip comes with a single person, the second becomes a copy (NTU120).
    """

    def __init__(self, skeleton: Skeleton, probe: Iterable[np.ndarray], copy_single: bool = False):
        clips = _take_finite(probe) if skeleton is NTU else ()
        bodies = [is_body(measure(clip, skeleton), skeleton) for clip in clips if clip.any()]
        self.moves = 2 * sum(bodies) > len(bodies) > 0
        self.copy_single = copy_single and skeleton is NTU
        self.distances: list[float] = []
        self.clips = self.copied = self.centred = 0

    def bring(self, poses: np.ndarray, persons: int = 2) -> np.ndarray:
        """Convert a clip (L, M, V, 3) float32: move the spine in the first frame of its first person to the origin.

        Args:
            poses: padded or cut to the number of persons of the store.
            persons: the number of persons that the clip came with.
        """
        self.clips += 1
        if self.copy_single and persons == 1 and poses.shape[1] == 2:
            self.copied += 1
            alone = mark_present(poses).any(0).argmax()
            poses = np.repeat(poses[:, [alone]], 2, 1)
        if not self.moves or not poses.any():
            return poses
        present = mark_present(poses)
        origin = poses[(*find_first_body(poses), 1)]
        distance = float(np.linalg.norm(origin))
        spines = poses[present[:, 0], 0, 1]
        still = len(spines) > 3 and np.abs(spines - spines[0]).max() < 1e-6
        self.centred += bool(still and np.ptp(poses[present[:, 0], 0], axis=0).max() > 0.01)  # and the rest moves
        if distance < AT_ORIGIN:
            return poses
        self.distances.append(distance)
        return np.where(present[..., None, None], poses - origin, np.float32(0))

    def said(self) -> list[str]:
        """Sentences on what was recognised and changed."""
        out = []
        if self.distances:
            out.append(
                f"recognised coordinates of a camera or of another origin in {len(self.distances):,} of {self.clips:,} "
                f"clips (first spine {np.median(self.distances):.2f} m from the origin): subtracted the spine of the "
                "first person's first frame, as NTU's preparation does"
            )
        if self.copied:
            out.append(f"copied the only person of {self.copied:,} clips to the second place, as NTU120's are prepared")
        if 2 * self.centred > self.clips:
            out.append(
                f"the spine does not move in {self.centred:,} of {self.clips:,} clips: each frame was centred, so the "
                "path of a person who walks is lost; weights trained on other preparations expect it"
            )
        return out


def choose_probed(count: int) -> list[int]:
    """The numbers, evenly spread, of the clips of a file that a decision is based on."""
    return np.unique(np.linspace(0, count - 1, min(count, PROBED)).astype(int)).tolist()


def _take_finite(clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Those of the clips that are finite as float32."""
    for poses in clips:
        with np.errstate(over="ignore"):
            clip = poses.astype(np.float32)
        if np.isfinite(clip).all():
            yield clip


def turn_axes(poses: np.ndarray) -> tuple[np.ndarray, str]:
    """Recognise a clip (M, L, V, C) and swap its first two axes; a clip (L, M, V, C) is returned as it is.

    The second axis holds frames if it is longer than the first and longer than any sensor's number of persons, or if
    poses hardly change along it.

    Returns:
        (L, M, V, C), and a sentence if the axes were swapped, else "".
    """
    frames, persons = poses.shape[:2]
    if persons <= frames or 0 in poses.shape:
        return poses, ""
    if persons <= CROWD:
        flat = poses[..., : min(3, poses.shape[3])].astype(float)
        size = np.linalg.norm(np.ptp(flat, axis=2), axis=-1).mean() or 1.0
        step = np.linalg.norm(np.diff(flat, axis=1), axis=-1).mean() / size
        if step > STEP / 3 or not mark_present(flat).all():
            return poses, ""
    return poses.swapaxes(0, 1), f"read as (persons, frames, joints, numbers), {persons} frames of {frames} persons"


def is_z_up(probe: Iterable[np.ndarray]) -> bool:
    """Whether bodies (L, M, 25, 3) stand along z, heads in the direction of +z."""
    leans = [measure(clip, NTU).lean for clip in probe if clip.any()]
    lean = np.median(leans, 0) if leans else np.zeros(3)
    return bool(lean[2] > 0.7 and lean[2] > 2 * abs(lean[1]))


def turn_y_up(poses: np.ndarray) -> np.ndarray:
    """Turn axes with y to the front and z up to a store's, with y up and z to the back: (x, y, z) → (x, z, -y)."""
    return poses[..., [0, 2, 1]] * np.array([1, 1, -1], poses.dtype)
