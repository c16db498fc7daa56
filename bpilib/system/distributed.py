"""One run on many devices: what its processes do together.

Each process holds one device and its share of every batch; all of them see the loss of the whole batch.
`bpilib.training.launch` starts them. Anywhere else there is one process, `world_size` is 1, and these functions return
what they are given.
"""

import functools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tqdm.auto
from torch import Tensor, nn

from bpilib.system.files import write_atomically

_BAR = "{l_bar}{bar}| {n_fmt} of {total_fmt} clips, {elapsed} gone, {remaining} left, {rate_noinv_fmt}{postfix}"
FOLDER = "BPI_LAUNCH_FOLDER"  # environment variable: where a worker and its launching process exchange files


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes that share every batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank_zero_only(method: Callable[..., None]) -> Callable[..., None]:
    """A method that all processes call and the first alone carries out: what writes files."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> None:
        if rank() == 0:
            method(*args, **kwargs)

    return called


def all_reduce_sum(values: Tensor) -> Tensor:
    """Add up a tensor of any shape over all processes, in place, and return it; alone, it stays as it is."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def broadcast_state(module: nn.Module) -> None:
    """Give the first process's weights and running statistics to all."""
    if world_size() == 1:
        return
    tensors = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, 0)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(values.view_as(tensor))


def check_same_inputs(facts: dict[str, Any]) -> None:
    """Check that all processes train the same run.

    Raises:
        RuntimeError: they differ. Another try may cure it, where a shared folder shows files late.
    """
    everyone = all_gather((socket.gethostname(), facts))
    host, first = everyone[0]
    differ = {f"{name} (on {host} and {other})" for other, its in everyone for name in its if its[name] != first[name]}
    if differ:
        raise RuntimeError(
            f"the processes of the run differ in {', '.join(sorted(differ))}: start it with the same parameters, data "
            "and prompts on every machine, and with outputs in a folder that they share"
        )


def all_gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


class _Relay(tqdm.tqdm):
    """A progress bar that writes its state to a file, for the launching process to show."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        state = {"total": self.total, "desc": self.desc, "n": self.n, "postfix": self.postfix or ""}
        state["restarts"] = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        write_atomically(Path(os.environ[FOLDER]) / "progress.json", json.dumps(state))


def progress_bar(total: int, desc: str, initial: int = 0) -> tqdm.tqdm:
    """A bar of clips; in a worker, one that its launching process shows."""
    options = {"total": total, "desc": desc, "initial": initial, "unit": " clips", "smoothing": 0.05}
    options["bar_format"] = _BAR
    if world_size() == 1:
        return tqdm.auto.tqdm(**options)
    return _Relay(**options, mininterval=1, disable=os.environ["LOCAL_RANK"] != "0")
