"""Speed and memory of a training step and of inference: ours, the published order of operations, and the limit.

    make bench                          (a quarter of an hour on two cores; a table, and outputs/bench/steps.json)
    python benchmarks/steps.py feeder   (only the rows of the feeder, in three minutes; outputs/bench/feeder.json)
    python benchmarks/steps.py compiler     (ours with and without torch.compile; outputs/bench/compiler.json)
    python benchmarks/steps.py precisions   (ours in float32 and bf16, in a minute; outputs/bench/precisions.json)

Ours and plain (`plain.py`) are measured alternately, each in its own process. Plain runs with PyTorch's defaults. A
third process runs plain with the allocator setting that bpilib uses on a CPU (`keep_malloc_memory` of
`bpilib.system.device`) to separate that gain from the others. The limit is the time that one large matrix product on
this machine would take for the network's multiplications; for the feeder, the time of a memory copy of the clips'
frames and of the batch.
"""

import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from plain import PlainNetwork, plain_batch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bpilib.config import resolve
from bpilib.data import SkeletonStore, prepare
from bpilib.data.store import Clip, StoreWriter
from bpilib.feeders import Feeder
from bpilib.losses import skeleton_text_loss
from bpilib.model import build_model
from bpilib.skeleton import MODALITIES, NTU, UCLA, Skeleton
from bpilib.system import device
from bpilib.system.device import autocast, compile_network, keep_malloc_memory, pick_device
from bpilib.system.files import PROJECT, write_atomically
from bpilib.training.trainer import Trainer

FOLDER = PROJECT / "outputs" / "bench"
BATCH = {"ucla": 32, "ntu": 16}
ROUNDS, REPEATS = 2, 3
FEEDER_SECONDS = 2
Work = Callable[[], object]
# What `compare` sets against each other: precision and the parameter compile, twice.
PAIRS = {
    "compiler": [((precision, "none"), (precision, "default")) for precision in ("fp32", "bf16")],
    "precisions": [(("fp32", "none"), ("bf16", "none"))],
}


