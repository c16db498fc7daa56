"""Training: the published recipe, exact resume, nothing lost."""

import contextlib
import json
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.runs import history, same_clips, write_or_check_config
from bpilib.system.device import out_of_memory, pick_device
from bpilib.system.lock import hold
from bpilib.training.launch import launch
from bpilib.training.tensorboard import DrawConfusion
from bpilib.training.trainer import Trainer, Watch


def fit(config: Config, watch: Watch | None = None, draw_confusion: DrawConfusion | None = None) -> Path:
    """Train, or go on where a run of the same configuration stopped, or return what is done.

    Args:
        config: from `bpilib.config.resolve`.
        watch: called after each epoch with the history so far (see metrics.csv), for live curves.
        draw_confusion: (K, K) counts and class names to an (H, W, 3) uint8 image for TensorBoard; with several
            devices, a function of an importable module.

    Returns:
        The run directory: config.yaml, last.pt, best.pt, metrics.csv, tensorboard/, scores.npz, summary.json.

    Raises:
        MissingInputError: no prepared data.
        ValueError: the directory holds a run with other settings, or is in use; damaged data or checkpoints; ...
        MemoryError: out of memory; says how much was wanted and what to change.
        RuntimeError: with several devices, processes that die again and again, or do not meet.
        KeyboardInterrupt: after Ctrl-C, once everything is saved.
    """
    if _done(config) is None:
        group = f"{config.nodes} machines at {config.rendezvous}" if config.nodes > 1 else ""
        with hold(config.run_directory, group):
            _train(config, watch, draw_confusion)
    elif watch:
        watch(history(config))
    return config.run_directory


def _done(config: Config) -> dict[str, Any] | None:
    """The summary of a finished run, said to be done already; None: it is not finished, or its summary is damaged."""
    path = config.run_directory / "summary.json"
    if not path.exists():
        return None
    write_or_check_config(config)
    try:
        summary = json.loads(path.read_text())
        print(f"done already: {path.parent}, top-1 {summary['test_top1']:.2f} % after {summary['epochs']} epochs")
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): made again from the checkpoints", stacklevel=3)
        return None
    there = (Path(config.data) / "manifest.json").exists()
    if there and "data" in summary and not same_clips(SkeletonStore.open(config.data), summary["data"]):
        raise ValueError(
            f"{path.parent} was trained with other clips than {config.data} holds now: put them back, or set the "
            "parameter tag to start another run"
        )
    return summary


def _train(config: Config, watch: Watch | None, draw_confusion: DrawConfusion | None) -> None:
    """Train in this process, or in several that this one starts."""
    write_or_check_config(config)
    SkeletonStore.open(config.data).verify()
    if config.devices * config.nodes > 1:
        with _interruptible() as stop:
            launch(train_share, config, draw_confusion, stop=stop, watch=watch)
        return
    with _memory(config):
        trainer = Trainer(config, draw_confusion)
        with contextlib.closing(trainer), _interruptible() as stop:
            trainer.run_epochs(stop, watch)


def train_share(config: Config, stop: Callable[[], bool], draw_confusion: DrawConfusion | None = None) -> None:
    """What one of several processes does for a run; see `bpilib.training.launch.launch`."""
    with _memory(config), contextlib.closing(Trainer(config, draw_confusion)) as trainer:
        trainer.run_epochs(stop, None)


def _memory(config: Config) -> contextlib.AbstractContextManager:
    """Where memory runs out in training, say what took it."""
    names = ("batch_size", "width", "text", "precision", "devices")
    return out_of_memory(
        f"training on {pick_device(config.device)} with {', '.join(f'{n}={getattr(config, n)}' for n in names)}",
        "no checkpoint is lost. The same run goes on with more free memory, precision='bf16' or another device; a "
        "smaller batch_size or width makes another run (set the parameter tag)",
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a flag, so that a step is never cut in two; the second Ctrl-C interrupts at once."""
    hit = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield hit.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        hit.set()
        print("\ninterrupted: saving after this step (again to stop at once)", file=sys.stderr)

    signal.signal(signal.SIGINT, handler)
    try:
        yield hit.is_set
    finally:
        signal.signal(signal.SIGINT, before)
