"""A training that diverges ends with advice, and nothing of what diverged is saved."""

import math
from pathlib import Path
from typing import Any

import torch

from bpilib.system import checkpoint
from bpilib.training.progress import EpochSums, Progress, UnreadStep


class DivergenceCheck:
    """Looks at losses and weights before they reach a checkpoint.

    Args:
        folder: the run directory.
        precision: fp32, bf16 or fp16.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        self._folder = folder
        self._precision = precision

    def add(self, sums: EpochSums, step: UnreadStep) -> EpochSums:
        """The sums with the figures of a step.

        Raises:
            ValueError: its loss is not finite.
        """
        values = step.values.read()
        if not math.isfinite(values[0]):
            raise ValueError(
                f"the loss is {values[0]} in epoch {step.epoch + 1}, step {step.batch + 1}: {self._advise(step.rate)}"
            )
        return sums.plus(step.clips, values)

    def check_weights(self, content: dict[str, Any], progress: Progress, rate: float) -> None:
        """Check the weights, before they are saved over good ones.

        Args:
            content: of a checkpoint, with the state dicts "model" and "text".
            progress: that they are of.
            rate: the learning rate.

        Raises:
            ValueError: some are not finite.
        """
        tensors = [tensor for name in ("model", "text") for tensor in content[name].values()]
        if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
            raise ValueError(
                f"the network's weights, or the text encoder's, are not finite after epoch {progress.epoch}, step "
                f"{progress.batch}: {self._advise(rate)}; nothing was saved of them"
            )

    def _advise(self, rate: float) -> str:
        """What to change, and whether there is a checkpoint from before."""
        other = "" if self._precision == "fp32" else " or use precision='fp32'"
        path = self._folder / "last.pt"
        kept = f". {path} holds the last good state" if checkpoint.exists(path) else ""
        return f"lower lr (now {rate:g}){other}{kept}"
