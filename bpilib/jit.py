"""Functions compiled by numba at their first call, and kept for the next process."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable, **options: object) -> Callable:
    """Compile at the first call, without the interpreter's lock, and keep the result where some folder can be written.

    Args:
        function: of arrays and numbers.
        options: of numba's njit.
    """
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no such folder
        return njit(nogil=True, **options)(function)
