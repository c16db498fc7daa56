"""Left stays left, up stays up, and bodies stay bodies, whoever tracked them."""

import numpy as np
import pytest
from bodies import acted
from bodies import seen_by as ntu_seen_by

from bpilib.config import Config
from bpilib.data import synthetic
from bpilib.data.synthetic import example
from bpilib.data.trackers import MAPPINGS, to_ntu
from bpilib.skeleton import NTU, UCLA

AT = {name: i for i, name in enumerate(NTU.joints)}
TRACKERS = list(MAPPINGS)


def seen_by(tracker, label=1):
    """A person of the synthetic set as the tracker gives it; raises the right hand (`wave`) unless told otherwise."""
    clip = synthetic.perform(label, 1, 0)
    if tracker == "kinect_v1":
        return clip
    if tracker == "mediapipe":
        return example.convert_to_mediapipe(clip)
    if tracker == "kinect_v2":
        return to_ntu(clip, "kinect_v1")[:, 0]
    if tracker != "coco":
        return ntu_seen_by(tracker, to_ntu(clip, "kinect_v1")[:, 0].astype(float))
    joints = [MAPPINGS["mediapipe"].joints.index(name) for name in MAPPINGS["coco"].joints]
    return example.convert_to_mediapipe(clip)[:, joints, :2] * 250 + 300  # pixels


@pytest.mark.parametrize(
    ("tracker", "ntu", "source"),
    [  # numbers from the trackers' own documentation
        ("mediapipe", "left shoulder", 11), ("mediapipe", "right shoulder", 12), ("mediapipe", "left wrist", 15),
        ("mediapipe", "right knee", 26), ("mediapipe", "left hand tip", 19), ("mediapipe", "right thumb", 22),
        ("mediapipe", "left foot", 31), ("mediapipe", "right foot", 32), ("coco", "left shoulder", 5),
        ("coco", "right elbow", 8), ("coco", "left hip", 11), ("coco", "right ankle", 16),
        ("kinect_v1", "left hand", 7), ("kinect_v1", "right foot", 19), ("kinect_v1", "upper spine", 2),
        ("kinect_v2", "right thumb", 24), ("openpose_25", "right shoulder", 2), ("openpose_25", "left wrist", 7),
        ("openpose_25", "right hip", 9), ("openpose_25", "left ankle", 14), ("openpose_25", "left foot", 19),
        ("openpose_25", "right foot", 22), ("openpose_18", "left shoulder", 5), ("openpose_18", "right hip", 8),
        ("openpose_18", "left ankle", 13), ("human36m", "base of spine", 0), ("human36m", "right knee", 2),
        ("human36m", "left ankle", 6), ("human36m", "upper spine", 8), ("human36m", "head", 10),
        ("human36m", "left shoulder", 11), ("human36m", "right wrist", 16), ("smpl", "base of spine", 0),
        ("smpl", "left hip", 1), ("smpl", "right knee", 5), ("smpl", "left foot", 10), ("smpl", "left shoulder", 16),
        ("smpl", "right wrist", 21), ("azure_kinect", "middle of spine", 1), ("azure_kinect", "left shoulder", 5),
        ("azure_kinect", "left hand tip", 9), ("azure_kinect", "right elbow", 13), ("azure_kinect", "left knee", 19),
        ("azure_kinect", "right foot", 25), ("azure_kinect", "head", 26),
    ],
)  # fmt: skip
def test_joints_come_from_the_numbers_the_trackers_document(tracker, ntu, source):
    row = MAPPINGS[tracker].matrix()[AT[ntu]]
    assert row[source] == 1 and np.count_nonzero(row) == 1


