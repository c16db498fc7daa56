"""What the processes of tests/test_distributed.py and tests/test_launch.py do; they import it by name."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import torch

from bpilib import runs
from bpilib.config import Config
from bpilib.feeders import Feeder
from bpilib.system import distributed
from bpilib.train import train_share
from bpilib.training import data_parallel, trainer
from bpilib.training.trainer import Trainer

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"width": 64, "heads": 1, "layers": 1},
}


def know_tiny_clip() -> None:
    """Make open_clip know a CLIP of a few thousand weights under the name "tiny"."""
    import open_clip  # slow, and most processes do without

    open_clip.factory._MODEL_CONFIGS["tiny"] = TINY_CLIP


@contextlib.contextmanager
def in_double():
    """Networks, text encoders and losses in float64, so that rounding hides no difference. The clips are the same."""
    build, take, single = runs.build, Feeder.take, torch.Tensor.float

    def build_double(config, *given, **options):
        run = build(config, *given, **options)
        for module in (run.model, run.text):
            if module is not None:
                module.double()
        return run

    def take_double(self, positions):
        with patch.object(torch.Tensor, "float", single):
            batch = take(self, positions)
        return batch._replace(x=batch.x.double())

    with (
        patch.object(trainer, "build", build_double),
        patch.object(Feeder, "take", take_double),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def loss_and_gradients(config: Config, batch: list[int]) -> dict[str, torch.Tensor]:
    """Loss and gradients of a batch in float64; in each of the processes.

    BatchNorm is in evaluation mode, its running statistics are those of the whole batch, before any training.
    """
    know_tiny_clip()
    with in_double():
        made = Trainer(config)
        made.feeder.epoch = 1
        for module in made.run.model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        with torch.no_grad():
            made.run.model.train()(made.feeder.batch(batch)[0])
        made.run.model.eval()
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
    """`loss_and_gradients` of several configurations, to folder/<name>.<rank>.pt; then `collectives`."""
    for name, (other, batch) in batches.items():
        torch.save(loss_and_gradients(other, batch), folder / f"{name}.{distributed.rank()}.pt")
    torch.save(collectives(), folder / f"collectives.{distributed.rank()}.pt")


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


def train_until_stopped(config: Config, stop, draw_confusion=None) -> None:
    """Train; the fourth step begins once all are to stop, and a file of the run directory says that it waits."""
    original = Trainer._step
    end = time.monotonic() + 1500

    def step(self, positions):
        if self.progress.batch == 3:
            if distributed.rank() == 0:
                (self.folder / "waits").touch()
            while not (Path(os.environ[distributed.FOLDER]) / "stop").exists() and time.monotonic() < end:
                time.sleep(0.01)
        original(self, positions)

    Trainer._step = step
    train_share(config, stop)


def train_and_get_stuck(config: Config, stop, draw_confusion=None) -> None:
    """Train; the fourth step does not end, and a file of the run directory says when it begins."""
    original = Trainer._step

    def step(self, positions):
        if self.progress.batch == 3:
            if distributed.rank() == 0:
                (self.folder / "stuck").touch()
            time.sleep(3600)
        original(self, positions)

    Trainer._step = step
    train_share(config, stop)


def save_addresses(config: Config, stop, folder: Path) -> None:
    """Keep where this process and the launching one can be reached."""
    distributed.all_reduce_sum(torch.zeros(()))  # all are connected
    processes = [psutil.Process(), psutil.Process(os.getppid())]
    found = [c.laddr.ip for process in processes for c in process.net_connections("tcp") if c.status == "LISTEN"]
    (folder / f"addresses.{distributed.rank()}.json").write_text(json.dumps(found))


def collectives() -> dict[str, object]:
    """What a process sees of the others."""
    number = distributed.rank()
    found = {"shares": [data_parallel.shard(np.arange(n)).tolist() for n in (2, 3, 7, 8)]}
    mine = (torch.arange(7.0)[data_parallel.shard(np.arange(7))] + 1).requires_grad_()
    whole = data_parallel.gather(mine, 7)
    (whole**2).sum().backward()  # the same in every process
    found |= {"whole": whole.detach(), "gradient": mine.grad}
    norm = torch.nn.BatchNorm1d(3)
    norm.weight.data.fill_(number + 1)
    norm.running_mean.fill_(number + 10)
    distributed.broadcast_state(norm)
    found |= {"aligned": (norm.weight[0].item(), norm.running_mean[0].item())}
    found["sum"] = distributed.all_reduce_sum(torch.tensor(number + 1.0)).item()
    distributed.check_same_inputs({"what": (1, 2)})
    try:
        distributed.check_same_inputs({"data": "the same", "prompts": number})
    except RuntimeError as error:
        found["disagreement"] = str(error)
    return found
