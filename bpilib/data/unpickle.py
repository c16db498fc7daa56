"""Pickles of plain containers, numbers, text and NumPy arrays, read without running anything they ask for.

A pickle is a program. This is a machine of our own for it, over the opcodes as the standard library's `pickletools`
tells them: it builds dicts, lists and tuples, knows as data the few names by which NumPy pickles an array, and refuses
every other. Nothing is imported or called on a pickle's behalf. Long bytes stay in the file until an array is loaded,
so a pickle of gigabytes takes about a kilobyte of memory for each of its clips.
"""

import math
import pickletools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.intake import MAX_BYTES
from bpilib.files import MissingInputError

LEFT = 512  # bytes or characters from which a value is left in the file
GLOBALS = {  # as NumPy 1 calls them; NumPy 2 says numpy._core for numpy.core
    "numpy.core.multiarray _reconstruct": "array",
    "numpy.core.multiarray scalar": "scalar",
    "numpy.core.numeric _frombuffer": "buffer",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",  # protocols 0 to 2 have no bytes: they encode text,
    "__builtin__ bytes": "bytes",  # or call bytes() where there are none
}
VALUES = frozenset(
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)


class _File:
    """What pickletools reads from, with a limit to a single value."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self.tell, self.seek, self.close = self._file.tell, self._file.seek, self._file.close

    def read(self, size: int) -> bytes:
        if size > MAX_BYTES:
            raise ValueError(f"a value of {size} bytes, more than the {MAX_BYTES} that one may have")
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(MAX_BYTES)


@dataclass(frozen=True, slots=True)
class _Global:
    """A known global name, as data."""

    kind: str


@dataclass(frozen=True, slots=True)
class _Left:
    """Long bytes, or text that stands for bytes, at a place in the file."""

    file: _File
    position: int
    size: int

    def read(self) -> bytes:
        self.file.seek(self.position)
        _, value, _ = next(pickletools.genops(self.file))
        return _bytes(value)


@dataclass(slots=True)
class _DType:
    text: str
    order: str = "="

    def dtype(self, kinds: str) -> np.dtype:
        if not isinstance(self.text, str) or not re.fullmatch(rf"[{kinds}]\d{{1,4}}", self.text):
            raise ValueError("expected an array of plain numbers, got one of another data type (objects?)")
        return np.dtype(self.order + self.text)


@dataclass(slots=True, eq=False)
class PickledArray:
    """A NumPy array that lies in a pickle: `shape` and `dtype` are known, `load` reads it while the file is open."""

    dtype: np.dtype | None = None  # None: not filled yet
    stored: tuple[int, ...] = ()  # the shape before its axes are ordered
    axes: tuple[int, ...] = ()
    order: str = "C"
    data: object = b""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored[axis] for axis in self.axes)

    def fill(self, data: object, dtype: object, shape: object, order: object, axes: object = None) -> None:
        """Take what the pickle says of the array, if it is an array of plain numbers."""
        if not isinstance(dtype, _DType) or not isinstance(data, _Left | bytes | bytearray | str):
            raise ValueError("expected an array of plain numbers, got one of objects")
        axes = tuple(range(len(_check(shape, tuple)))) if axes is None else axes
        if not _whole(shape) or not _whole(axes) or sorted(axes) != list(range(len(shape))):
            raise ValueError("an array without a proper shape")
        self.dtype = dtype.dtype("fiub")
        size = data.size if isinstance(data, _Left) else len(data)
        if math.prod(shape) * self.dtype.itemsize != size:
            raise ValueError(f"an array {shape} {self.dtype} of {size} bytes")
        self.data, self.stored, self.axes = data, shape, axes
        self.order = "F" if order == "F" else "C"

    def load(self) -> np.ndarray:
        """The array, read-only."""
        if self.dtype is None:
            raise ValueError("an array without content")
        content = self.data.read() if isinstance(self.data, _Left) else _bytes(self.data)
        return np.frombuffer(content, self.dtype).reshape(self.stored, order=self.order).transpose(self.axes)


def _whole(numbers: object) -> bool:
    return isinstance(numbers, tuple) and len(numbers) <= 8 and all(type(n) is int and n >= 0 for n in numbers)


def _bytes(value: object) -> bytes:
    """Bytes as protocols 3 up have them; text of the same codes as Python 2 and protocols 0 to 2 have them."""
    if isinstance(value, str):
        return value.encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"expected bytes, got {type(value).__name__}")
    return bytes(value)


@contextmanager
def unpickled(path: str | Path, progress: bool = True) -> Iterator[object]:
    """Read a pickle of protocol 0 to 5; the file stays open within the `with`, for the arrays to be loaded.

    Args:
        path: the file.
        progress: show a bar of the bytes gone through.

    Yields:
        dict, list, tuple, str, bytes, int, float, bool, None, and `PickledArray` where an array is.

    Raises:
        MissingInputError: no such file.
        ValueError: a pickle of anything else (naming what it asks for; nothing of it was run), or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no file {path}: expected a pickle of annotations")
    file = _File(path)
    try:
        try:
            with tqdm(total=path.stat().st_size, unit="B", unit_scale=True, disable=not progress, desc="read") as bar:
                content = _run(file, bar)
        except ValueError as error:
            raise ValueError(f"{path} is not read as a pickle of plain containers and arrays: {error}") from error
        except (LookupError, TypeError, AttributeError, OverflowError, AssertionError) as error:
            raise ValueError(f"{path} is damaged or no pickle ({error!r:.200}): get it again") from error
        yield content
    finally:
        file.close()


