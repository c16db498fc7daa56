"""What training does to clips beyond the published pipelines: other angles, and parts of a clip dropped.

All of it is off by default. The draws are those of `bpilib.ops.counter_rng`, so they depend on seed, epoch and position
alone.
"""

from typing import NamedTuple

import numpy as np

from bpilib.ops.counter_rng import DROP_AXIS, DROP_JOINTS, integers, uniform
from bpilib.ops.feeder_kernels import UCLA_MAX_ANGLE

DROPPED_JOINTS = (0.2, 0.6)  # least and largest share of the joints: SkateFormer's 4 to 12 of 20
DROPPED_FRAMES = (0.25, 0.5)  # of the frames, one after the other: its 16 to 32 of 64


class Augmentation(NamedTuple):
    """What is done to the clips of a feeder.

    Attributes:
        pitch, yaw: degrees at most, either way, by which training turns clips about x and y (NW-UCLA's pipeline).
        axis_drop: probability that one of a training clip's three axes is set to 0.
        joint_drop: probability that some joints of a training clip are set to 0 for some of its frames.
        turned: degrees of yaw by which clips to be evaluated are turned (NW-UCLA's pipeline).
    """

    pitch: int = UCLA_MAX_ANGLE
    yaw: int = UCLA_MAX_ANGLE
    axis_drop: float = 0.0
    joint_drop: float = 0.0
    turned: int = 0


PUBLISHED = Augmentation()


def drop(x: np.ndarray, positions: np.ndarray, seed: int, epoch: int, axis_drop: float, joint_drop: float) -> None:
    """Set one axis of some clips, and some joints of some clips for some time, to 0.

    Zero is the middle of a clip's space in NW-UCLA's pipeline, the place of the spine in NTU's.

    Args:
        x: (N, 3, T, V, M) float32, changed in place.
        positions: (N,) int64, of the clips in the epoch.
        seed, epoch: of the draws.
        axis_drop, joint_drop: probabilities, drawn for each clip by itself.

    Source: after SkateFormer (Do and Kim, ECCV 2024), whose published code draws from Python's generators.
    """
    if axis_drop:
        chance, axis = uniform(seed, epoch, positions, DROP_AXIS, 2).T
        hit = np.flatnonzero(chance < axis_drop)
        x[hit, integers(axis[hit], x.shape[1])] = 0
    if joint_drop:
        _, _, frames, joints, _ = x.shape
        draws = uniform(seed, epoch, positions, DROP_JOINTS, 4 + joints)
        for n in np.flatnonzero(draws[:, 0] < joint_drop):
            _, many, long, start, *order = draws[n]
            count = _between(DROPPED_JOINTS, joints, many)
            length = _between(DROPPED_FRAMES, frames, long)
            first = int(start * (frames - length + 1))
            x[n, :, first : first + length, np.argsort(order)[:count]] = 0


def _between(shares: tuple[float, float], whole: int, draw: float) -> int:
    """A number between two shares of `whole`, both included, at least 1, by a draw in [0, 1)."""
    low, high = (max(1, round(share * whole)) for share in shares)
    return low + int(draw * (high - low + 1))
