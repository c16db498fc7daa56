"""Class activation: contributions and bias are the logit, for every model; steps and the clip's frames."""

import numpy as np
import pytest
import torch
from noise import in_float64

from bpilib.analysis.activation import compute_class_activation, locate_frames, record_features
from bpilib.feeders import Feeder
from bpilib.model import build_model
from bpilib.skeleton import NTU, UCLA


def test_contributions_by_hand():
    classifier = torch.nn.Linear(2, 3)
    features = torch.arange(2 * 1 * 2 * 2 * 2).float().view(2, 1, 2, 2, 2)  # (N, M, C, S, V)
    found = compute_class_activation(features, classifier, torch.tensor([2, 0]))
    assert found.shape == (2, 1, 2, 2)
    for n, k in ((0, 2), (1, 0)):
        weight = classifier.weight[k]
        expected = (weight[0] * features[n, 0, 0, 1, 0] + weight[1] * features[n, 0, 1, 1, 0]) / 4
        torch.testing.assert_close(found[n, 0, 1, 0], expected)


@pytest.mark.parametrize(("skeleton", "persons"), [(UCLA, 1), (NTU, 2)], ids=["ucla", "ntu"])
@pytest.mark.parametrize("name", ["ctrgcn", "gap", "bpi"])
@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_contributions_and_bias_are_the_logit(name, modality, skeleton, persons):
    torch.manual_seed(0)
    model = build_model(name, skeleton, 7, modality, persons, embed_dim=16, width=8).eval()
    with torch.no_grad(), in_float64():
        for value in model.parameters():
            value += 0.1 * torch.randn_like(value)
        model.double()
        x = torch.randn(3, 3, skeleton.window, skeleton.num_joints, persons, dtype=torch.float64)
        model.classifier.weight *= 10 / model(x).logits.abs().max()  # logits as large as trained ones
        with record_features(model.backbone) as seen:
            logits = model(x).logits
        for k in range(7):
            parts = compute_class_activation(seen[0], model.classifier, torch.full((3,), k))
            assert parts.shape == (3, persons, skeleton.window // 4, skeleton.num_joints)
            assert parts.std() > 0
            sums = parts.sum((1, 2, 3)) + model.classifier.bias[k]
            torch.testing.assert_close(sums, logits[:, k], rtol=0, atol=1e-10)


def test_nothing_is_watched_after_the_block():
    backbone = torch.nn.Linear(2, 2)
    with record_features(backbone) as seen:
        backbone(torch.zeros(1, 2))
    backbone(torch.ones(1, 2))
    assert len(seen) == 1
    with pytest.raises(RuntimeError, match="stopped"), record_features(backbone):
        raise RuntimeError("stopped")
    assert not backbone._forward_hooks


def test_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match="features of 4 channels"):
        compute_class_activation(torch.zeros(2, 1, 3, 5, 6), torch.nn.Linear(4, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected \(2,\) classes"):
        compute_class_activation(torch.zeros(2, 1, 4, 5, 6), torch.nn.Linear(4, 3), torch.zeros(3, dtype=torch.int64))


def numbered(skeleton, lengths):
    """Clips whose every coordinate grows with the frame: what the feeder returns says which frame it took."""
    shape = (1, skeleton.num_joints, 3)
    return [np.broadcast_to(np.arange(1, n + 1)[:, None, None, None], (n, *shape)).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("length", [1, 2, 20, 64, 201])
def test_steps_are_about_the_frames_that_the_feeder_takes(make_store, length):
    for skeleton in (UCLA, NTU):
        store = make_store(skeleton, numbered(skeleton, [7, length]))
        x, _ = Feeder(store, np.array([1])).batch([0])
        taken = x[0, 0, :, 0, 0].numpy()
        if skeleton is UCLA:  # normalised to -1 ... 1 over the clip
            taken = 1 + (taken + 1) / 2 * (length - 1)
        window = len(taken)
        found = locate_frames(store, 1, window, window // 4)
        assert found.shape == (window // 4,) and found.dtype == np.int64
        middles = taken.reshape(-1, 4)[:, 1:3].mean(1) - 1  # between the step's second and third frame
        np.testing.assert_allclose(found, middles, atol=0.51)  # a whole frame is named
        assert 0 <= found.min() <= found.max() < length
