"""What the package reports while it works, shown in notebooks and on the command line."""

import logging
import sys
from typing import TextIO

PACKAGE = "bpilib"


class _CurrentStdout(logging.StreamHandler):
    """Writes to the stdout of the moment: notebooks and tests replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """There is none to keep."""


def show_log(level: int = logging.INFO) -> None:
    """Show the package's messages from `level` on as plain lines on stdout; a second call changes the level alone."""
    logger = logging.getLogger(PACKAGE)
    logger.setLevel(level)
    if not any(isinstance(handler, _CurrentStdout) for handler in logger.handlers):
        logger.addHandler(_CurrentStdout())
