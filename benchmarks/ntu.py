"""How fast NTU raw files become a store, and in how much memory, on made files of realistic length.

    python benchmarks/ntu.py      (two to four minutes on two cores; a table here, outputs/bench/ntu.json to keep)

The published scripts read 60 files/s (16 MB/s) and prepare about 48 files/s in one process. Every measurement runs in a
process of its own; memory is the resident memory of that process and its workers together, sampled.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import psutil

from bpilib.data import prepare
from bpilib.data.ntu import build as ntu_build
from bpilib.data.ntu import raw_files
from bpilib.system.files import PROJECT, write_atomically

READING, WHOLE = 60, 48  # files/s as published
FEW, MANY = 1000, 8000
REPEATS = 3
# On a machine with other work to do, NTU_BENCH_CPU=1 measures the processor time of one process instead.
CLOCK = time.process_time if os.environ.get("NTU_BENCH_CPU") else time.perf_counter


def make(folder: Path) -> tuple[Path, Path]:
    """Folders of FEW made files, and of MANY: the same under eight subjects and replications."""
    few, many = folder / "few", folder / "many"
    command = [sys.executable, PROJECT / "tests/helpers/make_raw_ntu.py", few, "--set", "bulk60", "--count", str(FEW)]
    subprocess.run([*command, "--seed", "9"], check=True, stdout=subprocess.DEVNULL)
    (few / "manifest.json").unlink()
    many.mkdir()
    files = sorted(few.rglob("*.skeleton"))
    names = (f"S{s:03}C{c:03}P{p:03}R{r:03}A{a:03}" for a in range(1, 61) for s in range(1, 18) for c in range(1, 4)
             for p in (1, 2, 3) for r in (1, 2))  # fmt: skip
    for number, name in zip(range(MANY), names):
        os.link(files[number % FEW], many / f"{name}.skeleton")
    return few, many


def median(work: Callable[[], object]) -> float:
    """Median seconds of REPEATS calls, after one to warm up."""
    work()
    return statistics.median(timed(work) for _ in range(REPEATS))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = CLOCK()
    work()
    return CLOCK() - start


def parse_all(files: list[raw_files.RawFile]) -> None:
    """Read files to bodies, and drop them."""
    from bpilib.data.ntu import parser

    reader = raw_files.Reader()
    for file in files:
        parser.parse(reader.read(file))


def split_all(files: list[raw_files.RawFile], lines: bool) -> None:
    """Read files, split them into lines or not, and drop them."""
    for file in files:
        content = Path(file.path).read_bytes()
        if lines:
            content.split(b"\n")


def measure(what: str, raw: str, jobs: int) -> float:
    """Seconds for all files below `raw`."""
    from bpilib.data.ntu import parser

    parser.compile_now()
    if what == "prepare":
        ntu_build.FEW = 1  # `jobs` processes for the small set, too, which is otherwise left to one
        out = Path(raw).with_name(f"store_{jobs}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is not the whole data set
            seconds = timed(lambda: prepare("ntu60", raw=raw, out=out, progress=False, n_jobs=jobs))
        shutil.rmtree(out)
        return seconds
    files = raw_files.find_raw_files(raw)
    chunks = [files[i : i + 50] for i in range(0, len(files), 50)]
    parallel = joblib.Parallel(n_jobs=jobs)
    return {
        "bytes": lambda: median(lambda: split_all(files, lines=False)),
        "lines": lambda: median(lambda: split_all(files, lines=True)),
        "parse": lambda: median(lambda: parallel(joblib.delayed(parse_all)(chunk) for chunk in chunks)),
    }[what]()


def apart(what: str, raw: Path, jobs: int = 1) -> tuple[float, float]:
    """`measure` in a process of its own: seconds, and the peak of its memory with its workers', MB."""
    command = [sys.executable, __file__, what, str(raw), str(jobs)]
    peak = 0
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings) as child:
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            total = 0
            try:
                for process in (watched, *watched.children(recursive=True)):
                    total += process.memory_info().rss
            except psutil.NoSuchProcess:
                pass
            peak = max(peak, total)
            time.sleep(0.05)
        answer = child.stdout.read()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return float(answer.split()[-1]), peak / 1e6


def main() -> None:
    """Measure and print."""
    folder = PROJECT / "outputs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    cores = joblib.cpu_count()
    rows: dict[str, dict[str, float]] = {}

    def note(name: str, count: int, found: tuple[float, float], published: int | None = None) -> None:
        seconds, peak = found
        rate = count / seconds
        faster = rate / published if published else None
        rows[name] = {"files/s": rate, "MB/s": rate * size, "times published": faster, "MB peak": peak}
        times = f"{faster:9.1f} x" if faster else " " * 11
        print(f"{name:48} {rate:9,.0f} {rate * size:8,.0f} {times} {peak:9,.0f}", flush=True)

    with tempfile.TemporaryDirectory(dir=folder) as place:
        few, many = make(Path(place))
        size = sum(path.stat().st_size for path in few.rglob("*.skeleton")) / FEW / 1e6
        machine = f"{platform.processor() or platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{FEW:,} and {MANY:,} made files of {size:.2f} MB, {machine}")
        print(f"{'':48} {'files/s':>9} {'MB/s':>8} {'published':>11} {'MB peak':>9}")
        note("limit: only read, one process", FEW, apart("bytes", few))
        note("limit: read and split into lines, one process", FEW, apart("lines", few))
        note("reading to bodies, one process", FEW, apart("parse", few), READING)
        all_cores = () if CLOCK is time.process_time else (cores,)
        for jobs in all_cores:
            note(f"reading to bodies, {jobs} processes", FEW, apart("parse", few, jobs), READING)
        for raw, count in ((few, FEW), (many, MANY)):
            for jobs in (1, *all_cores):
                name = f"whole preparation of {count:,}, {jobs} process{'es' * (jobs > 1)}"
                note(name, count, apart("prepare", raw, jobs), WHOLE)
    print(f"published, one process: reading {READING} files/s, whole preparation about {WHOLE} files/s, 21 to 42 GB")
    report = {"machine": machine, "files": [FEW, MANY], "MB a file": size, "rows": rows}
    write_atomically(folder / "ntu.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        main()
