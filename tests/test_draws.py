"""Random numbers by counter: exact, uniform, and dependent on nothing but what they are asked for."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from bpilib import draws

N = 20_000
POSITIONS = torch.arange(N)
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
    ours = draws.uniform(seed, 7, torch.tensor(positions), draws.ROTATE, 5)
    assert ours.dtype == torch.float64
    assert ours.tolist() == [plain_uniform(seed, 7, position, draws.ROTATE, 5) for position in positions]


@pytest.mark.parametrize("stream", [draws.CROP, draws.ROTATE, draws.FRAMES, draws.SYNONYM])
def test_uniform(stream):
    values = draws.uniform(0, 3, POSITIONS, stream, 4).numpy()
    assert values.shape == (N, 4)
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        assert even(column, 100) > 1e-3
    assert even(values.ravel(), 1000) > 1e-3
    assert even(values.ravel() * 1024 % 1, 64) > 1e-3  # the lower bits too


def test_uniform_over_epochs_and_over_seeds_for_one_position():
    first = torch.zeros(1, dtype=torch.int64)
    epochs = [draws.uniform(0, epoch, first, draws.CROP, 1).item() for epoch in range(2000)]
    seeds = [draws.uniform(seed, 0, first, draws.CROP, 1).item() for seed in range(2000)]
    assert even(epochs, 20) > 1e-3
    assert even(seeds, 20) > 1e-3
    assert abs(np.corrcoef(epochs, seeds)[0, 1]) < 0.1


def test_neighbours_are_not_correlated():
    base = draws.uniform(0, 0, POSITIONS, draws.CROP, 2)
    others = {
        "position": draws.uniform(0, 0, POSITIONS + 1, draws.CROP, 1)[:, 0],
        "count": base[:, 1],
        "stream": draws.uniform(0, 0, POSITIONS, draws.ROTATE, 1)[:, 0],
        "epoch": draws.uniform(0, 1, POSITIONS, draws.CROP, 1)[:, 0],
        "seed": draws.uniform(1, 0, POSITIONS, draws.CROP, 1)[:, 0],
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 0.025, name
        pairs = (base[:, 0] * 10).floor() / 10 + other / 10  # 100 cells of the square
        assert even(pairs.numpy(), 100) > 1e-3, name


def test_no_two_seeds_epochs_streams_positions_share_a_number():
    every = [
        draws.uniform(seed, epoch, torch.arange(50), stream, 2).flatten()
        for seed in range(6)
        for epoch in range(6)
        for stream in range(4)
    ]
    every = torch.cat(every)
    assert len(every.unique()) == len(every)


def test_a_draw_does_not_depend_on_the_batch():
    every = draws.uniform(5, 2, POSITIONS[:500], draws.CROP, 3)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.uniform(5, 2, order, draws.CROP, 3), every[order])
    assert torch.equal(draws.uniform(5, 2, torch.tensor([17, 17]), draws.CROP, 3), every[[17, 17]])
    assert torch.equal(draws.uniform(5, 2, POSITIONS[:500], draws.CROP, 9)[:, :3], every)
    assert draws.uniform(5, 2, POSITIONS[:0], draws.CROP, 3).shape == (0, 3)


def test_no_state_is_kept_or_touched():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = draws.uniform(1, 1, POSITIONS[:9], draws.CROP, 2)
    draws.distinct(1, 1, POSITIONS[:9], draws.FRAMES, torch.full((9,), 100), 4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(draws.uniform(1, 1, POSITIONS[:9], draws.CROP, 2), first)


@pytest.mark.parametrize("below", [1, 2, 3, 7, 121])
def test_integers_are_even(below):
    values = draws.integers(draws.uniform(0, 0, POSITIONS, draws.CROP, 1), torch.tensor(below))
    assert values.dtype == torch.int64
    counts = np.bincount(values.flatten().numpy(), minlength=below)
    assert len(counts) == below
    assert below == 1 or chisquare(counts).pvalue > 1e-3


def test_integers_stay_below_at_the_ends():
    last = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    for below in (1, 2, 100, 2**31, 2**53, 2**60):
        low, high = draws.integers(last, torch.tensor(below)).tolist()
        assert low == 0
        assert below - 1 - below // 2**52 <= high <= below - 1
    assert draws.integers(last, torch.tensor([3, 5])).tolist() == [0, 4]


def test_distinct_numbers_are_sorted_and_within_their_rows_range():
    below = torch.randint(52, 20_000, (300,), generator=torch.Generator().manual_seed(0))
    values = draws.distinct(0, 0, torch.arange(300), draws.FRAMES, below, 52)
    assert values.shape == (300, 52)
    assert values.dtype == torch.int64
    assert (values[:, 1:] > values[:, :-1]).all()
    assert (values >= 0).all()
    assert (values < below[:, None]).all()


def test_distinct_are_the_first_distinct_ones_of_the_sequence():
    below = torch.tensor([4, 5, 20, 1000])
    ours = draws.distinct(3, 1, torch.arange(4), draws.FRAMES, below, 4)
    sequence = draws.integers(draws.uniform(3, 1, torch.arange(4), draws.FRAMES, 200), below[:, None])
    for row, numbers in zip(ours.tolist(), sequence.tolist()):
        assert row == sorted(list(dict.fromkeys(numbers))[:4])


@pytest.mark.parametrize(("below", "count"), [(5, 2), (6, 3), (4, 1), (5, 4)])
def test_each_subset_is_equally_likely(below, count):
    values = draws.distinct(0, 0, POSITIONS, draws.FRAMES, torch.full((N,), below), count)
    subsets = dict.fromkeys(combinations(range(below), count), 0)
    for row in map(tuple, values.tolist()):
        subsets[row] += 1
    assert chisquare(list(subsets.values())).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 2, 52, 100])
def test_all_there_are(count):
    values = draws.distinct(0, 0, torch.arange(20), draws.FRAMES, torch.full((20,), count), count)
    assert torch.equal(values, torch.arange(count).expand(20, count))


def test_distinct_does_not_depend_on_the_batch():
    # Rows that need a longer sequence (all of 60) stand beside ones that do not.
    below = torch.where(torch.arange(200) % 2 == 0, 60, 5000)
    every = draws.distinct(9, 4, torch.arange(200), draws.FRAMES, below, 60)
    for rows in (torch.tensor([1]), torch.arange(1, 200, 2), torch.randperm(200)):
        assert torch.equal(draws.distinct(9, 4, rows, draws.FRAMES, below[rows], 60), every[rows])
    assert draws.distinct(9, 4, rows[:0], draws.FRAMES, below[:0], 60).shape == (0, 60)
