"""Checkpoints of a training: saved once, in order, by whichever thread, and the training goes on from them."""

import threading

import pandas as pd
import pytest
from small_runs import assert_same_run, config_of

from bpilib.runs import open_run
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training import saving
from bpilib.training.background import Writer
from bpilib.training.trainer import Trainer


@pytest.fixture
def behind(monkeypatch):
    """Trainings write in the background, as on a GPU."""
    monkeypatch.setattr(saving, "Writer", lambda behind: Writer(behind=True))


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
    made.checkpoints.writer.do(go.wait)
    made._save()  # step 1, waiting in the thread
    made._step(order)
    made.checkpoints.save_finished_step()  # step 2, as a signal has it
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


def test_nothing_is_saved_twice_or_before_the_first_step(place, tmp_path):
    made = Trainer(config_of(place, tmp_path, model="ctrgcn"))
    made.checkpoints.save_finished_step()
    assert not (made.folder / "last.pt").exists()
    made.run.model.train()
    made._step(list(range(4)))
    made.checkpoints.save_finished_step()
    before = (made.folder / "last.pt").stat().st_mtime_ns
    made.checkpoints.save_finished_step()
    assert (made.folder / "last.pt").stat().st_mtime_ns == before and not (made.folder / "last.previous.pt").exists()
    made.close()
