"""How far float32's roundings may move a network's logits, measured on that network, so that it holds on any processor.

Sums in another order, fused multiply-adds and vectorised functions give other last digits on another processor, with
another number of threads or in an exported file. How far these grow on their way through ten blocks depends on the
weights. So each weight is moved by up to float32's epsilon, 2^-23 of it: the change of an output is about what one
rounding in every layer does. A sum of n terms is off by some sqrt(n) roundings, and the longest have some 1000 terms,
hence the factor 32.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.runs import Run
from bpilib.system.device import full_float32

ROUNDINGS = 32
# Bounds of `Sample.noise`: some hundred times what was measured (docs/weights.md); beyond MOST nothing would be proven.
LEAST, MOST = 1e-4, 1e-2
FLAT = 1e-5  # of the logits' size: clips whose logits differ by less are taken to be the same


class Sample(NamedTuple):
    """Test clips of a run, and what its network makes of them.

    Attributes:
        x: (n, 3, T, V, M) float32, on the CPU.
        logits: (n, K) float32, of the trained network.
        scale: the largest difference between two of these clips' logits; where they are all the same, their size.
        noise: how far roundings may move a logit, as a share of `scale`; from 1e-4 to 1e-2.
    """

    x: Tensor
    logits: np.ndarray
    scale: float
    noise: float


@torch.no_grad()
@full_float32()
def sample_clips(run: Run, count: int = 8) -> Sample:
    """Classify test clips spread over the split, and measure how far roundings may move their logits.

    Raises:
        ValueError: logits that are not finite.
    """
    feeder = run.feeder("test")
    x = feeder.batch(np.linspace(0, len(feeder) - 1, count).astype(int))[0]
    logits = copy.deepcopy(run.model).eval()(x).logits.cpu().numpy()
    if not np.isfinite(logits).all():
        raise ValueError("the network's logits are not finite: its training diverged, train it with a lower lr")
    size, scale = float(np.abs(logits).max()), float(np.ptp(logits, axis=0).max())
    scale = scale if scale > FLAT * size else size or 1.0
    moved = [shake(run.model, seed).eval()(x).logits.cpu().numpy() - logits for seed in range(2)]
    noise = ROUNDINGS * float(np.abs(moved).max()) / scale
    return Sample(x.cpu(), logits, scale, min(max(LEAST, noise), MOST))


@torch.no_grad()
def shake(network: nn.Module, seed: int) -> nn.Module:
    """A copy in which each number of float32 is moved by a random share of itself of up to 2^-23, then rounded."""
    generator, shaken = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    for tensor in [*shaken.parameters(), *shaken.buffers()]:
        if tensor.is_floating_point():
            step = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(tensor.cpu().double() * (1 + torch.finfo(torch.float32).eps * (2 * step - 1)))
    return shaken
