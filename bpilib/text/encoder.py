"""What all text encoders share: labels and random draws in, embeddings of class texts out."""

import torch
from torch import Tensor, nn

from bpilib.ops.counter_rng import integers
from bpilib.text.prompts import Prompts


class TextEncoder(nn.Module):
    """What all encoders share: which text belongs to which class, and which synonym is drawn.

    An encoder adds `_embeddings`: rows of `texts`, int64 of any shape (...) → (..., D) float32.

    Attributes:
        dim: D.
        parts: names of the P parts, in the order of the embeddings.
        trained: the encoder has parameters that learn.
    """

    dim: int
    trained = False

    def __init__(self, model: str, prompts: Prompts):
        """model: "bpi" or "gap"; prompts: of the K classes in label order."""
        super().__init__()
        parts = prompts.part_prompts(model)
        synonyms = [prompts.synonyms_of(i) for i in range(len(prompts.classes))]
        self.parts = tuple(parts)
        self.texts = tuple(dict.fromkeys(text for group in (*synonyms, *parts.values()) for text in group))
        row, most = {text: i for i, text in enumerate(self.texts)}, max(map(len, synonyms))
        table = [[row[text] for text in group] + [0] * (most - len(group)) for group in synonyms]
        self.register_buffer("_synonyms", torch.tensor(table), persistent=False)  # (K, most)
        self.register_buffer("_counts", torch.tensor([len(group) for group in synonyms]), persistent=False)  # (K,)
        rows = [[row[text] for text in group] for group in parts.values()]
        self.register_buffer("_part_rows", torch.tensor(rows), persistent=False)  # (P, K)

    def forward(self, labels: Tensor, draws: Tensor) -> Tensor:
        """Text embeddings of a batch.

        Args:
            labels: (N,) int64, classes.
            draws: (N,) float in [0, 1), uniform; picks a synonym (or the name) of each sample's class.

        Returns:
            (1+P, N, D) float32, not normalised: the drawn synonyms, then the prompts of each part.

        Source: the published BPI and GAP training: synonyms drawn uniformly, one fixed prompt per part.
        """
        drawn = self._synonyms[labels, integers(draws, self._counts[labels])]  # (N,)
        return self._embeddings(torch.cat([drawn[None], self._part_rows[:, labels]]))

    @torch.no_grad()
    def anchors(self) -> Tensor:
        """(1+P, K, D) float32: every class's name, then its prompt of each part; no gradient."""
        return self._embeddings(torch.cat([self._synonyms[None, :, 0], self._part_rows]))
