"""Every notebook executed headless, as a user does with papermill, on a small run of the synthetic data set."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
import yaml
from executed import NOTEBOOKS, ROOT, SMALL, run, small_sweep
from making import save_result, ucla_records, write_folder

from bpilib.data.store import SkeletonStore
from bpilib.model import build_model
from bpilib.reference import reference_state_dict
from bpilib.skeleton import UCLA


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))


def html(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.get("data", {}).get("text/html", "") for c in notebook.cells for o in c.get("outputs", []))


def test_00_needs_nothing_and_says_that_it_is_not_trained(tmp_path):
    notebook = run("00_tour", tmp_path, outputs=str(tmp_path / "outputs"), data=str(tmp_path / "store"))
    assert "the network is NOT trained" in printed(notebook) and "make demo" in printed(notebook)
    by_hand, ours = re.search(r"contrastive loss: (\S+) by hand, (\S+) by", printed(notebook)).groups()
    assert float(by_hand) == pytest.approx(float(ours), abs=2e-4)
    told, same = re.search(r"by hand \[(.*?)\], PyTorch's attention \[(.*?)\]", printed(notebook)).groups()
    assert told == same
    assert "0.0000 learned, 0.0000 refined" in printed(notebook) and pictures(notebook) == 12
    assert {path.stem for path in (tmp_path / "outputs" / "tour").glob("*.png")} >= {"topologies", "attention"}
    assert html(notebook).count("<iframe") == 1


@pytest.mark.slow
def test_00_looks_at_a_trained_run_where_there_is_one(places, trained):
    folder, there = places
    notebook = run("00_tour", folder, tag="", **there)
    assert "the network is trained (synthetic_xview/bpi_joint_seed0)" in printed(notebook)
    assert "NOT trained" not in printed(notebook)


def test_01_shows_the_data_and_plays_without_a_kernel(places, prepared):
    assert "480 clips (320 train, 160 test on xview)" in printed(prepared)
    assert "xview: no test clip is a copy of a training clip" in printed(prepared)
    assert pictures(prepared) == 4
    assert html(prepared).count("<iframe") == 1  # the player carries its data and script in itself
    figures = places[0] / "outputs" / "synthetic_xview" / "figures"
    drawn = {"class_counts", "clip_lengths", "film_strip", "first_clip"}
    assert {p.name for p in figures.iterdir()} == {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}


def test_02_leaves_a_whole_run_and_says_what_it_used(places, trained):
    folder = places[0] / "outputs" / "synthetic_xview" / "bpi_joint_seed0"
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.csv", "tensorboard", "scores.npz", "summary.json"} <= names
    assert (folder / "figures" / "training_curves.png").stat().st_size > 10_000
    assert "text: minilm" in printed(trained[0])
    assert "device: " in printed(trained[0])
    assert re.search(r"about \S+ (seconds|minutes) on this machine: 2 epochs of \d+ clips at ", printed(trained[0]))
    assert "best test epoch, as published" in printed(trained[0])
    assert "no test clip is a copy of a training clip" in printed(trained[0])
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
    assert "no test clip is a copy of a training clip" in printed(notebook)
    assert pictures(notebook) == 6
    figures = {path.stem for path in (folder / "outputs/synthetic_xview/bpi_joint_seed0/figures").glob("*.pdf")}
    assert {"one_clip", "one_clip_lead", "one_clip_needs"} <= figures
    assert not (folder / "outputs/synthetic_xview/bpi_joint_seed0/export").exists()  # nobody asked for it


@pytest.mark.slow
def test_03_exports_and_classifies_a_clip_from_file(places, trained):
    folder, there = places
    clip = sorted((folder / "raw").rglob("*.json"))[0]
    notebook = run("03_evaluate", folder, export="all", clip_file=str(clip), **there)
    made = {path.name for path in (folder / "outputs/synthetic_xview/bpi_joint_seed0/export").iterdir()}
    assert made == {"classifier.onnx", "classifier.pt2", "classifier.json", "published.pt"}
    for name in ("PyTorch", "classifier.onnx", "classifier.pt2"):
        assert f">{name}</th>" in html(notebook)


@pytest.fixture(scope="module")
def published(places, prepared):
    """03 executed on a weight file of the published code; its run has the tag "published"."""
    folder, there = places
    torch.save(reference_state_dict(build_model("bpi", UCLA, 10, width=8)), folder / "runs-110.pt")
    return run("03_evaluate", folder, weights_file=str(folder / "runs-110.pt"), width=8, **there)


def test_03_evaluates_a_published_weight_file(places, published):
    folder, _ = places
    assert "weights that name no epoch" in printed(published)
    assert (folder / "outputs/synthetic_xview/bpi_joint_seed0_published/scores.npz").exists()


@pytest.mark.slow
def test_04_looks_at_published_weights_and_09_has_no_texts_for_them(places, published):
    folder, there = places
    run("04_attention", folder, tag="published", clips=1, **there)
    with pytest.raises(papermill.PapermillExecutionError, match="no text encoder"):
        run("09_text", folder, tag="published", **there)


def test_04_draws_the_attention_and_holds_the_browser(places, trained):
    folder, there = places
    notebook = run("04_attention", folder, clips=2, **there)
    place = folder / "outputs/synthetic_xview/bpi_joint_seed0/figures"
    figures = {p.name for p in place.glob("*.png")}
    assert {p.stem for p in place.glob("*.pdf")} >= {name.removesuffix(".png") for name in figures}
    assert {"attention_maps.png", "attention_by_class.png"} <= figures
    assert {"occlusion_by_class.png", "occlusion_class.png"} <= figures
    assert {"attention_flow.png", "attention_entropy.png", "attention_by_head.png", "evidence_by_class.png"} <= figures
    assert {f"attention_heads_{part}.png" for part in ("torso", "arm", "leg")} <= figures
    for kind in ("attention_a", "evidence_a", "occlusion_a"):
        assert sum(name.startswith(kind) for name in figures) == 2
    gap = float(re.search(r"sum to the logit within (\S+)", printed(notebook))[1])
    assert gap <= 1e-4
    widgets = [o for c in notebook.cells for o in c.get("outputs", []) if "widget-view+json" in str(o.get("data", ""))]
    assert len(widgets) == 1


@pytest.mark.slow
def test_04_of_a_network_without_attention(places, prepared):
    folder, there = places
    run("02_train", folder, model="ctrgcn", **there, **SMALL)
    notebook = run("04_attention", folder, model="ctrgcn", clips=1, **there)
    assert "ctrgcn has no attention" in printed(notebook)
    figures = {p.name for p in (folder / "outputs/synthetic_xview/ctrgcn_joint_seed0/figures").glob("*.png")}
    assert {"evidence_by_class.png", "occlusion_by_class.png"} <= figures
    assert not any(name.startswith("attention") for name in figures)
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


def test_06_runs_a_table_and_sums_it_up(places, prepared):
    folder, there = places
    given = {"sweep": str(small_sweep(there, folder)), "outputs": there["outputs"], "workers": 2, "cores": 1}
    notebook = run("06_sweep", folder, **given)
    assert "2 of 2 runs finished, 0 failed" in printed(notebook)
    tables = [o for c in notebook.cells for o in c.get("outputs", []) if "<b>2 runs</b>" in str(o.get("data", ""))]
    assert len(tables) == 1 and "2 finished" in tables[0].data["text/html"]  # one table, drawn anew in its place
    out = folder / "outputs/sweeps/table"
    assert {p.name for p in out.iterdir()} == {
        "runs.csv", "runs.html", "results.csv", "ensembles.csv", "summary.csv", "table.tex", "figures",
    }  # fmt: skip
    assert [line.split(",")[3] for line in (out / "summary.csv").read_text().splitlines()[1:]] == [
        "joint", "bone", "joint + bone",
    ]  # fmt: skip
    trained = folder / "outputs/synthetic_xview/bpi_joint_seed0_sweep"
    assert pictures(nbformat.read(trained / "02_train.ipynb", 4)) >= 1
    assert f'href="../../{trained.relative_to(folder / "outputs")}/02_train.ipynb"' in (out / "runs.html").read_text()


def test_06_ranks_settings_by_held_out_clips_and_shows_no_test_accuracy(places, prepared, tmp_path):
    table = small_sweep(places[1], tmp_path, heldout_by="subject")
    outputs = tmp_path / "outputs"
    notebook = run("06_sweep", tmp_path, sweep=str(table), outputs=str(outputs), workers=2, cores=1)
    assert "2 of 2 runs finished, 0 failed" in printed(notebook)
    out = outputs / "sweeps/table"
    ranking = pd.read_csv(out / "ranking.csv")
    assert sorted(ranking["setting"]) == ["first", "modality bone"] and (ranking["seeds"] == 1).all()
    for modality, setting in (("joint", "first"), ("bone", "modality bone")):
        trained = outputs / f"synthetic_xview/bpi_{modality}_seed0_sweep"
        heldout = json.loads((trained / "summary.json").read_text())["heldout_top1"]
        assert ranking.set_index("setting").loc[setting, "mean"] == pytest.approx(heldout)
    assert not {"test_top1", "top1"} & set(pd.read_csv(out / "runs.csv"))
    shown = "".join(str(o.get("data", "")) for c in notebook.cells for o in c.get("outputs", []))
    assert "held-out top-1" in shown and "test top-1" not in shown


def test_07_compares_the_runs_there_are_and_lists_the_others(places, trained, tmp_path):
    folder, there = tmp_path, places[1] | {"outputs": str(tmp_path / "outputs")}
    for name in ("bpi_joint_seed0", "bpi_bone_seed0"):
        place = Path("outputs/synthetic_xview") / name
        shutil.copytree(places[0] / place, folder / place)
    broken = folder / "outputs/synthetic_xview/bpi_bone_seed7"
    broken.mkdir()
    (broken / "config.yaml").write_text("dataset: synthetic\n")
    notebook = run("07_compare", folder, outputs=there["outputs"])
    out = folder / "outputs/comparison"
    assert "bpi_bone_seed7" in (out / "left_out.csv").read_text()
    drawn = ("overview", "pairs", "agreement", "classes", "confusion_difference", "curves", "attention_evenness")
    figures = {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    written = {"pairs.csv", "classes.csv", "evenness.csv", "reproducibility.txt"}
    assert {p.name for p in (out / "synthetic_xview").iterdir()} == figures | written
    assert pictures(notebook) == 7
    assert "of 1 pairs," in printed(notebook)
    assert "no test clip is a copy of a training clip" in printed(notebook)
    assert "without_copies" not in (out / "table.csv").read_text()
    one = run("07_compare", folder, outputs=there["outputs"], runs=["bpi_joint_seed0"])
    assert "nothing to compare yet" in printed(one) and pictures(one) == 2


def test_07_compares_settings_over_the_seeds_that_both_have(tmp_path):
    for seed in (0, 1):
        save_result(tmp_path / "outputs", [True, True, False, True], seed=seed, copies=["clip0"])
        right = [True, False, False, seed == 1]
        save_result(tmp_path / "outputs", right, seed=seed, model="ctrgcn", copies=["clip0"])
    notebook = run("07_compare", tmp_path, outputs=str(tmp_path / "outputs"))
    assert "all test clips:" in printed(notebook) and "without copies:" in printed(notebook)
    place = tmp_path / "outputs/comparison/synthetic_xview"
    whole, rest = (pd.read_csv(place / f"{name}.csv").iloc[0] for name in ("seeds", "seeds_without_copies"))
    assert (whole["clips"], whole["by_seed"]) == (4, "+50.0, +25.0") and whole["a"].startswith("synthetic_xview/bpi")
    assert (rest["clips"], rest["by_seed"]) == (3, "+66.7, +33.3")


@pytest.mark.slow
def test_copies_are_drawn_and_counted_apart_from_01_to_07(tmp_path):
    records, copies = ucla_records(), [f"a{action:02d}_s01_e00_v03" for action in (2, 3, 6)]
    records |= {name: records[name[:-1] + "2"] | {"file_name": name} for name in copies}
    there = {"dataset": "ucla", "data": str(tmp_path / "store"), "outputs": str(tmp_path / "outputs")}
    first = run("01_prepare_data", tmp_path, raw=str(write_folder(tmp_path / "raw", records)), **there)
    said = "3 of the 20 test clips"
    assert f"{said} (15.0 %) are copies of training clips (3 equal)" in printed(first) and pictures(first) == 6
    place = tmp_path / "outputs/ucla_xview"
    assert pd.read_csv(place / "copies.csv")["test"].tolist() == copies
    assert {"copy_test.png", "copy_train.png"} <= {path.name for path in (place / "figures").iterdir()}
    small = SMALL | {"epochs": 1, "batch_size": 20, "select": "last"}
    for which in ({"modality": "joint"}, {"modality": "bone"}, {"model": "ctrgcn"}):
        assert f"on 17 clips; {said} are copies" in printed(run("02_train", tmp_path, **which, **there, **small))
    assert "without copies: top-1 " in printed(run("03_evaluate", tmp_path, **there))
    shutil.move(tmp_path / "store", tmp_path / "gone")
    whole = run("05_ensemble", tmp_path, **there)
    assert "without copies: top-1 " in printed(whole) and "top1_without_copies" in html(whole)
    assert "low_without_copies" in (place / "bpi_ensemble_seed0/subsets.csv").read_text()
    last = run("07_compare", tmp_path, dataset="ucla", outputs=there["outputs"])
    assert f"{said} are copies of training clips" in printed(last) and pictures(last) == 7
    out = tmp_path / "outputs/comparison"
    assert set(pd.read_csv(out / "ucla_xview/pairs_without_copies.csv")["clips"]) == {17}
    assert set(pd.read_csv(out / "table.csv")["clips_without_copies"]) == {17}


def test_08_goes_from_clips_of_another_tracker_to_a_classified_file(tmp_path):
    there = {"raw": str(tmp_path / "clips"), "data": str(tmp_path / "store"), "outputs": str(tmp_path / "outputs")}
    small = {"epochs": 1, "repeats": 1, "width": 8}
    first = run("08_your_data", tmp_path, **there, **small)
    assert "96 clips (64 train, 32 test on split)" in printed(first)
    assert "32 texts, all of them shipped" in printed(first)
    assert re.search(r"wave_05_\d\d: most probably (wave|clap|kick|squat), \d+\.\d%", printed(first))
    assert "mean of left wrist, left index" in html(first)
    assert pictures(first) == 7 and html(first).count("<iframe") == 1
    assert (tmp_path / "store.prompts.yaml").exists()  # where 02 to 05 find it
    source = tmp_path / "outputs" / "example_split" / "bpi_joint_seed0"
    more = {"tag": "on", "start_from": str(source), "clip_file": str(tmp_path / "clips" / "kick_05_00.npy")}
    more["prompts"] = str(shutil.copy(ROOT / "params" / "prompts" / "example.yaml", tmp_path / "texts.yaml"))
    second = printed(run("08_your_data", tmp_path, **there, **small, **more))
    of = r"\(bpi joint on example, width 8\)"
    taken = re.search(rf"started from \S+best.pt {of}: (\d+) of (\d+) tensors taken", second)
    assert taken[1] == taken[2] and "not taken" not in second
    assert "kick_05_00.npy: most probably" in second and (tmp_path / "texts.minilm.npz").exists()


def test_09_recognises_by_text_what_training_never_saw(places, prepared):
    folder, there = places
    unseen = ["squat", "kick"]
    run("02_train", folder, tag="unseen", unseen=unseen, **there, **SMALL)
    folder_of_run = folder / "outputs/synthetic_xview/bpi_joint_seed0_unseen"
    assert yaml.safe_load((folder_of_run / "config.yaml").read_text())["unseen"] == ["kick", "squat"]
    evaluated = printed(run("03_evaluate", folder, tag="unseen", **there))
    assert "32 of the clips are of classes that training never saw (kick, squat)" in evaluated
    notebook = run("09_text", folder, tag="unseen", **there)
    assert "unseen in training: kick, squat" in printed(notebook)
    accuracy = pd.read_csv(folder_of_run / "text_accuracy.csv", index_col=["by", "clips of"])
    rows = ["seen", "unseen", "harmonic mean", "unseen among unseen"]
    assert accuracy.index.tolist() == [(by, row) for by in ("nearest texts", "trained classifier") for row in rows]
    assert accuracy["clips"].tolist() == [128, 32, 160, 32] * 2 and accuracy["top1"].between(0, 100).all()
    assert {p.name for p in (folder_of_run / "figures").iterdir()} >= {
        "similarity.png", "text_map.png", "matches.png", "match_1.png", "text_accuracy.png", "text_confusion.png",
    }  # fmt: skip
    assert pictures(notebook) == 8
    widgets = [o for c in notebook.cells for o in c.get("outputs", []) if "widget-view+json" in str(o.get("data", ""))]
    assert len(widgets) == 1


@pytest.mark.slow
def test_09_without_unseen_classes_with_a_description_and_with_copies(places, trained, tmp_path):
    folder, there = places
    shutil.copytree(there["data"], tmp_path / "store")
    found = json.loads((tmp_path / "store" / "copies.json").read_text())
    store = SkeletonStore.open(there["data"])
    names = store.names[store.split("xview", "test")[:3]].tolist()
    found["benchmarks"]["xview"] = [[name, "of training", "equal", 0.0, 40] for name in names]
    (tmp_path / "store" / "copies.json").write_text(json.dumps(found))
    notebook = run("09_text", folder, query="take a seat", clips=1, **there | {"data": str(tmp_path / "store")})
    assert "3 of the clips of seen classes are copies of training clips" in printed(notebook)
    accuracy = pd.read_csv(folder / "outputs/synthetic_xview/bpi_joint_seed0/text_accuracy.csv")
    assert accuracy["clips"].tolist() == [160, 160, 157, 157]
    assert accuracy["by"].str.endswith("without copies").tolist() == [False, False, True, True]
    assert "unseen in training: no class" in printed(notebook)
    assert "seen: " in printed(notebook) and "harmonic" not in printed(notebook)
    assert pictures(notebook) == 6


def test_10_plays_recorded_landmarks_without_mediapipe(tmp_path):
    there = {"raw": str(tmp_path / "clips"), "data": str(tmp_path / "store"), "outputs": str(tmp_path / "outputs")}
    first = run("10_video", tmp_path, **there, epochs=1, repeats=1, width=8)
    assert "96 clips (64 train, 32 test)" in printed(first) and "MediaPipe is not needed" in printed(first)
    assert "test clips: clap, kick, squat, wave: " in printed(first)
    assert pictures(first) == 3 and html(first).count("<iframe") == 1
    kept = tmp_path / "outputs/example_split/bpi_joint_seed0/films"
    (classes,) = kept.glob("*.classes.csv")
    table = pd.read_csv(classes)
    assert table.columns.tolist() == ["begin", "end", "clap", "kick", "squat", "wave"] and len(table) == 4
    assert {path.suffix for path in kept.iterdir()} == {".csv", ".png", ".pdf"}
    acts = [np.load(tmp_path / "clips" / f"{action}_05_00.npy") for action in ("kick", "wave", "squat", "clap")]
    np.save(tmp_path / "long.npy", np.concatenate(acts))
    film = {"film": str(tmp_path / "long.npy"), "raw": None}  # a run that is there, a file that is not
    second = run("10_video", tmp_path, **(there | film))
    assert "long.npy: " in printed(second) and "top-1" not in printed(second)
    assert html(second).count("<iframe") == 1 and (pd.read_csv(kept / "long.classes.csv")["begin"].diff() < 3)[1:].all()
    spans = [(float(a), float(b)) for a, b in re.findall(r"([\d.]+) to ([\d.]+) s: ", printed(second))]
    assert spans and all(a < b for a, b in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))  # windows overlap, what is said does not


SLOW = pytest.mark.slow
OTHERS = ("03_evaluate", "04_attention", "05_ensemble", "09_text")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("02_train", "01_prepare_data"),
        ("07_compare", "02_train"),
        *(pytest.param(name, "02_train", marks=SLOW) for name in OTHERS),
    ],
)
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


def run_all(folder: Path, raw: Path | str, small: dict, last: int = 5, **given) -> dict[str, nbformat.NotebookNode]:
    """01 to 05, or to `last`, on one data set, by name."""
    there = given | {"data": str(folder / "store"), "outputs": str(folder / "outputs")}
    own = {"01_prepare_data": {"raw": str(raw)}, "02_train": small, "04_attention": {"clips": 2}}
    names = ("01_prepare_data", "02_train", "03_evaluate", "04_attention", "05_ensemble")
    return {name: run(name, folder, **there, **own.get(name, {})) for name in names}


@pytest.mark.slow
def test_01_to_05_on_ntu60(made, tmp_path):
    """As raw files: 60 of some 30 classes, of one person and of two."""
    small = {"epochs": 1, "width": 8, "batch_size": 16}
    done = run_all(tmp_path, made("ntu60"), small, dataset="ntu60")
    assert "60 clips (31 train, 29 test on xsub)" in printed(done["01_prepare_data"])
    assert "hollow joints: person 2" in html(done["01_prepare_data"])
    assert "29 test clips, weights of epoch 1" in printed(done["03_evaluate"])
    run_directory = tmp_path / "outputs" / "ntu60_xsub" / "bpi_joint_seed0"
    assert json.loads((run_directory / "summary.json").read_text())["test_clips"] == 29
    assert (run_directory / "figures" / "attention_maps.png").exists()
    assert (run_directory.with_name("bpi_ensemble_seed0") / "subsets.csv").exists()


@pytest.mark.slow
def test_01_to_05_on_nw_ucla(tmp_path):
    zips = [os.environ.get("BPI_UCLA_ZIP", ""), ROOT / "data/NW-UCLA/all_sqe.zip"]
    raw = next((str(path) for path in zips if path and Path(path).exists()), None)
    if raw is None:
        pytest.skip("NW-UCLA's all_sqe.zip is not here: put it into data/NW-UCLA or name it in BPI_UCLA_ZIP")
    done = run_all(tmp_path, raw, SMALL, dataset="ucla")
    assert "1,484 clips (1,020 train, 464 test on xview)" in printed(done["01_prepare_data"])
