"""Persons followed by place, gaps, cuts, frame rates and places before the camera, on invented landmarks."""

import numpy as np
import pytest
from invented_landmarks import HIPS, SIZE, acted, landmarks, person, seen

from bpilib.data.trackers import to_ntu
from bpilib.data.video import clips as clips_module
from bpilib.data.video import recording
from bpilib.data.video.film import Film
from bpilib.data.video.landmarks import Landmarks
from bpilib.data.video.tracking import follow
from bpilib.skeleton import NTU


def said(events):
    return " | ".join(f"{e.first}-{e.last}: {e.what}: {e.done}" for e in events)


def test_one_person_is_one_track_and_nothing_is_said():
    tracks, events = follow(landmarks(person()))
    assert len(tracks) == 1 and tracks[0].rows == [*range(60)] and not events


def test_poses_that_change_places_in_the_list_stay_with_their_person():
    left, right = person(1, 1, (-0.6, 0, 3)), person(2, 2, (0.6, 0, 3))
    film = landmarks(left, right)
    film.image[20:40], film.world[20:40] = film.image[20:40, ::-1].copy(), film.world[20:40, ::-1].copy()
    tracks, events = follow(film)
    assert len(tracks) == 2
    for track in tracks:  # each on its own side throughout
        x = film.image[track.rows, track.poses, :, 0].mean(1)
        assert (x < 320).all() or (x > 320).all()
    assert "21-21: MediaPipe changed the order of the persons: each followed by place" in said(events)
    (piece,), _ = clips_module.cut(film, people=2)
    straight, _ = clips_module.cut(landmarks(left, right), people=2)
    np.testing.assert_allclose(piece.poses, straight[0].poses, atol=1e-5)


def test_a_pose_that_jumps_to_another_person_never_becomes_the_same_clip():
    """One pose at a time, first on one person, then on another a metre and a half away."""
    one, other = person(1, 1, (-0.8, 0, 3)), person(2, 2, (0.7, 0, 3))
    film = landmarks(tuple(np.concatenate([a[:30], b[30:]]) for a, b in zip(one, other)))
    tracks, events = follow(film)
    assert [(track.rows[0], track.rows[-1]) for track in tracks] == [(0, 29), (30, 59)]
    assert "31-31: the pose jumped by" in said(events)
    pieces, events = clips_module.cut(film, people=1)
    assert [len(piece.poses) for piece in pieces] == [30, 30]
    assert "31-31: another person, or the same one somewhere else: the clip is cut" in said(events)


@pytest.mark.parametrize("away", [0.8, 1.2])
@pytest.mark.parametrize("stay", [3, 20])
def test_a_jump_there_and_back_is_repaired_where_it_is_short_and_cut_where_it_is_long(stay, away):
    one, other = person(1, 1, (-away / 2, 0, 3)), person(2, 2, (away / 2, 0, 3))
    film = landmarks(tuple(np.concatenate([a[:30], b[30 : 30 + stay], a[30 + stay :]]) for a, b in zip(one, other)))
    pieces, events = clips_module.cut(film, people=1)
    assert "31-31: the pose jumped" in said(events) and "1 more person or stray pose" in said(events)
    if stay == 3:
        (piece,) = pieces
        assert piece.filled.sum() == 3 and "31-33: a person missing for moments, 3 frames" in said(events)
        whole, _ = clips_module.cut(landmarks(one))
        assert np.abs(piece.poses - whole[0].poses).max() < 0.25  # the other person's place is nowhere in it
    else:
        assert len(pieces) == 1 and len(pieces[0].poses) == 30  # what comes after it is too short for a clip
        assert "nobody for 0.70 s: the clip is cut" in said(events) and "shorter than" in said(events)


