"""Processes of one run started, followed, killed and stopped; errors as the worker raised them; two machines in one."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from making import HELPERS, NO_UCLA, tiny_config, ucla_store, ucla_zip
from shares import save_addresses, train_and_fail, train_until_stopped
from small_runs import assert_same_run, config_of

from bpilib.config import resolve
from bpilib.evaluate import Scores, score
from bpilib.runs import history, open_run, write_or_check_config
from bpilib.system import checkpoint
from bpilib.system.scratch import scratch_folder
from bpilib.train import fit, train_share
from bpilib.training.launch import _check, _launcher_log, _wait_for, launch

STEPS = 5  # an epoch of `config_of` on 1 subject


@pytest.fixture(scope="module")
def whole(place):
    """An undisturbed run of two processes, and the histories that were shown meanwhile."""
    seen: list[pd.DataFrame] = []
    return fit(config_of(place, place / "whole", devices=2), watch=seen.append), seen


def test_the_launcher_s_log_is_no_link_to_elsewhere(tmp_path):
    (tmp_path / "victim").touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "launcher.log").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=r"launcher\.log is a symbolic link"), _launcher_log(tmp_path / "logs"):
        pass
    with _launcher_log(tmp_path / "new"):
        logging.getLogger("torch.distributed.elastic").warning("said")
    assert (tmp_path / "new" / "launcher.log").read_text().endswith("WARNING said\n")


def test_a_run_of_two_processes_leaves_what_a_run_leaves(place, whole):
    folder, seen = whole
    config = config_of(place, place / "whole", devices=2)
    names = {path.name for path in folder.iterdir()}
    promised = {"config.yaml", "last.pt", "best.pt", "metrics.csv", "scores.npz", "summary.json", "tensorboard", "logs"}
    assert names - {"last.previous.pt", "best.previous.pt"} == promised
    assert len(list((folder / "tensorboard").glob("events*"))) == 1  # one process writes
    pd.testing.assert_frame_equal(seen[-1], history(config))
    assert list(dict.fromkeys(len(rows) for rows in seen)) in ([1, 2], [2])  # drawn twice a second at most
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["processes"], summary["resumed"], summary["device"]) == (2, 0, "cpu")
    scores = Scores.load(folder / "scores.npz")
    assert summary["test_top1"] == scores.top(1) and np.isfinite(scores.logits).all()
    assert ((history(config)["train_top1"] * 20 / 100 + 1e-4) % 1 < 1e-3).all()  # shares of 20 clips, not of 10
    said = sorted(str(path.relative_to(folder / "logs")) for path in (folder / "logs").rglob("*.log"))
    assert len(said) == 5 and said[0] == "launcher.log"  # and two of each worker


def test_its_scores_are_those_of_one_process_with_its_weights(place, whole):
    folder, _ = whole
    one = score(open_run(config_of(place, place / "whole")))
    np.testing.assert_array_equal(Scores.load(folder / "scores.npz").logits, one.logits)


def test_batch_norm_makes_two_processes_another_run(place, whole):
    with pytest.raises(ValueError, match=r"other settings \(devices x nodes: 2 there, 1 now\)"):
        fit(config_of(place, place / "whole"))
    again = fit(config_of(place, place / "whole", nodes=2, rendezvous="localhost:29400"))  # two shares as well
    assert again == whole[0]


def test_processes_of_one_machine_can_not_be_reached_from_another(place, tmp_path):
    launch(save_addresses, config_of(place, tmp_path, devices=2), tmp_path)
    found = [json.loads((tmp_path / f"addresses.{number}.json").read_text()) for number in range(2)]
    assert all(found) and {address for addresses in found for address in addresses} <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_a_process_killed_in_mid_epoch_costs_nothing_but_time(place, whole, tmp_path, caplog):
    caplog.set_level(logging.INFO, "bpilib")
    config = config_of(place, tmp_path, devices=2)
    write_or_check_config(config)
    launch(train_and_fail, config, "killed", STEPS + 2)
    assert_same_run(config.run_directory, whole[0])
    assert json.loads((config.run_directory / "summary.json").read_text())["resumed"] == 1
    assert "a process died: all resumed from the last checkpoint (1 of 3)" in caplog.text
    assert "exitcode: -9" in (config.run_directory / "logs" / "launcher.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(ucla_zip() is None, reason=NO_UCLA)
def test_a_process_killed_in_mid_epoch_on_nw_ucla(tmp_path):
    settings = {"dataset": "ucla", "data": ucla_store(tmp_path), "device": "cpu", "precision": "fp32", "width": 8}
    settings |= {"text": "minilm", "epochs": 1, "repeats": 1, "batch_size": 64, "devices": 2, "checkpoint_minutes": 0.0}
    expected = resolve(**settings, outputs=tmp_path / "whole")
    launch(train_share, expected)
    config = resolve(**settings, outputs=tmp_path / "killed")
    launch(train_and_fail, config, "killed", 8)  # of 15 steps, each saved
    assert_same_run(config.run_directory, expected.run_directory)
    assert json.loads((config.run_directory / "summary.json").read_text())["resumed"] == 1


@pytest.mark.slow
def test_processes_that_die_again_and_again_are_given_up(place, tmp_path):
    config = config_of(place, tmp_path, devices=2, max_restarts=1)
    with pytest.raises(RuntimeError, match=r"process 1 failed after 1 restarts, at last with: Signal 9 \(SIGKILL\)"):
        launch(train_and_fail, config, "killed always", 2)


@pytest.mark.slow
def test_an_error_of_a_worker_arrives_as_it_was_raised(place, tmp_path):
    config = config_of(place, tmp_path, devices=2, model="ctrgcn")
    with pytest.raises(ValueError, match="expected a clip, got a cat") as error:
        launch(train_and_fail, config, "raises", 1)
    assert str(error.value) == "expected a clip, got a cat"
    assert error.value.__notes__[0].startswith("process 1, see ")
    log = Path(error.value.__notes__[0].removeprefix("process 1, see "))
    assert "in step\n" in log.read_text() and log.is_relative_to(config.run_directory / "logs")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def interrupt_after(file: Path) -> threading.Thread:
    """Ctrl-C in the main thread once a file is there."""

    def wait():
        end = time.monotonic() + 1500
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
def test_ctrl_c_saves_and_the_next_call_goes_on(place, whole, tmp_path, monkeypatch):
    config = config_of(place, tmp_path, devices=2, rendezvous=f"localhost:{free_port()}")  # the same address twice
    monkeypatch.setattr("bpilib.train.train_share", train_until_stopped)
    interrupted = interrupt_after(config.run_directory / "waits")
    with pytest.raises(KeyboardInterrupt, match=r"saved in .*run the same again to go on"):
        fit(config)
    interrupted.join()
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (0, 4)
    monkeypatch.undo()
    assert_same_run(fit(config), whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_that_does_not_end_is_saved_before_the_kill(place, whole, tmp_path, number):
    """To the launching process and, but for Ctrl-C, all its workers, as schedulers send it; then all are killed."""
    config = config_of(place, tmp_path, devices=2)
    program = tmp_path / "stuck.py"
    program.write_text(STUCK.format(tests=str(HELPERS), place=str(place), outputs=str(tmp_path)))
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 1500
    while not (config.run_directory / "stuck").exists() and time.monotonic() < end:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    if number != signal.SIGINT:
        for worker in workers:
            worker.send_signal(number)
    while not (config.run_directory / "last.pt").exists() and time.monotonic() < end:
        time.sleep(0.01)
    for one in (psutil.Process(process.pid), *workers):
        if one.is_running():
            one.kill()
    process.wait()
    psutil.wait_procs(workers, timeout=60)
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (0, 3)
    assert_same_run(fit(config), whole[0])


FINISHED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from shares import save_addresses
from small_runs import config_of
from bpilib.training import launch
def stop():
    if len(list(Path({outputs!r}).glob("addresses.*"))) == 2:  # the workers have done their work
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    launch.launch(save_addresses, config_of(Path({place!r}), Path({outputs!r}) / "out", devices=2), Path({outputs!r}),
                  stop=stop)
"""


