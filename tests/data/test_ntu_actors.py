"""Tracked bodies to two actors: against the published steps written out plainly, on random scenes and exact cases."""

import random

import numpy as np
import pytest

from bpilib.data.ntu.actors import select_actors
from bpilib.data.ntu.parser import Bodies
from bpilib.data.ntu.raw_files import BadFileError


def scene(tracks):
    """{name: {frame: (25, 3)}} over raw frames to Bodies; names in the order given within a frame."""
    at, ids, joints, order, valid = [], [], [], {}, 0
    for frame in range(1 + max(max(track) for track in tracks.values())):
        here = [name for name, track in tracks.items() if frame in track]
        for name in here:
            at.append(valid)
            ids.append(order.setdefault(name, len(order)))
            joints.append(tracks[name][frame])
        valid += bool(here)
    return Bodies(valid, np.array(at), np.array(ids), np.array(joints, np.float32))


def plainly(bodies, copy_single=False):
    """The published steps with their loops; (L, 2, 25, 3), or None where the published code fails."""
    data = {}
    for frame, body, joints in zip(bodies.at, bodies.ids, bodies.joints):
        if body not in data:
            data[body] = {"joints": [joints], "interval": [frame]}
        else:
            data[body]["joints"].append(joints)
            data[body]["interval"].append(data[body]["interval"][-1] + 1)
    for body in data.values():
        body["joints"] = np.vstack(body["joints"])
    if len(data) == 1:
        frames = next(iter(data.values()))["joints"].reshape(-1, 75)
    else:
        for body in data.values():
            body["motion"] = np.sum(np.var(body["joints"], axis=0))
        data = {name: body for name, body in data.items() if len(body["interval"]) > 11}
        if not data:
            return None
        for name, body in list(data.items()):
            if len(data) == 1:
                break
            good = []
            for i, points in enumerate(body["joints"].reshape(-1, 25, 3)):
                x, y = points[:, 0], points[:, 1]
                if x.max() - x.min() <= np.float32(0.8) * (y.max() - y.min()):
                    good.append(i)
            noisy = len(body["interval"]) - len(good)
            if noisy and noisy / float(len(body["interval"])) >= 0.69754:
                del data[name]
            elif noisy:
                rest = body["joints"].reshape(-1, 25, 3)[good].reshape(-1, 3)
                body["motion"] = min(body["motion"], np.sum(np.var(rest, axis=0)))
        if len(data) == 1:
            body = next(iter(data.values()))
            frames = np.zeros((bodies.frames, 75), np.float32)
            frames[body["interval"][0] : body["interval"][-1] + 1] = body["joints"].reshape(-1, 75)
        else:
            queue = sorted(data.values(), key=lambda body: body["motion"], reverse=True)
            frames = np.zeros((bodies.frames, 150), np.float32)
            first = queue.pop(0)
            start1, end1 = first["interval"][0], first["interval"][-1]
            frames[start1 : end1 + 1, :75] = first["joints"].reshape(-1, 75)
            start2, end2 = 0, 0
            for body in queue:
                start, end = body["interval"][0], body["interval"][-1]
                if min(end1, end) - max(start1, start) <= 0:
                    frames[start : end + 1, :75] = body["joints"].reshape(-1, 75)
                    start1, end1 = min(start, start1), max(end, end1)
                elif min(end2, end) - max(start2, start) <= 0:
                    frames[start : end + 1, 75:] = body["joints"].reshape(-1, 75)
                    start2, end2 = min(start, start2), max(end, end2)
        frames = frames[np.where(frames.sum(axis=1) != 0)[0]]
    origin = next((frame[3:6].copy() for frame in frames if np.any(frame[:75] != 0)), None)
    if origin is None:
        return None
    two = frames.shape[1] == 150
    if two:
        gone1 = np.where(frames[:, :75].sum(axis=1) == 0)[0]
        gone2 = np.where(frames[:, 75:].sum(axis=1) == 0)[0]
    moved = frames.copy()
    for frame in moved:
        frame -= np.tile(origin, 50 if two else 25)
    if two:
        moved[gone1, :75], moved[gone2, 75:] = 0, 0
    else:
        moved = np.hstack((moved, moved if copy_single else np.zeros_like(moved)))
    return moved.reshape(-1, 2, 25, 3)


def body(rng, frames, wide=(), zero=0.0):
    """{frame: (25, 3)}: a standing figure that drifts, lying in the frames `wide`; a share `zero` is all zero."""
    pose = rng.normal(0, 1, (25, 3)) * (0.1, 0.5, 0.1)
    where, drift = rng.normal(0, 1, 3), rng.normal(0, 0.1, 3) * rng.random()
    out = {}
    for number, frame in enumerate(frames):
        joints = where + drift * number + pose * ((4, 0.3, 1) if frame in wide else (1, 1, 1))
        out[frame] = np.float32(joints + rng.normal(0, 0.01, (25, 3))) * (rng.random() >= zero)
    return out


