"""Runs of networks with random weights on a store of random walks, for what needs a run but no training."""

import numpy as np
import torch

from bpilib.config import resolve
from bpilib.data.store import Clip, StoreWriter
from bpilib.model import build_model
from bpilib.runs import Run


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
