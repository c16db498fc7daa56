"""The compiled pipelines draw what the tensors draw, to the bit, and give their numbers within float32 rounding."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bpilib import draws, kernels
from bpilib.feeders import Feeder, rotation
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


def both(store, monkeypatch, modality="joint", **options):
    """The batch of all clips through the kernel and through tensors."""
    feeder = Feeder(store, np.arange(len(store))[::-1], modality, **options)
    feeder.epoch = 5
    positions = [*range(len(feeder)), 3, 3]
    compiled = feeder.batch(positions)
    monkeypatch.setattr(Feeder, "_on_host", False)
    return compiled, feeder.batch(positions)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_both_pipelines_give_the_same(store, monkeypatch, modality, train):
    (x, y), (expected, labels) = both(store, monkeypatch, modality, train=train, seed=-3, repeats=3)
    assert x.dtype == expected.dtype and x.shape == expected.shape and x.is_contiguous()
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=3e-6)
    assert torch.equal(y, labels)
    assert x.any() and expected.any()


@pytest.mark.parametrize("window", [1, 2, 17, 100])
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_both_pipelines_give_the_same_at_every_window(store, monkeypatch, window, train):
    (x, _), (expected, _) = both(store, monkeypatch, "joint_motion", train=train, window=window, seed=2**64 - 1)
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63, 2**64 - 1])
def test_draws_are_the_same_to_the_bit(seed):
    for epoch, stream in ((0, draws.CROP), (7, draws.ROTATE), (12345, draws.FRAMES)):
        for position in (0, 12345, 2**40):
            word = np.uint64(kernels._sequence(np.uint64(seed % 2**64), np.uint64(epoch), stream, position))
            expected = draws.uniform(seed, epoch, torch.tensor([position]), stream, 20)[0]
            assert [kernels._uniform(word, number) for number in range(1, 21)] == expected.tolist()


@pytest.mark.parametrize("below", [1, 2, 121, 2**31, 2**53])
def test_whole_numbers_stay_below(below):
    for draw in (0.0, 0.3, 0.999, 1 - 2.0**-53):
        expected = draws.integers(torch.tensor([draw], dtype=torch.float64), torch.tensor(below)).item()
        assert kernels._integer(draw, below) == expected < below


@pytest.mark.parametrize("window", [1, 52, 100])
def test_frames_are_those_of_the_distinct_draws(window):
    lengths = torch.tensor([1, 2, 3, 31, 201, 5000])
    positions = torch.arange(len(lengths))
    expected = draws.distinct(9, 4, positions, draws.FRAMES, lengths * kernels.UCLA_COPIES, window)
    seen, times = np.zeros(5000 * kernels.UCLA_COPIES, bool), np.zeros(5000, int)
    for position, length in enumerate(lengths.tolist()):
        frames = np.empty(window, int)
        word = np.uint64(kernels._sequence(np.uint64(9), np.uint64(4), draws.FRAMES, position))
        kernels._draw_frames(word, length, window, seen, times, frames)
        assert frames.tolist() == (expected[position] // kernels.UCLA_COPIES).tolist()
        assert not seen.any() and not times.any()


def test_rotations_are_the_same():
    for angles in np.random.RandomState(0).uniform(-math.pi, math.pi, (20, 3)):
        expected = rotation(torch.from_numpy(angles)[None])[0]
        np.testing.assert_allclose(kernels._rotation(*angles), expected, rtol=0, atol=1e-7)


def test_batches_for_another_device_are_made_on_the_host(store):
    here = Feeder(store, np.arange(len(store)), train=True)
    there = Feeder(store, np.arange(len(store)), train=True, device="meta")  # no GPU is needed for its copies
    x, labels = there.batch([1, 0])
    assert x.device.type == labels.device.type == "meta"
    assert x.shape == here.batch([1, 0])[0].shape
    assert there._thread is not None and here._thread is None  # made ahead, while the device is at work


def test_threads_do_not_disturb_each_other(store):
    feeder = Feeder(store, np.arange(len(store)), train=True, repeats=50)
    orders = [np.random.RandomState(n).permutation(len(feeder)) for n in range(4)]
    expected = [feeder.batch(order)[0] for order in orders]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for x, alone in zip(pool.map(feeder._make, orders), expected):
                assert torch.equal(x[0], alone)
