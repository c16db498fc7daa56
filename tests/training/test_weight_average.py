"""The moving average of weights: its numbers, what keeps it, and that a stopped run goes on with it."""

import signal

import numpy as np
import pytest
import torch
from small_runs import assert_same_run, config_of

from bpilib.evaluate import Scores
from bpilib.model import build_model
from bpilib.runs import build, kept_weights, open_run
from bpilib.skeleton import UCLA
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training.weight_average import WeightAverage


def test_it_is_the_moving_average_of_weights_and_statistics():
    torch.manual_seed(0)
    model = build_model("bpi", UCLA, 3, width=8, embed_dim=8).double()
    average = WeightAverage(model, 0.5)
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 20):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.normal_()
        average.update(step)
        decay = min(0.5, step / (step + 9))
        for name, tensor in model.state_dict().items():
            wanted[name] = decay * wanted[name] + (1 - decay) * tensor
    got = average.network.state_dict()
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name].double(), tensor.double(), rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def averaged(place):
    config = config_of(place, place / "averaged", weight_average=0.9)
    fit(config)
    return config


def test_best_holds_the_average_and_last_both(averaged, place):
    folder = averaged.run_directory
    best, last = (checkpoint.load(folder / f"{name}.pt") for name in ("best", "last"))
    assert best["epoch"] == last["epoch"]
    for name, tensor in best["model"].items():
        assert torch.equal(tensor, kept_weights(last)[name])
    assert any(not torch.equal(last["model"][name], tensor) for name, tensor in best["model"].items())
    plain = build(config_of(place, place / "plain"))
    assert kept_weights(plain.content()).keys() == best["model"].keys()


def test_the_scores_are_the_average_s_and_a_lost_best_changes_nothing(averaged):
    folder = averaged.run_directory
    wanted = open_run(averaged).model.state_dict()
    (folder / "best.pt").rename(folder / "kept")
    (folder / "best.pt").write_bytes(b"damaged")
    try:
        with pytest.warns(UserWarning):
            got = open_run(averaged).model.state_dict()
    finally:
        (folder / "kept").replace(folder / "best.pt")
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("step", [1, 6])
def test_a_stopped_run_goes_on_bit_for_bit(averaged, place, tmp_path, at_step, step):
    at_step(step, lambda: signal.raise_signal(signal.SIGINT))
    config = config_of(place, tmp_path, weight_average=0.9)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    assert checkpoint.load(config.run_directory / "last.pt")["progress"]["batch"] == step % 5 + 1
    fit(config)
    assert_same_run(config.run_directory, averaged.run_directory)
    a, b = (checkpoint.load(c.run_directory / "last.pt")["average"] for c in (config, averaged))
    assert all(torch.equal(a[name], tensor) for name, tensor in b.items())


def test_without_it_scores_differ(averaged, place, tmp_path):
    plain = config_of(place, tmp_path)
    fit(plain)
    a, b = (Scores.load(config.run_directory / "scores.npz").logits for config in (plain, averaged))
    assert np.isfinite(b).all() and (a != b).any()
