"""The study's runs whose scores come with the project: of its table, whole, with the figures that its page states."""

import json
from dataclasses import replace

import pytest
import yaml

from bpilib.analysis.results import find_results, remove_copies
from bpilib.config import Config
from bpilib.run_keys import RUN_KEYS
from bpilib.sweeps.sweep import load_sweep
from bpilib.system.files import PARAMS, PROJECT
from bpilib.train import fit

PAGE = PROJECT / "docs" / "study-ucla.md"
KEPT = PAGE.with_suffix("")
NAMES = {
    ("bpi", ""): "BPI",
    ("bpi", "even"): "BPI, even share",
    ("bpi", "no_text"): "BPI without texts",
    ("gap", ""): "GAP",
    ("ctrgcn", ""): "CTR-GCN",
}


@pytest.fixture(scope="module")
def results():
    results, left_out = find_results(KEPT)
    assert left_out.empty and results
    return results


def test_each_is_a_run_of_the_table_which_06_then_skips(results, tmp_path):
    sweep = load_sweep(PARAMS / "sweep_ucla.yaml", outputs=KEPT)
    configs = {config.run_directory: config for config in sweep.configs}
    for result in results:
        config = configs[KEPT / result.name]
        wanted = {key: value for key, value in config.result_settings().items() if key not in RUN_KEYS}
        assert json.dumps(result.settings, sort_keys=True) == json.dumps(wanted, sort_keys=True), result.name
        assert fit(replace(config, data=str(tmp_path / "none"))) == KEPT / result.name  # nothing is trained


def test_they_say_nothing_of_the_machine_s_folders_and_hold_no_weights(results):
    for result in results:
        folder = KEPT / result.name
        assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.csv", "scores.npz", "summary.json"}
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert Config.saved(saved).seed == result.seed
        assert not [value for value in saved.values() if isinstance(value, str) and value.startswith("/")]
        assert result.environment["git"]["clean"] and result.honest


def test_the_page_has_their_figures(results):
    page = PAGE.read_text(encoding="utf-8")
    for all_clips, rest in zip(results, remove_copies(results), strict=True):
        assert (len(all_clips.right), len(rest.right)) == (464, 369) and all_clips.name == rest.name
        copies = int(all_clips.right.sum() - rest.right.sum())
        row = f"| {NAMES[all_clips.model, all_clips.tag]} | {all_clips.seed} |"
        for scores in (all_clips.scores, rest.scores):
            low, high = scores.interval()
            row += f" {scores.top(1):.1f} ({low:.1f}–{high:.1f}) |"
        assert f"{row} {copies} | {all_clips.best_test:.1f} |" in page
