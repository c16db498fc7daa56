"""A training is estimated from a few steps that leave nothing behind, and is the same with and without them."""

import random
import shutil

import numpy as np
import pytest
import torch
from small_runs import assert_same_run, config_of

from bpilib.train import fit
from bpilib.training import estimate as estimates
from bpilib.training.estimate import Estimate, Speed, Trial, describe, describe_all, estimate, estimate_all, say_time

SLOW = Trial(1000, 100, Speed(2.0, 10.0, 1.25, 8.0, "fp32"))


def test_a_run_is_bit_for_bit_the_same_after_an_estimate(place, tmp_path):
    plain, asked = (config_of(place, tmp_path / name) for name in ("plain", "asked"))
    fit(plain)
    expected = estimate(asked)
    assert (expected.epochs, expected.evaluations) == (2, 2)
    assert expected.trial.clips == 20 and expected.trial.speed.training > 0 and expected.trial.speed.evaluation > 0
    assert not asked.run_directory.exists()
    fit(asked)
    assert_same_run(asked.run_directory, plain.run_directory)
    assert estimate(asked).trial is None
    assert describe(asked, estimate(asked)) == "all epochs are done: nothing to train"
    (asked.run_directory / "summary.json").unlink()
    metrics = asked.run_directory / "metrics.csv"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:2]) + "\n")  # after the first epoch
    assert estimate(asked)[:2] == (1, 1)
    shutil.rmtree(asked.run_directory)


def test_random_states_are_as_before(place, tmp_path):
    draws = []
    for ask in (False, True):
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        if ask:
            estimate(config_of(place, tmp_path))
        draws.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_runs_that_go_equally_fast_are_tried_once(place, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(estimates, "_try", lambda config: tried.append(config.width) or SLOW)
    several = [config_of(place, tmp_path, seed=seed, width=width) for seed in (0, 1, 2) for width in (8, 16)]
    found = estimate_all(several)
    assert tried == [8, 16] and len(found) == 6
    assert describe_all(several, found, 2).startswith("6 of 6 runs to train: about ")


def test_a_long_one_is_said_with_what_to_change(place, tmp_path):
    config = config_of(place, tmp_path, epochs=100, repeats=5)
    expected = Estimate(100, 50, SLOW)
    assert expected.seconds == 100 * 1000 / 2 + 50 * 100 / 10
    said = describe(config, expected)
    assert "about 14.0 hours on this machine: 100 epochs of 1,000 clips at 2 clips/s (fp32)" in said
    assert "memory 1.2 of 8.0 GB" in said
    for way in ("precision='bf16' (now fp32)", "fewer repeats (now 5)", "fewer epochs (now 100)", "set a tag"):
        assert way in said
    assert "that is long" not in describe(config, expected._replace(epochs=1))
    table = describe_all([config] * 3, [expected, expected, Estimate(0, 0, None)], 2)
    assert table.startswith("2 of 3 runs to train: about 28.1 hours one after the other, 14.0 hours with 2 at a time")
    assert "that is long" in table
    assert describe_all([config], [Estimate(0, 0, None)], 2) == "all 1 runs are done"


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "2 seconds"), (40, "40 seconds"), (720, "12 minutes"),
                                               (13680, "3.8 hours")])  # fmt: skip
def test_times_in_words(seconds, said):
    assert say_time(seconds) == said
