"""A run without a training, and its network saved."""

import pytest
import torch
from making import tiny_config

from bpilib.pretrained import save_pretrained
from bpilib.runs import build, write_or_check_config
from bpilib.system import checkpoint


@pytest.fixture(scope="module")
def make_run(place):
    """make_run(outputs, model="gap"): the configuration of a run whose network has drawn numbers everywhere."""

    def make(outputs, **changes):
        config = tiny_config(place, outputs, **changes)
        run = build(config)
        draws = torch.Generator().manual_seed(1)
        for name, tensor in run.model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=draws) - 0.5
                tensor.add_(noise.abs() if name.endswith("running_var") else 0.2 * noise)
        run.epoch = 3
        write_or_check_config(config)
        checkpoint.save(config.run_directory / "best.pt", run.content())
        return config

    return make


@pytest.fixture(scope="module")
def config(make_run, tmp_path_factory):
    """The configuration of a run of bpi."""
    return make_run(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    """Its network, saved in half precision."""
    return save_pretrained(config, tmp_path_factory.mktemp("networks") / "acted_bpi_joint", license="apache-2.0")
