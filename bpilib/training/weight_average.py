"""A moving average of a network's weights, which is evaluated and kept in their place."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from bpilib.model import CTRGCNClassifier


class WeightAverage:
    """Exponential moving average of weights and running statistics of BatchNorm, as a network of its own.

    After step n (from 1) the average moves by 1 - min(decay, n / (n + 9)) of the way to the trained network's weights,
    so that the first steps do not stay in it for long.

    Args:
        trained: the network whose weights are averaged; the average begins as they are.
        decay: in (0, 1).

    Attributes:
        network: a copy of it with the average for weights.
    """

    def __init__(self, trained: CTRGCNClassifier, decay: float):
        self.network = copy.deepcopy(trained).requires_grad_(False)
        self._decay = decay
        states = trained.state_dict(), self.network.state_dict()
        names = [name for name, tensor in states[0].items() if tensor.is_floating_point()]
        self._weights, self._averages = ([state[name] for name in names] for state in states)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the trained network's weights after a step, counted from 1."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - min(self._decay, step / (step + 9)))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from another average, or from weights."""
        self.network.load_state_dict(state)
