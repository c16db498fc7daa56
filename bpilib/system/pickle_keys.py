"""Whether a pickle asks for dicts or sets with keys that could be chosen to collide, told without making any of them.

60,000 whole numbers of one hash value take half a minute to be put into a dict, and ten times as many an hour. Texts
can't be chosen so, since Python salts their hash; whole numbers below 2**61 - 1 are their own hash.
"""

import pickle
import pickletools
from collections.abc import Iterator
from typing import IO

MOST_KEYS = 256  # of a file, that are neither text nor such numbers
# Names that make a dict or set of what they are called with, and opcodes that name or call in ways PyTorch has not.
HASHING = ("collections ", "__torch__", "builtins set", "builtins frozenset", "builtins dict", "__builtin__ ")
FOREIGN = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
TEXT, NUMBER, EMPTY, OTHER, MARK = "text", "number", "empty tuple", "other", "mark"


def check_keys(content: bytes | IO[bytes]) -> None:
    """Go through the opcodes of one of PyTorch's pickles as an unpickler does, but with kinds of values on the stack.

    Raises:
        ValueError: more than `MOST_KEYS` keys that could collide, or calls in which they could hide.
        pickle.UnpicklingError: damaged, or no pickle.
    """
    stack: list[str] = []
    memo: dict[int, str] = {}
    left = MOST_KEYS
    for code, argument in _opcodes(content):
        if code.name in FOREIGN:
            raise ValueError(f"the opcode {code.name}, which PyTorch does not write")
        try:
            left -= _step(code, argument, stack, memo)
        except LookupError as error:
            raise pickle.UnpicklingError(f"a damaged pickle ({error!r:.80})") from error
        if left < 0:
            raise ValueError(f"more than {MOST_KEYS} keys that are neither text nor numbers below 2**61 - 1")


def _opcodes(content: bytes | IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    try:
        for code, argument, _ in pickletools.genops(content):
            yield code, argument
    except ValueError as error:
        raise pickle.UnpicklingError(f"no pickle, or a damaged one ({error!r:.80})") from error


def _step(code: pickletools.OpcodeInfo, argument: object, stack: list[str], memo: dict[int, str]) -> int:
    """Change the stack as an opcode does; the number of keys it uses that could collide."""
    if code.name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
        return 0
    if isinstance(argument, int) and code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
        return 0
    if code.name == "REDUCE" and stack[-2].startswith(HASHING) and stack[-1] != EMPTY:
        raise ValueError(f"a call of {stack[-2]} with what it is to hold")
    taken: list[str] = []
    pops = len(code.stack_before)
    marked = pickletools.markobject in code.stack_before
    if marked or (code.name == "POP" and stack[-1] == MARK):
        if MARK not in stack:
            raise LookupError("no mark")
        start = max(at for at, kind in enumerate(stack) if kind == MARK)
        taken = stack[start + 1 :]
        del stack[start:]
        pops = code.stack_before.index(pickletools.markobject) if marked else 0
    elif code.name == "SETITEM":
        taken = stack[-2:]
    if pops > len(stack):
        raise LookupError("an empty stack")
    del stack[len(stack) - pops :]
    stack += [_kind(code, argument, memo) for _ in code.stack_after]
    if code.name in ("SETITEM", "SETITEMS", "DICT"):
        taken = taken[::2]
    elif code.name not in ("ADDITEMS", "FROZENSET"):
        return 0
    return sum(kind not in (TEXT, NUMBER) for kind in taken)


def _kind(code: pickletools.OpcodeInfo, argument: object, memo: dict[int, str]) -> str:
    """Of the value that an opcode puts on the stack."""
    if isinstance(argument, int) and code.name in ("GET", "BINGET", "LONG_BINGET"):
        return memo[argument]
    if code.name == "GLOBAL":
        return str(argument)
    if code.name in ("MARK", "EMPTY_TUPLE"):
        return MARK if code.name == "MARK" else EMPTY
    if isinstance(argument, int):
        return NUMBER if abs(argument) < (1 << 61) - 1 else OTHER
    return TEXT if isinstance(argument, str | bytes) else OTHER
