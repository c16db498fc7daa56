"""Faults on purpose, on small made-up data, and whether what comes out in the end is what it would have been.

    python benchmarks/chaos.py       160 kills, 20 of each signal and the other faults: a table, and outputs/chaos.json
    python benchmarks/chaos.py --kills 4 --pairs 1 --sweep 0 --signals 1

Every process is a fork of this one, so that a kill hits the work and not the imports. After a fault the same is started
again as its user would; a loss is a result that differs from the undisturbed one in a bit (times aside), a file that is
left over, there or among the temporary files, or, of a signal, a step that had ended when it came and is not in the
checkpoint when the kill follows.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from killing import kill_before_call  # noqa: E402
from making import tiny_config, write_prompts  # noqa: E402

from bpilib.data import prepare  # noqa: E402
from bpilib.evaluate import Scores, evaluate  # noqa: E402
from bpilib.system import checkpoint  # noqa: E402
from bpilib.system.files import write_atomically  # noqa: E402
from bpilib.system.logs import show_log  # noqa: E402
from bpilib.system.scratch import scratch_folder  # noqa: E402
from bpilib.train import fit  # noqa: E402
from bpilib.training.trainer import Trainer  # noqa: E402

Job = Callable[[], object]
NOT_RESULTS = ("training_seconds", "resumed", "environment")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SAVE_SECONDS = 2.0  # after a signal, until the kill; while other programs have its core, a process can't save
SWEEP = """
import sys
from bpilib.sweeps import clusters, sweep
if __name__ == "__main__":
    with clusters.connect("local", workers=2, cores=1) as client:
        table = sweep.run_sweep(sweep.load_sweep(sys.argv[1], sys.argv[2]), client)
    sys.exit(int((table["state"] == "failed").any()))