def some_scene(seed):
    """One to five bodies with gaps, late starts, handed-over ids, wide and zero frames."""
    rng = np.random.default_rng(seed)
    pick = random.Random(seed)
    length = pick.choice((14, 24, 40, 70))
    tracks = {}
    for name in range(pick.choice((1, 2, 2, 2, 3, 3, 4, 5))):
        start = pick.choice((0, 0, pick.randrange(length)))
        end = pick.choice((length, length, pick.randrange(start + 1, length + 1)))
        hole = pick.randrange(length)
        gone = range(hole, hole + pick.choice((0, 0, 5)))
        frames = [frame for frame in range(start, end) if frame not in gone] or [start]
        wide = set(pick.sample(range(length), int(length * pick.choice((0, 0, 0.1, 0.5, 0.69, 0.75, 1)))))
        tracks[name] = body(rng, frames, wide, zero=0.03)
    return scene(tracks)


@pytest.mark.parametrize("copy_single", [False, True], ids=["ntu60", "ntu120"])
def test_random_scenes_equal_the_published_steps_to_the_bit(copy_single):
    shapes = set()
    for seed in range(500):
        bodies = some_scene(seed)
        expected = plainly(bodies, copy_single)
        if expected is None:
            with pytest.raises(BadFileError):
                select_actors(bodies, copy_single)
            shapes.add("failed")
            continue
        found = select_actors(bodies, copy_single)
        assert found.dtype == np.float32 and found.tobytes() == expected.tobytes(), seed
        second = found[:, 1]
        shapes.add("none" if not second.any() else "copy" if (second == found[:, 0]).all() else "two")
    assert shapes >= {"failed", "two", "copy" if copy_single else "none"}


RNG = np.random.default_rng(5)


def test_one_body_is_moved_to_its_spine_and_the_second_person_is_zero_or_a_copy():
    bodies = scene({"a": body(np.random.default_rng(0), range(9))})
    joints = bodies.joints
    alone, copied = select_actors(bodies), select_actors(bodies, copy_single=True)
    np.testing.assert_array_equal(alone[:, 0], joints - joints[0, 1])
    assert not alone[0, 0, 1].any() and not alone[:, 1].any()
    np.testing.assert_array_equal(copied[:, 0], alone[:, 0])
    np.testing.assert_array_equal(copied[:, 1], alone[:, 0])


def test_a_second_person_stands_in_the_first_one_s_coordinates():
    joints = RNG.normal(0, 1, (2, 20, 25, 3)).astype(np.float32) * (0.1, 1, 0.1)
    joints[0] += np.linspace(0, 3, 20)[:, None, None]  # moves more
    bodies = scene({"b": dict(enumerate(joints[1])), "a": dict(enumerate(joints[0]))})
    found = select_actors(bodies, copy_single=True)
    np.testing.assert_array_equal(found[:, 0], np.float32(joints[0]) - np.float32(joints[0])[0, 1])
    np.testing.assert_array_equal(found[:, 1], np.float32(joints[1]) - np.float32(joints[0])[0, 1])


def test_a_handed_over_id_becomes_one_actor_and_is_not_copied():
    rng = np.random.default_rng(2)
    bodies = scene({"a": body(rng, range(20)), "b": body(rng, range(20, 40))})
    found = select_actors(bodies, copy_single=True)
    assert len(found) == 40 and found[:, 0].any((1, 2)).all() and not found[:, 1].any()  # as the published code does


def test_motion_spread_and_shortness_decide_who_stays():
    rng = np.random.default_rng(3)
    long, short = body(rng, range(30)), body(rng, range(11))
    found = select_actors(scene({"short": short, "long": long}))
    assert len(found) == 30 and not found[:, 1].any()
    wide = body(rng, range(30), wide=range(30))
    found = select_actors(scene({"wide": wide, "long": long}))
    np.testing.assert_array_equal(found[:, 0], np.stack(list(long.values())) - long[0][1])


@pytest.mark.parametrize(
    "tracks, what",
    [
        ({"a": dict.fromkeys(range(5), np.zeros((25, 3)))}, "all coordinates of its first actor are zero"),
        ({n: dict.fromkeys(range(20), np.zeros((25, 3))) for n in "ab"}, "all coordinates of its first actor"),
        ({"a": body(RNG, range(11)), "b": body(RNG, range(11))}, "none of its 2 bodies has 12 frames or more"),
        ({"a": dict.fromkeys(range(5), np.linspace(-3e38, 3e38, 75).reshape(25, 3))}, "coordinates too large"),
    ],
)
def test_nothing_left_is_said(tracks, what):
    with np.errstate(over="ignore"), pytest.raises(BadFileError, match=what):
        select_actors(scene(tracks))
