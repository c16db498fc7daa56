"""One run on many devices: what its processes do together.

Each process holds one device and its share of every batch; all of them see the loss of the whole batch. `bpilib.launch`
starts them. Anywhere else there is one process, `size` is 1, and what the processes do together is nothing.
"""

import functools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import tqdm
import tqdm.auto
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bpilib.files import write_atomically
from bpilib.model import Output

_BAR = "{l_bar}{bar}| {n_fmt} of {total_fmt} clips, {elapsed} gone, {remaining} left, {rate_noinv_fmt}{postfix}"
FOLDER = "BPI_LAUNCH_FOLDER"  # environment variable of a worker: where it and its launching process leave word


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Processes that share every batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first_alone(method: Callable[..., None]) -> Callable[..., None]:
    """A method that all processes call and the first alone carries out: what writes files."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> None:
        if rank() == 0:
            method(*args, **kwargs)

    return called


def share(positions: np.ndarray) -> np.ndarray:
    """This process's part of a batch: consecutive, as large as the others' to within one clip.

    Raises:
        ValueError: fewer clips than processes.
    """
    if len(positions) < size():
        raise ValueError(
            f"a batch of {len(positions)} clips can't be shared by {size()} processes: raise batch_size or use fewer "
            "devices"
        )
    return np.array_split(positions, size())[rank()]


class _Gather(torch.autograd.Function):
    """(n, ...) of every process to (W, n, ...).

    Every process computes the same loss from the result and so knows the gradient of its own rows without asking. It
    counts W times, since DistributedDataParallel takes the mean over processes where the sum is wanted.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(size())]
        dist.all_gather(parts, rows)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return size() * gradient[rank()]


def gather(rows: Tensor, total: int) -> Tensor:
    """The rows of a whole batch from those of each process's `share`, in order, with gradients.

    Args:
        rows: (n, ...).
        total: clips of the whole batch.

    Returns:
        (total, ...).
    """
    if size() == 1:
        return rows
    counts = [len(part) for part in np.array_split(np.arange(total), size())]
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])  # collectives want one size
    return torch.cat([part[:count] for part, count in zip(_Gather.apply(padded), counts)])


def gather_batch(out: Output, texts: Tensor | None, labels: Tensor, total: int) -> tuple[Output, Tensor | None, Tensor]:
    """What the loss takes, of a whole batch of `total` clips: output, texts (1+P, N, D) and labels."""
    if size() == 1:
        return out, texts, labels
    out = out._replace(
        logits=gather(out.logits, total),
        global_embedding=None if texts is None else gather(out.global_embedding, total),
        part_embeddings=None if texts is None else gather(out.part_embeddings, total),
    )
    texts = None if texts is None else gather(texts.transpose(0, 1).contiguous(), total).transpose(0, 1)
    return out, texts, gather(labels, total)


def add_up(values: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def align(module: nn.Module) -> None:
    """Give the first process's weights and running statistics to all."""
    if size() == 1:
        return
    tensors = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, 0)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(values.view_as(tensor))


def agree(facts: dict[str, Any]) -> None:
    """Make sure that all processes mean the same run.

    Raises:
        RuntimeError: they differ. Another try may cure it, where a shared folder shows files late.
    """
    everyone = collect((socket.gethostname(), facts))
    host, first = everyone[0]
    differ = {f"{name} (on {host} and {other})" for other, its in everyone for name in its if its[name] != first[name]}
    if differ:
        raise RuntimeError(
            f"the processes of the run differ in {', '.join(sorted(differ))}: start it with the same parameters, data "
            "and prompts on every machine, and with outputs in a folder that they share"
        )


def collect(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if size() == 1:
        return [value]
    values = [None] * size()
    dist.all_gather_object(values, value)
    return values


class Towers(nn.Module):
    """Network and text encoder as one module: all that a step runs, and all that it trains."""

    def __init__(self, model: nn.Module, text: nn.Module | None):
        super().__init__()
        self.model, self.text = model, text

    def forward(self, x: Tensor, labels: Tensor, draws: Tensor) -> tuple[Output, Tensor | None]:
        """Clips (N, C, T, V, M), their labels (N,) and draws (N,) of synonyms to the output and texts (1+P, N, D)."""
        out = self.model(x)
        if self.text is None:
            return out, None
        # GAP's scale is a parameter itself; DistributedDataParallel looks for results that are computed from one
        return out._replace(logit_scale=out.logit_scale.clone()), self.text(labels, draws)


def distribute(towers: Towers, sync_batchnorm: bool) -> nn.Module:
    """The module whose gradients are the mean over processes; with one process, the module itself."""
    if size() == 1:
        return towers
    if sync_batchnorm:
        nn.SyncBatchNorm.convert_sync_batchnorm(towers)
    device = next(towers.parameters()).device
    return DistributedDataParallel(
        towers,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=True,  # text towers may have some; keeps buckets, and so the rounding, over a restart
    )


class _Relay(tqdm.tqdm):
    """A progress bar that leaves word of itself for the launching process to show."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        state = {"total": self.total, "desc": self.desc, "n": self.n, "postfix": self.postfix or ""}
        state["restarts"] = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        write_atomically(Path(os.environ[FOLDER]) / "progress.json", json.dumps(state))


def progress_bar(total: int, desc: str, initial: int = 0) -> tqdm.tqdm:
    """A bar of clips; in a worker, one that its launching process shows."""
    options = {"total": total, "desc": desc, "initial": initial, "unit": " clips", "smoothing": 0.05}
    options["bar_format"] = _BAR
    if size() == 1:
        return tqdm.auto.tqdm(**options)
    return _Relay(**options, mininterval=1, disable=os.environ["LOCAL_RANK"] != "0")
