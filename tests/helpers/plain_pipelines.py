"""The published pipelines in plain NumPy, one frame and one number at a time: what the kernels must compute."""

import math

import numpy as np

from bpilib.ops import counter_rng
from bpilib.skeleton import NTU, UCLA


def turn_matrices(ax, ay, az):
    about_x = np.array([[1, 0, 0], [0, math.cos(ax), math.sin(ax)], [0, -math.sin(ax), math.cos(ax)]])
    about_y = np.array([[math.cos(ay), 0, -math.sin(ay)], [0, 1, 0], [math.sin(ay), 0, math.cos(ay)]])
    about_z = np.array([[math.cos(az), math.sin(az), 0], [-math.sin(az), math.cos(az), 0], [0, 0, 1]])
    return about_x, about_y, about_z


def plain_stream(x, skeleton, modality):
    """(T, M, V, 3) to (3, T, V, M) of a stream."""
    if modality.startswith("bone"):
        bones = np.zeros_like(x)
        for child, parent in skeleton.bones:
            bones[:, :, child] = x[:, :, child] - x[:, :, parent]
        x = bones
    if modality.endswith("motion"):
        motion = np.zeros_like(x)
        for t in range(len(x) - 1):
            motion[t] = x[t + 1] - x[t]
        x = motion
    return x.transpose(3, 0, 2, 1)


def plain_place(i, length, window):
    """Where frame i of the window is interpolated in a crop; in float32, as the published code has it."""
    source = np.float32(i + 0.5) * (np.float32(length) / np.float32(window)) - np.float32(0.5)
    return float(min(max(source, 0), length - 1))


def plain_ntu(clip, modality, window=64, chance=None):
    """chance: three lists of uniform draws (share and place; angles), or None in test mode."""
    clip = clip.astype(np.float64)
    valid = max(sum(bool(frame.any()) for frame in clip), 1)
    if chance:
        (share, place), angles = chance
        length = min(max(math.floor((0.5 + 0.5 * share) * valid), 64), valid)
        start = int(place * (valid - length + 1))
    else:
        start = int((1 - 0.95) * valid / 2)
        length = valid - 2 * start
    crop = clip[start : start + length]
    out = []
    for i in range(window):
        source = plain_place(i, length, window)
        low = int(source)
        high = min(low + 1, length - 1)
        out.append(crop[low] * (1 - (source - low)) + crop[high] * (source - low))
    x = np.stack(out)
    if chance:
        about_x, about_y, about_z = turn_matrices(*(0.6 * angle - 0.3 for angle in angles))
        turn = about_z @ about_y @ about_x
        x = np.array([[[turn @ joint for joint in person] for person in frame] for frame in x])
    return plain_stream(x, NTU, modality)


def plain_ucla(clip, modality, window=52, chance=None):
    """chance: two lists of uniform draws (angles; a long one of frames), or None in test mode."""
    x = clip.astype(np.float64)
    x = x - x[0, 0, 1]
    if chance:
        about_x, about_y, _ = turn_matrices(*(math.radians(int(u * 121) - 60) for u in chance[0]), 0)
        x = x @ (about_y @ about_x)
    low, high = x.min((0, 1, 2)), x.max((0, 1, 2))
    x = 2 * (x - low) / np.where(high > low, high - low, np.inf) - (high > low)
    if chance:
        copies = [frame for frame in range(len(clip)) for _ in range(100)]
        drawn = list(dict.fromkeys(int(u * len(copies)) for u in chance[1]))[:window]
        assert len(drawn) == window
        frames = sorted(copies[number] for number in drawn)
    else:
        frames = np.linspace(0, len(clip) - 1, window).astype(int)
    return plain_stream(x[frames], UCLA, modality)


PLAIN = {"ntu": plain_ntu, "ucla": plain_ucla}


def chances(skeleton, seed, epoch, position):
    """The draws of one sample, for the plain version."""

    def draw(stream, count):
        return counter_rng.uniform(seed, epoch, np.array([position]), stream, count)[0].tolist()

    if skeleton is NTU:
        return draw(counter_rng.CROP, 2), draw(counter_rng.ROTATE, 3)
    return draw(counter_rng.ROTATE, 2), draw(counter_rng.FRAMES, 4000)
