"""The published pipelines of NW-UCLA and NTU, compiled: clip by clip, from the poses straight into the batch.

On the host, for every device; the draws are those of `bpilib.ops.counter_rng`, to the bit. Each clip passes through the
processor's cache once. All of a kernel is in this file, since numba keeps what it compiled until the file changes.
"""

import math
from functools import partial

import numpy as np

from bpilib.ops.counter_rng import CROP, FRAMES, ROTATE
from bpilib.ops.jit import compile_numba, prefetch

NTU_MIN_CROP = 64  # frames
NTU_TEST_SHARE = 0.95
NTU_MAX_ANGLE = 0.3  # rad
UCLA_COPIES = 100  # of each frame's index, of which the window is drawn
UCLA_MAX_ANGLE = 60  # degrees, of pitch and yaw, as published
LINE = 16  # float32 numbers of a cache line
TINY = np.finfo(np.float32).tiny

_STEP, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _31, _11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)

_finite = partial(compile_numba, fastmath={"contract", "nnan", "nsz"})  # products and sums rounded at once, no NaN


@compile_numba
def _mixed(word):
    word = (word ^ (word >> _30)) * _MIX1
    word = (word ^ (word >> _27)) * _MIX2
    return word ^ (word >> _31)


@compile_numba
def _sequence(seed, epoch, stream, position):
    """Where a sample's sequence of draws begins, as in `counter_rng.uniform`."""
    word = _mixed(seed + _STEP)
    word = _mixed((word ^ epoch) + _STEP)
    word = _mixed((word ^ np.uint64(stream)) + _STEP)
    return _mixed((word ^ np.uint64(position)) + _STEP)


@compile_numba
def _uniform(word, number):
    """Draw number 1, 2, ... of a sequence, in [0, 1)."""
    return float(_mixed(word + np.uint64(number) * _STEP) >> _11) * 2.0**-53


@compile_numba
def _integer(draw, below):
    return min(int(draw * below), below - 1)


@compile_numba
def _radians(word, number):
    return (2 * _uniform(word, number) - 1) * NTU_MAX_ANGLE


@compile_numba
def _degrees(word, number, most):
    return _integer(_uniform(word, number), 2 * most + 1) - most


@compile_numba
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


@compile_numba
def _rotation(x, y, z):
    """Rz Ry Rx, three rows, of angles in rad, to be applied to column vectors."""
    cx, cy, cz, sx, sy, sz = math.cos(x), math.cos(y), math.cos(z), math.sin(x), math.sin(y), math.sin(z)
    ax, ay, az = cy, sy * sx, -sy * cx  # Ry Rx, whose second row is 0, cx, sx
    return (
        (np.float32(cz * ax), np.float32(cz * ay + sz * cx), np.float32(cz * az + sz * sx)),
        (np.float32(-sz * ax), np.float32(cz * cx - sz * ay), np.float32(cz * sx - sz * az)),
        (np.float32(sy), np.float32(-cy * sx), np.float32(cy * cx)),
    )


@compile_numba
def _row_rotation(x, y):
    """Ry Rx of angles in degrees, to be applied to row vectors."""
    first, second, third = _rotation(math.radians(x), math.radians(y), 0.0)
    return (
        (first[0], second[0], third[0]),
        (first[1], second[1], third[1]),
        (first[2], second[2], third[2]),
    )


@compile_numba
def _fetch(numbers, start, stop):
    """Have the processor fetch numbers[start:stop], which will be read soon."""
    for index in range(start, stop, LINE):
        prefetch(numbers, index)


@_finite
def _turned(points, centre, turn, x, y, z):
    """Points (count * 3,), less the centre and turned as columns, to their coordinates (count,) apart."""
    (a, b, c), (d, e, f), (g, h, i) = turn
    u, v, w = centre
    for k in range(len(x)):
        p, q, r = points[3 * k] - u, points[3 * k + 1] - v, points[3 * k + 2] - w
        x[k] = a * p + b * q + c * r
        y[k] = d * p + e * q + f * r
        z[k] = g * p + h * q + i * r


@_finite
def _extremes(numbers):
    low, high = numbers[0], numbers[0]
    for number in numbers:
        low, high = min(low, number), max(high, number)
    return low, high


@_finite
def _write(batch, n, c, plane, frames, own, parents, low, scale, shift, bone):
    """One coordinate of one clip: frames of a plane (all its frames * M * V,), scaled, by joint and person."""
    _, _, window, width = batch.shape
    for t in range(window):
        base = np.uint64(frames[t] * width)
        if bone:
            for j in range(width):
                batch[n, c, t, j] = (plane[base + own[j]] - plane[base + parents[j]]) * scale
        else:
            for j in range(width):
                batch[n, c, t, j] = (plane[base + own[j]] - low) * scale + shift


@_finite
def _to_motion(batch, n, c):
    """One coordinate of one clip, each frame subtracted from the next; the last is 0."""
    _, _, window, width = batch.shape
    for t in range(window - 1):
        for j in range(width):
            batch[n, c, t, j] = batch[n, c, t + 1, j] - batch[n, c, t, j]
    for j in range(width):
        batch[n, c, window - 1, j] = 0


@compile_numba
def _place(t, length, window):
    """Of frame t of the window within the crop; in float32 and rounded as published."""
    step = np.float32(length) / np.float32(window)
    return max((np.float32(t) + np.float32(0.5)) * step - np.float32(0.5), np.float32(0))


@compile_numba
def _central(valid):
    """First frame and length of NTU's crop in test mode."""
    cut = int((1 - NTU_TEST_SHARE) * valid / 2)
    return cut, valid - 2 * cut


