"""MediaPipe on films of rendered people whose truth is known: found, upright, left on the left, and silent.

The model comes from a wheel of PyPI (`pose_model`), so that nothing is fetched from a model hub.
"""

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pose_model
import pytest
import rendered_people
from rendered_people import acted, draw, film_of, write_film

from bpilib.data.synthetic import CLASSES
from bpilib.data.trackers import to_ntu
from bpilib.data.video import landmarks, recording
from bpilib.data.video.clips import cut
from bpilib.data.video.landmarks import Wanted, find_model, track_films
from bpilib.skeleton import NTU

HERE = all(importlib.util.find_spec(name) for name in ("mediapipe", "cv2"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason='mediapipe and OpenCV are not here: pip install -e ".[video]"'),
    pytest.mark.skipif(pose_model.find_wheel() is None, reason=pose_model.HOW),
]
JOINT = NTU.joints.index
LIMBS = [JOINT(f"{side} {name}") for side in ("left", "right")
         for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")]  # fmt: skip
ACTIONS, FRAMES, TURNS = ("wave", "kick", "squat"), 40, (0, 45, 135, 180)
LEFT, RIGHT = 11, 12  # MediaPipe's shoulders


def label(action):
    return CLASSES.index(action) + 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return find_model(pose_model.write_task(pose_model.find_wheel(), folder / "pose.task"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """name → film; rendered once."""
    folder, wave = tmp_path_factory.mktemp("films"), acted(label("wave"), 1)[:FRAMES]
    made = {action: film_of(folder / f"{action}.mp4", acted(label(action), 1)[:FRAMES]) for action in ACTIONS}
    for turned in TURNS:
        clip = acted(label("wave"), 1, turned=turned)[:10]
        made[f"turned {turned}"] = film_of(folder / f"turned_{turned}.mp4", clip)
    made["mirrored"] = write_film(folder / "mirrored.mp4", (draw([pose])[:, ::-1] for pose in wave))
    made["sixty"] = write_film(folder / "sixty.mp4", (draw([pose]) for pose in wave.repeat(2, 0)), rate=60)
    made["two"] = film_of(folder / "two.mp4", wave + [0.55, 0, 0], acted(label("clap"), 2)[:FRAMES] + [-0.55, 0, 0.4])
    made["nobody"] = write_film(folder / "nobody.mp4", [draw([])] * 15)
    return made


@pytest.fixture(scope="module")
def found(films, model, tmp_path_factory):
    """name → landmarks; followed once."""
    folder = tmp_path_factory.mktemp("landmarks")

    def track(names, **given):
        return track_films({n: Wanted(films[n], folder / f"{n}.npz") for n in names}, model, progress=False, **given)

    alone = track([name for name in films if name not in ("mirrored", "two")])
    return alone | track(["mirrored"], mirrored=True) | track(["two"], people=2)


def bodies(found, action):
    """(L, 25, 3) found and true, around the hips."""
    (piece,), _ = cut(found[action])
    mine = to_ntu(piece.poses, "mediapipe")[:, 0]
    true = to_ntu(acted(label(action), 1)[piece.frames], "kinect_v1")[:, 0]
    hips = JOINT("base of spine")
    return mine - mine[:, [hips]], true - true[:, [hips]]


def test_people_are_found_where_they_are_and_not_mirrored(found):
    for action in ACTIONS:
        assert np.isfinite(found[action].image[:, 0, 0, 0]).mean() >= 0.95
        mine, true = bodies(found, action)
        error = np.linalg.norm(mine - true, axis=-1)[:, LIMBS].mean()
        mirrored = np.linalg.norm(mine * [-1, 1, 1] - true, axis=-1)[:, LIMBS].mean()
        assert error < 0.25, action
        assert mirrored > 1.5 * error, action
        assert (mine[:, JOINT("head"), 1] > mine[:, JOINT("left foot"), 1] + 1).all()  # upright


def test_the_wrist_that_waves_is_the_right_one(found):
    mine, true = bodies(found, "wave")
    left, right = JOINT("left wrist"), JOINT("right wrist")
    assert true[:, right, 1].max() > true[:, left, 1].max() + 0.2
    assert mine[:, right, 1].max() > mine[:, left, 1].max() + 0.2


def test_hips_go_down_in_a_squat_and_feet_stay(found):
    (piece,), _ = cut(found["squat"])
    mine = to_ntu(piece.poses, "mediapipe")[:, 0]
    true = to_ntu(acted(label("squat"), 1)[piece.frames], "kinect_v1")[:, 0]
    for joint in ("base of spine", "left ankle"):
        moved = [p[:, JOINT(joint), 1] - p[:, JOINT(joint), 1].max() for p in (mine, true)]
        assert np.abs(moved[0] - moved[1]).max() < 0.12, joint


@pytest.mark.parametrize("turned", TURNS)
def test_shoulders_have_their_order_from_all_sides(found, turned):
    image = found[f"turned {turned}"].image[:, 0]
    clip = acted(label("wave"), 1, turned=turned)[:10]
    x = -clip[..., 0]  # to the image's right
    names = rendered_people.UCLA.joints
    true = x[:, names.index("right shoulder")] - x[:, names.index("left shoulder")]
    mine = image[:, RIGHT, 0] - image[:, LEFT, 0]
    assert np.isfinite(mine).mean() >= 0.9
    assert (np.sign(mine[np.isfinite(mine)]) == np.sign(true[np.isfinite(mine)])).mean() >= 0.9


def test_a_mirrored_film_is_turned_round(found):
    (plain,), _ = cut(found["wave"])
    (mirrored,), _ = cut(found["mirrored"])
    count = min(len(plain.poses), len(mirrored.poses))
    apart = np.linalg.norm(plain.poses[:count] - mirrored.poses[:count], axis=-1)
    assert apart.mean() < 0.05


def test_of_sixty_frames_a_second_every_second_one_is_looked_at(found):
    assert found["sixty"].numbers.tolist() == [*range(0, 2 * FRAMES, 2)]
    assert found["sixty"].counts.tolist() == [2 * FRAMES, 2 * FRAMES]


def test_two_people_stand_apart_as_they_do(found):
    pieces, _ = cut(found["two"], people=2)
    piece = max(pieces, key=lambda piece: len(piece.poses))
    assert piece.poses.shape[1] == 2 and len(piece.poses) > FRAMES / 2
    poses = to_ntu(piece.poses, "mediapipe")
    there = poses.any((2, 3)).all(1)
    hips = poses[there][:, :, JOINT("base of spine")]
    apart = hips[:, 0] - hips[:, 1]
    true = np.array([1.1, 0, 0.4])
    assert abs(np.abs(apart[:, 0]).mean() - true[0]) < 0.2  # to the side
    assert np.linalg.norm(apart, axis=1).mean() > 0.7


def test_nobody_in_a_film_is_said(found):
    with pytest.raises(ValueError, match="expected a person, but none was found in any of 15 frames"):
        cut(found["nobody"])


def test_films_are_not_followed_twice_and_a_changed_one_is(films, model, tmp_path, monkeypatch, capfd):
    wanted = {"a": Wanted(films["turned 0"], tmp_path / "a.npz")}
    first = track_films(wanted, model, progress=False)["a"]
    assert capfd.readouterr() == ("", "")  # MediaPipe and TensorFlow Lite print, but not here
    monkeypatch.setattr(landmarks, "_track", lambda todo, *_: dict.fromkeys(todo, "again"))
    np.testing.assert_array_equal(track_films(wanted, model, progress=False)["a"].world, first.world)
    assert track_films(wanted, model, people=2, progress=False)["a"] == "again"
    assert track_films({"a": Wanted(films["turned 45"], tmp_path / "a.npz")}, model, progress=False)["a"] == "again"


def test_one_bad_film_and_one_bad_model_stop_nothing_else(films, model, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    places = {"bad": tmp_path / "bad.mp4", "gone": tmp_path / "gone.mp4", "good": films["turned 0"]}
    wanted = {name: Wanted(place, tmp_path / f"{name}.npz") for name, place in places.items()}
    done = track_films(wanted, model, progress=False)
    assert "is no film" in str(done["bad"]) and "no film at" in str(done["gone"]) and len(done["good"].numbers) == 10
    content = pose_model.zipfile.ZipFile(pose_model.find_wheel()).read(pose_model.MEMBERS["pose_detector.tflite"])
    with pose_model.zipfile.ZipFile(tmp_path / "odd.task", "w") as archive:
        for name in landmarks.MEMBERS:  # two detectors: a zip as expected, but no landmarks
            archive.writestr(name, content)
    odd = track_films({"good": wanted["good"]}, find_model(tmp_path / "odd.task"), progress=False)
    assert "MediaPipe could not follow it with" in str(odd["good"])


def test_a_recording_of_a_film(films, model, tmp_path):
    seen = recording.of_film(films["wave"], model, tmp_path / "wave.npz", progress=False)
    assert seen.found >= 0.95 and seen.poses[0].shape[2:] == (25, 3) and seen.image[0].shape[2:] == (25, 2)
    shown = seen.shown(seen.windows(3.0), lambda image: str(image.shape))
    assert {one["jpeg"] for one in shown} == {"(240, 320, 3)"}


FILTER = """
import ctypes, struct, sys
# Linux ends a process at once that asks for an IPv4 or IPv6 socket; its children, too
code = [(0x20, 0, 0, 0), (0x15, 0, 4, 41), (0x20, 0, 0, 16), (0x15, 1, 0, 2), (0x15, 0, 1, 10),
        (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(packed)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program)):
    sys.exit(77)
"""
WATCHED = f"""
from pathlib import Path
if __name__ == "__main__":
    {FILTER.replace(chr(10), chr(10) + "    ")}
    from bpilib.data.video.landmarks import Wanted, track_films
    found = track_films({{"a": Wanted(Path(sys.argv[1]), Path(sys.argv[2]))}}, Path(sys.argv[3]), progress=False)["a"]
    print(found if isinstance(found, Exception) else f"{{len(found.numbers)}} frames followed")
"""


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="a filter for Linux on x86_64")
def test_no_connection_is_opened(films, model, tmp_path):
    """Sixty frames under a filter that ends whoever opens a socket; first, that the filter does so."""
    control = subprocess.run([sys.executable, "-c", FILTER + "import socket; socket.socket(); print('open')"],
                             capture_output=True, text=True)  # fmt: skip
    if control.returncode == 77:
        pytest.skip("this system has no filters of system calls")
    assert control.returncode < 0 and "open" not in control.stdout
    film = write_film(tmp_path / "sixty.mp4", (draw([pose]) for pose in acted(label("wave"), 1)[:60]))
    (tmp_path / "watched.py").write_text(WATCHED)
    command = [sys.executable, tmp_path / "watched.py", film, tmp_path / "out.npz", model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert done.stdout.strip() == "60 frames followed", done.stdout + done.stderr
