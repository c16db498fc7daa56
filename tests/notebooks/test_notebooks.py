"""Every notebook executed headless, as a user does with papermill, on a small run of the synthetic data set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SMALL = {"epochs": 2, "repeats": 1, "width": 8, "batch_size": 32, "select": "heldout"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders for data and outputs, and the parameters that lead there."""
    folder = tmp_path_factory.mktemp("work")
    return folder, {"data": str(folder / "store"), "outputs": str(folder / "outputs")}


def run(name: str, folder: Path, **parameters) -> nbformat.NotebookNode:
    out = folder / f"{name}_{len(list(folder.glob('*.ipynb')))}.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", out, parameters=parameters, progress_bar=False, cwd=str(folder)
    )
    notebook = nbformat.read(out, 4)
    assert all(o.output_type != "error" for cell in notebook.cells for o in cell.get("outputs", []))
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))


def html(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.get("data", {}).get("text/html", "") for c in notebook.cells for o in c.get("outputs", []))


@pytest.fixture(scope="module")
def prepared(places):
    folder, there = places
    return run("01_prepare_data", folder, dataset="synthetic", raw=str(folder / "raw"), **there)


@pytest.fixture(scope="module")
def trained(places, prepared):
    folder, there = places
    return [run("02_train", folder, modality=m, **there, **SMALL) for m in ("joint", "bone")]


def test_01_shows_the_data_and_plays_without_a_kernel(places, prepared):
    assert "480 clips (320 train, 160 test on xview)" in printed(prepared)
    assert pictures(prepared) == 3
    assert html(prepared).count("<iframe") == 1  # the player carries its data and script in itself
    figures = places[0] / "outputs" / "synthetic_xview" / "figures"
    assert {p.name for p in figures.iterdir()} == {"class_counts.png", "clip_lengths.png", "film_strip.png"}


def test_02_leaves_a_whole_run_and_says_what_it_used(places, trained):
    folder = places[0] / "outputs" / "synthetic_xview" / "bpi_joint_seed0"
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.csv", "tensorboard", "scores.npz", "summary.json"} <= names
    assert (folder / "figures" / "training_curves.png").stat().st_size > 10_000
    assert "text: minilm" in printed(trained[0])
    assert "device: " in printed(trained[0])
    assert "best test epoch, as published" in printed(trained[0])
    assert ">parameter</th>" in html(trained[0])


def test_02_again_shows_what_is_done_and_changes_nothing(places, trained):
    folder, there = places
    before = {p: p.stat().st_mtime_ns for p in (folder / "outputs").rglob("*.pt")}
    again = run("02_train", folder, modality="joint", **there, **SMALL)
    assert "done already" in printed(again)
    assert {p: p.stat().st_mtime_ns for p in (folder / "outputs").rglob("*.pt")} == before


@pytest.mark.slow
def test_02_with_two_processes_shows_the_same(places, prepared):
    folder, there = places
    notebook = run("02_train", folder, tag="two", device="cpu", devices=2, **there, **SMALL)
    assert "2 processes share every batch, 2 of them here" in printed(notebook)
    assert "bpi_joint_seed0_two: " in str(notebook)  # the bar
    assert pictures(notebook) >= 1  # the live curves
    run_directory = folder / "outputs/synthetic_xview/bpi_joint_seed0_two"
    assert json.loads((run_directory / "summary.json").read_text())["processes"] == 2
    assert len(list((run_directory / "logs").rglob("stderr.log"))) == 2


def test_03_evaluates_a_run(places, trained):
    folder, there = places
    notebook = run("03_evaluate", folder, **there)
    summary = json.loads((folder / "outputs/synthetic_xview/bpi_joint_seed0/summary.json").read_text())
    assert f"top-1 {summary['test_top1']:.2f} %" in printed(notebook)
    assert pictures(notebook) == 3


def test_04_draws_the_attention_and_holds_the_browser(places, trained):
    folder, there = places
    notebook = run("04_attention", folder, clips=2, **there)
    figures = {p.name for p in (folder / "outputs/synthetic_xview/bpi_joint_seed0/figures").iterdir()}
    assert {"attention_maps.png", "attention_by_class.png", "similarity.png"} <= figures
    assert {f"attention_heads_{part}.png" for part in ("torso", "arm", "leg")} <= figures
    assert sum(name.startswith("attention_a") for name in figures) == 2
    assert "global: nearest text right for" in printed(notebook)
    widgets = [o for c in notebook.cells for o in c.get("outputs", []) if "widget-view+json" in str(o.get("data", ""))]
    assert len(widgets) == 1


def test_05_adds_up_what_there_is(places, trained):
    folder, there = places
    notebook = run("05_ensemble", folder, weights="searched", **there)
    out = folder / "outputs/synthetic_xview/bpi_ensemble_seed0"
    lines = (out / "subsets.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["subset", "joint", "bone", "joint + bone"]
    assert "(searched)" in printed(notebook)
    assert (out / "scores.npz").exists()


@pytest.mark.parametrize(
    ("name", "first"),
    [("02_train", "01_prepare_data"), ("03_evaluate", "02_train"), ("04_attention", "02_train"),
     ("05_ensemble", "02_train")],
)  # fmt: skip
def test_missing_input_names_the_notebook_to_run_first(name, first, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=f"{first}.ipynb"):
        run(name, tmp_path, data=str(tmp_path / "store"), outputs=str(tmp_path / "outputs"))


def papermill_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_mistyped_parameter_stops_with_the_nearest_name(tmp_path):
    done = papermill_command(
        str(NOTEBOOKS / "02_train.ipynb"), str(tmp_path / "out.ipynb"), "-p", "datset", "ucla", cwd=tmp_path
    )
    assert done.returncode != 0
    assert "unknown parameter 'datset', did you mean 'dataset'?" in done.stderr


def test_inside_notebooks_without_output_path(places, prepared):
    folder, there = places
    options = [part for name, value in (there | SMALL | {"tag": "inside"}).items() for part in ("-p", name, str(value))]
    done = papermill_command("02_train.ipynb", "-p", "dataset", "synthetic", *options, cwd=NOTEBOOKS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["cells"]  # papermill prints the executed notebook
    assert (folder / "outputs/synthetic_xview/bpi_joint_seed0_inside/summary.json").exists()


@pytest.mark.slow
def test_01_to_05_on_nw_ucla(tmp_path):
    zips = [os.environ.get("BPI_UCLA_ZIP", ""), ROOT / "data/NW-UCLA/all_sqe.zip"]
    raw = next((str(path) for path in zips if path and Path(path).exists()), None)
    if raw is None:
        pytest.skip("NW-UCLA's all_sqe.zip is not here: put it into data/NW-UCLA or name it in BPI_UCLA_ZIP")
    there = {"dataset": "ucla", "data": str(tmp_path / "store"), "outputs": str(tmp_path / "outputs")}
    assert "1,484 clips (1,020 train, 464 test on xview)" in printed(run("01_prepare_data", tmp_path, raw=raw, **there))
    run("02_train", tmp_path, **there, **SMALL)
    for name in ("03_evaluate", "04_attention", "05_ensemble"):
        run(name, tmp_path, **there)