def test_a_pose_found_again_somewhere_near_is_never_taken_for_the_same_one_silently():
    """Lost for a fifth of a second, then 0.4 m beside: it may be somebody else."""
    one, other = person(1, 1, (-0.2, 0, 3)), person(1, 1, (0.2, 0, 3))
    parts = (np.concatenate([a[:30], np.full_like(a[30:36], np.nan), b[36:]]) for a, b in zip(one, other))
    tracks, events = follow(landmarks(tuple(parts)))
    assert len(tracks) == 1
    assert "30-37: a person found again after 0.23 s, 0." in said(events) and "look whether it is" in said(events)
    assert not follow(landmarks(person(missing=range(30, 36))))[1]  # in the same place: nothing to look at


def test_a_second_pose_on_the_same_person_is_left_out():
    world, image = person()
    film = landmarks((world, image), (world, image + 3))
    film.visibility[:, 1] = 0.5
    tracks, events = follow(film)
    assert len(tracks) == 1 and set(tracks[0].poses) == {0}
    assert said(events) == "1-60: a second pose on the same person: left out"


def test_two_persons_who_cross_are_followed_and_it_is_said_that_they_may_have_been_exchanged():
    way = np.linspace(-0.8, 0.8, 60)
    world = acted(10, 1)
    one = (world, seen(world, np.stack([way, 0 * way, 0 * way + 3], 1)))
    other = (world, seen(world, np.stack([-way, 0 * way, 0 * way + 3.5], 1)))
    tracks, events = follow(landmarks(one, other))
    assert len(tracks) == 2 and all(len(set(track.poses)) == 1 and len(track.rows) > 50 for track in tracks)
    assert "two persons lie over each other in the image" in said(events)


def test_two_persons_stand_where_the_image_says():
    """World landmarks are centred on each person's own hips: without their places both would stand in one."""
    a, b = np.array([-0.5, 0.05, 3.0]), np.array([0.7, -0.05, 3.6])
    (piece,), events = clips_module.cut(landmarks(person(2, 1, a), person(7, 2, b)), people=2)
    assert piece.poses.shape == (60, 2, 33, 3) and not events
    hips = piece.poses[:, :, HIPS].mean(2)  # (L, 2, 3)
    apart = hips[:, 1] - hips[:, 0] if hips[0, 1, 0] > hips[0, 0, 0] else hips[:, 0] - hips[:, 1]
    np.testing.assert_allclose(apart.mean(0), b - a, atol=0.2)  # perspective of a body is not in the model
    poses = to_ntu(piece.poses, "mediapipe")
    assert poses.shape == (60, 2, 25, 3) and poses.any((0, 2, 3)).all()
    distance = np.linalg.norm(poses[:, 0, 0] - poses[:, 1, 0], axis=-1)
    assert abs(distance.mean() - np.linalg.norm(b - a)) < 0.25


def test_of_two_persons_one_is_taken_and_it_is_said():
    near, far = person(1, 1, (-0.5, 0, 2.5)), person(2, 2, (0.9, 0, 5.0))
    (piece,), events = clips_module.cut(landmarks(far, near), people=1)
    assert piece.poses.shape[1] == 1
    assert piece.image[:, 0, :, 0].mean() < 320  # the one who is nearer
    assert "1 more person or stray pose, there in up to 100% of the frames: the one who is largest" in said(events)


def test_a_person_who_moves_moves_in_the_clip():
    """A squat of hips that are the origin of world landmarks: the hips go down, the feet stay."""
    down = 0.3 * np.sin(np.linspace(0, np.pi, 60))
    world = acted(1, 1)
    at = np.stack([0 * down, down, 3 + 0 * down], 1)
    (piece,), _ = clips_module.cut(landmarks((world, seen(world, at))))
    hips = piece.poses[:, 0, HIPS].mean(1)
    np.testing.assert_allclose(hips[:, 1] - hips[0, 1], down, atol=0.06)


