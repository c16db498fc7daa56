"""The state of one training run, and its steps, epochs, checkpoints and logs."""

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bpilib.config import Config
from bpilib.evaluate import Scores, copies_summary, mark_copies, score
from bpilib.losses import Loss, skeleton_text_loss
from bpilib.runs import Run, build, same_clips, start_from
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
from bpilib.system.environment import collect_environment, count_flops
from bpilib.system.files import write_atomically
from bpilib.training import data_parallel
from bpilib.training.optimizer import build_sgd
from bpilib.training.tensorboard import DrawConfusion, TensorBoardLogger


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


class UnreadStep(NamedTuple):
    """A step whose loss the host has not read yet."""

    epoch: int
    batch: int
    rate: float
    clips: int
    values: DelayedValues


Watch = Callable[[pd.DataFrame], None]
LOOK = 2  # seconds between two looks at memory and GPU


class Trainer:
    """The state of one training; `fit` drives it. Each process of a run has one, and the first one writes the files."""

    def __init__(self, config: Config, draw_confusion: DrawConfusion | None = None):
        self.config, self.folder = config, config.run_directory
        seed_everything(config.seed)
        goes_on = checkpoint.exists(self.folder / "last.pt")
        if config.deterministic:
            make_deterministic()
        self.run: Run = build(config, pretrained=not goes_on)
        self.feeder = self.run.feeder("train", train=True)
        self.feeder.prepare_texts = None if self.run.text is None else self.run.text.prepare
        parameters = list(self.run.model.parameters())
        if self.run.text is not None:
            parameters += [p for p in self.run.text.parameters() if p.requires_grad]
        self.optimizer = build_sgd(parameters, config, self.run.device)
        self.autocast, self.precision = autocast(config.precision, self.run.device)
        self.scaler = GradScaler(self.run.device.type, enabled=self.precision == "fp16")
        self._unread: deque[UnreadStep] = deque()
        self.progress, self.usage = Progress(), usage(self.run.device)
        self.batches = max(1, len(self.feeder) // config.batch_size)  # as published, an incomplete last one is dropped
        if goes_on:
            self._resume()
        elif config.start_from is not None:
            print(start_from(self.run, config.start_from))
        at = {"precision": self.precision, "checkpoint": (self.progress.epoch, self.progress.batch)}
        distributed.check_same_inputs(config.result_settings() | self._inputs() | at)
        towers = data_parallel.Towers(compile_network(self.run.model, config.compile), self.run.text)
        self.towers = data_parallel.distribute(towers, config.sync_batchnorm)
        if distributed.rank() == 0:
            self.journal = TensorBoardLogger(self.folder, self.progress.epoch, draw_confusion)

    def close(self) -> None:
        """End the feeder's thread, close what is written for TensorBoard."""
        self.feeder.close()
        if distributed.rank() == 0:
            self.journal.close()

    def run_epochs(self, stop: Callable[[], bool], watch: Watch | None) -> None:
        """Train to the last epoch; save after each, now and then within, and on interrupt."""
        size = self.config.batch_size
        done = (self.progress.epoch * self.batches + self.progress.batch) * size
        with distributed.progress_bar(self.config.epochs * self.batches * size, self.folder.name, done) as bar:
            while self.progress.epoch < self.config.epochs:
                self._train_epoch(bar, stop)
                self._finish_epoch()
                if watch:
                    watch(pd.DataFrame(self.progress.rows))
        self._finish()

    def _train_epoch(self, bar: tqdm, stop: Callable[[], bool]) -> None:
        progress, config = self.progress, self.config
        self.feeder.epoch = progress.epoch
        order = np.random.default_rng((config.seed, progress.epoch)).permutation(len(self.feeder))
        self.run.model.train()
        saved = started = time.monotonic()
        before, looked = progress.seconds, -math.inf
        while progress.batch < self.batches:
            size = config.batch_size
            coming = order[(progress.batch + 1) * size : self.batches * size][:size]
            if len(coming) and self.run.device.type != "cpu":  # a CPU that trains has no time to make it beside
                self.feeder.expect(data_parallel.shard(coming))
            self._step(order[progress.batch * size : (progress.batch + 1) * size])
            progress.batch += 1
            now = time.monotonic()
            progress.seconds = before + now - started
            if now - looked > LOOK:
                self.usage, looked = usage(self.run.device), now
            clips, loss, _, _, right = progress.sums
            sofar = f"loss {loss / clips:.3f}, accuracy {100 * right / clips:.1f} %, {format_usage(self.usage)}"
            bar.set_postfix_str(f"epoch {progress.epoch + 1} of {config.epochs}: {sofar}", refresh=False)
            bar.update(size)
            due = now - saved > 60 * config.checkpoint_minutes
            stopped = stop()
            if stopped or (due and progress.batch < self.batches):
                self._save()
                saved = time.monotonic()
            if stopped:
                raise KeyboardInterrupt(f"saved in {self.folder}: run the same again to go on")

    def _step(self, positions: np.ndarray) -> None:
        """One update from the clips at these positions of the epoch."""
        config, progress = self.config, self.progress
        rate = learning_rate(config, progress.epoch, progress.batch / self.batches)
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
            self.scaler.step(self.optimizer)
            self.scaler.update()
        # A GPU works on this step while the host reads the loss of the one before. The first loss of an epoch is read
        # at once for the progress bar, the last one for the epoch's row.
        first_or_last = not progress.sums[0] or progress.batch + 1 == self.batches
        self._read_losses(keep=0 if first_or_last else 1)

    def loss(self, positions: np.ndarray) -> tuple[Loss, Tensor, Tensor]:
        """The loss of the clips at these positions, their logits (N, K) and labels (N,).

        Each process computes its share of the clips, and from what all have found the loss of the whole batch.
        """
        batch = self.feeder.take(data_parallel.shard(positions))
        with self.autocast:
            out, texts = self.towers(batch.x, *batch.texts)
        out, texts, labels = data_parallel.gather_batch(out, texts, batch.labels, len(positions))
        return skeleton_text_loss(out, texts, labels, self.config.alpha), out.logits, labels

    def _count(self, loss: Loss, logits: Tensor, labels: Tensor) -> None:
        """Send the step's figures on their way to the host; `_read_losses` adds them up."""
        contrastive = loss.contrastive.mean() if len(loss.contrastive) else loss.total.new_zeros(())
        right = (logits.argmax(1) == labels).float().mean()
        values = torch.stack([loss.total, loss.cross_entropy, contrastive, right])
        where = (self.progress.epoch, self.progress.batch, self.optimizer.param_groups[0]["lr"])
        self._unread.append(UnreadStep(*where, len(labels), DelayedValues(values)))

    def _read_losses(self, keep: int = 0) -> None:
        """Add the figures of all steps but the last `keep` to the epoch's sums.

        Raises:
            ValueError: a loss that is not finite. Nothing was saved since: a checkpoint reads all losses first.
        """
        while len(self._unread) > keep:
            step = self._unread.popleft()
            values = step.values.read()
            if not math.isfinite(values[0]):
                raise ValueError(
                    f"the loss is {values[0]} in epoch {step.epoch + 1}, step {step.batch + 1}: lower lr (now "
                    f"{step.rate:g}) or use precision='fp32'. {self.folder / 'last.pt'} holds the last good state"
                )
            self.progress.sums = [s + step.clips * v for s, v in zip(self.progress.sums, [1.0, *values])]

    def _finish_epoch(self) -> None:
        """Evaluate if due, log, keep the best, save."""
        config, progress = self.config, self.progress
        clips, loss, cross_entropy, contrastive, right = progress.sums
        row = {
            "epoch": progress.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss / clips,
            "cross_entropy": cross_entropy / clips,
            "contrastive": contrastive / clips if self.run.text is not None else math.nan,
            "train_top1": 100 * right / clips,
            "clips_per_second": clips / max(progress.seconds, 1e-9),
        }
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums, progress.seconds = [0.0] * 5, 0.0
        self.run.epoch = progress.epoch
        scores = None
        if progress.epoch % config.eval_every == 0 or progress.epoch == config.epochs:
            scores = score(self.run)
            row |= {"test_top1": scores.top(1), "test_top5": scores.top(5)}
            if scores.heldout is not None:
                row |= {"heldout_top1": scores.heldout.top(1), "heldout_top5": scores.heldout.top(5)}
        progress.rows.append(row)
        self._log(row, scores)
        if scores is not None and self._selected() == progress.epoch:
            self._save("best.pt")
        self._save()
        self._write_history()

    @rank_zero_only
    def _write_history(self) -> None:
        write_atomically(self.folder / "metrics.csv", pd.DataFrame(self.progress.rows).to_csv(index=False))

    def _best(self, column: str) -> tuple[int, float]:
        """The epoch (the first of equals) of the highest value in a column of the history, and that value."""
        rows = [(row[column], -row["epoch"]) for row in self.progress.rows if column in row]
        value, epoch = max(rows)
        return -epoch, value

    def _selected(self) -> int:
        """The evaluated epoch that `select` chooses of those so far."""
        if self.config.select == "last":
            return max(row["epoch"] for row in self.progress.rows if "test_top1" in row)
        return self._best(f"{self.config.select}_top1")[0]

    @rank_zero_only
    def _log(self, row: dict[str, Any], scores: Scores | None) -> None:
        values = {name: value for name, value in row.items() if name != "epoch"}
        if self.run.text is not None:
            scales = self.run.model.logit_scale.tolist()
            values |= {f"logit_scale/{name}": s for name, s in zip(("global", *self.run.model.parts), scales)}
        values |= {f"machine/{name}": value for name, value in self.usage.items()}
        self.journal.epoch(row["epoch"], values, scores)

    def _weights(self) -> dict[str, Any]:
        """What every checkpoint holds; weights that diverged are never saved over good ones."""
        self._read_losses()
        content = self.run.content()
        tensors = [tensor for name in ("model", "text") for tensor in content[name].values()]
        if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
            raise ValueError(
                f"the network's weights, or the text encoder's, are not finite after epoch {self.progress.epoch}, step "
                f"{self.progress.batch}: lower lr or use precision='fp32'; nothing was saved of them"
            )
        return content | {"epoch": self.progress.epoch}

    def _inputs(self) -> dict[str, Any]:
        """Hashes of what it learns from."""
        return {"text_digest": self.run.text_digest, "data": self.run.store.manifest["sha256"]}

    @rank_zero_only
    def _save(self, name: str = "last.pt") -> None:
        """last.pt: all that going on needs. The learning rate follows from the epoch; draws from their counters."""
        content = self._weights()
        if name == "last.pt":
            content |= {
                "progress": dataclasses.asdict(self.progress),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": torch.get_rng_state(),
            }
        checkpoint.save(self.folder / name, content)

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
        self.progress = Progress(**content["progress"])
        self.progress.resumed += 1
        print(f"going on with {self.folder} after epoch {self.progress.epoch}, step {self.progress.batch}")

    def _finish(self) -> None:
        """scores.npz of the selected epoch and summary.json."""
        self._write_history()
        self._load_best()
        self._write_results(score(self.run))

    @rank_zero_only
    def _load_best(self) -> None:
        """`score` gives these weights to the other processes."""
        epoch = self._selected()
        try:
            self.run.load(*(self.folder / name for name in ("best.pt", "last.pt", "last.previous.pt")), epoch=epoch)
        except ValueError as error:
            raise ValueError(f"{error}. Epoch {epoch}, the selected one, is lost: train with another tag") from error

    def _describe_environment(self) -> dict[str, Any]:
        """What summary.json says for a reader who wants to repeat the run."""
        network = self.run.model
        one_clip = self.run.feeder("test").batch(np.zeros(1, int))[0]  # (1, 3, T, V, M)
        return collect_environment(self.run.device) | {
            "parameters": sum(p.numel() for p in network.parameters()),
            "flops_per_clip": count_flops(network, one_clip),
            "seed": self.config.seed,
            "text_digest": self.run.text_digest,
        }

    @rank_zero_only
    def _write_results(self, scores: Scores) -> None:
        config, rows = self.config, self.progress.rows
        scores = mark_copies(scores, self.run.store, config.benchmark)
        scores.save(self.folder / "scores.npz")
        self.journal.finish(self.run, scores)
        test_epoch, test_best = self._best("test_top1")
        clips = self.batches * min(config.batch_size, len(self.feeder))
        summary = {
            "epochs": config.epochs,
            "select": config.select,
            "selected_epoch": self._selected(),
            "test_top1": scores.top(1),
            "test_top1_interval_95": scores.interval(),
            "test_top5": scores.top(5),
            "test_clips": len(scores.labels),
            **copies_summary(scores),
            "best_test_epoch_as_published": {"epoch": test_epoch, "test_top1": test_best},
            "parameters": sum(p.numel() for p in self.run.model.parameters()),
            "training_seconds": sum(clips / row["clips_per_second"] for row in rows),
            "resumed": self.progress.resumed,
            "device": str(self.run.device),
            "processes": distributed.world_size(),
            "precision": self.precision,
            "torch": torch.__version__,
            "data": self.run.store.manifest["sha256"],
            "environment": self._describe_environment(),
        }
        if scores.heldout is not None:
            summary["heldout_top1"] = scores.heldout.top(1)
        write_atomically(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
