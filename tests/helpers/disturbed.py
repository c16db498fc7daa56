"""Trainings to which something happens at a chosen step, here or in a process of their own (`start`)."""

import ctypes
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from small_runs import config_of

from bpilib.train import fit
from bpilib.training.trainer import Trainer

Step = Callable[[Trainer, np.ndarray], None]
What = Callable[[Step, Trainer, np.ndarray], None]


def disturbed(step: Step, calls: Iterator[int], number: int, what: What) -> Step:
    """A step of a training that, at call `number`, is left to `what`; `calls` counts them."""

    def one(trainer: Trainer, positions: np.ndarray) -> None:
        if next(calls) == number:
            what(step, trainer, positions)
        else:
            step(trainer, positions)

    return one


def take_long(step: Step, trainer: Trainer, positions: np.ndarray) -> None:
    """No Python between its calls but this loop: handlers do run, and the step does not end."""
    print("long", flush=True)
    wait = ctypes.CDLL(None).usleep
    wait.argtypes = [ctypes.c_uint]
    for _ in range(3000):
        wait(100_000)
    step(trainer, positions)


def kill(step: Step, trainer: Trainer, positions: np.ndarray) -> None:
    """The weights have changed, and nothing is saved yet."""
    step(trainer, positions)
    os.kill(os.getpid(), signal.SIGKILL)


def starve(step: Step, trainer: Trainer, positions: np.ndarray) -> None:
    """A batch that is too large for the feeder, in a process that may take no more memory."""
    positions = positions.repeat(10**6)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used, used))
    step(trainer, positions)


def start(place: Path, outputs: Path, number: int, what: What, **settings: object) -> subprocess.Popen:
    """A process that trains as `config_of` says, and leaves step `number`, from 0, to `what` of this module."""
    command = [sys.executable, __file__, place, outputs, str(number), what.__name__, json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def main(place: str, outputs: str, number: str, what: str, settings: str) -> None:
    Trainer._step = disturbed(Trainer._step, itertools.count(), int(number), globals()[what])
    fit(config_of(Path(place), Path(outputs), **json.loads(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
