"""How long a training will take here, and in how much memory, from a few steps before it begins.

The steps are those of a run in a folder that is removed again: the run itself is not touched, nor any random state.
"""

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import psutil
import torch

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.finished import read_finished
from bpilib.runs import history
from bpilib.system.device import full_float32, out_of_memory, product_precision, usage
from bpilib.system.scratch import scratch_folder
from bpilib.training.trainer import Trainer

STEPS = 3  # of training that are tried at most; the first one is slower and not counted
ENOUGH = 0.5  # seconds of counted steps after which no further one is tried
LONG = 12 * 3600  # seconds from which on something is said about it
# Parameters that runs may differ in and be equally fast, step by step, on as many clips.
_AS_FAST = (
    "modality", "seed", "tag", "outputs", "epochs", "lr", "schedule", "steps", "warmup", "momentum", "weight_decay",
    "alpha", "k", "start_from", "eval_every",
)  # fmt: skip


class Speed(NamedTuple):
    """Measured on this machine: clips a second in training and in evaluation, and memory.

    Attributes:
        training, evaluation: clips per second.
        memory_gb: of this process after the steps; on a GPU the most that PyTorch's tensors took there.
        whole_gb: what the machine, or the GPU, has.
        precision: of training, as it came out of "auto".
    """

    training: float
    evaluation: float
    memory_gb: float
    whole_gb: float
    precision: str


class Trial(NamedTuple):
    """What a few steps of a run have shown.

    Attributes:
        clips: of an epoch: training clips × repeats.
        scored: test and held-out clips of one evaluation.
        speed: of all processes of the run together, as if they did not have to wait for each other.
    """

    clips: int
    scored: int
    speed: Speed


class Estimate(NamedTuple):
    """What is left to do of a run, and how fast it goes here.

    Attributes:
        epochs, evaluations: left.
        trial: None where nothing is left.
    """

    epochs: int
    evaluations: int
    trial: Trial | None

    @property
    def seconds(self) -> float:
        """Of training and evaluation."""
        if self.trial is None:
            return 0.0
        clips, scored, speed = self.trial
        return self.epochs * clips / speed.training + self.evaluations * scored / speed.evaluation


def estimate(config: Config) -> Estimate:
    """What is left of a run, from its metrics.csv, and how long that takes here.

    Args:
        config: from `bpilib.config.resolve`.

    Raises:
        MissingInputError: no prepared data.
        ValueError: a finished run there is another one; see `read_finished`.
        MemoryError: out of memory; says what to change.
    """
    return estimate_all([config])[0]


def estimate_all(configs: Iterable[Config]) -> list[Estimate]:
    """As `estimate`, of several runs; those that go equally fast are tried once."""
    trials: dict[str, Trial] = {}
    opened = functools.cache(SkeletonStore.open)
    found = []
    for config in configs:
        done = config.epochs if read_finished(config, opened) is not None else _epochs_done(config)
        if done >= config.epochs:
            found.append(Estimate(0, 0, None))
            continue
        key = str({name: value for name, value in config.settings().items() if name not in _AS_FAST})
        if key not in trials:
            trials[key] = _try(config)
        due = {epoch for epoch in range(done + 1, config.epochs) if epoch % config.eval_every == 0}
        found.append(Estimate(config.epochs - done, len(due) + 1, trials[key]))
    return found


def describe(config: Config, expected: Estimate) -> str:
    """An estimate in sentences, and what to change where it is long or does not fit."""
    if expected.trial is None:
        return "all epochs are done: nothing to train"
    clips, scored, speed = expected.trial
    where = "this machine" if config.devices * config.nodes == 1 else "machines like this one (without their talk)"
    text = (
        f"about {say_time(expected.seconds)} on {where}: {expected.epochs} epochs of {clips:,} clips at "
        f"{speed.training:,.0f} clips/s ({speed.precision}), {expected.evaluations} evaluations of {scored:,} clips at "
        f"{speed.evaluation:,.0f} clips/s; memory {speed.memory_gb:.1f} of {speed.whole_gb:.1f} GB"
    )
    return text + (f"\n{_advice(config, speed)}" if expected.seconds > LONG else "")


