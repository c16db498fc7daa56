"""The scanner of `.skeleton` text: every number as Python reads it, every malformed structure refused by its line."""

import random
import struct

import numpy as np
import pytest

from bpilib.data.ntu.parser import MARK, parse
from bpilib.data.ntu.raw_files import BadFileError

REST = " 277.9 163.3 1019 331.4 0 0 0 0 2"  # colour, depth, orientation, state: never read


def number(rng):
    """A word that float() takes, of any look."""
    kind = rng.randrange(10)
    digits = "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 7, 9, 15, 16, 17, 18, 19, 25, 40))))
    at = rng.randrange(len(digits) + 1)
    word = {
        0: digits,
        1: digits[:at] + "." + digits[at:],
        2: "0." + digits,
        3: repr(rng.uniform(-5, 5)),
        4: f"{rng.uniform(-5, 5):.7g}",
        5: f"{rng.uniform(-5, 5):.7E}",
        6: repr(struct.unpack("<f", struct.pack("<I", rng.randrange(0x7F000000)))[0]),  # any float32
        7: f"{rng.randrange(1, 10)}{rng.choice(('', '.', '.5', '.25'))}{rng.choice('eE')}{rng.randrange(-60, 30):+d}",
        8: f"{rng.randrange(10**7)}e{rng.randrange(-30, 25)}",
        9: "0." + "0" * rng.randrange(30) + digits,
    }[kind]
    word = "0.1" if word == "." else word
    word = rng.choice(("", "", "-", "+")) + word.lstrip("+-")
    return word if abs(float(word)) < 3e38 else "-0.0"


def file(words, frames=1, eol="\r\n", ids=("7205",)):
    """A file whose joints are the words in turn, in `frames` frames of the bodies `ids`."""
    words = iter(words)
    rows = [str(frames)]
    for _ in range(frames):
        rows.append(str(len(ids)))
        for body in ids:
            rows += [f"{body} 0 1 1 1 1 0 0.1 -0.2 2", "25"]
            rows += [" ".join(next(words) for _ in range(3)) + REST for _ in range(25)]
    return rows, eol.join(rows) + eol


def lines_of(frames=3, ids=("7205",)):
    rng = random.Random(3)
    return file([f"{rng.uniform(-2, 4):.7g}" for _ in range(75 * frames * len(ids))], frames, ids=ids)[0]


def text_of(rows):
    return ("\r\n".join(rows) + "\r\n").encode()


def plainly(content):
    """The published reader's way, plain and slow: {id: float32 (F * 25, 3)}, valid frames."""
    rows = content.decode().split("\n")
    at, valid, bodies = 1, 0, {}
    for _ in range(int(rows[0])):
        count = int(rows[at])
        at += 1
        valid += count > 0
        for _ in range(count):
            body = rows[at].split()[0]
            joints = int(rows[at + 1])
            at += 2
            for _ in range(joints):
                bodies.setdefault(body, []).append([float(word) for word in rows[at].split()[:3]])
                at += 1
    return {body: np.array(values, np.float32) for body, values in bodies.items()}, valid


@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_the_one_that_float_gives(seed):
    rng = random.Random(seed)
    frames = 30
    words = [number(rng) for _ in range(75 * frames)]
    found = parse(file(words, frames)[1].encode())
    expected = np.array([float(word) for word in words]).astype(np.float32)
    wrong = [w for w, a, b in zip(words, found.joints.ravel(), expected) if a.tobytes() != b.tobytes()]
    assert wrong == []


def test_ties_and_limits_of_rounding():
    words = [
        "9007199254740993", "9007199254740992", "90071992547409.93", "1e22", "1e23", "1e-22", "1e-23", "123456789e-30",
        "16777217", "16777219", "0.1000000014901161", "0.1000000089406967", "1.00000005960464477539", "-0", "-0.0e5",
        "1.17549435e-38", "1e-45", "7e-46", "7.1e-46", "3.4028235e38", "1e-400", "00000000000000000000001.5", "1e-0022",
        "4.9e-324", "0e99999", "5.", ".5", "+.5e+1", "1E5", "1e+5",
    ]  # fmt: skip
    words += ["0"] * (75 - len(words))
    found = parse(file(words)[1].encode()).joints.ravel()
    assert found.tobytes() == np.array([float(word) for word in words]).astype(np.float32).tobytes()


