"""The checkpoints of a training: what they contain, when they are written, and how a training goes on from one."""

import dataclasses
import logging
import threading
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bpilib.finished import check_inputs
from bpilib.runs import Run
from bpilib.system import checkpoint
from bpilib.system.device import GradScaler
from bpilib.system.distributed import rank_zero_only
from bpilib.system.threads import set_threads, usable_cores
from bpilib.training.background import Writer, copy_to_host
from bpilib.training.divergence import DivergenceCheck
from bpilib.training.progress import FinishedStep, Progress, UnreadStep
from bpilib.training.weight_average import WeightAverage

_log = logging.getLogger(__name__)


class Checkpoints:
    """Saves and restores the state of one training.

    last.pt has all that resuming needs, best.pt the weights that are evaluated and kept. Another thread may call
    `save_finished_step` at any time: weights and optimizer change while `updating` is held, and before it is
    released, `finish_step` keeps a copy of what else belongs to the state after the step.

    Args:
        run: in training.
        kept: what is evaluated and kept: the run itself, or its average.
        optimizer, scaler: of the training.
        average: of the weights, where the run has one.
        divergence: looks at what is to be saved.

    Attributes:
        updating: a lock: whoever saves sees all of a step or nothing.
        writer: of the files; in a thread where the training runs on a GPU.
    """

    def __init__(
        self,
        run: Run,
        kept: Run,
        optimizer: torch.optim.Optimizer,
        scaler: GradScaler,
        average: WeightAverage | None,
        divergence: DivergenceCheck,
    ) -> None:
        self.writer = Writer(behind=run.device.type != "cpu")  # a CPU that trains has no core to spare for it
        self._run = run
        self._kept = kept
        self._optimizer = optimizer
        self._scaler = scaler
        self._average = average
        self._divergence = divergence
        self._folder = run.config.run_directory
        weights = {name for name, _ in run.model.named_parameters()}
        self._statistics = {name: t for name, t in run.model.state_dict().items() if name not in weights}
        self.updating = threading.Lock()
        self._saving = threading.Lock()  # held while last.pt is written
        self._finished: FinishedStep | None = None
        self._saved = (0, 0)  # epoch and batch of what last.pt holds

    def finish_step(self, progress: Progress, unread: Iterable[UnreadStep]) -> None:
        """Keep what a step has changed besides weights and optimizer, and what the next one will change.

        Args:
            progress: after the step.
            unread: steps whose figures are not in it yet.
        """
        statistics = {name: tensor.clone() for name, tensor in self._statistics.items()}
        kept = dataclasses.replace(progress, rows=list(progress.rows))
        self._finished = FinishedStep(kept, tuple(unread), statistics, torch.get_rng_state())

    @rank_zero_only
    def save_best(self, progress: Progress) -> None:
        """Save best.pt with the weights that are kept."""
        content = self._to_write(self._content(progress) | self._kept.content())
        self.writer.do(lambda: checkpoint.save(self._folder / "best.pt", content))

    @rank_zero_only
    def save_last(self, progress: Progress) -> None:
        """Save last.pt as it is now, between two steps, the figures of all of which are in `progress`."""
        content = self._content(progress) | self._resume_content(progress, torch.get_rng_state())
        content = self._to_write(content)
        position = (progress.epoch, progress.batch)

        def write() -> None:
            with self._saving:
                if position >= self._saved:  # a signal may have had a later step saved meanwhile
                    checkpoint.save(self._folder / "last.pt", content)
                    self._saved = position

        self.writer.do(write)

    @rank_zero_only
    def save_finished_step(self) -> None:
        """Save last.pt as it is after the last finished step, unless it is saved already. For other threads, too."""
        with self._saving:
            with self.updating:
                step = self._finished
                if step is None or (step.progress.epoch, step.progress.batch) <= self._saved:
                    return
                progress = step.progress
                for unread in step.unread:
                    progress = dataclasses.replace(progress, sums=self._divergence.add(progress.sums, unread))
                content = self._content(progress, step.statistics) | self._resume_content(progress, step.random)
                content = copy_to_host(content)
            checkpoint.save(self._folder / "last.pt", content, urgent=True)
            self._saved = (step.progress.epoch, step.progress.batch)
            _log.info("saved in %s: epoch %d, step %d", self._folder, *self._saved)

    def resume(self) -> Progress:
        """Put everything back as last.pt has it.

        Raises:
            ValueError: it is damaged, or of another run, or was trained with other prompts or clips.
        """
        path, config = self._folder / "last.pt", self._run.config
        content = self._run.load(path, need="progress")
        check_inputs(content, path, config, self._run.store, self._run.text_digest)
        self._optimizer.load_state_dict(content["optimizer"])
        self._scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random"])
        if self._average is not None:
            self._average.load(content["average"])
        progress = Progress.saved(content["progress"])
        progress.resumed += 1
        self._saved = (progress.epoch, progress.batch)
        self._resume_threads(content.get("threads"))
        _log.info("resuming %s after epoch %d, step %d", self._folder, progress.epoch, progress.batch)
        return progress

    @rank_zero_only
    def load_selected(self, epoch: int) -> None:
        """Load the kept weights of an epoch, from best.pt or where the last one is kept from last.pt."""
        try:
            self._run.load(*(self._folder / name for name in ("best.pt", "last.pt", "last.previous.pt")), epoch=epoch)
        except ValueError as error:
            raise ValueError(f"{error}. Epoch {epoch}, the selected one, is lost: train with another tag") from error

    def _to_write(self, content: dict[str, Any]) -> dict[str, Any]:
        """What the writer may read while the training goes on."""
        return copy_to_host(content) if self.writer.behind else content

    def _content(self, progress: Progress, statistics: dict[str, Tensor] | None = None) -> dict[str, Any]:
        """What every checkpoint holds.

        Args:
            progress: that it is of.
            statistics: running statistics of BatchNorm, in place of the present ones.

        Raises:
            ValueError: weights that diverged, which are never saved over good ones.
        """
        content = self._run.content() | {"epoch": progress.epoch}
        content["model"] = content["model"] | (statistics or {})
        self._divergence.check_weights(content, progress, self._optimizer.param_groups[0]["lr"])
        return content

    def _resume_content(self, progress: Progress, random: Tensor) -> dict[str, Any]:
        """What resuming needs besides. The learning rate follows from the epoch; draws from their counters."""
        return {
            "progress": progress.content(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": random,
            "threads": torch.get_num_threads(),
            "average": {} if self._average is None else self._average.network.state_dict(),
        }

    def _resume_threads(self, before: int | None) -> None:
        """Use as many CPU threads as before: sums in another order would round to other results."""
        if before is None or self._run.device.type != "cpu":
            return
        if self._run.config.threads not in (None, before):
            what = f"began with {before} CPU threads, threads is {self._run.config.threads} now"
            warnings.warn(f"{self._folder} {what}: its results will differ in rounding", stacklevel=4)
            return
        if before > usable_cores():
            what = f"uses {before} CPU threads, as it did before, on {usable_cores()} cores"
            warnings.warn(f"{self._folder} {what}: slow, but exact; the parameter threads changes it", stacklevel=4)
        set_threads(before)
