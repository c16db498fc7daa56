"""Body-part interaction: each part asks the others, joint by joint (cross-attention of BPI)."""

import math

import torch
from torch import Tensor, nn


class PartInteraction(nn.Module):
    """One body part's joints attend to the joints of the other parts.

    Queries come from the part, keys and values from the others; heads are concatenated without an output
    projection, the part's own tokens are added, then LayerNorm, mean over the part's joints, projection.

    Args:
        channels: C of the tokens, a multiple of `heads`.
        embed_dim: D of the embedding.
        heads: attention heads.
        even: attend to all joints alike, to test what attention adds; queries and keys are then neither used nor
            trained. Not published.

    Source: BPI, cross-part attention; scale 1/sqrt(C/heads).
    """

    def __init__(self, channels: int, embed_dim: int, heads: int = 8, even: bool = False):
        super().__init__()
        self.heads = heads
        self.even = even
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.project = nn.Linear(channels, embed_dim)
        if even:  # there all the same, so that the other weights begin as those of learned attention do
            self.query.requires_grad_(False)
            self.key.requires_grad_(False)

    def _split(self, x: Tensor) -> Tensor:
        """(N, V, C) to (N, heads, V, C/heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, part: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a part by what it sees of the others.

        Args:
            part: (N, Vq, C) tokens of the part.
            others: (N, Vk, C) tokens of the other parts.

        Returns:
            (N, D) embedding and (N, heads, Vq, Vk) attention, whose rows sum to 1.
        """
        v = self._split(self.value(others))
        if self.even:
            attention = v.new_full((len(part), self.heads, part.shape[1], others.shape[1]), 1 / others.shape[1])
        else:
            q, k = self._split(self.query(part)), self._split(self.key(others))
            attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)  # (N, heads, Vq, Vk)
        seen = (attention @ v).transpose(1, 2).flatten(2)  # (N, Vq, C)
        return self.project(self.norm(part + seen).mean(1)), attention
