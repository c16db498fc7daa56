"""What can't be a body in metres is refused, what may be one is warned of; people who lie, fall or are small pass."""

import json
import warnings

import numpy as np
import pytest
from bodies import AT, acted, crawling, falling, in_room, jumping, lying, rotation, seen_by
from making import NO_UCLA, ucla_records, ucla_zip, write_folder

from bpilib.data import SkeletonStore, prepare, ucla
from bpilib.data.plausibility import (
    Inspection,
    check,
    describe_empty_classes,
    find_empty_classes,
    find_odd_bones,
    measure,
    measure_store,
    tabulate,
)
from bpilib.data.trackers import describe_likely_trackers, to_ntu
from bpilib.skeleton import NTU, UCLA

PEOPLE = acted(12)
SWAPPED = [AT[n.replace("left", "@").replace("right", "left").replace("@", "right")] for n in NTU.joints]


def findings(clips, skeleton=NTU, **options):
    return check([measure(clip[:, None], skeleton, f"clip{i}") for i, clip in enumerate(clips)], skeleton, **options)


def turned(clip, i):
    """Somebody else's camera."""
    return clip @ rotation("y", 40 * i)


@pytest.mark.parametrize(
    "pose",
    [lambda p, i: p, lambda p, i: in_room(p), lambda p, i: lying(p, 50 * i), lambda p, i: falling(p, 50 * i),
     lambda p, i: crawling(p, 50 * i), lambda p, i: jumping(p), lambda p, i: 0.5 * p, lambda p, i: 0.35 * p, turned,
     lambda p, i: p[:1],
     lambda p, i: p + np.random.default_rng(i).normal(0, 0.02, p.shape)],
    ids=["standing", "camera", "lying", "falling", "crawling", "jumping", "child", "infant", "all round",
         "one frame", "noisy"],
)  # fmt: skip
def test_people_pass(pose):
    assert findings([pose(clip, i) for i, clip in enumerate(PEOPLE)]) == []


def test_one_who_lies_or_stands_on_the_hands_among_others_is_not_refused():
    assert findings([*PEOPLE[:11], lying(PEOPLE[11])]) == []
    (finding,) = findings([*PEOPLE[:11], PEOPLE[11] * (-1, -1, 1)])
    assert finding.severity == "warn" and "upside down: 1 of 12 clips (clip11)" in finding.what


def lost(poses):
    """The right hand, in two of nine frames."""
    return (np.arange(25) == AT["right hand"])[:, None] & (np.arange(len(poses)) % 9 > 6)[:, None, None]


