"""Classifies single clips, with the network of a run or a file that `export` wrote."""

import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bpilib.data.clip_file import read_clip as read_clip
from bpilib.errors import MissingInputError
from bpilib.feeders import PREPARATION, prepare_clip
from bpilib.model import CTRGCNClassifier
from bpilib.runs import Run
from bpilib.skeleton import SKELETONS
from bpilib.system.device import full_float32

Network = Callable[[np.ndarray], np.ndarray]  # (N, 3, T, V, M) float32 to logits (N, K)
# Keys of `describe` that hold text.
TEXTS = ("model", "dataset", "benchmark", "modality", "skeleton", "fed", "input", "output")


class Logits(nn.Module):
    """The network from clips to logits, without the heads that only training needs."""

    def __init__(self, model: CTRGCNClassifier):
        super().__init__()
        self.model = model.fuse()
        for head in ("global_head", "part_heads"):
            if hasattr(self.model, head):
                delattr(self.model, head)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, V, M) float32 to (N, K)."""
        return CTRGCNClassifier.forward(self.model, x).logits


def describe(run: Run) -> dict[str, Any]:
    """Metadata for users of a classifier: classes in the order of the logits, input, how clips are prepared."""
    config = run.config
    skeleton = run.store.skeleton
    feeder = run.feeder("test")
    kinds = [skeleton.name, *(kind for kind in ("bone", "motion") if kind in feeder.modality)]
    steps = [step for kind in kinds for step in PREPARATION[kind]]
    shape = f"3, {feeder.window}, {skeleton.num_joints}, {run.store.persons}"
    return {
        "model": config.model,
        "dataset": config.dataset,
        "benchmark": config.benchmark,
        "modality": config.modality,
        "epoch": run.epoch,
        "classes": run.store.classes,
        "skeleton": skeleton.name,
        "tracker": run.store.manifest["source"].get("tracker"),  # of the clips it was trained with
        "joints": list(skeleton.joints),
        "parents": skeleton.parents.tolist(),
        "persons": run.store.persons,
        "window": feeder.window,
        "fed": feeder.modality,
        "input": f"x float32 (N, {shape}): clips, x y z, frames T, joints, persons; any N",
        "output": f"logits float32 (N, {len(run.store.classes)}); their softmax is the probability of each class",
        "preparation": ["a clip is (L, persons, joints, 3): L frames of x y z", *steps, "order the axes as input says"],
    }


def _open_onnx(content: bytes) -> tuple[Network, dict[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    about = {key: value if key in TEXTS else json.loads(value) for key, value in found.items()}
    return lambda x: session.run(["logits"], {"x": x})[0], about


def _open_pt2(content: bytes) -> tuple[Network, dict[str, Any]]:
    extra = {"classifier.json": ""}
    module = torch.export.load(io.BytesIO(content), extra_files=extra).module()
    return lambda x: _run(module, x), json.loads(extra["classifier.json"])


@torch.no_grad()
@full_float32()
def _run(module: nn.Module, x: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    return module(torch.from_numpy(x).to(device)).cpu().numpy()


OPENERS = {".onnx": _open_onnx, ".pt2": _open_pt2}


class Timing(NamedTuple):
    """Median seconds per clip: from raw poses to the network's input, and from there to probabilities."""

    prepare: float
    network: float


class Classifier:
    """Classifies one clip at a time.

    Attributes:
        about: metadata as returned by `describe`; an exported file contains it.
    """

    def __init__(self, about: dict[str, Any], network: Network):
        """network: (1, 3, T, V, M) float32 to logits (1, K)."""
        self.about = about
        self._network = network

    @classmethod
    def of(cls, trained: Run | CTRGCNClassifier) -> "Classifier":
        """A classifier with the network of a run, or one of `bpilib.reference.from_pretrained`, on its device.

        Raises:
            ValueError: a network of which nothing is known.
        """
        model = trained.model if isinstance(trained, Run) else trained
        about = describe(trained) if isinstance(trained, Run) else trained.config
        if about is None:
            raise ValueError("expected a run, or a network of from_pretrained, got a network without its config")
        module, device = Logits(model), model.classifier.weight.device
        return cls(about, lambda x: _run(module, x, device))

    @classmethod
    def load(cls, path: str | Path, trusted: bool = False) -> "Classifier":
        """Load a file that `bpilib.export` wrote, classifier.onnx or classifier.pt2; neither run nor store is needed.

        Args:
            path: the file.
            trusted: the file comes from a known source. A .pt2 is opened only then, since reading it can run code.

        Raises:
            MissingInputError: no such file.
            ValueError: not a classifier, or a damaged one; a .pt2 that is not trusted.
        """
        path = Path(path)
        if path.suffix not in OPENERS:
            raise ValueError(f"expected a classifier's .onnx or .pt2, got {path}: notebook 03 writes them (export)")
        if not path.is_file():
            raise MissingInputError(f"no classifier at {path}: run notebooks/03_evaluate.ipynb with export='all'")
        if path.suffix == ".pt2" and not trusted:
            raise ValueError(f"{path} could run code when opened: use the .onnx, or trusted=True if it is yours")
        try:
            network, about = OPENERS[path.suffix](path.read_bytes())
            SKELETONS[about["skeleton"]], about["classes"], about["persons"], about["window"], about["fed"]
            return cls(about, network)
        except Exception as error:  # onnxruntime, zip and torch each have their own for a damaged or foreign file
            raise ValueError(
                f"{path} is damaged or no classifier of notebook 03 ({type(error).__name__}: {str(error)[:80]}): "
                "export it again"
            ) from error

    def prepare(self, poses: np.ndarray) -> np.ndarray:
        """Convert poses (L, M, V, 3), as `read_clip` returns them, to the network's input (1, 3, T, V, M)."""
        return prepare(self.about, poses)

    def classify(self, poses: np.ndarray) -> np.ndarray:
        """Compute the probability of each class, (K,) float32, for poses (L, M, V, 3)."""
        return _softmax(self._network(self.prepare(poses))[0])

    def time(self, poses: np.ndarray, repeats: int = 20) -> Timing:
        """Measure how long it takes to classify a clip: medians of `repeats` repetitions, after one to warm up."""
        taken = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            x = self.prepare(poses)
            prepared = time.perf_counter()
            _softmax(self._network(x)[0])
            taken.append((prepared - start, time.perf_counter() - prepared))
        return Timing(*map(statistics.median, zip(*taken[1:])))


def prepare(about: dict[str, Any], poses: np.ndarray) -> np.ndarray:
    """Convert poses (L, M, V, 3) to the input (1, 3, T, V, M) float32 of the network that `about` describes."""
    return prepare_clip(poses, SKELETONS[about["skeleton"]], about["persons"], about["fed"], about["window"])


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1).numpy()


def classify(trained: Run | CTRGCNClassifier, poses: np.ndarray) -> pd.Series:
    """Compute the probability of each class for one clip, prepared as test clips are.

    Args:
        trained: from `bpilib.runs.open_run` or `bpilib.reference.from_pretrained`.
        poses: (L, M, V, 3) or (L, V, 3) of numbers, as the run's data set has them; missing persons are zeros.

    Returns:
        Probabilities by class name, the highest first.

    Raises:
        ValueError: a different skeleton, numbers that are not finite, no frames.
    """
    poses, classifier = np.asarray(poses), Classifier.of(trained)
    shares = classifier.classify(poses[:, None] if poses.ndim == 3 else poses)
    by_class = pd.Series(shares, classifier.about["classes"], name="probability")
    return by_class.sort_values(ascending=False, kind="stable")
