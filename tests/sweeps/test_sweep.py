"""Tables of runs and their errors; sweeps over Dask workers that fail, are killed, are stopped, and go on."""

import csv
import os
import shutil
import signal

import nbformat
import numpy as np
import pytest
import yaml
from making import synthetic_store

from bpilib.errors import MissingInputError
from bpilib.evaluate import Scores
from bpilib.runs import write_or_check_config
from bpilib.sweeps import sweep
from bpilib.sweeps.clusters import connect
from bpilib.sweeps.notebook_runner import count_starts
from bpilib.system.files import PARAMS
from bpilib.train import fit

SUBJECTS = 3  # of `place`


def write(folder, content):
    path = folder / "table.yaml"
    content = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(folder, content, **options):
    return sweep.load_sweep(write(folder, content), folder / "outputs", **options)


def small(place, **more):
    """Parameters of runs of seconds."""
    there = {"dataset": "synthetic", "data": str(place / "store"), "prompts": str(place / "prompts.yaml")}
    return there | {"width": 8, "batch_size": 12, "repeats": 1, "text": "minilm", "precision": "fp32"} | more


def test_a_table_is_every_combination_and_every_single_run_over_the_defaults(tmp_path):
    table = load(
        tmp_path,
        {
            "name": "mine",
            "defaults": {"dataset": "synthetic", "epochs": 2, "text": "minilm"},
            "grid": [{"modality": ["joint", "bone"], "seed": [0, 1]}, {"model": ["gap"]}],
            "runs": [{"model": "ctrgcn", "epochs": 5}],
        },
    )
    found = [(c.model, c.modality, c.seed, c.epochs) for c in table.configs]
    bpi = [("bpi", modality, seed, 2) for modality in ("joint", "bone") for seed in (0, 1)]
    assert found == [*bpi, ("gap", "joint", 0, 2), ("ctrgcn", "joint", 0, 5)]
    assert table.folder == tmp_path / "outputs" / "sweeps" / "mine"
    outputs = {"outputs": str(tmp_path / "outputs"), "text": "minilm"}
    assert table.given[1] == {"dataset": "synthetic", "epochs": 2, "modality": "joint", "seed": 1} | outputs
    assert all(c.batch_size == 32 for c in table.configs)  # as published


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grids": {}}, "unknown key 'grids', did you mean 'grid'"),
        ({"runs": [{"seed": 1}, {"modalty": "bone", "seed": 2}]}, r"run 2 \(seed: 2\): unknown parameter 'modalty'"),
        ({"grid": {"modality": ["joint", "bones"]}}, r"run 2 \(modality: bones\): parameter modality: unknown 'bones'"),
        ({"runs": [{"lr": "1e-4"}]}, "in YAML write 1.0e-4"),
        ({"grid": {"seed": 3}}, "expected a list of values for seed, got 3"),
        ({"grid": {"seed": []}}, "expected a list of values for seed"),
        ({"grid": ["seed"]}, "expected a mapping of parameters to lists, got 'seed'"),
        ({"grid": "seed"}, "expected grid to be a mapping or a list of mappings"),
        ({"runs": ["bpi"]}, "expected a mapping of parameters, got 'bpi'"),
        ({"defaults": []}, "expected defaults to be a mapping"),
        ({"defaults": {"seed": 1}}, "has no runs"),
        ({"grid": {"seed": [0, 1]}, "runs": [{"seed": 1}]}, "2 runs would share .*bpi_joint_seed1: .*tag"),
        ({"grid": {"lr": [0.1, 0.2]}}, "2 runs would share"),
        ({"runs": [{"clips": 3}]}, "parameter clips does not belong to training"),
        ({"runs": [{}], "name": "../up"}, "name: expected letters"),
        ({"runs": [{}], "slurm": {"que": "gpu"}}, "slurm: unknown key 'que', did you mean 'queue'"),
        ({"runs": [{"seed": 1, 3: 4}]}, "expected names of parameters, got 3"),
        ({"grid": {"seed": [0], 5: [1]}}, "expected names of parameters, got 5"),
        ({"grid": {name: list(range(300)) for name in ("seed", "k", "epochs")}}, "27,000,000 runs, more than"),
        (b"\xff\xfe\x00runs", "is not YAML"),
        ("- seed", "expected a mapping with name, defaults"),
        ("runs: [", "is not YAML"),
        ("runs: [!!python/object/apply:os.system ['exit 1']]", "is not YAML"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, content)


def test_no_table():
    with pytest.raises(MissingInputError, match=r"params/sweep\.yaml"):
        sweep.load_sweep("params/nothing.yaml")


