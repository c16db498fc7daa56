"""Parses the text of an NTU RGB+D `.skeleton` file: a compiled scanner, exact to the bit, strict about the structure.

The format: a frame count; for each frame a body count; for each body a line of 10 fields that begins with the body's
id, the joint count 25, and 25 lines of 12 fields that begin with x y z in metres. Numbers go text → double → float32.
A line of the wrong kind or length, a missing or surplus line, an id twice in a frame or a coordinate that is not a
finite number makes a file bad; fields that are never used (colour, orientation, tracking state) may be any printable
word.
"""

import contextlib
import re
from dataclasses import dataclass

import numpy as np

from bpilib.data.ntu.raw_files import BadFileError
from bpilib.ops.jit import compile_numba

JOINTS = 25
MAX_IDS = 255  # in a file; the sensor sees 6 bodies at a time
NUMBER = re.compile(rb"(?i)[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)")
STRANGE = re.compile(rb"[^\t\n\r -~]|\r(?=[^\n])")
POWERS = np.array([float(f"1e{n}") for n in range(23)])  # exact in a double, as are whole numbers up to 2**53
EXACT = 1 << 53
MARK = b"\xef\xbb\xbf"  # the byte order mark some editors put first
_FRAMES, _BODIES, _BODY, _JOINT_COUNT, _JOINT, _END, _MORE, _TWICE, _IDS = range(1, 10)  # error codes of the scanner


@dataclass(frozen=True)
class Bodies:
    """The tracked bodies of a file, one row per body and frame, in the file's order.

    Attributes:
        frames: number of frames with a body; those without are dropped and not counted.
        at: (B,) int64, the frame of each row.
        ids: (B,) int64, the body of each row; bodies are numbered in the order they first appear.
        joints: (B, 25, 3) float32, metres.
    """

    frames: int
    at: np.ndarray
    ids: np.ndarray
    joints: np.ndarray


@compile_numba
def _count_words(text, i):
    """Count the words from i to the end of the line, and find that end; a word that has begun before i counts."""
    count = 1 if text[i] > 32 else 0
    while text[i] != 10:
        count += (text[i] <= 32) & (text[i + 1] > 32)
        i += 1
    return count, i


@compile_numba
def _read_number(text, i):
    """Read the number that follows i on the line: its double, where it ends, and whether it is exact.

    A whole number times or over a power of ten is one operation on exact doubles, hence correctly rounded.
    """
    while text[i] == 32 or text[i] == 9:
        i += 1
    negative = text[i] == 45
    i += negative
    mantissa, first = 0, i
    while 48 <= text[i] <= 57:
        mantissa = mantissa * 10 + (text[i] - 48)
        i += 1
    digits, shift = i - first, 0
    if text[i] == 46:
        i += 1
        first = i
        while 48 <= text[i] <= 57:
            mantissa = mantissa * 10 + (text[i] - 48)
            i += 1
        shift = first - i
        digits -= shift
    exact = 0 < digits <= 18  # more may have overflowed
    if text[i] == 69 or text[i] == 101:  # E, e
        i += 1
        sign = 1
        if text[i] == 45 or text[i] == 43:
            sign = 44 - text[i]
            i += 1
        exponent, first = 0, i
        while 48 <= text[i] <= 57 and i - first < 4:
            exponent = exponent * 10 + (text[i] - 48)
            i += 1
        exact = exact and i > first
        shift += sign * exponent
    if not exact or mantissa > EXACT or not -22 <= shift <= 22 or text[i] > 32:
        while text[i] > 32:
            i += 1
        return 0.0, i, False
    value = float(mantissa)
    value = value * POWERS[shift] if shift >= 0 else value / POWERS[-shift]
    return (-value if negative else value), i, True


@compile_numba
def _read_whole(text, start, end):
    """Read the only word of text[start:end] as a whole number; -1 if it is not one."""
    while start < end and text[start] <= 32:
        start += 1
    while start < end and text[end - 1] <= 32:
        end -= 1
    if not 0 < end - start <= 9:
        return -1
    value = 0
    for i in range(start, end):
        if not 48 <= text[i] <= 57:
            return -1
        value = value * 10 + (text[i] - 48)
    return value


