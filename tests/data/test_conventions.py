"""The same recordings come in as the same clips, whoever prepared them; turned axes are read as what they are."""

import pickle
import warnings

import numpy as np
import pytest
from bodies import acted, in_room, rotation, skeleton_file

from bpilib.data import prepare
from bpilib.data.conventions import Convention, turn_axes
from bpilib.data.formats.agcn import import_arrays
from bpilib.data.formats.npz import export_npz
from bpilib.data.formats.pyskl import export_pickle
from bpilib.skeleton import NTU, UCLA

F16 = 2.0**-8  # half precision at 4 to 8 metres, rounded twice
CLIPS = acted(6)
NAMES = [f"S001C001P{1 + i % 3:03}R001A{1 + i // 3:03}" for i in range(6)]  # subjects 1 and 2 train, 3 tests


def recorded():
    """name → persons, each (L, 25, 3) in camera coordinates; the last clip has two, who come and go together."""
    out = {name: [in_room(CLIPS[i], (0.3 * i - 0.5, 0.1, 2.5 + 0.2 * i))] for i, name in enumerate(NAMES)}
    walking = np.linspace(0, 1.5, len(CLIPS[5]))[:, None, None] * (1, 0, 0)  # moves more, so that it stays the first
    out[NAMES[5]] = [out[NAMES[5]][0] + walking, 0.9 * out[NAMES[5]][0] + (0.8, 0, 0.2)]
    return out


def write_raw(folder):
    folder.mkdir()
    for name, bodies in recorded().items():
        (folder / f"{name}.skeleton").write_bytes(skeleton_file(bodies))
    return folder


