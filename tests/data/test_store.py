"""The store: what goes in comes out, whole or not there, and damage is noticed."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from killing import kill_before_call

from bpilib.data import Problem, SkeletonStore
from bpilib.data.store import VERSION, Clip, StoreWriter, settle
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, UCLA

LENGTHS = (5, 1, 90, 300, 2)
SPLITS = {"xview": {"train": np.array([3, 0, 2]), "test": np.array([4, 1])}, "xsub": {"train": [0], "test": [1, 2]}}
CLASSES = ("sit", "stand", "ünusual")


def clip(i, frames=4, skeleton=UCLA, persons=1, **changes):
    poses = np.random.default_rng(i).standard_normal((frames, persons, skeleton.num_joints, 3)).astype(np.float32)
    values = {"name": f"clip{i}", "poses": poses, "label": i % 3, "subject": 10 + i, "camera": i % 3 + 1, "setup": i}
    return Clip(**(values | changes))


CLIPS = [clip(i, frames) for i, frames in enumerate(LENGTHS)]


def write(out, clips=CLIPS, splits=SPLITS, skeleton=UCLA, problems=(), **options):
    with StoreWriter(out, "ucla", skeleton, CLASSES, **options) as writer:
        for one in clips:
            writer.add(one)
        writer.problems += problems
        return writer.finish(splits, {"name": "made up", "files": 5})


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "prepared" / "store"


# --- round trip


def test_clips_of_any_length_come_back_as_they_were(out):
    write(out)
    store = SkeletonStore.open(out)
    assert len(store) == 5
    for i, one in enumerate(CLIPS):
        sample = store.sample(i)
        assert sample.shape == (LENGTHS[i], 1, 20, 3) and sample.dtype == np.float32
        np.testing.assert_array_equal(sample, one.poses)
    np.testing.assert_array_equal(store.sample(-1), CLIPS[-1].poses)
    assert store.names.tolist() == [c.name for c in CLIPS]
    for column, wanted in (("labels", "label"), ("subjects", "subject"), ("cameras", "camera"), ("setups", "setup")):
        assert getattr(store, column).tolist() == [getattr(c, wanted) for c in CLIPS]
        assert getattr(store, column).dtype == np.int64
    assert store.lengths.tolist() == list(LENGTHS) and store.offsets.tolist() == [0, 5, 6, 96, 396, 398]
    assert store.classes == list(CLASSES) and store.dataset == "ucla" and store.skeleton is UCLA and store.persons == 1
    assert {p.name for p in out.iterdir()} == {"manifest.json", "poses.npy", "index.npz", "problems.csv"}
    assert [p.name for p in out.parent.iterdir()] == ["store"]


def test_nothing_is_padded(out):
    store = write(out)
    assert (out / "poses.npy").stat().st_size == 128 + sum(LENGTHS) * 20 * 3 * 4
    assert store.poses.shape == (sum(LENGTHS), 1, 20, 3)
    np.testing.assert_array_equal(np.load(out / "poses.npy"), np.concatenate([c.poses for c in CLIPS]))


def test_two_persons_of_25_joints(out):
    store = write(out, [clip(0, 7, NTU, 2), clip(1, 1, NTU, 2)], {}, NTU)
    assert store.persons == 2 and store.sample(0).shape == (7, 2, 25, 3) and store.skeleton is NTU
    store = write(out.with_name("single"), [clip(0, 7, NTU, 1)], {}, NTU, persons=1)
    assert store.persons == 1 and SkeletonStore.open(store.path).sample(0).shape == (7, 1, 25, 3)


def test_valid_frames_are_those_that_are_not_all_zero(out):
    poses = np.ones((6, 1, 20, 3), np.float32)
    poses[4:] = 0
    store = write(out, [clip(0, poses=poses), clip(1, 3), clip(2, poses=np.zeros((2, 1, 20, 3)))])
    assert store.valid_frames.tolist() == [4, 3, 0]


def test_poses_are_memory_mapped_not_read(out):
    store = write(out)
    assert isinstance(store.poses, np.memmap)
    assert isinstance(store.sample(2).base, np.memmap) or np.shares_memory(store.sample(2), store.poses)


def test_a_sample_can_not_be_written_to(out):
    store = write(out)
    before = contents(out)
    with pytest.raises(ValueError, match="read-only"):
        store.sample(0)[:] = 0
    np.testing.assert_array_equal(store.sample(0), CLIPS[0].poses)
    assert contents(out) == before


@pytest.mark.parametrize("i", [5, -6, 100])
def test_a_clip_that_is_not_there(out, i):
    store = write(out)
    with pytest.raises(IndexError, match=f"clip {i} of 5"):
        store.sample(i)


def test_splits_keep_the_published_order(out):
    store = write(out)
    assert store.split("xview", "train").tolist() == [3, 0, 2] and store.split("xview", "test").tolist() == [4, 1]
    assert store.split("xsub", "test").dtype == np.int64
    assert store.benchmarks == ["xview", "xsub"]


@pytest.mark.parametrize(("benchmark", "part"), [("xset", "train"), ("xview", "validation"), ("", "")])
def test_an_unknown_split_names_those_there_are(out, benchmark, part):
    with pytest.raises(ValueError, match=f"no split '{benchmark}/{part}'.*xview/train, xview/test, xsub/train"):
        write(out).split(benchmark, part)


def test_problems_are_kept_with_reason_line_and_what_was_done(out):
    problems = [Problem("a.json", 'it said "no",\nand more'), Problem("b.skeleton", "ü", 17, "cut")]
    store = write(out, problems=problems)
    assert SkeletonStore.open(out).problems() == problems
    assert store.manifest["counts"]["problems"] == 2
    rows = list(csv.reader((out / "problems.csv").open(newline="", encoding="utf-8")))
    assert rows[0] == ["file", "what", "line", "done"] and len(rows) == 3
    assert write(out.with_name("none")).problems() == []


def test_the_manifest_says_what_is_in_it(out):
    manifest = json.loads((write(out).path / "manifest.json").read_text())
    assert manifest["version"] == VERSION and manifest["dataset"] == "ucla" and manifest["classes"] == list(CLASSES)
    assert manifest["source"] == {"name": "made up", "files": 5}
    splits = {"xview": {"train": 3, "test": 2}, "xsub": {"train": 1, "test": 2}}
    assert manifest["counts"] == {"clips": 5, "frames": 398, "problems": 0, "splits": splits}
    assert set(manifest["sha256"]) == {"poses.npy", "index.npz", "problems.csv"}


def test_the_same_clips_give_the_same_bytes(out):
    assert contents(write(out).path) == contents(write(out.with_name("again")).path)


# --- damage


@pytest.mark.parametrize("name", ["poses.npy", "index.npz", "problems.csv"])
def test_verify_notices_one_flipped_byte(out, name):
    store = write(out)
    store.verify()
    data = bytearray((out / name).read_bytes())
    data[-3] ^= 1
    (out / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} of .* differ from the manifest: prepare the data again"):
        store.verify()


def test_verify_notices_a_file_that_is_gone(out):
    store = write(out)
    (out / "problems.csv").unlink()
    with pytest.raises(ValueError, match=r"problems\.csv"):
        store.verify()


def test_nothing_there(tmp_path):
    with pytest.raises(MissingInputError, match=r"no prepared data at .*run notebooks/01_prepare_data\.ipynb"):
        SkeletonStore.open(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match="no prepared data"):
        SkeletonStore.open(tmp_path)


@pytest.mark.parametrize("version", [VERSION + 1, 0, "1", None])
def test_a_store_of_another_version_is_refused_saying_what_to_do(out, version):
    write(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    with pytest.raises(ValueError, match=f"store of version {version}, this bpilib reads version {VERSION}") as caught:
        SkeletonStore.open(out)
    assert "prepare the data again" in str(caught.value) and "notebook 01" in str(caught.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def gone(path):
    path.unlink()


def garbage(path):
    path.write_bytes(b"garbage " * 100)


def flip(path):
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 8] = bytes(255 - byte for byte in data[at : at + 8])
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, half, empty, gone, garbage], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["poses.npy", "index.npz"])
def test_damaged_arrays_are_refused_on_opening(out, name, damage):
    write(out)
    damage(out / name)
    with pytest.raises(ValueError, match=r"is damaged.*prepare the data again"):
        SkeletonStore.open(out)


def test_a_flipped_byte_in_the_index_is_refused_on_opening(out):
    write(out)
    flip(out / "index.npz")
    with pytest.raises(ValueError, match=r"is damaged.*prepare the data again"):
        SkeletonStore.open(out)


@pytest.mark.parametrize("damage", [cut, empty, garbage], ids=lambda f: f.__name__)
def test_a_damaged_manifest_is_refused_on_opening(out, damage):
    write(out)
    damage(out / "manifest.json")
    with pytest.raises(ValueError, match=r"manifest.*prepare the data again"):
        SkeletonStore.open(out)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"format": "other", "version": 1}'])
def test_a_manifest_of_something_else_is_refused(out, content):
    write(out)
    (out / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="prepare the data again"):
        SkeletonStore.open(out)


@pytest.mark.parametrize("key", ["counts", "classes", "skeleton", "persons", "dataset"])
def test_a_manifest_that_lacks_something_is_refused(out, key):
    write(out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest[key]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="prepare the data again"):
        SkeletonStore.open(out)


def test_poses_and_index_of_different_stores_are_refused(out):
    write(out)
    other = write(out.with_name("other"), CLIPS[:3], {})
    (out / "poses.npy").write_bytes((other.path / "poses.npy").read_bytes())
    with pytest.raises(ValueError, match=r"expected 398 frames, found 96.*prepare the data again"):
        SkeletonStore.open(out)


# --- whole or not there


def test_an_exception_while_writing_leaves_nothing(out):
    with pytest.raises(RuntimeError, match="power cut"), StoreWriter(out, "ucla", UCLA, CLASSES) as writer:
        writer.add(CLIPS[0])
        raise RuntimeError("power cut")
    assert list(out.parent.iterdir()) == []


def test_an_interrupt_while_writing_leaves_nothing(out):
    with pytest.raises(KeyboardInterrupt), StoreWriter(out, "ucla", UCLA, CLASSES) as writer:
        writer.add(CLIPS[0])
        raise KeyboardInterrupt
    assert list(out.parent.iterdir()) == []


def test_a_store_without_a_clip_is_refused_and_leaves_nothing(out):
    with pytest.raises(ValueError, match=r"no usable clip.*too short"):
        write(out, [], problems=[Problem("a.json", "too short")])
    assert list(out.parent.iterdir()) == []


def test_what_a_kill_left_is_removed_by_the_next_writer(out):
    partial = out.with_name("store.partial")
    partial.mkdir(parents=True)
    (partial / "poses.npy").write_bytes(b"half")
    (partial / "other").mkdir()
    with pytest.raises(MissingInputError):
        SkeletonStore.open(out)
    assert len(write(out)) == 5
    assert [p.name for p in out.parent.iterdir()] == ["store"] and len(list(out.iterdir())) == 4


def test_what_another_user_s_killed_preparation_left_is_named(out, monkeypatch):
    out.with_name("store.partial").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **options: None)  # which may not remove it
    with pytest.raises(PermissionError, match=r"store\.partial, of a preparation that was killed, can't be removed"):
        write(out)


def test_nothing_is_to_be_seen_at_out_before_it_is_whole(out):
    with StoreWriter(out, "ucla", UCLA, CLASSES) as writer:
        writer.add(CLIPS[0])
        assert not out.exists()
        writer.finish({}, {})
    assert out.exists()


def test_an_existing_store_is_not_replaced_unasked(out):
    write(out)
    before = contents(out)
    with pytest.raises(ValueError, match=r"exists already: choose another folder, or pass overwrite=True"):
        write(out, CLIPS[:1])
    assert contents(out) == before and [p.name for p in out.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_never_replaced(out, overwrite):
    out.mkdir(parents=True)
    StoreWriter(out, "ucla", UCLA, CLASSES, overwrite=overwrite)  # empty: may be filled
    (out / "thesis.txt").write_text("all there is")
    (out / "manifest.json").write_text("{}")  # others have such files, too
    with pytest.raises(ValueError, match=r"exists already: choose another folder; it holds no store"):
        StoreWriter(out, "ucla", UCLA, CLASSES, overwrite=overwrite)
    with pytest.raises(ValueError, match="it holds no store"):
        StoreWriter(out / "thesis.txt", "ucla", UCLA, CLASSES, overwrite=overwrite)
    assert contents(out) == {"thesis.txt": b"all there is", "manifest.json": b"{}"}


def test_an_empty_folder_is_filled(out):
    out.mkdir(parents=True)
    assert len(write(out)) == len(CLIPS)


def test_overwriting_keeps_the_old_store_until_the_new_one_is_whole(out):
    old = write(out)
    before = contents(out)
    with pytest.raises(RuntimeError), StoreWriter(out, "ucla", UCLA, CLASSES, overwrite=True) as writer:
        writer.add(CLIPS[0])
        assert contents(out) == before
        raise RuntimeError
    assert contents(out) == before
    assert len(write(out, CLIPS[:2], {}, overwrite=True)) == 2
    assert [p.name for p in out.parent.iterdir()] == ["store"]
    np.testing.assert_array_equal(old.sample(3), CLIPS[3].poses)  # who has the old one open still reads it


@pytest.mark.parametrize("wrong", ["index.npz", "poses.npy", "problems.csv"])
def test_a_new_store_that_can_not_be_opened_or_is_not_as_written_replaces_nothing(out, wrong, monkeypatch):
    write(out)
    before = contents(out)
    monkeypatch.setattr("bpilib.data.store.sync", lambda path: flip(path) if path.name == wrong else None)
    with pytest.raises(ValueError, match=r"store: what was written is not what is there, and replaces nothing"):
        write(out, CLIPS[:2], {}, overwrite=True)
    assert contents(out) == before and [p.name for p in out.parent.iterdir()] == ["store"]


def test_a_rename_that_fails_puts_the_old_store_back(out, monkeypatch):
    write(out)
    before = contents(out)
    rename = Path.rename

    def failing(self, target):
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write(out, CLIPS[:2], {}, overwrite=True)
    assert contents(out) == before and [p.name for p in out.parent.iterdir()] == ["store"]


def overwriting_is_killed_at(point, out):
    """Whether a process that overwrites a store was killed, right before a call that moves, removes, flushes a file."""
    child = os.fork()
    if not child:
        try:
            kill_before_call(point)
            write(out, CLIPS[:2], {}, overwrite=True)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_point_of_an_overwrite_leaves_the_old_store_or_the_new_one(out):
    seen, point = set(), 0
    while True:
        point += 1
        shutil.rmtree(out.parent, ignore_errors=True)
        write(out)
        if not overwriting_is_killed_at(point, out):
            break
        if not out.exists():
            with pytest.raises(MissingInputError, match=r"a preparation was killed .*store\.partial"):
                SkeletonStore.open(out)
            seen.add("none")
        settle(out)
        store = SkeletonStore.open(out)
        store.verify()
        seen.add(len(store))
        assert [p.name for p in out.parent.iterdir()] == ["store"]
    assert point > 10 and seen == {"none", 2, 5}


def test_where_the_new_store_is_not_whole_the_old_one_comes_back(out):
    write(out)
    out.rename(out.with_name("store.replaced"))
    with pytest.raises(MissingInputError, match=r"and the one that was there is in .*store\.replaced\. To go on, run"):
        SkeletonStore.open(out)
    new = write(out.with_name("new"), CLIPS[:2], {}).path
    flip(new / "poses.npy")
    new.rename(out.with_name("store.partial"))
    settle(out)
    assert len(SkeletonStore.open(out)) == 5 and [p.name for p in out.parent.iterdir()] == ["store"]


def test_folders_of_others_are_left_alone(out):
    for name in ("store.partial", "store.replaced"):
        (out.with_name(name)).mkdir(parents=True)
        (out.with_name(name) / "thesis.txt").write_text("all there is")
    settle(out)
    assert not out.exists()
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    settle(out)
    assert len([*out.parent.rglob("thesis.txt")]) == 2


# --- what add refuses


def wrong(**changes):
    return clip(0, **changes)


NAN, INFINITE = CLIPS[0].poses.copy(), CLIPS[0].poses.copy()
NAN[3, 0, 4, 2], INFINITE[0, 0, 0, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (wrong(poses=NAN), "not finite"),
        (wrong(poses=INFINITE), "not finite"),
        (wrong(poses=np.zeros((4, 1, 25, 3), np.float32)), r"expected poses \(L, 1, 20, 3\).*got \(4, 1, 25, 3\)"),
        (wrong(poses=np.zeros((4, 2, 20, 3), np.float32)), r"got \(4, 2, 20, 3\)"),
        (wrong(poses=np.zeros((4, 1, 20, 2), np.float32)), r"got \(4, 1, 20, 2\)"),
        (wrong(poses=np.zeros((4, 20, 3), np.float32)), r"got \(4, 20, 3\)"),
        (wrong(poses=np.zeros((0, 1, 20, 3), np.float32)), "L of at least 1"),
        (wrong(label=3), r"label 3 outside 0\.\.\.2"),
        (wrong(label=-1), "label -1 outside"),
    ],
)
def test_add_refuses_and_the_writer_goes_on(out, bad, message):
    with StoreWriter(out, "ucla", UCLA, CLASSES) as writer:
        writer.add(CLIPS[0])
        with pytest.raises(ValueError, match=message):
            writer.add(bad)
        writer.add(CLIPS[1])
        store = writer.finish({}, {})
    assert len(store) == 2
    np.testing.assert_array_equal(store.sample(1), CLIPS[1].poses)


def test_float64_and_strided_poses_are_stored_as_float32(out):
    poses = np.random.default_rng(0).standard_normal((1, 20, 3, 6)).transpose(3, 0, 1, 2)
    store = write(out, [clip(0, poses=poses)], {})
    assert store.poses.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(store.sample(0), poses.astype(np.float32))


@pytest.mark.parametrize("name", ["../../x", "a/../../x", ".."])
def test_clip_names_that_lead_out_of_a_folder_are_refused(tmp_path, name):
    """Figures are named after clips."""
    with (
        StoreWriter(tmp_path / "store", "test", UCLA, ["a"]) as writer,
        pytest.raises(ValueError, match="leads out of a folder"),
    ):
        writer.add(Clip(name, np.ones((2, 1, 20, 3), np.float32), 0))


@pytest.mark.parametrize("name", ["../../x", "a/../../x", ".."])
def test_a_store_with_such_names_is_not_opened(out, name, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("bpilib.data.store._leads_out", lambda name: False)
        write(out, [clip(0, name=name)], {})
    with pytest.raises(ValueError, match="leads out of its folder"):
        SkeletonStore.open(out)


# --- a manifest that somebody has changed


@pytest.mark.parametrize("key", ["classes", "dataset", "source"])
def test_a_manifest_changed_by_hand_is_noticed(out, key):
    write(out)
    manifest = json.loads((out / "manifest.json").read_text())
    changed = {"classes": [*CLASSES[::-1]], "dataset": "ntu60", "source": {"name": "other"}}
    (out / "manifest.json").write_text(json.dumps(manifest | {key: changed[key]}))
    with pytest.raises(ValueError, match=r"was changed after it was written .*class names .* prepare the data again"):
        SkeletonStore.open(out)


def test_a_manifest_laid_out_otherwise_or_from_before_there_was_a_checksum_is_opened(out):
    write(out)
    manifest = json.loads((out / "manifest.json").read_text())
    turned = json.dumps(dict(reversed(manifest.items())), ensure_ascii=False)
    (out / "manifest.json").write_text(turned, encoding="utf-8")
    assert SkeletonStore.open(out).classes == list(CLASSES)
    del manifest["checksum"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert len(SkeletonStore.open(out)) == len(CLIPS)