@compile_numba
def _scan(text, size, at, ids, lines, joints, odd):
    """Scan text[:size] and fill the rows; text has one byte more, so that the last line has an end.

    Returns:
        Error code (0: none), its line (from 1), where that starts and ends, the frame count, the number of frames with
        a body, of rows, and of words left to Python, for which `odd` holds the coordinate's number, start and end.
    """
    known = np.empty((MAX_IDS, 3), np.int64)  # start and end of an id's first mention, its last frame
    bodies, rows, odds, valid, frame, frames = 0, 0, 0, 0, 0, 1
    todo, joint = 0, -1  # bodies to come in this frame; joint of the line to come, -1: joint count, -2: body
    start, line, wrong = 0, 0, 0
    while frame < frames or todo > 0:
        if start >= size:
            return _END, line, start, start, frames, valid, rows, odds
        line += 1
        if todo and joint >= 0:
            stop = start
            for axis in range(3):
                value, after, exact = _read_number(text, stop)
                joints[rows, joint, axis] = value
                if not exact:
                    odd[odds, 0] = (rows * JOINTS + joint) * 3 + axis
                    odd[odds, 1], odd[odds, 2] = stop, after
                    odds += 1
                stop = after
            fields, stop = _count_words(text, stop)
            if fields != 9:
                wrong = _JOINT
            joint += 1
            if joint == JOINTS:
                joint = -2
                todo -= 1
                rows += 1
                frame += todo == 0
        elif todo and joint == -2:
            fields, stop = _count_words(text, start)
            if fields != 10:
                wrong = _BODY
            first = start
            while first < stop and text[first] <= 32:
                first += 1
            last = first
            while text[last] > 32:
                last += 1
            body = 0
            while body < bodies:
                same = known[body, 1] - known[body, 0] == last - first
                if same:
                    for k in range(last - first):
                        if text[known[body, 0] + k] != text[first + k]:
                            same = False
                            break
                if same:
                    break
                body += 1
            if body == bodies:
                if bodies == MAX_IDS:
                    return _IDS, line, start, stop, frames, valid, rows, odds
                known[body] = first, last, -1
                bodies += 1
            if known[body, 2] == frame:
                wrong = _TWICE
            known[body, 2] = frame
            at[rows], ids[rows], lines[rows] = valid - 1, body, line + 2
            joint = -1
        else:
            _, stop = _count_words(text, start)
            count = _read_whole(text, start, stop)
            if todo:
                if count != JOINTS:
                    wrong = _JOINT_COUNT
                joint = 0
            elif line == 1:
                frames = count
                if count < 1:
                    wrong = _FRAMES
            elif count > 0:
                todo = count
                valid += 1
                joint = -2
            else:
                frame += 1
                if count < 0:
                    wrong = _BODIES
        if wrong:
            return wrong, line, start, stop, frames, valid, rows, odds
        start = stop + 1
    while start < size:  # blank lines may follow
        line += text[start] == 10
        if text[start] > 32:
            return _MORE, line + 1, start, start, frames, valid, rows, odds
        start += 1
    return 0, line, start, start, frames, valid, rows, odds


@compile_numba
def _is_text(text, size):
    """Whether text[:size] is printable ASCII, blanks and line ends (CR only before LF); text has one byte more."""
    strange = 0
    for i in range(size):
        c = text[i]
        strange += ((c < 32) & (c != 9) & (c != 10) & (c != 13)) | (c > 126) | ((c == 13) & (text[i + 1] != 10))
    return strange == 0


def compile_now() -> None:
    """Compile the scanner, or load it from its cache, in advance."""
    with contextlib.suppress(BadFileError):
        parse(b"1\n0\n")


def parse(content: bytes | memoryview) -> Bodies:
    """Read one file.

    Args:
        content: the bytes of a `.skeleton` file; CRLF or LF, the last line end may be missing.

    Raises:
        BadFileError: what is wrong with it, and on which line.
    """
    if content[:3] == MARK:
        content = content[3:]
    if cut := content[-1:] != b"\n":
        content = bytes(content) + b"\n"
    size = len(content) - 1  # the last line end is the byte more that the scanner wants
    text = np.frombuffer(content, np.uint8)
    if not _is_text(text, size):
        strange = STRANGE.search(content)
        assert strange is not None, "`_is_text` and STRANGE know the same bytes"
        place = strange.start()
        raise BadFileError(f"a byte that is no text ({content[place]:#04x})", 1 + bytes(content[:place]).count(b"\n"))
    capacity = size // (JOINTS * 24) + 1  # rows; a joint's 12 fields take at least 24 bytes
    at, ids, lines = np.empty((3, capacity), np.int64)
    joints = np.empty((capacity, JOINTS, 3), np.float32)
    odd = np.empty((joints.size, 3), np.int64)
    wrong, line, start, end, frames, valid, rows, odds = _scan(text, size, at, ids, lines, joints, odd)
    if wrong in (_FRAMES, _END) and bytes(content).isspace():
        raise BadFileError("empty file")
    if wrong:
        what = _explain(wrong, bytes(content[start:end]).strip(), frames)
        raise BadFileError(f"truncated: {what}" if wrong == _END or (cut and end == size) else what, line)
    for place, start, end in odd[:odds].tolist():
        word = bytes(content[start:end]).strip()
        row, joint = divmod(place // 3, JOINTS)
        if not NUMBER.fullmatch(word):
            raise BadFileError(f"coordinate {_show(word)} is not a number", int(lines[row]) + joint)
        with np.errstate(over="ignore"):
            joints.reshape(-1)[place] = np.float64(word)
    if not valid:
        raise BadFileError(f"no body in any of its {frames} frames")
    joints = joints[:rows]
    if not np.isfinite(joints).all():
        row, joint, axis = np.argwhere(~np.isfinite(joints))[0].tolist()
        what = f"coordinate {'xyz'[axis]} of joint {joint + 1} is not finite (NaN, infinite, or too large)"
        raise BadFileError(what, int(lines[row]) + joint)
    return Bodies(valid, at[:rows], ids[:rows], joints)


def _show(words: bytes) -> str:
    return repr(words[:40].decode() + "..." * (len(words) > 40))


def _explain(wrong: int, words: bytes, frames: int) -> str:
    """The error message for an error code of the scanner."""
    fields = len(words.split())
    return {
        _FRAMES: f"frame count: expected a whole number of at least 1, got {_show(words)}",
        _BODIES: f"expected a body count, got {_show(words)}",
        _BODY: f"expected a body line of 10 fields, got {fields}: {_show(words)}",
        _JOINT_COUNT: f"expected the joint count {JOINTS}, got {_show(words)}",
        _JOINT: f"expected a joint line of 12 fields, got {fields}: {_show(words)}",
        _END: f"it ends before all of its {frames} frames are there",
        _MORE: f"content after the last of its {frames} frames",
        _TWICE: f"body id {_show((words.split() or [b''])[0])} twice in a frame",
        _IDS: f"more than {MAX_IDS} body ids",
    }[wrong]
