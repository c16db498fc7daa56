"""One notebook in one run directory: the record, the lock, failures, and the end of whoever started it."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import types

import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from bpilib.sweeps import notebook_runner
from bpilib.sweeps.notebook_runner import count_starts, execute_notebook, is_running
from bpilib.system import files
from bpilib.system.lock import try_lock


@pytest.fixture
def notebook(tmp_path):
    """notebook(source): the path of a notebook with a parameters cell and one cell of this source."""

    def make(source):
        cells = [nbformat.v4.new_code_cell("# parameters\nseconds = 0", metadata={"tags": ["parameters"]})]
        cells += [nbformat.v4.new_code_cell(line) for line in source]
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path = tmp_path / "02_train.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), path)
        return path

    return make


def record(folder):
    """The record of starts and ends, without times and places."""
    lines = [line for line in (folder / notebook_runner.LOG).read_text().splitlines() if line.startswith("* ")]
    return [re.sub(r" on .*|, [^,]*$", "", line[2:]) for line in lines]


def test_an_executed_notebook_is_kept_whole(notebook, tmp_path):
    folder = tmp_path / "run"
    assert execute_notebook(notebook(["print(seconds + 1)"]), folder, {"seconds": 41}) == ("finished", "")
    assert "42" in (folder / "02_train.ipynb").read_text()
    assert record(folder) == ["start", "finished"]
    assert sorted(path.name for path in folder.iterdir()) == ["02_train.ipynb", "run.log"]
    assert not is_running(folder) and count_starts(folder) == 1


def test_a_failure_keeps_the_notebook_and_the_traceback(notebook, tmp_path):
    folder = tmp_path / "run"
    assert execute_notebook(notebook(["{}['clip']"]), folder, {}) == ("failed", "KeyError: 'clip'")
    kept = nbformat.read(folder / "02_train.ipynb", 4)
    assert any(o.output_type == "error" for cell in kept.cells for o in cell.get("outputs", []))
    assert "Traceback (most recent call last)" in (folder / notebook_runner.LOG).read_text()
    assert record(folder) == ["start", "failed: KeyError: 'clip'"]


def test_a_dead_kernel_is_a_failure(notebook, tmp_path):
    state, message = execute_notebook(notebook(["import os; os.kill(os.getpid(), 9)"]), tmp_path / "run", {})
    assert (state, message) == ("failed", "nbclient.exceptions.DeadKernelError: Kernel died")


def test_what_is_stopped_before_it_began_leaves_nothing(notebook, tmp_path):
    assert execute_notebook(notebook([]), tmp_path / "run", {}, lambda: True)[0] == "interrupted"
    assert not (tmp_path / "run").exists()


def test_a_stop_interrupts_the_cell_so_that_it_can_save(notebook, tmp_path):
    folder = tmp_path / "run"
    source = f"""import pathlib, time
here = pathlib.Path({str(folder)!r})
(here / "began").touch()
try:
    time.sleep(3600)
except KeyboardInterrupt:
    (here / "saved").touch()
    raise"""
    assert execute_notebook(notebook([source, "1"]), folder, {}, (folder / "began").exists) == ("interrupted", "")
    assert (folder / "saved").exists()  # by the interrupt alone
    assert record(folder) == ["start", "interrupted"]


def test_a_directory_is_held_until_the_last_process_has_ended(notebook, tmp_path):
    """The starter is killed -9 while the kernel takes its time to save: the next one waits, then has nothing to do."""
    folder = tmp_path / "run"
    source = f"""import pathlib, time
here = pathlib.Path({str(folder)!r})
(here / "began").touch()
try:
    time.sleep(3600)
except KeyboardInterrupt:
    while not (here / "go on").exists():
        time.sleep(0.05)
    (here / "summary.json").write_text("saved by the first")"""
    path = notebook([source])
    code = "import pathlib; from bpilib.sweeps.notebook_runner import execute_notebook; "
    code += f"execute_notebook(pathlib.Path({str(path)!r}), pathlib.Path({str(folder)!r}), {{}})"
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=files.PROJECT)
    while not (folder / "began").exists():
        assert starter.poll() is None
        time.sleep(0.1)
    assert is_running(folder)
    os.kill(starter.pid, 9)
    starter.wait()
    assert is_running(folder)
    threading.Timer(1, (folder / "go on").touch).start()  # the second waits by then, or comes when all is over
    assert execute_notebook(path, folder, {}, bool, "the second", (folder / "summary.json").exists) == ("finished", "")
    assert (folder / "summary.json").read_text() == "saved by the first"
    assert record(folder) == ["start"] and count_starts(folder) == 1


def test_a_kill_leaves_no_file_that_the_next_run_does_not_remove(notebook, tmp_path, monkeypatch):
    """Such as Jupyter's connection file, with the key to the kernel."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    began = tmp_path / "began"
    path = notebook([f"import pathlib, time; pathlib.Path({str(began)!r}).touch(); time.sleep(3600)"])
    told = threading.Thread(target=execute_notebook, args=(path, tmp_path / "killed", {}))
    told.start()
    while not began.exists():
        time.sleep(0.1)
    (runner,) = (p for p in psutil.Process().children() if "bpilib.sweeps.notebook_runner" in p.cmdline())
    for process in (runner, *runner.children(recursive=True)):
        process.kill()
    told.join()
    assert not (tmp_path / "killed" / ".02_train.ipynb").exists()  # with the parameters in plain text
    assert [file.suffix for file in temporary.rglob("*.json")] == [".json"]
    assert execute_notebook(notebook([]), tmp_path / "next", {}) == ("finished", "")
    assert not list(temporary.iterdir())


