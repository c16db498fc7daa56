"""Intervals and tests: Wilson, bootstrap, McNemar, Holm; each once."""

from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.stats import binomtest


def wilson(accuracy: float, clips: int) -> tuple[float, float]:
    """95 % Wilson interval, in %, of an accuracy in % over so many clips; (0, 100) without clips."""
    if not clips:
        return 0.0, 100.0
    low, high = binomtest(round(accuracy * clips / 100), int(clips)).proportion_ci(0.95, "wilson")
    return 100 * low, 100 * high


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval, in %, of the mean of clips' values (n,), by drawing clips anew 4,999 times."""
    if len(values) < 2:
        return np.nan, np.nan
    draws = stats.bootstrap((values,), np.mean, n_resamples=4999, batch=100, method="percentile", rng=0)
    return 100 * float(draws.confidence_interval.low), 100 * float(draws.confidence_interval.high)


def bootstrap_means(values: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Means of clips' numbers with their 95 % percentile intervals, by drawing the clips anew.

    Args:
        values: (n, F), F numbers of each clip.
        draws: how often clips are drawn.
        seed: of the draws.

    Returns:
        (F, 3) mean, low, high.
    """
    count = len(values)
    taken = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws) / count  # (draws, n)
    low, high = np.percentile(taken @ values, [2.5, 97.5], axis=0)
    return np.stack([values.mean(0), low, high], -1)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test, which is the paired permutation test of right and wrong; 1 where all agree.

    Source: McNemar, Psychometrika 1947: of the clips that one alone recognised, half should be each one's.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p: Sequence[float]) -> np.ndarray:
    """(m,) p values corrected for testing m times (Holm, Scandinavian Journal of Statistics 1979)."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    return out


def share_right(right: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """(3,) share of True in % with its Wilson interval; NaN without clips."""
    if not len(right):
        return np.full(3, np.nan)
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(confidence, method="wilson")
    return 100 * np.array([right.mean(), low, high])


def harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2ab / (a + b), 0 where both are 0."""
    return 2 * a * b / np.where(a + b > 0, a + b, 1)
