"""The reader of pickles: all that PYSKL's hold, of every protocol; nothing else, and never anything run."""

import collections
import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from bpilib.data.unpickle import PickledArray, unpickled
from bpilib.files import MissingInputError

POSES = np.random.default_rng(0).standard_normal((2, 30, 25, 3)).astype(np.float32)


def read(path, content: bytes):
    """A pickle's content, with its arrays loaded."""
    path.write_bytes(content)
    with unpickled(path, progress=False) as found:
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
        with unpickled(path, progress=False) as found:
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
            with pytest.raises(ValueError, match=r"the pickle asks for .* refused, nothing of it was run"):
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
        (b"\x80\x02]r\xff\xff\xff\xff.", None),  # a memo of four billion entries
        (b"\x80\x04(" + b"]\x94" * 50_000 + b"t.", None),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "more than the"),  # bytes without end
        (b"\x80\x03B\xff\xff\xff\x7f.", "more than the"),
        (b"\x80\x03B\xff\xff\xff\x00.", "expected 16777215 bytes"),
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
        with unpickled(path, progress=False):
            pass
    else:
        with pytest.raises(ValueError, match=message), unpickled(path, progress=False):
            pass
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


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
    with pytest.raises(MissingInputError, match="no file"), unpickled(tmp_path / "p"):
        pass
