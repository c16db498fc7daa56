"""What is recorded of machine and code, and operations counted by hand."""

import json
import os
import subprocess
from pathlib import Path

import torch
from torch import nn

from bpilib.system.environment import collect_environment, count_flops, read_git_state


def test_the_environment_is_plain_and_complete():
    found = collect_environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert found["gpu"] is None and found["cuda"] is None
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1 and found["cpu"]
    assert 0.05 < found["peak_memory_gb"] < 1000  # PyTorch alone takes more than the first


def test_the_commit_and_whether_it_is_clean(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        own = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}  # no hooks, no signatures
        return subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout.strip()

    assert read_git_state(tmp_path) is None
    git("init", "-q")
    assert read_git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "untracked.py").write_text("1")
    assert read_git_state(tmp_path) == {"commit": head, "clean": True}
    (tmp_path / "a.py").write_text("2")
    assert read_git_state(tmp_path) == {"commit": head, "clean": False}
    inside = tmp_path / "inside"
    inside.mkdir()
    assert read_git_state(inside) is None  # somebody else's checkout
    assert read_git_state(Path("/nonexistent")) is None


def test_operations_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 4, (5, 1), bias=False), nn.BatchNorm2d(4)).train()
    assert count_flops(network, torch.zeros(1, 3, 9, 2)) == 2 * 4 * 3 * 5 * (9 - 4) * 2
    assert network.training and not network[1].running_mean.any()  # changed in nothing
    assert count_flops(nn.Linear(3, 5), torch.zeros(2, 3)) == 2 * 2 * 3 * 5
