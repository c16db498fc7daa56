"""Persons before an invented camera, as the landmarks that a pose model would find of them."""

import numpy as np

from bpilib.data import synthetic
from bpilib.data.synthetic.example import convert_to_mediapipe
from bpilib.data.video import clips as clips_module
from bpilib.data.video.landmarks import Landmarks

SIZE, FOCAL = (640, 480), clips_module.FOCAL * 640
HIPS = [23, 24]


def acted(label=1, subject=1, frames=60):
    """(frames, 33, 3) world landmarks of one of the built-in people, there and back as long as it takes."""
    poses = convert_to_mediapipe(synthetic.perform(label, subject, 0))
    poses = np.concatenate([poses, poses[::-1]] * (frames // len(poses) + 1))
    return poses[:frames]


def seen(world, at):
    """(n, 33, 3) metres around the hips, and where the hips are (3,) or (n, 3), to (n, 33, 2) pixels."""
    points = world + np.asarray(at, float).reshape(-1, 1, 3)
    return (points[..., :2] / points[..., 2:] * FOCAL + np.array(SIZE) / 2).astype(np.float32)


def landmarks(*persons, fps=30.0, size=SIZE):
    """Persons, each (world (n, 33, 3), image (n, 33, 2)) with NaN where they are not found, as a film of one rate."""
    world, image = (np.stack(arrays, 1).astype(np.float32) for arrays in zip(*persons))
    count = len(world)
    there = np.isfinite(image).all(-1)
    return Landmarks(
        np.arange(count), np.arange(count) / fps, image, world, there.astype(np.float32), np.array(size),
        np.array([count, count]),
    )  # fmt: skip


def person(label=1, subject=1, at=(0, 0, 3.0), frames=60, missing=()):
    world = acted(label, subject, frames)
    image = seen(world, at)
    world, image = world.copy(), image.copy()
    world[list(missing)], image[list(missing)] = np.nan, np.nan
    return world, image