def write_pickle(path):
    """As PYSKL's preparation of NTU does: camera coordinates, float16."""
    annotations = [
        {"frame_dir": name, "label": int(name[-3:]) - 1, "total_frames": len(bodies[0]),
         "keypoint": np.stack(bodies).astype(np.float32).astype(np.float16)}
        for name, bodies in recorded().items()
    ]  # fmt: skip
    train = [name for name in NAMES if name[8:12] != "P003"]
    split = {"xsub_train": train, "xsub_val": [name for name in NAMES if name not in train]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
    return path


def write_npz(path, classes, camera):
    """As the scripts of CTR-GCN, InfoGCN and HD-GCN do, padded to 300; or one that forgot to move the clips."""
    out = {}
    for part, wanted in (("train", ("P001", "P002")), ("test", ("P003",))):
        names = [name for name in sorted(NAMES, key=lambda n: (n[8:12], n)) if name[8:12] in wanted]
        x = np.zeros((len(names), 300, 150), np.float32)
        for row, name in zip(x, names):
            bodies = recorded()[name]
            for person, body in enumerate(bodies):
                moved = body if camera else body - bodies[0][0, 1]
                row[: len(body), 75 * person : 75 * (person + 1)] = moved.reshape(len(body), 75)
        out |= {f"x_{part}": x, f"y_{part}": np.eye(classes)[[int(name[-3:]) - 1 for name in names]]}
    np.savez(path, **out)
    return path


def ready(dataset, raw, out, **options):
    """The store and what was said of conventions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = prepare(dataset, raw=raw, out=out, progress=False, n_jobs=1, **options)
    return store, " ".join(store.manifest.get("options", {}).get("conventions", []))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("conventions") / "raw")


@pytest.mark.parametrize("dataset", ["ntu60", "ntu120"])
def test_pickle_npz_and_raw_of_the_same_recordings_are_equal(raw, tmp_path, dataset):
    store, said = ready(dataset, raw, tmp_path / "raw")
    assert not said and len(store) == 6
    other, said = ready(dataset, write_pickle(tmp_path / "ntu.pkl"), tmp_path / "pickle")
    assert "camera" in said and "6 of 6 clips" in said
    assert ("copied the only person of 5 clips" in said) == (dataset == "ntu120")
    wanted = {name: store.sample(i) for i, name in enumerate(store.names)}
    for i, name in enumerate(other.names):
        assert other.sample(i).shape == wanted[name].shape and other.labels[i] == int(name[-3:]) - 1
        assert np.abs(other.sample(i) - wanted[name]).max() < F16
        assert bool(other.sample(i)[:, 1].any()) == (dataset == "ntu120" or name == NAMES[5])
    assert other.split("xsub", "test").tolist() == [2, 5]
    if dataset == "ntu120":  # whose npz have the copies in them
        return
    for camera in (False, True):
        path = write_npz(tmp_path / f"NTU60_CS_{camera}.npz", 60, camera)
        other, said = ready(dataset, path, tmp_path / f"npz{camera}", benchmark="xsub")
        assert ("camera" in said) == camera
        for part in ("train", "test"):
            for i, j in zip(other.split("xsub", part), store.split("xsub", part), strict=True):
                np.testing.assert_allclose(other.sample(i), store.sample(j), atol=2e-6)


def test_a_store_goes_out_and_comes_back_unmoved(raw, tmp_path):
    for dataset in ("ntu60", "ntu120"):
        store, _ = ready(dataset, raw, tmp_path / dataset)
        for path in (export_pickle(store, tmp_path / f"{dataset}.pkl", progress=False),
                     export_npz(store, "xsub", tmp_path / f"{dataset}_xsub.npz", progress=False)):  # fmt: skip
            back, said = ready(dataset, path, tmp_path / f"{path.name}.back")
            assert not said
            for part in ("train", "test"):
                for i, j in zip(back.split("xsub", part), store.split("xsub", part), strict=True):
                    assert back.sample(i).tobytes() == store.sample(j).tobytes()


def write_arrays(folder, kind):
    """ST-GCN's: camera coordinates, zeros behind. 2s-AGCN's: every frame centred, z up, the clip again and again."""
    folder.mkdir(parents=True)
    for part, wanted in (("train", ("P001", "P002")), ("val", ("P003",))):
        names = [name for name in NAMES if name[8:12] in wanted]
        x = np.zeros((len(names), 3, 300, 25, 2), np.float32)
        for row, name in zip(x, names):
            for person, body in enumerate(recorded()[name]):
                if kind == "2s-agcn":
                    body = (body - recorded()[name][0][:, 1:2]) @ rotation("x", 90)
                    body = np.tile(body, (300 // len(body) + 1, 1, 1))[:300]
                row[:, : len(body), :, person] = body.transpose(2, 0, 1)
        np.save(folder / f"{part}_data_joint.npy", x)
        labels = [int(name[-3:]) - 1 for name in names]
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps(([f"{name}.skeleton" for name in names], labels)))
    return folder


@pytest.mark.parametrize("kind", ["st-gcn", "2s-agcn"])
def test_arrays_of_st_gcn_and_2s_agcn(raw, tmp_path, kind):
    store, _ = ready("ntu60", raw, tmp_path / "store")
    folder = write_arrays(tmp_path / "arrays/below", kind)
    other, said = ready("ntu60", folder.parent, tmp_path / "other")
    assert other.benchmarks == ["xsub"]  # as the subjects tell
    assert ("camera" in said) == (kind == "st-gcn")
    assert ("z up" in said and "each frame was centred" in said) == (kind == "2s-agcn")
    for i, name in enumerate(other.names):
        clip = np.array(store.sample(int(np.flatnonzero(store.names == name)[0])))
        if kind == "2s-agcn":
            clip = np.where(clip.any((2, 3), keepdims=True), clip - clip[:, :1, 1:2], 0)
        assert other.labels[i] == int(name[-3:]) - 1 and other.subjects[i] == int(name[9:12])
        np.testing.assert_allclose(other.sample(i), clip, atol=1e-5)


def test_arrays_are_found_further_down_and_by_one_of_their_files(tmp_path):
    folder = write_arrays(tmp_path / "raw/ntu/xsub", "st-gcn")
    for raw in (tmp_path / "raw", folder / "val_data_joint.npy"):
        store, _ = ready("mine", raw, tmp_path / f"store{raw.suffix}")
        assert len(store) == 6 and store.benchmarks == ["xsub"]
    write_arrays(tmp_path / "raw/ntu120/xsub", "st-gcn")
    with pytest.raises(ValueError, match="raw holds ntu/xsub, ntu120/xsub: name one of these folders"):
        ready("mine", tmp_path / "raw", tmp_path / "other")


def write_labels(folder, names, labels):
    """Names and labels of the four training clips and of the other two."""
    for part, some in (("train", slice(4)), ("val", slice(4, 6))):
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps((names[some], labels[some])))


def test_labels_of_arrays_that_count_from_one(tmp_path):
    folder, own = write_arrays(tmp_path / "arrays", "st-gcn"), [f"c{i}" for i in range(6)]
    (folder / "classes.txt").write_text("a\nb\nc\nd")
    write_labels(folder, own, [1, 2, 3, 4, 1, 14])
    store, said = ready("mine", folder, tmp_path / "one")
    assert "labels run from 1 to 4, as many as class names: counted from 1, 'a' is 1" in said
    assert store.labels.tolist() == [0, 1, 2, 3, 0] and store.problems()[0].what == "c5: label 14 outside 1...4"
    write_labels(folder, own, [1, 2, 3, 3, 1, 14])
    store, said = ready("mine", folder, tmp_path / "three")
    assert "labels run from 1 to 3 of 4 class names: counted from 0, so that no clip is 'a'" in said
    assert store.labels.tolist() == [1, 2, 3, 3, 1]
    write_labels(folder, own, [1, 2, 3, 0, 1, 2])
    store, said = ready("mine", folder, tmp_path / "zero")
    assert "labels run" not in said and store.labels.tolist() == [1, 2, 3, 0, 1, 2]
    write_labels(folder, own, [60, 2, 3, 1, 1, 2])
    store, said = ready("ntu60", folder, tmp_path / "published")
    assert "labels run from 1 to 60, as many as class names: counted from 1, 'drink water'" in said
    assert store.labels.tolist() == [59, 1, 2, 0, 0, 1]
    ntu = [f"S001C001P001R001A{label + 1:03}" for label in (60, 2, 3, 1, 1, 2)]
    write_labels(folder, ntu, [60, 2, 3, 1, 1, 2])
    store, said = ready("ntu60", folder, tmp_path / "names")  # which tell that A061 has come in, and count from 0
    assert "labels run" not in said and store.labels.tolist() == [2, 3, 1, 1, 2]
    (folder / "classes.txt").unlink()
    write_labels(folder, own, [1, 2, 10, -1, 1, 2])
    store, said = ready("mine", folder, tmp_path / "unnamed")
    assert "labels run from 1 to 10 of 11 class names: counted from 0, so that no clip is 'class 0'" in said
    assert store.classes[10] == "class 10" and store.labels.tolist() == [1, 2, 10, 1, 2]


def test_arrays_that_do_not_go_together_are_refused(tmp_path):
    folder = write_arrays(tmp_path / "arrays", "st-gcn")
    names, labels = pickle.loads((folder / "train_label.pkl").read_bytes())
    (folder / "train_label.pkl").write_bytes(pickle.dumps((names[1:], labels[1:])))
    with pytest.raises(ValueError, match=r"train_data_joint\.npy: 4 clips, but 3 labels"):
        import_arrays(folder, tmp_path / "store", "mine")
    (folder / "train_label.pkl").write_bytes(pickle.dumps((names, [label + 1 for label in labels])))
    with pytest.warns(UserWarning, match="but its name says that it is class 0"):
        assert len(import_arrays(folder, tmp_path / "store", "ntu60", [f"c{i}" for i in range(60)], NTU)) == 2
    (folder / "train_label.pkl").unlink()
    with pytest.raises(ValueError, match=r"no train_label\.pkl beside"):
        import_arrays(folder, tmp_path / "other", "mine")


def test_noise_and_the_first_kinect_s_joints_stay_where_they_are():
    noise = np.random.default_rng(0).standard_normal((9, 2, 25, 3)).astype(np.float32)
    convention = Convention(NTU, [noise])
    assert convention.bring(noise) is noise and not convention.said()
    clip = np.ones((4, 1, 20, 3), np.float32)
    assert Convention(UCLA, [clip]).bring(clip) is clip


def test_somebody_who_stands_still_is_not_said_to_be_centred():
    clip = np.repeat(CLIPS[0][:1], 9, 0)[:, None].astype(np.float32)
    convention = Convention(NTU, [clip])
    assert convention.bring(clip) is clip and not convention.said()


def test_the_first_frame_that_has_a_body_is_the_origin():
    clip = np.zeros((10, 2, 25, 3), np.float32)
    clip[:, 1] = in_room(CLIPS[0])[:10] + 1
    clip[3:, 0] = in_room(CLIPS[1])[:7]
    clip[3, 0] = clip[3, 0, :1]  # lost: all joints at one place
    out = Convention(NTU, [clip]).bring(clip)
    assert not out[:3, 0].any() and np.abs(out[4, 0, 1]).max() < 1e-6
    assert out[0, 1, 3] == pytest.approx(clip[0, 1, 3] - clip[4, 0, 1], abs=1e-6)


@pytest.mark.parametrize("persons", [1, 2, 5])
def test_persons_before_frames_are_turned(persons):
    clip = np.stack([in_room(CLIPS[0], (person, 0, 3)) for person in range(persons)], 1)  # (L, M, V, 3)
    same, said = turn_axes(clip)
    assert same is clip and not said
    turned, said = turn_axes(clip.swapaxes(0, 1))
    assert np.array_equal(turned, clip) and f"{len(clip)} frames of {persons} persons" in said
    few, said = turn_axes(clip.swapaxes(0, 1)[:, :4] if persons < 4 else clip[:3])
    assert few.shape[0] == (4 if persons < 4 else 3)
    crowd = np.stack([in_room(CLIPS[0][:2], (2 * person, 0, 3)) for person in range(4)], 1)  # two frames of four people
    assert turn_axes(crowd)[0] is crowd
