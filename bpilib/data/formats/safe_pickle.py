"""Reads pickles of plain containers, numbers, text and NumPy arrays without running any code in them.

A pickle is a program. It is read by the standard library's unpickler with an allow list of opcodes and names: it builds
dicts, lists and tuples, and the few names by which NumPy pickles an array are replaced by functions of our own that
check their arguments. Every other name or opcode is refused. Long bytes stay in the file until an array is loaded, so a
pickle of gigabytes takes about a kilobyte of memory per clip.

The unpickler is the one written in Python: the one in C can't be prevented from allocating 64 GB for a memo index of
five bytes, nor from hashing nested tuples or colliding numbers as keys of a dict.
"""

import math
import pickle
import pickletools
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO, Literal, TypeGuard, TypeVar

import numpy as np
from tqdm.auto import tqdm

from bpilib.data.importer import MAX_CLIP_BYTES
from bpilib.errors import MissingInputError

DAMAGE = (LookupError, TypeError, AttributeError, OverflowError, EOFError, struct.error, pickle.PickleError)
LEFT = 512  # bytes or characters; a longer value is left in the file
MOST_NUMBERS = 256  # keys of a dict that are numbers: these can be chosen to collide, text can't
MOST_STEPS = 1 << 20  # opcodes, plus one for every 16 bytes: an array takes hundreds of bytes per opcode
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Left:
    """Long bytes, or text that stands for bytes, left in the file; `size` counts bytes or characters."""

    file: BinaryIO
    start: int
    stored: int
    size: int
    text: bool

    def read(self) -> bytes:
        self.file.seek(self.start)
        return _to_bytes(_decode(self.file.read(self.stored), self.text))


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
    """A NumPy array in a pickle: `shape` and `dtype` are known, and `load` reads it while the file is open."""

    dtype: np.dtype | None = None  # None: not filled yet
    stored: tuple[int, ...] = ()  # the shape before the axes are permuted
    axes: tuple[int, ...] = ()
    order: Literal["C", "F"] = "C"
    data: object = b""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored[axis] for axis in self.axes)

    def fill(self, data: object, dtype: object, shape: object, order: object, axes: object = None) -> "PickledArray":
        """Set content, data type and shape; ValueError unless it is an array of plain numbers."""
        if not isinstance(dtype, _DType) or not isinstance(data, _Left | bytes | str):
            raise ValueError("expected an array of plain numbers, got one of objects")
        axes = tuple(range(len(_check(shape, tuple)))) if axes is None else axes
        if not _is_shape(shape) or not _is_shape(axes) or sorted(axes) != list(range(len(shape))):
            raise ValueError("an array without a proper shape")
        self.dtype = dtype.dtype("fiub")
        size = data.size if isinstance(data, _Left) else len(data)
        if math.prod(shape) * self.dtype.itemsize != size:
            raise ValueError(f"an array {shape} {self.dtype} of {size} bytes")
        self.data, self.stored, self.axes = data, shape, axes
        self.order = "F" if order == "F" else "C"
        return self

    def load(self) -> np.ndarray:
        """Read the array, read-only."""
        if self.dtype is None:
            raise ValueError("an array without content")
        content = self.data.read() if isinstance(self.data, _Left) else _to_bytes(self.data)
        return np.frombuffer(content, self.dtype).reshape(self.stored, order=self.order).transpose(self.axes)


def _is_shape(numbers: object) -> TypeGuard[tuple[int, ...]]:
    """Whether it is a tuple of up to 8 whole numbers, as a shape is."""
    if not isinstance(numbers, tuple) or len(numbers) > 8:
        return False
    return all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


def _to_bytes(value: object) -> bytes:
    """Convert to bytes: protocols 3 and later have bytes, Python 2 and protocols 0 to 2 have text of the same codes."""
    return value.encode("latin1") if isinstance(value, str) else _check(value, bytes)


def _decode(content: bytes, text: bool) -> bytes | str:
    return content.decode("utf-8", "surrogatepass") if text else content


