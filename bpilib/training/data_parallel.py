"""One batch on many devices: each process takes its share of the clips, and all see the loss of the whole batch."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bpilib.gcn import CTRGCN
from bpilib.model import Output
from bpilib.system import distributed
from bpilib.text.encoder import TextEncoder


def shard(positions: np.ndarray) -> np.ndarray:
    """This process's part of a batch: consecutive, as large as the others' to within one clip.

    Raises:
        ValueError: fewer clips than processes.
    """
    if len(positions) < distributed.world_size():
        raise ValueError(
            f"a batch of {len(positions)} clips can't be shared by {distributed.world_size()} processes: raise "
            "batch_size or use fewer devices"
        )
    return np.array_split(positions, distributed.world_size())[distributed.rank()]


class _Gather(torch.autograd.Function):
    """(n, ...) of every process to (W, n, ...).

    Every process computes the same loss from the result and so knows the gradient of its own rows without asking. It
    counts W times, since DistributedDataParallel takes the mean over processes where the sum is wanted.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.world_size())]
        dist.all_gather(parts, rows)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return distributed.world_size() * gradient[distributed.rank()]


def gather(rows: Tensor, total: int) -> Tensor:
    """The rows of a whole batch from those of each process's `shard`, in order, with gradients.

    Args:
        rows: (n, ...).
        total: clips of the whole batch.

    Returns:
        (total, ...).
    """
    if distributed.world_size() == 1:
        return rows
    counts = [len(part) for part in np.array_split(np.arange(total), distributed.world_size())]
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])  # collectives want one size
    return torch.cat([part[:count] for part, count in zip(_Gather.apply(padded), counts)])


def gather_batch(out: Output, texts: Tensor | None, labels: Tensor, total: int) -> tuple[Output, Tensor | None, Tensor]:
    """What the loss takes, of a whole batch of `total` clips: output, texts (1+P, N, D) and labels."""
    if distributed.world_size() == 1:
        return out, texts, labels
    out = out._replace(
        logits=gather(out.logits, total),
        global_embedding=None if texts is None else gather(out.global_embedding, total),
        part_embeddings=None if texts is None else gather(out.part_embeddings, total),
    )
    texts = None if texts is None else gather(texts.transpose(0, 1).contiguous(), total).transpose(0, 1)
    return out, texts, gather(labels, total)


class Towers(nn.Module):
    """Network and text encoder as one module: all that a step runs, and all that it trains."""

    def __init__(self, model: nn.Module, text: TextEncoder | None):
        super().__init__()
        self.model = model
        self.text = text

    def forward(self, x: Tensor, *texts: Tensor) -> tuple[Output, Tensor | None]:
        """Clips (N, C, T, V, M) and what `TextEncoder.prepare` made for them to the output and texts (1+P, N, D)."""
        out = self.model(x)
        if self.text is None:  # no loss concerns the embeddings: DistributedDataParallel is not to wait for gradients
            return Output(out.logits), None
        # GAP's scale is a parameter itself; DistributedDataParallel looks for results that are computed from one
        return out._replace(logit_scale=out.logit_scale.clone()), self.text.encode(*texts)


def distribute(towers: Towers, sync_batchnorm: bool) -> nn.Module:
    """The module whose gradients are the mean over processes; with one process, the module itself."""
    if distributed.world_size() == 1:
        return towers
    if sync_batchnorm:
        nn.SyncBatchNorm.convert_sync_batchnorm(towers)
        for module in towers.modules():
            if isinstance(module, CTRGCN):
                module.find_norms()
    device = next(towers.parameters()).device
    return DistributedDataParallel(
        towers,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # a training step uses no running statistics; `score` takes the first process's
        find_unused_parameters=True,  # text towers may have some; keeps buckets, and so the rounding, over a restart
    )
