"""What the text branch costs: ours against the plain one, alone and in whole training steps of BPI on NW-UCLA.

    python benchmarks/text.py      (ten minutes on two cores; a table here, outputs/bench/text.json to keep)

Plain, as published: each of a step's 4 x 32 prompts goes through the tower at 77 tokens, and in whole steps the network
works in the published order (`plain.py`). The tower is CLIP ViT-B/32's with random weights, which does the same work.
Without a prepared NW-UCLA the synthetic clips are taken.
On a machine with other work to do, BENCH_CPU=1 measures processor time instead; then set OMP_NUM_THREADS=1.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch
from plain import PlainNetwork
from torch import Tensor, nn

from bpilib.config import resolve
from bpilib.data import prepare
from bpilib.distributed import Towers
from bpilib.files import PROJECT, write_atomically
from bpilib.prompts import load_prompts
from bpilib.text import ClipText, TextEncoder
from bpilib.trainer import Trainer

BATCH = 32
REPEATS = 3
CLOCK = time.process_time if os.environ.get("BENCH_CPU") else time.perf_counter
FOLDER = PROJECT / "outputs" / "bench"


class PlainText(ClipText):
    """Every prompt of every clip, group by group, at full length."""

    def _embeddings(self, rows: Tensor) -> Tensor:
        return torch.stack([self.tower.encode_text(self._tokens[group]) for group in rows]).float()


def medians(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, in turns, after one call of each to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS + 1):
        for name, work in works.items():
            start = CLOCK()
            work()
            taken[name].append(CLOCK() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def trainer_with(text: TextEncoder, network: Callable[[nn.Module], nn.Module], **settings: object) -> Trainer:
    """A trainer of BPI with this text encoder, and with the network that is made of ours."""
    trainer = Trainer(resolve(model="bpi", width=64, batch_size=BATCH, text="none", outputs=str(FOLDER), **settings))
    trainer.towers = Towers(network(trainer.run.model), text).train()
    trainer.optimizer.param_groups[0]["params"] = list(trainer.towers.model.parameters())
    if text.trained:
        trainer.optimizer.add_param_group({"params": list(text.parameters())})
    return trainer


def encode(text: TextEncoder, trainer: Trainer, labels: Tensor, draws: Tensor) -> Callable[[], None]:
    """A pass through the text branch, and back where it is trained."""

    def work() -> None:
        with trainer.autocast:
            out = text(labels, draws)
        if out.requires_grad:
            text.zero_grad(set_to_none=True)
            out.sum().backward()

    return work


def main() -> None:
    """Measure, print and keep."""
    settings = {"dataset": "ucla"}
    if not (PROJECT / "data/prepared/ucla").exists():
        prepare("synthetic", raw=PROJECT / "data/synthetic", out=PROJECT / "data/prepared/synthetic", progress=False)
        settings = {"dataset": "synthetic"}
    torch.manual_seed(0)
    prompts = load_prompts(PROJECT / f"params/prompts/{settings['dataset']}.yaml")
    clip = open_clip.create_model("ViT-B-32", None), open_clip.get_tokenizer("ViT-B-32")
    ours, plain = ClipText("bpi", prompts, clip), PlainText("bpi", prompts, clip)  # one tower
    trainer = trainer_with(ours, lambda network: network, **settings, tag="text")
    trainer_plain = trainer_with(plain, PlainNetwork, **settings, tag="text_plain")
    positions = np.random.default_rng(0).permutation(len(trainer.feeder))[:BATCH]
    labels, draws = trainer.feeder.batch(positions)[1], torch.rand(BATCH, generator=torch.Generator().manual_seed(0))
    found = medians(
        {
            "text trained, ours": encode(ours, trainer, labels, draws),
            "text trained, plain": encode(plain, trainer, labels, draws),
            "step with text trained, ours": lambda: trainer._step(positions),
            "step with text trained, plain": lambda: trainer_plain._step(positions),
        }
    )
    trainer_plain.close(), trainer.close()
    frozen = ClipText("bpi", prompts, clip, trained=False)
    trainer = trainer_with(frozen, lambda network: network, **settings, tag="text_frozen")
    step = {"text": encode(frozen, trainer, labels, draws), "step": lambda: trainer._step(positions)}
    looked_up = medians(step)
    trainer.close()
    rows = {}
    for name in ("text trained", "step with text trained"):
        mine, its = found[f"{name}, ours"], found[f"{name}, plain"]
        rows[name] = {"ours": mine, "plain": its, "ratio": its / mine}
    share = 100 * looked_up["text"] / looked_up["step"]
    rows["text frozen"] = {"ours": looked_up["text"], "step": looked_up["step"], "share of a step": share}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    clock = "processor time" if CLOCK is time.process_time else "time"
    kind = f"bpi on {settings['dataset']}, batch {BATCH}, ViT-B-32, {trainer.precision}"
    print(f"{kind}, torch {torch.__version__}, {machine}")
    print(f"{'seconds, ' + clock:32} {'ours':>10} {'plain':>10} {'ratio':>8}")
    for name in ("text trained", "step with text trained"):
        print(f"{name:32} {rows[name]['ours']:10.3f} {rows[name]['plain']:10.3f} {rows[name]['ratio']:7.1f}x")
    print(f"{'text frozen':32} {looked_up['text']:10.5f}   {share:.3f} % of a step of {looked_up['step']:.3f}")
    report = {"machine": machine, "clock": clock, "precision": trainer.precision, "medians": rows}
    write_atomically(FOLDER / "text.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
