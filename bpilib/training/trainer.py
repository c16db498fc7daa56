"""One training: its steps, epochs and logs."""

import dataclasses
import json
import logging
import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.evaluate import Scores, mark_copies, score
from bpilib.losses import Loss, skeleton_text_loss
from bpilib.runs import Run, build
from bpilib.system import checkpoint, distributed
from bpilib.system.device import (
    DelayedValues,
    GradScaler,
    autocast,
    compile_network,
    format_usage,
    make_deterministic,
    product_precision,
    seed_everything,
    usage,
)
from bpilib.system.distributed import rank_zero_only
from bpilib.system.files import write_atomically
from bpilib.training import data_parallel
from bpilib.training.divergence import DivergenceCheck
from bpilib.training.optimizer import build_sgd
from bpilib.training.pace import Pace
from bpilib.training.progress import EpochSums, Progress, UnreadStep, learning_rate
from bpilib.training.saving import Checkpoints
from bpilib.training.start import start_from
from bpilib.training.summary import summarize
from bpilib.training.tensorboard import DrawConfusion, TensorBoardLogger
from bpilib.training.trained_on import note_training
from bpilib.training.weight_average import WeightAverage

Watch = Callable[[pd.DataFrame], None]
USAGE_SECONDS = 2  # between two measurements of memory and GPU
_log = logging.getLogger(__name__)


def show_history(watch: Watch | None, rows: pd.DataFrame) -> Watch | None:
    """Call `watch`, if there is one; returns it, or None once it has failed: no figure ends a training."""
    try:
        if watch:
            watch(rows)
        return watch
    except Exception as error:
        warnings.warn(f"the history can't be shown ({type(error).__name__}: {error}); training goes on", stacklevel=2)
        return None