def test_the_parameter_tracker_knows_them_all():
    assert Config.__dataclass_fields__["tracker"].metadata["choices"] == tuple(TRACKERS)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_every_joint_is_a_weighted_mean_and_right_mirrors_left(tracker):
    mapping = MAPPINGS[tracker]
    matrix = mapping.matrix()
    assert matrix.shape == (25, len(mapping.joints)) and matrix.sum(1) == pytest.approx(np.ones(25))

    def swapped(names):
        turned = [n.replace("left", "@").replace("right", "left").replace("@", "right") for n in names]
        return [list(names).index(name) for name in turned]

    assert matrix[swapped(NTU.joints)][:, swapped(mapping.joints)] == pytest.approx(matrix)
    assert set(mapping.weights) == set(NTU.joints) >= mapping.guessed
    table = mapping.table()
    assert table["joint"].tolist() == list(NTU.joints)
    assert set(table[table.guessed != ""]["joint"]) == mapping.guessed


def test_the_table_says_what_a_joint_is_made_of():
    made = MAPPINGS["coco"].table().set_index("joint")["made of"]
    assert made["base of spine"] == "mean of left hip, right hip" and made["left knee"] == "left knee"
    assert made["left hand"] == "1.3 × left wrist − 0.3 × left elbow"


@pytest.mark.parametrize("tracker", TRACKERS)
def test_who_faces_the_camera_has_the_left_hand_at_smaller_x_and_the_head_up(tracker):
    poses = to_ntu(seen_by(tracker), tracker)[:, 0]
    middle = np.median(poses, 0)
    assert middle[AT["left shoulder"], 0] < middle[AT["right shoulder"], 0] - 0.1
    heights = [middle[AT[name], 1] for name in ("head", "upper spine", "base of spine", "left knee", "left ankle")]
    assert heights == sorted(heights, reverse=True)
    if not MAPPINGS[tracker].flat and "left foot" not in MAPPINGS[tracker].guessed:  # up × forward is left: no mirror
        feet, ankles = ([AT[f"{side} {name}"] for side in ("left", "right")] for name in ("foot", "ankle"))
        forward = poses[:, feet].mean(1) - poses[:, ankles].mean(1)
        up = poses[:, AT["upper spine"]] - poses[:, AT["base of spine"]]
        left = poses[:, AT["left hip"]] - poses[:, AT["right hip"]]
        assert (np.cross(up, forward) * left).sum(-1).min() > 0
        assert np.median(forward[:, 2]) < 0  # towards the camera


@pytest.mark.parametrize("tracker", TRACKERS)
def test_bones_have_human_lengths_alike_on_both_sides(tracker):
    poses = to_ntu(seen_by(tracker), tracker)[:, 0]
    length = {NTU.joints[c]: np.median(np.linalg.norm(poses[:, c] - poses[:, p], axis=-1)) for c, p in NTU.bones}
    torso = np.median(np.linalg.norm(poses[:, AT["upper spine"]] - poses[:, AT["base of spine"]], axis=-1))
    assert 0.35 < torso < 0.6
    assert all(0.01 < value < 0.65 for value in length.values()), length
    assert length["left knee"] > length["left elbow"] > length["left hand"] > length["left thumb"]
    for name, value in length.items():
        if name.startswith("left "):
            other = length[name.replace("left", "right")]
            foreshortened = MAPPINGS[tracker].flat
            assert value == pytest.approx(other, rel=0.5 if foreshortened else 0.02), name
    if MAPPINGS[tracker].flat:
        assert torso == pytest.approx(0.5) and not poses[..., 2].any()


def test_mediapipe_and_kinect_agree_on_the_same_performance():
    clip = synthetic.perform(5, 2, 1)
    pair = [to_ntu(c, t)[:, 0] for c, t in ((example.convert_to_mediapipe(clip), "mediapipe"), (clip, "kinect_v1"))]
    hips = [AT["left hip"], AT["right hip"]]
    ours, theirs = (poses - poses[:, hips].mean(1, keepdims=True) for poses in pair)
    apart = np.linalg.norm(ours - theirs, axis=-1)
    same = [AT[name] for name in UCLA.joints if name in AT and name not in ("left hand", "right hand")]
    assert len(same) == 15 and apart[:, same].max() < 1e-5
    assert apart.max() < 0.12  # spine and fingers are guessed from other joints


