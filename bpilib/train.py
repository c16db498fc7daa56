"""Training: the published recipe, exact resume, nothing lost."""

import contextlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.runs import history, same_clips, write_or_check_config
from bpilib.system.device import out_of_memory, pick_device
from bpilib.system.files import remove_leftovers
from bpilib.system.lock import lock_run
from bpilib.system.signals import Interruption
from bpilib.system.threads import free_cores
from bpilib.training.launch import launch, saving_when_stopped
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
        ValueError: the directory holds a run with other settings, or is in use; damaged data or checkpoints; ...
        MemoryError: out of memory; says how much was wanted and what to change.
        RuntimeError: with several devices, processes that die again and again, or do not meet.
        KeyboardInterrupt: after Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, once everything is saved. After the latter three
            the signal is sent once more, which by default ends the process.
    """
    if _is_finished(config):
        show_history(watch, history(config))
        return config.run_directory
    group = f"{config.nodes} machines at {config.rendezvous}" if config.nodes > 1 else ""
    with Interruption() as interruption, lock_run(config.run_directory, group):
        try:
            _train(config, watch, draw_confusion, interruption)
        finally:
            interruption.wait_until_saved()
    return config.run_directory


def _is_finished(config: Config) -> bool:
    """Whether there is a finished run, which is then said; not if its summary is damaged.

    Raises:
        ValueError: it has other settings, or was trained with other clips.
    """
    path = config.run_directory / "summary.json"
    if not path.exists():
        return False
    write_or_check_config(config)
    try:
        summary = json.loads(path.read_text())
        done = f"top-1 {summary['test_top1']:.2f} % after {summary['epochs']} epochs"
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): made again from the checkpoints", stacklevel=3)
        return False
    there = (Path(config.data) / "manifest.json").exists()
    if there and "data" in summary and not same_clips(SkeletonStore.open(config.data), summary["data"]):
        raise ValueError(
            f"{path.parent} was trained with other clips than {config.data} holds now: put them back, or set the "
            "parameter tag to start another run"
        )
    _log.info("done already: %s, %s", path.parent, done)
    return True


def _train(
    config: Config, watch: Watch | None, draw_confusion: DrawConfusion | None, interruption: Interruption
) -> None:
    """Train in this process, or in several that this one starts."""
    write_or_check_config(config)
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
