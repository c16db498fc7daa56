"""Where a training stands: its progress, the figures of its steps, and the learning rate that follows from them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from bpilib.config import Config
from bpilib.system.device import DelayedValues


class EpochSums(NamedTuple):
    """Sums over the clips of the running epoch: their number, losses, and how many were recognised."""

    clips: float = 0.0
    loss: float = 0.0
    cross_entropy: float = 0.0
    contrastive: float = 0.0
    correct: float = 0.0

    def plus(self, clips: int, means: Sequence[float]) -> "EpochSums":
        """With a batch: its number of clips, and the means of what the other fields add up."""
        return EpochSums(*(total + clips * mean for total, mean in zip(self, [1.0, *means])))


@dataclasses.dataclass
class Progress:
    """Where training stands; all of it is in every checkpoint.

    Attributes:
        epoch: epochs finished.
        batch: steps finished of the running epoch.
        sums: of the running epoch.
        seconds: that the running epoch has taken.
        rows: of metrics.csv; never changed once they are in.
        resumed: how often the run was resumed.
    """

    epoch: int = 0
    batch: int = 0
    sums: EpochSums = EpochSums()
    seconds: float = 0.0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    resumed: int = 0

    @classmethod
    def saved(cls, values: dict[str, Any]) -> "Progress":
        """From a checkpoint."""
        return cls(**values | {"sums": EpochSums(*values["sums"])})

    def content(self) -> dict[str, Any]:
        """For a checkpoint, as plain values."""
        return vars(self) | {"sums": list(self.sums)}

    def best(self, column: str) -> tuple[int, float]:
        """The epoch (the first of equals) of the highest value in a column of the history, and that value."""
        rows = [(row[column], -row["epoch"]) for row in self.rows if column in row]
        value, epoch = max(rows)
        return -epoch, value

    def selected(self, select: str) -> int:
        """The evaluated epoch that `select` (last, heldout, test) chooses of those so far."""
        if select == "last":
            return max(row["epoch"] for row in self.rows if "test_top1" in row)
        return self.best(f"{select}_top1")[0]


class UnreadStep(NamedTuple):
    """A step whose loss the host has not read yet."""

    epoch: int
    batch: int
    rate: float
    clips: int
    values: DelayedValues


class FinishedStep(NamedTuple):
    """What a step changes besides weights and optimizer, as it was after the last one."""

    progress: Progress
    unread: tuple[UnreadStep, ...]  # whose figures are not in its sums yet
    statistics: dict[str, Tensor]  # of BatchNorm, which the next step's forward pass changes
    random: Tensor


def learning_rate(config: Config, epoch: int, share: float) -> float:
    """The learning rate in epoch `epoch` (from 0), `share` of it done.

    step: as published, constant within an epoch; linear warm-up, then a tenth after each of `steps`.
    cosine: both parts continuous, down to 0 at the end.
    """
    if config.schedule == "step":
        if epoch < config.warmup:
            return config.lr * (epoch + 1) / config.warmup
        return config.lr * 0.1 ** sum(epoch >= step for step in config.steps or [])
    done = epoch + share
    if done < config.warmup:
        return config.lr * max(done, 1e-3) / config.warmup
    left = (done - config.warmup) / max(config.epochs - config.warmup, 1e-9)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(left, 1)))
