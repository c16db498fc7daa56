"""Intervals and tests against textbook values, other implementations, and by hand."""

import numpy as np
import pytest
from scipy import stats

from bpilib.metrics import (
    bootstrap,
    harmonic_mean,
    holm,
    mcnemar,
    paired_interval,
    seed_interval,
    share_right,
    sign_flips,
    wilson,
)


def test_wilson_interval_equals_the_textbook():
    found = [wilson(*case) for case in ((5, 10), (10, 10), (0, 10))]
    np.testing.assert_allclose(found, [(23.66, 76.34), (72.25, 100), (0, 27.75)], atol=0.01)


def test_wilson_of_another_confidence_and_of_no_clips():
    low, high = wilson(5, 10, confidence=0.975)
    assert low < 23.66 and high > 76.34
    assert np.isnan(wilson(0, 0)).all()


def test_the_share_of_right_answers_comes_with_the_same_interval():
    right = np.array([True, True, True, False])
    assert share_right(right).tolist() == [75, *wilson(3, 4)]
    assert share_right(right, 0.975).tolist() == [75, *wilson(3, 4, 0.975)]
    assert np.isnan(share_right(np.zeros(0, bool))).all()


def test_the_bootstrap_covers_the_mean_and_repeats_itself():
    values = np.random.default_rng(0).random(200) < 0.8
    low, high = bootstrap(values.astype(float))
    half = 196 * np.sqrt(values.mean() * (1 - values.mean()) / 200)  # the normal approximation
    assert low == pytest.approx(100 * values.mean() - half, abs=0.8)
    assert high == pytest.approx(100 * values.mean() + half, abs=0.8)
    assert (low, high) == bootstrap(values.astype(float))
    assert np.isnan(bootstrap(np.ones(1))).all()


def test_mcnemar_is_the_exact_permutation_test_of_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 9)) < [[0.8], [0.4]]
    exact = stats.permutation_test(
        (a.astype(float), b.astype(float)),
        lambda x, y: np.mean(x) - np.mean(y),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    )
    assert mcnemar(a, b) == pytest.approx(exact.pvalue)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_sign_flips_of_right_and_wrong_are_mcnemar():
    a = np.array([1, 1, 1, 1, 1, 0, 1, 0, 1], bool)
    b = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    assert sign_flips(a.astype(float) - b) == pytest.approx(mcnemar(a, b))  # 9 clips: all 512 signs
    assert sign_flips(b.astype(float) - a) == pytest.approx(mcnemar(a, b))
    assert sign_flips(np.zeros(5)) == 1


def test_sign_flips_of_means_over_seeds_find_a_shift_and_nothing_else():
    gain = np.random.default_rng(1).normal(0, 0.3, 400)
    assert sign_flips(gain - gain.mean()) > 0.9
    assert sign_flips(gain - gain.mean() + 0.08) < 0.001


def test_the_interval_over_seeds_is_student_s():
    values = np.array([1.3, -0.2, 0.9])
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert seed_interval(values) == pytest.approx(tuple(expected))
    assert np.isnan(seed_interval(values[:2])).all()


def test_mcnemar_by_hand():
    only_a = np.array([True] * 5 + [False, True])
    only_b = np.array([False] * 5 + [False, True])
    assert mcnemar(only_a, only_b) == pytest.approx(2 / 2**5)
    assert mcnemar(only_a, only_a) == 1


def test_the_paired_interval_by_hand():
    a = np.array([True, True, True, False])
    b = np.array([True, False, False, False])
    # two clips more of six for a, none for b: (3 - 1) / 6, half a width of z * sqrt((4/6 - (2/6)^2) / 6)
    half = 1.959963984540054 * np.sqrt((4 / 6 - 1 / 9) / 6)
    assert paired_interval(a, b) == pytest.approx((100 * (1 / 3 - half), 100 * (1 / 3 + half)))
    assert paired_interval(b, a) == pytest.approx((100 * (-1 / 3 - half), 100 * (-1 / 3 + half)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2] and len(holm([])) == 0


def test_harmonic_mean():
    a = np.array([50.0, 0, 0, 80])
    b = np.array([50.0, 0, 90, 20])
    np.testing.assert_allclose(harmonic_mean(a, b), [50, 0, 0, 32])