def test_a_clip_starts_at_the_middle_of_the_first_spine():
    poses = np.zeros((4, 2, 20, 3), np.float32)
    poses[1:, 1] = synthetic.perform(1, 1, 0)[:3] + 5
    poses[2:, 0] = synthetic.perform(2, 1, 0)[:2]
    out = to_ntu(poses, "kinect_v1")
    assert out.shape == (4, 2, 25, 3) and out.dtype == np.float32
    assert not out[0].any() and not out[1, 0].any()  # nobody there: zeros stay
    assert out[1, 1, AT["middle of spine"]] == pytest.approx(np.zeros(3), abs=1e-6)
    shift = poses[2, 0, 3] - out[2, 0, AT["head"]]
    assert poses[1, 1, 3] - out[1, 1, AT["head"]] == pytest.approx(shift, abs=1e-5)  # one shift for all


@pytest.mark.parametrize(("tracker", "more"), [("mediapipe", 1), ("mediapipe", 2), ("kinect_v2", 1), ("kinect_v1", 1)])
def test_what_follows_the_coordinates_is_not_looked_at(tracker, more):
    clip = seen_by(tracker)
    scored = np.concatenate([clip, np.full((*clip.shape[:2], more), np.nan)], -1)
    assert np.array_equal(to_ntu(clip, tracker), to_ntu(scored, tracker))


def test_landmarks_in_the_image_are_not_taken_for_metres():
    world = seen_by("mediapipe")
    image = world * (0.2, 0.3, 0.2) + (0.5, 0.55, 0)
    image[:, 31:] += 0.5  # feet below the frame
    with pytest.raises(ValueError, match=r"expected world landmarks, .* got x and y from 0 to 1, .* save pose_world"):
        to_ntu(image, "mediapipe")
    to_ntu(world + (1, 0, 2), "mediapipe")  # a body in the room, not around its hips


@pytest.mark.parametrize(("unit", "torso"), [(1000, "4"), (100, "4"), (0.1, "0.04")])
def test_other_units_than_metres_are_refused(unit, torso):
    with pytest.raises(ValueError, match=rf"expected metres, a torso of about 0.5, got one of {torso}.*: divide milli"):
        to_ntu(seen_by("kinect_v1") * unit, "kinect_v1")


def test_landmarks_in_pixels_are_told_from_the_world():
    with pytest.raises(ValueError, match=r"a torso of about 0.5, got one of 1.*; .* save pose_world_landmarks, not"):
        to_ntu(300 * seen_by("mediapipe"), "mediapipe")


@pytest.mark.parametrize("tracker", ["kinect_v2", "mediapipe", "human36m"])
def test_a_joint_that_is_0_0_0_for_a_while_is_filled_in(tracker):
    clip = seen_by(tracker)
    lost = MAPPINGS[tracker].joints.index("right wrist")
    spoiled = clip.copy()
    spoiled[5:9, lost] = 0
    assert np.abs(to_ntu(spoiled, tracker) - to_ntu(clip, tracker)).max() < 0.3
    spoiled[:, lost] = 0  # a sensor without it: as it comes
    assert not np.allclose(to_ntu(spoiled, tracker), to_ntu(clip, tracker), atol=0.3)


def test_a_point_of_hardly_any_score_was_not_seen():
    flat = seen_by("coco")
    scored = np.concatenate([flat, np.full((*flat.shape[:2], 1), 0.9)], -1)
    scored[5:9, 10] = (3, 2, 0.04)
    assert np.abs(to_ntu(scored, "coco") - to_ntu(flat, "coco")).max() < 0.3
    per_cent = scored * (1, 1, 100)
    assert np.array_equal(to_ntu(per_cent, "coco"), to_ntu(scored, "coco"))
    guessed = np.concatenate([flat, np.full((*flat.shape[:2], 1), 0.9)], -1)
    guessed[:, 10, 2] = 0.04  # hardly ever seen: the tracker's guess is better than nothing
    assert np.array_equal(to_ntu(guessed, "coco"), to_ntu(flat, "coco"))


