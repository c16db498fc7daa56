"""Annotation pickles: what goes out comes back, others' are understood, hostile and odd ones are not taken."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest
from bodies import acted, seen_by

from bpilib.data import prepare
from bpilib.data.formats.pyskl import export_pickle, import_pickle
from bpilib.data.formats.safe_pickle import PickledArray
from bpilib.data.store import Clip, StoreWriter
from bpilib.data.trackers import to_ntu
from bpilib.skeleton import NTU, UCLA

CLASSES = ("wave", "clap", "kick")


def annotation(name="S017C003P020R002A002", label=1, frames=6, persons=1, seed=0, **changes):
    keypoint = np.random.default_rng(seed).standard_normal((persons, frames, 25, 3)).astype(np.float16)
    return {"frame_dir": name, "label": label, "total_frames": frames, "keypoint": keypoint} | changes


def save(path, annotations, split=None, protocol=2):
    """A pickle as mmcv.dump writes it; all clips to train, where nothing else is said."""
    split = {"xsub_train": [a["frame_dir"] for a in annotations], "xsub_val": []} if split is None else split
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol))
    return path


def load(path, out, **options):
    return import_pickle(path, out, "ntu60", CLASSES, **({"progress": False} | options))


@pytest.fixture
def store(tmp_path):
    """Clips of one and two persons, one of a single frame, one that ends in zero frames, two benchmarks."""
    random = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store", "ntu60", NTU, CLASSES) as writer:
        for i in range(8):
            poses = random.standard_normal((1 if i == 0 else 5 + i, 2, 25, 3)).astype(np.float32)
            poses[:, 1 + i % 2 :] = 0
            poses[6:] = 0 if i == 3 else poses[6:]
            writer.add(Clip(f"S001C00{1 + i % 3}P00{i}R001A00{1 + i % 3}", poses, i % 3, i, 1 + i % 3, 1))
        writer.add(Clip("own name", random.standard_normal((4, 2, 25, 3)), 2, 77, 5, 12))
        splits = {
            "xsub": {"train": [8, 4, 0, 1, 2], "test": [7, 3, 5, 6]},
            "xview": {"train": [3, 2, 1], "test": [0, 4, 5, 6, 7]},
        }
        return writer.finish(splits, {})


def test_a_store_goes_out_and_comes_back(store, tmp_path):
    path = export_pickle(store, tmp_path / "ntu60.pkl", progress=False)
    back = load(path, tmp_path / "back")
    for name in ("names", "labels", "offsets", "valid_frames", "subjects", "cameras", "setups", "poses"):
        np.testing.assert_array_equal(getattr(store, name), getattr(back, name))
    assert back.benchmarks == store.benchmarks and back.classes == store.classes and not back.problems()
    for benchmark in store.benchmarks:
        for part in ("train", "test"):
            assert back.split(benchmark, part).tolist() == store.split(benchmark, part).tolist()
    assert (tmp_path / "back/poses.npy").read_bytes() == (store.path / "poses.npy").read_bytes()
    back.verify()


def test_the_file_is_what_others_read(store, tmp_path):
    content = pickle.loads(export_pickle(store, tmp_path / "p.pkl", progress=False).read_bytes())
    assert list(content) == ["split", "annotations"]
    assert list(content["split"]) == ["xsub_train", "xsub_val", "xview_train", "xview_val"]
    assert content["split"]["xview_train"] == store.names[[3, 2, 1]].tolist()
    assert [a["frame_dir"] for a in content["annotations"]] == store.names.tolist()
    for i, found in enumerate(content["annotations"]):
        assert found["keypoint"].shape == (1 + i % 2 if i < 8 else 2, store.lengths[i], 25, 3)
        assert found["keypoint"].dtype == np.float32 and found["total_frames"] == store.lengths[i]
        assert type(found["label"]) is int and found["label"] == store.labels[i]
        np.testing.assert_array_equal(found["keypoint"][0], store.sample(i)[:, 0])
    assert b"numpy._core" not in (tmp_path / "p.pkl").read_bytes()  # a name that NumPy 1 lacks


@pytest.mark.parametrize("protocol", range(6))
def test_pyskl_files(tmp_path, protocol):
    annotations = [
        annotation(persons=2, img_shape=(1080, 1920)),
        annotation("S018C001P042R001A001", np.int64(0), 1, seed=1, total_frames=np.int64(1)),
        annotation("a12_s03_e00_v02", 2, seed=2),
        annotation("anything", 2, seed=3, subject="unknown"),
    ]
    names = [a["frame_dir"] for a in annotations]
    split = {
        "xsub_train": names[:2],
        "xsub_val": tuple(names[2:]),
        "xset_train": names[::-1],
        "xset_test": [],
        "train": names[1:],
        "val": names[:1],
        "train2": names[3:],
    }
    store = load(save(tmp_path / "p.pkl", annotations, split, protocol), tmp_path / "store")
    assert store.names.tolist() == names and store.labels.tolist() == [1, 0, 2, 2]
    assert store.subjects.tolist() == [20, 42, 3, 0]
    assert store.cameras.tolist() == [3, 1, 2, 0]
    assert store.setups.tolist() == [17, 18, 0, 0]
    assert store.benchmarks == ["xsub", "xset", "split", "split2"]
    assert store.split("xset", "train").tolist() == [3, 2, 1, 0] and store.split("split", "test").tolist() == [0]
    for i, found in enumerate(annotations):
        expected = np.zeros((found["total_frames"], 2, 25, 3), np.float32)
        expected[:, : len(found["keypoint"])] = found["keypoint"].transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(store.sample(i), expected)


def test_more_persons_than_the_skeleton_has(tmp_path):
    crowd = annotation("crowd", persons=4)
    crowd["keypoint"] *= np.array([1, 3, 0.5, 2], np.float16)[:, None, None, None]
    empty = annotation("empty", persons=4, seed=1)
    empty["keypoint"][[0, 2]] = 0
    path = save(tmp_path / "p.pkl", [crowd, empty])
    with pytest.warns(UserWarning, match="1 problem,"):
        store = load(path, tmp_path / "store")
    np.testing.assert_array_equal(store.sample(0), crowd["keypoint"][[1, 3]].transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(store.sample(1), empty["keypoint"][[1, 3]].transpose(1, 0, 2, 3))
    (problem,) = store.problems()
    assert problem.file == "crowd" and "4 persons, 2 expected" in problem.what and "move most" in problem.done
    with pytest.raises(ValueError, match="crowd: 4 persons"):
        load(path, tmp_path / "other", on_error="raise")
    assert not (tmp_path / "other").exists() and not (tmp_path / "other.partial").exists()


BAD = {
    "no label": lambda a: a.pop("label"),
    "label and total_frames: expected whole": lambda a: a.update(label="1"),
    "label 3 outside 0...2": lambda a: a.update(label=3),
    "label -1 outside 0...2": lambda a: a.update(label=-1),
    "got (1, 6, 25, 3)": lambda a: a.update(total_frames=7),
    "got (1, 6, 25, 2)": lambda a: a.update(keypoint=a["keypoint"][..., :2]),
    "got (6, 25, 3)": lambda a: a.update(keypoint=a["keypoint"][0]),
    "got (0, 6, 25, 3)": lambda a: a.update(keypoint=a["keypoint"][:0]),
    "got (1, 6, 17, 3)": lambda a: a.update(keypoint=a["keypoint"][:, :, :17]),
    "got list": lambda a: a.update(keypoint=[[1.0]]),
    "got NoneType": lambda a: a.update(keypoint=None),
    "not finite": lambda a: a["keypoint"].__setitem__((0, 1, 2, 2), np.nan),
    "subject, camera and setup": lambda a: a.update(subject=-5),
    "a name without '..'": lambda a: a.update(frame_dir="sub/../x"),
    "expected a name of 1 to 200": lambda a: a.update(frame_dir=""),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_annotations_are_left_out_and_listed(tmp_path, what):
    bad = annotation("bad", 0)
    BAD[what](bad)
    path = save(tmp_path / "p.pkl", [annotation("one", 0), bad, annotation("two", 2)])
    with pytest.warns(UserWarning, match="1 problem,"):
        store = load(path, tmp_path / "store")
    assert store.names.tolist() == ["one", "two"] and store.split("xsub", "train").tolist() == [0, 1]
    (problem,) = store.problems()
    assert what in problem.what and problem.file == bad["frame_dir"] and problem.done == "left out"
    with pytest.raises(ValueError):
        load(path, tmp_path / "other", on_error="raise")


def test_annotations_without_name_or_twice(tmp_path):
    nameless = annotation()
    del nameless["frame_dir"]
    annotations = [annotation("one"), nameless, "text", annotation("one", 2), annotation(7), annotation("x" * 600)]
    path = save(tmp_path / "p.pkl", annotations, {"xsub_train": ["one", "one", "gone"], "xsub_val": []})
    with pytest.warns(UserWarning, match="7 problems"):
        store = load(path, tmp_path / "store")
    assert store.names.tolist() == ["one"] and store.labels.tolist() == [1]
    found = {(p.file, p.done): p.what for p in store.problems()}
    assert found["annotations[1]", "left out"] == "no frame_dir"
    assert found["annotations[2]", "left out"] == "expected a dict, got str"
    assert found["one", "left out"] == "its frame_dir comes a second time"
    assert found["annotations[4]", "left out"] == "frame_dir: expected str, got int"
    assert "annotations[5]" in [p.file for p in store.problems()]
    assert found["one", "taken once"] == "named twice in split xsub_train"
    assert found["gone", "left out"] == "named in split xsub_train, but there is no annotation of it"
    assert store.split("xsub", "train").tolist() == [0]


@pytest.mark.parametrize(
    "content, message",
    [
        ([annotation()], "got list|got a list"),
        ({"annotations": []}, "its split is NoneType"),
        ({"split": {}, "annotations": []}, "or empty"),
        ({"split": {"xsub_train": []}}, "dict of split"),
        ({"split": {"xsub": []}, "annotations": []}, "split 'xsub': expected names like xsub_train"),
        ({"split": {3: []}, "annotations": []}, "split 3: expected names"),
        (
            {"split": {"xsub_train": "S001"}, "annotations": []},
            "split xsub_train: expected a list of frame_dir, got str",
        ),
        ({"split": {"xsub_train": [3]}, "annotations": []}, "split xsub_train: expected a list of frame_dir"),
        (
            {"split": {"train": ["a"], "val": ["a"]}, "annotations": [annotation("a")]},
            "1 clips are in both parts of spl",
        ),
        ({"split": {"x_val": [], "x_test": []}, "annotations": [annotation("a")]}, "x has a val and a test part"),
        ({"split": {"../x_train": []}, "annotations": [annotation("a")]}, "a benchmark needs a name of letters"),
        ({"split": {"train": []}, "annotations": [annotation(label=9)]}, "no usable clip"),
        (os.system, "asks for posix.system"),
        ({"split": {"train": []}, "annotations": [{"keypoint": np.array([os.system])}]}, "plain numbers|asks for"),
    ],
)
def test_other_pickles(tmp_path, content, message):
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(ValueError, match=message):
        load(path, tmp_path / "store")
    assert [p.name for p in tmp_path.iterdir()] == ["p.pkl"]


def test_truncated_files(store, tmp_path):
    whole = export_pickle(store, tmp_path / "p.pkl", progress=False).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "p.pkl").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"p\.pkl"):
            load(tmp_path / "p.pkl", tmp_path / "back")


def test_memory_stays_that_of_a_clip(tmp_path):
    poses = np.repeat(np.random.default_rng(0).standard_normal((300, 1, 25, 3)).astype(np.float32), 2, 1)
    with StoreWriter(tmp_path / "store", "ntu60", NTU, CLASSES) as writer:
        for i in range(150):
            poses[0, 0, 0] = i
            writer.add(Clip(f"clip{i}", poses, 0))
        store = writer.finish({"xsub": {"train": np.arange(100), "test": np.arange(100, 150)}}, {})
    tracemalloc.start()
    path = export_pickle(store, tmp_path / "p.pkl", progress=False)
    assert path.stat().st_size > 27e6
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.reset_peak()
    back = load(path, tmp_path / "back")
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    assert (back.path / "poses.npy").read_bytes() == (store.path / "poses.npy").read_bytes()


def test_one_person_skeletons(tmp_path):
    poses = np.random.default_rng(0).standard_normal((7, 1, 20, 3)).astype(np.float32)
    with StoreWriter(tmp_path / "store", "ucla", UCLA, CLASSES) as writer:
        writer.add(Clip("a01_s02_e00_v03", poses, 1, 2, 3))
        store = writer.finish({"xview": {"train": [], "test": [0]}}, {})
    path = export_pickle(store, tmp_path / "p.pkl", progress=False)
    back = import_pickle(path, tmp_path / "back", "ucla", CLASSES, UCLA, progress=True)
    np.testing.assert_array_equal(back.sample(0), poses)
    assert back.subjects.tolist() == [2] and back.cameras.tolist() == [3]


def test_equal_names_cannot_go_out(tmp_path):
    with StoreWriter(tmp_path / "store", "ntu60", NTU, CLASSES) as writer:
        for _ in range(2):
            writer.add(Clip("same", np.ones((2, 2, 25, 3)), 1))
        store = writer.finish({}, {})
    with pytest.raises(ValueError, match="the same name"):
        export_pickle(store, tmp_path / "p.pkl")
    assert not (tmp_path / "p.pkl").exists()


# --- labels that contradict names, keypoints of an image


def test_a_label_that_contradicts_the_action_in_the_name_is_refused(tmp_path):
    good, bad = annotation(), annotation("S017C003P020R002A001", 1)
    with pytest.warns(UserWarning, match=r"A001: label 1, but its name says that it is class 0 .* count from 1"):
        store = load(save(tmp_path / "p.pkl", [good, bad]), tmp_path / "store")
    assert store.names.tolist() == [good["frame_dir"]]
    with pytest.raises(ValueError, match=r"no usable clip .* its name says"):
        load(save(tmp_path / "p.pkl", [bad]), tmp_path / "other")
    assert len(import_pickle(tmp_path / "p.pkl", tmp_path / "own", "mine", CLASSES, progress=False)) == 1  # own classes


def own(path, make, classes=None, first=0, **changes):
    """Eight clips of a data set of one's own, four classes."""
    annotations = []
    for i, clip in enumerate(acted(8)):
        keypoint = make(clip)[None]
        keypoint = keypoint.astype(np.float16)
        annotations.append(annotation(f"c{i}", first + i % 4, len(clip), keypoint=keypoint, **changes))
        if keypoint.shape[-1] == 2:
            annotations[-1]["keypoint_score"] = np.full(keypoint.shape[:-1], 0.9, np.float16)
    if classes:
        (path.parent / "classes.txt").write_text("\n".join(classes))
    return save(path, annotations, {"train": ["c0", "c1"], "val": ["c2"]})