def test_who_waits_for_a_held_directory_can_be_stopped(notebook, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / notebook_runner.LOG, "ab") as log:
        assert try_lock(log, notebook_runner.fcntl.LOCK_EX)
        asked = iter([False, False, True])
        assert execute_notebook(notebook([]), folder, {}, lambda: next(asked)) == (
            "interrupted",
            "while another process held the run directory",
        )
    assert record(folder) == [] and not is_running(folder)


@pytest.mark.parametrize("name", ["x = 1; y", "__import__('os').system('touch x'); z", "a-b", "class", "", "1a"])
def test_a_name_that_would_be_code_is_refused(notebook, tmp_path, name):
    with pytest.raises(ValueError, match="expected names of parameters"):
        execute_notebook(notebook(["1"]), tmp_path / "run", {name: 1})
    assert not (tmp_path / "run").exists()


def test_secrets_are_seen_neither_by_other_users_nor_in_what_is_kept(notebook, tmp_path):
    folder = tmp_path / "run"
    source = f"""import pathlib, psutil
lines = [" ".join(p.cmdline()) for p in (psutil.Process(), *psutil.Process().parents())]
pathlib.Path({str(tmp_path / "lines")!r}).write_text("\\n".join(lines))
half = pathlib.Path({str(folder / ".02_train.ipynb")!r})
pathlib.Path({str(tmp_path / "mode")!r}).write_text(oct(half.stat().st_mode & 0o777))
raise ValueError(raw)"""
    secret = "PW4711"
    state, message = execute_notebook(notebook([source]), folder, {"raw": f"https://me:{secret}@host/x"})
    assert state == "failed" and message == "ValueError: https://me:***@host/x"
    lines = (tmp_path / "lines").read_text()
    assert "bpilib.sweeps.notebook_runner" in lines and secret not in lines
    assert (tmp_path / "mode").read_text() == "0o600"
    assert secret not in (folder / notebook_runner.LOG).read_text()
    assert record(folder)[0] == "start"
    parameters = nbformat.read(folder / "02_train.ipynb", 4).metadata.papermill.parameters
    assert parameters["raw"] == "https://me:***@host/x"
    assert secret not in (folder / "02_train.ipynb").read_text()  # nor in its traceback
    assert not (folder / ".02_train.ipynb").exists()


def test_what_a_killed_runner_left_in_plain_text_is_removed_from_a_finished_run(notebook, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("summary.json", ".02_train.ipynb"):
        (folder / name).touch()
    assert execute_notebook(notebook([]), folder, {}) == ("finished", "")
    assert not (folder / ".02_train.ipynb").exists() and (folder / "summary.json").exists()


WHOLE = json.dumps({"cells": [], "metadata": {}})
STOPPED = PapermillExecutionError(1, 1, "x", "ValueError", "why", ["ValueError: why"])


@pytest.mark.parametrize(
    ("written", "raised", "full", "said"),
    [
        ('{"cells": [', OSError(28, "No space left"), False, (OSError, "No space left")),  # papermill itself
        ("", OSError(28, "No space left"), False, (OSError, "No space left")),
        (WHOLE, None, True, (OSError, "full disk")),
        (WHOLE, STOPPED, True, (SystemExit, "ValueError: why")),
        (None, STOPPED, True, (SystemExit, "ValueError: why")),
        (WHOLE, STOPPED, False, (SystemExit, "ValueError: why")),
    ],
)
def test_nothing_in_plain_text_outlives_an_error(tmp_path, monkeypatch, written, raised, full, said):
    kept, beside = tmp_path / "02_train.ipynb", tmp_path / ".02_train.ipynb"

    def execute(_, path, *__, **___):
        assert path == beside and path.exists()
        path.unlink() if written is None else path.write_text(written)
        if raised:
            raise raised

    def fail(*_):
        raise OSError("full disk")

    monkeypatch.setattr(notebook_runner.sys, "stdin", types.SimpleNamespace(fileno=lambda: 0))
    monkeypatch.setattr(notebook_runner, "_read_line", lambda _: b"{}")
    monkeypatch.setattr(notebook_runner, "_end_with_starter", lambda *_: None)
    monkeypatch.setattr(notebook_runner.papermill, "execute_notebook", execute)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    if full:
        monkeypatch.setattr(notebook_runner, "write_atomically", fail)
    with pytest.raises(said[0], match=said[1]):
        notebook_runner._main("02_train.ipynb", str(kept))
    assert not beside.exists() and kept.exists() == (written == WHOLE and not full)


def test_a_log_that_is_a_link_is_refused_and_left_alone(notebook, tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "bashrc"
    folder.mkdir()
    victim.write_text("token=PW4711")
    (folder / notebook_runner.LOG).symlink_to(victim)
    with pytest.raises(ValueError, match=r"run\.log is a symbolic link.*remove it"):
        execute_notebook(notebook([]), folder, {})
    assert victim.read_text() == "token=PW4711"


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_threads_of_a_run_that_wait_leave_their_core_to_others(notebook, tmp_path, monkeypatch, given, used):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    source = f"import os\nassert os.environ['OMP_WAIT_POLICY'] == {used!r}"
    assert execute_notebook(notebook([source]), tmp_path / "run", {}) == ("finished", "")


def test_a_long_value_arrives_whole(notebook, tmp_path):
    text = "ä" * 300_000  # more than a pipe holds
    source = "assert seconds == 'ä' * 300_000"
    assert execute_notebook(notebook([source]), tmp_path / "run", {"seconds": text}) == ("finished", "")