def test_bodies_and_frames_come_in_the_file_s_order():
    rows = lines_of(4, ids=("b", "a"))
    rows[1 + 55 : 1 + 2 * 55] = ["0"]  # the second frame has no body
    found = parse(text_of(rows))
    assert found.frames == 3 and found.at.tolist() == [0, 0, 1, 1, 2, 2] and found.ids.tolist() == [0, 1] * 3
    expected, valid = plainly(text_of(rows))
    assert valid == 3
    for number, body in enumerate("ba"):
        assert found.joints[found.ids == number].tobytes() == expected[body].tobytes()


def test_ids_are_told_apart_as_text():
    found = parse(text_of(lines_of(1, ids=("72", "720", "072", "7", "72.0", "1" * 300))))
    assert found.ids.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\r\n", b"\n"),
        lambda text: text.removesuffix(b"\r\n"),
        lambda text: text.removesuffix(b"\n"),
        lambda text: text + b"\r\n \t\r\n\n",
        lambda text: text.replace(b"\r\n", b" \t\r\n").replace(b"\n", b"\n  "),
        lambda text: MARK + text,
        lambda text: text.replace(b" ", b"\t  "),
        lambda text: text.replace(b" 163.3 ", b" abc "),
    ],
    ids=["LF", "no last line end", "half a line end", "blank lines after", "indented", "mark", "blanks", "colour"],
)
def test_what_is_harmless_is_read(change):
    expected = parse(text_of(lines_of(ids=("a", "b"))))
    found = parse(change(text_of(lines_of(ids=("a", "b")))))
    assert found.joints.tobytes() == expected.joints.tobytes() and found.ids.tolist() == expected.ids.tolist()


def edited(line, text):
    def change(rows):
        rows[line - 1] = text if isinstance(text, str) else text(rows[line - 1])
        return rows

    return change


JOINT = 4 + 28 + 6  # the sixth joint of the second frame


def field(number, word):
    return edited(JOINT, lambda row: " ".join([*row.split()[:number], word, *row.split()[number + 1 :]]))