@pytest.mark.parametrize("tracker", ["coco", "openpose_25", "human36m", "kinect_v2"])
def test_keypoints_of_a_tracker_become_ntu_s_joints(tmp_path, tracker):
    path = own(tmp_path / "own.pkl", lambda clip: seen_by(tracker, clip))
    store = prepare("mine", path, tmp_path / "store", tracker=tracker, progress=False)
    assert len(store) == 8 and store.skeleton is NTU and not store.problems()
    flat = seen_by(tracker, acted(1)[0]).astype(np.float16)
    np.testing.assert_allclose(store.sample(0)[:, :1], to_ntu(flat, tracker), atol=1e-6)
    assert store.manifest["source"]["tracker"] == tracker
    again = prepare("mine", path, tmp_path / "store", tracker=tracker, progress=False)
    assert len(again) == 8
    with pytest.raises(ValueError, match="was made from other files"):
        prepare("mine", path, tmp_path / "store", tracker="mediapipe", progress=False)
    if tracker != "kinect_v2":
        with pytest.raises(ValueError, match=f"those of {tracker} .*set tracker to it|in an image: set tracker"):
            prepare("mine", path, tmp_path / "other", progress=False)


def test_keypoints_with_a_score_of_nothing_are_filled_in(tmp_path):
    path = own(tmp_path / "own.pkl", lambda clip: seen_by("coco", clip))
    content = pickle.loads(path.read_bytes())
    first = content["annotations"][0]
    whole = first["keypoint"].astype(float).copy()
    first["keypoint"][0, 4:9, 9] = 1000
    first["keypoint_score"][0, 4:9, 9] = 0
    path.write_bytes(pickle.dumps(content))
    store = prepare("mine", path, tmp_path / "store", tracker="coco", progress=False)
    assert np.abs(store.sample(0)[:, :1] - to_ntu(whole[0], "coco")).max() < 0.5


