"""Signals that ask a process to end: what it has done is saved at once, and it ends where nothing is cut in two."""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Ctrl-C, and what ends jobs: schedulers send SIGTERM, closed terminals SIGHUP, SLURM what its option --signal names.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
STOPPED = "stopped: run the same again to go on"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def listening(
    hear: Callable[[int], None], look: Callable[[], None] = lambda: None, every: float = 0.1
) -> Iterator[None]:
    """Within it, a thread hears of each signal that has a handler in Python as soon as it comes.

    The handler itself runs in the main thread, between two operations of Python, which a long operation of PyTorch can
    delay by seconds; the thread learns of the signal from the interpreter through a pipe. For the main thread alone.

    Args:
        hear: called in the thread with the signal's number.
        look: called in the thread every so often, for what comes without a signal.
        every: seconds.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def listen() -> None:
        while True:
            if not select.select([read], [], [], every)[0]:
                look()
                continue
            number = os.read(read, 1)
            if number == b"\0":
                return
            if before != -1:  # whoever was told of signals until now, still is
                with contextlib.suppress(OSError):
                    os.write(before, number)
            hear(number[0])

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(write, True)
        os.write(write, b"\0")
        thread.join()
        os.close(write)
        os.close(read)


class Interruption:
    """Within its context, the first signal of `ENDING` saves in a thread, and then ends the work of the main thread.

    Where the work says `deferred`, it goes on and is expected to ask `is_set` and to end at a good moment; elsewhere
    KeyboardInterrupt is raised at once. A second Ctrl-C always raises. When the context ends, the handlers that were
    there before are there again, and a signal other than Ctrl-C is sent once more, so that the process ends as its
    sender means it to.

    Outside the main thread, which gets all signals, nothing is done. Signals that are ignored stay so, as with nohup,
    except Ctrl-C, which shells have programs in the background ignore.
    """

    def __init__(self) -> None:
        self.save: Callable[[], None] = lambda: None  # called in the thread, at the first signal
        self.received: int | None = None
        self._saving = False  # or saved already
        self._saved = threading.Event()
        self._deferring = 0
        self._before: dict[int, Any] = {}
        self._context = contextlib.ExitStack()

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def wait_until_saved(self) -> None:
        """Wait for the thread, if a signal has come: nobody else may write where it writes."""
        if self.is_set():
            self._saved.wait()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """What runs within is not cut in two: it asks `is_set`, or is interrupted when it is through."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
        if self.is_set() and not self._deferring:
            raise KeyboardInterrupt(STOPPED)

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._context.enter_context(listening(self._save_once))
            for number in ENDING:
                before = signal.getsignal(number)
                if number == signal.SIGINT or before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._context.close()  # which waits until what it has begun to save is saved
        if self.received is not None and self.received != signal.SIGINT:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            signal.raise_signal(self.received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        """In the main thread, between two operations of Python."""
        first = self.received is None
        if first:
            self.received = number
        if number == signal.SIGINT:  # the next one interrupts at once
            signal.signal(number, self._before[number])
        if first and not self._deferring:
            raise KeyboardInterrupt(STOPPED)

    def _save_once(self, number: int) -> None:
        """In the thread."""
        if number in self._before and not self._saving:
            self._saving = True
            how = "saving now, then stopping after this step (again to stop at once)"
            _log.warning("%s: %s", signal.Signals(number).name, how)
            try:
                self.save()
            except Exception:  # the main thread saves once more, after its step
                _log.exception("what was done could not be saved at once")
            finally:
                self._saved.set()
