"""What the text branch costs: ours against the plain one, alone and in whole training steps of BPI on NW-UCLA.

    python benchmarks/text.py      (ten minutes on two cores; a table here, outputs/bench/text.json to keep)

Plain, as published: each of a step's 4 x 32 prompts goes through the tower at 77 tokens, and in whole steps the network
works in the published order (`plain.py`). The tower is CLIP ViT-B/32's with random weights, which does the same work.
The limit is what the multiplications for the unique prompts, and those of the network, would take at the rate of one
large matrix product. Without a prepared NW-UCLA the synthetic clips are taken.
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
from steps import count_flops, measure_product
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bpilib.config import resolve
from bpilib.data import prepare
from bpilib.skeleton import UCLA
from bpilib.system.device import autocast, pick_device
from bpilib.system.files import PROJECT, write_atomically
from bpilib.text.clip import ClipText
from bpilib.text.encoder import TextEncoder
from bpilib.text.prompts import load_prompts
from bpilib.training.data_parallel import Towers
from bpilib.training.trainer import Trainer

BATCH = 32
REPEATS = 3
CLOCK = time.process_time if os.environ.get("BENCH_CPU") else time.perf_counter
FOLDER = PROJECT / "outputs" / "bench"


class PlainText(ClipText):
    """Every prompt of every clip, group by group, at full length."""

    def _prepare_rows(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        return (self._tokens[torch.from_numpy(rows)],)

    def encode(self, *prepared: Tensor) -> Tensor:
        return torch.stack([self.tower.encode_text(group) for group in prepared[0]]).float()


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
    trainer.feeder.prepare_texts = text.prepare
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


def measure(dataset: str, precision: str) -> dict[str, float]:
    """Row → median seconds, in one precision."""
    torch.manual_seed(0)
    settings = {"dataset": dataset, "precision": precision}
    prompts = load_prompts(PROJECT / f"params/prompts/{dataset}.yaml")
    clip = open_clip.create_model("ViT-B-32", None), open_clip.get_tokenizer("ViT-B-32")
    ours, plain = ClipText("bpi", prompts, clip), PlainText("bpi", prompts, clip)  # one tower
    trainer = trainer_with(ours, lambda network: network, **settings, tag="text")
    trainer_plain = trainer_with(plain, PlainNetwork, **settings, tag="text_plain")
    positions = np.random.default_rng(0).permutation(len(trainer.feeder))[:BATCH]
    labels, draws = trainer.feeder.batch(positions)[1], torch.rand(BATCH, generator=torch.Generator().manual_seed(0))
    found = medians(
        {
            "text trained": encode(ours, trainer, labels, draws),
            "text trained, plain": encode(plain, trainer, labels, draws),
            "step, text trained": lambda: trainer._step(positions),
            "step, text trained, plain": lambda: trainer_plain._step(positions),
        }
    )
    rate = measure_product({"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    with FlopCounterMode(display=False) as counter:
        ours(labels, draws)
    found["text trained, limit"] = 3 * counter.get_total_flops() / rate  # forward, and twice as much back
    found["step, text trained, limit"] = found["text trained, limit"] + 3 * BATCH * count_flops(UCLA) / rate
    trainer_plain.close(), trainer.close()
    frozen = ClipText("bpi", prompts, clip, trained=False)
    trainer = trainer_with(frozen, lambda network: network, **settings, tag="text_frozen")
    found |= medians(
        {"text frozen": encode(frozen, trainer, labels, draws), "step, text frozen": lambda: trainer._step(positions)}
    )
    trainer.close()
    return found


def main() -> None:
    """Measure, print and keep."""
    dataset = "ucla"
    if not (PROJECT / "data/prepared/ucla").exists():
        prepare("synthetic", raw=PROJECT / "data/synthetic", out=PROJECT / "data/prepared/synthetic", progress=False)
        dataset = "synthetic"
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    clock = "processor time" if CLOCK is time.process_time else "time"
    print(f"bpi on {dataset}, batch {BATCH}, ViT-B-32, torch {torch.__version__}, {machine}")
    print(f"{'seconds, ' + clock:32} {'ours':>10} {'plain':>10} {'ratio':>8} {'limit':>10}")
    found = {}
    for precision in dict.fromkeys(["fp32", autocast("auto", pick_device())[1]]):
        found[precision] = rows = measure(dataset, precision)
        for name in ("text trained", "step, text trained"):
            its, mine, least = rows[f"{name}, plain"], rows[name], rows[f"{name}, limit"]
            print(f"{f'{name}, {precision}':32} {mine:10.3f} {its:10.3f} {its / mine:7.1f}x {least:10.3f}")
        share = 100 * rows["text frozen"] / rows["step, text frozen"]
        print(f"{f'text frozen, {precision}':32} {rows['text frozen']:10.5f}   {share:.3f} % of a step")
    its, mine = found["fp32"]["step, text trained, plain"], rows["step, text trained"]
    print(f"{f'step: {precision}, plain in fp32':32} {mine:10.3f} {its:10.3f} {its / mine:7.1f}x")
    report = {"machine": machine, "clock": clock, "medians": found}
    write_atomically(FOLDER / "text.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
