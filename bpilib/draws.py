"""Random numbers by counter: a draw depends on (seed, epoch, position, stream) alone.

So a resumed run draws what an uninterrupted one draws, batches may be formed in any way on any device, and no two
samples, epochs or workers share a stream. SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) over int64 tensors, whose
products wrap around.
"""

import torch
from torch import Tensor

CROP, ROTATE, FRAMES, SYNONYM = range(4)  # streams: what a draw is for


def _signed(value: int) -> int:
    """A 64-bit word as the int64 with the same bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_STEP = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def _mix(x: Tensor) -> Tensor:
    for shift, factor in _MIX:
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor  # >> is arithmetic: mask the sign's copies
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniform(seed: int, epoch: int, positions: Tensor, stream: int, count: int) -> Tensor:
    """(N, count) float64 in [0, 1), uniform.

    Args:
        seed, epoch: integers.
        positions: (N,) int64, of the samples in the epoch.
        stream: one of the streams above.
        count: numbers a sample; more of them leave the first ones as they were.
    """
    key = torch.tensor([_signed(seed), epoch, stream], dtype=torch.int64, device=positions.device)
    word = torch.zeros((), dtype=torch.int64, device=positions.device)
    for part in key:
        word = _mix((word ^ part) + _STEP)
    word = _mix((word ^ positions) + _STEP)  # (N,)
    number = torch.arange(1, count + 1, device=positions.device)
    bits = _mix(word[:, None] + number * _STEP)  # (N, count)
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def integers(draws: Tensor, below: Tensor) -> Tensor:
    """Uniform draws in [0, 1) to int64 in 0 ... below-1; below broadcasts."""
    return torch.minimum((draws * below).long(), (below - 1).expand_as(draws))


def distinct(seed: int, epoch: int, positions: Tensor, stream: int, below: Tensor, count: int) -> Tensor:
    """(N, count) int64, sorted: `count` distinct numbers out of 0 ... below-1, each subset equally likely.

    They are the first `count` distinct ones of a sequence of independent draws.

    Args:
        below: (N,) int64, at least `count`.
    """
    if len(below) and int(below.min()) < count:
        raise ValueError(f"{count} distinct numbers can't be drawn out of {int(below.min())}")
    width = 2 * count
    while True:
        values = integers(uniform(seed, epoch, positions, stream, width), below[:, None])  # (N, width)
        ordered, order = values.sort(dim=1, stable=True)
        fresh = torch.ones_like(ordered, dtype=torch.bool)
        fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        fresh = torch.zeros_like(fresh).scatter(1, order, fresh)  # first occurrences, in the order drawn
        rank = fresh.cumsum(1)
        if bool((rank[:, -1] >= count).all()):
            unused = torch.iinfo(torch.int64).max
            return values.masked_fill(~fresh | (rank > count), unused).sort(1).values[:, :count]
        width *= 2
