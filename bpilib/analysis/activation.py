"""Class activation: what each person, step in time and joint adds to a logit.

The classifier is linear in the mean of the backbone's features over frames, joints and persons, so a logit is its bias
plus one term for each of them, exactly. Source: Zhou et al., "Learning Deep Features for Discriminative Localization",
CVPR 2016, eq. 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.data.store import SkeletonStore
from bpilib.feeders import counted_frames, source_frames


@contextmanager
def record_features(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """A list to which a backbone's outputs, (N, M, C, S, V) per call, are appended while the block runs."""
    seen: list[Tensor] = []
    hook = backbone.register_forward_hook(lambda _module, _given, features: seen.append(features))
    try:
        yield seen
    finally:
        hook.remove()


def compute_class_activation(features: Tensor, classifier: nn.Linear, classes: Tensor) -> Tensor:
    """What each person, step and joint adds to the logit of one class a clip.

    Args:
        features: (N, M, C, S, V), what the backbone returns; S steps in time.
        classifier: the linear layer on their mean over M, S and V.
        classes: (N,) int64, the class of each clip whose logit is decomposed.

    Returns:
        (N, M, S, V) float32; their sum and the class's bias are the logit.

    Raises:
        ValueError: shapes that do not match.
    """
    n, m, c, s, v = features.shape
    if classes.shape != (n,) or c != classifier.in_features:
        raise ValueError(
            f"expected ({n},) classes and features of {classifier.in_features} channels, got {tuple(classes.shape)} "
            f"and {tuple(features.shape)}: pass the backbone's features and the classifier of the same network"
        )
    return torch.einsum("nmcsv,nc->nmsv", features.float(), classifier.weight.float()[classes]) / (m * s * v)


def locate_frames(store: SkeletonStore, index: int, window: int, steps: int) -> np.ndarray:
    """The frame of a clip that each step of the features is centred on, in test mode.

    Through the temporal convolutions a step's features depend on many frames around that one.

    Args:
        store: prepared clips.
        index: the clip.
        window: T, frames of the network's window.
        steps: S of the features; a step is window / steps frames.

    Returns:
        (S,) int64, counted from 0: the clip's frame in the middle of the step.
    """
    frames = int(counted_frames(store)[index])
    return source_frames(store.skeleton, frames, window, steps).round().astype(np.int64)
