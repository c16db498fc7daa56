"""What tests of figures are made of: invented attention and clips, the texts of a figure."""

import matplotlib.pyplot as plt
import numpy as np
import pytest


def joints_of(skeleton, modality="joint"):
    parts = skeleton.parts(modality)
    return {p: (parts[p], sum((parts[o] for o in parts if o != p), ())) for p in parts}


def attention_of(skeleton, seed=0, clips=(), modality="joint"):
    rng = np.random.default_rng(seed)
    maps = {}
    for part, (query, key) in joints_of(skeleton, modality).items():
        weights = rng.random((*clips, 8, len(query), len(key))) ** 4
        maps[part] = weights / weights.sum(-1, keepdims=True)
    return maps


def clip_of(skeleton, frames=12, persons=1, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(frames, persons, skeleton.num_joints, 3)) + [0, 0, 3]).astype(np.float32)


def texts(figure):
    return [t.get_text() for t in figure.findobj(plt.Text) if t.get_text()]


@pytest.fixture(autouse=True)
def no_state_leaks():
    before = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before
