"""One clip at a time: prepared as the test pipeline does, read from every kind of file, classified, timed."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from bodies import acted, in_room, seen_by
from bomb import Bomb
from making import record, tiny_config
from noise import assert_probabilities_of

from bpilib.classify import Classifier, describe
from bpilib.data import synthetic, ucla
from bpilib.data.clip_file import read_clip
from bpilib.data.ntu import build as ntu_build
from bpilib.data.trackers import to_ntu
from bpilib.errors import MissingInputError
from bpilib.feeders import Feeder
from bpilib.runs import build
from bpilib.skeleton import MODALITIES, NTU

SUBJECTS = 2  # of `place`


@pytest.fixture(scope="module")
def run(place):
    return build(tiny_config(place, place / "outputs", model="gap"))


def test_a_clip_is_classified_as_the_run_does_it(run):
    classifier, feeder = Classifier.of(run), run.feeder("test")
    for number in (0, 7, 19):
        poses = run.store.sample(int(run.indices("test")[number]))
        probabilities = classifier.classify(poses)
        assert_probabilities_of(run.model, feeder.batch([number])[0], np.asarray(probabilities)[None])
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_preparation_is_the_test_pipeline(run, modality):
    about = describe(run) | {"fed": modality}
    feeder = Feeder(run.store, run.indices("test"), modality)
    poses = run.store.sample(int(run.indices("test")[3]))
    assert np.array_equal(Classifier(about, None).prepare(poses), feeder.batch([3])[0].numpy())


def test_ntu_clips_with_empty_frames_and_missing_persons(make_store):
    rng = np.random.default_rng(0)
    poses = rng.standard_normal((30, 2, 25, 3)).astype(np.float32)
    poses[:, 1] = 0
    poses[25:] = 0
    want = Feeder(make_store(NTU, [poses]), np.array([0])).batch([0])[0].numpy()
    about = {"skeleton": "ntu", "persons": 2, "window": 64, "fed": "joint"}
    for given in (poses, poses[:, :1], np.concatenate([poses, np.zeros_like(poses)], 1)):
        assert np.array_equal(Classifier(about, None).prepare(given), want)


def test_every_kind_of_file_gives_the_clip(run, tmp_path):
    poses = run.store.sample(5)
    about = describe(run)
    (tmp_path / "any name.json").write_text(json.dumps({"skeletons": poses[:, 0].tolist()}))
    np.save(tmp_path / "one.npy", poses[:, 0])
    np.save(tmp_path / "persons.npy", poses.astype(np.float64))
    for name in ("any name.json", "one.npy", "persons.npy"):
        found = read_clip(tmp_path / name, about)
        assert found.dtype == np.float32 and np.array_equal(found, poses)
    named = json.dumps(record("a01_s01_e00_v01", poses[:, 0].tolist(), 1)).encode()
    assert np.array_equal(ucla.parse("a01_s01_e00_v01", named).poses, poses)


@pytest.mark.parametrize("dataset", ["ntu60", "ntu120"])
def test_ntu_files_are_read_as_the_store_is_made(tmp_path, dataset):
    body, rest = "72057594037927936 0 1 1 1 1 0 0.1 0.1 2", "0 0 0 0 0 0 0 0 2"
    joints = np.random.default_rng(0).uniform(0, 2, (20, 25, 3)).round(4)
    lines = ["20"]
    for frame in joints:
        lines += ["1", body, "25", *(f"{x} {y} {z} {rest}" for x, y, z in frame)]
    file = tmp_path / "mine.skeleton"
    file.write_text("\r\n".join(lines) + "\r\n")
    found = read_clip(file, {"skeleton": "ntu", "dataset": dataset})
    np.testing.assert_allclose(found[:, 0], joints - joints[0, 1], atol=1e-6)
    assert np.array_equal(found, ntu_build.parse_clip("S001C001P001R001A001", file.read_bytes(), dataset).poses)
    assert bool(found[:, 1].any()) == (dataset == "ntu120")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "is not a clip that can be read"),
        ("a.json", b'{"label": 1}', "is not a clip that can be read: 'skeletons'"),
        ("a.json", b'{"skeletons": [[1, 2]]}', r"expected skeletons \(L, 20, 3\)"),
        ("a.npy", b"junk", "is not a clip that can be read"),
        ("a.skeleton", b"1\n", r"expected a \.json or \.npy clip, for a classifier of the ucla skeleton"),
        ("a.txt", b"", r"expected a \.json or \.npy clip"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_clip(tmp_path / name, {"skeleton": "ucla", "dataset": "ucla"})
    assert name in str(error.value)


def test_a_clip_of_another_tracker_is_made_ntu_s(tmp_path):
    clip = synthetic.perform(1, 1, 0)
    np.save(tmp_path / "a.npy", clip)
    found = read_clip(tmp_path / "a.npy", {"skeleton": "ntu", "dataset": "mine"}, "kinect_v1")
    assert np.array_equal(found, to_ntu(clip, "kinect_v1"))
    with pytest.raises(ValueError, match=r"a\.npy is not a clip that can be read: .*: set tracker to kinect_v1"):
        read_clip(tmp_path / "a.npy", {"skeleton": "ntu", "dataset": "mine"})


def test_missing_clips_and_other_skeletons_are_refused(run, tmp_path):
    with pytest.raises(MissingInputError, match=r"no clip at .*set clip_file"):
        read_clip(tmp_path / "none.json", describe(run))
    with pytest.raises(ValueError, match=r"expected poses \(L, M, 20, 3\).*got \(9, 1, 25, 3\).*ucla skeleton"):
        Classifier.of(run).prepare(np.ones((9, 1, 25, 3), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        Classifier.of(run).prepare(np.full((9, 1, 20, 3), np.nan, np.float32))


def test_other_files_are_no_classifiers(tmp_path):
    with pytest.raises(ValueError, match=r"expected a classifier's \.onnx or \.pt2"):
        Classifier.load(tmp_path / "best.pt")
    with pytest.raises(MissingInputError, match=r"run notebooks/03_evaluate\.ipynb with export"):
        Classifier.load(tmp_path / "classifier.onnx")
    for name in ("classifier.onnx", "classifier.pt2"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(ValueError, match=r"is damaged or no classifier.*export it again"):
            Classifier.load(tmp_path / name, trusted=True)


def test_a_pt2_of_a_stranger_is_not_opened(tmp_path):
    """PyTorch's reader turns to an unrestricted pickle where the restricted one fails, and evaluates expressions."""
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "whole.pt2")
    content = io.BytesIO()
    torch.save(Bomb(tmp_path / "executed"), content)
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole, zipfile.ZipFile(tmp_path / "hostile.pt2", "w") as hostile:
        for name in whole.namelist():
            hostile.writestr(name, content.getvalue() if "sample_inputs" in name else whole.read(name))
    with pytest.raises(ValueError, match=r"hostile\.pt2 could run code when opened: use the \.onnx"):
        Classifier.load(tmp_path / "hostile.pt2")
    assert not (tmp_path / "executed").exists()


