"""Folders of one process: gone after it, however it ends, and nobody else's are touched."""

import os
import subprocess
import sys

import pytest

from bpilib.system.files import PROJECT
from bpilib.system.scratch import hold, scratch_folder

WORK = """
import sys
from bpilib.system.scratch import hold, scratch_folder
if sys.argv[2] == "own":
    with scratch_folder("bpi_test_", sys.argv[1]) as folder:
        print(folder, flush=True)
        sys.stdin.read()
else:
    file = hold(__import__("pathlib").Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(place, how="own"):
        process = subprocess.Popen([sys.executable, "-c", WORK, place, how], stdin=subprocess.PIPE, text=True,
                                   stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PROJECT)})  # fmt: skip
        started.append(process)
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_it_is_there_within_and_gone_after(tmp_path):
    with scratch_folder("bpi_test_", tmp_path / "new") as folder:
        assert folder.parent == tmp_path / "new" and folder.name.startswith("bpi_test_")
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
    assert os.listdir(tmp_path / "new") == []
    with pytest.raises(RuntimeError), scratch_folder("bpi_test_", tmp_path) as folder:
        raise RuntimeError
    assert not folder.exists()


def test_without_a_place_it_is_among_the_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder("bpi_test_") as folder:
        assert folder.parent == tmp_path


def test_what_a_kill_leaves_is_removed_by_the_next_and_what_is_held_stays(tmp_path, start):
    killed, left = start(tmp_path)
    _, used = start(tmp_path)
    orphan, _ = start(left, "hold")  # a process of the killed one, which lives on for a moment
    killed.kill()
    killed.wait()
    with scratch_folder("bpi_test_", tmp_path):
        assert os.path.exists(left) and os.path.exists(used)
    orphan.kill()
    orphan.wait()
    with scratch_folder("bpi_test_", tmp_path):
        assert not os.path.exists(left) and os.path.exists(used)


def test_what_others_have_there_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "bpi_other").mkdir()
    (tmp_path / "bpi_test_young").mkdir()  # its owner is about to hold it
    (tmp_path / "bpi_test_old").mkdir()
    os.utime(tmp_path / "bpi_test_old", (0, 0))
    (tmp_path / "thesis").mkdir()
    hold(tmp_path / "thesis").close()
    (tmp_path / "bpi_test_link").symlink_to(tmp_path / "thesis")
    with scratch_folder("bpi_test_", tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["bpi_other", "bpi_test_link", "bpi_test_young", "thesis"]
    theirs = tmp_path / "bpi_test_theirs"
    theirs.mkdir()
    hold(theirs).close()
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with scratch_folder("bpi_test_", tmp_path):
        assert theirs.exists()