def test_labels_from_one_of_ones_own_classes(tmp_path):
    path = own(tmp_path / "own.pkl", lambda clip: clip, classes=["a", "b", "c", "d"], first=1)
    with pytest.warns(UserWarning, match="labels run from 1 to 4, as many as class names: counted from 1"):
        store = prepare("mine", path, tmp_path / "store", progress=False)
    assert store.labels.tolist() == [0, 1, 2, 3] * 2


def test_labels_from_one_of_a_published_data_set(tmp_path):
    """Without NTU's names they are counted from 1, and so they are with them; names that agree with 0 win."""
    path = own(tmp_path / "own.pkl", lambda clip: clip, first=1)
    content = pickle.loads(path.read_bytes())
    content["annotations"][7]["label"] = 14
    path.write_bytes(pickle.dumps(content))
    with pytest.warns(UserWarning) as said:
        store = import_pickle(path, tmp_path / "store", "ntu60", "abcd", progress=False)
    said = " ".join(str(warning.message) for warning in said)
    assert "labels run from 1 to 4, as many as class names: counted from 1, 'a' is 1" in said
    assert store.labels.tolist() == [0, 1, 2, 3, 0, 1, 2] and "c7: label 14 outside 1...4: left out" in said
    named = [annotation(f"S001C001P001R00{i}A00{i}", i) for i in (1, 2, 3)]
    with pytest.warns(UserWarning, match="labels run from 1 to 3, as many as class names: counted from 1"):
        store = load(save(tmp_path / "one.pkl", named), tmp_path / "one")
    assert store.labels.tolist() == [0, 1, 2]
    named = [annotation(f"S001C001P001R00{i}A00{i}", i - 1) for i in (2, 3, 4)]
    with pytest.warns(UserWarning) as said:
        store = load(save(tmp_path / "zero.pkl", named), tmp_path / "zero")
    assert store.labels.tolist() == [1, 2] and not any("labels run" in str(warning.message) for warning in said)


