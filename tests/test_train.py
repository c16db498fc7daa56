"""Training: what it leaves behind, that stopping it anywhere changes nothing, what best.pt keeps, that it learns."""

import contextlib
import hashlib
import json
import logging
import math
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import disturbed
import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from making import events, synthetic_store, write_embeddings, write_prompts
from noise import assert_float32_of
from small_runs import EPOCHS, assert_same_run, config_of

from bpilib import train
from bpilib.config import resolve
from bpilib.data import synthetic
from bpilib.errors import MissingInputError
from bpilib.evaluate import Scores
from bpilib.losses import skeleton_text_loss
from bpilib.runs import build, history, open_run
from bpilib.system import checkpoint, files
from bpilib.system.signals import Interruption
from bpilib.train import fit
from bpilib.training import saving, trainer
from bpilib.training.progress import EpochSums, learning_rate
from bpilib.training.trainer import Trainer

MODELS = ("bpi", "ctrgcn")
STEPS, CLIPS = 5, 20  # of `config_of` on 1 subject
NEVER = 10**9  # more steps than a training has
PROMISED = {"config.yaml", "last.pt", "best.pt", "metrics.csv", "scores.npz", "summary.json"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """As `place`, of two subjects."""
    folder = tmp_path_factory.mktemp("two")
    synthetic_store(folder, subjects=2)
    write_prompts(folder)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """model → directory of its uninterrupted run."""
    done: dict[str, Path] = {}

    def of(model: str) -> Path:
        if model not in done:
            done[model] = fit(config_of(place, place / "whole", model=model))
        return done[model]

    return of


def states(folder: Path):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def progress_of(config) -> tuple[int, int]:
    """Epochs, and steps of the running one, that last.pt has finished."""
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    return progress["epoch"], progress["batch"]


def resumed(folder: Path) -> int:
    return json.loads((folder / "summary.json").read_text())["resumed"]


class Crash(BaseException):
    """What nothing in the package catches."""


def crash():
    raise Crash("crash")


@pytest.fixture(autouse=True)
def shown_log(caplog):
    """What is reported, from INFO on."""
    caplog.set_level(logging.INFO, "bpilib")


# --- what it leaves behind


@pytest.mark.parametrize("model", MODELS)
def test_a_run_leaves_exactly_the_promised_files(whole, model):
    folder = whole(model)
    assert folder.name == f"{model}_joint_seed0" and folder.parent.name == "synthetic_xview"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents")}
    before = {"last.previous.pt", "best.previous.pt"}  # the checkpoints before, kept in case the last are damaged
    points = {f"00002/clips_and_texts/{name}.tsv" for name in ("tensors", "metadata")} | {"projector_config.pbtxt"}
    assert len(events) == 1 and found - events - before == PROMISED | {f"tensorboard/{name}" for name in points}


@pytest.mark.parametrize("model", MODELS)
def test_metrics_have_a_row_an_epoch(place, whole, model):
    config = config_of(place, place / "whole", model=model)
    rows = history(config)
    assert list(rows) == [
        "epoch", "lr", "train_loss", "cross_entropy", "contrastive", "train_top1", "clips_per_second", "test_top1",
        "test_top5",
    ]  # fmt: skip
    assert rows["epoch"].tolist() == [1, 2]
    last_step = (STEPS - 1) / STEPS
    assert rows["lr"].tolist() == [learning_rate(config, epoch, last_step) for epoch in range(EPOCHS)]
    if model == "bpi":
        np.testing.assert_allclose(rows["train_loss"], rows["cross_entropy"] + config.alpha * rows["contrastive"], 1e-5)
        assert (rows["contrastive"] > 0).all()
    else:
        assert rows["contrastive"].isna().all() and (rows["train_loss"] == rows["cross_entropy"]).all()
    assert ((rows["train_top1"] * CLIPS / 100 + 1e-4) % 1 < 1e-3).all()
    assert (rows["clips_per_second"] > 0).all() and (rows["test_top5"] >= rows["test_top1"]).all()
    assert 0.5 < rows["cross_entropy"].iloc[0] < 8


@pytest.mark.parametrize("model", MODELS)
def test_the_summary_is_of_the_selected_weights(place, whole, model):
    folder = whole(model)
    summary = json.loads((folder / "summary.json").read_text())
    scores = Scores.load(folder / "scores.npz")
    rows = pd.read_csv(folder / "metrics.csv")
    assert (summary["epochs"], summary["select"], summary["selected_epoch"], scores.epoch) == (2, "last", 2, 2)
    assert summary["test_top1"] == scores.top(1) == pytest.approx(rows["test_top1"].iloc[-1])
    assert summary["test_top5"] == scores.top(5) and summary["test_top1_interval_95"] == list(scores.interval())
    assert summary["test_clips"] == 10 and "heldout_top1" not in summary
    best = summary["best_test_epoch_as_published"]
    assert best["test_top1"] == pytest.approx(rows["test_top1"].max())
    assert best["epoch"] == rows["epoch"][rows["test_top1"].idxmax()]
    network = build(config_of(place, place / "whole", model=model)).model
    assert summary["parameters"] == sum(p.numel() for p in network.parameters())
    assert summary["training_seconds"] == pytest.approx((CLIPS / rows["clips_per_second"]).sum())
    assert summary["resumed"] == 0 and summary["device"] == "cpu" and summary["precision"] == "fp32"


def test_the_scores_are_the_best_checkpoint_s(place, whole):
    folder = whole("bpi")
    run = open_run(config_of(place, place / "whole"))
    scores = Scores.load(folder / "scores.npz")
    feeder = run.feeder("test")
    assert_float32_of(run.model, feeder.batch(range(len(feeder)))[0], {"logits": scores.logits})
    assert scores.labels.tolist() == feeder.labels.tolist()
    assert scores.names.tolist() == run.store.names[run.indices("test")].tolist()
    assert scores.classes == run.store.classes and scores.heldout is None


def test_the_second_call_returns_what_is_done_without_touching_it(place, whole, caplog, monkeypatch):
    folder = whole("bpi")
    before, seen = states(folder), []
    monkeypatch.setattr(train, "Trainer", lambda *_: crash())  # nothing is built
    assert fit(config_of(place, place / "whole"), watch=seen.append) == folder
    assert states(folder) == before
    assert "done already" in caplog.text
    assert len(seen) == 1 and seen[0]["epoch"].tolist() == [1, 2]  # the curves are shown
    shutil.copytree(place / "store", place / "other store")
    fit(config_of(place, place / "whole", data=place / "other store", precision="auto", test_batch_size=3))
    assert states(folder) == before


def test_other_settings_are_refused_and_nothing_changes(place, whole):
    before = states(whole("bpi"))
    with pytest.raises(ValueError, match=r"other settings \(epochs: 2 there, 4 now; lr: 0\.05 there, 0\.1 now\)"):
        fit(config_of(place, place / "whole", epochs=4, lr=0.1))
    assert states(whole("bpi")) == before


def test_watch_is_shown_the_history_after_each_epoch(place, tmp_path):
    seen = []
    fit(config_of(place, tmp_path, model="ctrgcn", epochs=2, batch_size=20), watch=seen.append)
    assert [frame["epoch"].tolist() for frame in seen] == [[1], [1, 2]]


@pytest.mark.parametrize("done", [0, 7])
def test_the_bar_says_epoch_loss_accuracy_and_memory_and_starts_where_the_run_is(place, tmp_path, monkeypatch, done):
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, total, desc, initial=0):
            super().__init__(self)
            self.total, self.desc, self.n, self.said = total, desc, initial, []
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.said.append(text)

        def update(self, clips):
            self.n += clips

    monkeypatch.setattr(trainer.distributed, "progress_bar", Bar)
    config = config_of(place, tmp_path, model="ctrgcn")
    if done:
        first = Trainer(config)
        with contextlib.closing(first), pytest.raises(KeyboardInterrupt):
            first.run_epochs(iter([False] * (done - 1) + [True]).__next__, None)
        assert bars.pop().n == done * 4
    fit(config)
    (bar,) = bars
    assert (bar.total, bar.desc, bar.n) == (EPOCHS * CLIPS, "ctrgcn_joint_seed0", EPOCHS * CLIPS)
    assert len(bar.said) == EPOCHS * STEPS - done
    for n, said in enumerate(bar.said, done):
        epoch = n // STEPS + 1
        assert re.fullmatch(rf"epoch {epoch} of 2: loss \d\.\d{{3}}, accuracy \d+\.\d %, memory \d\.\d GB", said)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(place, whole, tmp_path):
    assert_same_run(fit(config_of(place, tmp_path)), whole("bpi"))
    other = fit(config_of(place, tmp_path, seed=1, epochs=1))
    assert other.name == "bpi_joint_seed1"
    assert history(config_of(place, tmp_path, seed=1))["train_loss"][0] != pytest.approx(
        pd.read_csv(whole("bpi") / "metrics.csv")["train_loss"][0]
    )


