"""Evenness of attention: its numbers, and that the untrained network is the one that training began with."""

import numpy as np
import pytest
import torch
from small_runs import config_of

from bpilib.analysis import evenness
from bpilib.analysis.evenness import (
    COLUMNS,
    build_untrained,
    measure_evenness,
    read_attending_runs,
    shares_of_most,
)
from bpilib.analysis.outputs import collect_outputs
from bpilib.runs import open_run
from bpilib.train import fit
from bpilib.training.trainer import Trainer


@pytest.fixture(scope="module")
def trained(place):
    config = config_of(place, place / "evenness")
    fit(config)
    return config


def test_even_attention_has_all_of_the_entropy_and_one_joint_none():
    even = np.full((2, 8, 3, 5), 0.2)
    alone = np.zeros((2, 8, 3, 5))
    alone[..., 2] = 1
    half = np.zeros((2, 8, 3, 4))
    half[..., :2] = 0.5
    found = shares_of_most({"torso": even, "arm": alone, "leg": half})
    for part, share in (("torso", 100), ("arm", 0), ("leg", 50)):
        assert found[part].shape == (2, 8)
        np.testing.assert_allclose(found[part], share, atol=1e-6)


def test_the_untrained_network_is_the_one_that_training_began_with(trained, tmp_path, place):
    run = open_run(trained)
    state = torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    fresh = build_untrained(run)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(run.model.state_dict()[name], tensor) for name, tensor in weights.items())
    trainer = Trainer(config_of(place, tmp_path))
    trainer.close()
    begun = trainer.run.model.state_dict()
    for name, parameter in fresh.model.named_parameters():
        assert torch.equal(parameter, begun[name]), name
    statistics = [name for name in begun if name.endswith("running_mean")]
    assert all((fresh.model.state_dict()[name] != begun[name]).any() for name in statistics)
    assert all(norm.momentum == 0.1 for norm in fresh.model.backbone._norms)


def test_the_table_has_a_row_a_head(trained, place):
    others = [config_of(place, place / "evenness", **more, epochs=1)
              for more in ({"model": "gap"}, {"attention": "even", "tag": "even"})]  # fmt: skip
    for config in others:
        fit(config)
    folders = [config.run_directory for config in (trained, *others)] + [trained.run_directory / "figures"]
    found = read_attending_runs(folders)
    assert [config.run_directory for config in found] == [folders[0], folders[2]], "those of bpi"
    table = measure_evenness([*found, others[0]])
    assert tuple(table.columns) == COLUMNS and len(table) == 24
    assert table["trained"].between(0, 100.001).all() and table["untrained"].between(50, 100.001).all()
    shares = shares_of_most(collect_outputs(open_run(trained)).maps)
    for part, values in shares.items():
        mine = table[table.part == part].sort_values("head")
        np.testing.assert_allclose(mine["trained"], values.mean(0), rtol=1e-6)
    assert (table["trained"] != table["untrained"]).all()


def test_attention_that_is_there_already_is_not_computed_again(trained, monkeypatch):
    whole = measure_evenness([trained])
    maps = collect_outputs(open_run(trained), "test").maps
    asked = []

    def collect(run, subset):
        asked.append(run)
        return collect_outputs(run, subset)

    monkeypatch.setattr(evenness, "collect_outputs", collect)
    found = measure_evenness([trained], collected={trained.run_directory.name: maps})
    assert len(asked) == 1  # the untrained network
    assert found.equals(whole)