@pytest.mark.slow
def test_workers_whose_launching_process_is_killed_as_they_finish_end_too(place, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    program = tmp_path / "finished.py"
    program.write_text(FINISHED.format(tests=str(HELPERS), place=str(place), outputs=str(tmp_path)))
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen([sys.executable, program], env=environment)
    workers = []
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(process.pid).children(recursive=True) or workers
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL and len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=300)[1] == []
    assert [path.name for path in (tmp_path / "tmp").glob("bpi_*")]  # by the kill
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with scratch_folder("bpi_launch_"):
        assert len([*(tmp_path / "tmp").glob("bpi_*")]) == 1  # its own


def test_any_name_of_a_temporary_folder_will_do(place, tmp_path, monkeypatch, name="a: 50% Übung"):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    launch(save_addresses, config_of(place, tmp_path / "outputs", devices=2), tmp_path)
    assert {path.name for path in tmp_path.glob("addresses.*")} == {"addresses.0.json", "addresses.1.json"}


def workers_here() -> list[psutil.Process]:
    """Workers that this process has started and that have not ended."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


@pytest.mark.slow
def test_interrupted_again_it_ends_the_processes_at_once(place, tmp_path):
    config = config_of(place, tmp_path, devices=2, epochs=500)
    interrupted = interrupt_after(config.run_directory / "waits")
    with pytest.raises(KeyboardInterrupt):  # `fit` catches the first Ctrl-C; this is as its second
        launch(train_until_stopped, config)
    interrupted.join()
    end = time.monotonic() + 600  # those that were started in place of the killed ones leave when they are ready
    while (left := workers_here()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left and not (config.run_directory / "summary.json").exists()


STUCK = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from shares import train_and_get_stuck
from small_runs import config_of
from bpilib import train
if __name__ == "__main__":
    train.train_share = train_and_get_stuck
    train.fit(config_of(Path({place!r}), Path({outputs!r}), devices=2))
"""
MACHINE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_runs import config_of
from bpilib.system.logs import show_log
from bpilib.train import fit
if __name__ == "__main__":
    show_log()
    fit(config_of(Path({place!r}), Path({outputs!r}), nodes=2, rendezvous="localhost:{port}"))
