"""Settings ranked by held-out clips, from run directories as training leaves them."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from bpilib.metrics import seed_interval
from bpilib.sweeps.choosing import rank_settings
from bpilib.sweeps.sweep import load_sweep, read_states

TWO_VIEWS = """
defaults: {dataset: ucla, text: minilm, heldout_by: view}
grid:
  - {seed: [0, 1, 2], heldout_view: [2], tag: [v2]}
  - {seed: [0, 1, 2], heldout_view: [1], tag: [v1]}
  - {seed: [0, 1, 2], heldout_view: [2], yaw: [90], pitch: [30], tag: [yaw_v2]}
  - {seed: [0, 1, 2], heldout_view: [1], yaw: [90], pitch: [30], tag: [yaw_v1]}
  - {seed: [0], heldout_view: [1], label_smoothing: [0.1], tag: [smooth_v1]}
  - {seed: [0], heldout_view: [2], label_smoothing: [0.1], tag: [smooth_v2]}
"""


@pytest.fixture
def load(tmp_path):
    """Reads a table of runs from its text."""

    def read(text):
        (tmp_path / "choose.yaml").write_text(text)
        return load_sweep(tmp_path / "choose.yaml", tmp_path / "outputs")

    return read


def finish(config, heldout):
    config.run_directory.mkdir(parents=True)
    summary = {"epochs": 10, "test_top1": 99.0, "test_top5": 99.0, "heldout_top1": heldout}
    summary["settings"] = config.result_settings()
    summary["best_test_epoch_as_published"] = {"epoch": 1, "test_top1": 99.0}
    (config.run_directory / "summary.json").write_text(json.dumps(summary))


def test_settings_are_ranked_by_the_mean_of_the_views_with_the_seeds_that_have_both(load):
    table = load(TWO_VIEWS)
    heldout = [70, 72, 74, 60, 62, 64, 75, 76, 77, 66, 65, math.nan, 50, 40]  # yaw, view 1, seed 2 is not finished
    for config, top1 in zip(table.configs, heldout, strict=True):
        if top1 == top1:
            finish(config, float(top1))
    ranked = rank_settings(table)
    assert ranked.columns.tolist() == [
        "setting", "seeds", "view 2", "view 1", "mean", "sd", "gain", "by_seed", "gain_low", "gain_high",
    ]  # fmt: skip
    assert ranked["setting"].tolist() == ["pitch 30, yaw 90", "first", "label_smoothing 0.1"]
    yaw, first, smooth = ranked.to_dict("records")
    assert (yaw["seeds"], yaw["view 2"], yaw["view 1"], yaw["mean"]) == (2, 75.5, 65.5, 70.5)  # of seeds 0 and 1
    assert (yaw["gain"], yaw["by_seed"]) == (4.5, "+5.5, +3.5") and math.isnan(yaw["gain_low"])  # too few seeds
    assert (first["seeds"], first["mean"], first["sd"]) == (3, 67.0, 2.0)
    assert math.isnan(first["gain"]) and first["by_seed"] == ""
    assert (smooth["seeds"], smooth["mean"], smooth["gain"]) == (1, 45.0, -20.0) and math.isnan(smooth["sd"])


def test_three_seeds_have_an_interval(load):
    table = load(TWO_VIEWS)
    gains = np.array([1.0, 2.0, 6.0])
    for config in table.configs[:12]:
        finish(config, 70.0 + gains[config.seed] * (config.yaw == 90))
    ranked = rank_settings(table).set_index("setting")
    assert tuple(ranked.loc["pitch 30, yaw 90", ["gain_low", "gain_high"]]) == pytest.approx(seed_interval(gains))
    assert ranked.index[-1] == "label_smoothing 0.1" and ranked.loc["label_smoothing 0.1", "seeds"] == 0  # none yet


def test_nothing_finished_gives_a_row_a_setting_without_figures(load):
    ranked = rank_settings(load(TWO_VIEWS))
    assert ranked["setting"].tolist() == ["first", "pitch 30, yaw 90", "label_smoothing 0.1"]
    assert (ranked["seeds"] == 0).all() and ranked["mean"].isna().all()


def test_networks_and_shares_of_subjects_are_told_apart(load):
    table = load(
        "defaults: {dataset: ucla, text: minilm, heldout_by: subject}\n"
        "runs: [{}, {model: ctrgcn}, {heldout: 0.5, tag: half}, {model: ctrgcn, heldout: 0.5, tag: half}]\n"
    )
    for config, top1 in zip(table.configs, (70.0, 60.0, 50.0, 48.0), strict=True):
        finish(config, top1)
    ranked = rank_settings(table)
    assert ranked[["20 % of the subjects", "50 % of the subjects"]].to_numpy().tolist() == [[70, 50], [60, 48]]
    assert ranked["setting"][0] == "first" and ranked["setting"][1].startswith("model ctrgcn")


def test_only_runs_that_keep_clips_and_the_last_epoch_of_one_data_set_serve_to_choose(load):
    kept = "{dataset: ucla, heldout_by: view}"
    assert load(f"runs: [{kept}, {{dataset: ucla, model: ctrgcn, heldout_by: subject}}]").for_choosing
    for other in (
        "{dataset: ucla, seed: 1}",
        "{dataset: ucla, select: heldout, seed: 1}",
        "{dataset: synthetic, heldout_by: subject}",
    ):
        assert not load(f"defaults: {{text: minilm}}\nruns: [{kept}, {other}]").for_choosing


def test_the_table_of_states_shows_held_out_accuracy_and_not_test_accuracy(load):
    table = load(TWO_VIEWS)
    config = table.configs[0]
    config.run_directory.mkdir(parents=True)
    rows = pd.DataFrame({"epoch": [1, 2], "test_top1": [80.0, 90.0], "heldout_top1": [50.0, 55.0]})
    rows.to_csv(config.run_directory / "metrics.csv", index=False)
    states = read_states(table)
    assert states["heldout_top1"][0] == 55.0 and "test_top1" not in states


def test_the_shipped_table_judges_each_candidate_by_both_views(tmp_path):
    table = load_sweep("params/sweep_ucla_heldout.yaml", tmp_path)
    assert table.for_choosing
    ranked = rank_settings(table)
    per_setting = len(table.configs) / len(ranked)
    assert per_setting == 6 and {"view 1", "view 2"} <= set(ranked)  # three seeds, two views
