"""One at a time in a run directory: who holds it is said, nothing is touched, a kill sets it free."""

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from making import synthetic_store, tiny_config, write_prompts

from bpilib.evaluate import evaluate
from bpilib.system import lock
from bpilib.system.lock import LOCK, lock_run, lock_store
from bpilib.train import fit

HOLD = """
import sys, time
from bpilib.system.lock import lock_run
with lock_run(*sys.argv[1:]):
    print("held", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def another(monkeypatch):
    """another(folder, group): a process that holds a folder."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", HOLD, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_told_who_holds_it_and_touches_nothing(tmp_path, another):
    process = another(tmp_path)
    before = (tmp_path / LOCK).read_text()
    said = rf"in use by process {process.pid} on {re.escape(os.uname().nodename)} since 20\d\d-.*Nothing was changed"
    with pytest.raises(ValueError, match=said), lock_run(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == before


def test_a_kill_sets_it_free_and_the_end_removes_the_file(tmp_path, another):
    process = another(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK).exists()
    with lock_run(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_it_ends_with_an_error_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), lock_run(tmp_path):
        raise KeyboardInterrupt
    with lock_run(tmp_path):
        pass


def test_a_group_shares_it_and_lets_no_other_in(tmp_path, another):
    another(tmp_path, "two machines")
    with lock_run(tmp_path, "two machines"):
        pass
    assert (tmp_path / LOCK).exists()  # the other one is still there
    for group in ("", "three machines"):
        with pytest.raises(ValueError, match="in use by process"), lock_run(tmp_path, group):
            pass


def test_who_comes_when_it_is_let_go_waits_a_moment(tmp_path, another, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 600.0)
    process = another(tmp_path)
    end = time.monotonic() + 0.5
    real = time.sleep
    monkeypatch.setattr(lock.time, "sleep", lambda s: (real(s), time.monotonic() > end and process.kill()))
    with lock_run(tmp_path):
        assert process.wait() == -signal.SIGKILL


def test_a_file_system_without_locks_is_said_once(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with pytest.warns(UserWarning, match="has no locks") as caught, lock_run(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert len(caught) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EPERM])
def test_a_file_system_that_fails_to_lock_says_what_to_do(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    said = rf"can't lock .*run\.lock \({os.strerror(number)}\).*set the parameter outputs"
    with pytest.raises(OSError, match=said) as error, lock_run(tmp_path / "run"):
        pass
    assert error.value.errno == number and not (tmp_path / "run").exists()  # nothing is left over


OTHER_USER = """
import os, sys
from pathlib import Path
from bpilib.system import lock
lock.PATIENCE = 0.2
os.setgid(1002)
os.setuid(1002)
with lock.lock_run(sys.argv[1]):
    print(os.stat(Path(sys.argv[1]) / lock.LOCK).st_uid)
"""


@pytest.fixture
def open_folder():
    """A folder that every user can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o711)
        yield Path(name)


def is_other_user():
    """Whether a process can become the other user here: as root, and not of a container that lacks that number."""
    command = [sys.executable, "-c", "import os; os.setgid(1002); os.setuid(1002)"]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_the_lock_that_another_user_s_killed_process_left_keeps_nobody_out(open_folder, another):
    def as_other():
        command = [sys.executable, "-c", OTHER_USER, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd="/")

    if not is_other_user():
        pytest.skip("only root can be other users")
    folder = open_folder / "run"
    folder.mkdir()
    folder.chmod(0o777)
    process = another(folder)
    (folder / LOCK).chmod(0o644)  # whatever the umask
    refused = as_other()
    assert refused.returncode and f"in use by process {process.pid} on" in refused.stderr, refused.stderr
    process.kill()
    process.wait()
    taken = as_other()
    assert taken.stdout == "1002\n", taken.stderr
    (folder / LOCK).touch()
    (folder / LOCK).chmod(0o644)
    folder.chmod(0o1777)  # sticky: only its owner may remove a file
    refused = as_other()
    assert "belongs to the user root" in refused.stderr and "ask them to remove it" in refused.stderr, refused.stderr


def test_a_place_that_can_not_be_written_names_the_parameter(tmp_path):
    (tmp_path / "file").touch()
    said = r"can't write in .* set the parameter outputs"
    with pytest.raises(OSError, match=said), lock_run(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize(
    ("kind", "make"),
    [  # what may lie at the place of a lock in a folder from somebody else
        ("a symbolic link", lambda path, victim: path.symlink_to(os.path.relpath(victim, path.parent))),
        ("a symbolic link", lambda path, victim: path.symlink_to(victim.parent / "new")),
        ("one of 2 names of a file", lambda path, victim: path.hardlink_to(victim)),
        ("no plain file", lambda path, _: os.mkfifo(path)),
    ],
)
def test_a_lock_that_leads_elsewhere_is_refused_and_left_alone(tmp_path, kind, make):
    victim, path = tmp_path / "victim.txt", tmp_path / "a" / "b" / LOCK
    victim.write_text("thesis")
    path.parent.mkdir(parents=True)
    make(path, victim)
    said = rf"run\.lock is {kind}.*remove it.*Nothing was changed"
    with pytest.raises(ValueError, match=said), lock_run(path.parent):
        pass
    assert victim.read_text() == "thesis" and os.path.lexists(path)
    assert sorted(os.listdir(tmp_path)) == ["a", "victim.txt"]


@pytest.fixture
def gone(tmp_path, monkeypatch):
    """A working directory that has been removed; a thousand pauses are a failure, not a wait."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    pauses = itertools.count()
    real = time.sleep
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    monkeypatch.setattr(lock, "VANISHING", 0.05, raising=False)
    monkeypatch.setattr(lock.time, "sleep", lambda _: real(0.001) if next(pauses) < 1000 else pytest.fail("for ever"))


@pytest.mark.parametrize(
    ("folder", "said"),
    [("rel/store", "can't write in rel .*set the parameter data"), ("store", "can't keep .*set the parameter data")],
)
def test_a_folder_that_can_not_be_made_is_said(gone, folder, said):
    with pytest.raises(FileNotFoundError, match=said), lock_store(folder, "data"):
        pass


def test_a_folder_that_vanishes_with_its_lock_is_made_again(tmp_path, monkeypatch):
    def removed(path, mode):
        monkeypatch.undo()
        path.parent.rmdir()  # by whoever held it
        return lock.open_in_place(path, mode)

    monkeypatch.setattr(lock, "open_in_place", removed)
    with lock_run(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


def test_a_second_notebook_is_refused_while_evaluation_still_reads(tmp_path, another):
    synthetic_store(tmp_path, subjects=2)
    write_prompts(tmp_path)
    config = tiny_config(tmp_path, tmp_path / "outputs", model="ctrgcn", epochs=1)
    fit(config)
    (config.run_directory / "summary.json").unlink()  # as in the middle of a training
    another(config.run_directory)
    before = {path: path.stat().st_mtime_ns for path in config.run_directory.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"in use by process .* since"):
        fit(config)
    assert {path: path.stat().st_mtime_ns for path in config.run_directory.rglob("*") if path.is_file()} == before
    assert evaluate(config).epoch == 1
