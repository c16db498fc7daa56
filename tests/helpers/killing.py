"""A process that kills itself at a chosen point of its work with files."""

import os
import signal
from collections.abc import Callable

CALLS = ("rename", "replace", "rmdir", "unlink", "mkdir", "fsync")  # by which files are made whole, moved, removed


def kill_before_call(point: int) -> Callable[[], int]:
    """From now on count this process's CALLS, and kill it right before number `point`, from 1.

    Returns:
        A function that says how many calls there were so far.
    """
    made = [0]

    def counted(real: Callable) -> Callable:
        def call(*arguments, **options):
            made[0] += 1
            if made[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: made[0]


def killed_at(point: int, work: Callable[[], object]) -> bool:
    """Whether a child that does some work was killed right before number `point` of its CALLS, if there are so many."""
    child = os.fork()
    if not child:
        try:
            kill_before_call(point)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
