"""Functions compiled by numba at their first call, and kept for the next process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def compile_numba(function: Callable, fastmath: bool | set[str] = False) -> Any:
    """Compile at the first call, without the interpreter's lock, and keep the result where some folder can be written.

    Args:
        function: of arrays and numbers.
        fastmath: liberties with floating point, of this function alone; if they are not named, numba takes those of the
            first caller.

    Returns:
        The function as a numba dispatcher.
    """
    try:
        return njit(cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:  # numba found no such folder
        return njit(nogil=True, fastmath=fastmath)(function)


def is_compiled(function: Any) -> bool:
    """Whether the next call of a compiled function runs at once; otherwise it is compiled first, which takes seconds.

    Args:
        function: from `compile_numba`, with one signature.
    """
    if function.signatures:
        return True
    source = Path(function.py_func.__code__.co_filename)
    folder = function.stats.cache_path
    kept = Path(folder).glob(f"{source.stem}.{function.__name__}-*.nbi") if folder else ()
    changed = source.stat().st_mtime if source.exists() else 0.0
    return any(file.stat().st_mtime >= changed for file in kept)


@intrinsic
def prefetch(_, array, index):
    """For compiled functions: have the processor fetch the cache line of array[index], which will be read soon.

    Args:
        array: one-dimensional, contiguous.
        index: integer; nothing is read or checked, so one out of range does no harm.
    """

    def generate(context, builder, _, arguments):
        start = context.make_array(array)(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        where = builder.bitcast(builder.gep(start, [arguments[1]]), byte)
        builder.call(function, [where, number(0), number(2), number(1)])  # for reading, into the L2 cache, data
        return context.get_dummy_value()

    return types.none(array, index), generate
