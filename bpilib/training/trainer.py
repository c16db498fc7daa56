"""The state of one training run, and its steps, epochs, checkpoints and logs."""

import dataclasses
import json
import logging
import math
import threading
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
from bpilib.runs import Run, build, same_clips
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
from bpilib.system.threads import set_threads, usable_cores
from bpilib.training import data_parallel
from bpilib.training.background import Writer, copy_to_host
from bpilib.training.optimizer import build_sgd
from bpilib.training.progress import EpochSums, FinishedStep, Progress, UnreadStep, learning_rate
from bpilib.training.start import start_from
from bpilib.training.summary import summarize
from bpilib.training.tensorboard import DrawConfusion, TensorBoardLogger
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

    Another thread may call `save_finished_step` at any time: weights and optimizer change in `_update` alone, which
    keeps a copy of what else belongs to the state after the step.
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
        self._unread: deque[UnreadStep] = deque()
        self.progress = Progress()
        self.usage = usage(self.run.device)
        self._writer = Writer(behind=self.run.device.type != "cpu")  # a CPU that trains has no core to spare for it
        self._updating = threading.Lock()  # held while a step changes weights and optimizer
        self._saving = threading.Lock()  # held while last.pt is written
        self._finished_step: FinishedStep | None = None
        self._saved = (0, 0)  # epoch and batch of what last.pt holds
        self.batches = max(1, len(self.feeder) // config.batch_size)  # as published, an incomplete last one is dropped
        if resumes:
            self._resume()
        elif config.start_from is not None:
            _log.info("%s", start_from(self.run, config.start_from))
            if self._average is not None:
                self._average.load(self.run.model.state_dict())
        at = {"precision": self.precision, "checkpoint": (self.progress.epoch, self.progress.batch)}
        distributed.check_same_inputs(config.result_settings() | self._inputs() | at)
        towers = data_parallel.Towers(compile_network(self.run.model, config.compile), self.run.text)
        self.towers = data_parallel.distribute(towers, config.sync_batchnorm)
        weights = {name for name, _ in self.run.model.named_parameters()}
        self._statistics = {name: t for name, t in self.run.model.state_dict().items() if name not in weights}
        if distributed.rank() == 0:
            self.tensorboard = TensorBoardLogger(self.folder, self.progress.epoch, draw_confusion)

    def close(self) -> None:
        """End the threads of feeder and writer, close TensorBoard's files."""
        self.feeder.close()
        self._writer.close()
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
        size = self.config.batch_size
        done = (self.progress.epoch * self.batches + self.progress.batch) * size
        with distributed.progress_bar(self.config.epochs * self.batches * size, self.folder.name, done) as bar:
            while self.progress.epoch < self.config.epochs:
                with deferred():
                    self._train_epoch(bar, stop)
                self._finish_epoch()
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
                self._writer.wait()
                self._save()
                saved = time.monotonic()
            if stopped:
                self._writer.wait()
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
        """Apply the gradients, and count the step: whoever saves sees all of it or nothing."""
        progress = self.progress
        with self._updating:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            progress.batch += 1
            if self._average is not None:
                self._average.update(progress.epoch * self.batches + progress.batch)
            statistics = {name: tensor.clone() for name, tensor in self._statistics.items()}
            kept = dataclasses.replace(progress, rows=list(progress.rows))
            self._finished_step = FinishedStep(kept, tuple(self._unread), statistics, torch.get_rng_state())

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
            self.progress.sums = self._sums_with(self.progress.sums, self._unread.popleft())

    def _sums_with(self, sums: EpochSums, step: UnreadStep) -> EpochSums:
        """The sums with the figures of a step; ValueError where its loss is not finite."""
        values = step.values.read()
        if not math.isfinite(values[0]):
            raise ValueError(
                f"the loss is {values[0]} in epoch {step.epoch + 1}, step {step.batch + 1}: "
                f"{self._advice_on_divergence(step.rate)}"
            )
        return sums.plus(step.clips, values)

    def _advice_on_divergence(self, rate: float) -> str:
        """What to change, and whether there is a checkpoint from before."""
        other = "" if self.precision == "fp32" else " or use precision='fp32'"
        path = self.folder / "last.pt"
        kept = f". {path} holds the last good state" if checkpoint.exists(path) else ""
        return f"lower lr (now {rate:g}){other}{kept}"

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
        self._writer.wait()
        # Where the last epoch is kept, last.pt holds it until the end.
        kept_already = config.select == "last" and self._average is None and progress.epoch < config.epochs
        if scores is not None and progress.selected(config.select) == progress.epoch and not kept_already:
            self._save("best.pt")
        self._save()
        self._write_history()

    @rank_zero_only
    def _write_history(self) -> None:
        rows = pd.DataFrame(self.progress.rows).to_csv(index=False)
        self._writer.do(lambda: write_atomically(self.folder / "metrics.csv", rows))

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

    def _content(self, progress: Progress, statistics: dict[str, Tensor] | None = None) -> dict[str, Any]:
        """What every checkpoint holds.

        Args:
            progress: that it is of.
            statistics: running statistics of BatchNorm, in place of the present ones.

        Raises:
            ValueError: weights that diverged, which are never saved over good ones.
        """
        content = self.run.content() | {"epoch": progress.epoch}
        content["model"] = content["model"] | (statistics or {})
        tensors = [tensor for name in ("model", "text") for tensor in content[name].values()]
        if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
            advice = self._advice_on_divergence(self.optimizer.param_groups[0]["lr"])
            raise ValueError(
                f"the network's weights, or the text encoder's, are not finite after epoch {progress.epoch}, step "
                f"{progress.batch}: {advice}; nothing was saved of them"
            )
        return content

    def _resume_content(self, progress: Progress, random: Tensor) -> dict[str, Any]:
        """What resuming needs besides. The learning rate follows from the epoch; draws from their counters."""
        return {
            "progress": progress.content(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random,
            "threads": torch.get_num_threads(),
            "average": {} if self._average is None else self._average.network.state_dict(),
        }

    @rank_zero_only
    def _save(self, name: str = "last.pt") -> None:
        """Save the present state: last.pt with all that resuming needs, best.pt with the weights that are kept."""
        self._read_losses()
        content = self._content(self.progress)
        content |= (
            self._resume_content(self.progress, torch.get_rng_state()) if name == "last.pt" else self._kept.content()
        )
        if self._writer.behind:
            content = copy_to_host(content)
        position = (self.progress.epoch, self.progress.batch)

        def write() -> None:
            if name != "last.pt":
                checkpoint.save(self.folder / name, content)
                return
            with self._saving:
                if position >= self._saved:  # a signal may have had a later step saved meanwhile
                    checkpoint.save(self.folder / name, content)
                    self._saved = position

        self._writer.do(write)

    @rank_zero_only
    def save_finished_step(self) -> None:
        """Save last.pt as it is after the last finished step, unless it is saved already. For other threads, too."""
        with self._saving:
            with self._updating:
                step = self._finished_step
                if step is None or (step.progress.epoch, step.progress.batch) <= self._saved:
                    return
                progress = step.progress
                for unread in step.unread:
                    sums = self._sums_with(progress.sums, unread)
                    progress = dataclasses.replace(progress, sums=sums)
                content = self._content(progress, step.statistics)
                content = copy_to_host(content | self._resume_content(progress, step.random))
            checkpoint.save(self.folder / "last.pt", content, urgent=True)
            self._saved = (step.progress.epoch, step.progress.batch)
            _log.info("saved in %s: epoch %d, step %d", self.folder, *(n for n in self._saved))

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        content = self.run.load(path, need="progress")
        another = "put them back, or set the parameter tag to start another run"
        if content["text_digest"] != self.run.text_digest:
            raise ValueError(f"{path} was trained with other prompts than {self.config.prompts} holds now: {another}")
        if not same_clips(self.run.store, content["data"]):
            raise ValueError(f"{path} was trained with other clips than {self.config.data} holds now: {another}")
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random"])
        self.progress = Progress.saved(content["progress"])
        self.progress.resumed += 1
        if self._average is not None:
            self._average.load(content["average"])
        self._saved = (self.progress.epoch, self.progress.batch)
        self._resume_threads(content.get("threads"))
        _log.info("resuming %s after epoch %d, step %d", self.folder, self.progress.epoch, self.progress.batch)

    def _resume_threads(self, before: int | None) -> None:
        """Use as many CPU threads as before: sums in another order would round to other results."""
        if before is None or self.run.device.type != "cpu":
            return
        if self.config.threads not in (None, before):
            what = f"began with {before} CPU threads, threads is {self.config.threads} now"
            warnings.warn(f"{self.folder} {what}: its results will differ in rounding", stacklevel=4)
            return
        if before > usable_cores():
            what = f"uses {before} CPU threads, as it did before, on {usable_cores()} cores"
            warnings.warn(f"{self.folder} {what}: slow, but exact; the parameter threads changes it", stacklevel=4)
        set_threads(before)

    def _finish(self) -> None:
        """scores.npz of the selected epoch and summary.json."""
        self._write_history()
        self._writer.wait()
        self._load_best()
        self._write_results(score(self.run))

    @rank_zero_only
    def _load_best(self) -> None:
        """Load the selected weights; `score` sends them to the other processes."""
        epoch = self.progress.selected(self.config.select)
        try:
            self.run.load(*(self.folder / name for name in ("best.pt", "last.pt", "last.previous.pt")), epoch=epoch)
        except ValueError as error:
            raise ValueError(f"{error}. Epoch {epoch}, the selected one, is lost: train with another tag") from error

    @rank_zero_only
    def _write_results(self, scores: Scores) -> None:
        scores = mark_copies(scores, self.run.store, self.config.benchmark)
        scores.save(self.folder / "scores.npz")
        self.tensorboard.finish(self.run, scores)
        clips = self.batches * min(self.config.batch_size, len(self.feeder))
        summary = summarize(self.run, scores, self.progress, clips, self.precision)
        write_atomically(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
