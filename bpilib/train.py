"""Training: the published recipe, exact resume, nothing lost."""

import contextlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.finished import read_finished
from bpilib.runs import history, write_or_check_config
from bpilib.system import checkpoint
from bpilib.system.device import out_of_memory, pick_device
from bpilib.system.files import remove_leftovers, write_atomically
from bpilib.system.lock import lock_run
from bpilib.system.signals import Interruption
from bpilib.system.threads import free_cores
from bpilib.training.launch import launch, saving_when_stopped
from bpilib.training.progress import Progress
from bpilib.training.tensorboard import DrawConfusion
from bpilib.training.trainer import Trainer, Watch, show_history

_log = logging.getLogger(__name__)


def fit(config: Config, watch: Watch | None = None, draw_confusion: DrawConfusion | None = None) -> Path:
    """Train, or resume where a run of the same configuration stopped, or return what is done.

    Args:
        config: from `bpilib.config.resolve`.
        watch: called after each epoch with the history so far (see metrics.csv), for live curves; less often where it
            would take more than a twentieth of the time, but after the last epoch always. An exception that it raises
            ends the watching, not the training.
        draw_confusion: (K, K) counts and class names to an (H, W, 3) uint8 image for TensorBoard; with several
            devices, a function of an importable module.

    Returns:
        The run directory: config.yaml, last.pt, best.pt, metrics.csv, tensorboard/, scores.npz, summary.json.

    Raises:
        MissingInputError: no prepared data.
        ValueError: the directory holds a run with other settings, prompts or clips, or is in use; damaged data; ...
        MemoryError: out of memory; says how much was wanted and what to change.
        RuntimeError: with several devices, processes that die again and again, or do not meet.
        KeyboardInterrupt: after Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, once everything is saved. After the latter three
            the signal is sent once more, which by default ends the process.
    """
    if (summary := read_finished(config)) is not None:
        if not (config.run_directory / "config.yaml").exists():
            write_or_check_config(config)
        done = f"top-1 {summary['test_top1']:.2f} % after {summary['epochs']} epochs"
        _log.info("done already: %s, %s", config.run_directory, done)
        show_history(watch, _finished_history(config))
        return config.run_directory
    group = f"{config.nodes} machines at {config.rendezvous}" if config.nodes > 1 else ""
    with Interruption() as interruption, lock_run(config.run_directory, group):
        try:
            _train(config, watch, draw_confusion, interruption)
        finally:
            interruption.wait_until_saved()
    return config.run_directory


def _finished_history(config: Config) -> pd.DataFrame:
    """metrics.csv of a finished run; where it is lost or damaged, made again from last.pt.

    Raises:
        ValueError: it is, and there is no last.pt.
    """
    path = config.run_directory / "metrics.csv"
    try:
        if len(rows := history(config)) == config.epochs:
            return rows
        problem = f"{path} has {len(rows)} of {config.epochs} epochs"
    except ValueError as error:
        problem = str(error)
    try:
        progress = Progress.saved(checkpoint.load(path.with_name("last.pt"))["progress"])
    except ValueError as error:
        raise ValueError(
            f"{path} is lost or damaged, and there is no whole last.pt to make it from again: put one of the two back"
        ) from error
    warnings.warn(f"metrics.csv is made again from last.pt: {problem}", stacklevel=3)
    write_atomically(path, pd.DataFrame(progress.rows).to_csv(index=False))
    return history(config)


def _train(
    config: Config, watch: Watch | None, draw_confusion: DrawConfusion | None, interruption: Interruption
) -> None:
    """Train in this process, or in several that this one starts."""
    write_or_check_config(config)
    _check_weights(config.run_directory)
    if config.nodes == 1:  # else another machine may be at work in the directory
        remove_leftovers(config.run_directory, "*.pt.new")
    free_cores.cache_clear()
    store = SkeletonStore.open(config.data)
    store.verify()
    if config.devices * config.nodes > 1:
        with interruption.deferred():
            launch(train_share, config, draw_confusion, stop=interruption.is_set, watch=watch)
        return
    with _memory(config):
        trainer = Trainer(config, draw_confusion, store)
        interruption.save = trainer.checkpoints.save_finished_step
        with contextlib.closing(trainer):
            trainer.run_epochs(interruption.is_set, watch, interruption.deferred)


def _check_weights(folder: Path) -> None:
    """ValueError if a training would begin anew where there are weights that it would replace by others.

    A best.pt of the first epoch alone is of a training that was killed before its last.pt, and is made again as it is.
    """
    best = folder / "best.pt"
    if checkpoint.exists(folder / "last.pt") or not checkpoint.exists(best):
        return
    try:
        content = checkpoint.load(best)
    except ValueError:  # damaged: nothing is lost
        return
    made = content.get("imported")
    if made or content["epoch"] > 1:
        what = f"weights of {made['file']}, which were imported" if made else f"weights of epoch {content['epoch']}"
        raise ValueError(
            f"{best} has {what}, and there is no last.pt to train on from; training anew would replace them. Set the "
            f"parameter tag to train another run, with start_from={str(folder)!r} to train them on"
        )


def train_share(config: Config, stop: Callable[[], bool], draw_confusion: DrawConfusion | None = None) -> None:
    """What one of several processes does for a run; see `bpilib.training.launch.launch`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_memory(config))
        trainer = stack.enter_context(contextlib.closing(Trainer(config, draw_confusion)))
        stack.enter_context(saving_when_stopped(trainer.checkpoints.save_finished_step))
        trainer.run_epochs(stop, None)


def _memory(config: Config) -> contextlib.AbstractContextManager[None]:
    """Where memory runs out in training, say what took it."""
    names = ("batch_size", "width", "text", "precision", "devices")
    return out_of_memory(
        f"training on {pick_device(config.device)} with {', '.join(f'{n}={getattr(config, n)}' for n in names)}",
        "no checkpoint is lost. The same run goes on with more free memory, precision='bf16' or another device; a "
        "smaller batch_size or width makes another run (set the parameter tag)",
    )
