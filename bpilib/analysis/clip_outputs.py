"""Outputs of a run's network for clips that are in no store: probabilities, attention, class activation."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bpilib.analysis.activation import compute_class_activation, locate_frames, record_features
from bpilib.analysis.outputs import Joints, Maps
from bpilib.data.importer import fit_persons
from bpilib.data.store import SkeletonStore, count_valid_frames
from bpilib.feeders import Feeder
from bpilib.runs import Run
from bpilib.skeleton import Skeleton


class ClipOutputs(NamedTuple):
    """Outputs of the network for n clips.

    Attributes:
        probabilities: (n, K) float32.
        maps: part → (n, heads, Vq, Vk) float32; empty unless the network is a bpi.
        joints: part → (query joints, key joints).
        activation: (n, M, S, V) float32, what each person, step and joint adds to the logit of the most probable class.
        frames: (n, S) int64, the clip's frame that each step is centred on, from 0.
    """

    probabilities: np.ndarray
    maps: Maps
    joints: Joints
    activation: np.ndarray
    frames: np.ndarray


def check_skeleton(run: Run, skeleton: Skeleton) -> None:
    """Raise ValueError unless the run's network takes that skeleton."""
    own = run.store.skeleton
    if own.name != skeleton.name:
        raise ValueError(
            f"expected a run on {skeleton.num_joints} joints ({skeleton.name}), got one of {run.config.dataset}, whose "
            f"bodies have {own.num_joints} ({own.name}): take a run of ntu60, ntu120 or of films of your own"
        )


@torch.no_grad()
def compute_clip_outputs(run: Run, clips: Iterable[np.ndarray]) -> ClipOutputs:
    """Prepare clips as the run's test clips are, and run its network on them.

    Args:
        run: a trained run, as `bpilib.runs.open_run` returns it.
        clips: n of (L, M, V, 3), as the run's store has them; any M, missing persons are zeros.

    Raises:
        ValueError: no clip; another skeleton; numbers that are not finite.
    """
    store = make_memory_store(run, clips)
    feeder = Feeder(store, np.arange(len(store)), run.feeder("test").modality, device=run.device)
    attends = run.config.model == "bpi"
    run.model.eval()
    found = []
    for positions in torch.arange(len(feeder)).split(run.config.test_batch_size):
        x, _ = feeder.batch(positions)
        with record_features(run.model.backbone) as seen:
            out = run.model(x, return_attention=True) if attends else run.model(x)
        added = compute_class_activation(seen[0], run.model.classifier, out.logits.argmax(1))
        row = {name: weights.float().cpu() for name, weights in (out.attention or {}).items()} if attends else {}
        found.append(row | {"probabilities": out.logits.float().softmax(1).cpu(), "activation": added.cpu()})
    maps = {name: torch.cat([row[name] for row in found]).numpy() for name in found[0]}
    probabilities = maps.pop("probabilities")
    activation = maps.pop("activation")
    joints = run.model.attention_joints if attends else {}
    frames = [locate_frames(store, i, feeder.window, activation.shape[2]) for i in range(len(store))]
    return ClipOutputs(probabilities, maps, joints, activation, np.stack(frames))


def make_memory_store(run: Run, clips: Iterable[np.ndarray]) -> SkeletonStore:
    """A store of clips that exists in memory only, with the skeleton, persons and classes of the run's store."""
    skeleton, persons = run.store.skeleton, run.store.persons
    poses = []
    for clip in clips:
        if clip.ndim != 4 or clip.shape[2:] != (skeleton.num_joints, 3) or not len(clip):
            raise ValueError(f"expected clips (L, M, {skeleton.num_joints}, 3) with L of at least 1, got {clip.shape}")
        fitted, _ = fit_persons(clip, persons)
        if run.config.dataset == "ntu120" and persons == 2 and not fitted[:, 1].any():
            fitted[:, 1] = fitted[:, 0]  # in that data set the second person is then a copy of the first
        poses.append(fitted)
    if not poses:
        raise ValueError("expected at least one clip")
    zeros = np.zeros(len(poses), np.int64)
    index = dict.fromkeys(("names", "labels", "subjects", "cameras", "setups"), zeros)
    index["offsets"] = np.cumsum([0, *(len(clip) for clip in poses)])
    index["valid_frames"] = np.array([count_valid_frames(clip) for clip in poses])
    manifest = {"dataset": run.config.dataset, "classes": run.store.classes, "skeleton": skeleton.name}
    return SkeletonStore(Path(), manifest | {"persons": persons}, np.concatenate(poses), index)
