"""What the processes of tests/test_distributed.py and tests/test_launch.py do; they import it by name."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import open_clip
import torch

from bpilib import distributed
from bpilib.config import Config
from bpilib.train import train_share
from bpilib.trainer import Trainer

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"width": 64, "heads": 1, "layers": 1},
}


def know_tiny_clip() -> None:
    """Make open_clip know a CLIP of a few thousand weights under the name "tiny"."""
    open_clip.factory._MODEL_CONFIGS["tiny"] = TINY_CLIP


def loss_and_gradients(config: Config, batch: list[int]) -> dict[str, torch.Tensor]:
    """Loss and gradients of a batch, BatchNorm in evaluation mode, before any training; in each of the processes."""
    know_tiny_clip()
    made = Trainer(config)
    made.run.model.eval()
    made.feeder.epoch = 1
    loss, logits, labels = made.loss(np.array(batch))
    loss.total.backward()
    made.close()
    found = {"total": loss.total, "cross_entropy": loss.cross_entropy, "contrastive": loss.contrastive}
    found |= {"logits": logits, "labels": labels}
    found |= {f"grad/{name}": p.grad for name, p in made.run.model.named_parameters() if p.grad is not None}
    if made.run.text is not None:
        found |= {f"grad/text/{name}": p.grad for name, p in made.run.text.named_parameters() if p.grad is not None}
    return {name: value.detach().clone() for name, value in found.items()}


def save_loss_and_gradients(config: Config, stop, batches: dict[str, tuple[Config, list[int]]], folder: Path) -> None:
    """`loss_and_gradients` of several configurations, to folder/<name>.<rank>.pt."""
    for name, (other, batch) in batches.items():
        torch.save(loss_and_gradients(other, batch), folder / f"{name}.{distributed.rank()}.pt")


def train_and_fail(config: Config, stop, how: str, number: int) -> None:
    """Train; in the first try, before step `number`, something happens to the second process alone."""
    original, count = Trainer._step, [0]
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def step(self, positions):
        count[0] += 1
        if count[0] == number + 1 and distributed.rank() == 1:
            if how == "killed" and first:
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "killed always":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "raises":
                raise ValueError("expected a clip, got a cat")
        original(self, positions)

    Trainer._step = step
    train_share(config, stop)


def train_slowly(config: Config, stop) -> None:
    """Train, a tenth of a second a step at least."""
    original = Trainer._step

    def step(self, positions):
        time.sleep(0.1)
        original(self, positions)

    Trainer._step = step
    train_share(config, stop)


def collectives(config: Config, stop, folder: Path) -> None:
    """What the processes tell each other, to folder/<rank>.pt."""
    mine = torch.full((distributed.rank() + 1, 2), float(distributed.rank()), requires_grad=True)
    found = {"shares": [distributed.share(np.arange(n)).tolist() for n in (2, 3, 7, 8)]}
    module = torch.nn.BatchNorm1d(3)
    module.weight.data.fill_(distributed.rank())
    module.running_mean.fill_(10 + distributed.rank())
    distributed.align(module)
    found |= {"aligned": [module.weight[0].item(), module.running_mean[0].item()]}
    found |= {"sum": distributed.add_up(torch.tensor(distributed.rank() + 1.0)).item(), "rows": mine.detach()}
    torch.save(found, folder / f"{distributed.rank()}.pt")