def test_elsewhere_the_text_encoder_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="set text to clip or minilm"):
        load(tmp_path, {"runs": [{"seed": 0}]}, here=False)
    assert load(tmp_path, {"runs": [{"model": "ctrgcn"}, {"text": "clip"}]}, here=False).configs[1].text == "clip"


def test_the_shipped_tables(tmp_path):
    assert len(sweep.load_sweep("params/sweep.yaml", tmp_path).configs) == 7
    ntu = sweep.load_sweep(PARAMS / "sweep_ntu.yaml", tmp_path, here=False)
    assert len({config.run_directory for config in ntu.configs}) == 144
    assert {(c.dataset, c.benchmark) for c in ntu.configs} == {
        ("ntu60", "xsub"),
        ("ntu60", "xview"),
        ("ntu120", "xsub"),
        ("ntu120", "xset"),
    }


def test_what_would_fail_later_is_said_before_anything_starts(tmp_path, place):
    nowhere = load(tmp_path, {"runs": [{"dataset": "synthetic", "data": str(tmp_path / "none")}]})
    with pytest.raises(MissingInputError, match="01_prepare_data"):
        sweep.run_sweep(nowhere, client=None)
    table = load(tmp_path, {"runs": [small(place, epochs=1)]})
    write_or_check_config(table.configs[0].changed(epochs=2))
    (table.configs[0].run_directory / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run with other settings"):
        sweep.run_sweep(table, client=None)


# Stands in for 02_train: three epochs of a moment, each a row of metrics.csv; goes on after the last one there is, and
# after the first one once there is a file `go_on` in outputs.
STAND_IN = """
import os, time
from pathlib import Path
folder = Path(outputs) / "synthetic_xview" / f"bpi_{modality}_seed{seed}"
log = folder / "metrics.csv"
end = time.monotonic() + 1500
if not log.exists():
    log.write_text("epoch,test_top1,pid,gpu,threads\\n")
while (done := len(log.read_text().splitlines()) - 1) < 3:
    while done and not (Path(outputs) / "go_on").exists():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
    row = (done + 1, 50 + seed, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"])
    with log.open("a") as file:
        file.write(",".join(map(str, row)) + "\\n")
if seed == 9:
    raise ValueError("made to fail")
(folder / "summary.json").write_text("{}")
"""


# The second cell of a 02_train that stays in the second epoch until it is interrupted or there is a file `go_on`.
WAITS = """
import time
from pathlib import Path
from bpilib.training.trainer import Trainer
train_epoch, end = Trainer._train_epoch, time.monotonic() + 1500
def wait(trainer, bar, stop):
    def stop_late():
        while trainer.progress.epoch == 1 and not (stop() or Path({go_on!r}).exists() or time.monotonic() > end):
            time.sleep(0.05)
        return stop()
    train_epoch(trainer, bar, stop_late)
Trainer._train_epoch = wait
"""


@pytest.fixture
def waiting(tmp_path):
    """The path of a 02_train that waits where the table says outputs."""
    notebook = nbformat.read(sweep.TRAIN, 4)
    cell = nbformat.v4.new_code_cell(WAITS.format(go_on=str(tmp_path / "outputs" / "go_on")))
    notebook.cells.insert(1, cell)
    nbformat.write(notebook, tmp_path / "02_train.ipynb")
    return tmp_path / "02_train.ipynb"


@pytest.fixture
def stand_in(tmp_path):
    """The path of a notebook that trains nothing."""
    names = "dataset data prompts width batch_size repeats text precision outputs modality epochs device".split()
    parameters = "# parameters\nseed = 0\n" + "\n".join(f"{name} = None" for name in names)
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(STAND_IN))
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path / "02_train.ipynb")
    return tmp_path / "02_train.ipynb"


