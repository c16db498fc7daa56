"""Outputs of a trained network for the clips of a subset."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from bpilib.analysis.activation import compute_class_activation, record_features
from bpilib.config import Config
from bpilib.runs import Run
from bpilib.system.device import full_float32
from bpilib.system.files import parse_yaml

Maps = dict[str, np.ndarray]
Joints = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


class SubsetOutputs(NamedTuple):
    """Outputs of the network for n clips.

    Attributes:
        indices: (n,) clips of the store.
        labels, predictions: (n,) int64.
        embeddings: (n, 1+P, D) float32, unit length, the global one first; (n, 0, 0) for ctrgcn.
        maps: part → (n, heads, Vq, Vk) float32; empty for gap and ctrgcn.
        joints: part → (query joints, key joints).
        logits: (n, K) float32.
        bias: (K,) float32, of the classifier.
        activation: (n, 2, M, S, V) float32 or None: what each person, step and joint adds to the logit of the true
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
    activation: np.ndarray | None = None


@torch.no_grad()
@full_float32()
def collect_outputs(run: Run, subset: str = "test", activation: bool = False) -> SubsetOutputs:
    """Run a network in test mode on all clips of a subset.

    Args:
        run: a trained run.
        subset: "train", "heldout" or "test".
        activation: decompose the logits as well (`bpilib.analysis.activation`).

    Returns:
        The outputs for the n clips of the subset, in their order.

    Raises:
        ValueError: a network without embeddings (ctrgcn), unless `activation` is asked for; a subset without clips.
    """
    if run.config.model == "ctrgcn" and not activation:
        raise ValueError(f"{run.config.model} has neither attention nor embeddings: choose a run of bpi")
    if not len(run.indices(subset)):
        raise ValueError(f"the run has no {subset} clips: held-out clips come with select='heldout'")
    attends = run.config.model == "bpi"
    feeder = run.feeder(subset)
    run.model.eval()
    found = []
    for positions in torch.arange(len(feeder)).split(run.config.test_batch_size):
        x, labels = feeder.batch(positions)
        with record_features(run.model.backbone) as seen:
            out = run.model(x, return_attention=attends)
        embeddings = out.logits.new_empty(len(labels), 0, 0)
        if out.global_embedding is not None:
            embeddings = torch.cat([out.global_embedding[:, None], out.part_embeddings], 1)  # (N, 1+P, D)
        row = {name: weights.float() for name, weights in (out.attention or {}).items()}
        row |= {"logits": out.logits.float(), "embeddings": F.normalize(embeddings.float(), dim=-1)}
        if activation:
            both = (compute_class_activation(seen[0], run.model.classifier, k) for k in (labels, out.logits.argmax(1)))
            row["activation"] = torch.stack(list(both), 1)
        found.append({name: value.cpu() for name, value in row.items()})
    whole = {name: torch.cat([row[name] for row in found]).numpy() for name in found[0]}
    indices = run.indices(subset)
    logits = whole.pop("logits")
    return SubsetOutputs(
        indices,
        labels=run.store.labels[indices],
        predictions=logits.argmax(1),
        embeddings=whole.pop("embeddings"),
        activation=whole.pop("activation", None),
        maps=whole,  # what is left
        joints=run.model.attention_joints if attends else {},
        logits=logits,
        bias=run.model.classifier.bias.float().cpu().numpy(),
    )


def find_sibling_runs(config: Config) -> dict[str, Config]:
    """Find the trained runs of the same model and data: directory name → configuration, the given one first."""
    found = {config.run_directory.name: config}
    for path in sorted(config.run_directory.parent.glob(f"{config.model}_*/best.pt")):
        saved = Config.saved(parse_yaml((path.parent / "config.yaml").read_bytes()))
        found.setdefault(path.parent.name, config.changed(modality=saved.modality, seed=saved.seed, tag=saved.tag))
    return found


def average_by_class(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Average values (n, ...) over the clips of each class: (K, ...), NaN for a class without clips."""
    empty = np.full(values.shape[1:], np.nan, values.dtype)
    return np.stack([values[labels == k].mean(0) if (labels == k).any() else empty for k in range(num_classes)])
