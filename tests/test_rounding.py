"""What roundings may do to logits: measured on the network, bounded below and above."""

import numpy as np
import pytest
import torch
from making import tiny_config

from bpilib.rounding import LEAST, MOST, ROUNDINGS, sample_clips, shake
from bpilib.runs import build

SUBJECTS = 2  # of `place`


@pytest.fixture
def run(place, tmp_path):
    return build(tiny_config(place, tmp_path))


def test_a_network_is_shaken_by_one_rounding_and_left_as_it_is(run):
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    shaken = shake(run.model, 0).state_dict()
    moved = 0
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        most = 1.5 * torch.finfo(torch.float32).eps * tensor.abs() if tensor.is_floating_point() else 0
        assert ((shaken[name] - tensor).abs() <= most).all(), name  # the step, and the rounding of where it leads
        moved += (shaken[name] != tensor).sum().item()
    assert moved > 0.3 * sum(tensor.numel() for tensor in before.values())
    again = shake(run.model, 0).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in shaken.items())
    assert any(not torch.equal(tensor, shaken[name]) for name, tensor in shake(run.model, 1).state_dict().items())


def test_clips_are_spread_and_the_run_is_left_as_it_was(run):
    run.model.train()
    clips = sample_clips(run)
    assert run.model.training and clips.x.shape == (8, 3, 52, 20, 1) and clips.logits.shape == (8, 10)
    last = run.feeder("test").batch([19])[0]
    assert torch.equal(clips.x[-1:], last) and clips.scale == np.ptp(clips.logits, axis=0).max()
    with torch.no_grad():
        found = run.model.eval()(clips.x).logits.numpy()
    assert np.abs(found - clips.logits).max() <= clips.noise * clips.scale


def test_noise_follows_how_far_a_network_carries_roundings(run):
    """A classifier with a large bias: logits that differ little beside their size."""
    clips = sample_clips(run)
    with torch.no_grad():
        run.model.classifier.bias += 1e3 * clips.scale
    assert clips.noise >= LEAST
    assert sample_clips(run).noise > ROUNDINGS * 1e3 * torch.finfo(torch.float32).eps / 8 > LEAST
    with torch.no_grad():
        run.model.classifier.bias *= 30
    assert sample_clips(run).noise == MOST


@pytest.mark.parametrize(("bias", "scale"), [(0, 1), (40, 40)])
def test_logits_that_are_all_the_same_have_a_scale(run, bias, scale):
    with torch.no_grad():
        run.model.classifier.weight.zero_()
        run.model.classifier.bias.fill_(bias)
    assert sample_clips(run)[2:] == (pytest.approx(scale), LEAST)


def test_logits_that_differ_by_roundings_alone_count_as_the_same(run):
    with torch.no_grad():
        run.model.classifier.bias += 1e6 * sample_clips(run).scale
    clips = sample_clips(run)
    assert np.ptp(clips.logits, axis=0).max() > 0
    assert (clips.scale, clips.noise) == (np.abs(clips.logits).max(), LEAST)


def test_logits_that_are_not_finite_are_refused(run):
    with torch.no_grad():
        run.model.classifier.bias[0] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        sample_clips(run)