"""


class Chaos:
    """Small data in a folder, the undisturbed results, and the rows of the table."""

    def __init__(self, place: Path, seed: int):
        self.place, self.random, self.rows = place, random.Random(seed), []
        self.log, self.temporary = place / "log.txt", place / "tmp"
        place.chmod(0o755)
        self.temporary.mkdir(mode=0o777)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.temporary)
        self.finish(self.prepare)
        write_prompts(place)
        self.expected = {"store": self.store()}
        for name in ("run", "first run"):
            outputs, seed = place / name, int(name != "run")
            self.finish(lambda outputs=outputs, seed=seed: fit(self.config(outputs, seed)))
            self.expected[name] = self.result(self.config(outputs, seed).run_directory)

    # --- the work

    def config(self, outputs: Path, seed: int = 0):
        return tiny_config(self.place, outputs, seed=seed, checkpoint_minutes=0.0)

    def prepare(self, overwrite: bool = True) -> None:
        options = {"progress": False, "subjects": 2, "episodes": 1, "overwrite": overwrite}
        prepare("synthetic", raw=self.place / "raw", out=self.place / "store", **options)

    def store(self) -> str:
        return json.dumps(json.loads((self.place / "store" / "manifest.json").read_text())["sha256"])

    def result(self, folder: Path) -> dict[str, str]:
        """Hashes of all that a run comes to, but for how long it took."""
        found = {}
        for name in ("last.pt", "best.pt"):
            content = checkpoint.load(folder / name)
            digest = hashlib.sha256()
            for part in ("model", "text", "optimizer")[: 3 if name == "last.pt" else 2]:
                _feed(digest, content[part])
            found[name] = digest.hexdigest()
        rows = [line.rsplit(",", 3) for line in (folder / "metrics.csv").read_text().splitlines()]
        found["metrics.csv"] = str([[cells[0], *cells[2:]] for cells in rows])  # all but clips_per_second
        found["scores.npz"] = hashlib.sha256(Scores.load(folder / "scores.npz").logits.tobytes()).hexdigest()
        summary = json.loads((folder / "summary.json").read_text())
        found["summary.json"] = str({key: value for key, value in summary.items() if key not in NOT_RESULTS})
        return found

    # --- processes

    def start(self, job: Job) -> int:
        """The process id of a fork that does a job; what it says goes to `log`."""
        if child := os.fork():
            return child
        with open(self.log, "w") as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            code = 1
            try:
                job()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def wait(self, child: int, seconds: float = 600) -> int | None:
        """Its exit code; None if it is still at work after so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def finish(self, job: Job) -> None:
        if (code := self.wait(self.start(job))) != 0:
            raise RuntimeError(f"a job that nothing disturbs ended with {code}:\n{self.log.read_text()}")

    def left(self, *folders: Path) -> list[str]:
        """What is left over in folders, or among the temporary files but for what Dask and PyTorch keep."""
        kept = ("dask-scratch-space", "torchinductor_", "pytorch-errorfile-")
        found = [path for folder in folders for path in leftovers(folder)]
        found += [path for path in self.temporary.iterdir() if not path.name.startswith(kept)]
        return [f"{path.relative_to(self.place)} is left over" for path in found]

    def wrong(self, folder: Path, expected: str | dict[str, str] = "run") -> list[str]:
        """What of a finished run is another than in the undisturbed one, by name or itself, or left over."""
        should = self.expected[expected] if isinstance(expected, str) else expected
        return [f"{name} differs" for name, value in self.result(folder).items() if should[name] != value] + self.left(
            folder
        )

    def said(self) -> str:
        """The last line that the process said, without the places of this machine."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        warned = [line for line in lines if "UserWarning: " in line]
        last = (warned or lines or [""])[-1].replace(f"{self.place}/", "").rpartition("UserWarning: ")[2]
        return last[:160]

    def row(self, fault: str, tries: int, losses: list[list[str]], message: str = "") -> None:
        """Add a row to the table.

        Args:
            losses: what was wrong, in those tries that lost something.
            message: what the process said.
        """
        losses = [wrong for wrong in losses if wrong]
        why = "; ".join(sorted({reason for wrong in losses for reason in wrong}))
        self.rows.append({"fault": fault, "tries": tries, "losses": len(losses), "message": message, "why": why})
        print(f"| {fault} | {tries} | {len(losses)} | {why or message} |", flush=True)

    # --- kills

    def kill(self, fault: str, count: int, job: Job, fresh: Job, wrong: Callable[[], list[str]]) -> None:
        """Kill a job at random moments, start it again each time, compare whenever it gets to its end."""
        self.finish(job)
        fresh()
        started = time.monotonic()
        self.finish(job)
        seconds, kills, losses, ends = time.monotonic() - started, 0, [wrong()], 0
        fresh()
        while kills < count or not ends:
            child = self.start(job)
            limit = self.random.uniform(0, seconds) if kills < count else 600
            code = self.wait(child, limit)
            if code is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                kills += 1
                ends = 0
            else:
                ends += 1
                losses.append(wrong() if code == 0 else [f"it ended with {code}"])
                fresh()
        self.row(f"kill -9 in {fault}", kills, losses)

    def kills(self, count: int) -> None:
        """Two fifths in preparation, two in training, the rest in evaluation."""
        outputs = self.place / "killed"
        folder = self.config(outputs).run_directory
        few = count * 3 // 10
        self.kill("preparation", few, self.prepare, lambda: None, self.prepared_otherwise)
        self.kill("training", count - 2 * few, lambda: fit(self.config(outputs)),
                  lambda: shutil.rmtree(outputs, ignore_errors=True),
                  lambda: self.wrong(folder))  # fmt: skip
        self.finish(lambda: fit(self.config(outputs)))
        self.kill("evaluation", few, lambda: evaluate(self.config(outputs)),
                  lambda: (folder / "scores.npz").unlink(missing_ok=True),
                  lambda: self.wrong(folder))  # fmt: skip

    def prepared_otherwise(self) -> list[str]:
        """What of the store is another than in the undisturbed one, or left over beside or in it."""
        beside = [path.name for path in self.place.iterdir() if path.name.startswith(("store.", "raw."))]
        wrong = [f"{name} is left over" for name in beside] + self.left(self.place / "store", self.place / "raw")
        return wrong + ["the store differs"] * (self.store() != self.expected["store"])

    def overwrites(self) -> None:
        """Kill an overwriting preparation right before each of the calls by which files are made whole, moved, removed;
        then prepare without overwriting, which must find a whole store or make one."""

        def counted(point: int) -> None:
            count_calls = kill_before_call(point)
            self.prepare()
            (self.place / "points.txt").write_text(str(count_calls()))

        self.finish(lambda: counted(10**9))
        points, losses = int((self.place / "points.txt").read_text()), []
        for point in range(1, points + 1):
            self.wait(self.start(lambda: counted(point)))  # noqa: B023
            self.finish(lambda: self.prepare(overwrite=False))
            losses.append(self.prepared_otherwise())
        self.row("kill -9 at each rename, removal and flush of an overwriting preparation", points, losses)

    def pairs(self, count: int) -> None:
        """Kill any one process of a training in two processes, start the same again."""
        outputs = self.place / "pairs"
        config = self.config(outputs).changed(devices=2, max_restarts=0)
        folder = config.run_directory
        started = time.monotonic()
        self.finish(lambda: fit(config))
        seconds, expected, kills, losses = time.monotonic() - started, self.result(folder), 0, []
        shutil.rmtree(outputs)
        while kills < count:
            child = self.start(lambda: fit(config))
            if self.wait(child, self.random.uniform(0, seconds)) is None:
                tree = [psutil.Process(child), *psutil.Process(child).children(recursive=True)]
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.random.choice(tree).kill()
                self.wait(child)
                psutil.wait_procs(tree[1:], timeout=60)  # those that live on save, and then end
                kills += 1
            if kills == count or (folder / "summary.json").exists():
                self.finish(lambda: fit(config))
                losses.append(self.wrong(folder, expected))
                shutil.rmtree(outputs)
        self.row("kill -9 of a process of a training in two processes", kills, losses)

    def sweep(self, count: int) -> None:
        """Kill any one process of a sweep of two runs, start the sweep again."""
        outputs, table = self.place / "swept", self.place / "sweep.yaml"
        names = ("dataset", "data", "prompts", "epochs", "batch_size", "repeats", "width", "lr", "text", "device",
                 "precision", "checkpoint_minutes")  # fmt: skip
        settings = self.config(outputs).settings()
        table.write_text(yaml.safe_dump({"defaults": {n: settings[n] for n in names}, "grid": {"seed": [0, 1]}}))
        program = self.place / "sweep.py"
        program.write_text(SWEEP)
        command = [sys.executable, program, table, outputs]
        kills = 0
        while True:
            with open(self.log, "w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
            if kills == count:
                code = process.wait(timeout=900)
                break
            time.sleep(self.random.uniform(5, 30))
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            self.random.choice(tree).kill()
            kills += 1
            if process.poll() is None:
                process.kill()
            process.wait()
        losses = [[f"the sweep ended with {code}"] if code else []]
        for seed, name in enumerate(("run", "first run")):
            folder = self.config(outputs, seed).run_directory
            losses.append(self.wrong(folder, name))
        self.row("kill -9 of a process of a sweep, and of the sweep", kills, losses)

    # --- signals

    def signals(self, tries: int) -> None:
        """A signal at a random moment of a training whose steps do not end, a kill two seconds later; then resume."""
        outputs = self.place / "signalled"
        config = self.config(outputs).changed(checkpoint_minutes=1e6)
        folder = config.run_directory
        steps = self.place / "steps.txt"

        def stuck() -> None:
            step = Trainer._step

            def counted(trainer: Trainer, positions) -> None:
                if time.monotonic() > begun + limit:  # within a step, wherever it is by then
                    steps.write_text(f"{trainer.progress.epoch} {trainer.progress.batch}")
                    while True:
                        time.sleep(1)
                step(trainer, positions)

            begun = time.monotonic()
            Trainer._step = counted
            fit(config)

        started = time.monotonic()
        self.finish(lambda: fit(config))
        seconds = time.monotonic() - started
        for number in SIGNALS:
            losses, done = [], 0
            while done < tries:
                shutil.rmtree(outputs, ignore_errors=True)
                steps.unlink(missing_ok=True)
                limit = self.random.uniform(0, seconds / 2)
                child = self.start(stuck)
                while not steps.exists() and self.wait(child, 0.05) is None:
                    pass
                if not steps.exists():  # it ended before
                    continue
                done += 1
                os.kill(child, number)
                before, sent = held_up(child), time.monotonic()
                while (code := self.wait(child, 0.05)) is None:
                    held = max((wait - before.get(thread, 0) for thread, wait in held_up(child).items()), default=0)
                    if time.monotonic() - sent - held > SAVE_SECONDS:
                        break
                if code is None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                saved, done_steps = self.saved_position(folder), tuple(map(int, steps.read_text().split()))
                wrong = [f"epoch and step {saved} were saved of {done_steps}"] * (saved < done_steps)
                self.finish(lambda: fit(config))
                losses.append(wrong + self.wrong(folder))
            self.row(f"{number.name} in a step that does not end, kill -9 after {SAVE_SECONDS:g} s", tries, losses)

    def saved_position(self, folder: Path) -> tuple[int, int]:
        """Epochs, and steps of the running one, that last.pt has finished."""
        if not checkpoint.exists(folder / "last.pt"):
            return 0, 0
        progress = checkpoint.load(folder / "last.pt")["progress"]
        return progress["epoch"], progress["batch"]

    # --- other faults

    def disturbed(self, fault: str, job: Job, message: str) -> None:
        """A training that fails or is disturbed, then the same undisturbed."""
        outputs = self.place / "disturbed"
        folder = self.config(outputs).run_directory
        shutil.rmtree(outputs, ignore_errors=True)
        failed = self.wait(self.start(job))
        said = self.said() if failed else "nothing, it went on"
        wrong = [f"it did not say {message!r}"] * (message not in self.log.read_text()) + self.left(folder)
        self.finish(lambda: fit(self.config(outputs)))
        self.row(fault, 1, [wrong + self.wrong(folder)], said)

    def faults(self) -> None:
        config = self.config(self.place / "disturbed")

        def full() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            fit(config)

        def read_only() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)  # nobody
            else:
                self.place.chmod(0o555)
            fit(config)

        def clock() -> None:
            real = time.time
            time.time = lambda: 2e9 - real()
            fit(config)

        def memory() -> None:
            from bpilib.feeders import Feeder

            take, left = Feeder.take, [4]

            def starved(*arguments):
                left[0] -= 1
                if not left[0]:
                    used = psutil.Process().memory_info().vms
                    resource.setrlimit(resource.RLIMIT_AS, (used, used))
                return take(*arguments)

            Feeder.take = starved
            fit(config)

        def interrupted() -> None:
            step, left = Trainer._step, [at]

            def last(*arguments):
                left[0] -= 1
                if not left[0]:
                    signal.raise_signal(signal.SIGINT)
                step(*arguments)

            Trainer._step = last
            fit(config)

        self.disturbed("disk full (a limit to the size of files)", full, "is the disk full?")
        self.disturbed("outputs that can't be written", read_only, "set the parameter outputs")
        self.place.chmod(0o755)
        self.disturbed("clock that goes backwards", clock, "")
        self.disturbed("out of memory in the feeder", memory, "emory")
        for at in self.random.sample(range(1, 9), 3):
            self.disturbed(f"Ctrl-C in step {at}", interrupted, "run the same again to go on")
        self.two()
        self.damages()

    def two(self) -> None:
        """A second training in the run directory of one at work."""
        outputs = self.place / "two"
        config = self.config(outputs)
        first = self.start(lambda: fit(config))
        while not (config.run_directory / "run.lock").exists():
            time.sleep(0.01)
        os.kill(first, signal.SIGSTOP)  # so that it is still at work when the second comes
        self.wait(self.start(lambda: fit(config)))
        said = self.said()
        os.kill(first, signal.SIGCONT)
        wrong = ["the second was not told"] * ("in use by process" not in said)
        wrong += ["the first did not end well"] * (self.wait(first) != 0)
        self.row("two on one run directory", 1, [wrong + self.wrong(config.run_directory)], said)

    def damages(self) -> None:
        """Files cut, with a bit flipped, or from another run; what reads them next."""
        outputs = self.place / "damaged"
        config, folder = self.config(outputs), self.config(outputs).run_directory
        other = self.config(self.place / "first run", 1).run_directory
        for name, file in (("a checkpoint to go on from", "last.pt"), ("the best checkpoint", "best.pt"),
                           ("scores", "scores.npz")):  # fmt: skip
            for damage in (truncate, flip, lambda path: shutil.copy(other / path.name, path)):
                shutil.rmtree(outputs, ignore_errors=True)
                self.finish(lambda: fit(config))
                damage(folder / file)
                if file == "last.pt":
                    (folder / "summary.json").unlink()
                if file == "scores.npz":
                    self.wait(self.start(lambda: Scores.load(folder / "scores.npz")))
                    said = self.said()
                    self.finish(lambda: evaluate(config))
                else:
                    self.finish(lambda: fit(config) if file == "last.pt" else evaluate(config))  # noqa: B023
                    said = self.said()
                    if file == "best.pt":
                        shutil.copy(folder / "last.pt", folder / file)
                wrong = [f"the file was not named, but: {said}"] * (file not in said)
                self.row(f"{name}: {_name(damage)}", 1, [wrong + self.wrong(folder)], said)
        for file in ("poses.npy", "index.npz"):
            for damage in (truncate, flip):
                shutil.rmtree(outputs, ignore_errors=True)
                damage(self.place / "store" / file)
                failed = self.wait(self.start(lambda: fit(config))) != 0
                said = self.said()
                self.finish(self.prepare)
                self.finish(lambda: fit(config))
                wrong = ["it was not noticed"] * (not failed)
                self.row(f"{file} of the store: {_name(damage)}", 1, [wrong + self.wrong(folder)], said)


def _feed(digest, value) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            digest.update(str(key).encode())
            _feed(digest, entry)
    elif isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    else:
        digest.update(str(value).encode())


def leftovers(folder: Path) -> list[Path]:
    """What an interrupted write leaves: hidden files, and locks."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".lock"]


