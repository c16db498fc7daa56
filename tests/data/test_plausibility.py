"""What can't be a body in metres is refused, what may be one is warned of; people who lie, fall or are small pass."""

import json
import re
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from bodies import AT, acted, crawling, falling, in_room, jumping, lying, rotation, seen_by
from making import NO_UCLA, ucla_records, ucla_zip, write_folder

from bpilib.data import SkeletonStore, plausibility, prepare, ucla
from bpilib.data.bodies import find_odd_bones, measure
from bpilib.data.plausibility import (
    KEPT,
    Inspection,
    check,
    describe_empty_classes,
    find_empty_classes,
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


MIXED = {
    "z up": (lambda p: np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1), "heads point along +z in {}", "to (x, z, -y)"),
    "x up": (lambda p: p @ rotation("z", -90), "heads point along +x in {}", "turn the axes so that y is up"),
    "mirrored": (lambda p: p * (-1, 1, 1), "left and right look swapped in {}", "Turn it in these clips alone"),
}


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("turned_clips", [4, 12, 15, 18, 26])
def test_a_set_that_mixes_two_conventions_is_warned_of_with_some_names(kind, turned_clips):
    spoil, words, remedy = MIXED[kind]
    clips = [in_room(turned(clip, i)) for i, clip in enumerate([*PEOPLE, *PEOPLE, *PEOPLE[:6]])]
    (finding,) = findings([spoil(clip) if i < turned_clips else clip for i, clip in enumerate(clips)])
    names = f"{turned_clips} of 30 clips (clip0, clip1, clip2, ... and {turned_clips - 3} more), "
    if (kind, turned_clips) == ("mirrored", 26):  # a majority that is clear
        assert finding.what.startswith("left and right look swapped (feet point back in 87% of the clips)")
        return
    assert finding.severity == "warn" and finding.what.startswith("two conventions are mixed: ")
    assert words.format(names) in finding.what and "not in the others" in finding.what and remedy in finding.what


def test_a_few_clips_or_those_of_a_small_set_are_no_convention():
    for kind in MIXED:
        spoiled = [MIXED[kind][0](clip) for clip in PEOPLE]
        assert findings([*spoiled[:2], *PEOPLE[:10]]) == []
        assert findings([*spoiled[:3], *PEOPLE, *PEOPLE, *PEOPLE]) == []
        assert findings([*spoiled[:3], *PEOPLE[3:9]]) == []


def test_people_who_lie_fall_and_crawl_each_their_way_among_others_mix_no_conventions():
    acts = [lying, crawling, falling]
    others = [acts[i % 3](clip, 50 * i) for i, clip in enumerate(PEOPLE)]
    assert findings([*PEOPLE, *others]) == [] == findings([*PEOPLE, *PEOPLE, *others])
    assert findings([lying(clip, 30) @ rotation("x", -30) for clip in PEOPLE]) == []  # all on a slope


def test_feet_that_are_badly_tracked_are_no_mirror_images():
    clips = [clip.copy() for clip in [*PEOPLE, *PEOPLE]]
    for number, clip in enumerate(clips):  # turned by up to 135 degrees about the shin
        for side in ("left", "right"):
            foot, ankle = AT[f"{side} foot"], AT[f"{side} ankle"]
            clip[:, foot] = clip[:, ankle] + (clip[:, foot] - clip[:, ankle]) @ rotation("y", 135 * (number / 11.5 - 1))
    assert sum(measure(clip[:, None], NTU).turning < plausibility.MIRRORED for clip in clips) >= 3
    assert not any("swapped" in f.what for f in findings(clips))


def going(clip, start, speed, rate):
    """The person moves on from `start` by `speed`, metres a second, at `rate` frames a second."""
    seconds = np.arange(len(clip)) / rate
    return clip + np.array(start) + seconds[:, None, None] * speed


def together(*clips):
    return np.stack([clip[: min(map(len, clips))] for clip in clips], 1)


