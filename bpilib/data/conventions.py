"""What a store of NTU's joints takes for granted, and how the clips of others are brought there.

The published preparation puts the middle of the first person's first spine at the origin, absent persons are zeros, and
NTU120 has a person who is alone twice. PYSKL's and MMAction2's pickles hold camera coordinates as recorded; some arrays
have z up, or are centred anew in every frame. Which of these a file is tells by its numbers.
"""

from collections.abc import Iterable

import numpy as np

from bpilib.data.plausibility import first_body, is_body, measure
from bpilib.data.store import mark_present
from bpilib.skeleton import NTU, Skeleton

PROBED = 64  # clips that a decision rests on
AT_ORIGIN = 1e-3  # metres: nearer, a spine is at the origin already
CROWD = 6  # persons; Kinect tracks no more, and where an axis is longer it holds frames
STEP = 0.3  # torsos: what a body moves at most from a frame to the next, typically


class Convention:
    """Brings clips to what a store expects; counts what it does.

    Args:
        skeleton: of the clips. NW-UCLA's have no convention: its clips stay in camera coordinates.
        probe: some clips (L, M, V, 3): where most of them are bodies, all are moved.
        copy_single: where clips come with one person alone, the second is a copy (NTU120).
    """

    def __init__(self, skeleton: Skeleton, probe: Iterable[np.ndarray], copy_single: bool = False):
        bodies = [is_body(measure(clip, skeleton), skeleton) for clip in probe if clip.any()] if skeleton is NTU else []
        self.moves = 2 * sum(bodies) > len(bodies) > 0
        self.copy_single = copy_single and skeleton is NTU
        self.distances: list[float] = []
        self.clips = self.copied = self.centred = 0

    def bring(self, poses: np.ndarray, persons: int = 2) -> np.ndarray:
        """A clip (L, M, V, 3) float32 as it is, or moved to the first spine of its first person who is there.

        Args:
            poses: of as many persons as the store has.
            persons: how many the clip came with, of whom `poses` may be padded.
        """
        self.clips += 1
        if self.copy_single and persons == 1 and poses.shape[1] == 2:
            self.copied += 1
            poses = np.repeat(poses[:, :1], 2, 1)
        if not self.moves or not poses.any():
            return poses
        present = mark_present(poses)
        origin = poses[(*first_body(poses), 1)]
        distance = float(np.linalg.norm(origin))
        spines = poses[present[:, 0], 0, 1]
        still = len(spines) > 3 and np.abs(spines - spines[0]).max() < 1e-6
        self.centred += bool(still and np.ptp(poses[present[:, 0], 0], axis=0).max() > 0.01)  # and the rest moves
        if distance < AT_ORIGIN:
            return poses
        self.distances.append(distance)
        return np.where(present[..., None, None], poses - origin, np.float32(0))

    def said(self) -> list[str]:
        """What was recognised and done, in words."""
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
                f"the spine stays at one place in all frames of {self.centred:,} of {self.clips:,} clips: each frame "
                "was centred, so that where a person walks is lost; weights trained on other preparations expect it"
            )
        return out


def turned_axes(poses: np.ndarray) -> tuple[np.ndarray, str]:
    """A clip (L, M, V, C), or one whose first two axes are (M, L) instead: turned, and said so.

    More "persons" than frames, and more than any sensor tracks, or such that hardly move from one to the next, are
    frames.
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


def z_up(probe: Iterable[np.ndarray]) -> bool:
    """Whether bodies (L, M, 25, 3) stand along z, heads in the direction of +z."""
    leans = [measure(clip, NTU).lean for clip in probe if clip.any()]
    lean = np.median(leans, 0) if leans else np.zeros(3)
    return bool(lean[2] > 0.7 and lean[2] > 2 * abs(lean[1]))


def y_up(poses: np.ndarray) -> np.ndarray:
    """Axes x, y to the front, z up, to a store's x, y up, z to the back: (x, y, z) → (x, z, -y)."""
    return poses[..., [0, 2, 1]] * np.array([1, 1, -1], poses.dtype)
