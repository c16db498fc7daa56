"""The reader of pickles: all that PYSKL's hold, of every protocol; nothing else, and never anything run."""

import collections
import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from bpilib.data.formats import safe_pickle
from bpilib.data.formats.safe_pickle import PickledArray, open_pickle
from bpilib.errors import MissingInputError

POSES = np.random.default_rng(0).standard_normal((2, 30, 25, 3)).astype(np.float32)


def read(path, content: bytes):
    """A pickle's content, with its arrays loaded."""
    path.write_bytes(content)
    with open_pickle(path, progress=False) as found:
        return loaded(found)


def loaded(value):
    if isinstance(value, PickledArray):
        array = value.load()
        assert array.shape == value.shape and array.dtype == value.dtype
        return array
    if isinstance(value, dict):
        return {key: loaded(item) for key, item in value.items()}
    return type(value)(map(loaded, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol(tmp_path, protocol):
    name = "a name"
    value = {
        "split": {"xsub_train": [name, name], "empty": []},
        "numbers": [0, -1, 255, 256, 70000, -(2**31), 2**70, 1.5, float("inf"), True, False, None],
        "text": ["", "two\nlines \\ 'quoted'", "ü€𝄞", b"bytes", b""],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, []),
        3: 2.5,
    }
    assert read(tmp_path / "p", pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        POSES,
        POSES.astype(np.float16),
        POSES.astype(">f8"),
        np.asfortranarray(POSES),
        POSES.transpose(2, 0, 3, 1),
        POSES[:, ::-2],
        np.arange(6).reshape(2, 3),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.array(2.5),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_of_every_protocol(tmp_path, array, protocol):
    found = read(tmp_path / "p", pickle.dumps([array, array], protocol))
    for copy in found:
        np.testing.assert_array_equal(copy, array)
        assert copy.dtype == array.dtype and not copy.flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_scalars_become_plain(tmp_path, protocol):
    values = [np.int64(-7), np.float32(1.5), np.bool_(True), np.str_("name"), np.uint8(200)]
    found = read(tmp_path / "p", pickle.dumps(values, protocol))
    assert found == [-7, 1.5, True, "name", 200] and [type(v) for v in found] == [int, float, bool, str, int]


def test_old_names_and_old_text_are_read(tmp_path):
    content = pickle.dumps(POSES, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core" in content
    np.testing.assert_array_equal(read(tmp_path / "p", content), POSES)
    python2 = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87R(K\x01"
    python2 += b"K\x02\x85cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    python2 += b"\x89U\x04\x01\x00\xff\xfftb."
    assert read(tmp_path / "p", python2).tolist() == [1, -1]


def test_arrays_lie_in_the_file_until_loaded(tmp_path):
    path = tmp_path / "p"
    clips = [{"frame_dir": f"clip{i}", "keypoint": np.full((2, 300, 25, 3), i, np.float32)} for i in range(100)]
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(clips, protocol))
        assert path.stat().st_size > 18e6
        tracemalloc.start()
        with open_pickle(path, progress=False) as found:
            for i, clip in enumerate(found):
                assert clip["keypoint"].load().max() == i
        assert tracemalloc.get_traced_memory()[1] < 2e6
        tracemalloc.stop()


class Hostile:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, extra=()):
        self.call = (function, arguments, *extra)

    def __reduce__(self):
        return self.call


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    for hostile in (
        Hostile(os.system, f"touch {mark}"),
        Hostile(eval, f"open({str(mark)!r}, 'w')"),
        Hostile(getattr, "", "join"),
        Hostile(np.load, str(mark)),
        Hostile(np.fromfile, str(mark)),
        Hostile(np.ndarray, (10**12,)),
        Hostile(open, str(mark), "w"),
        Hostile(list, ()),
        Plain(),
        collections.OrderedDict(a=1),
        {1, 2},
        frozenset((1, 2)),
        1j,
        slice(1),
        os.system,
        np.load,
    ):
        for content in (hostile, [{"keypoint": hostile}], {"split": {"xsub_train": [hostile]}}):
            with pytest.raises(ValueError, match=r"the pickle asks for .* refused, none of it was run"):
                read(tmp_path / "p", pickle.dumps(content, protocol))
    assert not mark.exists()


def test_the_refusal_names_what_was_asked_for(tmp_path):
    with pytest.raises(
        ValueError, match=r"p is not read .*: the pickle asks for builtins\.getattr, .*save it again with dicts, lists"
    ):
        read(tmp_path / "p", pickle.dumps(getattr, 4))
    with pytest.raises(ValueError, match=r"posix\.system|nt\.system"):
        read(tmp_path / "p", pickle.dumps(os.system, 2))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, None], object),
        np.zeros(3, "f4,i4"),
        np.array(["a", "b"]),
        np.array(["2020"], "M8[Y]"),
        np.zeros(2, complex),
        np.ma.masked_array([1, 2], [0, 1]),
        np.zeros(4).view(np.recarray),
    ],
    ids=["objects", "records", "text", "times", "complex", "masked", "recarray"],
)
def test_arrays_of_something_else_are_refused(tmp_path, array, protocol):
    with pytest.raises(ValueError, match=r"plain numbers|asks for|damaged pickle"):
        read(tmp_path / "p", pickle.dumps({"keypoint": array}, protocol))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x80\x02]r\xff\xff\xff\xff.", "of those kept"),  # a memo of four billion entries
        (b"]p1073741824\n.", "of those kept"),
        (b"]p-1\n.", "of those kept"),
        (b"\x80\x04(" + b"]\x94" * 50_000 + b"t.", None),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "more than the"),  # bytes without end
        (b"\x80\x03B\xff\xff\xff\x7f.", "more than the"),
        (b"\x80\x03B\xff\xff\xff\x00.", "a value of 16777215 bytes, more than"),
        (b"\x80\x02" + b"K\x00" + b"\x86" * 3 + b".", "damaged"),
        (b"\x80\x02}(K\x00K\x00\x86K\x01u.", "keys of tuple"),
        (b"\x80\x02" + b"(K\x00" + b"2\x86" * 60 + b"t.", "DUP"),
        (b"(dp0\n(lp1\nS'a'\ns.", "keys of list|expected dict|damaged"),
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for os\.system"),
        (b"(S'true'\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'true'\no.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"asks for os\.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0ecore.os.system\x93.", r"asks for numpy\.core\.os\.system"),
        (b"\x80\x04\x8c\x11numpy dtype.__new\x8c\x01a\x93.", "asks for"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02P1\n.", "PERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02cnumpy\ndtype\n}R.", "expected tuple"),
        (b"\x80\x02cnumpy\ndtype\n]}\x86R.", None),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "a call of ndarray"),
        (b"\x80\x02]}b.", "BUILD"),
        (b"\x80\x02])b.", "BUILD"),
        (b"a.", "damaged"),
        (b"e.", "damaged"),
        (b"h\x07.", "damaged"),
        (b".", "than one value"),
        (b"K\x01K\x02.", "than one value"),
        (b"(K\x01.", "than one value"),
        (b"\x80\x02]K\x01", "p"),
        (b"\x80\x02X\xff\x00\x00\x00abc", "p"),
        (b"", "p"),
        (b"PK\x03\x04 no pickle", "p"),
        (b"\x93NUMPY\x01\x00", "p"),
        (b"I" + b"9" * 5000 + b"\n.", "p"),
    ],
)
def test_pickles_made_by_hand(tmp_path, content, message):
    path = tmp_path / "p"
    path.write_bytes(content)
    tracemalloc.start()
    if message is None:
        with open_pickle(path, progress=False):
            pass
    else:
        with pytest.raises(ValueError, match=message), open_pickle(path, progress=False):
            pass
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