def _run(file: _File, bar: tqdm) -> object:
    """Go through the opcodes; return what is on the stack at the end."""
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}
    push, pop = stack.append, stack.pop

    def since_mark() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    steps = {  # opcode → what it does with its argument
        "PROTO": lambda _: None,
        "FRAME": lambda _: None,
        "NONE": lambda _: push(None),
        "NEWTRUE": lambda _: push(True),
        "NEWFALSE": lambda _: push(False),
        "MARK": lambda _: marks.append(len(stack)),
        "PUT": lambda key: memo.update({key: stack[-1]}),
        "MEMOIZE": lambda _: memo.update({len(memo): stack[-1]}),
        "GET": lambda key: push(memo[key]),
        "EMPTY_TUPLE": lambda _: push(()),
        "TUPLE1": lambda _: push((pop(),)),
        "TUPLE2": lambda _: push((pop(-2), pop())),
        "TUPLE3": lambda _: push((pop(-3), pop(-2), pop())),
        "TUPLE": lambda _: push(tuple(since_mark())),
        "EMPTY_LIST": lambda _: push([]),
        "LIST": lambda _: push(since_mark()),
        "APPEND": lambda _: _extend([pop()], stack[-1]),
        "APPENDS": lambda _: _extend(since_mark(), stack[-1]),
        "EMPTY_DICT": lambda _: push({}),
        "DICT": lambda _: push(_update(since_mark(), {})),
        "SETITEM": lambda _: _update([pop(-2), pop()], stack[-1]),
        "SETITEMS": lambda _: _update(since_mark(), stack[-1]),
        "GLOBAL": lambda name: push(_known(name)),
        "STACK_GLOBAL": lambda _: push(_known(f"{_check(pop(-2), str)} {_check(pop(), str)}")),
        "REDUCE": lambda _: push(_called(pop(), pop())),
        "BUILD": lambda _: _build(pop(), stack[-1]),
    }
    for same, name in (("BINPUT", "PUT"), ("LONG_BINPUT", "PUT"), ("BINGET", "GET"), ("LONG_BINGET", "GET")):
        steps[same] = steps[name]
    for opcode, value, position in pickletools.genops(file):
        if opcode.name in VALUES:
            if isinstance(value, str | bytes | bytearray) and len(value) >= LEFT:
                value = _Left(file, position, len(value))
                bar.update(position - bar.n)
            push(value)
        elif opcode.name in steps:
            steps[opcode.name](value)
        elif opcode.name != "STOP":
            raise _refusal(f"opcode {opcode.name}")
    if len(stack) != 1 or marks:
        raise ValueError("a damaged pickle: more or less than one value at its end")
    return stack[0]


def _refusal(what: str) -> ValueError:
    return ValueError(
        f"the pickle asks for {what}, which is neither a plain container nor a NumPy array: refused, nothing of it was "
        f"run; save it again with dicts, lists, str, numbers and arrays alone"
    )


def _check(value: object, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a damaged pickle, or no plain data: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _extend(items: list, target: object) -> None:
    _check(target, list).extend(items)


def _update(items: list, target: object) -> dict:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int | float):  # of others, hashing alone can take for ever
            raise ValueError(f"a dict with keys of {type(key).__name__}: expected str or numbers")
        _check(target, dict)[key] = value
    return target


def _known(name: str) -> _Global:
    known = name.replace("numpy._core.", "numpy.core.", 1)
    if known not in GLOBALS:
        raise _refusal(f"{name.replace(' ', '.'):.100}")
    return _Global(GLOBALS[known])


def _called(arguments: object, function: object) -> object:
    """What a call of a known global stands for."""
    kind, count = _check(function, _Global).kind, len(_check(arguments, tuple))
    if kind == "array" and count and arguments[0] == _Global("ndarray"):
        return PickledArray()
    if kind == "buffer" and count in (4, 5):
        array = PickledArray()
        array.fill(*arguments)
        return array
    if kind == "bytes" and not count:
        return b""
    if kind == "dtype" and count:
        return _DType(arguments[0])
    if kind == "scalar" and count == 2:
        (value,) = np.frombuffer(_bytes(arguments[1]), _check(arguments[0], _DType).dtype("fiubU"))
        return value.item()
    if kind == "encode" and count and isinstance(arguments[0], str | _Left):
        return arguments[0] if isinstance(arguments[0], _Left) else _bytes(arguments[0])
    raise _refusal(f"a call of {kind} with {count} values")


def _build(state: object, target: object) -> None:
    """Give an array its content, a data type its byte order."""
    if isinstance(target, PickledArray) and len(_check(state, tuple)) == 5:
        _, shape, dtype, fortran, data = state
        target.fill(data, dtype, shape, "F" if fortran else "C")
    elif isinstance(target, _DType) and len(_check(state, tuple)) > 1 and state[1] in ("<", ">", "|", "="):
        target.order = state[1]
    else:
        raise _refusal("a state (BUILD)")
