"""Files that are written while training goes on: in order, whole, and no error is lost."""

import logging
import threading

import pandas as pd
import pytest
from small_runs import assert_same_run, config_of

from bpilib.runs import open_run
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training import trainer
from bpilib.training.background import Writer
from bpilib.training.trainer import Trainer


@pytest.fixture
def behind(monkeypatch):
    """Trainings write in the background, as on a GPU."""
    monkeypatch.setattr(trainer, "Writer", lambda behind: Writer(behind=True))


def test_what_is_asked_for_is_done_in_order_while_the_caller_goes_on():
    writer, done, go = Writer(behind=True), [], threading.Event()
    writer.do(go.wait)
    for i in range(3):
        writer.do(lambda i=i: done.append(i))
    assert not done  # nobody waited
    go.set()
    writer.wait()
    assert done == [0, 1, 2]
    writer.close()


def test_without_a_thread_it_is_done_at_once():
    writer, done = Writer(behind=False), []
    writer.do(lambda: done.append(threading.current_thread()))
    assert done == [threading.main_thread()]
    writer.wait()
    writer.close()


def test_an_error_is_raised_once_where_it_is_waited_for_and_logged_where_it_is_not(caplog):
    def full():
        raise OSError("the disk is full")

    writer, done = Writer(behind=True), []
    writer.do(full)
    writer.do(lambda: done.append(1))
    with pytest.raises(OSError, match="disk is full"):
        writer.wait()
    assert done == [1]
    writer.wait()
    writer.do(full)
    with caplog.at_level(logging.ERROR):
        writer.close()
    assert "could not be written" in caplog.text and "disk is full" in caplog.text


@pytest.mark.parametrize("model", ["ctrgcn", "bpi"])
def test_a_training_that_writes_behind_is_the_same_run(place, tmp_path, behind, monkeypatch, model):
    whole = fit(config_of(place, tmp_path / "behind", model=model))
    monkeypatch.undo()
    assert_same_run(whole, fit(config_of(place, tmp_path / "at once", model=model)))


def test_stopped_while_it_writes_behind_it_goes_on_to_the_same_end(place, tmp_path, behind, monkeypatch):
    def stop(rows):
        if len(rows) == 1:
            raise KeyboardInterrupt

    config = config_of(place, tmp_path / "stopped", model="ctrgcn")
    with pytest.raises(KeyboardInterrupt):
        fit(config, watch=stop)
    last = checkpoint.load(config.run_directory / "last.pt")
    assert last["progress"]["epoch"] == 1  # written, since closing waits
    fit(config)
    monkeypatch.undo()
    assert_same_run(config.run_directory, fit(config_of(place, tmp_path / "whole", model="ctrgcn")))


def test_a_disk_that_is_full_ends_the_training_and_the_checkpoint_before_stays(place, tmp_path, behind, monkeypatch):
    save = checkpoint.save

    def full(path, content, urgent=False):
        if content["epoch"] == 2:
            raise OSError(28, "No space left on device")
        save(path, content, urgent)

    monkeypatch.setattr(checkpoint, "save", full)
    config = config_of(place, tmp_path, model="ctrgcn", epochs=3)
    with pytest.raises(OSError, match="No space left"):
        fit(config)
    assert checkpoint.load(config.run_directory / "last.pt")["epoch"] == 1
    monkeypatch.setattr(checkpoint, "save", save)
    fit(config)
    assert pd.read_csv(config.run_directory / "metrics.csv")["epoch"].tolist() == [1, 2, 3]


def test_what_a_signal_has_saved_meanwhile_is_not_overwritten_by_an_older_state(place, tmp_path, behind):
    config = config_of(place, tmp_path, model="ctrgcn")
    made, go = Trainer(config), threading.Event()
    made.run.model.train()
    order = list(range(config.batch_size))
    made._step(order)
    made._writer.do(go.wait)
    made._save()  # step 1, waiting in the thread
    made._step(order)
    made.save_finished_step()  # step 2, as a signal has it
    go.set()
    made.close()
    assert checkpoint.load(config.run_directory / "last.pt")["progress"]["batch"] == 2


def test_a_run_that_is_not_trained_to_its_end_opens_with_its_last_checkpoint(place, tmp_path):
    def stop(rows):
        raise KeyboardInterrupt

    config = config_of(place, tmp_path, model="ctrgcn", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(config, watch=stop)
    assert not (config.run_directory / "best.pt").exists()
    with pytest.warns(UserWarning, match="not trained to its end"):
        assert open_run(config).epoch == 1