def metrics(config):
    with (config.run_directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


class Killer:
    """A watch that kills -9 the first worker in the middle of a run, once; when that run has ended, all go on."""

    def __init__(self, client, table):
        self.client, self.killed, self.tables = client, None, []
        self.go_on = table.folder.parents[1] / "go_on"

    def __call__(self, table):
        self.tables.append(table)
        running = table[(table["state"] == "running") & (table["epoch"] >= 1)]
        if self.killed is None and len(running):
            self.killed = running.index[0]
            address = next(
                address
                for address, keys in self.client.processing().items()
                if any(key.startswith(os.path.basename(running["folder"].iloc[0])) for key in keys)
            )
            os.kill(self.client.run(os.getpid, workers=[address])[address], signal.SIGKILL)
        elif self.killed is not None and (table["state"][self.killed], table["starts"][self.killed]) != ("running", 1):
            self.go_on.touch()


def test_only_runs_that_are_finished_as_asked_are_skipped(tmp_path, place):
    shutil.copytree(place / "store", tmp_path / "store")
    run = small(place, data=str(tmp_path / "store"), epochs=1, batch_size=40, device="cpu")
    table = load(tmp_path, {"runs": [run]})
    folder = fit(table.configs[0])
    with connect("local", workers=1, cores=1) as client:
        assert sweep.run_sweep(table, client, None, 0.1)["state"].tolist() == ["skipped"]
        (folder / "summary.json").write_text("{}")
        with pytest.warns(UserWarning, match=r"summary\.json is damaged \(lacks 'best_test_"):
            assert sweep.run_sweep(table, client, None, 0.1)["state"].tolist() == ["finished"]
    assert sweep.find_finished(table)[0][1]["epochs"] == 1
    shutil.rmtree(tmp_path / "store")
    synthetic_store(tmp_path, subjects=2)
    with pytest.raises(ValueError, match="bpi_joint_seed0 was trained with other clips than"):
        sweep.run_sweep(table, client=client)


@pytest.mark.slow
def test_a_failed_run_and_a_killed_worker_stop_nothing(tmp_path, place, stand_in):
    grid = {"modality": ["joint", "bone"], "seed": [0, 1, 9]}
    table = load(tmp_path, {"defaults": small(place, epochs=1, device="cpu"), "grid": grid})
    fit(table.configs[0])
    with connect("local", gpus=2, workers=2, cores=1) as client:
        killer = Killer(client, table)
        rows = sweep.run_sweep(table, client, killer, 0.2, stand_in)
    assert rows["state"].tolist() == ["skipped", "finished", "failed", "finished", "finished", "failed"]
    assert rows["message"][2] == rows["message"][5] == "ValueError: made to fail"
    assert all((config.run_directory / "02_train.ipynb").exists() for config in table.configs[1:])
    assert count_starts(table.configs[0].run_directory) == 0
    for number, config in enumerate(table.configs[1:], 1):
        found = metrics(config)
        assert [row["epoch"] for row in found] == ["1", "2", "3"]  # none twice
        assert len({row["pid"] for row in found}) == (2 if number == killer.killed else 1)
        assert {(row["gpu"], row["threads"]) for row in found} <= {("0", "1"), ("1", "1")}
        assert count_starts(config.run_directory) == rows["starts"][number] == (2 if number == killer.killed else 1)
    assert {row["gpu"] for config in table.configs[1:] for row in metrics(config)} == {"0", "1"}
    assert {"waiting", "running"} <= {state for table in killer.tables for state in table["state"]}
    assert (table.folder / "runs.csv").read_text().count("finished") == 4  # three, and "finished before"


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_the_next_call_goes_on(tmp_path, place, stand_in):
    table = load(tmp_path, {"defaults": small(place), "grid": {"modality": ["joint"], "seed": [0, 1, 2]}})
    pressed = []

    def press(rows):
        if not pressed and (rows["epoch"] >= 1).any():
            pressed.append(rows)
            raise KeyboardInterrupt

    with connect("local", workers=1, cores=1) as client:
        with pytest.raises(KeyboardInterrupt, match="run the same again to go on"):
            sweep.run_sweep(table, client, press, 0.2, stand_in)
        rows = sweep.read_states(table)
        assert rows["state"].tolist() == ["waiting"] * 3 and rows["epoch"].sum() == 1
        assert rows["starts"].tolist() == [1, 0, 0]
        (tmp_path / "outputs" / "go_on").touch()
        assert sweep.run_sweep(table, client, None, 0.2, stand_in)["state"].tolist() == ["finished"] * 3
    assert [[row["epoch"] for row in metrics(config)] for config in table.configs] == [["1", "2", "3"]] * 3


@pytest.mark.slow
def test_six_real_runs_on_two_workers_one_killed_equal_undisturbed_ones(tmp_path, place, waiting):
    grid = {"modality": ["joint", "bone"], "seed": [0, 1, 2]}
    table = load(tmp_path, {"defaults": small(place, epochs=4, device="cpu"), "grid": grid})
    with connect("local", workers=2, cores=1) as client:
        killer = Killer(client, table)
        rows = sweep.run_sweep(table, client, killer, 0.1, waiting)
    assert rows["state"].tolist() == ["finished"] * 6
    assert killer.killed is not None
    assert rows["starts"].tolist() == [2 if number == killer.killed else 1 for number in range(6)]
    for config in table.configs:
        assert [row["epoch"] for row in metrics(config)] == ["1", "2", "3", "4"]
        assert "interrupted" not in (config.run_directory / "02_train.ipynb").read_text()
    killed = table.configs[killer.killed]
    undisturbed = fit(killed.changed(outputs=str(tmp_path / "undisturbed")))
    ours, theirs = (Scores.load(folder / "scores.npz").logits for folder in (killed.run_directory, undisturbed))
    assert np.array_equal(ours, theirs)
