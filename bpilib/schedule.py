"""Where a training stands, and its learning rate."""

import dataclasses
import math
from typing import Any

from bpilib.config import Config


@dataclasses.dataclass
class Progress:
    """Where training stands; all of it is in every checkpoint.

    Sums are of the running epoch: clips, then loss, cross-entropy, contrastive loss and right answers times clips.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 5)
    seconds: float = 0.0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    resumed: int = 0


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