def test_the_focal_length_changes_the_depth_alone(monkeypatch):
    film = landmarks(person(2, 1, (-0.5, 0, 3)), person(7, 2, (0.6, 0, 3.6)))
    one = clips_module.cut(film, people=2)[0][0].poses
    monkeypatch.setattr(clips_module, "FOCAL", 2 * clips_module.FOCAL)
    two = clips_module.cut(film, people=2)[0][0].poses
    np.testing.assert_allclose(one[..., :2], two[..., :2], atol=1e-5)
    depth = [np.ptp(poses[:, :, HIPS, 2].mean(2), axis=1).mean() for poses in (one, two)]
    assert depth[1] == pytest.approx(2 * depth[0], rel=0.2)


def test_short_gaps_are_interpolated_and_said():
    whole, holed = person(), person(missing=range(20, 28))
    (piece,), events = clips_module.cut(landmarks(holed))
    assert said(events) == "21-28: a person missing for moments, 8 frames of the clip in all: interpolated"
    assert np.flatnonzero(piece.filled).tolist() == [*range(20, 28)]
    (true,), _ = clips_module.cut(landmarks(whole))
    assert np.abs(piece.poses - true.poses)[~piece.filled].max() < 0.02
    np.testing.assert_allclose(
        piece.image[24, 0], holed[1][19] + (holed[1][28] - holed[1][19]) * 5 / 9, rtol=1e-4, atol=1e-2
    )


def test_long_gaps_cut_the_clip():
    pieces, events = clips_module.cut(landmarks(person(frames=90, missing=range(40, 55))))
    assert [len(piece.poses) for piece in pieces] == [40, 35]
    assert said(events) == "40-56: nobody for 0.53 s: the clip is cut"
    assert [piece.frames[0] for piece in pieces] == [0, 55]


def test_a_second_person_who_leaves_has_zeros_and_it_is_said():
    one, other = person(1, 1, (-0.5, 0, 3)), person(2, 2, (0.6, 0, 3), missing=range(30, 60))
    (piece,), events = clips_module.cut(landmarks(one, other), people=2)
    assert not piece.poses[35:, 1].any() and piece.poses[:30, 1].any((1, 2)).all()
    assert "31-60: person 2 is there in 50% of the clip: zeros where they are not" in said(events)


@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 30.0, 29.97])
def test_every_frame_rate_becomes_thirty_a_second(fps):
    count = int(2 * fps)
    turn = np.arange(count) / fps  # seconds
    world = np.repeat(acted(1, 1, 1), count, 0).astype(float)
    world[:, 15, 1] += 0.3 * np.sin(np.pi * turn)  # a wrist that goes by a known way
    (piece,), events = clips_module.cut(landmarks((world, seen(world, (0, 0, 3))), fps=fps))
    assert abs(len(piece.poses) - (count - 1) / fps * 30 - 1) <= 1 and not events
    np.testing.assert_allclose(np.diff(piece.seconds), 1 / 30)
    wrist = piece.poses[:, 0, 15, 1] - piece.poses[:, 0, HIPS, 1].mean(1)
    still = world[0, 15, 1] - world[0, HIPS, 1].mean()
    np.testing.assert_allclose(wrist - still, 0.3 * np.sin(np.pi * piece.seconds), atol=0.02)
    assert (np.abs(piece.frames - piece.seconds * fps) <= 0.51).all()


def test_a_film_of_a_varying_rate_goes_by_its_times():
    film = landmarks(person(frames=60))
    seconds = np.cumsum(np.where(np.arange(60) % 2, 0.02, 0.05)) - 0.05
    (piece,), _ = clips_module.cut(Landmarks(**{**vars(film), "seconds": seconds}))
    assert len(piece.poses) == int(seconds[-1] * 30 + 1e-6) + 1
    assert (np.abs(seconds[piece.frames] - piece.seconds) <= 0.026).all()


def test_nobody_anywhere_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"dance.mp4: expected a person, but none was found in any of 60 frames"):
        clips_module.cut(landmarks(person(missing=range(60))), name="dance.mp4")


