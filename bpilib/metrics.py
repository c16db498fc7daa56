"""Statistics, each once: Wilson's interval, the bootstrap, McNemar's test, Holm's correction. Shares are in %."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilson(right: int, clips: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy.

    Args:
        right: recognised clips.
        clips: all clips.
        confidence: of the interval, a fraction.

    Returns:
        Its two ends in %; NaN without clips.

    Source: Wilson, Journal of the American Statistical Association 1927.
    """
    if not clips:
        return np.nan, np.nan
    low, high = stats.binomtest(int(right), int(clips)).proportion_ci(confidence, method="wilson")
    return 100 * float(low), 100 * float(high)


def share_right(right: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """(3,) the share of True in (n,) bool and its `wilson` interval, in %; NaN without clips."""
    share = 100 * right.mean() if len(right) else np.nan
    return np.array([share, *wilson(int(right.sum()), len(right), confidence)])


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval, in %, of the mean of clips' values (n,), resampling the clips 4,999 times."""
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
    """Exact two-sided p of McNemar's test, the paired permutation test of right and wrong; 1 where all clips agree.

    Args:
        right_a, right_b: (n,) bool, whether each of two networks recognised each clip.

    Source: McNemar, Psychometrika 1947: of the clips that only one recognised, each is expected to have half.
    """
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flips(values: np.ndarray) -> float:
    """Two-sided p of a mean of 0, by giving each of clips' values (n,) either sign: the paired permutation test.

    All signs are tried where there are few clips, otherwise 9,999 random ones. Of right and wrong it is `mcnemar`.
    """
    if not values.any():
        return 1.0
    result = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=9999, batch=100, rng=0)
    return float(result.pvalue)


def seed_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of seeds' differences (s,), by Student's t.

    NaN with fewer than three seeds: of two it is of no use, and of no width where their differences happen to be equal.
    """
    if len(differences) < 3:
        return np.nan, np.nan
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() - half), float(differences.mean() + half)


def paired_interval(right_a: np.ndarray, right_b: np.ndarray) -> tuple[float, float]:
    """95 % interval, in percentage points, of the difference in accuracy a - b on the same clips, (n,) bool each.

    Source: Bonett and Price, Journal of Educational and Behavioral Statistics 2012, which holds with few clips too.
    """
    clips = len(right_a) + 2
    more = ((right_a & ~right_b).sum() + 1) / clips
    less = ((right_b & ~right_a).sum() + 1) / clips
    half = stats.norm.ppf(0.975) * np.sqrt((more + less - (more - less) ** 2) / clips)
    return 100 * float(max(more - less - half, -1)), 100 * float(min(more - less + half, 1))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """(m,) p values corrected for m tests (Holm, Scandinavian Journal of Statistics 1979)."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values)))).clip(max=1)
    return corrected


def harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2ab / (a + b), 0 where both are 0."""
    return 2 * a * b / np.where(a + b > 0, a + b, 1)