WRONG = {
    "millimetres": (lambda p: 1000 * in_room(p), "refuse", "millimetres? divide by 1000"),
    "centimetres": (lambda p: 100 * p, "refuse", "centimetres? divide by 100"),
    "feet": (lambda p: p / 0.3048, "refuse", "feet? divide by 3.281"),
    "kilometres": (lambda p: p / 1000, "refuse", "expected metres"),
    "y down": (lambda p: p * (-1, -1, 1), "refuse", "upside down: 12 of 12 clips"),
    "y flipped": (lambda p: p * (1, -1, 1), "refuse", "upside down"),
    "z up": (lambda p: p @ rotation("x", 90), "warn", "all heads point along +z"),
    "x up": (lambda p: p @ rotation("z", -90), "warn", "all heads point along +x"),
    "mirrored": (lambda p: p * (-1, 1, 1), "warn", "left and right look swapped"),
    "swapped": (lambda p: p[:, SWAPPED], "warn", "left and right look swapped"),
    "another order": (lambda p: p[:, np.random.default_rng(5).permutation(25)], "refuse", "joints in another order"),
    "padded": (lambda p: p[:, [*range(16), *[15] * 9]], "refuse", "joints in another order"),
    "hands at 0": (lambda p: np.where(np.isin(range(25), [7, 11, 21, 22])[:, None], 0, p), "warn", "4 joints repeat"),
    "a score": (lambda p: np.concatenate([p[..., :2], 0 * p[..., :1] + 0.9], -1), "refuse", "z is the same"),
    "no depth": (lambda p: p * (1, 1, 0), "warn", "z is the same for all joints"),
    "shares": (lambda p: p * (0.2, 0.2, 0.2) + (0.5, 0.5, 0.5), "refuse", "got x and y from 0 to 1"),
    "a cube": (lambda p: 2 * (p - p.min((0, 1))) / np.ptp(p, axis=(0, 1)) - 1, "refuse", "every axis is scaled"),
    "a box": (lambda p: (p - p.min((0, 1))) / np.ptp(p, axis=(0, 1)), "refuse", "every axis is scaled"),
    "one place": (lambda p: p[:, [3] * 25], "refuse", "whose joints coincide"),
    "hand lost": (lambda p: np.where(lost(p), -3, p), "warn", "that jump away from the body: right hand, in 12 of 12"),
    "noise": (lambda p: np.random.default_rng(0).standard_normal(p.shape), "warn", "this is no body"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_in_a_whole_data_set_is_said_with_numbers(kind):
    spoil, severity, words = WRONG[kind]
    found = findings([spoil(clip) for clip in PEOPLE])
    assert [f.severity for f in found if words in f.what] == [severity], found
    if severity == "warn":
        assert {f.severity for f in found} == {"warn"}


@pytest.mark.parametrize(
    ("kind", "severity"), [("millimetres", "refuse"), ("another order", "refuse"), ("y down", "warn"), ("z up", "warn")]
)
def test_a_single_clip_is_refused_where_it_can_be_no_body_and_warned_of_where_it_may(kind, severity):
    assert {f.severity for f in findings([WRONG[kind][0](PEOPLE[0])])} == {severity}


def test_a_few_clips_of_another_tracker_among_many_are_named():
    other = [seen_by("openpose_25", clip) for clip in PEOPLE[:3]]
    other = [np.concatenate([clip / 400, 0.3 * clip[..., :1] / 400], -1) for clip in other]  # in metres, and with depth
    found = findings([*PEOPLE, *PEOPLE, *PEOPLE, *other])
    assert any("no bodies, or joints in another order: 3 of 39 clips (clip36, clip37, clip38)" in f.what for f in found)


def test_the_figures_are_those_of_a_body_that_is_known():
    clip = np.zeros((5, 25, 3))
    for name, at in {"upper spine": (0, 0.5, 0), "head": (0, 0.7, 0), "middle of spine": (0, 0.3, 0)}.items():
        clip[:, AT[name]] = at
    for side, x in (("left", -1), ("right", 1)):
        limbs = {
            "shoulder": (0.2, 0.45, 0), "elbow": (0.2, 0.17, 0), "wrist": (0.2, -0.08, 0), "hand": (0.2, -0.16, 0),
            "hip": (0.1, 0, 0), "knee": (0.1, -0.4, 0), "ankle": (0.1, -0.8, 0), "foot": (0.1, -0.85, -0.1),
        }  # fmt: skip
        for name, at in limbs.items():
            clip[:, AT[f"{side} {name}"]] = np.array(at) * (x, 1, 1)
    figures = measure((clip + (0, 0, 2))[:, None], NTU, "known")
    assert figures.torso == pytest.approx(0.5) and figures.upright == pytest.approx(1)
    assert figures.origin == pytest.approx(np.hypot(0.3, 2)) and figures.steady == 0 and figures.turning > 0.4
    share, failed = find_odd_bones(figures.bones, NTU)
    assert share == 1 and not failed and 0.4 < figures.size < 0.6
    assert measure((clip @ rotation("z", 60))[:, None], NTU).upright == pytest.approx(0.5)


def test_of_no_clips_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check([], NTU) == [] == Inspection(NTU).findings() and Inspection(NTU).summary() == {}


def test_the_inspection_refuses_at_once_what_no_data_set_can_hold():
    inspection = Inspection(NTU)
    with pytest.raises(ValueError, match=r"expected metres, a torso of about 0.5, got one of \d+: millimetres\?"):
        inspection.see("a", 1000 * PEOPLE[0][:, None])
    inspection.see("b", PEOPLE[0][:, None])
    assert [f.name for f in inspection.figures] == ["b"] and inspection.findings() == []
    assert inspection.summary()["torso"] == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("far", [3e38, -1e10, 1001])
def test_a_single_joint_that_is_nowhere_near_is_refused(far):
    clip = PEOPLE[0][:, None].astype(np.float32)
    inspection = Inspection(NTU)
    inspection.see("a", clip)
    clip[3, 0, 7, 1] = far
    with pytest.raises(ValueError, match=r"a coordinate of 1\.?\d*e\+\d+ metres|a coordinate of 3e\+38"):
        inspection.see("b", clip)


@pytest.mark.parametrize("tracker", ["openpose_25", "coco", "human36m", "smpl", "azure_kinect", "mediapipe"])
def test_whose_joints_they_are_is_recognised(tracker):
    clips = [seen_by(tracker, clip)[:, None] for clip in PEOPLE[:3]]
    assert f"those of {tracker} (" in describe_likely_trackers(clips)
    assert tracker not in describe_likely_trackers(clips, tracker)
    assert describe_likely_trackers([clip * (1, -1, 1)[: clip.shape[-1]] for clip in clips]) == ""
    found = findings([to_ntu(clip, tracker)[:, 0].astype(float) for clip in clips], flat=clips[0].shape[-1] == 2)
    assert found == []


def test_classes_without_clips_are_named(make_store):
    store = make_store(UCLA, [np.ones((2, 20, 3))] * 3, labels=[0, 2, 3])
    store._splits |= {"b/train": np.array([0, 1]), "b/test": np.array([1, 2])}
    assert find_empty_classes(store, "b") == {"train": ["class 1", "class 3"], "test": ["class 0", "class 1"]}
    assert describe_empty_classes(store, "b") == [
        "no train clip of class 1, class 3, which can't be learned",
        "no test clip of class 0, class 1, which will have no accuracy",
    ]
    store._splits |= {"b/train": np.arange(3), "b/test": np.arange(3)}
    store.classes[1:2] = []
    store.labels[:] = range(3)
    assert describe_empty_classes(store, "b") == []
    store.classes[1:] = []
    store.labels[:] = 0
    assert describe_empty_classes(store, "b") == ["one class alone, class 0: nothing to tell apart"]


def test_a_store_says_in_its_manifest_what_its_clips_are(place):
    store = SkeletonStore.open(place / "store")
    said = json.loads((store.path / "manifest.json").read_text())["plausibility"]
    assert 0.3 < said["torso"] < 0.6 and said["upright"] > 0.8 and said["findings"] == []
    figures = tabulate(measure_store(store))
    assert figures.loc["torso, metres", "median"] == pytest.approx(said["torso"], abs=0.02)


@pytest.mark.skipif(ucla_zip() is None, reason=NO_UCLA)
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_no_clip_of_the_real_nw_ucla_is_refused_or_warned_of(every):
    inspection, alone = Inspection(UCLA), []
    for number, (_, clip) in enumerate(ucla.read(ucla_zip())):
        if every > 1 and number % every:
            continue
        inspection.see(clip.name, clip.poses)
        alone += check([measure(clip.poses, UCLA, clip.name)], UCLA)
    assert len(inspection.figures) > 1000 / every and inspection.findings() == [] and alone == []


def test_the_synthetic_set_upside_down_is_refused_by_prepare(tmp_path):
    records = ucla_records(subjects=(1,))
    for record in records.values():
        record["skeletons"] = (np.array(record["skeletons"]) * (-1, -1, 1)).tolist()
    with pytest.raises(ValueError, match=r"can't be what they are taken for\. Upside down: \d\d of 30"):
        prepare("ucla", raw=write_folder(tmp_path / "raw", records), out=tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
