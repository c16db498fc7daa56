"""What a network returns for clips in no store is what it returns for the same clips of a store."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bpilib.analysis.clip_outputs import check_skeleton, compute_clip_outputs
from bpilib.analysis.outputs import collect_outputs
from bpilib.classify import Classifier
from bpilib.config import resolve
from bpilib.data.store import Clip, StoreWriter
from bpilib.model import build_model
from bpilib.runs import Run
from bpilib.skeleton import NTU, UCLA


def clips_of(skeleton, count=5):
    rng = np.random.default_rng(1)
    out = []
    for number in range(count):
        poses = rng.normal(size=(20 + 7 * number, skeleton.persons, skeleton.num_joints, 3)).cumsum(0) / 10
        if number % 2 and skeleton.persons > 1:
            poses[:, 1] = 0
        out.append(poses.astype(np.float32))
    return out


def run_of(tmp_path, skeleton, model, modality="joint", dataset="mine"):
    with StoreWriter(tmp_path / "store", dataset, skeleton, ["a", "b", "c"]) as writer:
        for number, poses in enumerate(clips_of(skeleton)):
            writer.add(Clip(f"clip{number}", poses, number % 3))
        store = writer.finish({"split": {"train": np.arange(1), "test": np.arange(5)}}, {})
    torch.manual_seed(0)
    network = build_model(model, skeleton, 3, modality, store.persons, embed_dim=16, width=8).eval()
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1 * torch.randn_like(value)
    given = {"model": model, "modality": modality, "test_batch_size": 2, "text": "none", "device": "cpu"}
    config = resolve(dataset=dataset, data=str(tmp_path / "store"), benchmark="split", **given)
    return Run(config, store, network, None, "", torch.device("cpu"))


@pytest.mark.parametrize(
    ("skeleton", "model", "modality"),
    [(NTU, "bpi", "joint"), (NTU, "gap", "joint"), (NTU, "ctrgcn", "bone"), (UCLA, "bpi", "bone")],
    ids=lambda value: getattr(value, "name", value),
)
def test_clips_without_a_store_give_what_those_of_the_store_give(tmp_path, skeleton, model, modality):
    run = run_of(tmp_path, skeleton, model, modality)
    found = compute_clip_outputs(run, clips_of(skeleton))
    assert found.probabilities.shape == (5, 3) and found.activation.shape[0] == 5 and found.frames.shape[0] == 5
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    for number, poses in enumerate(clips_of(skeleton)):
        np.testing.assert_allclose(
            Classifier.of(run).classify(poses), found.probabilities[number], rtol=1e-3, atol=1e-5
        )
    assert (found.frames >= 0).all() and (found.frames.max(1) < [20, 27, 34, 41, 48]).all()
    if model == "ctrgcn":
        assert found.maps == {}
        return
    seen = collect_outputs(run, activation=True)
    for part in seen.maps:
        np.testing.assert_allclose(found.maps[part], seen.maps[part], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.activation, seen.activation[:, 1], rtol=1e-3, atol=1e-5)
    assert found.joints == seen.joints


def test_one_person_alone_is_doubled_for_ntu120_as_its_clips_are(tmp_path):
    run = run_of(tmp_path, NTU, "bpi", dataset="mine")
    clip = clips_of(NTU)[0][:, :1]
    run.config = run.config.changed(dataset="ntu120")
    alone = compute_clip_outputs(run, [clip])
    both = compute_clip_outputs(run, [np.concatenate([clip, clip], 1)])
    np.testing.assert_array_equal(alone.probabilities, both.probabilities)
    run.config = run.config.changed(dataset="ntu60")
    assert np.abs(compute_clip_outputs(run, [clip]).activation - alone.activation).max() > 1e-3


def test_another_skeleton_is_refused(tmp_path):
    run = run_of(tmp_path, NTU, "bpi")
    with pytest.raises(ValueError, match=r"expected clips \(L, M, 25, 3\)"):
        compute_clip_outputs(run, clips_of(UCLA))
    with pytest.raises(ValueError, match="at least one clip"):
        compute_clip_outputs(run, [])
    other = SimpleNamespace(store=SimpleNamespace(skeleton=UCLA), config=SimpleNamespace(dataset="ucla"))
    with pytest.raises(ValueError, match="got one of ucla, whose bodies have 20"):
        check_skeleton(other, NTU)
    check_skeleton(run, NTU)
