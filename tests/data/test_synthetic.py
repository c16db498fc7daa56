"""The synthetic people: bodies, movements, cameras, files, and how hard they are to tell apart."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bpilib.data.synthetic import CLASSES, dataset, observe, people, perform, write_raw
from bpilib.data.synthetic.dataset import VIEWS, enact
from bpilib.data.synthetic.people import make_person
from bpilib.skeleton import UCLA

LABELS = range(1, len(CLASSES) + 1)
SUBJECTS = range(1, 9)
LEFT_HAND, RIGHT_HAND, LEFT_KNEE, RIGHT_KNEE, HEAD, NECK = 7, 11, 13, 17, 3, 2


def label_of(name):
    return CLASSES.index(name) + 1


def clips_of(name, episodes=4):
    return [perform(label_of(name), s, e) for s in SUBJECTS for e in range(episodes)]


def apart(clip, a, b):
    return np.linalg.norm(clip[:, a] - clip[:, b], axis=-1)


def angle(clip, a, b, c):
    """(L,) degrees at joint b."""
    u, v = clip[:, a] - clip[:, b], clip[:, c] - clip[:, b]
    return np.degrees(np.arccos((u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)))


def bones(clip):
    child, parent = np.array(UCLA.bones).T
    return np.linalg.norm(clip[:, child] - clip[:, parent], axis=-1)


@pytest.fixture(scope="module")
def everything():
    """Clips of all classes and subjects: {(label, subject): clip}."""
    return {(a, s): perform(a, s, 0) for a in LABELS for s in SUBJECTS}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw") / "synthetic", subjects=2, episodes=1)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- body


def test_bones_keep_their_lengths_in_and_across_a_subjects_clips(everything):
    for s in SUBJECTS:
        lengths = np.concatenate([bones(everything[a, s]) for a in LABELS])
        assert np.ptp(lengths, axis=0).max() < 1e-9


def test_lengths_and_size_are_those_of_people(everything):
    for clip in everything.values():
        assert clip.dtype == np.float64 and clip.shape[1:] == (20, 3) and 12 <= len(clip) <= 200
        assert np.isfinite(clip).all()
        assert -0.06 < clip[..., 1].min() < 0.1  # feet at the floor
        assert 0.6 < clip[..., 1].max() < 2.6


def test_elbows_and_knees_bend_one_way_only(everything):
    for clip in everything.values():
        for shoulder, elbow, wrist in ((4, 5, 6), (8, 9, 10)):
            assert angle(clip, shoulder, elbow, wrist).min() > 30 and angle(clip, shoulder, elbow, wrist).max() < 172.5
        back = np.cross(clip[:, 16] - clip[:, 12], [0, 1, 0])  # right × up
        for hip, knee, ankle in ((12, 13, 14), (16, 17, 18)):
            assert angle(clip, hip, knee, ankle).min() > 38 and angle(clip, hip, knee, ankle).max() < 172.5
            leg = clip[:, ankle] - clip[:, hip]
            thigh = clip[:, knee] - clip[:, hip]
            off = thigh - (thigh * leg).sum(-1, keepdims=True) / (leg**2).sum(-1, keepdims=True) * leg
            assert ((off * back).sum(-1) < 0).all()  # the knee is before the line from hip to ankle


def test_arms_stay_outside_the_trunk(everything):
    for clip in everything.values():
        low, trunk = clip[:, 0], clip[:, NECK] - clip[:, 0]
        for joint in (5, 6, 7, 9, 10, 11):
            along = ((clip[:, joint] - low) * trunk).sum(-1) / (trunk**2).sum(-1)
            nearest = low + np.clip(along, 0, 1)[:, None] * trunk
            assert np.linalg.norm(clip[:, joint] - nearest, axis=-1).min() > 0.07


def test_joints_move_no_faster_than_people(everything):
    for clip in everything.values():
        assert np.linalg.norm(np.diff(clip, axis=0), axis=-1).max() * dataset.FPS < 10  # m/s


def test_standing_feet_do_not_slide():
    for name in ("wave", "clap", "drink", "put on a hat", "bow", "squat"):
        slides = [np.ptp(clip[:, (14, 18)], axis=0).max() for clip in clips_of(name)]
        assert np.median(slides) < 0.02


def test_the_person_faces_the_camera_with_the_left_side_at_negative_x(everything):
    for clip in everything.values():
        assert clip[:, 8, 0].mean() > clip[:, 4, 0].mean() and clip[:, 16, 0].mean() > clip[:, 12, 0].mean()
        assert (clip[:, 15, 2] + clip[:, 19, 2] < clip[:, 14, 2] + clip[:, 18, 2]).all()  # toes towards the camera


# --- subjects


def test_subjects_differ():
    sizes = np.array([make_person(s).bones[4:8] for s in SUBJECTS])
    assert len(np.unique(sizes.round(4), axis=0)) == len(SUBJECTS)
    assert len({make_person(s).tempo for s in SUBJECTS}) == len(SUBJECTS)
    assert {make_person(s).left_handed for s in SUBJECTS} == {True, False}


@pytest.mark.parametrize("label", LABELS)
def test_a_left_handed_person_is_the_mirror_image(label):
    def clip(left):
        return enact(label, replace(make_person(1), left_handed=left), np.random.default_rng(5))

    np.testing.assert_allclose(clip(True)[:, people.MIRROR] * [-1, 1, 1], clip(False), atol=1e-12)
    joints = [UCLA.joints[i] for i in people.MIRROR]
    swap = {"left": "right", "right": "left"}
    assert joints == [" ".join(swap.get(word, word) for word in joint.split()) for joint in UCLA.joints]


def test_handedness_shows():
    for s in SUBJECTS:
        clips = [perform(label_of("wave"), s, e) for e in range(6)]
        higher = np.median([(clip[:, RIGHT_HAND, 1] - clip[:, LEFT_HAND, 1]).mean() for clip in clips])
        assert (higher < 0) == make_person(s).left_handed


# --- what the classes are about; some clips are half-hearted on purpose, so the upper part of them counts


def share(values, limit):
    return np.mean(np.array(values) < limit)


def test_hands_meet_again_and_again_when_clapping():
    meet = [apart(clip, LEFT_HAND, RIGHT_HAND) for clip in clips_of("clap")]
    assert share([d.min() for d in meet], 0.08) > 0.6
    assert np.median([np.diff((d < 0.12).astype(int)).clip(0).sum() for d in meet]) >= 2


def test_hands_reach_the_head():
    drink = [min(apart(c, LEFT_HAND, HEAD).min(), apart(c, RIGHT_HAND, HEAD).min()) for c in clips_of("drink")]
    hat = [np.maximum(apart(c, LEFT_HAND, HEAD), apart(c, RIGHT_HAND, HEAD)).min() for c in clips_of("put on a hat")]
    assert share(drink, 0.16) > 0.6 and share(hat, 0.2) > 0.6


def test_a_hand_meets_the_opposite_raised_knee():
    clips = clips_of("touch knee")
    touch = [min(apart(c, LEFT_HAND, RIGHT_KNEE).min(), apart(c, RIGHT_HAND, LEFT_KNEE).min()) for c in clips]
    raised = [-np.abs(c[:, RIGHT_KNEE, 1] - c[:, LEFT_KNEE, 1]).max() for c in clips]
    assert share(touch, 0.2) > 0.6 and share(raised, -0.1) > 0.6


def test_squat_lowers_the_hips_and_bow_bends_the_trunk():
    squat = [-np.ptp(clip[:, 0, 1]) for clip in clips_of("squat")]
    bow = [(clip[:, HEAD, 1] - clip[:, 0, 1]).min() for clip in clips_of("bow")]
    assert share(squat, -0.15) > 0.7 and share(bow, 0.45) > 0.7


# --- cameras


@pytest.mark.parametrize("label", (1, 5, 9))
def test_views_are_rigid_motions_of_one_performance_before_noise(label):
    clip = perform(label, 3, 1)
    for view in VIEWS:
        seen = observe(clip, view, np.random.default_rng(view), noise=0)
        a, b = (x.reshape(-1, 3) - x.reshape(-1, 3).mean(0) for x in (clip, seen))
        rotation = np.linalg.lstsq(a, b, rcond=None)[0]
        np.testing.assert_allclose(a @ rotation, b, atol=1e-9)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) > 0  # not mirrored
        assert 2 < seen[:, 0, 2].mean() < 3.5 and seen[:, HEAD, 1].mean() > seen[:, 14, 1].mean()


def test_cameras_stand_on_different_sides():
    clip = perform(1, 1, 0)
    across = [observe(clip, v, np.random.default_rng(0), noise=0)[:, 8] for v in VIEWS]
    depth = [
        (x - observe(clip, v, np.random.default_rng(0), noise=0)[:, 4])[:, 2].mean() for v, x in zip(VIEWS, across)
    ]
    assert depth[0] > depth[1] > depth[2]


def test_noise_grows_with_its_factor_and_takes_frames_off():
    clip = perform(2, 1, 0)
    still = np.repeat(clip[:1], 60, axis=0)
    rough = [observe(still, 2, np.random.default_rng(1), noise=n).std(0).mean() for n in (0.2, 1.0)]
    assert 0 < rough[0] < rough[1] < 0.1
    assert 30 <= len(observe(still, 2, np.random.default_rng(1))) <= 60
    assert observe(still[:1], 2, np.random.default_rng(1)).shape == (1, 20, 3)


# --- files


def test_files_are_in_nw_uclas_format(raw):
    names = {f"a{a:02d}_s{s:02d}_e00_v{v:02d}" for a in LABELS for s in (1, 2) for v in VIEWS}
    assert {path.stem for path in raw.iterdir()} == names | {"synthetic"}
    for name in names:
        text = (raw / f"{name}.json").read_text()
        record = json.loads(text)
        assert list(record) == ["file_name", "skeletons", "label"] and text == json.dumps(record)
        assert record["file_name"] == name and record["label"] == int(name[1:3])
        skeletons = np.array(record["skeletons"])
        assert skeletons.shape[1:] == (20, 3) and 10 <= len(skeletons) <= 200 and np.isfinite(skeletons).all()


def test_same_arguments_same_bytes_whatever_else_is_written(raw, tmp_path):
    again = contents(write_raw(tmp_path / "more", subjects=3, episodes=2))
    mine = contents(raw)
    del mine["synthetic.json"]
    assert mine.items() <= again.items()
    other = contents(write_raw(tmp_path / "other", seed=1, subjects=1, episodes=1))
    assert other["a01_s01_e00_v01.json"] != mine["a01_s01_e00_v01.json"]


def test_a_complete_folder_is_left_alone_and_an_interrupted_one_completed(tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done >= 9:
            raise Killed

    whole = contents(write_raw(tmp_path / "whole", subjects=1, episodes=1))
    with pytest.raises(Killed):
        write_raw(tmp_path / "part", subjects=1, episodes=1, progress=kill)
    part = tmp_path / "part"
    assert len(contents(part)) == 10
    (part / ".a04_s01_e00_v01.json.77.part").write_text('{"file_na')  # what a kill in the middle of a write leaves
    old = {path: path.stat().st_mtime_ns for path in part.glob("*.json")}
    calls = []
    write_raw(part, subjects=1, episodes=1, progress=lambda done, total: calls.append((done, total)))
    assert contents(part) == whole and calls[-1] == (30, 30)
    assert all(path.stat().st_mtime_ns == time for path, time in old.items())
    stamps = {path: path.stat().st_mtime_ns for path in part.iterdir()}
    write_raw(part, subjects=1, episodes=1)
    assert stamps == {path: path.stat().st_mtime_ns for path in part.iterdir()}


def test_folders_of_others_are_refused(raw, tmp_path):
    before = contents(raw)
    with pytest.raises(ValueError, match=r"subjects 3, got 2"):
        write_raw(raw, subjects=3, episodes=1)
    with pytest.raises(ValueError, match=r"seed 1, got 0"):
        write_raw(raw, seed=1, subjects=2, episodes=1)
    assert contents(raw) == before
    (tmp_path / "a01_s01_e00_v01.json").write_text("{}")  # could be the real data set
    with pytest.raises(ValueError, match=r"a01_s01_e00_v01\.json"):
        write_raw(tmp_path)
    assert len(contents(tmp_path)) == 1
    mixed = write_raw(tmp_path / "mixed", subjects=1, episodes=1)
    (mixed / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        write_raw(mixed, subjects=1, episodes=1)
    (mixed / "synthetic.json").write_text("broken")
    with pytest.raises(ValueError, match="choose another folder"):
        write_raw(mixed, subjects=1, episodes=1)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda path: write_raw(path, subjects=0), "subjects"),
        (lambda path: write_raw(path, subjects=100), "subjects"),
        (lambda path: write_raw(path, episodes=0), "episodes"),
        (lambda path: write_raw(path, seed=-1), "seed"),
        (lambda path: perform(0, 1, 0), "label"),
        (lambda path: perform(11, 1, 0), "label"),
        (lambda path: perform(1, 0, 0), "subject"),
        (lambda path: perform(1, 1, -1), "episode"),
        (lambda path: perform(1, 1, 0, seed=0.5), "seed"),
        (lambda path: observe(perform(1, 1, 0), 4, np.random.default_rng(0)), "view"),
    ],
)
def test_numbers_out_of_range_are_named(call, word, tmp_path):
    with pytest.raises(ValueError, match=f"expected {word} "):
        call(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- difficulty


def test_neither_chance_nor_childs_play():
    """Nearest neighbour on normalised joints, trained on views 1 and 2 with turned copies, tested on view 3."""
    r = np.random.default_rng(0)

    def features(clip, turned):
        clip = clip - clip[0, NECK]
        if turned:
            clip = clip @ people.turn(np.radians([[r.uniform(-30, 30), 0, r.uniform(-60, 60)]]))[0].T
        low, high = clip.min((0, 1)), clip.max((0, 1))
        return ((clip - low) / (high - low))[np.linspace(0, len(clip) - 1, 16).astype(int)].ravel()

    x, y, views = [], [], []
    for a in LABELS:
        for s in SUBJECTS:
            for e in range(2):
                clip = perform(a, s, e)
                for v in VIEWS:
                    seen = observe(clip, v, np.random.default_rng((3, 0, a, s, e, v)))
                    x += [features(seen, k > 0) for k in range(1 if v == 3 else 5)]
                    y += [a] * (1 if v == 3 else 5)
                    views += [v] * (1 if v == 3 else 5)
    x, y, test = np.array(x), np.array(y), np.array(views) == 3
    distance = (x[test] ** 2).sum(1)[:, None] - 2 * x[test] @ x[~test].T + (x[~test] ** 2).sum(1)
    accuracy = (y[~test][distance.argmin(1)] == y[test]).mean()
    assert 0.5 < accuracy < 0.9
