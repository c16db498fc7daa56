"""Attention between body parts, in numbers."""

from typing import NamedTuple

import numpy as np

from bpilib.analysis.outputs import ClipOutputs, Joints, Maps, class_means


def received(maps: Maps) -> Maps:
    """Part → (..., Vk): attention each key joint receives, mean over heads and query joints of (..., heads, Vq, Vk)."""
    return {part: weights.mean((-3, -2)) for part, weights in maps.items()}


def flows(maps: Maps, joints: Joints) -> np.ndarray:
    """Share of attention that flows from each part to each other part.

    Args:
        maps: part → (..., heads, Vq, Vk), rows over Vk sum to 1.
        joints: part → (query joints, key joints); the keys are the other parts' joints in this order.

    Returns:
        (..., P, P): share of the row part's attention that goes to the column part; 0 on the diagonal, rows sum to 1.
    """
    sizes = [len(query) for query, _ in joints.values()]
    out = []
    for p, weights in enumerate(received(maps).values()):
        ends = np.cumsum([size * (o != p) for o, size in enumerate(sizes)])  # a part has no keys of its own
        pieces = np.split(weights, ends[:-1], axis=-1)
        out.append(np.stack([piece.sum(-1) for piece in pieces], -1))
    return np.stack(out, -2)


def even_flows(joints: Joints) -> np.ndarray:
    """(P, P): the flows of attention that is spread evenly over the key joints."""
    return flows({part: np.full((1, 1, len(key)), 1 / len(key)) for part, (_, key) in joints.items()}, joints)


def entropy(weights: np.ndarray) -> np.ndarray:
    """(..., Vq, Vk) to (...): entropy of a row in bits, mean over rows; 0: one joint alone, log2(Vk): all alike."""
    rows = -(weights * np.log2(np.maximum(weights, 1e-12))).sum(-1)
    return rows.mean(-1)


NEARLY_EVEN = 0.95  # of the largest entropy: attention that prefers so little is not read link by link


def judge_entropy(part: str, bits: np.ndarray, most: float) -> str:
    """What may be read of a part's heads: bits (heads,) of each, mean over clips, of `most`, in one sentence."""
    even = int((bits >= NEARLY_EVEN * most).sum())
    mean = f"{part}: {bits.mean():.1f} of {most:.1f} bits"
    if even == len(bits):
        return f"{mean}, every head is nearly even: do not read single arrows"
    if even:
        return f"{mean}, {even} of {len(bits)} heads are nearly even: read the arrows of the others alone"
    return f"{mean}: every head prefers some joints"


class Contrast(NamedTuple):
    """Means over recognised and over mistaken clips of the same classes, with 95 % bootstrap intervals.

    Attributes:
        right, wrong, difference: (F, 3) mean, low, high; the difference is wrong minus right.
        clips: recognised and mistaken clips compared.
        left_out: mistaken clips of classes without a recognised one.
    """

    right: np.ndarray
    wrong: np.ndarray
    difference: np.ndarray
    clips: tuple[int, int]
    left_out: int


def contrast_mistakes(
    values: np.ndarray, labels: np.ndarray, predictions: np.ndarray, draws: int = 1000, fewest: int = 10, seed: int = 0
) -> Contrast | None:
    """Compare values of recognised clips with those of mistaken ones.

    Mistakes are concentrated in some classes. To avoid comparing classes instead, recognised clips are weighted by how
    often their class is mistaken. For the intervals both sides are resampled, clip by clip.

    Args:
        values: (n, F), F numbers per clip.
        labels, predictions: (n,) int64.
        draws: bootstrap resamples.
        fewest: mistaken clips an interval needs.
        seed: of the resampling.

    Returns:
        The comparison, or None where fewer than `fewest` clips are mistaken (in classes with a recognised one).

    Raises:
        ValueError: not one row per clip.
    """
    if not len(values) == len(labels) == len(predictions) or values.ndim != 2:
        raise ValueError(f"expected (n, F) values, got {values.shape} for {len(labels)} and {len(predictions)} clips")
    rng = np.random.default_rng(seed)
    right, values = labels == predictions, np.asarray(values, dtype=float)
    known = np.isin(labels, labels[right])
    mistaken, left_out = np.flatnonzero(~right & known), int((~known).sum())
    if len(mistaken) < fewest:
        return None

    def drawn(count: int) -> np.ndarray:
        """(1+draws, count) weights of the clips: equal ones, then those of each resample."""
        return np.concatenate([np.ones((1, count)), rng.multinomial(count, np.full(count, 1 / count), draws)]) / count

    taken = drawn(len(mistaken))  # (1+draws, mistaken)
    wrong, matched, used = taken @ values[mistaken], np.zeros((1 + draws, values.shape[1])), 0
    for k in np.unique(labels[mistaken]):
        same = np.flatnonzero(right & (labels == k))
        share = taken[:, labels[mistaken] == k].sum(1, keepdims=True)
        matched += share * (drawn(len(same)) @ values[same])
        used += len(same)

    def summary(means: np.ndarray) -> np.ndarray:
        return np.stack([means[0], *np.percentile(means[1:], [2.5, 97.5], axis=0)], -1)

    return Contrast(summary(matched), summary(wrong), summary(wrong - matched), (used, len(mistaken)), left_out)


def by_class(views: ClipOutputs, num_classes: int) -> dict[str, np.ndarray]:
    """Part → (K, Vk): attention each key joint receives, mean over clips of the class, heads and query joints."""
    return {part: class_means(values, views.labels, num_classes) for part, values in received(views.maps).items()}
