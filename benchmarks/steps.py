"""What a step costs on this machine: matrix product, feeder, network, whole training step, inference.

    make bench      (about two minutes on two cores; a table here, outputs/bench/steps.json to keep)
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from bpilib.config import resolve
from bpilib.data import prepare
from bpilib.evaluate import predict
from bpilib.files import PROJECT, write_atomically
from bpilib.losses import skeleton_text_loss
from bpilib.machine import pick_device
from bpilib.trainer import Trainer

BATCH = 32
REPEATS = 7


def median(work: Callable[[], object]) -> float:
    """Median seconds of `work` after one call to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    folder = PROJECT / "outputs" / "bench"
    prepare("synthetic", raw=PROJECT / "data/synthetic", out=PROJECT / "data/prepared/synthetic", progress=False)
    config = resolve(dataset="synthetic", model="bpi", width=64, batch_size=BATCH, outputs=str(folder), tag="steps")
    trainer = Trainer(config)
    feeder, model = trainer.feeder, trainer.run.model
    positions = np.arange(BATCH)
    x, labels = feeder.batch(positions)
    a, b = torch.randn(2, 2048, 2048, device=pick_device())

    def forward_backward() -> None:
        with trainer.autocast:
            out = model(x)
        skeleton_text_loss(out, trainer._texts(labels, positions), labels).total.backward()

    test = trainer.run.feeder("test")
    rows = {
        "matrix product, float32 (GFLOP/s)": 2 * 2048**3 / median(lambda: a @ b) / 1e9,
        "feeder, training batches (clips/s)": BATCH / median(lambda: feeder.batch(positions)),
        "network and loss, forward and backward (clips/s)": BATCH / median(forward_backward),
        "whole training step (clips/s)": BATCH / median(lambda: trainer._step(positions)),
        "inference, float32 (clips/s)": len(test) / median(lambda: predict(model, test, BATCH)),
    }
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"bpi, width 64, batch {BATCH}, {trainer.precision} training, torch {torch.__version__}, {machine}")
    for name, value in rows.items():
        print(f"{name:52} {value:10.1f}")
    trainer.close()
    write_atomically(folder / "steps.json", json.dumps({"machine": machine, "medians": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
