"""The compiled pipelines: the draws to the bit, the plain version's numbers within float32 rounding, in any thread."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from plain_pipelines import PLAIN, chances, turn_matrices

from bpilib.feeders import Feeder
from bpilib.ops import counter_rng, feeder_kernels
from bpilib.skeleton import MODALITIES, NTU, UCLA

LENGTHS = (1, 2, 5, 40, 64, 65, 83, 130, 300)


@pytest.fixture(scope="module", params=[(NTU, 2), (NTU, 1), (UCLA, 1), (UCLA, 3)], ids=lambda p: f"{p[0].name}{p[1]}")
def store(request, make_store):
    skeleton, persons = request.param
    shape = (persons, skeleton.num_joints, 3)
    clips = [np.random.RandomState(n).standard_normal((length, *shape)) for n, length in enumerate(LENGTHS)]
    clips[3][-7:] = 0  # empty frames
    clips[4][..., 1] = 0.25  # flat
    return make_store(skeleton, clips, [i % 3 for i in range(len(clips))])


def assert_plain(store, modality, train, seed, window=None, repeats=1):
    """Every clip of a batch is the plain version's, in an order of its own and with some that come twice."""
    feeder = Feeder(store, np.arange(len(store))[::-1], modality, window, train=train, seed=seed, repeats=repeats)
    feeder.epoch = 5
    positions = [*range(len(feeder)), 3, 3]
    x, labels = feeder.batch(positions)
    assert x.dtype == torch.float32 and x.is_contiguous()
    assert x.any() == (feeder.window > 1 or not modality.endswith("motion"))
    for n, position in enumerate(positions):
        index = len(store) - 1 - position % len(store)
        chance = chances(store.skeleton, seed, 5, position) if train else None
        expected = PLAIN[store.skeleton.name](store.sample(index), modality, feeder.window, chance)
        np.testing.assert_allclose(x[n], expected, rtol=0, atol=3e-5)
        assert labels[n] == store.labels[index]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_clips_are_those_of_the_plain_version(store, modality, train):
    assert_plain(store, modality, train, seed=-3, repeats=2)


@pytest.mark.parametrize("window", [1, 2, 17, 100])
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_clips_are_those_of_the_plain_version_at_every_window(store, window, train):
    assert_plain(store, "joint_motion", train, seed=2**64 - 1, window=window)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63, 2**64 - 1])
def test_draws_are_the_same_to_the_bit(seed):
    for epoch, stream in ((0, counter_rng.CROP), (7, counter_rng.ROTATE), (12345, counter_rng.FRAMES)):
        for position in (0, 12345, 2**40):
            word = np.uint64(feeder_kernels._sequence(np.uint64(seed % 2**64), np.uint64(epoch), stream, position))
            expected = counter_rng.uniform(seed, epoch, np.array([position]), stream, 20)[0]
            assert [feeder_kernels._uniform(word, number) for number in range(1, 21)] == expected.tolist()


@pytest.mark.parametrize("below", [1, 2, 121, 2**31, 2**53])
def test_whole_numbers_stay_below(below):
    for draw in (0.0, 0.3, 0.999, 1 - 2.0**-53):
        expected = counter_rng.integers(np.array([draw]), below).item()
        assert feeder_kernels._integer(draw, below) == expected < below


@pytest.mark.parametrize("window", [1, 52, 100])
def test_frames_are_those_of_the_first_distinct_draws(window):
    seen, times = np.zeros(5000 * feeder_kernels.UCLA_COPIES, bool), np.zeros(5000, int)
    for position, length in enumerate((1, 2, 3, 31, 201, 5000)):
        frames, copies = np.empty(window, int), feeder_kernels.UCLA_COPIES * length
        word = np.uint64(feeder_kernels._sequence(np.uint64(9), np.uint64(4), counter_rng.FRAMES, position))
        feeder_kernels._draw_frames(word, length, window, seen, times, frames)
        sequence = counter_rng.uniform(9, 4, np.array([position]), counter_rng.FRAMES, 4000)[0]
        distinct = list(dict.fromkeys(int(draw * copies) for draw in sequence))[:window]
        assert len(distinct) == window
        assert frames.tolist() == sorted(number // feeder_kernels.UCLA_COPIES for number in distinct)
        assert not seen.any() and not times.any()


def test_rotations_are_the_published_ones(golden):
    published = golden("rotation")
    assert len(published["angles_xyz"])
    for angles, matrix in zip(published["angles_xyz"], published["matrices"], strict=True):
        np.testing.assert_allclose(feeder_kernels._rotation(*angles.tolist()), matrix, rtol=0, atol=1e-6)


def test_rotations_are_rotations():
    for angles in np.random.RandomState(0).uniform(-math.pi, math.pi, (20, 3)):
        turn = np.array(feeder_kernels._rotation(*angles), float)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), rtol=0, atol=1e-6)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-6)
        about_x, about_y, about_z = turn_matrices(*angles)
        np.testing.assert_allclose(turn, about_z @ about_y @ about_x, rtol=0, atol=1e-6)


def test_threads_do_not_disturb_each_other(store):
    feeder = Feeder(store, np.arange(len(store)), train=True, repeats=50)
    orders = [np.random.RandomState(n).permutation(len(feeder)) for n in range(4)]
    expected = [feeder.batch(order)[0] for order in orders]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for (x, _), alone in zip(pool.map(feeder.batch, orders), expected):
                assert torch.equal(x, alone)
