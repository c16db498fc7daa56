"""The paths that outside code relies on: each is imported as documented, and called once on small data."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from making import tiny_config


@pytest.fixture(scope="module")
def run_config(place):
    """A tiny run of bpi, trained once."""
    from bpilib.train import fit

    config = tiny_config(place, place / "outputs", epochs=1)
    folder = fit(config)
    assert folder == config.run_directory
    return config


def test_skeletons():
    from bpilib.skeleton import NTU, UCLA

    for skeleton, joints in ((NTU, 25), (UCLA, 20)):
        assert len(skeleton.joints) == joints and len(skeleton.bones) == joints - 1
        assert set(skeleton.parts("joint")) == {"torso", "arm", "leg"}
        assert skeleton.adjacency().shape == (3, joints, joints)
        assert skeleton.bone_operator(1).shape == (joints, joints)


@pytest.mark.parametrize("name", ["ctrgcn", "gap", "bpi"])
def test_networks_losses_and_weights(name, published):
    from bpilib.losses import skeleton_text_loss
    from bpilib.model import build_model
    from bpilib.reference import load_reference_weights
    from bpilib.skeleton import NTU

    model = build_model(name, skeleton=NTU, num_classes=7, modality="joint", num_persons=2, embed_dim=512).eval()
    x = torch.randn(2, 3, 64, 25, 2, generator=torch.Generator().manual_seed(0))
    out = model(x)
    assert out.logits.shape == (2, 7)
    if name == "ctrgcn":
        assert out.global_embedding is None and out.part_embeddings is None and out.logit_scale is None
        texts = None
    else:
        parts = {"gap": 4, "bpi": 3}[name]
        assert out.global_embedding.shape == (2, 512) and out.part_embeddings.shape == (2, parts, 512)
        assert out.logit_scale.shape == (1 + parts,)
        texts = torch.randn(1 + parts, 2, 512)
    loss = skeleton_text_loss(out, texts, torch.tensor([1, 2]), alpha=0.8)
    assert torch.isfinite(loss.total) and torch.isfinite(loss.cross_entropy)
    assert loss.contrastive.shape == (0 if texts is None else len(texts),)
    if name == "bpi":
        attended = model(x, return_attention=True)
        assert set(attended.attention) == set(model.attention_joints) == {"torso", "arm", "leg"}
        for part, (query, key) in model.attention_joints.items():
            assert attended.attention[part].shape == (2, 8, len(query), len(key))
        meta, state, *_ = published("bpi_joint_ntu")
        whole = build_model("bpi", NTU, meta["num_classes"], "joint", meta["persons"])
        load_reference_weights(whole, state)


def test_preparation_store_and_feeder(place):
    from bpilib.data import SkeletonStore, prepare
    from bpilib.feeders import Feeder

    store = prepare("synthetic", raw=place / "raw", out=place / "store", progress=False, subjects=1, episodes=1)
    store = SkeletonStore.open(place / "store")
    train = store.split("xview", "train")
    assert train.dtype == np.int64 and len(store.names) == len(store.labels) == len(store) and store.classes
    frames, persons, joints, axes = store.sample(int(train[0])).shape
    assert frames > 0 and (persons, joints, axes) == (1, 20, 3) and store.sample(0).dtype == np.float32
    feeder = Feeder(store, train, modality="bone", window=52, train=False, device="cpu", seed=0)
    x, y = feeder.batch([0, 1, 2])
    assert x.shape == (3, 3, 52, 20, 1) and x.dtype == torch.float32
    assert y.dtype == torch.int64 and y.tolist() == store.labels[train[:3]].tolist()


def test_configurations_training_evaluation_and_ensembles(place, run_config):
    from bpilib.config import resolve
    from bpilib.evaluate import Scores, ensemble, evaluate

    assert resolve(dataset="ucla", model="bpi", modality="joint", epochs=2).epochs == 2
    names = {path.name for path in run_config.run_directory.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.csv", "tensorboard", "scores.npz", "summary.json"} <= names
    scores = evaluate(run_config)
    assert isinstance(scores, Scores) and 0 <= scores.top(1) <= 100
    both = ensemble({"joint": scores, "bone": scores}, "bpi", "equal")
    assert both.scores.top(1) == scores.top(1)


def test_single_clips(place, run_config):
    from bpilib.classify import Classifier
    from bpilib.classify import read_clip as from_readme
    from bpilib.data.clip_file import read_clip
    from bpilib.data.store import SkeletonStore
    from bpilib.runs import open_run

    assert from_readme is read_clip
    classifier = Classifier.of(open_run(run_config))
    poses = SkeletonStore.open(run_config.data).sample(0)
    np.save(place / "clip.npy", poses)
    read = read_clip(place / "clip.npy", classifier.about)
    np.testing.assert_array_equal(read, poses)
    assert classifier.classify(read).sum() == pytest.approx(1, abs=1e-5)


def test_class_texts(place):
    from bpilib.text import build_text
    from bpilib.text.prompts import load_prompts

    encoder = build_text("minilm", "bpi", load_prompts(place / "prompts.yaml"))
    assert encoder(torch.tensor([0, 1]), torch.tensor([0.0, 0.5])).shape == (4, 2, encoder.dim)


@pytest.mark.parametrize("module", ["bpilib.config", "bpilib.text"])
def test_commands(module):
    subprocess.run([sys.executable, "-m", module], check=True, capture_output=True)


@pytest.mark.parametrize("module", ["bpilib.text", "bpilib.report", "bpilib.pretrained"])
def test_commands_with_arguments_explain_themselves(module):
    said = subprocess.run([sys.executable, "-m", module, "--help"], check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"usage: python -m {module} ")


def test_the_report_command(tmp_path):
    cell = {"cell_type": "code", "id": "a", "source": "1 + 1", "metadata": {}, "execution_count": 1, "outputs": []}
    notebook = {"cells": [cell], "metadata": {"papermill": {}}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "01_sum.ipynb").write_text(json.dumps(notebook))
    subprocess.run([sys.executable, "-m", "bpilib.report", str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "report" / "index.html").is_file()
