"""The published pipelines of NW-UCLA and NTU, compiled: clip by clip, from the poses straight into the batch.

What `feeders` does with tensors where the poses lie on a GPU, on the host: the same draws to the bit, the same numbers
but for float32 rounding. Each clip passes through the processor's cache once. All of a kernel is in this file, since
numba keeps what it compiled until the file changes.
"""

import math
from functools import partial

import numpy as np

from bpilib.draws import CROP, FRAMES, ROTATE
from bpilib.jit import compiled

NTU_MIN_CROP = 64  # frames
NTU_TEST_SHARE = 0.95
NTU_MAX_ANGLE = 0.3  # rad
UCLA_COPIES = 100  # of each frame's index, of which the window is drawn
UCLA_MAX_ANGLE = 60  # degrees
TINY = np.finfo(np.float32).tiny

_STEP, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _31, _11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)

_rounded = partial(compiled, fastmath={"contract"})  # a product and a sum rounded at once
_finite = partial(compiled, fastmath={"contract", "nnan", "nsz"})  # and extremes of numbers, none of them NaN


@compiled
def _mixed(word):
    word = (word ^ (word >> _30)) * _MIX1
    word = (word ^ (word >> _27)) * _MIX2
    return word ^ (word >> _31)


@compiled
def _sequence(seed, epoch, stream, position):
    """Where a sample's sequence of draws begins, as `draws.uniform` has it."""
    word = _mixed(seed + _STEP)
    word = _mixed((word ^ epoch) + _STEP)
    word = _mixed((word ^ np.uint64(stream)) + _STEP)
    return _mixed((word ^ np.uint64(position)) + _STEP)


@compiled
def _uniform(word, number):
    """Draw number 1, 2, ... of a sequence, in [0, 1)."""
    return float(_mixed(word + np.uint64(number) * _STEP) >> _11) * 2.0**-53


@compiled
def _integer(draw, below):
    return min(int(draw * below), below - 1)


