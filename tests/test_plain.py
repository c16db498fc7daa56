"""The plain implementation that ours is measured against computes the same, or the measurements mean nothing."""

import random
import sys

import numpy as np
import pytest
import torch
from noise import in_float64

from bpilib.data.store import Clip, StoreWriter
from bpilib.losses import skeleton_text_loss
from bpilib.model import build_model
from bpilib.reference import load_reference_weights
from bpilib.skeleton import NTU, SKELETONS, UCLA
from bpilib.system.files import PROJECT

sys.path.insert(0, str(PROJECT / "benchmarks"))
from plain import PlainNetwork, plain_batch

STEPS = 50


@pytest.mark.parametrize("case", ["bpi_joint_ntu", "bpi_joint_ucla", "gap_joint_ntu", "ctrgcn_ntu"])
def test_it_equals_the_published_network(case, published, golden):
    meta, state, x, _ = published(case)
    skeleton, persons = SKELETONS[meta["skeleton"]], meta["persons"]
    model = build_model(case.split("_")[0], skeleton, meta["num_classes"], num_persons=persons)
    load_reference_weights(model, state)
    with torch.no_grad(), in_float64():
        out = PlainNetwork(model).eval().double()(x.double())
    for field, theirs in golden(case).items():
        if field != "logit_scale":
            difference = np.abs(theirs[0] - theirs[1]).max()
            # What the published float32 rounds is up to 1.2e-5 of what sets the two clips apart; float64 nothing.
            assert np.abs(getattr(out, field).numpy() - theirs).max() <= 1.5e-5 * difference, field


def curve(network, batches):
    """Losses of STEPS training steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    losses = []
    for step in range(STEPS):
        x, labels, texts = batches[step % len(batches)]
        loss = skeleton_text_loss(network(x), texts[:, labels], labels).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.slow
def test_training_curves_agree_within_float_noise(monkeypatch):
    """In float64, where noise has room to grow: in float32 it decides over maxima that lie near each other."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    torch.manual_seed(0)
    model = build_model("bpi", UCLA, 5, embed_dim=16, width=8)
    texts = torch.randn(4, 5, 16).double()
    batches = [(torch.randn(10, 3, 12, 20, 1).double(), torch.arange(10) % 5, texts) for _ in range(3)]
    plain, shaken = PlainNetwork(model).double(), PlainNetwork(model).double()
    with torch.no_grad():
        for parameter in shaken.parameters():
            parameter.mul_(1 + 1e-16 * torch.randn_like(parameter).sign())
    ours, theirs, noise = (curve(network.train(), batches) for network in (model.double(), plain, shaken))
    assert theirs[-1] < 0.5 * theirs[0]  # it learns
    assert np.abs(ours - theirs).max() < 1e-9
    assert np.abs(ours - theirs).max() < 100 * np.abs(noise - theirs).max()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    made = {}
    for skeleton in (NTU, UCLA):
        draw = np.random.default_rng(0)
        folder = tmp_path_factory.mktemp("plain") / skeleton.name
        with StoreWriter(folder, "made", skeleton, ["a", "b"]) as writer:
            for i in range(4):
                shape = (30 + 40 * i, skeleton.persons, skeleton.num_joints, 3)
                writer.add(Clip(f"c{i}", draw.normal(size=shape).astype(np.float32), i % 2))
            made[skeleton.name] = writer.finish({"all": {"train": np.arange(4)}}, {"name": "made"})
    return made


@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda skeleton: skeleton.name)
def test_its_feeder_keeps_what_the_published_one_keeps(stores, skeleton):
    store = stores[skeleton.name]
    random.seed(0), np.random.seed(0)
    x, labels = plain_batch(store, np.array([3, 0, 1]))
    assert x.shape == (3, 3, skeleton.window, skeleton.num_joints, skeleton.persons)
    assert x.dtype == torch.float32 and labels.tolist() == [1, 0, 1]
    bones = plain_batch(store, np.array([3, 0, 1]), "bone")[0]
    root = [v for v in range(skeleton.num_joints) if v not in {child for child, _ in skeleton.bones}]
    assert not bones[:, :, :, root].any() and bones.any()
    if skeleton is UCLA:
        assert x.amin((2, 3, 4)).allclose(torch.tensor(-1.0), atol=0.3) and x.abs().max() <= 1 + 1e-6
    else:  # a turn keeps distances; the shortest clip is cropped as a whole or by half, then stretched
        poses = torch.from_numpy(store.sample(0).copy()).double()  # (30, 2, 25, 3)
        source = ((torch.arange(64) + 0.5) * 30 / 64 - 0.5).clamp(0, 29)
        low = source.long()
        near = torch.lerp(poses[low], poses[(low + 1).clamp(max=29)], (source - low)[:, None, None, None].double())
        apart = (near - near[:, :, :1]).norm(dim=-1)
        got = x[1].double().permute(1, 3, 2, 0)  # (T, M, V, C)
        assert (got - got[:, :, :1]).norm(dim=-1).allclose(apart, atol=1e-4)