"""


@pytest.mark.slow
def test_two_machines_are_one_run(place, whole, tmp_path):
    """Two launching processes that meet at an address, one worker each."""
    program = tmp_path / "machine.py"
    program.write_text(MACHINE.format(tests=str(HELPERS), place=str(place), outputs=str(tmp_path), port=free_port()))
    machines = [
        subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for machine in machines:
        out, errors = machine.communicate(timeout=1500)
        assert machine.returncode == 0, errors
        assert "2 processes share every batch, 1 of them here" in out
    assert_same_run(tmp_path / whole[0].relative_to(place / "whole"), whole[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 2}, r"parameter rendezvous: with nodes=2 give the first machine's address, such as 'gpu1:29400'"),
        ({"nodes": 2, "rendezvous": "gpu1"}, r"parameter rendezvous: expected host:port, .* got 'gpu1'"),
        ({"devices": 2, "sync_batchnorm": True}, r"parameter sync_batchnorm: .* on GPUs alone"),
    ],
)
def test_what_this_machine_can_not_do_is_refused(place, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(config_of(place, tmp_path, **changes))


def test_outputs_that_machines_do_not_share_are_refused(tmp_path, monkeypatch):
    _wait_for(tmp_path)
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(ValueError, match=r"set outputs to a folder that all machines of the run share"):
        _wait_for(tmp_path / "attempt_0")


def test_functions_of_a_notebook_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(train_until_stopped, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"train_until_stopped: .* put it into a module"):
        fit(config_of(place, tmp_path, devices=2), draw_confusion=train_until_stopped)


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    _check(resolve(devices=2, device="cuda"))
    with pytest.raises(ValueError, match="parameter devices: 4, but PyTorch sees 2 GPUs here"):
        _check(resolve(devices=4))
    with pytest.raises(ValueError, match="parameter device: cuda:1 is one GPU, but devices is 2: use cuda"):
        _check(resolve(devices=2, device="cuda:1"))


def test_a_run_from_before_there_were_devices_goes_on(place, tmp_path):
    config = tiny_config(place, tmp_path, model="ctrgcn", epochs=1, batch_size=20)
    fit(config)
    path = config.run_directory / "config.yaml"
    old = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name not in ("devices", "nodes")}
    path.write_text(yaml.safe_dump(old))
    assert fit(config) == config.run_directory
    with pytest.raises(ValueError, match="devices x nodes: 1 there, 2 now"):
        fit(config.changed(devices=2))
    assert fit(config.changed(devices=2, sync_batchnorm=True)) == config.run_directory  # the same numbers, and done
