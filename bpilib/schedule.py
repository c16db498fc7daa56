"""The learning rate over a run."""

import math

from bpilib.config import Config


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