def test_the_score_of_a_keypoint_is_not_its_depth():
    flat = seen_by("coco")
    scored = np.concatenate([flat, np.full((*flat.shape[:2], 1), 0.9)], -1)
    assert np.array_equal(to_ntu(flat, "coco"), to_ntu(scored, "coco"))
    assert to_ntu(3 * flat, "coco") == pytest.approx(to_ntu(flat, "coco"), abs=1e-5)  # pixels have no metres


@pytest.mark.parametrize(
    ("poses", "tracker", "message"),
    [
        (np.ones((4, 33, 3)), "openpose", "unknown tracker 'openpose'"),
        (np.ones((4, 33, 3)), "kinect_v2", r"of kinect_v2, got float64 \(4, 1, 33, 3\): set tracker to mediapipe"),
        (np.ones((4, 31, 3)), "mediapipe", r"got float64 \(4, 1, 31, 3\): the trackers there are: mediapipe, kin"),
        (np.ones((4, 20, 3)), "coco", r"got float64 \(4, 1, 20, 3\): set tracker to kinect_v1"),
        (np.ones((4, 24, 3)), "coco", r"got float64 \(4, 1, 24, 3\): set tracker to smpl"),
        (np.ones((4, 25, 3)), "coco", r"set tracker to kinect_v2 or openpose_25 \(kinect_v2: x, y, z in metres"),
        (np.ones((4, 33, 2)), "mediapipe", "expected numbers"),
        (np.ones((33, 3)), "mediapipe", "expected numbers"),
        (np.ones((4, 99)), "mediapipe", r"got float64 \(4, 99\); .* reshape\(len\(clip\), 33, -1\)"),
        (np.full((4, 33, 3), "a"), "mediapipe", "expected numbers"),
        (np.full((4, 33, 3), np.nan), "mediapipe", "not finite"),
        (np.zeros((4, 33, 3)), "mediapipe", "no person"),
        (np.ones((4, 17, 2)), "coco", "torso without length"),
        (np.ones((4, 25, 3)), "kinect_v2", "torso without length"),
    ],
)
def test_what_is_no_clip_of_the_tracker_is_refused(poses, tracker, message):
    with pytest.raises(ValueError, match=message):
        to_ntu(poses, tracker)


def test_the_example_is_the_same_every_time_and_split_by_people(tmp_path):
    one, two = (example.write_clips(tmp_path / name, subjects=6, episodes=1) for name in "ab")
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 4 * 6 + 1
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    rows = [line.split(",") for line in (one / "clips.csv").read_text().splitlines()[1:]]
    assert {(row[2], row[3]) for row in rows} == {(s, "train") for s in "1234"} | {(s, "test") for s in "56"}
    clip = np.load(one / "kick_03_00.npy")
    assert clip.shape[1:] == (33, 3) and clip.dtype == np.float32
    assert clip[:, 0, 1].max() < clip[:, 31, 1].min()  # y runs down: the nose above the foot has less


# --- trackers of depth agree with what they saw, those of images know what they did not see


@pytest.mark.parametrize("tracker", ["kinect_v2", "human36m", "smpl", "azure_kinect"])
def test_a_tracker_of_depth_gives_the_joints_it_has(tracker):
    clip = acted(1)[0]
    out = to_ntu(ntu_seen_by(tracker, clip), tracker)[:, 0]
    made = {"neck", "upper spine", *MAPPINGS[tracker].guessed}
    had = [AT[name] for name in NTU.joints if name not in made]
    assert len(had) >= 14
    np.testing.assert_allclose(out[:, had], clip[:, had] - clip[0, 1], atol=0.011)


