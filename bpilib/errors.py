"""Errors that say what was expected, what came, and what to do."""

import difflib
from collections.abc import Iterable


class MissingInputError(FileNotFoundError, ValueError):
    """Something to be read is not there; the message says what makes it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """", did you mean ...?" for a mistyped name, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""
