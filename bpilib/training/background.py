"""Writing in the background, so that a GPU does not wait for checksums and disks between epochs."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

_log = logging.getLogger(__name__)


class Writer:
    """Does one write after another, in the order in which they were asked for: in a thread, or at once.

    What a write reads must not change before `wait` has returned: see `copy_to_host`.
    """

    def __init__(self, behind: bool) -> None:
        """behind: in a thread, while the caller goes on."""
        self.behind = behind
        self._thread = ThreadPoolExecutor(1, "writer") if behind else None
        self._asked: list[Future[object]] = []

    def do(self, write: Callable[[], object]) -> None:
        """Write now, or as soon as what was asked for before is written."""
        if self._thread is None:
            write()
        else:
            self._asked.append(self._thread.submit(write))

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            Exception: the first one that a write has raised; those after it were done.
        """
        asked, self._asked = self._asked, []
        errors = [error for future in asked if (error := future.exception()) is not None]
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Wait, and end the thread. An error is logged: whoever wants to know of it calls `wait` before."""
        if self._thread is not None:
            self._thread.shutdown()
            try:
                self.wait()
            except Exception:
                _log.exception("the last files could not be written")


def copy_to_host(value: Any) -> Any:
    """A copy of nested dicts and lists with their tensors on the host, that no later step changes."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: copy_to_host(entry) for name, entry in value.items()}
    return [copy_to_host(entry) for entry in value] if isinstance(value, list) else value