@compile_numba
def ntu_test_frames(valid, frames):
    """Fill frames (T,), floating, with the places in a clip of `valid` frames that test mode interpolates at."""
    start, length = _central(valid)
    for t in range(len(frames)):
        frames[t] = start + min(_place(t, length, len(frames)), np.float32(length - 1))


@compile_numba
def ucla_test_frames(length, frames):
    """Fill frames (T,) int64 with those that test mode takes of a clip: int(linspace(0, length - 1, T))."""
    window = len(frames)
    step = (length - 1) / max(window - 1, 1)  # divided, as NumPy does: a product with 1 / (T - 1) is off now and then
    for t in range(window):
        frames[t] = int(t * step)
    if window > 1:
        frames[window - 1] = length - 1


@_finite
def ntu(batch, poses, starts, lengths, own, parents, positions, train, bone, motion, seed, epoch):
    """Crop, interpolate to the window, rotate.

    Args:
        batch: (N, 3, T, V * M) float32, filled.
        poses: (all frames, M * V * 3) float32.
        starts, lengths: (n,) int64, of the clips; lengths without empty frames, of at least 1.
        own, parents: (V * M,) uint64, where the joint and its parent lie in a frame (M, V).
        positions: (N,) int64, 0 or more.
        train, bone, motion: what is made.
        seed, epoch: uint64.
    """
    _, _, window, width = batch.shape
    numbers, frame = poses.reshape(-1), np.empty((3, width), np.float32)
    turn = _rotation(0.0, 0.0, 0.0)
    for n in range(len(batch)):
        position = positions[n]
        start, valid = starts[position % len(starts)], lengths[position % len(starts)]
        after = positions[min(n + 1, len(positions) - 1)] % len(starts)
        coming, pace = 3 * width * starts[after], 3 * width * lengths[after] // window
        if train:
            word = _sequence(seed, epoch, CROP, position)
            wanted = max(int((0.5 + 0.5 * _uniform(word, 1)) * valid), NTU_MIN_CROP)
            length = min(wanted, valid)
            start += _integer(_uniform(word, 2), valid - length + 1)
            word = _sequence(seed, epoch, ROTATE, position)
            turn = _rotation(_radians(word, 1), _radians(word, 2), _radians(word, 3))
        else:
            cut, length = _central(valid)
            start += cut
        (a, b, c), (d, e, f), (g, h, i) = turn
        for t in range(window):
            _fetch(numbers, coming + t * pace, coming + (t + 1) * pace)  # of the next clip, while this one is made
            place = _place(t, length, window)
            low = min(int(place), length - 1)
            first, second = start + low, start + min(low + 1, length - 1)
            share = place - np.float32(low)
            for k in range(width):  # in functions of their own these loops would be slower by half
                p, q, r = poses[first, 3 * k], poses[first, 3 * k + 1], poses[first, 3 * k + 2]
                p += share * (poses[second, 3 * k] - p)
                q += share * (poses[second, 3 * k + 1] - q)
                r += share * (poses[second, 3 * k + 2] - r)
                frame[0, k] = a * p + b * q + c * r
                frame[1, k] = d * p + e * q + f * r
                frame[2, k] = g * p + h * q + i * r
            for axis in range(3):
                if bone:
                    for j in range(width):
                        batch[n, axis, t, j] = frame[axis, own[j]] - frame[axis, parents[j]]
                else:
                    for j in range(width):
                        batch[n, axis, t, j] = frame[axis, own[j]]
        if motion:
            for axis in range(3):
                _to_motion(batch, n, axis)


@compile_numba
def ucla(batch, poses, starts, lengths, own, parents, positions, train, bone, motion, seed, epoch, pitch, yaw, turned):
    """Centre, rotate, normalise over the whole clip, draw frames; lengths with all frames.

    Args:
        batch, poses, starts, lengths, own, parents, positions, train, bone, motion, seed, epoch: as of `ntu`.
        pitch, yaw: int64, degrees at most either way, in training.
        turned: float64, degrees of yaw, otherwise.
    """
    _, _, window, width = batch.shape
    most = 0
    for position in positions:
        most = max(most, lengths[position % len(starts)])
    seen, times = np.zeros(most * UCLA_COPIES, np.bool_), np.zeros(most, np.int64)
    frames, planes = np.empty(window, np.int64), np.empty((3, most * width), np.float32)
    numbers, turn = poses.reshape(-1), _row_rotation(0.0, turned)
    for n in range(len(batch)):
        after = positions[min(n + 1, len(positions) - 1)] % len(starts)
        _fetch(numbers, 3 * width * starts[after], 3 * width * (starts[after] + lengths[after]))
        position = positions[n]
        start, length = starts[position % len(starts)], lengths[position % len(starts)]
        if train:
            word = _sequence(seed, epoch, ROTATE, position)
            turn = _row_rotation(_degrees(word, 1, pitch), _degrees(word, 2, yaw))
            _draw_frames(_sequence(seed, epoch, FRAMES, position), length, window, seen, times, frames)
        else:
            ucla_test_frames(length, frames)
        points = poses[start : start + length].reshape(-1)
        x, y, z = planes[0, : length * width], planes[1, : length * width], planes[2, : length * width]
        _turned(points, (points[3], points[4], points[5]), turn, x, y, z)
        for c in range(3):
            plane = planes[c, : length * width]
            low, high = _extremes(plane)
            flat = high == low
            scale = np.float32(0) if flat else np.float32(2) / max(high - low, TINY)
            _write(batch, n, c, plane, frames, own, parents, low, scale, np.float32(flat - 1), bone)
            if motion:
                _to_motion(batch, n, c)