@compiled
def _draw_frames(word, length, window, seen, times, chosen):
    """Frames of distinct draws out of UCLA_COPIES of each, sorted; `seen` and `times` are zero before and after."""
    number = drawn = 0
    copies = np.empty(window, np.int64)
    while drawn < window:
        number += 1
        value = _integer(_uniform(word, number), UCLA_COPIES * length)
        if not seen[value]:
            seen[value] = True
            times[value // UCLA_COPIES] += 1
            copies[drawn] = value
            drawn += 1
    for value in copies:
        seen[value] = False
    drawn = 0
    for frame in range(length):
        for _ in range(times[frame]):
            chosen[drawn] = frame
            drawn += 1
        times[frame] = 0


@compiled
def _rotation(x, y, z):
    """Rz Ry Rx by rows, of angles in rad, as `feeders.rotation`."""
    cx, cy, cz, sx, sy, sz = math.cos(x), math.cos(y), math.cos(z), math.sin(x), math.sin(y), math.sin(z)
    first, second, third = (cy, sy * sx, -sy * cx), (0.0, cx, sx), (sy, -cy * sx, cy * cx)  # Ry Rx
    turn = np.empty((3, 3), np.float32)
    for i in range(3):
        turn[0, i] = cz * first[i] + sz * second[i]
        turn[1, i] = cz * second[i] - sz * first[i]
        turn[2, i] = third[i]
    return turn


@_finite
def _turned(points, centre, turn, x, y, z):
    """Points (count * 3,), less the centre and turned, to their coordinates (count,) apart."""
    cx, cy, cz = centre
    for i in range(len(x)):
        p, q, r = points[3 * i] - cx, points[3 * i + 1] - cy, points[3 * i + 2] - cz
        x[i] = turn[0, 0] * p + turn[0, 1] * q + turn[0, 2] * r
        y[i] = turn[1, 0] * p + turn[1, 1] * q + turn[1, 2] * r
        z[i] = turn[2, 0] * p + turn[2, 1] * q + turn[2, 2] * r


@_finite
def _extremes(numbers):
    low, high = numbers[0], numbers[0]
    for number in numbers:
        low, high = min(low, number), max(high, number)
    return low, high


@_rounded
def _scaled(frame, joints, low, scale, shift, row):
    """Numbers by person and joint (M * V,) to numbers by joint and person."""
    persons = len(row) // joints
    for m in range(persons):
        for v in range(joints):
            row[v * persons + m] = (frame[m * joints + v] - low) * scale + shift


@_rounded
def _between(first, second, share, mixed):
    for i in range(len(mixed)):
        mixed[i] = first[i] + share * (second[i] - first[i])


@compiled
def _place(t, length, window):
    """Of frame t of the window within the crop; in float32 and rounded as published."""
    step = np.float32(length) / np.float32(window)
    return max((np.float32(t) + np.float32(0.5)) * step - np.float32(0.5), np.float32(0))


@compiled
def _stream(clip, parents, bone, motion):
    """Joints (3, T, V * M) to another modality, in place."""
    _, window, width = clip.shape
    persons = width // len(parents)
    joints = np.empty(width, np.float32)
    for c in range(3):
        for t in range(window if bone else 0):
            row = clip[c, t]
            joints[:] = row
            for v in range(len(parents)):
                for m in range(persons):
                    row[v * persons + m] -= joints[parents[v] * persons + m]
        for t in range(window if motion else 0):
            row = clip[c, t]
            after = clip[c, min(t + 1, window - 1)]
            for i in range(width):
                row[i] = after[i] - row[i]


@compiled
def ntu(batch, poses, starts, lengths, parents, positions, train, bone, motion, seed, epoch):
    """Crop, interpolate to the window, rotate.

    Args:
        batch: (N, 3, T, V * M) float32, filled.
        poses: (all frames, M * V * 3) float32.
        starts, lengths: (n,) int64, of the clips; lengths without empty frames, of at least 1.
        parents: (V,) int64.
        positions: (N,) int64, 0 or more.
        train, bone, motion: what is made.
        seed, epoch: uint64.
    """
    _, _, window, width = batch.shape
    turn, mixed = _rotation(0, 0, 0), np.empty(poses.shape[1], np.float32)
    turned = np.empty((3, width), np.float32)
    none = (np.float32(0), np.float32(0), np.float32(0))
    for n in range(len(batch)):
        clip, position = batch[n], positions[n]
        start, valid = starts[position % len(starts)], lengths[position % len(starts)]
        if train:
            word = _sequence(seed, epoch, CROP, position)
            wanted = max(int((0.5 + 0.5 * _uniform(word, 1)) * valid), NTU_MIN_CROP)
            length = min(wanted, valid)
            start += _integer(_uniform(word, 2), valid - length + 1)
            word = _sequence(seed, epoch, ROTATE, position)
            x, y, z = [(2 * _uniform(word, i) - 1) * NTU_MAX_ANGLE for i in (1, 2, 3)]
            turn = _rotation(x, y, z)
        else:
            cut = int((1 - NTU_TEST_SHARE) * valid / 2)
            start += cut
            length = valid - 2 * cut
        for t in range(window):
            place = _place(t, length, window)
            low = min(int(place), length - 1)
            high = min(low + 1, length - 1)
            _between(poses[start + low], poses[start + high], place - np.float32(low), mixed)
            _turned(mixed, none, turn, turned[0], turned[1], turned[2])
            for c in range(3):
                _scaled(turned[c], len(parents), np.float32(0), np.float32(1), np.float32(0), clip[c, t])
        _stream(clip, parents, bone, motion)


@compiled
def ucla(batch, poses, starts, lengths, parents, positions, train, bone, motion, seed, epoch):
    """Centre, rotate, normalise over the whole clip, draw frames; arguments as of `ntu`, lengths with all frames."""
    _, _, window, width = batch.shape
    most = lengths.max()
    seen, times = np.zeros(most * UCLA_COPIES, np.bool_), np.zeros(most, np.int64)
    chosen = np.empty(window, np.int64)
    turn, whole = _rotation(0, 0, 0), np.empty((3, most * width), np.float32)
    for n in range(len(batch)):
        clip, position = batch[n], positions[n]
        start, length = starts[position % len(starts)], lengths[position % len(starts)]
        if train:
            word = _sequence(seed, epoch, ROTATE, position)
            x, y = [math.radians(_integer(_uniform(word, i), 2 * UCLA_MAX_ANGLE + 1) - UCLA_MAX_ANGLE) for i in (1, 2)]
            turn = _rotation(x, y, 0).T.copy()  # for row vectors
            _draw_frames(_sequence(seed, epoch, FRAMES, position), length, window, seen, times, chosen)
        else:
            step = (length - 1) / max(window - 1, 1)
            for t in range(window):
                chosen[t] = int(t * step)
            if window > 1:
                chosen[-1] = length - 1
        points = poses[start : start + length].reshape(-1)
        count = length * width
        _turned(points, (points[3], points[4], points[5]), turn, whole[0, :count], whole[1, :count], whole[2, :count])
        for c in range(3):
            low, high = _extremes(whole[c, :count])
            flat = high == low
            scale = np.float32(0) if flat else np.float32(2) / max(high - low, TINY)
            frames = whole[c, :count].reshape(length, width)
            for t in range(window):
                _scaled(frames[chosen[t]], len(parents), low, scale, np.float32(flat - 1), clip[c, t])
        _stream(clip, parents, bone, motion)
