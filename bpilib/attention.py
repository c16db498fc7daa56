"""What a trained network attends to, and how near its embeddings come to the texts."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from bpilib.runs import Run


class Views(NamedTuple):
    """What the network returned for n clips.

    Attributes:
        indices: (n,) clips of the store.
        labels, predictions: (n,) int64.
        embeddings: (n, 1+P, D) float32, unit length, the global one first.
        maps: part → (n, heads, Vq, Vk) float32; empty for gap.
        joints: part → (query joints, key joints).
    """

    indices: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    embeddings: np.ndarray
    maps: dict[str, np.ndarray]
    joints: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


@torch.no_grad()
def look(run: Run, part: str = "test") -> Views:
    """Run all clips of a part ("train", "heldout", "test") through a BPI or GAP network in test mode.

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
        out = run.model(feeder.batch(positions)[0], return_attention=attends)
        embeddings = torch.cat([out.global_embedding[:, None], out.part_embeddings], 1)  # (N, 1+P, D)
        maps = {name: weights.float().cpu() for name, weights in (out.attention or {}).items()}
        found.append((out.logits.argmax(1).cpu(), F.normalize(embeddings.float(), dim=-1).cpu(), maps))
    indices = run.indices(part)
    return Views(
        indices,
        run.store.labels[indices],
        torch.cat([p for p, _, _ in found]).numpy(),
        torch.cat([e for _, e, _ in found]).numpy(),
        {name: torch.cat([maps[name] for _, _, maps in found]).numpy() for name in found[0][2]},
        run.model.attention_joints if attends else {},
    )


def by_class(views: Views, num_classes: int) -> dict[str, np.ndarray]:
    """Part → (K, Vk): attention each key joint receives, mean over clips of the class, heads and query joints."""
    received = {part: weights.mean((1, 2)) for part, weights in views.maps.items()}  # (n, Vk)
    return {part: _class_means(values, views.labels, num_classes) for part, values in received.items()}


def text_similarity(views: Views, run: Run) -> dict[str, np.ndarray]:
    """Branch → (K, K): cosine of each class's mean embedding (rows) with each class's text (columns)."""
    classes = len(run.store.classes)
    texts = F.normalize(run.text.anchors().float().cpu(), dim=-1).numpy()  # (1+P, K, D)
    means = _class_means(views.embeddings, views.labels, classes)  # (K, 1+P, D)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    branches = ("global", *run.model.parts)
    return {name: means[:, b] @ texts[b].T for b, name in enumerate(branches)}


def _class_means(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(n, ...) to (K, ...); NaN where a class has no clip."""
    empty = np.full(values.shape[1:], np.nan, values.dtype)
    return np.stack([values[labels == k].mean(0) if (labels == k).any() else empty for k in range(num_classes)])
