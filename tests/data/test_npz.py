"""The NTU60_CS.npz family: what goes out comes back, in little memory, and bad files are told from good ones."""

import io
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from bpilib.data import SkeletonStore
from bpilib.data.formats.npz import export_npz, import_npz
from bpilib.data.store import Clip, StoreWriter
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, UCLA

CLASSES = ("wave", "clap", "kick")


def clips(count=9, seed=0):
    """(poses, label) of NTU clips: one of a single frame, one with a zero frame inside, some of one person."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        poses = random.standard_normal((1 if i == 0 else 5 + i, 2, 25, 3)).astype(np.float32)
        poses[:, 1] *= i % 2
        if i == 1:
            poses[2] = 0
        made.append((poses, i % 3))
    return made


@pytest.fixture
def store(tmp_path):
    """Nine clips, with two benchmarks whose parts have orders of their own."""
    with StoreWriter(tmp_path / "store", "ntu60", NTU, CLASSES) as writer:
        for i, (poses, label) in enumerate(clips()):
            writer.add(Clip(f"clip{i}", poses, label))
        splits = {
            "xsub": {"train": [4, 0, 1, 8, 2], "test": [7, 3, 5, 6]},
            "xview": {"train": [3, 2, 1], "test": [0, 4, 5, 6, 7, 8]},
        }
        return writer.finish(splits, {})


def arrays(train=None, test=None, frames=20, **changes):
    """The four arrays of a file, of four and three clips where none are given."""
    train, test = clips(4) if train is None else train, clips(3, seed=1) if test is None else test
    out = {}
    for part, some in (("train", train), ("test", test)):
        x = np.zeros((len(some), frames, 150), np.float32)
        for row, (poses, _) in zip(x, some):
            row[: len(poses)] = poses.reshape(len(poses), 150)
        out |= {f"x_{part}": x, f"y_{part}": np.eye(len(CLASSES))[[label for _, label in some]]}
    return out | changes


def load(path, out, **options):
    return import_npz({"xsub": path}, out, "ntu60", CLASSES, **({"progress": False} | options))


def same(store: SkeletonStore, other: SkeletonStore, benchmark: str) -> None:
    """Both parts of a benchmark hold equal clips in equal order."""
    for part in ("train", "test"):
        ours, theirs = store.split(benchmark, part), other.split(benchmark, part)
        assert len(ours) == len(theirs)
        for i, j in zip(ours, theirs):
            np.testing.assert_array_equal(store.sample(i), other.sample(j))
            assert store.labels[i] == other.labels[j]
            assert store.valid_frames[i] == other.valid_frames[j]


def test_a_benchmark_goes_out_and_comes_back(store, tmp_path):
    path = export_npz(store, "xsub", tmp_path / "CS.npz", progress=False)
    back = load(path, tmp_path / "back")
    same(store, back, "xsub")
    back.verify()
    assert back.names.tolist() == [f"train_{i:06d}" for i in range(1, 6)] + [f"test_{i:06d}" for i in range(1, 5)]
    assert back.classes == list(CLASSES) and back.benchmarks == ["xsub"] and not back.problems()
    source = {"name": "CS.npz", "files": 1, "bytes": path.stat().st_size, "tracker": None}
    assert back.manifest["source"].items() >= source.items() and len(back.manifest["source"]["sha256"]) == 64


def test_the_file_is_the_published_one(store, tmp_path):
    with np.load(export_npz(store, "xsub", tmp_path / "CS.npz", progress=False)) as archive:
        assert archive.files == ["x_train", "y_train", "x_test", "y_test"]
        assert archive["x_train"].shape == (5, 300, 150) and archive["x_train"].dtype == np.float32
        assert archive["y_test"].shape == (4, 3) and archive["y_test"].dtype == np.float64
        clip = store.sample(4)
        np.testing.assert_array_equal(archive["x_train"][0, : len(clip)].reshape(-1, 2, 25, 3), clip)
        assert not archive["x_train"][0, len(clip) :].any()
        assert archive["y_train"].argmax(1).tolist() == store.labels[store.split("xsub", "train")].tolist()


def test_two_files_of_the_same_clips_make_one_store(store, tmp_path):
    files = {b: export_npz(store, b, tmp_path / f"{b}.npz", frames=None, progress=False) for b in ("xsub", "xview")}
    back = import_npz(files, tmp_path / "back", "ntu60", CLASSES, progress=False)
    assert len(back) == len(store)
    same(store, back, "xsub")
    same(store, back, "xview")


def test_equal_clips_are_counted_not_merged(tmp_path):
    one, other = clips(2)
    np.savez(tmp_path / "a.npz", **arrays([one, one, other], [one]))
    np.savez(tmp_path / "b.npz", **arrays([one], [other, one, one]))
    files = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
    store = import_npz(files, tmp_path / "store", "ntu60", CLASSES, progress=False)
    assert len(store) == 4
    assert store.split("b", "train").tolist() == [0] and store.split("b", "test").tolist() == [2, 1, 3]


def test_files_of_other_clips_are_told(tmp_path):
    one, two, three = clips(3)
    np.savez(tmp_path / "a.npz", **arrays([one], [two]))
    for others, message in (
        (([one], [two, three]), "their counts differ"),
        (([three], [one]), "row 1 of x_train .label 2. is not among the clips of"),
        (([one], [(two[0], 2)]), "row 1 of x_test .label 2. is not among"),
        (([one], [one]), "row 1 of x_test .label 0. is not among"),
    ):
        np.savez(tmp_path / "b.npz", **arrays(*others))
        with pytest.raises(ValueError, match=message):
            files = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
            import_npz(files, tmp_path / "store", "ntu60", CLASSES, progress=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def bad_rows():
    """Arrays with five bad clips of nine."""
    content = arrays(clips(9), [])
    x, y = content["x_train"], content["y_train"]
    x[1, 2, 3] = np.nan
    x[2] = 0
    y[3] = 0
    y[4, :2] = 1
    y[5] *= 0.5
    return content


def test_bad_clips_are_left_out_and_listed(tmp_path):
    np.savez(tmp_path / "CS.npz", **bad_rows())
    with pytest.warns(UserWarning, match="5 problems"):
        store = load(tmp_path / "CS.npz", tmp_path / "store")
    assert store.names.tolist() == [f"train_{i:06d}" for i in (1, 7, 8, 9)]
    assert store.split("xsub", "train").tolist() == [0, 1, 2, 3] and not len(store.split("xsub", "test"))
    problems = store.problems()
    assert {p.file for p in problems} == {"CS.npz: x_train"} and [p.line for p in problems] == [2, 3, 4, 5, 6]
    for problem, what in zip(problems, ("not finite", "all its frames are zero", *["not one-hot"] * 3)):
        assert what in problem.what
    with pytest.raises(ValueError, match=r"CS.npz: x_train, 2: .*not finite"):
        load(tmp_path / "CS.npz", tmp_path / "other", on_error="raise")
    assert not (tmp_path / "other").exists()


def test_what_one_file_left_out_the_other_leaves_out(tmp_path):
    content = bad_rows()
    np.savez(tmp_path / "a.npz", **content)
    x, y = content["x_train"][::-1], content["y_train"][::-1]
    np.savez(tmp_path / "b.npz", x_train=x[:2], y_train=y[:2], x_test=x[2:], y_test=y[2:])
    files = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
    with pytest.warns(UserWarning, match="10 problems"):
        store = import_npz(files, tmp_path / "store", "ntu60", CLASSES, progress=False)
    assert store.split("b", "train").tolist() == [3, 2] and store.split("b", "test").tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
def test_other_floats_are_read(tmp_path, dtype):
    content = arrays()
    content["x_train"] = content["x_train"].astype(dtype)
    np.savez(tmp_path / "CS.npz", **content)
    poses = content["x_train"][1, :6].reshape(6, 2, 25, 3).astype(np.float32)
    np.testing.assert_array_equal(load(tmp_path / "CS.npz", tmp_path / "store").sample(1), poses)


def test_numbers_too_large_for_float32_are_a_problem(tmp_path):
    content = arrays()
    content["x_train"] = content["x_train"].astype(np.float64)
    content["x_train"][0, 0, 0] = 1e300
    np.savez(tmp_path / "CS.npz", **content)
    with pytest.warns(UserWarning, match="not finite"):
        assert len(load(tmp_path / "CS.npz", tmp_path / "store")) == 6


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"x_train": np.zeros((4, 20, 149), np.float32)},
            r"x_train: expected \(n, T, 150\) floats, got \(4, 20, 149\)",
        ),
        ({"x_train": np.zeros((4, 3000), np.float32)}, r"expected \(n, T, 150\)"),
        ({"x_train": np.zeros((4, 0, 150), np.float32)}, r"expected \(n, T, 150\)"),
        ({"x_train": np.zeros((4, 20, 150), int)}, "floats, got .* int64"),
        ({"x_train": np.asfortranarray(arrays()["x_train"])}, "expected numbers in C order"),
        ({"x_train": np.array([None, "a"])}, "expected numbers in C order, got object"),
        ({"x_train": np.float32(3)}, "expected an array of clips"),
        ({"y_train": np.eye(3)}, r"y_train: expected \(4, 3\), one-hot"),
        ({"y_train": np.eye(4)}, r"y_train: expected \(4, 3\), one-hot"),
        ({"y_test": np.zeros(3)}, r"y_test: expected \(3, 3\), one-hot"),
    ],
)
def test_wrong_arrays(tmp_path, changes, message):
    np.savez(tmp_path / "CS.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "CS.npz", tmp_path / "store")
    assert str(tmp_path / "CS.npz") in str(caught.value)
    assert not (tmp_path / "store.partial").exists()


def test_missing_arrays_and_files(tmp_path):
    content = arrays()
    del content["y_test"]
    np.savez(tmp_path / "CS.npz", **content)
    with pytest.raises(
        ValueError, match=r"no y_test in it: expected x_train, y_train, x_test and y_test, got x_train.npy"
    ):
        load(tmp_path / "CS.npz", tmp_path / "store")
    with pytest.raises(MissingInputError, match="no file"):
        load(tmp_path / "CV.npz", tmp_path / "store")
    with pytest.raises(ValueError, match="at least one benchmark"):
        import_npz({}, tmp_path / "store", "ntu60", CLASSES)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files(tmp_path, save):
    save(tmp_path / "CS.npz", **arrays())
    whole = (tmp_path / "CS.npz").read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 3] ^= 0xFF
    for content in (b"", b"PK", b"x" * 5000, whole[: len(whole) // 2], whole[:-30], bytes(middle)):
        (tmp_path / "CS.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"CS\.npz"):
            load(tmp_path / "CS.npz", tmp_path / "store")
        assert [path.name for path in tmp_path.iterdir()] == ["CS.npz"]


def test_a_shape_that_lies_takes_no_memory(tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    for shape in ((400000000, 20, 150), (4, 900000000, 150), (3, 20, 150)):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "CS.npz", "w") as lying:
            for name in whole.namelist():
                content = whole.read(name)
                if name == "x_train.npy":
                    content = header.getvalue() + content[128:]
                lying.writestr(name, content)
        with pytest.raises(ValueError, match=r"CS.npz: .*(needs \d+ bytes|expected an array of clips)"):
            load(tmp_path / "CS.npz", tmp_path / "store")


def test_memory_stays_that_of_a_clip(make_store, tmp_path):
    poses = np.random.default_rng(0).standard_normal((2, 2, 25, 3)).astype(np.float32)
    store = make_store(NTU, [poses + i for i in range(250)])
    with StoreWriter(tmp_path / "two", "ntu60", NTU, ["class 0"]) as writer:
        for i in range(len(store)):
            writer.add(Clip(f"clip{i}", store.sample(i), 0))
        store = writer.finish({"xsub": {"train": np.arange(200), "test": np.arange(200, 250)}}, {})
    tracemalloc.start()
    path = export_npz(store, "xsub", tmp_path / "CS.npz", progress=False)
    assert path.stat().st_size > 45e6
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.reset_peak()
    back = import_npz({"xsub": path, "again": path}, tmp_path / "back", "ntu60", ["class 0"], progress=False)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    same(store, back, "xsub")


def test_long_clips(store, tmp_path):
    with pytest.raises(ValueError, match="4 clips are longer than 9 frames, the longest has 13: pass frames=None"):
        export_npz(store, "xsub", tmp_path / "CS.npz", frames=9, progress=False)
    with np.load(export_npz(store, "xsub", tmp_path / "CS.npz", frames=None, progress=False)) as archive:
        assert archive["x_test"].shape == (4, 13, 150)
    with pytest.raises(ValueError, match="at least 1"):
        export_npz(store, "xsub", tmp_path / "CS.npz", frames=0)


def test_what_looks_like_padding_is_said(tmp_path):
    poses = clips(3)[2][0]
    poses[-1] = 0
    with StoreWriter(tmp_path / "store", "ntu60", NTU, CLASSES) as writer:
        writer.add(Clip("clip", poses, 0))
        store = writer.finish({"xsub": {"train": [0], "test": []}}, {})
    with pytest.warns(UserWarning, match="1 clips end with frames that are zero"):
        export_npz(store, "xsub", tmp_path / "CS.npz", progress=False)


def test_an_export_is_whole_or_not_there(store, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no split 'xset/train'"):
        export_npz(store, "xset", tmp_path / "CS.npz")
    monkeypatch.setattr(SkeletonStore, "sample", lambda self, i: self.poses[:5] if i != 2 else 1 / 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        export_npz(store, "xsub", tmp_path / "CS.npz", frames=300, progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_another_skeleton(tmp_path):
    poses = np.random.default_rng(0).standard_normal((7, 1, 20, 3)).astype(np.float32)
    with StoreWriter(tmp_path / "store", "ucla", UCLA, CLASSES) as writer:
        writer.add(Clip("clip", poses, 1))
        store = writer.finish({"xview": {"train": [0], "test": []}}, {})
    path = export_npz(store, "xview", tmp_path / "ucla.npz", frames=52, progress=False)
    back = import_npz({"xview": path}, tmp_path / "back", "ucla", CLASSES, UCLA, progress=False)
    np.testing.assert_array_equal(back.sample(0), poses)
    with pytest.raises(ValueError, match=r"expected \(n, T, 150\)"):
        load(path, tmp_path / "ntu")


def test_options(store, tmp_path):
    path = export_npz(store, "xsub", tmp_path / "CS.npz", progress=False)
    with pytest.raises(ValueError, match="exists already"):
        load(path, store.path)
    assert len(load(path, store.path, overwrite=True)) == 9
    with pytest.raises(ValueError, match="on_error: expected"):
        load(path, tmp_path / "back", on_error="ignore")
    with pytest.raises(ValueError, match="a benchmark needs a name of letters"):
        import_npz({"../x": path}, tmp_path / "back", "ntu60", CLASSES, progress=False)
    assert not (tmp_path / "back").exists() and not (tmp_path / "back.partial").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*no body")  # noise
        load(path, tmp_path / "back", progress=True)


# --- other shapes and labels


def test_axes_apart_and_numbers_for_labels_are_read_too(tmp_path):
    content = arrays()
    np.savez(tmp_path / "CS.npz", **content)
    one = load(tmp_path / "CS.npz", tmp_path / "one")
    for part in ("train", "test"):
        n, t, _ = content[f"x_{part}"].shape
        apart = content[f"x_{part}"].reshape(n, t, 2, 25, 3).transpose(0, 4, 1, 3, 2)  # (N,T,MV3) -> (N,3,T,V,M)
        content[f"x_{part}"] = np.ascontiguousarray(apart)
        content[f"y_{part}"] = content[f"y_{part}"].argmax(1)
    np.savez(tmp_path / "CV.npz", **content)
    same(one, load(tmp_path / "CV.npz", tmp_path / "two"), "xsub")


@pytest.mark.parametrize("one_hot", [True, False])
def test_labels_from_one_are_recognised(tmp_path, one_hot):
    content = arrays()
    for part in ("train", "test"):
        label = content[f"y_{part}"].argmax(1) + 1
        content[f"y_{part}"] = np.eye(4)[label] if one_hot else label
    np.savez(tmp_path / "CS.npz", **content)
    with pytest.warns(UserWarning, match="labels run from 1 to 3, as many as class names: counted from 1, 'wave' is 1"):
        store = load(tmp_path / "CS.npz", tmp_path / "store")
    assert store.labels.tolist() == [0, 1, 2, 0, 0, 1, 2] and store.classes == list(CLASSES)
    with pytest.warns(UserWarning, match="labels run from 1 to 3 of 4 class names: counted from 0, so that no clip is"):
        store = import_npz({"split": tmp_path / "CS.npz"}, tmp_path / "own", "mine", None, NTU, progress=False)
    assert store.labels.tolist() == [1, 2, 3, 1, 1, 2, 3] and store.classes[0] == "class 0"


def test_numbers_of_a_published_data_set_that_fit_from_0_and_from_1_are_said(tmp_path):
    """Of 60 classes, 1 to 59 have clips; one clip has a label that is none."""
    content = arrays(train=clips(59), frames=64)
    label = {"train": np.arange(1, 60), "test": np.array([1, 2, 77])}
    np.savez(tmp_path / "CS.npz", **content | {f"y_{part}": label[part] for part in label})
    names = [f"c{i}" for i in range(60)]
    with pytest.warns(UserWarning) as said:
        store = import_npz({"xsub": tmp_path / "CS.npz"}, tmp_path / "store", "ntu60", names, progress=False)
    said = " ".join(str(warning.message) for warning in said)
    assert "labels run from 1 to 59 of 60 class names: counted from 0, so that no clip is 'c0'" in said
    assert store.labels.tolist() == [*range(1, 60), 1, 2] and "label 77 outside 0...59: left out" in said
    label["test"][1] = 60
    np.savez(tmp_path / "CS.npz", **content | {f"y_{part}": label[part] for part in label})
    with pytest.warns(UserWarning) as said:
        store = import_npz({"xsub": tmp_path / "CS.npz"}, tmp_path / "one", "ntu60", names, progress=False)
    said = " ".join(str(warning.message) for warning in said)
    assert "labels run from 1 to 60, as many as class names: counted from 1, 'c0' is 1" in said
    assert store.labels.tolist() == [*range(59), 0, 59] and "label 77 outside 1...60: left out" in said
    for changes in ({"y_train": np.arange(7, 66) % 20 + 1, "y_test": np.array([1, 2, 3])},
                    {f"y_{part}": np.eye(60)[np.minimum(label[part], 59)] for part in label}):  # fmt: skip
        np.savez(tmp_path / "CS.npz", **content | changes)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import_npz({"xsub": tmp_path / "CS.npz"}, tmp_path / "few", "ntu60", names, overwrite=True, progress=False)
        assert not any("labels run" in str(warning.message) for warning in said)  # a part of it; a column for each


def test_one_hot_labels_with_a_column_too_many_count_from_one_though_the_last_has_no_clip(tmp_path):
    content = arrays(**{"y_train": np.eye(4)[[1, 2, 1, 2]], "y_test": np.eye(4)[[1, 1, 2]]})
    np.savez(tmp_path / "CS.npz", **content)
    with pytest.warns(UserWarning, match="as many as class names: counted from 1, 'wave' is 1"):
        assert load(tmp_path / "CS.npz", tmp_path / "store").labels.tolist() == [0, 1, 0, 1, 0, 0, 1]
