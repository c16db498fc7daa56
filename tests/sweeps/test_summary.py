"""Results over seeds, from run directories as training leaves them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bpilib.evaluate import Scores
from bpilib.runs import write_or_check_config
from bpilib.sweeps import sweep
from bpilib.sweeps.summary import combine_streams, format_for_paper, read_results, summarise

CLASSES = ["stand", "walk"]


@pytest.fixture
def table(tmp_path):
    """Two modalities with seeds 0 and 1 of bpi, of which bone's seed 1 has not finished; one ctrgcn."""
    path = tmp_path / "table.yaml"
    path.write_text(
        "defaults: {dataset: synthetic, text: minilm}\n"
        "grid: {modality: [bone, joint], seed: [0, 1]}\n"
        "runs: [{model: ctrgcn}]\n"
    )
    return sweep.load_sweep(path, tmp_path / "outputs")


def finish(config, right, best=90.0):
    """A finished run: of ten clips of class 0, so many are recognised, with logit 1; the others miss by 0.5."""
    logits = np.zeros((10, 2), np.float32)
    logits[:right, 0], logits[right:, 1] = 1, 0.5
    names = np.array([f"clip{i}" for i in range(10)])
    config.run_directory.mkdir(parents=True)
    Scores(logits, np.zeros(10, int), names, CLASSES).save(config.run_directory / "scores.npz")
    summary = {
        "settings": config.result_settings(),
        "epochs": 10,
        "test_top1": 10.0 * right,
        "test_top5": 100.0,
        "best_test_epoch_as_published": {"epoch": 1, "test_top1": best},
    }
    (config.run_directory / "summary.json").write_text(json.dumps(summary))


def test_means_and_deviations_over_seeds_and_ensembles(table):
    bone0, _, joint0, joint1, ctrgcn = table.configs
    for config, right, best in ((bone0, 3, 50.0), (joint0, 6, 70.0), (joint1, 8, 90.0), (ctrgcn, 5, 60.0)):
        finish(config, right, best)
    runs, sums = read_results(table), combine_streams(table)
    assert runs["top1"].tolist() == [30, 60, 80, 50]
    assert runs["seed"].tolist() == [0, 0, 1, 0]
    # only seed 0 has both; where joint (weight 1) is right with 1 and bone (0.79) wrong with 0.5, joint wins
    assert sums[["model", "modality", "seed", "top1", "weights", "origin"]].to_numpy().tolist() == [
        ["bpi", "joint + bone", 0, 60.0, "1, 0.79", "published"]
    ]
    assert sums["low"][0] < 60 < sums["high"][0]
    summary = summarise(runs, sums).set_index(["model", "modality"])
    assert list(summary["n"].items()) == [
        (("bpi", "bone"), 1),
        (("bpi", "joint"), 2),
        (("bpi", "joint + bone"), 1),
        (("ctrgcn", "joint"), 1),
    ]
    joint = summary.loc[("bpi", "joint")]
    assert joint["mean"] == 70 and joint["std"] == pytest.approx(math.sqrt(200))  # n - 1 in the denominator
    assert joint["best_test_epoch_as_published"] == 80
    assert math.isnan(summary.loc[("bpi", "bone"), "std"])
    assert math.isnan(summary.loc[("bpi", "joint + bone"), "best_test_epoch_as_published"])


def test_other_weights_are_passed_on(table):
    for config in table.configs[::2]:
        finish(config, 5)
    assert combine_streams(table, "equal")["weights"].tolist() == ["1, 1"]
    with pytest.raises(ValueError, match="no held-out scores"):
        combine_streams(table, "searched")


def test_accuracies_without_copies_are_beside_the_others_where_there_are_copies(table):
    assert "top1_without_copies" not in read_results(table)
    bone0, _, joint0, *_ = table.configs
    for config, right in ((bone0, 3), (joint0, 6)):
        finish(config, right)
        scores = Scores.load(config.run_directory / "scores.npz")
        replace(scores, copies=np.arange(10) < 2).save(config.run_directory / "scores.npz")
        path = config.run_directory / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"test_top1_without_copies": 100 * (right - 2) / 8}))
    runs, sums = read_results(table), combine_streams(table)
    assert runs["top1_without_copies"].tolist() == [12.5, 50.0]
    assert sums["top1_without_copies"].tolist() == [50.0]
    summary = summarise(runs, sums)
    assert summary["mean_without_copies"].tolist() == [12.5, 50.0, 50.0] and summary["std_without_copies"].isna().all()
    assert format_for_paper(summary)["Without copies (%)"].tolist() == ["12.50", "50.00", "50.00"]


@pytest.mark.parametrize(
    ("content", "said"), [("{", "damaged"), ("{}", "lacks 'best_test_epoch"), (None, r"other settings \(lr: 0.9 there")]
)
def test_a_bad_run_is_named_and_the_others_are_read(table, content, said):
    bone0, _, joint0, joint1, _ = table.configs
    for config in (bone0, joint0, joint1):
        finish(config, 5)
    path = joint1.run_directory / "summary.json"
    if content:
        write_or_check_config(joint1)
        path.write_text(content)
    else:  # without a config.yaml
        settings = {"settings": joint1.result_settings() | {"lr": 0.9}}
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.warns(UserWarning, match=rf"joint_seed1.*{said}"):
        assert read_results(table)["modality"].tolist() == ["bone", "joint"]
    (bone0.run_directory / "scores.npz").write_bytes(b"cut")
    with pytest.warns(UserWarning, match=r"an ensemble is left out .*bone_seed0/scores\.npz is damaged"):
        assert combine_streams(table).empty


def test_nothing_finished_gives_empty_tables(table):
    assert len(summarise(read_results(table), combine_streams(table))) == 0
