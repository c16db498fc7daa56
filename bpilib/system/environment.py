"""Where and with what a run was made: for summary.json, and for a paper's statement of reproducibility."""

import datetime
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bpilib.system.device import read_cpu_fact
from bpilib.system.files import PACKAGE

LIBRARIES = ("bpilib", "torch", "numpy", "scipy", "numba", "pandas", "scikit-learn", "open_clip_torch")


def collect_environment(device: torch.device) -> dict[str, Any]:
    """The machine and the software of this process.

    Args:
        device: of the run.

    Returns:
        Plain values for JSON: git (commit, and clean: whether no tracked file was changed; None outside a checkout),
        python, libraries (name → version), cuda and cudnn (None without), cpu, cores, gpu (None on a CPU), threads (of
        PyTorch), platform, date (ISO 8601), peak_memory_gb of this process, and on a GPU peak_gpu_memory_gb of
        PyTorch's tensors.
    """
    on_gpu = device.type == "cuda"
    found: dict[str, Any] = {
        "git": read_git_state(PACKAGE.parent),
        "python": platform.python_version(),
        "libraries": _library_versions(),
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "cpu": read_cpu_fact("model name"),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "peak_memory_gb": _peak_memory_gb(),
    }
    if on_gpu:
        found["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def read_git_state(project: Path) -> dict[str, Any] | None:
    """The commit of a project folder and whether it is clean; None if it is no checkout of its own, or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(project), *arguments]
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=environment)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != project.resolve():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "clean": not changed}
    except (OSError, subprocess.SubprocessError):
        return None


def _library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _peak_memory_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@torch.no_grad()
def count_flops(network: nn.Module, x: Tensor) -> int:
    """Floating-point operations of a forward pass in test mode; a multiplication and an addition count as two.

    Counted are convolutions and matrix products, as is customary, by PyTorch's own counter.

    Args:
        network: changed in nothing.
        x: its input, (1, 3, T, V, M) for the operations of one clip.
    """
    training = network.training
    network.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            network(x)
    finally:
        network.train(training)
    return int(counter.get_total_flops())
