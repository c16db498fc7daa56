"""Attention between body parts, in numbers."""

from typing import NamedTuple

import numpy as np

from bpilib.analysis.outputs import Joints, Maps, SubsetOutputs, average_by_class


def average_received(maps: Maps) -> Maps:
    """Part → (..., Vk): attention each key joint receives, mean over heads and query joints of (..., heads, Vq, Vk)."""
    return {part: weights.mean((-3, -2)) for part, weights in maps.items()}


def compute_flows(maps: Maps, joints: Joints) -> np.ndarray:
    """Share of attention that flows from each part to each other part.

    Args:
        maps: part → (..., heads, Vq, Vk), rows over Vk sum to 1.
        joints: part → (query joints, key joints); the keys are the other parts' joints in this order.

    Returns:
        (..., P, P): share of the row part's attention that goes to the column part; 0 on the diagonal, rows sum to 1.
    """
    sizes = [len(query) for query, _ in joints.values()]
    out = []
    for p, weights in enumerate(average_received(maps).values()):
        ends = np.cumsum([size * (o != p) for o, size in enumerate(sizes)])  # a part has no keys of its own
        pieces = np.split(weights, ends[:-1], axis=-1)
        out.append(np.stack([piece.sum(-1) for piece in pieces], -1))
    return np.stack(out, -2)


def compute_even_flows(joints: Joints) -> np.ndarray:
    """(P, P): the flows of attention that is spread evenly over the key joints."""
    return compute_flows({part: np.full((1, 1, len(key)), 1 / len(key)) for part, (_, key) in joints.items()}, joints)


def compute_entropy(weights: np.ndarray) -> np.ndarray:
    """(..., Vq, Vk) to (...): entropy of a row in bits, mean over rows; 0: one joint only, log2(Vk): evenly spread."""
    rows = -(weights * np.log2(np.maximum(weights, 1e-12))).sum(-1)
    return rows.mean(-1)


NEARLY_EVEN = 0.95  # share of the largest entropy above which single links of a head mean little


def judge_entropy(part: str, bits: np.ndarray, most: float) -> str:
    """One sentence on how far a part's attention maps can be interpreted.

    Args:
        part: name of the part.
        bits: (heads,) entropy of each head, mean over clips.
        most: the largest possible entropy, bits.
    """
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
        left_out: mistaken clips of classes in which no clip was recognised.
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
    values = np.asarray(values, dtype=float)
    right = labels == predictions
    known = np.isin(labels, labels[right])
    mistaken = np.flatnonzero(~right & known)
    left_out = int((~known).sum())
    if len(mistaken) < fewest:
        return None

    def draw_weights(count: int) -> np.ndarray:
        """(1+draws, count) weights of the clips: first equal ones, then those of each resample."""
        return np.concatenate([np.ones((1, count)), rng.multinomial(count, np.full(count, 1 / count), draws)]) / count

    weights = draw_weights(len(mistaken))  # (1+draws, mistaken)
    wrong = weights @ values[mistaken]  # (1+draws, F)
    matched = np.zeros_like(wrong)
    used = 0
    for k in np.unique(labels[mistaken]):
        same = np.flatnonzero(right & (labels == k))
        share = weights[:, labels[mistaken] == k].sum(1, keepdims=True)
        matched += share * (draw_weights(len(same)) @ values[same])
        used += len(same)

    def summarise(means: np.ndarray) -> np.ndarray:
        """(1+draws, F) to (F, 3): mean, low, high."""
        return np.stack([means[0], *np.percentile(means[1:], [2.5, 97.5], axis=0)], -1)

    counts = (used, len(mistaken))
    return Contrast(summarise(matched), summarise(wrong), summarise(wrong - matched), counts, left_out)


def average_received_by_class(views: SubsetOutputs, num_classes: int) -> dict[str, np.ndarray]:
    """Part → (K, Vk): attention each key joint receives, mean over clips of the class, heads and query joints."""
    received = average_received(views.maps)
    return {part: average_by_class(values, views.labels, num_classes) for part, values in received.items()}
