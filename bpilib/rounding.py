"""How far roundings may move a network's logits, found from the network itself, so that it holds on every processor.

Sums in another order, fused multiply-adds and vectorised functions give other last digits on another processor, with
another number of threads or in an exported file. How far these grow on their way through ten blocks depends on the
weights: so each weight is moved by at most float32's epsilon, 2^-23 of it, and the change of an output is one rounding
of every layer. A sum of n terms in whatever order is off by about sqrt(n) roundings, and the longest have some 1000
terms: 32 times that is what float32 may do.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.runs import Run
from bpilib.system.device import full_float32

ROUNDINGS = 32
# Of the largest difference between two clips' logits: some hundred times what trained networks need, and what no
# network may need, since a comparison would prove nothing.
LEAST, MOST = 1e-4, 1e-2


class Sample(NamedTuple):
    """Test clips of a run, and what its network makes of them.

    Attributes:
        x: (n, 3, T, V, M) float32, on the CPU.
        logits: (n, K) float32, of the trained network.
        scale: the largest difference between two of these clips' logits.
        noise: how far roundings may move a logit, as a share of `scale`; from 1e-4 to 1e-2.
    """

    x: Tensor
    logits: np.ndarray
    scale: float
    noise: float


@torch.no_grad()
@full_float32()
def sample_clips(run: Run, count: int = 8) -> Sample:
    """Classify test clips spread over the split, and measure how far roundings may move their logits."""
    feeder = run.feeder("test")
    x = feeder.batch(np.linspace(0, len(feeder) - 1, count).astype(int))[0]
    logits = copy.deepcopy(run.model).eval()(x).logits.cpu().numpy()
    scale = float(np.ptp(logits, axis=0).max() or np.abs(logits).max() or 1)
    moved = [shake(run.model, seed).eval()(x).logits.cpu().numpy() - logits for seed in range(2)]
    noise = ROUNDINGS * float(np.abs(moved).max()) / scale
    return Sample(x.cpu(), logits, scale, min(max(LEAST, noise), MOST))


@torch.no_grad()
def shake(network: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights and statistics are each moved by at most 2^-23 of themselves, float32's epsilon."""
    generator, shaken = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    for tensor in [*shaken.parameters(), *shaken.buffers()]:
        if tensor.is_floating_point():
            step = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            tensor.copy_(tensor.double() * (1 + torch.finfo(torch.float32).eps * (2 * step - 1)))
    return shaken