P = (1 << 61) - 1  # whole numbers that leave the same remainder here have the same hash
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
NUMBERS = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR"


NESTED = b"q\x01h\x01\x86" * 60  # what is on the stack, twice in a tuple, that twice in a tuple, ...: 2^60 values


def array(shape: bytes, dtype: bytes = NUMBERS, data: bytes = b"C\x04\x00\x00\x00\x00") -> bytes:
    """An array of protocol 3 with these opcodes for its shape, data type and bytes."""
    return (
        b"\x80\x03" + ARRAY + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01" + shape + dtype + b"\x89" + data + b"tb."
    )


HOSTILE = {
    # opcodes that look up, call or make objects
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX"),
    "OBJ": (b"\x80\x02(cnumpy\nndarray\nK\x01o.", "OBJ"),
    "INST": (b"(K\x01inumpy\nndarray\n.", "INST"),
    "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
    "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
    "BINPERSID": (b"\x80\x02K\x01Q.", "BINPERSID"),
    "READONLY_BUFFER": (b"\x80\x05\x98.", "READONLY_BUFFER"),
    "EMPTY_SET": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "FROZENSET": (b"\x80\x04(K\x01\x91.", "FROZENSET"),
    "POP": (b"\x80\x02K\x01K\x020.", "POP"),
    "POP_MARK": (b"\x80\x02K\x01(K\x021.", "POP_MARK"),
    "LONG4": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "LONG4"),
    # names beside those allowed, and ways through them
    "dots": (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", r"asks for numpy\.core\.multiarray\._recon"),
    "dots of protocol 4": (
        b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x1b_reconstruct.__globals__.os\x93.",
        r"asks for numpy\.core\.multiarray\._reconstruct\.__globals__\.os",
    ),
    "module": (b"cnumpy.core\nmultiarray.scalar\n.", r"asks for numpy\.core\.multiarray\.scalar"),
    "numpy.load": (b"cnumpy\nload\n.", r"asks for numpy\.load"),
    "loads": (b"c_pickle\nloads\n(C\x01.tR.", r"asks for _pickle\.loads"),
    "ordered": (b"ccollections\nOrderedDict\n)R.", "asks for collections"),
    "defaultdict": (b"ccollections\ndefaultdict\n)R.", "asks for collections"),
    "bytearray": (b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "asks for __builtin__"),
    "bytes of a length": (b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "damaged"),
    "encoding": (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.", "other than latin1"),
    "encoding nested": (b"c_codecs\nencode\n(NX\x01\x00\x00\x00a)" + NESTED + b"tR.", "damaged"),
    "encoding of tuples": (b"c_codecs\nencode\n(X\x01\x00\x00\x00a)" + NESTED + b"tR.", "other than latin1"),
    "a call of a value": (b"\x80\x02X\x01\x00\x00\x00a)R.", "a call of str"),
    "a call of nested tuples": (b"\x80\x02)" + NESTED + b")R.", "a call of tuple"),
    "a call of an array": (array(b"K\x01\x85")[:-1] + b")R.", "a call of PickledArray"),
    # states of functions, lists and arrays
    "defaults": (b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.", "BUILD"),
    "code": (b"\x80\x02" + ARRAY + b"}X\x08\x00\x00\x00__code__Nsb.", "BUILD"),
    "class": (b"\x80\x02]}X\x09\x00\x00\x00__class__K\x01sb.", "BUILD"),
    "state of a dtype": (b"\x80\x03" + NUMBERS + b"(K\x03X\x01\x00\x00\x00OtbK\x01.", "BUILD"),
    "append to an array": (array(b"K\x01\x85")[:-1] + b"K\x01a.", "expected list"),
    "append to bytes": (b"\x80\x05\x96\x01" + bytes(7) + b"aK\x01a.", "expected list"),
    "set in a list": (b"\x80\x02]K\x01K\x01s.", "expected dict"),
    # arrays that are not what they say
    "huge": (array(b"J\xff\xff\xff\x7f\x85"), "an array .2147483647,. float32 of 4 bytes"),
    "wrapped": (array(b"\x8a\x09" + (1 << 64).to_bytes(9, "little") + b"K\x01\x86"), "proper shape"),
    "product": (array(2 * (b"\x8a\x05" + (1 << 32).to_bytes(5, "little")) + b"\x86"), "an array .4294967296, 42"),
    "negative": (array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"), "proper shape"),
    "many axes": (array(b"(" + b"K\x01" * 9 + b"t"), "proper shape"),
    "objects": (array(b"K\x01\x85", NUMBERS.replace(b"f4", b"O8")), "plain numbers"),
    "list for bytes": (array(b"K\x01\x85", data=b"]"), "one of objects"),
    "width": (array(b"K\x01\x85", NUMBERS.replace(b"f4", b"f3")), "damaged"),
    "strides": (array(b"K\x01\x85", b"cnumpy\ndtype\n(X\x08\x00\x00\x00(1000)f4K\x00K\x01tR"), "plain numbers"),
    "another class": (b"\x80\x02" + ARRAY + b"cnumpy\ndtype\nK\x00\x85X\x01\x00\x00\x00b\x87R.", "another class"),
    "axes": (b"\x80\x05cnumpy.core.numeric\n_frombuffer\n(C\x04abcd" + NUMBERS + b"K\x01\x85CXX", "damaged|function"),
    # lengths over the file
    "BINUNICODE8": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "more than the"),
    "BYTEARRAY8": (b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.", "more than the"),
    "BINUNICODE": (b"\x80\x02X\xff\xff\xff\x02.", "more than the"),
    "BINSTRING": (b"\x80\x02T\xff\xff\xff\xff.", "more than the"),
    "short text": (b"\x80\x04\x8c\xffabc", "damaged"),
    # what takes time or memory where it stands in few bytes
    "whole numbers that collide": (
        b"\x80\x04}(" + b"".join(b"\x8a\x0c" + (i * P).to_bytes(12, "little") + b"N" for i in range(1, 3001)) + b"u.",
        "64 bits",
    ),
    "short numbers": (b"\x80\x04}(" + b"".join(b"M%c%cN" % divmod(i, 256) for i in range(3000)) + b"u.", "256 keys"),
    "numbers one by one": (b"\x80\x04}" + b"".join(b"M%c%cNs" % divmod(i, 256) for i in range(999)) + b".", "256 keys"),
    "floats": (b"\x80\x04}(" + b"".join(b"G" + struct.pack(">d", i) + b"N" for i in range(300)) + b"u.", "256 keys"),
    "dict of protocol 0": (b"(" + b"".join(b"I%d\nN" % i for i in range(300)) + b"d.", "256 keys"),
    "nested tuples as a key": (b"\x80\x02})" + NESTED + b"K\x00s.", "keys of tuple"),
    "a long number as a key": (b"\x80\x02}\x8a\xff" + b"\x01" * 255 + b"K\x00s.", "up to 64 bits"),
    "an array as a key": (b"\x80\x03}" + array(b"K\x01\x85")[2:-1] + b"K\x00s.", "keys of PickledArray"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused_in_little_memory(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "p"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message), open_pickle(path, progress=False):
        pass
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("values", [b"}", b"]", b"(", b"(l", b"\x8c\x02aa", b")\x85"])
def test_values_are_bounded_by_the_file_s_size(tmp_path, monkeypatch, values):
    """An empty dict is one byte in the file and 64 in memory: a file of nothing else is refused."""
    monkeypatch.setattr(safe_pickle, "MOST_STEPS", 1000)
    (tmp_path / "p").write_bytes(b"\x80\x04(" + values * 100_000 + b"t.")
    tracemalloc.start()
    with pytest.raises(ValueError, match="more opcodes than"), open_pickle(tmp_path / "p", progress=False):
        pass
    assert tracemalloc.get_traced_memory()[1] < 40 * len(values) * 100_000
    tracemalloc.stop()


def test_values_that_share_are_built_once(tmp_path):
    """What would be 10^30 values, if anybody followed it, is 300 lists; one that holds itself is one."""
    path = tmp_path / "p"
    path.write_bytes(b"\x80\x02(]" + b"".join(b"q%c](" % i + b"h%c" % i * 10 + b"e" for i in range(1, 31)) + b"t.")
    with open_pickle(path, progress=False) as found:
        assert len(found[-1]) == 10 and found[-1][0] is found[-1][9] is found[-2]
    path.write_bytes(b"\x80\x02]q\x00h\x00a.")
    with open_pickle(path, progress=False) as found:
        assert found[0] is found


def test_some_keys_may_be_numbers(tmp_path):
    value = {**dict.fromkeys(range(200)), **{f"{i}": i for i in range(5000)}, 1 << 63: 0, -0.5: 1}
    for protocol in range(6):
        assert read(tmp_path / "p", pickle.dumps([value, dict(value)], protocol)) == [value, value]


def test_memos_that_begin_anew_or_leave_gaps_are_read(tmp_path):
    text = b"X\x08\x00\x00\x00somewhat"
    assert read(tmp_path / "p", b"\x80\x02](" + text + b"q\x00h\x00" + text + b"q\x00h\x00" + b"e.") == ["somewhat"] * 4
    assert read(tmp_path / "p", b"\x80\x02](" + text + b"q\x08h\x08e.") == ["somewhat"] * 2


def test_every_truncated_or_altered_pickle_is_told_or_read(tmp_path):
    whole = pickle.dumps([{"frame_dir": "clip", "keypoint": POSES[:1, :2, :3]}], 4)
    random = np.random.default_rng(0)
    broken = [whole[:size] for size in range(0, len(whole), 3)]
    for _ in range(300):
        altered = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 4)):
            altered[place] = random.integers(256)
        broken.append(bytes(altered))
    for content in broken:
        try:
            read(tmp_path / "p", content)
        except ValueError as error:
            assert str(tmp_path / "p") in str(error) or "array" in str(error) or "latin" in str(error)


def test_an_array_that_lies_about_its_shape(tmp_path):
    buffer = io.BytesIO()
    pickle.Pickler(buffer, 2).dump(np.zeros((3, 5), np.float32))
    content = buffer.getvalue()
    assert content.count(b"K\x03K\x05\x86") == 1
    with pytest.raises(ValueError, match=r"an array .3, 200. float32 of 60 bytes"):
        read(tmp_path / "p", content.replace(b"K\x03K\x05\x86", b"K\x03K\xc8\x86"))
    with pytest.raises(ValueError, match="proper shape"):
        read(tmp_path / "p", content.replace(b"K\x03K\x05\x86", b"K\x03N\x86"))


def test_no_file(tmp_path):
    with pytest.raises(MissingInputError, match="no file"), open_pickle(tmp_path / "p"):
        pass