def test_labels_from_one_without_class_names_are_said(tmp_path):
    path = own(tmp_path / "own.pkl", lambda clip: clip, first=1)
    with pytest.warns(UserWarning, match="labels run from 1 to 4 of 5 class names: counted from 0, so that no clip is"):
        store = prepare("mine", path, tmp_path / "store", progress=False)
    assert store.labels.tolist() == [1, 2, 3, 4] * 2


def test_frames_in_the_place_of_persons_are_refused(tmp_path):
    turned = [clip[:, None].astype(np.float16) for clip in acted(3)]
    annotations = [annotation(f"c{i}", 0, 1, keypoint=keypoint) for i, keypoint in enumerate(turned)]
    path = save(tmp_path / "own.pkl", annotations, {"train": ["c0", "c1"], "val": ["c2"]})
    with pytest.raises(ValueError, match=r"no usable clip .* persons in 1 frames: expected \(persons, frames, V, C\)"):
        prepare("mine", path, tmp_path / "store", progress=False)


def test_an_annotation_named_often_is_loaded_once(tmp_path, monkeypatch):
    """A reference to it takes two bytes in the file."""
    once = annotation("once")
    path = save(tmp_path / "p.pkl", [once] * 1000, {"train": ["once"]})
    loads = []
    monkeypatch.setattr(PickledArray, "load", lambda array, load=PickledArray.load: loads.append(1) or load(array))
    with pytest.warns(UserWarning, match="999 problems"):
        assert len(load(path, tmp_path / "store")) == 1
    assert len(loads) == 2  # to see its convention, and to take it