def test_times_are_medians_of_both_halves(run, monkeypatch):
    ticks = iter(np.cumsum([0, 9, 9, *[100, 1, 3], *[100, 2, 5], *[100, 7, 1]]).astype(float))
    monkeypatch.setattr("bpilib.classify.time.perf_counter", lambda: next(ticks))
    found = Classifier.of(run).time(run.store.sample(0), repeats=3)
    assert (found.prepare, found.network) == (2, 3)


# --- a clip from elsewhere, for a run that was trained on a tracker's joints


@pytest.mark.parametrize("tracker", ["kinect_v2", "mediapipe", "human36m", "coco"])
def test_a_single_clip_takes_the_tracker_that_its_run_was_trained_with(tmp_path, tracker):
    clip = acted(1)[0]
    given = seen_by(tracker, in_room(clip) if tracker == "kinect_v2" else clip)
    np.save(tmp_path / "new.npy", given)
    about = {"skeleton": "ntu", "dataset": "mine", "tracker": tracker}
    assert np.array_equal(read_clip(tmp_path / "new.npy", about), to_ntu(given, tracker))
    np.save(tmp_path / "ntu.npy", clip.astype(np.float32))  # as a store has it: other joints than the tracker's
    np.testing.assert_allclose(read_clip(tmp_path / "ntu.npy", about)[:, 0], clip - clip[0, 1], atol=1e-6)
    with pytest.raises(ValueError, match="expected numbers"):
        read_clip(tmp_path / "new.npy", about, "kinect_v1")


def test_a_single_clip_in_camera_coordinates_is_moved_as_its_run_s_were(tmp_path):
    clip, about = acted(1)[0], {"skeleton": "ntu", "dataset": "ntu120", "tracker": None}
    np.save(tmp_path / "new.npy", in_room(clip))
    with pytest.warns(UserWarning, match="recognised coordinates of a camera"):
        found = read_clip(tmp_path / "new.npy", about)
    np.testing.assert_allclose(found[:, 0], clip - clip[0, 1], atol=1e-6)
    assert np.array_equal(found[:, 1], found[:, 0])  # NTU120's


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(lambda clip: 1000 * clip, "millimetres"), (lambda clip: clip[:, ::-1], "Joints in another order"),
     (lambda clip: np.pad(seen_by("openpose_25", clip), ((0, 0), (0, 0), (0, 1)), constant_values=0.9), "openpose_25")],
)  # fmt: skip
def test_a_single_clip_that_is_no_body_in_metres_is_refused(tmp_path, spoil, message):
    np.save(tmp_path / "new.npy", spoil(acted(1)[0]))
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path / "new.npy", {"skeleton": "ntu", "dataset": "mine"})


def test_a_single_clip_that_may_be_one_is_warned_of_with_numbers(tmp_path):
    np.save(tmp_path / "new.npy", acted(1)[0] * (-1, -1, 1))
    with pytest.warns(UserWarning, match=r"[Uu]pside down: 1 of 1 clips \(new\.npy\), .* \(cosine with y -1\.00"):
        read_clip(tmp_path / "new.npy", {"skeleton": "ntu", "dataset": "mine"})


def test_a_run_says_whose_joints_it_was_trained_with(run):
    assert describe(run)["tracker"] is None
    run.store.manifest["source"]["tracker"] = "coco"
    assert describe(run)["tracker"] == "coco"
    del run.store.manifest["source"]["tracker"]