def test_moments_of_a_person_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"expected a person for at least 0.5 s .* got a film of 1.97 s"):
        clips_module.cut(landmarks(person(missing=[k for k in range(60) if k % 30 > 10])))
    with pytest.raises(ValueError, match="10 or more frames a second"):
        clips_module.cut(landmarks(person(frames=6), fps=2.0))


def test_a_film_that_ends_early_is_used_and_said():
    film = landmarks(person())
    _, events = clips_module.cut(Landmarks(**{**vars(film), "counts": np.array([300, 60])}))
    assert "the film ends after 60 of the 300 frames that its header promises" in said(events)


def test_more_than_two_persons_cannot_be_asked_for():
    with pytest.raises(ValueError, match="people: expected 1 or 2, as many as a clip of NTU has, got 3"):
        clips_module.cut(landmarks(person()), people=3)


@pytest.mark.parametrize("seconds", [1.0, 4.0, 60.0])
def test_windows_cover_a_recording_and_cross_no_cut(seconds):
    frames = int(30 * seconds)
    seen_ = recording.of_poses("x", [np.ones((frames, 1, 25, 3), np.float32), np.ones((40, 1, 25, 3), np.float32)])
    windows = seen_.windows(3.0)
    own = [w for w in windows if w.stretch == 0]
    assert own[0].start == 0 and own[-1].stop == frames and windows[-1][:3] == (1, 0, 40)
    covered = np.zeros(frames, bool)
    for window in own:
        covered[window.start : window.stop] = True
        assert window.end - window.begin == pytest.approx((window.stop - window.start) / 30)
        assert window.stop - window.start == (90 if seconds >= 4.5 else frames)
    assert covered.all() and windows[-1].begin == pytest.approx(seconds)


def test_clips_of_windows_begin_at_the_first_spine_and_keep_zeros():
    poses = np.random.default_rng(0).normal(size=(120, 2, 25, 3)).astype(np.float32)
    poses[:10, 0], poses[:, 1] = 0, 0
    seen_ = recording.of_poses("x", [poses])
    clip = next(seen_.clips(seen_.windows(3.0)))
    assert not clip[:10].any() and not clip[:, 1].any()
    np.testing.assert_array_equal(clip[10, 0, recording.SPINE], 0)
    np.testing.assert_allclose(clip[50, 0] - clip[40, 0], poses[50, 0] - poses[40, 0], atol=1e-6)


def test_a_recording_has_ntu_joints_in_space_and_on_the_image(tmp_path):
    film = Film(tmp_path / "x.mp4", *SIZE, 30.0, 60)
    found = recording.from_landmarks(landmarks(person()), film, 1)
    assert found.poses[0].shape == (60, 1, 25, 3) and found.image[0].shape == (60, 1, 25, 2) and found.found == 1
    wrist = NTU.joints.index("left wrist")
    np.testing.assert_allclose(found.image[0][:, 0, wrist], person()[1][:, 15], atol=1e-3)
    head, foot = (NTU.joints.index(name) for name in ("head", "left foot"))
    assert (found.poses[0][:, 0, head, 1] > found.poses[0][:, 0, foot, 1] + 1).all()  # y up


def test_moments_for_a_player_know_their_window():
    seen_ = recording.of_poses("x", [np.ones((300, 1, 25, 3), np.float32), np.ones((60, 1, 25, 3), np.float32)])
    windows = seen_.windows(3.0)
    shown = seen_.shown(windows, str, begin=1.0)
    assert shown[0]["second"] == pytest.approx(1.0) and "jpeg" not in shown[0]
    for one in shown:
        window = windows[one["window"]]
        assert window.stretch == one["stretch"] and 0 <= one["clip_frame"] < window.stop - window.start
        assert window.start + one["clip_frame"] == round(one["second"] * 30) - 300 * one["stretch"]
    assert len(seen_.shown(windows, str, most=12)) == 12