def by_frame(exchanged, clip):
    """A clip (L, 2, V, 3) whose persons are exchanged in some frames."""
    return np.where(exchanged[:, None, None, None], clip[:, ::-1], clip)


def interleaved(clip, share=0.5, seed=0):
    """Two persons, exchanged in a share of the frames."""
    return by_frame(np.random.default_rng(seed).random(len(clip)) < share, clip)


PAIR = together(in_room(PEOPLE[0], (-0.4, 0, 3)), in_room(PEOPLE[1], (0.4, 0, 3)))
FAR = together(going(PEOPLE[2], (-0.6, 0, 3), (0.5, 0, 0), 10), in_room(PEOPLE[3], (1.5, 0, 4)))  # one walks
NOT_FOLLOWED = {
    "half the frames": interleaved(PAIR),
    "few frames": interleaved(PAIR, 0.1),
    "one walks": interleaved(FAR),
    "noise": interleaved(PAIR + np.random.default_rng(1).normal(0, 0.03, PAIR.shape)),
    "small": interleaved(0.4 * PAIR),
    "once": by_frame(np.arange(len(PAIR)) > 15, PAIR),
    "in the last frame": by_frame(np.arange(len(PAIR)) > len(PAIR) - 2, PAIR),
    "one slot": interleaved(PAIR)[:, :1],
    "one slot, every other": by_frame(np.arange(len(PAIR)) % 2 < 1, PAIR)[:, :1],
    "one slot, two frames each": by_frame(np.arange(len(PAIR)) % 4 < 2, PAIR)[:, :1],
    "one frame elsewhere": by_frame(np.arange(len(PAIR)) == 9, PAIR)[:, :1],
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_FOLLOWED)
def test_persons_who_change_places_between_frames_are_noticed(kind):
    clip = NOT_FOLLOWED[kind]
    assert 0 < measure(clip, NTU).jumps < len(clip)
    (finding,) = check([measure(clip, NTU, "a")], NTU)
    assert finding.severity == "warn" and "or a body jumps: 1 of 1 clips (a); follow people" in finding.what
    right = [measure(together(a, b), NTU, "b") for a, b in pairwise(PEOPLE)]
    (finding,) = check([*right, measure(clip, NTU, "a")], NTU)
    assert "persons change places from one frame to the next, or a body jumps: 1 of 12 clips (a)" in finding.what
    assert check([*10 * right, measure(clip, NTU, "a")], NTU) == []  # as sensors do now and then


def beside(clip):
    return clip + np.array((0.8, 0, 0.2))


def to_and_fro(clip, speed, rate):
    """Runs 2 s one way and back, and so on, and turns round from one frame to the next."""
    seconds = np.arange(len(clip)) / rate
    return clip + (speed * abs((seconds + 2) % 4 - 2))[:, None, None] * (1, 0, 0)


def leaping(clip, rate, height=0.5):
    """Again and again."""
    flight = 2 * np.sqrt(2 * height / 9.81)
    seconds = (np.arange(len(clip)) / rate) % flight
    return clip + (9.81 / 2 * seconds * (flight - seconds))[:, None, None] * (0, 1, 0)


def circling(one, other, rate):
    """A couple that turns once in 1.5 s."""
    angle = 2 * np.pi * np.arange(len(one)) / rate / 1.5
    way = 0.4 * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)[:, None]
    return one + way, other - way


def present(clip, comes, leaves):
    """The second person comes in frame `comes`, the first leaves in frame `leaves`."""
    out = clip.copy()
    out[:comes, 1], out[leaves:, 0] = 0, 0
    return out