class Trainer:
    """The state of one training; `fit` drives it. Each process of a run has one, and the first one writes the files.

    Attributes:
        checkpoints: of the run; `checkpoints.save_finished_step` may be called by another thread at any time.
    """

    def __init__(
        self, config: Config, draw_confusion: DrawConfusion | None = None, store: SkeletonStore | None = None
    ) -> None:
        self.config = config
        self.folder = config.run_directory
        seed_everything(config.seed)
        resumes = checkpoint.exists(self.folder / "last.pt")
        if config.deterministic:
            make_deterministic()
        self.run: Run = build(config, store, pretrained=not resumes)
        self.feeder = self.run.feeder("train", train=True)
        self.feeder.prepare_texts = None if self.run.text is None else self.run.text.prepare
        parameters = list(self.run.model.parameters())
        if self.run.text is not None:
            parameters += [p for p in self.run.text.parameters() if p.requires_grad]
        self.optimizer = build_sgd(parameters, config, self.run.device)
        self.autocast, self.precision = autocast(config.precision, self.run.device)
        self.scaler = GradScaler(self.run.device.type, enabled=self.precision == "fp16")
        self._average = WeightAverage(self.run.model, config.weight_average) if config.weight_average else None
        # What is evaluated and kept: the run itself, or its average.
        self._kept = self.run if self._average is None else dataclasses.replace(self.run, model=self._average.network)
        self._divergence = DivergenceCheck(self.folder, self.precision)
        self.checkpoints = Checkpoints(
            self.run, self._kept, self.optimizer, self.scaler, self._average, self._divergence
        )
        self._unread: deque[UnreadStep] = deque()
        self.progress = Progress()
        self.usage = usage(self.run.device)
        self._watching = Pace()
        self.batches = max(1, len(self.feeder) // config.batch_size)  # as published, an incomplete last one is dropped
        if resumes:
            self.progress = self.checkpoints.resume()
        elif config.start_from is not None:
            _log.info("%s", start_from(self.run, config.start_from))
            if self._average is not None:
                self._average.load(self.run.model.state_dict())
        at = {"precision": self.precision, "checkpoint": (self.progress.epoch, self.progress.batch)}
        distributed.check_same_inputs(config.result_settings() | self._inputs() | at)
        towers = data_parallel.Towers(compile_network(self.run.model, config.compile), self.run.text)
        self.towers = data_parallel.distribute(towers, config.sync_batchnorm)
        if distributed.rank() == 0:
            self.tensorboard = TensorBoardLogger(self.folder, self.progress.epoch, draw_confusion)

    def close(self) -> None:
        """End the threads of feeder and writer, close TensorBoard's files."""
        self.feeder.close()
        self.checkpoints.writer.close()
        if distributed.rank() == 0:
            self.tensorboard.close()

    def run_epochs(
        self,
        stop: Callable[[], bool],
        watch: Watch | None,
        deferred: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Train to the last epoch; save after each, now and then within, and where it is stopped.

        Args:
            stop: asked after each step; once true, the state is saved and KeyboardInterrupt raised.
            watch: see `bpilib.train.fit`.
            deferred: context of the steps, within which nothing but `stop` interrupts.
        """
        if not self.progress.resumed or not self.run.trained_on:
            note_training(self.run)
        size = self.config.batch_size
        done = (self.progress.epoch * self.batches + self.progress.batch) * size
        with distributed.progress_bar(self.config.epochs * self.batches * size, self.folder.name, done) as bar:
            while self.progress.epoch < self.config.epochs:
                with deferred():
                    self._train_epoch(bar, stop)
                self._finish_epoch()
                if self._watching.is_due() or self.progress.epoch == self.config.epochs:
                    with self._watching.measured():
                        watch = show_history(watch, pd.DataFrame(self.progress.rows))
        self._finish()

    def _train_epoch(self, bar: tqdm, stop: Callable[[], bool]) -> None:
        progress = self.progress
        size = self.config.batch_size
        self.feeder.epoch = progress.epoch
        order = np.random.default_rng((self.config.seed, progress.epoch)).permutation(len(self.feeder))
        self.run.model.train()
        saved = started = time.monotonic()
        before = progress.seconds
        measured = -math.inf
        while progress.batch < self.batches:
            coming = order[(progress.batch + 1) * size : self.batches * size][:size]
            if len(coming) and self.run.device.type != "cpu":  # a CPU that trains has no core to spare for it
                self.feeder.expect(data_parallel.shard(coming))
            self._step(order[progress.batch * size : (progress.batch + 1) * size])
            now = time.monotonic()
            progress.seconds = before + now - started
            if now - measured > USAGE_SECONDS:
                self.usage = usage(self.run.device)
                measured = now
            bar.set_postfix_str(self._describe_epoch(), refresh=False)
            bar.update(size)
            due = now - saved > 60 * self.config.checkpoint_minutes
            stopped = stop()
            if stopped or (due and progress.batch < self.batches):
                self.checkpoints.writer.wait()
                self._save()
                saved = time.monotonic()
            if stopped:
                self.checkpoints.writer.wait()
                raise KeyboardInterrupt(f"saved in {self.folder}: run the same again to go on")

    def _describe_epoch(self) -> str:
        """The running epoch so far, in a line."""
        sums = self.progress.sums
        means = f"loss {sums.loss / sums.clips:.3f}, accuracy {100 * sums.correct / sums.clips:.1f} %"
        return f"epoch {self.progress.epoch + 1} of {self.config.epochs}: {means}, {format_usage(self.usage)}"

    def _step(self, positions: np.ndarray) -> None:
        """One update from the clips at these positions of the epoch."""
        rate = learning_rate(self.config, self.progress.epoch, self.progress.batch / self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        waits_late = self.run.device.type == "cuda"
        with product_precision(self.precision):
            self.optimizer.zero_grad(set_to_none=True)
            loss, logits, labels = self.loss(positions)
            self._count(loss, logits, labels)
            if not waits_late:
                self._read_losses()
            self.scaler.scale(loss.total).backward()
            self._update()
        # A GPU works on this step while the host reads the loss of the one before. The first loss of an epoch is read
        # at once for the progress bar, the last one for the epoch's row.
        first_or_last = not self.progress.sums.clips or self.progress.batch == self.batches
        self._read_losses(keep=0 if first_or_last else 1)

    def _update(self) -> None:
        """Apply the gradients, and count the step."""
        progress = self.progress
        with self.checkpoints.updating:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            progress.batch += 1
            if self._average is not None:
                self._average.update(progress.epoch * self.batches + progress.batch)
            self.checkpoints.finish_step(progress, self._unread)

    def _count(self, loss: Loss, logits: Tensor, labels: Tensor) -> None:
        """Send the step's figures on their way to the host; `_read_losses` adds them up."""
        contrastive = loss.contrastive.mean() if len(loss.contrastive) else loss.total.new_zeros(())
        correct = (logits.argmax(1) == labels).float().mean()
        values = torch.stack([loss.total, loss.cross_entropy, contrastive, correct])
        where = (self.progress.epoch, self.progress.batch, self.optimizer.param_groups[0]["lr"])
        self._unread.append(UnreadStep(*where, len(labels), DelayedValues(values)))

    def _read_losses(self, keep: int = 0) -> None:
        """Add the figures of all steps but the last `keep` to the epoch's sums.

        Raises:
            ValueError: a loss that is not finite. Nothing was saved since: a checkpoint reads all losses first.
        """
        while len(self._unread) > keep:
            self.progress.sums = self._divergence.add(self.progress.sums, self._unread.popleft())

    def loss(self, positions: np.ndarray) -> tuple[Loss, Tensor, Tensor]:
        """The loss of the clips at these positions, their logits (N, K) and labels (N,).

        Each process computes its share of the clips, and from what all have found the loss of the whole batch.
        """
        batch = self.feeder.take(data_parallel.shard(positions))
        with self.autocast:
            out, texts = self.towers(batch.x, *batch.texts)
        out, texts, labels = data_parallel.gather_batch(out, texts, batch.labels, len(positions))
        config = self.config
        loss = skeleton_text_loss(out, texts, labels, config.alpha, config.label_smoothing)
        return loss, out.logits, labels

    def _finish_epoch(self) -> None:
        """Evaluate if due, log, keep the best, save."""
        config = self.config
        progress = self.progress
        sums = progress.sums
        row = {
            "epoch": progress.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": sums.loss / sums.clips,
            "cross_entropy": sums.cross_entropy / sums.clips,
            "contrastive": sums.contrastive / sums.clips if self.run.text is not None else math.nan,
            "train_top1": 100 * sums.correct / sums.clips,
            "clips_per_second": sums.clips / max(progress.seconds, 1e-9),
        }
        self.run.epoch = self._kept.epoch = progress.epoch + 1
        scores, seconds = None, 0.0
        if self.run.epoch % config.eval_every == 0 or self.run.epoch == config.epochs:
            started = time.monotonic()
            scores = score(self._kept)
            seconds = time.monotonic() - started
            row |= {"test_top1": scores.top(1), "test_top5": scores.top(5)}
            if scores.heldout is not None:
                row |= {"heldout_top1": scores.heldout.top(1), "heldout_top5": scores.heldout.top(5)}
        progress.epoch += 1
        progress.batch = 0
        progress.sums = EpochSums()
        progress.seconds = 0.0
        progress.rows.append(row)
        self._log_epoch(row, scores, seconds)
        self.checkpoints.writer.wait()
        # Where the last epoch is kept, last.pt holds it until the end.
        kept_already = config.select == "last" and self._average is None and progress.epoch < config.epochs
        if scores is not None and progress.selected(config.select) == progress.epoch and not kept_already:
            self.checkpoints.save_best(progress)
        self._save()
        self._write_history()

    @rank_zero_only
    def _write_history(self) -> None:
        rows = pd.DataFrame(self.progress.rows).to_csv(index=False)
        self.checkpoints.writer.do(lambda: write_atomically(self.folder / "metrics.csv", rows))

    @rank_zero_only
    def _log_epoch(self, row: dict[str, Any], scores: Scores | None, evaluation_seconds: float) -> None:
        values = {name: value for name, value in row.items() if name != "epoch"}
        if self.run.text is not None:
            scales = self.run.model.logit_scale.tolist()
            values |= {f"logit_scale/{name}": s for name, s in zip(("global", *self.run.model.parts), scales)}
        values |= {f"machine/{name}": value for name, value in self.usage.items()}
        if scores is not None:
            values["machine/evaluation_seconds"] = evaluation_seconds
        self.tensorboard.epoch(row["epoch"], values, scores)

    def _inputs(self) -> dict[str, Any]:
        """Hashes of prompts and clips."""
        return {"text_digest": self.run.text_digest, "data": self.run.store.manifest["sha256"]}

    def _save(self) -> None:
        """Save last.pt with the figures of all steps."""
        self._read_losses()
        self.checkpoints.save_last(self.progress)

    def _finish(self) -> None:
        """scores.npz of the selected epoch and summary.json."""
        self._write_history()
        self.checkpoints.writer.wait()
        self.checkpoints.load_selected(self.progress.selected(self.config.select))  # `score` sends them to the others
        self._write_results(score(self.run))

    @rank_zero_only
    def _write_results(self, scores: Scores) -> None:
        scores = mark_copies(scores, self.run.store, self.config.benchmark)
        scores.save(self.folder / "scores.npz")
        self.tensorboard.finish(self.run, scores)
        clips = self.batches * min(self.config.batch_size, len(self.feeder))
        summary = summarize(self.run, scores, self.progress, clips, self.precision)
        write_atomically(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
