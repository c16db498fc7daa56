"""Random numbers by counter: exact, uniform, and dependent on nothing but what they are asked for."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from bpilib.ops import counter_rng

N = 20_000
POSITIONS = np.arange(N)
WORD = (1 << 64) - 1


def split_mix(state):
    """One output of SplitMix64 from its state, in whole numbers."""
    z = (state + 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def plain_uniform(seed, epoch, position, stream, count):
    word = 0
    for part in (seed, epoch, stream, position):
        word = split_mix(word ^ (part & WORD))
    step = 0x9E3779B97F4A7C15
    return [(split_mix((word + i * step) & WORD) >> 11) / 2**53 for i in range(count)]


def even(values, bins):
    """p-value of numbers in [0, 1) being spread evenly over bins."""
    return chisquare(np.bincount((np.asarray(values) * bins).astype(int), minlength=bins)).pvalue


def test_the_plain_generator_is_split_mix():
    step = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix(1234567 + i * step) for i in range(4)] == expected  # the numbers known of seed 1234567


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_equals_the_generator_in_whole_numbers(seed):
    positions = [0, 1, 12345, 2**40]
    ours = counter_rng.uniform(seed, 7, np.array(positions), counter_rng.ROTATE, 5)
    assert ours.dtype == np.float64
    assert ours.tolist() == [plain_uniform(seed, 7, position, counter_rng.ROTATE, 5) for position in positions]


@pytest.mark.parametrize("stream", [counter_rng.CROP, counter_rng.ROTATE, counter_rng.FRAMES, counter_rng.SYNONYM])
def test_uniform(stream):
    values = counter_rng.uniform(0, 3, POSITIONS, stream, 4)
    assert values.shape == (N, 4)
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        assert even(column, 100) > 1e-3
    assert even(values.ravel(), 1000) > 1e-3
    assert even(values.ravel() * 1024 % 1, 64) > 1e-3  # the lower bits too


def test_uniform_over_epochs_and_over_seeds_for_one_position():
    first = np.zeros(1, np.int64)
    epochs = [counter_rng.uniform(0, epoch, first, counter_rng.CROP, 1).item() for epoch in range(2000)]
    seeds = [counter_rng.uniform(seed, 0, first, counter_rng.CROP, 1).item() for seed in range(2000)]
    assert even(epochs, 20) > 1e-3
    assert even(seeds, 20) > 1e-3
    assert abs(np.corrcoef(epochs, seeds)[0, 1]) < 0.1


def test_neighbours_are_not_correlated():
    base = counter_rng.uniform(0, 0, POSITIONS, counter_rng.CROP, 2)
    others = {
        "position": counter_rng.uniform(0, 0, POSITIONS + 1, counter_rng.CROP, 1)[:, 0],
        "count": base[:, 1],
        "stream": counter_rng.uniform(0, 0, POSITIONS, counter_rng.ROTATE, 1)[:, 0],
        "epoch": counter_rng.uniform(0, 1, POSITIONS, counter_rng.CROP, 1)[:, 0],
        "seed": counter_rng.uniform(1, 0, POSITIONS, counter_rng.CROP, 1)[:, 0],
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 0.025, name
        pairs = np.floor(base[:, 0] * 10) / 10 + other / 10  # 100 cells of the square
        assert even(pairs, 100) > 1e-3, name


def test_no_two_seeds_epochs_streams_positions_share_a_number():
    every = [
        counter_rng.uniform(seed, epoch, np.arange(50), stream, 2).ravel()
        for seed in range(6)
        for epoch in range(6)
        for stream in range(4)
    ]
    every = np.concatenate(every)
    assert len(np.unique(every)) == len(every)


def test_a_draw_does_not_depend_on_the_batch():
    every = counter_rng.uniform(5, 2, POSITIONS[:500], counter_rng.CROP, 3)
    order = np.random.RandomState(0).permutation(500)
    assert np.array_equal(counter_rng.uniform(5, 2, order, counter_rng.CROP, 3), every[order])
    assert np.array_equal(counter_rng.uniform(5, 2, np.array([17, 17]), counter_rng.CROP, 3), every[[17, 17]])
    assert np.array_equal(counter_rng.uniform(5, 2, POSITIONS[:500], counter_rng.CROP, 9)[:, :3], every)
    assert counter_rng.uniform(5, 2, POSITIONS[:0], counter_rng.CROP, 3).shape == (0, 3)


def test_no_state_is_kept_or_touched():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    given = POSITIONS[:9].copy()
    first = counter_rng.uniform(1, 1, given, counter_rng.CROP, 2)
    assert np.array_equal(given, POSITIONS[:9])
    assert (torch.rand(1), np.random.rand()) == expected
    assert np.array_equal(counter_rng.uniform(1, 1, POSITIONS[:9], counter_rng.CROP, 2), first)


@pytest.mark.parametrize("below", [1, 2, 3, 7, 121])
def test_integers_are_even(below):
    drawn = counter_rng.uniform(0, 0, POSITIONS, counter_rng.CROP, 1)
    values = counter_rng.integers(drawn, below)
    assert values.dtype == np.int64
    counts = np.bincount(values.flatten(), minlength=below)
    assert len(counts) == below
    assert below == 1 or chisquare(counts).pvalue > 1e-3


def test_integers_stay_below_at_the_ends():
    last = np.array([0.0, 1 - 2.0**-53])
    for below in (1, 2, 100, 2**31, 2**53, 2**60):
        low, high = counter_rng.integers(last, below).tolist()
        assert low == 0
        assert below - 1 - below // 2**52 <= high <= below - 1
    assert counter_rng.integers(last, np.array([3, 5])).tolist() == [0, 4]
