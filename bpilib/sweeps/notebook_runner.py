"""Executes a notebook headless in a child process: one at a time per run directory, never longer than its parent.

`execute_notebook` starts `python -m bpilib.sweeps.notebook_runner`, which runs papermill. Parameters are passed through
standard input, since command lines can be read by every user of a machine.
"""

import contextlib
import datetime
import fcntl
import json
import keyword
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import papermill
import psutil
from papermill.exceptions import PapermillExecutionError

from bpilib.system.files import PROJECT, mask_notebook, mask_secrets, open_in_place, write_atomically
from bpilib.system.lock import try_lock
from bpilib.system.scratch import scratch_folder

LOG = "run.log"
PAUSE = 0.5  # seconds between two polls


def execute_notebook(
    notebook: Path,
    folder: Path,
    parameters: dict[str, object],
    stopped: Callable[[], bool] = bool,
    by: str = "",
    finished: Callable[[], bool] = bool,
) -> tuple[str, str]:
    """Execute a notebook in a run directory; if another process is doing so, wait for it and return its result.

    run.log records starts and ends, receives the output of the processes, and is the lock: the processes inherit it as
    their standard output, so the OS releases it when the last of them has ended, even one that outlived its parent.
    Secrets in it are masked at the end of a run, and again at the start of the next one.

    Args:
        notebook: to execute; the executed copy is kept in the folder under the same name, with its error if it fails.
        folder: the run directory.
        parameters: plain values by name.
        stopped: polled twice a second; once true, the kernel is interrupted, so that training saves and ends.
        by: who starts it, for the record.
        finished: asked once no other process is at work in the folder; where it is true, nothing is executed.

    Returns:
        "finished", "failed" or "interrupted", and a line that says why.

    Raises:
        ValueError: a name that is not an identifier: papermill writes names into a cell as code. Or run.log is a link.
        OSError: the folder can't be written, or its file system has no locks.
    """
    for name in parameters:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"expected names of parameters, got {name!r}: correct it in the table of runs")
    if stopped():
        return "interrupted", "before it began"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / notebook.name
    with open_in_place(folder / LOG, "ab", buffering=0) as log:
        while not try_lock(log, fcntl.LOCK_EX):
            if stopped():
                return "interrupted", "while another process held the run directory"
            time.sleep(PAUSE)
        _unmasked(kept).unlink(missing_ok=True)  # of a process that was killed
        if finished():
            return "finished", ""
        _mask_log(folder / LOG)
        _record(log, f"start on {platform.node()} by {by or f'process {os.getpid()}'}")
        command = [sys.executable, "-m", "bpilib.sweeps.notebook_runner", str(notebook), str(kept)]
        environment = {"OMP_WAIT_POLICY": "passive"} | os.environ  # threads that wait leave their core to other runs
        with subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended already; its return code says how
                process.stdin.write(json.dumps(parameters).encode() + b"\n")
                process.stdin.flush()
            interrupted = False
            while process.poll() is None:
                if not interrupted and stopped():
                    interrupted = True
                    process.stdin.close()
                time.sleep(PAUSE)
        _unmasked(kept).unlink(missing_ok=True)
        _mask_log(folder / LOG)
        outcome = _judge_outcome(process.returncode, interrupted, folder / LOG)
        _record(log, ": ".join(filter(None, outcome)))
        return outcome


def _unmasked(kept: Path) -> Path:
    """Where papermill writes a notebook with the parameters in plain text, until it is kept without secrets."""
    return kept.with_name(f".{kept.name}")


def _judge_outcome(returncode: int, interrupted: bool, log: Path) -> tuple[str, str]:
    if returncode == 0:
        return "finished", ""
    if interrupted:
        return "interrupted", ""
    return "failed", _read_last_line(log) if returncode > 0 else f"ended by signal {-returncode}"


def _mask_log(path: Path) -> None:
    """Mask secrets in the log in place: the file is the lock, so it can't be replaced."""
    text = path.read_bytes()
    masked = str(mask_secrets(text.decode(errors="surrogateescape"))).encode(errors="surrogateescape")
    if masked != text:
        with open_in_place(path, "r+b") as log:
            log.write(masked)
            log.truncate()


def is_running(folder: Path) -> bool:
    """Whether a process works in a run directory, on any machine that shares it."""
    try:
        with open(folder / LOG, "rb") as log:
            return not try_lock(log, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def count_starts(folder: Path) -> int:
    """How often a run was started, from run.log."""
    path = folder / LOG
    return path.read_text(errors="replace").count("* start on ") if path.exists() else 0


def _record(log: IO[bytes], what: str) -> None:
    log.write(f"* {what}, {datetime.datetime.now().astimezone().isoformat(timespec='seconds')}\n".encode())


def _read_last_line(path: Path) -> str:
    return path.read_text(errors="replace").rstrip().rpartition("\n")[2]


def _end_with_starter(stop: threading.Event, busy: threading.Event) -> None:
    """Wait until stdin is closed, which happens however the parent ends; interrupt the kernel, kill it after a minute.

    A kernel between two cells is not interrupted, since it would hang; instead no further cell begins once `stop` is
    set.
    """
    os.read(sys.stdin.fileno(), 1)
    stop.set()
    if busy.is_set():
        for kernel in psutil.Process().children():
            kernel.send_signal(signal.SIGINT)
    time.sleep(60)
    for kernel in psutil.Process().children():
        kernel.kill()
    os._exit(1)


def _read_line(handle: int) -> bytes:
    """Read one line byte by byte, without buffering what follows: another thread waits for the end of stdin."""
    line = bytearray()
    while (byte := os.read(handle, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def _keep(beside: Path, kept: str) -> None:
    """Keep an executed notebook without its secrets; one that papermill has not written whole is not kept."""
    try:
        notebook = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError:
        return
    write_atomically(kept, json.dumps(mask_notebook(notebook), indent=1) + "\n")


def _main(notebook: str, kept: str) -> None:
    parameters = json.loads(_read_line(sys.stdin.fileno()))
    stop = threading.Event()
    busy = threading.Event()

    def begin(**_: object) -> None:
        if stop.is_set():
            raise InterruptedError("interrupted between two cells")
        busy.set()

    threading.Thread(target=_end_with_starter, args=(stop, busy), daemon=True).start()
    beside = _unmasked(Path(kept))
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # papermill writes parameters unmasked
    try:
        try:
            with scratch_folder("bpi_notebook_") as scratch:
                tempfile.tempdir = str(scratch)  # of Jupyter's connection file, which stays where this is killed
                papermill.execute_notebook(
                    notebook,
                    beside,
                    parameters,
                    progress_bar=False,
                    on_cell_execute=begin,
                    on_cell_executed=lambda **_: busy.clear(),
                )
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to say
                _keep(beside, kept)
            raise
        _keep(beside, kept)
    except (PapermillExecutionError, InterruptedError) as error:
        sys.exit(str(error).rstrip())
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