def time_calls(work: Work, least: float = 0, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Time REPEATS calls, or as many as take `least` seconds, after one to warm up: seconds of each."""
    work()
    found = []
    while len(found) < REPEATS or sum(found) < least:
        start = clock()
        work()
        found.append(clock() - start)
    return found


def write_ntu_store(folder: Path) -> SkeletonStore:
    """Write a store of random clips of NTU's shape: 512 clips of 40 to 160 frames, two persons."""
    draw = np.random.default_rng(0)
    with StoreWriter(folder / "ntu", "ntu60", NTU, ["a", "b"]) as writer:
        for i in range(512):
            writer.add(Clip(f"c{i}", draw.normal(size=(40 + i % 7 * 20, 2, 25, 3)).astype(np.float32), i % 2))
        return writer.finish({"xsub": {"train": np.arange(512), "test": np.arange(0)}}, {"name": "made"})


def resolve_ucla(**changes: object):
    """The configuration of a run on NW-UCLA if it is prepared, else on the synthetic clips of the same shape."""
    dataset = "ucla" if (PROJECT / "data/prepared/ucla").exists() else "synthetic"
    if dataset == "synthetic":
        prepare(dataset, raw=PROJECT / "data/synthetic", out=PROJECT / "data/prepared/synthetic", progress=False)
    return resolve(dataset=dataset, model="bpi", width=64, batch_size=BATCH["ucla"], outputs=str(FOLDER), tag="bench",
                   text="minilm", **changes)  # fmt: skip


def measure_peak_memory(work: Work) -> float:
    """The peak of tensor memory that a call allocates, MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return float(np.cumsum([size for _, size in sorted(events)]).max() / 1e6)


def build_network(plain: bool, skeleton: Skeleton) -> tuple[torch.nn.Module, torch.Tensor]:
    """Build BPI, ours or plain, and a random batch for it."""
    torch.manual_seed(0)
    model = build_model("bpi", skeleton, 60, embed_dim=384)
    x = torch.randn(BATCH[skeleton.name], 3, skeleton.window, skeleton.num_joints, skeleton.persons)
    return (PlainNetwork(model) if plain else model).to(pick_device()), x.to(pick_device())


def make_network_works(plain: bool, skeleton: Skeleton, precision: str, compiled: str = "none") -> dict[str, Work]:
    """Functions to be timed: forward and backward pass of a training step, and inference."""
    model, x = build_network(plain, skeleton)
    labels = torch.arange(len(x), device=x.device) % 10
    texts = torch.randn(4, len(x), 384, device=x.device)
    fused = model if plain else compile_network(model.fuse(), compiled)
    model = compile_network(model, compiled)
    context = autocast(precision, x.device)[0]

    def train() -> None:
        model.train().zero_grad(set_to_none=True)
        with context:
            out = model(x)
        skeleton_text_loss(out, texts, labels).total.backward()

    def infer() -> None:
        fused.eval()
        with torch.inference_mode(), context:
            fused(x)

    return {"training": train, "inference": infer}


def make_step_work(plain: bool) -> Work:
    """A function to be timed: a whole training step on NW-UCLA, with feeder, network, texts, loss and optimizer."""
    trainer = Trainer(resolve_ucla())
    positions = np.arange(BATCH["ucla"])
    trainer.run.model.train()
    if not plain:
        return lambda: trainer._step(positions)
    model, text = PlainNetwork(trainer.run.model).train(), trainer.run.text
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step() -> None:
        x, labels = plain_batch(trainer.run.store, trainer.run.indices("train")[positions])
        optimizer.zero_grad(set_to_none=True)
        with trainer.autocast:
            out = model(x)
        loss = skeleton_text_loss(out, text(labels, torch.rand(len(labels))), labels)
        loss.total.backward()
        optimizer.step()
        loss.total.item()

    return step


def measure(plain: bool) -> dict[str, list[float]]:
    """Measure all rows of the table: row → clips/s, or MB for memory."""
    rows: dict[str, list[float]] = {}
    precisions = ["fp32"] + ["bf16"] * (autocast("auto", pick_device())[1] == "bf16")
    for skeleton in (UCLA, NTU):
        for precision in precisions:
            for name, work in make_network_works(plain, skeleton, precision).items():
                key = f"{name}, {skeleton.name}, {precision}"
                rows[f"network, {key}"] = [BATCH[skeleton.name] / t for t in time_calls(work)]
                if name == "training" and skeleton is UCLA:
                    rows[f"peak memory, {key} (MB)"] = [measure_peak_memory(work)]
    rows["whole step, ucla, auto"] = [BATCH["ucla"] / t for t in time_calls(make_step_work(plain))]
    return rows | measure_feeder(plain)


def compare(what: str) -> None:
    """Measure pairs of ways to run BPI on NW-UCLA's clips, alternately in this process, and print the table.

    One thread, by the time of this process on a core, so that other programs matter little.
    """
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    clips, rows = BATCH["ucla"], {}
    print(f"bpi, width 64, NW-UCLA, batches of {clips}, torch {torch.__version__}, one thread, clips/s")
    for pair in PAIRS[what]:
        works = [make_network_works(False, UCLA, *way) for way in pair]
        for name in works[0]:
            seconds: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for found, kind in zip(seconds, works):
                    found += time_calls(kind[name], clock=time.process_time)
            before, after = (clips / statistics.median(found) for found in seconds)
            first, second = (f"{precision}, compile {mode}" for precision, mode in pair)
            rows[f"{name}: {first} | {second}"] = [before, after]
            print(f"{name:9}  {first} {before:.1f}  {second} {after:.1f}  {after / before:.2f}x", flush=True)
    write_atomically(FOLDER / f"{what}.json", json.dumps(rows, indent=1) + "\n")


def open_feeder_stores(folder: str) -> tuple[SkeletonStore, SkeletonStore]:
    """Open a store of NW-UCLA's clips, and write one of NTU's shape."""
    return SkeletonStore.open(resolve_ucla().data), write_ntu_store(Path(folder))


def measure_feeder(plain: bool) -> dict[str, list[float]]:
    """Measure the feeder on all clips in random order, in batches of 32: row → clips/s of CPU time of its thread."""
    rows = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for store, modality in itertools.product(open_feeder_stores(folder), MODALITIES):
            every = np.arange(len(store))
            order = np.random.default_rng(0).permutation(every)[: len(every) // 32 * 32]
            if plain:
                make = partial(plain_batch, store, modality=modality)
            else:
                make = Feeder(store, every, modality, train=True).batch
            work = map(make, itertools.cycle(order.reshape(-1, 32))).__next__
            times = time_calls(work, FEEDER_SECONDS, time.thread_time)
            rows[f"feeder, {store.skeleton.name}, {modality}"] = [32 / t for t in times]
    return rows


def measure_product(dtype: torch.dtype) -> float:
    """Measure one large matrix product, FLOP/s."""
    a, b = torch.randn(2, 2048, 2048, device=pick_device()).to(dtype)
    return 2 * 2048**3 / statistics.median(time_calls(lambda: a @ b))


def count_flops(skeleton: Skeleton) -> int:
    """Count the multiplications and additions of inference on one clip, in the published order of operations."""
    model, x = build_network(True, skeleton)
    with FlopCounterMode(display=False) as counter:
        model.eval()(x[:1])
    return counter.get_total_flops()


def compute_limits() -> dict[str, float]:
    """Compute the network's limits, as if it ran at the speed of one large matrix product: row → clips/s."""
    rows = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rate = measure_product(dtype)
        rows[f"matrix product, {precision} (GFLOP/s)"] = rate / 1e9
        for skeleton in (UCLA, NTU):
            flops = count_flops(skeleton)
            rows[f"network, inference, {skeleton.name}, {precision}"] = rate / flops
            rows[f"network, training, {skeleton.name}, {precision}"] = rate / flops / 3
    return rows


def compute_feeder_limits() -> dict[str, float]:
    """Compute the feeder's limits, as if it ran at the speed of a memory copy: row → clips/s."""
    source = np.ones(1 << 26, np.float32)
    target = np.ones_like(source)
    rate = 2 * source.nbytes / statistics.median(time_calls(lambda: np.copyto(target, source)))  # read and written
    rows = {"memory copy (GB/s)": rate / 1e9}
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for store in open_feeder_stores(folder):
            frame = store.poses[0].nbytes
            for modality in MODALITIES:
                one = (store.lengths.mean() + store.skeleton.window) * frame  # bytes
                rows[f"feeder, {store.skeleton.name}, {modality}"] = rate / one
    return rows


def main(what: str) -> None:
    """Measure the steps or only the feeder, and print the table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    most = compute_feeder_limits() | ({} if what == "feeder" else compute_limits())
    found: dict[str, dict[str, list[float]]] = {"ours": {}, "plain": {}, "plain, memory kept": {}}
    for _ in range(ROUNDS):
        for kind, rows in found.items():
            command = [sys.executable, __file__, what, kind]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, values in json.loads(answer.splitlines()[-1]).items():
                rows.setdefault(name, []).extend(values)
    medians = {kind: {name: statistics.median(v) for name, v in rows.items()} for kind, rows in found.items()}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"bpi, width 64, batches of {BATCH}, torch {torch.__version__}, {machine}")
    print(f"clips/s, medians of {ROUNDS} rounds")
    print(f"{'':44} {'ours':>9} {'plain':>9} {'ratio':>7} {'plain*':>9} {'ratio':>7} {'limit':>9}")
    for name, ours in medians["ours"].items():
        plain, kept = medians["plain"][name], medians["plain, memory kept"][name]
        limit = f"{most[name]:9,.1f}" if name in most else ""
        print(f"{name:44} {ours:9,.1f} {plain:9,.1f} {ours / plain:6.2f}x {kept:9,.1f} {ours / kept:6.2f}x {limit}")
    print("* plain in a process that keeps freed memory, as ours does")
    for name in most.keys() - medians["ours"].keys():
        print(f"{name:44} {most[name]:9,.1f}")
    report = {"machine": machine, "torch": torch.__version__, "medians": medians, "limits": most}
    write_atomically(FOLDER / f"{what}.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[2:]:
        if sys.argv[2] == "plain":
            device.keep_malloc_memory = lambda: None
        else:
            keep_malloc_memory()
        work = measure_feeder if sys.argv[1] == "feeder" else measure
        print(json.dumps(work(sys.argv[2] != "ours")))
    elif sys.argv[1:] in ([], ["feeder"]):
        main(*sys.argv[1:] or ["steps"])
    elif len(sys.argv) == 2 and sys.argv[1] in PAIRS:
        keep_malloc_memory()
        compare(sys.argv[1])
    else:
        sys.exit(f"expected no argument, feeder, {' or '.join(PAIRS)}, got {' '.join(sys.argv[1:])}")
