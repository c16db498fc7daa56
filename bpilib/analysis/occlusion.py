"""Occlusion: how far each logit falls when a joint, a body part or a stretch of time is removed from a clip.

Class activation decomposes a logit exactly, but by the position of features, and those at a joint depend on its
neighbours too. Occlusion changes the clip itself and runs the network again, so it shows what the network needs.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpilib.analysis.outputs import average_by_class
from bpilib.classify import Logits
from bpilib.metrics import bootstrap_means
from bpilib.runs import Run
from bpilib.skeleton import Skeleton

HOW = ("frozen", "average")
STRETCHES = 8  # into which a window is cut


class Drops(NamedTuple):
    """How far logits fall: logit of the whole clip minus that of the occluded one; positive: the region was needed.

    Attributes:
        joints: (n, V, K) float32, with one joint occluded in all frames.
        parts: (n, P, K) float32, with all joints of a body part occluded: torso, arm, leg.
        time: (n, S, K) float32, with all joints occluded in one of S stretches of the window.
    """

    joints: np.ndarray
    parts: np.ndarray
    time: np.ndarray

    def of_class(self, classes: np.ndarray) -> "Drops":
        """The drops of one class per clip, classes (n,) int64: (n, V), (n, P) and (n, S)."""
        rows = np.arange(len(classes))
        return Drops(*(values[rows, :, classes] for values in self))


def occlude(x: Tensor, joints: Sequence[int], frames: slice, average: Tensor | None = None) -> Tensor:
    """Replace some joints in some frames of clips.

    Args:
        x: (N, 3, T, V, M), as a network takes them.
        joints: replaced, of every person.
        frames: of the window, in which they are replaced.
        average: (3, T, V, M), what replaces them; None: each joint is frozen at its mean position over these frames,
            for each person. Absent persons stay absent.

    Returns:
        A copy, (N, 3, T, V, M).
    """
    out = x.clone()
    chosen = list(joints)
    given = x[:, :, frames, chosen]  # (N, 3, T', V', M)
    if average is None:
        out[:, :, frames, chosen] = given.mean(2, keepdim=True).expand_as(given)
    else:
        there = (x != 0).any(1).any(1).any(1)[:, None, None, None]  # (N, 1, 1, 1, M), which persons are present
        out[:, :, frames, chosen] = torch.where(there, average[None, :, frames, chosen], given)
    return out


def cut_stretches(window: int, count: int = STRETCHES) -> list[slice]:
    """Cut the window's frames into `count` stretches of nearly equal length."""
    ends = np.linspace(0, window, min(count, window) + 1).round().astype(int)
    return [slice(int(low), int(high)) for low, high in pairwise(ends)]


def _list_regions(skeleton: Skeleton, window: int) -> Iterator[tuple[Sequence[int], slice]]:
    """Joints and frames of every region that is occluded: each joint, each part, each stretch of time."""
    whole, everything = slice(0, window), range(skeleton.num_joints)
    yield from (((joint,), whole) for joint in everything)
    yield from ((joints, whole) for joints in skeleton.parts().values())
    yield from ((everything, stretch) for stretch in cut_stretches(window))


@torch.no_grad()
def compute_drops(
    network: Callable[[Tensor], Tensor], x: Tensor, skeleton: Skeleton, average: Tensor | None = None
) -> Drops:
    """Occlude every joint, part and stretch of time of some clips, one region at a time.

    Args:
        network: x (N, 3, T, V, M) to logits (N, K), in test mode.
        x: the clips.
        skeleton: their joint set.
        average: see `occlude`.

    Returns:
        The drops of these N clips.
    """
    whole = network(x)
    found = [whole - network(occlude(x, *region, average)) for region in _list_regions(skeleton, x.shape[2])]
    drops = torch.stack(found, 1).float().cpu().numpy()  # (N, V + P + S, K)
    ends = np.cumsum([skeleton.num_joints, len(skeleton.parts())])
    return Drops(*np.split(drops, ends, axis=1))


def collect_drops(run: Run, positions: Sequence[int], how: str = "frozen", subset: str = "test") -> Drops:
    """Occlude clips of a run's subset, in test mode; a clip takes as many forward passes as there are regions.

    Args:
        run: a trained run of any network.
        positions: (n,) which clips of the subset.
        how: "frozen": joints stay at their mean position, which removes their movement; "average": joints move as in
            the mean of all clips of the subset, which removes what distinguishes the clip.
        subset: "train", "heldout" or "test".

    Returns:
        The drops of the n clips.

    Raises:
        ValueError: another `how`, or no clips.
    """
    if how not in HOW:
        raise ValueError(f"unknown way to occlude {how!r}: expected one of {', '.join(HOW)}")
    if not len(positions):
        raise ValueError("no clips to occlude: choose at least one position")
    feeder, network = run.feeder(subset), Logits(run.model)
    size = run.config.test_batch_size or len(feeder)
    average = None
    if how == "average":
        sums = [feeder.batch(rows)[0].sum(0) for rows in torch.arange(len(feeder)).split(size)]
        average = torch.stack(sums).sum(0) / len(feeder)
    found = [
        compute_drops(network, feeder.batch(rows)[0], run.store.skeleton, average)
        for rows in torch.as_tensor(positions).split(size)
    ]
    return Drops(*map(np.concatenate, zip(*found)))


def spread_clips(labels: np.ndarray, most: int) -> np.ndarray:
    """Positions (n,) int64 of about `most` clips, equally many of each class and at least one.

    Those of a class are spread evenly over all of it: clips are sorted by name, so its first ones are of few people.
    """
    classes = np.unique(labels)
    each = max(1, most // max(1, len(classes)))
    found = [np.empty(0, int)]
    for k in classes:
        of_class = np.flatnonzero(labels == k)
        count = min(each, len(of_class))
        found.append(of_class[np.arange(count) * len(of_class) // count])
    return np.sort(np.concatenate(found))


def average_drops_by_class(drops: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean drop of each class's own logit over the clips of the class, with a 95 % bootstrap interval.

    Args:
        drops: (n, R) of the clips' own classes.
        labels: (n,) int64.
        num_classes: K.

    Returns:
        (K, R, 3) mean, low, high; NaN for a class without clips, and intervals of NaN for one with a single clip.
    """
    out = np.full((num_classes, drops.shape[1], 3), np.nan)
    out[..., 0] = average_by_class(drops, labels, num_classes)
    for k in range(num_classes):
        if (labels == k).sum() > 1:
            out[k] = bootstrap_means(drops[labels == k])
    return out
