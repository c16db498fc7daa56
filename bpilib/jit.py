"""Functions compiled by numba at their first call, and kept for the next process."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable, fastmath: bool | set[str] = False) -> Callable:
    """Compile at the first call, without the interpreter's lock, and keep the result where some folder can be written.

    Args:
        function: of arrays and numbers.
        fastmath: liberties with floating point, of this function alone: unsaid, numba takes those of its first caller.
    """
    try:
        return njit(cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:  # numba found no such folder
        return njit(nogil=True, fastmath=fastmath)(function)
