"""Runs of seconds, and whether two of them are the same."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from making import tiny_config

from bpilib.evaluate import Scores
from bpilib.system import checkpoint

EPOCHS = 2


def config_of(place: Path, outputs: Path, **changes):
    return tiny_config(place, outputs, **({"batch_size": 4, "epochs": EPOCHS} | changes))


def assert_same(a, b, at=""):
    """Equal nested values, tensors bit for bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            assert_same(a[key], b[key], f"{at}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), at
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{at}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    else:
        assert a == b or (a != a and b != b), f"{at}: {a} {b}"


def assert_same_run(folder: Path, expected: Path):
    """Everything but how long it took."""
    left, right = (
        pd.read_csv(f / "metrics.csv", dtype=str).drop(columns="clips_per_second") for f in (folder, expected)
    )
    pd.testing.assert_frame_equal(left, right)
    for name in ("last.pt", "best.pt"):
        a, b = checkpoint.load(folder / name), checkpoint.load(expected / name)
        for key in ("model", "text", "optimizer", "random", "epoch", "text_digest"):
            if key in b:
                assert_same(a[key], b[key], f"{name}/{key}")
    a, b = Scores.load(folder / "scores.npz"), Scores.load(expected / "scores.npz")
    np.testing.assert_array_equal(a.logits, b.logits)
    a, b = (json.loads((f / "summary.json").read_text()) for f in (folder, expected))
    ours = ("training_seconds", "resumed", "environment")  # when and where, not what came out
    assert {k: v for k, v in a.items() if k not in ours} == {k: v for k, v in b.items() if k not in ours}