def test_azure_kinect_s_metres_are_refused():
    with pytest.raises(ValueError, match="azure_kinect gives millimetres, so that metres are to be multiplied by 1000"):
        to_ntu(ntu_seen_by("azure_kinect", acted(1)[0]) / 1000, "azure_kinect")


FLAT = [name for name in TRACKERS if MAPPINGS[name].flat]


def hidden(tracker, joint, frames, scored):
    """A clip in the image, and one in which a joint is not seen in some frames: 0, 0, or anything with a score of 0."""
    points = ntu_seen_by(tracker, acted(1)[0])
    lost = points.copy()
    lost[frames, MAPPINGS[tracker].joints.index(joint)] = (17, 400) if scored else 0
    score = np.full((*points.shape[:2], 1), 0.9)
    if not scored:
        return points, lost
    gone = score.copy()
    gone[frames, MAPPINGS[tracker].joints.index(joint)] = 0
    return np.concatenate([points, score], -1), np.concatenate([lost, gone], -1)


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("tracker", FLAT)
def test_a_keypoint_that_was_not_seen_is_filled_in_and_is_no_place_in_the_image(tracker, scored):
    whole, lost = hidden(tracker, "left ankle", slice(3, 8), scored)
    one, other = to_ntu(whole, tracker), to_ntu(lost, tracker)
    frames = [f for f in range(len(one)) if not 3 <= f < 8]
    assert np.array_equal(one[frames], other[frames])
    ankle = other[:, 0, AT["left ankle"]]
    between = ankle[2] + np.linspace(0, 1, 7)[1:-1, None] * (ankle[8] - ankle[2])
    np.testing.assert_allclose(ankle[3:8], between, atol=1e-5)
    whole, lost = hidden(tracker, "left ear", slice(0, len(one)), scored)  # from the side: the face has other points
    assert np.abs(to_ntu(lost, tracker) - to_ntu(whole, tracker)).max() < 0.2


@pytest.mark.parametrize("mark", [np.nan, -1])
def test_other_marks_of_what_was_not_seen(mark):
    _, lost = hidden("coco", "left ankle", slice(3, 8), False)
    marked = np.where((lost == 0).all(-1, keepdims=True), mark, lost)
    assert np.array_equal(to_ntu(marked, "coco"), to_ntu(lost, "coco"))


@pytest.mark.parametrize("scored", [False, True])
def test_a_keypoint_that_is_hardly_ever_seen_is_named(scored):
    _, lost = hidden("coco", "right knee", slice(0, 20), scored)
    with pytest.raises(ValueError, match=r"right knee is seen in \d+ of 3\d frames .* leave out such frames"):
        to_ntu(lost, "coco")


def test_somebody_who_comes_later_is_not_filled_in_before():
    points = ntu_seen_by("coco", acted(1)[0])
    pair = np.stack([points, points + 300], 1)
    pair[:9, 1] = 0
    out = to_ntu(pair, "coco")
    assert not out[:9, 1].any() and out[9:, 1].any((1, 2)).all()


@pytest.mark.parametrize("tracker", FLAT)
def test_shares_of_the_image_and_depth_in_the_place_of_a_score_are_refused(tracker):
    points = ntu_seen_by(tracker, acted(1)[0])
    with pytest.raises(ValueError, match=r"expected pixels, got x and y from 0 to 1, .* multiply x by the image"):
        to_ntu(points / (1280, 720), tracker)
    with pytest.raises(ValueError, match=r"expected a score as the third number, 0 or more, got -.*points in 3D"):
        to_ntu(np.concatenate([points, points[..., :1] - 640], -1), tracker)
    for points in (acted(1)[0] + (0.2, 0.1, 3), 1000 * acted(1)[0] + (200, 100, 3000)):  # a Kinect's
        if tracker == "openpose_25":
            with pytest.raises(ValueError, match=r"x and y within \S+: metres|third number, 0 or more, got 0 to"):
                to_ntu(points, tracker)
