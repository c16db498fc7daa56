"""What all text encoders share: labels and random draws in, embeddings of class texts out."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.ops.counter_rng import integers
from bpilib.text.prompts import Prompts


class TextEncoder(nn.Module, ABC):
    """What all encoders share: which text belongs to which class, and which synonym is drawn.

    A batch is encoded in two steps: `prepare` on the host, from labels and draws alone, and `encode` on the device.
    An encoder adds `_prepare_rows`: rows of `texts`, int64 of any shape (...), to tensors on the host; and `encode`:
    these on the encoder's device to (..., D) float32.

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
        self._synonyms = np.array(table)  # (K, most)
        self._counts = np.array([len(group) for group in synonyms])  # (K,)
        self._part_rows = np.array([[row[text] for text in group] for group in parts.values()])  # (P, K)
        self.register_buffer("_place", torch.empty(0), persistent=False)  # goes where the encoder goes

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self._place.device

    def prepare(self, labels: np.ndarray, draws: np.ndarray) -> tuple[Tensor, ...]:
        """What `encode` takes for a batch, on the host; arguments as of `forward`."""
        drawn = self._synonyms[labels, integers(draws, self._counts[labels])]  # (N,)
        return self._prepare_rows(np.concatenate([drawn[None], self._part_rows[:, labels]]))

    @abstractmethod
    def _prepare_rows(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """What `encode` takes for these rows of the texts, on the host."""

    @abstractmethod
    def encode(self, *prepared: Tensor) -> Tensor:
        """What `prepare` made, on the encoder's device, to embeddings as `forward` returns them."""

    def _encode_rows(self, rows: np.ndarray) -> Tensor:
        return self.encode(*(tensor.to(self.device) for tensor in self._prepare_rows(rows)))

    def forward(self, labels: Tensor, draws: Tensor) -> Tensor:
        """Text embeddings of a batch.

        Args:
            labels: (N,) int64, classes.
            draws: (N,) float in [0, 1), uniform; picks a synonym (or the name) of each sample's class.

        Returns:
            (1+P, N, D) float32, not normalised: the drawn synonyms, then the prompts of each part.

        Source: the published BPI and GAP training: synonyms drawn uniformly, one fixed prompt per part.
        """
        prepared = self.prepare(labels.cpu().numpy(), draws.cpu().numpy())
        return self.encode(*(tensor.to(self.device) for tensor in prepared))

    @torch.no_grad()
    def anchors(self) -> Tensor:
        """(1+P, K, D) float32: every class's name, then its prompt of each part; no gradient."""
        return self._encode_rows(np.concatenate([self._synonyms[None, :, 0], self._part_rows]))
