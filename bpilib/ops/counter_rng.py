"""Random numbers by counter: a draw depends on (seed, epoch, position, stream) alone.

So a resumed run draws what an uninterrupted one draws, batches may be formed in any way, and no two samples, epochs or
workers share a stream. SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), in 64-bit words that wrap around. The feeder's
kernels draw the same numbers, compiled (`bpilib.ops.feeder_kernels`).
"""

import numpy as np

CROP, ROTATE, FRAMES, SYNONYM, DROP_AXIS, DROP_JOINTS = range(6)  # streams: what a draw is for
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def _mix(x: np.ndarray) -> np.ndarray:
    for shift, factor in _MIX:
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, epoch: int, positions: np.ndarray, stream: int, count: int) -> np.ndarray:
    """(N, count) float64 in [0, 1), uniform.

    Args:
        seed, epoch: integers.
        positions: (N,) int64, of the samples in the epoch.
        stream: one of the streams above.
        count: numbers a sample; more of them leave the first ones as they were.
    """
    word = np.zeros(1, np.uint64)  # an array, since NumPy warns where a single number wraps around
    for part in (seed, epoch, stream):
        word = _mix((word ^ np.uint64(part % 2**64)) + _STEP)
    word = _mix((word ^ np.asarray(positions).astype(np.uint64)) + _STEP)  # (N,)
    bits = _mix(word[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP)  # (N, count)
    return (bits >> np.uint64(11)) * 2.0**-53


def integers(draws: np.ndarray, below: np.ndarray | int) -> np.ndarray:
    """Uniform draws in [0, 1) to int64 in 0 ... below-1; below broadcasts."""
    return np.minimum((draws * below).astype(np.int64), np.asarray(below) - 1)