def held_up(process: int) -> dict[str, float]:
    """Of each of its threads, the seconds that it could have run but had no core, where the system counts them."""
    found = {}
    for place in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            found[place.parent.name] = int(place.read_text().split()[1]) / 1e9
    return found


def _name(damage: Callable) -> str:
    return {"truncate": "cut", "flip": "a bit flipped"}.get(damage.__name__, "another run's")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip(path: Path) -> None:
    """Flip a bit in the middle of the file, or of a zip's largest member: what lies between members is not read."""
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda member: member.compress_size)
        name, extra = struct.unpack_from("<HH", content, largest.header_offset + 26)  # their lengths, after the header
        place = largest.header_offset + 30 + name + extra + largest.compress_size // 2
    content[place] ^= 4
    path.write_bytes(content)


def main() -> int:
    """Do it all; the number of losses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=160, help="in all, those of sweeps and pairs among them")
    parser.add_argument("--pairs", type=int, default=5, help="kills of a training in two processes")
    parser.add_argument("--sweep", type=int, default=5, help="kills of sweeps")
    parser.add_argument("--signals", type=int, default=20, help="tries of each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "chaos.json")
    given = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and then a training does not end by it either
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # a fork must not find threads that are not there
    show_log()
    with scratch_folder("bpi_chaos_") as folder:
        chaos = Chaos(folder, given.seed)
        print("| fault | tries | losses | what was said, or lost |\n| --- | --- | --- | --- |")
        if (alone := given.kills - given.sweep - given.pairs) > 0:
            chaos.overwrites()
            chaos.kills(alone)
        if given.pairs:
            chaos.pairs(given.pairs)
        if given.signals:
            chaos.signals(given.signals)
        chaos.faults()
        if given.sweep:
            chaos.sweep(given.sweep)
    losses = sum(row["losses"] for row in chaos.rows)
    write_atomically(given.out, json.dumps({"seed": given.seed, "losses": losses, "faults": chaos.rows}, indent=1))
    print(f"{losses} losses; the table is in {given.out}")
    return losses


if __name__ == "__main__":
    sys.exit(main() > 0)
