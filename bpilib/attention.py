"""What a trained network attends to, and what its logits are made of."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from bpilib.activation import contributions, watched
from bpilib.config import Config
from bpilib.files import parse_yaml
from bpilib.runs import Run

Maps = dict[str, np.ndarray]
Joints = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


class Views(NamedTuple):
    """What the network returned for n clips.

    Attributes:
        indices: (n,) clips of the store.
        labels, predictions: (n,) int64.
        embeddings: (n, 1+P, D) float32, unit length, the global one first.
        maps: part → (n, heads, Vq, Vk) float32; empty for gap.
        joints: part → (query joints, key joints).
        logits: (n, K) float32.
        bias: (K,) float32, of the classifier.
        evidence: (n, 2, M, S, V) float32 or None: what each person, step and joint adds to the logit of the true
            class and to that of the predicted one; with the bias, they sum to it.
    """

    indices: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    embeddings: np.ndarray
    maps: Maps
    joints: Joints
    logits: np.ndarray | None = None
    bias: np.ndarray | None = None
    evidence: np.ndarray | None = None


@torch.no_grad()
def look(run: Run, part: str = "test", evidence: bool = False) -> Views:
    """Run all clips of a part ("train", "heldout", "test") through a BPI or GAP network in test mode.

    Args:
        run: a trained run.
        part: "train", "heldout" or "test".
        evidence: take the logits apart as well (`bpilib.activation`).

    Returns:
        What it returned for the n clips of the part, in their order.

    Raises:
        ValueError: a network without embeddings.
    """
    if run.config.model == "ctrgcn":
        raise ValueError(f"{run.config.model} has neither attention nor embeddings: choose a run of bpi")
    if not len(run.indices(part)):
        raise ValueError(f"no {part} clips to look at: held-out clips come with select='heldout'")
    attends = run.config.model == "bpi"
    feeder = run.feeder(part)
    run.model.eval()
    found = []
    for positions in torch.arange(len(feeder)).split(run.config.test_batch_size):
        x, labels = feeder.batch(positions)
        with watched(run.model.backbone) as seen:
            out = run.model(x, return_attention=attends)
        embeddings = torch.cat([out.global_embedding[:, None], out.part_embeddings], 1)  # (N, 1+P, D)
        row = {name: weights.float() for name, weights in (out.attention or {}).items()}
        row |= {"logits": out.logits.float(), "embeddings": F.normalize(embeddings.float(), dim=-1)}
        if evidence:
            both = (contributions(seen[0], run.model.classifier, k) for k in (labels, out.logits.argmax(1)))
            row["evidence"] = torch.stack(list(both), 1)
        found.append({name: value.cpu() for name, value in row.items()})
    whole = {name: torch.cat([row[name] for row in found]).numpy() for name in found[0]}
    indices, logits = run.indices(part), whole.pop("logits")
    embeddings, parts = whole.pop("embeddings"), whole.pop("evidence", None)
    joints = run.model.attention_joints if attends else {}
    bias = run.model.classifier.bias.float().cpu().numpy()
    labels = run.store.labels[indices]
    return Views(indices, labels, logits.argmax(1), embeddings, whole, joints, logits, bias, parts)


def trained_alike(config: Config) -> dict[str, Config]:
    """Directory name → configuration of the trained runs of the same model and data; the given one first."""
    found = {config.run_directory.name: config}
    for path in sorted(config.run_directory.parent.glob(f"{config.model}_*/best.pt")):
        saved = parse_yaml((path.parent / "config.yaml").read_text())
        found.setdefault(path.parent.name, config.changed(**{n: saved[n] for n in ("modality", "seed", "tag")}))
    return found


def received(maps: Maps) -> Maps:
    """Part → (..., Vk): attention each key joint receives, mean over heads and query joints of (..., heads, Vq, Vk)."""
    return {part: weights.mean((-3, -2)) for part, weights in maps.items()}


def flows(maps: Maps, joints: Joints) -> np.ndarray:
    """Who looks at whom, part by part.

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


def right_and_wrong(
    values: np.ndarray, labels: np.ndarray, predictions: np.ndarray, draws: int = 1000, fewest: int = 10, seed: int = 0
) -> Contrast | None:
    """Compare something of recognised clips with that of mistaken ones.

    Mistakes gather in some classes. So that classes are not compared instead, recognised clips are weighted by how
    often their class is mistaken. Both sides are drawn anew, clip by clip, for the intervals.

    Args:
        values: (n, F), numbers of each clip.
        labels, predictions: (n,) int64.
        draws: of the bootstrap.
        fewest: mistaken clips an interval needs.
        seed: of the draws.

    Returns:
        The comparison, or None where fewer than `fewest` clips are mistaken (in classes with a recognised one).

    Raises:
        ValueError: not one row a clip.
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
        """(1+draws, count) how often each clip is taken: once each, then the draws."""
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


def by_class(views: Views, num_classes: int) -> dict[str, np.ndarray]:
    """Part → (K, Vk): attention each key joint receives, mean over clips of the class, heads and query joints."""
    return {part: class_means(values, views.labels, num_classes) for part, values in received(views.maps).items()}


def class_means(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(n, ...) to (K, ...), the mean over the clips of each class; NaN where a class has no clip."""
    empty = np.full(values.shape[1:], np.nan, values.dtype)
    return np.stack([values[labels == k].mean(0) if (labels == k).any() else empty for k in range(num_classes)])
