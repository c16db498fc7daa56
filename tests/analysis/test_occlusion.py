"""Occlusion: what is taken out, what stays, the fall of each logit, intervals; and where the logits come from."""

import numpy as np
import pytest
import torch

from bpilib.analysis.occlusion import (
    average_drops_by_class,
    collect_drops,
    compute_drops,
    cut_stretches,
    occlude,
    spread_clips,
)  # fmt: skip
from bpilib.losses import skeleton_text_loss
from bpilib.metrics import bootstrap_means
from bpilib.model import CTRGCNClassifier, build_model
from bpilib.skeleton import NTU, UCLA


def clips(skeleton=UCLA, persons=1, n=3):
    return torch.randn(n, 3, skeleton.window, skeleton.num_joints, persons, generator=torch.Generator().manual_seed(0))


def test_a_frozen_joint_stays_at_its_mean_place_and_all_else_as_it_was():
    x = clips(NTU, 2)
    out = occlude(x, (3, 7), slice(8, 24))
    chosen = x[:, :, 8:24, [3, 7]]
    torch.testing.assert_close(out[:, :, 8:24, [3, 7]], chosen.mean(2, keepdim=True).expand_as(chosen))
    same = torch.ones(x.shape, dtype=bool)
    same[:, :, 8:24, [3, 7]] = False
    assert torch.equal(out[same], x[same]) and not torch.equal(out, x)


def test_the_average_is_put_where_somebody_is():
    x = clips(NTU, 2)
    x[1, ..., 1] = 0
    average = torch.full(x.shape[1:], 5.0)
    out = occlude(x, range(25), slice(0, 64), average)
    assert (out[0] == 5).all() and (out[1, ..., 0] == 5).all() and (out[1, ..., 1] == 0).all()


def test_stretches_cover_the_window_once():
    for window in (52, 64, 3):
        frames = [frame for stretch in cut_stretches(window) for frame in range(window)[stretch]]
        assert frames == list(range(window))
    assert len(cut_stretches(52)) == 8


def test_drops_by_hand():
    """Of a network that is a sum over one joint and over one stretch of time."""

    def network(x):
        moved = (x - x.mean(2, keepdim=True)).abs()
        return torch.stack([moved[:, :, :, 5].sum((1, 2, 3)), x[:, 0, :7].abs().sum((1, 2, 3))], 1)

    x = clips()
    drops = compute_drops(network, x, UCLA)
    assert [values.shape for values in drops] == [(3, 20, 2), (3, 3, 2), (3, 8, 2)]
    whole = network(x).numpy()
    np.testing.assert_allclose(drops.joints[:, 5, 0], whole[:, 0], rtol=1e-4)  # nothing is left of its movement
    np.testing.assert_array_equal(np.delete(drops.joints[..., 0], 5, 1), 0)
    holds = [5 in joints for joints in UCLA.parts().values()]
    assert [bool(np.abs(drops.parts[:, p, 0]).max() > 1) for p in range(3)] == holds
    own = drops.of_class(np.array([0, 1, 0]))
    np.testing.assert_array_equal(own.joints[:, 5], drops.joints[[0, 1, 2], 5, [0, 1, 0]])
    gone = x.clone()
    gone[:, :, 0:6] = x[:, :, 0:6].mean(2, keepdim=True)  # 52 frames in 8: the first stretch has 6
    assert cut_stretches(52)[0] == slice(0, 6)
    np.testing.assert_allclose(drops.time[:, 0], (network(x) - network(gone)).numpy(), rtol=1e-4, atol=1e-4)


def test_intervals_hold_the_mean_and_grow_with_the_spread():
    draw = np.random.default_rng(0)
    labels = np.array([0] * 40 + [1] * 2 + [3])
    drops = draw.normal(2, 1, (43, 4))
    found = average_drops_by_class(drops, labels, 4)
    assert found.shape == (4, 4, 3) and np.isnan(found[2]).all() and np.isnan(found[3, :, 1:]).all()
    np.testing.assert_allclose(found[3, :, 0], drops[-1])
    mean, low, high = np.moveaxis(found[0], -1, 0)
    np.testing.assert_allclose(mean, drops[:40].mean(0))
    expected = 1.96 * drops[:40].std(0) / 40**0.5
    np.testing.assert_allclose(high - low, 2 * expected, rtol=0.2)
    assert (bootstrap_means(3 * drops)[:, 2] - 3 * drops.mean(0) > bootstrap_means(drops)[:, 2] - drops.mean(0)).all()


def test_clips_are_spread_over_classes():
    labels = np.array([0] * 10 + [1] * 2 + [2] * 10)
    assert spread_clips(labels, 9).tolist() == [0, 3, 6, 10, 11, 12, 15, 18]  # and over the clips of each
    assert spread_clips(labels, 1).tolist() == [0, 10, 12]
    assert spread_clips(labels, 100).tolist() == list(range(22))
    assert not len(spread_clips(labels[:0], 9))


def perturbed(model):
    """The network with random part heads."""
    with torch.no_grad():
        for value in model.part_heads.parameters():
            value.normal_()
    return model


@pytest.mark.parametrize("name", ["gap", "bpi"])
def test_attention_and_part_heads_never_reach_the_logits(name):
    torch.manual_seed(0)
    model = build_model(name, UCLA, 5, embed_dim=16, width=8).eval()
    x = clips()
    before = model(x)
    after = perturbed(model)(x)
    assert torch.equal(before.logits, after.logits)
    assert not torch.allclose(before.part_embeddings, after.part_embeddings)
    assert torch.equal(CTRGCNClassifier.forward(model, x).logits, before.logits)  # the path without part heads
    model(x).logits.square().sum().backward()
    assert all(value.grad is None for value in model.part_heads.parameters())
    assert model.classifier.weight.grad.abs().sum() > 0


def test_part_heads_learn_from_the_texts_alone():
    torch.manual_seed(0)
    model = build_model("bpi", UCLA, 5, embed_dim=16, width=8).train()
    labels = torch.tensor([0, 1, 2])
    loss = skeleton_text_loss(model(clips()), torch.randn(4, 3, 16), labels)
    for which, reached in (("cross_entropy", False), ("contrastive", True)):
        model.zero_grad()
        value = getattr(loss, which)
        value.sum().backward(retain_graph=True)
        grads = [parameter.grad for parameter in model.part_heads.parameters()]
        assert any(grad is not None and grad.abs().sum() > 0 for grad in grads) == reached


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown way to occlude 'gone': expected one of frozen, average"):
        collect_drops(None, [0], "gone")
    with pytest.raises(ValueError, match="no clips to occlude"):
        collect_drops(None, [])