@pytest.mark.parametrize(
    "change, line, what",
    [
        (lambda rows: [], 0, "empty file"),
        (lambda rows: ["", " ", ""], 0, "empty file"),
        (edited(1, "0"), 1, "frame count: expected a whole number of at least 1, got '0'"),
        (edited(1, "-3"), 1, "got '-3'"),
        (edited(1, "3.0"), 1, "got '3.0'"),
        (edited(1, ""), 1, "got ''"),
        (edited(1, "3 3"), 1, "got '3 3'"),
        (edited(1, "9" * 30), 1, "frame count"),
        (edited(1, "999999999"), 85, "truncated: it ends before all of its 999999999 frames"),
        (edited(1, "4"), 85, "truncated: it ends before all of its 4 frames are there"),
        (edited(1, "2"), 58, "content after the last of its 2 frames"),
        (lambda rows: ["3", "0", "0", "0"], 0, "no body in any of its 3 frames"),
        (lambda rows: rows[:-1], 84, "truncated"),
        (lambda rows: [*rows[:-1], rows[-1][:4]], 85, "expected a joint line of 12 fields, got 1"),
        (lambda rows: [*rows, "the end"], 86, "content after"),
        (edited(30, "2"), 58, "expected a body line of 10 fields, got 1: '1'"),
        (edited(30, "-1"), 30, "expected a body count, got '-1'"),
        (edited(30, ""), 30, "expected a body count, got ''"),
        (edited(30, "one"), 30, "expected a body count, got 'one'"),
        (edited(31, ""), 31, "expected a body line of 10 fields, got 0"),
        (edited(31, "7205"), 31, "expected a body line of 10 fields, got 1: '7205'"),
        (edited(32, "24"), 32, "expected the joint count 25, got '24'"),
        (edited(32, "26"), 32, "expected the joint count 25, got '26'"),
        (lambda rows: rows[:JOINT] + rows[JOINT + 1 :], 57, "expected a joint line of 12 fields, got 1: '1'"),
        (lambda rows: rows[:JOINT] + rows[JOINT - 1 :], 58, "expected a body count, got "),
        (edited(JOINT, "1 2 3"), JOINT, "expected a joint line of 12 fields, got 3"),
        (edited(JOINT, "1 2"), JOINT, "expected a joint line of 12 fields, got 2"),
        (edited(JOINT, ""), JOINT, "expected a joint line of 12 fields, got 0"),
        (edited(JOINT, lambda row: row + " 7"), JOINT, "expected a joint line of 12 fields, got 13"),
        (field(0, "0.12x4"), JOINT, "coordinate '0.12x4' is not a number"),
        (field(1, "0,21"), JOINT, "coordinate '0,21' is not a number"),
        (field(2, "1_0"), JOINT, "coordinate '1_0' is not a number"),
        (field(2, "-"), JOINT, "coordinate '-' is not a number"),
        (field(2, "."), JOINT, "coordinate '.' is not a number"),
        (field(2, "1e"), JOINT, "coordinate '1e' is not a number"),
        (field(2, "--1"), JOINT, "coordinate '--1' is not a number"),
        (field(2, "0x10"), JOINT, "coordinate '0x10' is not a number"),
        (field(0, "NaN"), JOINT, "coordinate x of joint 6 is not finite"),
        (field(1, "-inf"), JOINT, "coordinate y of joint 6 is not finite"),
        (field(2, "Infinity"), JOINT, "coordinate z of joint 6 is not finite"),
        (field(2, "1e39"), JOINT, "coordinate z of joint 6 is not finite"),
        (field(2, "1e999"), JOINT, "coordinate z of joint 6 is not finite"),
        (field(5, "\xff"), JOINT, "a byte that is no text"),
        (field(5, "\0"), JOINT, r"a byte that is no text (0x00)"),
        (field(5, "1\r2"), JOINT, r"a byte that is no text (0x0d)"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_its_line(change, line, what):
    with pytest.raises(BadFileError) as caught:
        parse(text_of(change(lines_of())) if change(lines_of()) else b"")
    assert what in str(caught.value) and caught.value.line == line


def test_an_id_twice_in_a_frame_is_refused():
    rows = lines_of(2, ids=("a", "b"))
    rows[1 + 55 + 1 + 27] = rows[1 + 55 + 1 + 27].replace("b", "a", 1)
    with pytest.raises(BadFileError, match="body id 'a' twice in a frame") as caught:
        parse(text_of(rows))
    assert caught.value.line == 1 + 55 + 1 + 27 + 1


def test_a_mass_of_ids_is_refused():
    with pytest.raises(BadFileError, match="more than 255 body ids"):
        parse(text_of(lines_of(1, ids=[str(n) for n in range(300)])))


def test_random_damage_is_refused_or_harmless():
    good = text_of(lines_of(2, ids=("a", "b")))
    rng = random.Random(11)
    taken = 0
    for _ in range(1500):
        content = bytearray(good)
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(content))
            kind = rng.randrange(4)
            if kind == 0:
                content[at] = rng.randrange(256)
            elif kind == 1:
                del content[at : at + rng.choice((1, 1, 2, 30, 300))]
            elif kind == 2:
                content[at:at] = rng.choice((b"\n", b" ", b"-", b".", b"e", b"7", b"\r\n", b"nan", b"\0"))
            else:
                del content[at:]
        try:
            found = parse(bytes(content))
        except BadFileError as error:
            assert str(error) and 0 <= error.line <= content.count(b"\n") + 1
            continue
        taken += 1
        expected, valid = plainly(bytes(content))
        assert found.frames == valid and len(expected) == found.ids.max() + 1
        for number, values in enumerate(expected.values()):
            assert found.joints[found.ids == number].tobytes() == values.tobytes()
    assert taken > 100  # digits and unused fields were hit, too
