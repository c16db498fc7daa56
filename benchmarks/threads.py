"""Training speed on a busy machine: clips per second by number of CPU threads, and with the number that is chosen.

    python benchmarks/threads.py                     loads of 0, 2 and 5 other programs: a table, outputs/threads.json
    python benchmarks/threads.py --loads 5 --seconds 10

A load is a program of one thread that computes without end. Each figure is of a process of its own, which trains BPI
on made-up clips; the number is chosen as `fit` does it, when the load is there already.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from making import synthetic_store, tiny_config, write_prompts  # noqa: E402

from bpilib.system.files import write_atomically  # noqa: E402
from bpilib.system.scratch import scratch_folder  # noqa: E402
from bpilib.training.trainer import Trainer  # noqa: E402

BATCH = 32  # clips


def measure(folder: Path, threads: int | None, seconds: float) -> dict[str, float]:
    """Threads, and clips per second over about so many seconds, after two steps that do not count."""
    config = tiny_config(folder, folder / f"outputs{os.getpid()}", batch_size=BATCH, width=32, threads=threads)
    trainer = Trainer(config)
    trainer.run.model.train()
    for _ in range(2):
        trainer._step(np.arange(BATCH))
    started = time.monotonic()
    steps = 0
    while time.monotonic() < started + seconds:
        trainer._step(np.arange(BATCH))
        steps += 1
    speed = steps * BATCH / (time.monotonic() - started)
    trainer.close()
    return {"threads": torch.get_num_threads(), "clips_per_second": speed}


def in_process(folder: Path, threads: int | None, seconds: float) -> dict[str, float]:
    """`measure` in a new process, without OMP_NUM_THREADS, which would decide."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, __file__, "--measure", str(folder), "--threads", str(threads or 0)]
    said = subprocess.run(
        [*command, "--seconds", str(seconds)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(said.stdout.splitlines()[-1])


def compute_forever() -> None:
    while True:
        sum(range(10**6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", type=int, nargs="+", default=[0, 2, 5])
    parser.add_argument("--seconds", type=float, default=20, help="of each figure")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "threads.json")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.threads or None, given.seconds)))
        return
    rows = []
    print("| other programs | threads | clips/s |\n| --- | --- | --- |")
    with scratch_folder("bpi_threads_") as folder:
        synthetic_store(folder, subjects=2)
        write_prompts(folder)
        for load in given.loads:
            others = [multiprocessing.Process(target=compute_forever, daemon=True) for _ in range(load)]
            for other in others:
                other.start()
            for threads in (*range(1, joblib.cpu_count() + 1), None):
                row = {"load": load, "chosen": threads is None} | in_process(folder, threads, given.seconds)
                rows.append(row)
                chosen = " (chosen)" if threads is None else ""
                print(f"| {load} | {row['threads']}{chosen} | {row['clips_per_second']:.1f} |", flush=True)
            for other in others:
                other.terminate()
                other.join()
    write_atomically(given.out, json.dumps({"cores": joblib.cpu_count(), "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