MOVING = {
    "still": lambda one, other, rate: together(one[:1].repeat(9, 0), beside(other)[:1].repeat(9, 0)),
    "walk past each other": lambda one, other, rate: together(
        going(one, (-1.5, 0, 3), (1.5, 0, 0), rate), going(other, (1.5, 0, 3.3), (-1.5, 0, 0), rate)),
    "run past each other": lambda one, other, rate: together(
        going(one, (-8.1, 0, 3), (6, 0, 0), rate), going(other, (8, 0, 3.3), (-6, 0, 0), rate)),
    "one runs past one who stands": lambda one, other, rate: together(going(one, (-5, 0, 3), (6, 0, 0), rate), other),
    "run to and fro": lambda one, other, rate: together(to_and_fro(one, 6, rate), to_and_fro(beside(other), 3, rate)),
    "jump": lambda one, other, rate: together(leaping(one, rate), leaping(beside(other), rate)),
    "a child jumps": lambda one, other, rate: together(leaping(0.5 * one, rate, 0.25), beside(other)),
    "dance": lambda one, other, rate: together(*circling(one, other, rate)),
    "one comes, one leaves": lambda one, other, rate: present(together(one, beside(other)), 9, 4),
    "by turns": lambda one, other, rate: present(together(one, beside(other)), 9, 21),
    "comes and goes": lambda one, other, rate: np.where(
        (np.arange(len(one)) % 3 > 0)[:, None, None, None], together(one, beside(other)), 0)[1:],
    "another body for a while": lambda one, other, rate: by_frame(
        abs(np.arange(len(one)) - 12) < 3, together(one, beside(other)))[:, :1],
    "a copy": lambda one, other, rate: together(going(one, (0, 0, 3), (2, 0, 0), rate)).repeat(2, 1),
    "noise": lambda one, other, rate: together(one, beside(other)) + np.random.default_rng(0).normal(
        0, 0.05, (len(one), 2, 25, 3)),
    "hands lost": lambda one, other, rate: np.where(
        (np.arange(len(one)) % 4 < 1)[:, None, None, None] & np.isin(range(25), [7, 11, 21, 22, 23, 24])[:, None],
        0, in_room(together(one, beside(other)))),
    "root lost": lambda one, other, rate: np.where(
        (np.arange(len(one)) % 4 < 1)[:, None, None, None] & (np.arange(25) == NTU.root)[:, None],
        0, in_room(together(one, beside(other)))),
    "repeated from the start": lambda one, other, rate: np.tile(
        going(one, (0, 0, 3), (1.5, 0, 0), rate)[:, None], (3, 1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("rate", [5, 10, 30, 60])
def test_people_who_move_are_followed(kind, rate):
    for one, other in pairwise(PEOPLE):
        length = min(len(one), len(other))
        clip = MOVING[kind](one[:length], other[:length], rate)
        assert measure(clip, NTU).jumps == 0
        assert measure(clip[:1], NTU).jumps == measure(clip[:2], NTU).jumps == 0


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


def test_a_clip_with_nobody_in_it_is_refused():
    inspection = Inspection(NTU)
    with pytest.raises(ValueError, match="nobody in it: all coordinates are 0"):
        inspection.see("a", 0 * PEOPLE[0][:, None], raw=np.zeros((3, 1, 25, 3)))
    assert inspection.figures == [] == inspection.raw and inspection.summary() == {}


def test_a_clip_with_nobody_in_it_is_left_out_of_a_store(tmp_path):
    records = ucla_records(subjects=(1,))
    name = list(records)[3]
    records[name]["skeletons"] = np.zeros((9, 20, 3)).tolist()
    raw = write_folder(tmp_path / "raw", records)
    store = prepare("ucla", raw=raw, out=tmp_path / "store", progress=False)
    assert len(store) == len(records) - 1 and name not in store.names
    assert f"{name}.json" in (line := (store.path / "problems.csv").read_text()) and "nobody in it" in line
    with pytest.raises(ValueError, match=f"{name}.json: nobody in it"):
        prepare("ucla", raw=raw, out=tmp_path / "other", progress=False, on_error="raise")


@pytest.fixture
def measured(monkeypatch):
    """Clips by name, whose figures are known before: see(inspection, names) is quick."""
    known = {}
    for kind, spoil in {"right": lambda p: p, "z": MIXED["z up"][0], "order": WRONG["another order"][0]}.items():
        known |= {(kind, i): measure(spoil(clip)[:, None], NTU) for i, clip in enumerate(PEOPLE)}

    def see(inspection, names):
        for name in names:
            inspection.see(name, PEOPLE[0][:1, None])

    def look_up(poses, skeleton, name):
        kind, number = name.split()
        return replace(known[kind, int(number) % len(PEOPLE)], name=name)

    monkeypatch.setattr(plausibility, "measure", look_up)
    return see


def test_a_large_set_is_judged_by_a_uniform_sample_of_its_clips(measured):
    start, rest = [f"right {i}" for i in range(1000)], range(1000, 6000)
    one, other, right = Inspection(NTU), Inspection(NTU), Inspection(NTU)
    measured(one, [*start, *(f"z {i}" for i in rest)])
    (finding,) = one.findings()
    assert re.match(r"two conventions are mixed: heads point along \+z in 1[67]\d\d of 2000 clips", finding.what)
    assert finding.what.endswith(" [figures of 2,000 clips drawn from 6,000]")
    measured(other, [*start, *(f"order {i}" for i in rest)])
    assert other.findings()[0].severity == "refuse" and "joints in another order" in other.findings()[0].what
    measured(right, [*start, *(f"right {i}" for i in rest)])
    assert right.findings() == [] and right.summary()["torso"] == one.summary()["torso"]
    drawn = [[int(f.name.split()[1]) for f in inspection.figures] for inspection in (one, other, right)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == KEPT == 2000
    assert abs(np.histogram(drawn[0], 6, (0, 6000))[0] - 333).max() < 4 * np.sqrt(333 * 2 / 3)


def test_all_clips_of_a_set_that_is_not_large_are_kept(measured):
    inspection = Inspection(NTU)
    measured(inspection, [f"z {i}" for i in range(KEPT)])
    assert [f.name for f in inspection.figures] == [f"z {i}" for i in range(KEPT)]
    (finding,) = inspection.findings()
    assert "all heads point along +z" in finding.what and "drawn" not in finding.what


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


# in the first three two bodies in the place of one, by turns; in the others one frame elsewhere
JUMPING = ("a01_s08_e00_v01", "a01_s08_e02_v01", "a01_s08_e03_v01", "a04_s01_e01_v01", "a09_s07_e02_v01")


@pytest.mark.skipif(ucla_zip() is None, reason=NO_UCLA)
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_of_the_real_nw_ucla_only_clips_whose_bodies_jump_are_warned_of(every):
    inspection, alone = Inspection(UCLA), []
    for number, (_, clip) in enumerate(ucla.read(ucla_zip())):
        if every > 1 and number % every and clip.name not in JUMPING:
            continue
        inspection.see(clip.name, clip.poses)
        alone += [(clip.name, f.what) for f in check([measure(clip.poses, UCLA, clip.name)], UCLA)]
    assert len(inspection.figures) > 1000 / every and tuple(name for name, _ in alone) == JUMPING
    assert all("or a body jumps: 1 of 1 clips" in what for _, what in alone)
    said = inspection.findings()  # among a sixth of the clips those that jump are 2 %
    assert said == [] if every == 1 else ["or a body jumps: 5 of" in f.what for f in said] == [True]


def test_the_synthetic_set_upside_down_is_refused_by_prepare(tmp_path):
    records = ucla_records(subjects=(1,))
    for record in records.values():
        record["skeletons"] = (np.array(record["skeletons"]) * (-1, -1, 1)).tolist()
    with pytest.raises(ValueError, match=r"can't be what they are taken for\. Upside down: \d\d of 30"):
        prepare("ucla", raw=write_folder(tmp_path / "raw", records), out=tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