@contextmanager
def open_pickle(path: str | Path, progress: bool = True) -> Iterator[object]:
    """Read a pickle of protocol 0 to 5; the file stays open within the `with`, so that arrays can be loaded.

    Args:
        path: the file.
        progress: show a bar of the bytes read.

    Yields:
        dict, list, tuple, str, bytes, int, float, bool, None, and a `PickledArray` for each array.

    Raises:
        MissingInputError: no such file.
        ValueError: a pickle of anything else (the message names what it refers to; none of it was run), or a damaged
            one.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no file {path}: expected a pickle of annotations")
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            with tqdm(total=size, unit="B", unit_scale=True, disable=not progress, desc="read") as bar:
                content = _Reader(file, size, bar).load()
        except ValueError as error:
            raise ValueError(f"{path} is not read as a pickle of plain containers and arrays: {error}") from error
        except DAMAGE as error:
            raise ValueError(f"{path} is damaged or not a pickle ({error!r:.200}): get it again") from error
        yield content


def _refusal(what: str) -> ValueError:
    return ValueError(
        f"the pickle asks for {what}, which is neither a plain container nor a NumPy array: refused, none of it was "
        f"run; save it again with dicts, lists, str, numbers and arrays only"
    )


def _check(value: object, kind: type[T]) -> T:
    """The value; ValueError unless it is of the kind."""
    if not isinstance(value, kind):
        raise ValueError(f"a damaged pickle, or no plain data: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _reconstruct(kind: object, *_: object) -> PickledArray:
    if kind is not np.ndarray:
        raise _refusal("an array of another class")
    return PickledArray()


def _scalar(dtype: object, content: object) -> object:
    return np.frombuffer(_to_bytes(content), _check(dtype, _DType).dtype("fiubU")).item()


def _encode(text: object, encoding: object = "latin1") -> object:
    if encoding != "latin1":
        raise _refusal("text in an encoding other than latin1")
    return text if isinstance(text, _Left) else _to_bytes(text)


NAMES = {  # as in NumPy 1; NumPy 2 has numpy._core for numpy.core
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": lambda *arguments: PickledArray().fill(*arguments),
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": lambda text, *_: _DType(text),
    "_codecs.encode": _encode,  # protocols 0 to 2 have no bytes: they encode text
    "__builtin__.bytes": lambda: b"",  # or, for empty bytes, call bytes()
}
OPCODES = (  # handled by the standard library's unpickler
    "PROTO NONE NEWTRUE NEWFALSE MARK INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE SHORT_BINBYTES GET BINGET LONG_BINGET MEMOIZE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE "
    "EMPTY_LIST LIST EMPTY_DICT GLOBAL STACK_GLOBAL"
).split()


class _Reader(pickle._Unpickler):
    """The standard library's unpickler, restricted to the opcodes in `STEPS` and the names in `NAMES`."""

    stack: list[Any]  # these four are the standard library's, and missing in its stubs
    metastack: list[list[Any]]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO, size: int, bar: tqdm):
        super().__init__(file, encoding="latin1")
        self.file, self.size, self.bar = file, size, bar
        self.read, self.readline = file.read, partial(file.readline, MAX_CLIP_BYTES)
        self.stack, self.metastack = [], []
        self.append = self.stack.append
        self.numbers: Counter[int] = Counter()  # id of a dict → its keys that are numbers

    def load(self) -> object:
        """Execute the opcodes; return the value on the stack at the end."""
        for _ in range(MOST_STEPS + self.size // 16):
            code = self.read(1)
            if code == pickle.STOP:
                break
            if code not in STEPS:
                names = {op.code: op.name for op in pickletools.opcodes}
                name = names.get(code.decode("latin1"), repr(code))
                raise _refusal(f"opcode {name}") if code else EOFError("it ends too early")
            STEPS[code](self)
        else:
            raise ValueError(f"more opcodes than a pickle of {self.size} bytes of arrays has")
        if len(self.stack) != 1 or self.metastack:
            raise ValueError("a damaged pickle: more or less than one value at its end")
        return self.stack[0]

    def find_class(self, module: str, name: str) -> object:
        asked = f"{module}.{name}"
        known = asked.replace("numpy._core.", "numpy.core.", 1)
        if known not in NAMES or "." in name:
            raise _refusal(f"{asked:.100}")
        return NAMES[known]

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, FunctionType):  # only `NAMES` puts functions on the stack
            raise _refusal(f"a call of {'ndarray' if function is np.ndarray else type(function).__name__}")
        self.append(function(*_check(arguments, tuple)))

    def load_build(self) -> None:
        """Give an array its content, a data type its byte order."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickledArray) and len(_check(state, tuple)) == 5:
            _, shape, dtype, fortran, data = state
            target.fill(data, dtype, shape, "F" if fortran else "C")
        elif isinstance(target, _DType) and len(_check(state, tuple)) > 1 and state[1] in ("<", ">", "|", "="):
            target.order = state[1]
        else:
            raise _refusal("a state (BUILD)")

    def keep(self, index: int) -> None:
        if not 0 <= index <= self.file.tell():  # memo indices count up, and each entry takes at least a byte
            raise ValueError(f"a damaged pickle: number {index:.6g} of those kept, at byte {self.file.tell()}")
        self.memo[index] = self.stack[-1]

    def extend(self, values: list) -> None:
        _check(self.stack[-1], list).extend(values)

    def set(self, items: list, target: object) -> None:
        """Put keys and values into a dict, and it on the stack."""
        target = _check(target, dict)
        numbers = [key for key in items[::2] if type(key) is not str]
        for key in numbers:  # hashing any other type can take arbitrarily long
            if not isinstance(key, float) and not (isinstance(key, int) and key.bit_length() <= 64):
                raise ValueError(f"a dict with keys of {type(key).__name__}: expected str or numbers of up to 64 bits")
        if numbers:
            self.numbers[id(target)] += len(numbers)
            if self.numbers[id(target)] > MOST_NUMBERS:
                raise ValueError(f"a dict with more than {MOST_NUMBERS} keys that are numbers: expected str")
        target.update(zip(items[::2], items[1::2], strict=True))
        self.append(target)

    def value(self, width: int, text: bool) -> None:
        """Read bytes or text that follow their length, a number of `width` bytes."""
        count = int.from_bytes(self.exactly(width), "little")
        start = self.file.tell()
        if count > min(MAX_CLIP_BYTES, self.size - start):
            most = f"the {MAX_CLIP_BYTES} that one may have or the file holds"
            raise ValueError(f"a value of {count} bytes, more than {most}")
        if count < LEFT:
            self.append(_decode(self.read(count), text))
        else:
            size = len(_decode(self.read(count), text)) if text else count
            self.file.seek(start + count)
            self.bar.update(start + count - self.bar.n)
            self.append(_Left(self.file, start, count, size, text))

    def exactly(self, count: int) -> bytes:
        if len(content := self.read(count)) < count:
            raise EOFError("it ends within a value")
        return content


BYTES4, TEXT4, BYTES8, TEXT8 = (partial(_Reader.value, width=w, text=t) for w in (4, 8) for t in (False, True))
LIBRARY = {getattr(pickle, name): pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in OPCODES}
STEPS: dict[bytes, Callable[[_Reader], object]] = {
    **LIBRARY,  # type: ignore[dict-item]  # the stubs have these of the unpickler in C
    pickle.FRAME: lambda reader: reader.exactly(8),  # the size of a frame, needed only for reading ahead
    pickle.PUT: lambda reader: reader.keep(int(reader.readline()[:-1])),
    pickle.BINPUT: lambda reader: reader.keep(reader.exactly(1)[0]),
    pickle.LONG_BINPUT: lambda reader: reader.keep(int.from_bytes(reader.exactly(4), "little")),
    **{pickle.BINSTRING: BYTES4, pickle.BINBYTES: BYTES4, pickle.BINBYTES8: BYTES8, pickle.BYTEARRAY8: BYTES8},
    **{pickle.BINUNICODE: TEXT4, pickle.BINUNICODE8: TEXT8},
    pickle.APPEND: lambda reader: reader.extend([reader.stack.pop()]),
    pickle.APPENDS: lambda reader: reader.extend(reader.pop_mark()),
    pickle.DICT: lambda reader: reader.set(reader.pop_mark(), {}),
    pickle.SETITEM: lambda reader: reader.set([reader.stack.pop(-2), reader.stack.pop()], reader.stack.pop()),
    pickle.SETITEMS: lambda reader: reader.set(reader.pop_mark(), reader.stack.pop()),
    pickle.REDUCE: _Reader.load_reduce,
    pickle.BUILD: _Reader.load_build,
}