def test_every_clip_comes_once_an_epoch_in_another_order_each_time(place, tmp_path, monkeypatch):
    seen: list[tuple[int, list[int], float]] = []
    original = Trainer._step

    def step(self, positions):
        assert self.feeder.epoch == self.progress.epoch and self.feeder.train
        original(self, positions)
        seen.append((self.progress.epoch, list(positions), self.optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(Trainer, "_step", step)
    config = config_of(place, tmp_path, model="ctrgcn", epochs=2, batch_size=9, repeats=2)
    fit(config)
    assert [epoch for epoch, *_ in seen] == [0] * 4 + [1] * 4  # 40 clips: an incomplete batch is left out
    orders = [[p for epoch, positions, _ in seen if epoch == e for p in positions] for e in (0, 1)]
    assert all(len(order) == len(set(order)) == 36 and set(order) <= set(range(40)) for order in orders)
    assert orders[0] != orders[1]
    assert [lr for *_, lr in seen] == [learning_rate(config, e, b / 4) for e in (0, 1) for b in range(4)]


def test_fewer_clips_than_a_batch_are_one_batch(place, tmp_path):
    folder = fit(config_of(place, tmp_path, model="ctrgcn", epochs=2, batch_size=100))
    rows = pd.read_csv(folder / "metrics.csv")
    assert ((rows["train_top1"] * CLIPS / 100 + 1e-4) % 1 < 1e-3).all()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["training_seconds"] == pytest.approx((CLIPS / rows["clips_per_second"]).sum())


def test_the_optimizer_is_the_published_one(place, tmp_path):
    config = config_of(place, tmp_path, weight_decay=3e-4)
    made = Trainer(config)
    made.close()
    (group,) = made.optimizer.param_groups
    assert isinstance(made.optimizer, torch.optim.SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 3e-4)
    assert {id(p) for p in group["params"]} == {id(p) for p in made.run.model.parameters()}


# --- learning rate


def test_the_step_schedule_is_the_published_one():
    config = resolve(dataset="ucla", lr=0.1, warmup=5, steps=[8, 10], epochs=12, schedule="step")
    expected = [0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    for share in (0.0, 0.4, 0.99):  # constant within an epoch
        assert [learning_rate(config, epoch, share) for epoch in range(12)] == pytest.approx(expected, rel=1e-12)
    config = config.changed(warmup=0, steps=[])
    assert [learning_rate(config, epoch, 0.5) for epoch in range(12)] == [0.1] * 12


def test_the_published_schedule_of_bpi_on_ucla():
    config = resolve(dataset="ucla", model="bpi")
    rates = [learning_rate(config, epoch, 0) for epoch in range(100)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1]) and set(rates[5:80]) == {0.1}
    assert rates[80:90] == pytest.approx([0.01] * 10) and rates[90:] == pytest.approx([0.001] * 10)


def test_the_cosine_schedule_is_continuous_and_ends_at_zero():
    config = resolve(dataset="ucla", lr=0.2, warmup=2, epochs=10, schedule="cosine")
    points = {(0, 0.5): 0.05, (1, 0.0): 0.1, (1, 0.5): 0.15, (2, 0.0): 0.2, (6, 0.0): 0.1, (10, 0.0): 0.0}
    points[4, 0.0] = 0.1 * (1 + math.cos(math.pi / 4))
    points[9, 0.5] = 0.1 * (1 + math.cos(math.pi * 7.5 / 8))
    for (epoch, share), rate in points.items():
        assert learning_rate(config, epoch, share) == pytest.approx(rate, abs=1e-15)
    assert 0 < learning_rate(config, 0, 0.0) < 1e-3
    rates = [learning_rate(config, i // 100, i % 100 / 100) for i in range(1000)]
    assert np.abs(np.diff(rates)).max() < 0.2 / 100 and (np.diff(rates[200:]) < 0).all()
    config = config.changed(warmup=0)
    assert learning_rate(config, 0, 0.0) == 0.2 and learning_rate(config, 5, 0.0) == pytest.approx(0.1)
    config = config.changed(warmup=10)
    assert learning_rate(config, 9, 0.5) == pytest.approx(0.2 * 0.95)


# --- stopping it anywhere changes nothing


@pytest.mark.parametrize("model", MODELS)
def test_interrupted_between_epochs(place, whole, tmp_path, model):
    config = config_of(place, tmp_path, model=model)

    with pytest.raises(Crash):
        fit(config, watch=lambda rows: crash())
    assert checkpoint.load(config.run_directory / "last.pt")["progress"]["epoch"] == 1
    assert not (config.run_directory / "summary.json").exists()
    assert_same_run(fit(config), whole(model))
    assert resumed(config.run_directory) == 1


# first step of an epoch, in its middle, its last; the last of all
@pytest.mark.parametrize(("model", "step"), [("bpi", 7), ("ctrgcn", 5), ("ctrgcn", 4), ("ctrgcn", 9)])
def test_interrupted_by_ctrl_c_within_an_epoch(place, whole, tmp_path, at_step, caplog, model, step):
    config = config_of(place, tmp_path, model=model)
    before = signal.getsignal(signal.SIGINT)
    at_step(step, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"saved in .*run the same again to go on"):
        fit(config)
    assert signal.getsignal(signal.SIGINT) is before
    assert "SIGINT: saving now, then stopping after this step" in caplog.text
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (step // STEPS, step % STEPS + 1)  # the step was not cut in two
    assert_same_run(fit(config), whole(model))
    assert f"resuming {config.run_directory} after epoch {step // STEPS}" in caplog.text
    assert resumed(config.run_directory) == 1


def test_interrupted_again_and_again(place, whole, tmp_path, at_step):
    config = config_of(place, tmp_path, model="ctrgcn")
    for start in range(0, 9, 3):
        at_step(start + 2, lambda: signal.raise_signal(signal.SIGINT))  # three steps further each time
        with pytest.raises(KeyboardInterrupt):
            fit(config)
    assert_same_run(fit(config), whole("ctrgcn"))
    assert resumed(config.run_directory) == 3


def test_a_second_ctrl_c_interrupts_at_once(place, tmp_path, at_step):
    config = config_of(place, tmp_path, model="ctrgcn")

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(1, twice)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    assert signal.getsignal(signal.SIGINT) is before
    assert progress_of(config) == (0, 1)  # of the step before, saved meanwhile


def test_ctrl_c_while_evaluating_saves_at_once(place, whole, tmp_path, monkeypatch):
    config = config_of(place, tmp_path, model="ctrgcn")

    def interrupted(run):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(trainer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt, match="run the same again to go on"):
        fit(config)
    assert progress_of(config) == (0, STEPS)  # its evaluation is still to come
    monkeypatch.undo()
    assert_same_run(fit(config), whole("ctrgcn"))


def test_a_stop_that_comes_between_two_looks_is_saved_all_the_same(place, tmp_path):
    made = Trainer(config_of(place, tmp_path, model="ctrgcn"))
    looks = iter([False, False, False])
    with pytest.raises(KeyboardInterrupt, match="saved"):
        made.run_epochs(lambda: next(looks, True), None)
    made.close()
    saved = checkpoint.load(made.folder / "last.pt")["progress"]
    assert (saved["epoch"], saved["batch"]) == (made.progress.epoch, made.progress.batch)


def test_outside_the_main_thread_it_trains_without_signals(place, tmp_path):
    found = []

    def work():
        with Interruption() as interruption, interruption.deferred():
            found.append(interruption.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_ends_jobs_saves_and_is_sent_once_more(place, whole, tmp_path, at_step, number):
    config = config_of(place, tmp_path, model="ctrgcn")
    received = []
    before = signal.signal(number, lambda number, frame: received.append(number))
    try:
        at_step(6, lambda: signal.raise_signal(number))
        with pytest.raises(KeyboardInterrupt, match="saved in"):
            fit(config)
    finally:
        signal.signal(number, before)
    assert received == [number]  # by the handler that was there, after the end
    assert progress_of(config) == (1, 2) and not (config.run_directory / "run.lock").exists()
    assert_same_run(fit(config), whole("ctrgcn"))


def in_another_thread(call):
    """Call it there while this one, which holds whatever it holds, waits."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("where", ["forward", "backward", "evaluation", "save"])
def test_the_last_finished_step_is_saved_whatever_is_under_way(place, whole, tmp_path, monkeypatch, where):
    """From another thread, in the middle of step 7 (or of what follows it), and no further."""
    config = config_of(place, tmp_path, model="bpi")
    made = Trainer(config)

    def save_and_crash(*_, **__):
        in_another_thread(made.checkpoints.save_finished_step)
        crash()

    def at_the_seventh(*_):
        if made.progress.epoch * STEPS + made.progress.batch == 7:
            save_and_crash()

    if where == "forward":  # BatchNorm has counted the clips of a step that is not finished
        made.run.model.classifier.register_forward_pre_hook(at_the_seventh)
    elif where == "backward":
        parameter = next(made.run.model.parameters())
        parameter.register_hook(at_the_seventh)
    elif where == "evaluation":
        monkeypatch.setattr(trainer, "score", save_and_crash)
    else:
        monkeypatch.setattr(pd.DataFrame, "to_csv", save_and_crash)  # last.pt holds the end of the epoch by now
    with contextlib.closing(made), pytest.raises(Crash):
        made.run_epochs(lambda: False, None)
    expected = {"forward": (1, 2), "backward": (1, 2), "evaluation": (0, STEPS), "save": (1, 0)}
    assert progress_of(config) == expected[where]
    monkeypatch.undo()
    assert_same_run(fit(config), whole("bpi"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_step_that_does_not_end_it_is_saved_before_the_kill(place, whole, tmp_path, number):
    """As papermill does: a signal, and soon after it the kill; here as soon as the checkpoint is there."""
    config = config_of(place, tmp_path, model="ctrgcn")
    process = disturbed.start(place, tmp_path, 3, disturbed.take_long, model="ctrgcn")
    while (line := process.stdout.readline()) != b"long\n":
        assert line, "it ended before"
    process.send_signal(number)
    end = time.monotonic() + 250  # the step takes longer
    while not (config.run_directory / "last.pt").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert progress_of(config) == (0, 3)
    assert_same_run(fit(config), whole("ctrgcn"))
    assert not [path for path in config.run_directory.iterdir() if path.name.startswith(".")]


def test_what_a_killed_process_left_unfinished_is_removed(place, tmp_path):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=1, batch_size=20)
    ended = subprocess.Popen(["true"])
    ended.wait()
    own = files.write_atomically(config.run_directory / "x", lambda part: part.write_text(part.name))
    name = own.read_text().replace(str(os.getpid()), str(ended.pid))
    (config.run_directory / name).touch()
    (config.run_directory / ".last.pt.new").touch()
    own.unlink()
    folder = fit(config)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("model", MODELS)
def test_crashed_after_saving_within_the_epoch(place, whole, tmp_path, at_step, model):
    config = config_of(place, tmp_path, model=model, checkpoint_minutes=0.0)  # after every step
    at_step(8, crash)
    with pytest.raises(Crash):
        fit(config)
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 3)
    assert_same_run(fit(config), whole(model))


def test_a_damaged_last_checkpoint_costs_only_the_work_since_the_one_before(place, whole, tmp_path, at_step):
    config = config_of(place, tmp_path, model="ctrgcn", checkpoint_minutes=0.0)
    at_step(8, crash)
    with pytest.raises(Crash):
        fit(config)
    path = config.run_directory / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"going on from last\.previous\.pt"):
        fit(config)
    assert_same_run(config.run_directory, whole("ctrgcn"))


@pytest.mark.parametrize(
    ("model", "minutes", "left"),
    [("bpi", 0.0, (1, 2)), ("ctrgcn", 10.0, (1, 0))],  # saved after every step; at the end of the epoch only
)
def test_killed_in_the_middle_of_an_epoch_and_started_again(place, whole, tmp_path, model, minutes, left):
    config = config_of(place, tmp_path, model=model)
    process = disturbed.start(place, tmp_path, 7, disturbed.kill, model=model, checkpoint_minutes=minutes)
    _, errors = process.communicate(timeout=1500)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    progress = checkpoint.load(config.run_directory / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == left
    assert not (config.run_directory / "summary.json").exists()
    assert_same_run(fit(config), whole(model))
    assert resumed(config.run_directory) == 1


def test_out_of_memory_says_what_to_change_and_the_run_goes_on(place, whole, tmp_path):
    process = disturbed.start(place, tmp_path, 7, disturbed.starve, checkpoint_minutes=0.0)
    errors = process.communicate(timeout=1500)[1].decode()
    said = errors.splitlines()[-1]
    assert process.returncode == 1, errors
    assert said.startswith("MemoryError: out of memory in training on cpu with batch_size=4, width=8")
    assert "no checkpoint is lost. The same run goes on with more free memory, precision='bf16'" in said
    assert "/feeders.py" in errors
    config = config_of(place, tmp_path)
    assert checkpoint.load(config.run_directory / "last.pt")["progress"]["batch"] == 2
    assert not list(tmp_path.rglob("*.part")) and not (config.run_directory / "run.lock").exists()
    assert_same_run(fit(config), whole("bpi"))


def test_out_of_memory_in_evaluation_names_the_batch_of_evaluation(place, tmp_path, monkeypatch):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=1, test_batch_size=3)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr("bpilib.model.CTRGCNClassifier.fuse", lambda *_: full)
        said = r"in evaluation on cpu with test_batch_size=3 \(CUDA .* allocate 2.00 GiB.\): lower test_batch_size"
        with pytest.raises(MemoryError, match=said):
            fit(config)
    assert fit(config.changed(test_batch_size=1)) == config.run_directory


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_killed_at_any_time_again_and_again(place, whole, tmp_path, model):
    """From outside, wherever it may be: importing, stepping, evaluating, in the middle of a save."""
    config, rng = config_of(place, tmp_path, model=model), random.Random(0)
    for _ in range(8):
        process = disturbed.start(place, tmp_path, NEVER, disturbed.kill, model=model, checkpoint_minutes=0.0)
        deadline = time.monotonic() + 120
        before = checkpoint.exists(config.run_directory / "last.pt") and states(config.run_directory)
        while process.poll() is None and time.monotonic() < deadline:  # wait for its first save
            if checkpoint.exists(config.run_directory / "last.pt") and states(config.run_directory) != before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.communicate()
        if (config.run_directory / "summary.json").exists():
            break
    assert_same_run(fit(config), whole(model))


def test_a_trained_text_tower_goes_on_too(place, tmp_path, at_step, monkeypatch):
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    tiny = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {"width": 64, "heads": 1, "layers": 1}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", tiny)
    torch.manual_seed(5)
    torch.save(open_clip.create_model("tiny").state_dict(), tmp_path / "weights.pt")

    def config(outputs, **changes):
        clip = {"text": "clip", "clip_model": "tiny", "clip_pretrained": str(tmp_path / "weights.pt"), "epochs": 2}
        return config_of(place, tmp_path / outputs, **(clip | changes))

    expected = fit(config("whole"))
    before = torch.load(tmp_path / "weights.pt", weights_only=True)
    after = checkpoint.load(expected / "best.pt")["text"]
    assert not torch.equal(after["tower.ln_final.weight"], before["ln_final.weight"])  # it was trained
    at_step(7, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit(config("stopped"))
    assert_same_run(fit(config("stopped")), expected)
    run = open_run(config("stopped"))
    assert torch.equal(run.text.tower.ln_final.weight, after["tower.ln_final.weight"])
    assert build(config("frozen", clip_trained=False)).text.state_dict() == {}


# --- what resuming refuses


@pytest.fixture
def stopped(place, tmp_path, at_step):
    """A bpi run stopped within its second epoch; its configuration, of prompts of its own."""
    (tmp_path / "texts").mkdir()
    config = config_of(place, tmp_path, prompts=write_prompts(tmp_path / "texts"))
    at_step(6, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    return config


def test_changed_prompts_are_refused(stopped):
    prompts = Path(stopped.prompts)
    original = prompts.read_text()
    prompts.write_text(original.replace("act of kick", "act of kicking hard"))
    write_embeddings(prompts)
    before = states(stopped.run_directory)
    with pytest.raises(
        ValueError, match=r"last\.pt was trained with other prompts than .*prompts\.yaml holds now"
    ) as e:
        fit(stopped)
    assert "tag" in str(e.value) and states(stopped.run_directory) == before
    prompts.write_text(original)
    write_embeddings(prompts)
    assert (fit(stopped) / "summary.json").exists()


@pytest.mark.parametrize("model", ["gap", "ctrgcn"])
def test_a_checkpoint_of_another_model_is_refused(place, stopped, tmp_path, model):
    other = fit(config_of(place, tmp_path, model=model, prompts=stopped.prompts, epochs=1, batch_size=20))
    for name in ("last.pt", "last.previous.pt"):
        shutil.copy(other / "last.pt", stopped.run_directory / name)
    before = states(stopped.run_directory)
    with pytest.raises(
        ValueError, match=rf"last\.pt is a checkpoint of another model \(model: '{model}', expected 'bpi'"
    ):
        fit(stopped)
    assert states(stopped.run_directory) == before


def test_a_file_that_is_no_checkpoint_is_refused(stopped):
    for name in ("last.pt", "last.previous.pt"):
        (stopped.run_directory / name).write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"last\.pt can't be read"):
        fit(stopped)


def test_missing_data_name_the_notebook(place, tmp_path):
    with pytest.raises(MissingInputError, match=r"run notebooks/01_prepare_data\.ipynb"):
        fit(config_of(place, tmp_path, data=tmp_path / "nowhere"))


def test_prompts_that_miss_a_class_are_refused(place, tmp_path):
    (tmp_path / "texts").mkdir()
    prompts = write_prompts(tmp_path / "texts", synthetic.CLASSES[:-1])
    with pytest.raises(ValueError, match="no prompts for 1 of 10 classes: 'march in place'"):
        fit(config_of(place, tmp_path, prompts=prompts))


# --- which epoch is kept; with made-up accuracies, and weights that say which epoch they are of


TEST = [40, 70, 20, 70, 50]
HELD = [10, 20, 60, 30, 60]


def made_up(top1: int, epoch: int, heldout: Scores | None = None) -> Scores:
    labels = np.arange(10)
    logits = np.eye(10, dtype=np.float32)[(labels + (labels >= top1 // 10)) % 10]
    return Scores(logits, labels, labels.astype(str), list("abcdefghij"), epoch, heldout)


@pytest.fixture
def scripted(monkeypatch):
    def score(run):
        epoch = run.epoch
        held = made_up(HELD[epoch - 1], epoch) if run.config.select == "heldout" else None
        return made_up(TEST[epoch - 1], epoch, held)

    def step(self, positions):
        with torch.no_grad():
            self.run.model.classifier.bias.fill_(self.progress.epoch + 1)
        self.progress.sums = EpochSums(1.0, 1.0, 1.0, 0.0, 0.5)
        self.progress.batch += 1

    monkeypatch.setattr(trainer, "score", score)
    monkeypatch.setattr(Trainer, "_step", step)


@pytest.mark.parametrize(
    ("select", "every", "epoch", "published"),
    [("last", 1, 5, 2), ("heldout", 1, 3, 2), ("test", 1, 2, 2), ("last", 2, 5, 2), ("heldout", 2, 5, 2),
     ("test", 3, 5, 5), ("last", 7, 5, 5)],
)  # fmt: skip
def test_best_keeps_the_epoch_that_select_chooses(two, tmp_path, scripted, select, every, epoch, published):
    config = config_of(two, tmp_path, model="ctrgcn", epochs=5, batch_size=20, select=select, eval_every=every)
    folder = fit(config)
    best = checkpoint.load(folder / "best.pt")
    assert best["epoch"] == epoch and set(best["model"]["classifier.bias"].tolist()) == {epoch}
    assert checkpoint.load(folder / "last.pt")["epoch"] == 5
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["select"], summary["selected_epoch"]) == (select, epoch)
    assert summary["test_top1"] == TEST[epoch - 1]
    assert summary["best_test_epoch_as_published"] == {"epoch": published, "test_top1": TEST[published - 1]}
    assert summary.get("heldout_top1") == (HELD[epoch - 1] if select == "heldout" else None)
    scores = Scores.load(folder / "scores.npz")
    assert scores.epoch == epoch and scores.top(1) == TEST[epoch - 1]
    assert (scores.heldout is not None) == (select == "heldout")
    rows = pd.read_csv(folder / "metrics.csv")
    evaluated = rows["epoch"][rows["test_top1"].notna()].tolist()
    assert evaluated == sorted({*range(every, 6, every), 5})
    assert ("heldout_top1" in rows) == (select == "heldout")


@pytest.mark.parametrize("select", ["last", "heldout", "test"])
@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_the_choice_survives_a_stop(two, tmp_path, scripted, select, after):
    config = config_of(two, tmp_path, model="ctrgcn", epochs=5, batch_size=20, select=select)

    def stop(rows):
        if len(rows) == after:
            crash()

    with pytest.raises(Crash):
        fit(config, watch=stop)
    epoch = {"last": 5, "heldout": 3, "test": 2}[select]
    assert checkpoint.load(fit(config) / "best.pt")["epoch"] == epoch
    assert json.loads((config.run_directory / "summary.json").read_text())["selected_epoch"] == epoch


def test_a_kill_between_the_last_checkpoint_and_its_metrics_loses_no_row(place, tmp_path, scripted, monkeypatch):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=3, batch_size=20)
    write = files.write_atomically

    def killed(path, content):
        if path.name == "metrics.csv" and content.count("\n") == 4:
            raise SystemExit("killed")
        return write(path, content)

    monkeypatch.setattr(trainer, "write_atomically", killed)
    with pytest.raises(SystemExit):
        fit(config)
    monkeypatch.setattr(trainer, "write_atomically", write)
    fit(config)
    assert history(config)["epoch"].tolist() == [1, 2, 3]


def test_a_kill_before_the_summary_leaves_a_run_that_is_finished_by_the_next_call(
    place, tmp_path, scripted, monkeypatch
):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=2, batch_size=20)
    monkeypatch.setattr(Trainer, "_finish", lambda self: crash())
    with pytest.raises(Crash):
        fit(config)
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(Trainer, "_step", lambda self, positions: steps.append(1))
    folder = fit(config)
    assert not steps and (folder / "summary.json").exists() and (folder / "scores.npz").exists()


def test_a_best_checkpoint_damaged_before_the_end_does_not_change_the_result(place, whole, tmp_path, monkeypatch):
    config = config_of(place, tmp_path, model="ctrgcn")
    monkeypatch.setattr(Trainer, "_finish", lambda self: crash())
    with pytest.raises(Crash):
        fit(config)
    monkeypatch.undo()
    path = config.run_directory / "best.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"going on from last\.pt"):
        fit(config)
    shutil.copy(config.run_directory / "last.pt", path)
    assert_same_run(config.run_directory, whole("ctrgcn"))
    (config.run_directory / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match=r"summary\.json is damaged .*made again"):
        fit(config)
    assert_same_run(config.run_directory, whole("ctrgcn"))


def test_damaged_clips_are_not_trained_on(place, tmp_path):
    shutil.copytree(place / "store", tmp_path / "store")
    with open(tmp_path / "store" / "poses.npy", "r+b") as file:
        file.seek(4000)
        file.write(b"\1\2\3\4")
    with pytest.raises(ValueError, match=r"poses\.npy of .* differ from the manifest: prepare the data again"):
        fit(config_of(place, tmp_path, data=str(tmp_path / "store"), model="ctrgcn"))


def test_held_out_subjects_select_for_real(two, tmp_path):
    folder = fit(config_of(two, tmp_path, model="ctrgcn", epochs=2, batch_size=10, select="heldout"))
    rows = pd.read_csv(folder / "metrics.csv")
    scores = Scores.load(folder / "scores.npz")
    assert len(scores.heldout.labels) == 20 and len(scores.labels) == 20
    assert not set(scores.heldout.names) & set(scores.names)
    summary = json.loads((folder / "summary.json").read_text())
    best = rows.loc[rows["heldout_top1"].idxmax()]
    assert summary["selected_epoch"] == best["epoch"]
    assert summary["heldout_top1"] == pytest.approx(best["heldout_top1"])
    assert summary["test_top1"] == pytest.approx(best["test_top1"])
    assert ((rows["train_top1"] * 20 / 100 + 1e-4) % 1 < 1e-3).all()  # of 20 clips, not 40


# --- TensorBoard (what its files hold: test_journal.py)


@pytest.mark.parametrize("model", MODELS)
def test_tensorboard_has_curves_rate_and_confusion(whole, model):
    found, rows = events(whole(model)), pd.read_csv(whole(model) / "metrics.csv")
    tags = found.Tags()
    sections = {"train_loss": "loss/", "lr": "", "train_top1": "accuracy/", "test_top1": "accuracy/"}
    for tag, section in (sections | {"test_top5": "accuracy/", "clips_per_second": "machine/"}).items():
        points = found.Scalars(section + tag)
        assert [point.step for point in points] == [1, 2]
        np.testing.assert_allclose([point.value for point in points], rows[tag], rtol=1e-6)
    assert ("loss/contrastive" in tags["scalars"]) == (model == "bpi")
    scales = {tag for tag in tags["scalars"] if tag.startswith("logit_scale/")}
    assert scales == (
        {f"logit_scale/{name}" for name in ("global", "torso", "arm", "leg")} if model == "bpi" else set()
    )
    assert all(0.05 < point.value < 100 for point in found.Scalars("machine/memory_gb"))
    images = found.Images("confusion")
    assert [image.step for image in images] == [1, 2]
    assert (images[0].width, images[0].height) == (160, 160) and images[0].encoded_image_string[:4] == b"\x89PNG"


def test_the_given_drawing_of_the_confusion_matrix_is_used(place, tmp_path):
    seen = []

    def draw(matrix, classes):
        seen.append((matrix, classes))
        return np.zeros((7, 9, 3), np.uint8)

    folder = fit(config_of(place, tmp_path, model="ctrgcn", epochs=1, batch_size=20), draw_confusion=draw)
    matrix, classes = seen[0]
    assert matrix.shape == (10, 10) and matrix.sum() == 10 and classes == list(synthetic.CLASSES)
    (image,) = events(folder).Images("confusion")
    assert (image.width, image.height) == (9, 7)


def test_a_figure_that_fails_never_ends_a_training(place, whole, tmp_path):
    def fail(*_):
        raise ValueError("no such figure")

    with pytest.warns(UserWarning, match="no such figure") as caught:
        folder = fit(config_of(place, tmp_path, model="ctrgcn"), watch=fail, draw_confusion=fail)
    assert len(caught) == 2  # each once
    assert_same_run(folder, whole("ctrgcn"))
    assert [image.step for image in events(folder).Images("confusion")] == [1, 2]


def test_more_epochs_after_the_end_name_the_way(place, whole):
    with pytest.raises(ValueError, match=r"epochs: 2 there, 3 now.* set start_from='.*ctrgcn_joint_seed0' and a tag"):
        fit(config_of(place, place / "whole", model="ctrgcn", epochs=3))


def test_threads_are_part_of_the_run(place, tmp_path, at_step, monkeypatch):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=1, threads=2)
    count = torch.get_num_threads()
    try:
        at_step(2, crash)
        with pytest.raises(Crash):
            fit(config.changed(checkpoint_minutes=0.0))
        torch.set_num_threads(1)
        monkeypatch.setattr(saving, "usable_cores", lambda: 1)
        with pytest.warns(UserWarning, match="uses 2 CPU threads, as it did before, on 1 cores"):
            folder = fit(config.changed(threads=None))
        assert torch.get_num_threads() == json.loads((folder / "summary.json").read_text())["threads"] == 2
    finally:
        torch.set_num_threads(count)


def test_tensorboard_keeps_every_epoch_when_a_run_goes_on(place, tmp_path, scripted):
    config = config_of(place, tmp_path, model="ctrgcn", epochs=3, batch_size=20)
    with pytest.raises(Crash):
        fit(config, watch=lambda rows: crash())
    fit(config)
    assert [point.step for point in events(config.run_directory).Scalars("accuracy/test_top1")] == [1, 2, 3]


# --- learning


@pytest.mark.parametrize("model", ["bpi", "gap"])
def test_training_reaches_every_parameter(place, tmp_path, model):
    made = Trainer(config_of(place, tmp_path, model=model, lr=0.1))
    made.run.model.train()
    before = {name: value.clone() for name, value in made.run.model.named_parameters()}
    for positions in np.arange(20).reshape(4, 5):  # the topology's scale starts at 0: its inputs learn from step 2
        made._step(positions)
    made.close()
    for name, value in made.run.model.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name
        assert value.grad.any(), name
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("model", ["bpi", "gap", "ctrgcn"])
def test_two_samples_are_overfitted(place, tmp_path, model):
    torch.manual_seed(0)
    run = build(config_of(place, tmp_path, model=model))
    labels = run.store.labels[run.indices("train")]
    x, y = run.feeder("train").batch([0, int(np.flatnonzero(labels == 4)[0])])
    optimizer = torch.optim.SGD(run.model.parameters(), 0.05, momentum=0.9, nesterov=True)
    losses = []
    run.model.train()
    for _ in range(30):
        optimizer.zero_grad()
        loss = skeleton_text_loss(run.model(x), run.text(y, torch.zeros(2)) if run.text else None, y, 1.0)
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    assert losses[0].cross_entropy > 1 and losses[-1].cross_entropy < 0.05
    if run.text:
        assert losses[-1].contrastive.mean() < 0.2 * losses[0].contrastive.mean()
    assert run.model(x).logits.argmax(1).tolist() == y.tolist()


@pytest.mark.parametrize("model", MODELS)
def test_a_loss_that_diverges_is_a_clear_error(place, tmp_path, model):
    config = config_of(place, tmp_path, model=model, lr=1e12, warmup=0, schedule="step")
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch 1, step \d: lower lr \(now 1e\+12\)$"):
        fit(config)  # in fp32 already, and before the first checkpoint
    assert not (config.run_directory / "summary.json").exists()
    assert not (config.run_directory / "best.pt").exists()


def test_a_loss_that_diverges_later_names_what_is_left_and_what_can_be_changed(place, tmp_path):
    config = config_of(place, tmp_path, model="ctrgcn", precision="bf16", checkpoint_minutes=0.0)
    made = Trainer(config)
    made.run.model.train()
    made._step(np.arange(4))
    made._save()
    with torch.no_grad():
        made.run.model.classifier.bias.fill_(math.inf)
    with pytest.raises(ValueError, match=r"lower lr .* or use precision='fp32'\. .*last\.pt holds the last good state"):
        made._step(np.arange(4))
    made.close()


@pytest.mark.parametrize("model", MODELS)
def test_weights_that_diverged_in_the_last_step_are_not_scored(place, tmp_path, model):
    """Their logits are NaN, and NaN has a largest entry too."""
    config = config_of(place, tmp_path, model=model, lr=1e30, warmup=0, schedule="step", epochs=1, batch_size=20)
    with pytest.raises(ValueError, match=r"not finite.*lower lr"):
        fit(config)
    found = {path.name for path in config.run_directory.iterdir()}
    assert not found & {"summary.json", "scores.npz", "best.pt", "last.pt"}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_it_learns(place, tmp_path, model):
    folder = fit(config_of(place, tmp_path, model=model, epochs=6, repeats=30, batch_size=16, width=16, lr=0.1))
    rows = pd.read_csv(folder / "metrics.csv")
    assert rows["train_top1"].iloc[-1] > 80 and rows["test_top1"].iloc[-1] > 30


def test_changed_clips_are_refused(place, stopped, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(stopped.data, changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    with open(changed / "poses.npy", "r+b") as file:
        file.seek(4000)
        file.write(b"\1\2\3\4")
    del manifest["checksum"]  # as in a store made before there was one
    manifest["sha256"]["poses.npy"] = hashlib.sha256((changed / "poses.npy").read_bytes()).hexdigest()
    (changed / "manifest.json").write_text(json.dumps(manifest))
    before = states(stopped.run_directory)
    with pytest.raises(ValueError, match="was trained with other clips than"):
        fit(stopped.changed(data=str(changed)))
    assert states(stopped.run_directory) == before
