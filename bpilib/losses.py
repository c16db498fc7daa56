"""Cross-entropy and skeleton-text contrastive loss."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpilib.model import Output


class Loss(NamedTuple):
    """total = cross_entropy + alpha * mean(contrastive); contrastive is (1+P,), the global branch first."""

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor


def skeleton_text_loss(
    out: Output, texts: Tensor | None, labels: Tensor, alpha: float = 0.8, label_smoothing: float = 0.0
) -> Loss:
    """The training loss of BPI and GAP, and of CTR-GCN where `texts` is None.

    Args:
        out: a network's output for N clips.
        texts: (1+P, N, D) float, each clip's text embeddings, global first; not normalised. None leaves the
            contrastive part out (contrastive is then empty).
        labels: (N,) int64.
        alpha: weight of the contrastive part; 0.8 on NTU, 1.0 on NW-UCLA.
        label_smoothing: share of the cross-entropy's targets that is spread over all classes; 0 as published.

    Returns:
        The total, its cross-entropy, and (1+P,) the contrastive loss of each branch, global first.

    Raises:
        ValueError: shapes that do not belong together.

    Source: BPI and GAP; per branch KL(target || softmax(scale * S T')) both ways, target = softmax(10 [y_i = y_j]).
    """
    cross_entropy = F.cross_entropy(out.logits.float(), labels, label_smoothing=label_smoothing)
    if texts is None:
        return Loss(cross_entropy, cross_entropy, cross_entropy.new_zeros(0))
    if out.global_embedding is None or out.part_embeddings is None or out.logit_scale is None:
        raise ValueError("texts were given, but this model has no embeddings: pass texts=None for ctrgcn")
    skeletons = torch.cat([out.global_embedding.unsqueeze(0), out.part_embeddings.transpose(0, 1)])  # (1+P, N, D)
    if texts.shape != skeletons.shape:
        raise ValueError(
            f"expected texts of shape (1+P, N, D) = {tuple(skeletons.shape)}, got {tuple(texts.shape)}: "
            "build the model with embed_dim equal to the text encoder's dim, and the text encoder for the same model"
        )
    skeletons = F.normalize(skeletons.float(), dim=-1)
    texts = F.normalize(texts.float(), dim=-1)
    logits = out.logit_scale.float()[:, None, None] * (skeletons @ texts.transpose(1, 2))  # (1+P, N, N)
    target = torch.softmax(10.0 * (labels[:, None] == labels[None, :]).float(), -1).expand_as(logits)
    contrastive = (_divergence(logits, target) + _divergence(logits.transpose(1, 2), target)) / 2  # (1+P,)
    return Loss(cross_entropy + alpha * contrastive.mean(), cross_entropy, contrastive)


def _divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL divergence of `target` from softmax(logits), summed and divided by N; (B, N, N) to (B,)."""
    return F.kl_div(F.log_softmax(logits, -1), target, reduction="none").sum((1, 2)) / logits.shape[-1]
