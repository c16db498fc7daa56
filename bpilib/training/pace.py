"""Figures between epochs, no more often than a training can afford."""

import contextlib
import math
import time
from collections.abc import Iterator

SHARE = 0.05  # of a training's time, that drawing may take
CHEAP = 0.1  # seconds; what takes less is always due


class Pace:
    """Says when something that is drawn again and again is due: so that it takes `SHARE` of the time at most.

    Counted is the CPU time of the thread that draws, so that on a busy machine it is not drawn less often.
    """

    def __init__(self) -> None:
        self._took = 0.0
        self._ended = -math.inf

    def is_due(self) -> bool:
        """Whether to draw now."""
        return self._took < CHEAP or time.monotonic() - self._ended >= self._took / SHARE

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Count the time of what is within it."""
        started = time.thread_time()
        try:
            yield
        finally:
            self._took, self._ended = time.thread_time() - started, time.monotonic()
