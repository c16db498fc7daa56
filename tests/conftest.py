"""Fixtures shared by the tests: numbers of the published implementation, and small stores."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

# Before PyTorch is imported, and inherited by every process that a test starts: sums in another order flip ties of the
# pooling, so that runs are compared bit for bit with as many threads; idle ones that spin slow a busy machine down.
os.environ["OMP_NUM_THREADS"] = os.environ.get("BPI_TEST_THREADS", "1")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # what is asked for lies on servers of this machine

import numpy as np
import pytest
import torch
from disturbed import disturbed
from fixed_weights import fixed_input, fixed_state
from making import synthetic_store, write_prompts

from bpilib.data.store import Clip, StoreWriter
from bpilib.training.trainer import Trainer

# Where the tests are a background job, a shell has Ctrl-C ignored, by them and by all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "goldens"


def _seed(name: str) -> None:
    """Seed the global generators by the name of a fixture or test: its draws are the same whatever ran before it."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    _seed(f"{fixturedef.baseid}::{fixturedef.argname}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    _seed(item.nodeid)


@pytest.fixture(scope="session")
def golden():
    """golden("loss"): the arrays of tests/goldens/loss.npz by name."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as archive:
            return dict(archive)

    return load


@pytest.fixture(scope="session")
def published():
    """published("bpi_joint_ntu"): how a published network was built, its state dict, its input, the shapes."""

    def load(name):
        spec = json.loads((DATA / f"{name}.json").read_text())
        meta, shapes = spec["meta"], spec["state_dict"]
        state = {key: torch.from_numpy(np.asarray(value)) for key, value in fixed_state(shapes).items()}
        joints = {"ntu": 25, "ucla": 20}[meta["skeleton"]]
        shape = (2, 3, meta["window"], joints, meta["persons"])
        return meta, state, torch.from_numpy(fixed_input(shape, meta["input_seed"])), shapes

    return load


@pytest.fixture(scope="session")
def make_store(tmp_path_factory):
    """make_store(NTU, [clip, ...]): a store of clips, arrays (L, M, V, 3) or, for one person, (L, V, 3)."""

    def make(skeleton, clips, labels=None, persons=None):
        clips = [np.asarray(clip, np.float32) for clip in clips]
        clips = [clip[:, None] if clip.ndim == 3 else clip for clip in clips]
        labels = [0] * len(clips) if labels is None else labels
        classes = [f"class {i}" for i in range(max(labels) + 1)]
        out = tmp_path_factory.mktemp("store") / "store"
        with StoreWriter(out, "test", skeleton, classes, persons or clips[0].shape[1]) as writer:
            for number, (poses, label) in enumerate(zip(clips, labels)):
                writer.add(Clip(f"clip{number}", poses, int(label)))
            return writer.finish({"all": {"train": np.arange(len(clips)), "test": np.arange(0)}}, {})

    return make


@pytest.fixture(scope="module")
def place(request, tmp_path_factory):
    """A module's folder with store and prompts.yaml: a synthetic store of SUBJECTS people (1 where it does not say)."""
    folder = tmp_path_factory.mktemp("place")
    synthetic_store(folder, subjects=getattr(request.module, "SUBJECTS", 1))
    write_prompts(folder)
    return folder


@pytest.fixture
def at_step(monkeypatch):
    """at_step(n, what): before step n of a training (from 0, over all epochs of this process) call `what`."""
    original, calls = Trainer._step, itertools.count()

    def plan(number, what):
        def first(step, trainer, positions):
            what()
            step(trainer, positions)

        monkeypatch.setattr(Trainer, "_step", disturbed(original, calls, number, first))

    return plan


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made("ntu60", 60, 7): a folder of made raw files, made once."""
    folders = {}

    def make(which, count=60, seed=7):
        key = (which, count, seed)
        if key not in folders:
            out = tmp_path_factory.mktemp("raw") / which
            command = [sys.executable, Path(__file__).parent / "helpers" / "make_raw_ntu.py", out, "--set", which]
            subprocess.run([*command, "--count", str(count), "--seed", str(seed)], check=True, capture_output=True)
            folders[key] = out
        return folders[key]

    return make