def describe_all(configs: list[Config], expected: list[Estimate], workers: int) -> str:
    """The sum over a table of runs, so many at a time."""
    whole = sum(each.seconds for each in expected)
    left = sum(each.trial is not None for each in expected)
    if not left:
        return f"all {len(expected)} runs are done"
    config, longest = max(zip(configs, expected), key=lambda pair: pair[1].seconds)
    at_once = max(whole / workers, longest.seconds)
    text = (
        f"{left} of {len(expected)} runs to train: about {say_time(whole)} one after the other, {say_time(at_once)} "
        f"with {workers} at a time; the longest, {config.run_directory.name}, {say_time(longest.seconds)}"
    )
    return text + (f"\n{_advice(config, longest.trial.speed)}" if at_once > LONG and longest.trial else "")


def say_time(seconds: float) -> str:
    """Seconds in words: "40 seconds", "12 minutes", "3.8 hours"."""
    if seconds < 90:
        return f"{max(2, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _advice(config: Config, speed: Speed) -> str:
    """How such a training becomes shorter, what changes least first."""
    ways = [] if torch.cuda.is_available() else ["a GPU"]
    ways += [f"precision='bf16' (now {speed.precision})"] if speed.precision == "fp32" else []
    ways += [f"fewer repeats (now {config.repeats})"] if config.repeats > 1 else []
    ways += [f"fewer epochs (now {config.epochs}) with schedule='cosine'", f"a smaller width (now {config.width})"]
    short = ", as params/ucla_cpu.yaml has them for NW-UCLA" if config.dataset == "ucla" else ""
    return (
        f"that is long. Shorter with {', '.join(ways)}{short}. Other repeats, epochs and width than the published ones "
        "make another run: set a tag. It may be interrupted at any time and goes on"
    )


def _epochs_done(config: Config) -> int:
    try:
        return int(history(config)["epoch"].max())
    except (OSError, ValueError, KeyError):  # not begun, or nothing in it
        return 0


def _try(config: Config) -> Trial:
    """Train some steps of one process's share in a folder that is removed; random states are as before after it."""
    processes = config.devices * config.nodes
    share = max(1, config.batch_size // processes)
    alone = {"devices": 1, "nodes": 1, "rendezvous": None, "sync_batchnorm": False, "batch_size": share}
    change = "lower batch_size or width (another run: set the parameter tag), or free memory"
    store = SkeletonStore.open(config.data)
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        with (
            scratch_folder("bpi_trial_") as folder,
            out_of_memory(f"a trial step with batch_size={share}, width={config.width}, text={config.text}", change),
        ):
            trial = config.changed(outputs=str(folder), start_from=None, compile="none", **alone)
            with contextlib.closing(Trainer(trial, None, store)) as trainer:
                speed = _measure(trainer)
                scored = len(trainer.run.indices("test")) + len(trainer.run.indices("heldout"))
                whole = speed._replace(training=speed.training * processes, evaluation=speed.evaluation * processes)
                return Trial(len(trainer.feeder), scored, whole)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


def _measure(trainer: Trainer) -> Speed:
    """Time some steps that change no weight, and a batch of evaluation."""
    run, size = trainer.run, trainer.config.batch_size
    device = run.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    run.model.train()
    clips = min(size, len(trainer.feeder))

    def step() -> None:
        with product_precision(trainer.precision):
            trainer.optimizer.zero_grad(set_to_none=True)
            loss, _, _ = trainer.loss(np.arange(clips))
            trainer.scaler.scale(loss.total).backward()
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()

    training = clips / _timed(step, STEPS, device)
    feeder = run.feeder("test")
    fused = run.model.fuse()
    rows = np.arange(min(trainer.config.test_batch_size, len(feeder)))

    @torch.no_grad()
    @full_float32()
    def score() -> None:
        fused(feeder.batch(rows)[0])

    evaluation = len(rows) / _timed(score, 2, device)
    if device.type == "cuda":
        memory, whole = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
    else:
        memory, whole = usage(device)["memory_gb"] * 1e9, psutil.virtual_memory().total
    return Speed(training, evaluation, memory / 1e9, whole / 1e9, trainer.precision)


def _timed(work: Callable[[], None], times: int, device: torch.device) -> float:
    """Mean seconds of so many calls without the first, or of fewer where they take long."""
    seconds: list[float] = []
    while len(seconds) < times and sum(seconds[1:]) < ENOUGH:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return sum(seconds[1:]) / len(seconds[1:])
