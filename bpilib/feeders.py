"""Store to batches: the published pipelines of NW-UCLA and NTU.

A compiled kernel makes the clips of a batch on the host (`ops.feeder_kernels`), whatever device they are for. Where
that is a GPU, the next batch is made in a thread while the GPU is busy with the one before.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpilib.data.importer import fit_persons
from bpilib.data.store import SkeletonStore, count_valid_frames
from bpilib.ops import counter_rng, feeder_kernels
from bpilib.ops.augmentation import PUBLISHED, Augmentation, drop
from bpilib.ops.feeder_kernels import NTU_TEST_SHARE, UCLA_COPIES
from bpilib.ops.jit import is_compiled
from bpilib.skeleton import MODALITIES, SKELETONS, Skeleton

AHEAD = 2  # expected batches that a feeder holds at most
COMPILING = 10  # seconds, about, that the first call on a machine takes
# What test mode computes from raw poses, in words, for those who run an exported network without this package.
PREPARATION = {
    "ucla": (
        "subtract joint 1 (counted from 0) of the first frame from every joint of every frame",
        "scale each axis linearly so that its least and greatest values over all frames and joints are -1 and 1",
        "take the frames int(linspace(0, L - 1, T))",
    ),
    "ntu": (
        "take the two bodies that move most (beside one alone put zeros in ntu60, its copy in ntu120)",
        "subtract joint 1 (counted from 0) of the first one's first frame from every joint of those present",
        "keep the L frames that are not all zero, which come first; "
        f"leave int({(1 - NTU_TEST_SHARE) / 2:g} L) frames out at either end",
        "interpolate the l that are left linearly over time: frame i of T is at (i + 0.5) l / T - 0.5 in 0 ... l - 1",
    ),
    "bone": ("subtract from each joint its parent",),
    "motion": ("subtract each frame from the next one; the last is 0",),
}
_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What a training step takes of its clips, on the feeder's device.

    Attributes:
        x: (N, 3, T, V, M) float32.
        labels: (N,) int64.
        synonyms: (N,) float64 in [0, 1), uniform; each picks one of its class's synonyms.
        texts: what `Feeder.prepare_texts` made of labels and synonyms.
    """

    x: Tensor
    labels: Tensor
    synonyms: Tensor
    texts: tuple[Tensor, ...] = ()


PrepareTexts = Callable[[np.ndarray, np.ndarray], tuple[Tensor, ...]]


class Feeder:
    """Batches of one modality from the clips of one split.

    Args:
        store: prepared clips; its skeleton chooses the pipeline.
        indices: (n,) int64, the clips to feed, in order.
        modality: joint, bone, joint_motion or bone_motion. Bones here are child minus parent, as CTR-GCN is fed;
            GAP and BPI make theirs in the network and are fed joint or joint_motion.
        window: T; the skeleton's own where None.
        train: random crops and rotations; otherwise the published test pipeline.
        device: where the batches go; they are made on the host, for a CUDA device in pinned memory.
        seed: of the draws, with `epoch` (an attribute, to be set before each epoch) and the position.
        repeats: times each clip comes in an epoch; positions run over n * repeats.
        augmentation: what is done to the clips besides the published pipeline, or in other measure.

    Attributes:
        indices: as given.
        labels: (n,) int64, of those clips.
        prepare_texts: None, or a function of a batch's labels and synonyms (`TextEncoder.prepare`), called on the host
            with the batch, in its thread where there is one.
    """

    def __init__(
        self,
        store: SkeletonStore,
        indices: np.ndarray,
        modality: str = "joint",
        window: int | None = None,
        train: bool = False,
        device: str | torch.device = "cpu",
        seed: int = 0,
        repeats: int = 1,
        augmentation: Augmentation = PUBLISHED,
    ):
        given = np.asarray(indices)
        whole = given.ndim == 1 and len(given) and given.dtype.kind in "iu"
        if not whole or given.min() < 0 or given.max() >= len(store):
            raise ValueError(f"expected integer indices (n,) within 0...{len(store) - 1}, got {given.dtype} {given}")
        self.store = store
        self.train = train
        self.seed = seed
        self.repeats = repeats
        self.modality = _modality(modality)
        self.augmentation = augmentation
        angles = ("pitch", "yaw", "turned")
        if store.skeleton.name == "ntu" and any(getattr(augmentation, n) != getattr(PUBLISHED, n) for n in angles):
            raise ValueError(
                "the parameters pitch, yaw and test_yaw are of NW-UCLA's pipeline: leave them at their defaults for "
                f"the {store.skeleton.name} skeleton, whose clips are turned by up to 17 degrees about each axis"
            )
        self.window = _window(store.skeleton, window)
        self.device = torch.device(device)
        self.epoch = 0
        self.indices = given.astype(np.int64)
        self.labels = store.labels[self.indices].astype(np.int64)
        self._poses = np.asarray(store.poses)
        self._starts = store.offsets[self.indices]
        self._lengths = counted_frames(store)[self.indices]
        self._pinned = self.device.type == "cuda"
        self.prepare_texts: PrepareTexts | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._coming: deque[tuple[tuple, Future[Batch]]] = deque(maxlen=AHEAD)

    def __len__(self) -> int:
        return len(self.indices) * self.repeats

    def batch(self, positions: Tensor | np.ndarray | list[int]) -> tuple[Tensor, Tensor]:
        """Clips and their labels.

        Args:
            positions: (N,) integers within 0 ... len(feeder) - 1.

        Returns:
            x (N, 3, T, V, M) float32 and labels (N,) int64, on the device.

        Raises:
            IndexError: a position out of range.
        """
        batch = self.take(positions)
        return batch.x, batch.labels

    def take(self, positions: Tensor | np.ndarray | list[int]) -> Batch:
        """All that a training step takes, made now, or ahead if it was expected; arguments and errors as of `batch`."""
        asked = self._asked(positions)
        for coming in self._coming:
            if coming[0] == asked:
                self._coming.remove(coming)
                return self._send(coming[1].result())
        return self._send(self._make(*asked))

    def expect(self, positions: Tensor | np.ndarray | list[int]) -> None:
        """Begin to make, in a thread, a batch that `take` will ask for in this epoch; `take` raises what goes wrong.

        The last AHEAD of them are held; one that is never asked for does no harm.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "feeder")
        asked = self._asked(positions)
        self._coming.append((asked, self._thread.submit(self._make, *asked)))

    def close(self) -> None:
        """End the thread and forget what was expected. A later `expect` starts another."""
        self._coming.clear()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def _asked(self, positions: Tensor | np.ndarray | list[int]) -> tuple[int, int, bytes]:
        """What a batch depends on. The positions are copied, since the caller may write over them."""
        positions = positions.cpu().numpy() if isinstance(positions, Tensor) else positions
        return self.seed, self.epoch, np.array(positions, np.int64).tobytes()

    def _make(self, seed: int, epoch: int, asked: bytes) -> Batch:
        """A batch on the host."""
        positions = np.frombuffer(bytearray(asked), np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions outside 0...{len(self) - 1}")
        persons, joints = self._poses.shape[1:3]
        x = torch.empty(len(positions), 3, self.window, joints, persons, pin_memory=self._pinned)
        _fill(
            x.numpy(),
            self.store.skeleton,
            self._poses,
            self._starts,
            self._lengths,
            positions,
            self.modality,
            self.train,
            seed,
            epoch,
            self.augmentation,
        )
        labels = self.labels[positions % len(self.labels)]
        synonyms = counter_rng.uniform(seed, epoch, positions, counter_rng.SYNONYM, 1)[:, 0]
        texts = () if self.prepare_texts is None else self.prepare_texts(labels, synonyms)
        return Batch(
            x,
            self._pin(torch.from_numpy(labels)),
            self._pin(torch.from_numpy(synonyms)),
            tuple(self._pin(tensor) for tensor in texts),
        )

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pinned else tensor

    def _send(self, batch: Batch) -> Batch:
        """To the device; from pinned memory without waiting for it."""
        x, labels, synonyms, texts = batch
        return Batch(self._to(x), self._to(labels), self._to(synonyms), tuple(self._to(tensor) for tensor in texts))

    def _to(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=self._pinned)


def prepare_clip(
    poses: np.ndarray, skeleton: Skeleton, persons: int, modality: str = "joint", window: int | None = None
) -> np.ndarray:
    """One clip as a network takes it, by the test pipeline.

    Args:
        poses: (L, any number of persons, V, 3), as a store has them.
        skeleton: whose joints they are; chooses the pipeline.
        persons: M of the network; missing ones are zeros, of too many those that move most are kept.
        modality, window: as of `Feeder`.

    Returns:
        x (1, 3, T, V, M) float32.

    Raises:
        ValueError: another shape; coordinates that are not finite.
    """
    if poses.ndim != 4 or poses.shape[2:] != (skeleton.num_joints, 3) or not len(poses):
        raise ValueError(
            f"expected poses (L, M, {skeleton.num_joints}, 3) with L of at least 1, got {poses.shape}: these are "
            f"not of the {skeleton.name} skeleton"
        )
    poses, _ = fit_persons(poses, persons)
    frames = _counted(skeleton, np.array([len(poses)]), np.array([count_valid_frames(poses)]))
    first = np.zeros(1, np.int64)
    x = np.empty((1, 3, _window(skeleton, window), skeleton.num_joints, persons), np.float32)
    _fill(x, skeleton, np.ascontiguousarray(poses), first, frames, first, _modality(modality))
    return x


def source_frames(skeleton: Skeleton, frames: int, window: int | None = None, steps: int | None = None) -> np.ndarray:
    """Which frame of a clip each frame of the window, or each step of a network's features, shows in test mode.

    A step's features start at one frame of the window and, through the temporal convolutions, see many around it.

    Args:
        skeleton: chooses the pipeline.
        frames: of the clip, as `counted_frames` has them.
        window: T; the skeleton's own where None.
        steps: S of the features, each of T / S frames; None: T.

    Returns:
        (S,) float64, counted from 0, of the middle of each step; fractional where it lies between two frames.
    """
    window = _window(skeleton, window)
    if skeleton.name == "ntu":
        found = np.empty(window)
        feeder_kernels.ntu_test_frames(frames, found)
    else:
        found = np.empty(window, np.int64)
        feeder_kernels.ucla_test_frames(frames, found)
    steps = window if steps is None else steps
    return np.interp((np.arange(steps) + 0.5) * window / steps - 0.5, np.arange(window), found)


def counted_frames(store: SkeletonStore) -> np.ndarray:
    """(len(store),) int64, frames of each clip that its pipeline counts: NTU's those that are not empty, at least 1."""
    return _counted(store.skeleton, store.lengths, store.valid_frames)


def _counted(skeleton: Skeleton, lengths: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.maximum(valid, 1) if skeleton.name == "ntu" else lengths


def _modality(modality: str) -> str:
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    return modality


def _window(skeleton: Skeleton, window: int | None) -> int:
    """T. NW-UCLA's frames are drawn from UCLA_COPIES of each, so a clip of one frame has no more than these."""
    window = skeleton.window if window is None else window
    if not 1 <= window <= UCLA_COPIES:
        raise ValueError(f"window: expected 1 to {UCLA_COPIES} frames, got {window}")
    return window


def _fill(
    x: np.ndarray,
    skeleton: Skeleton,
    poses: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    positions: np.ndarray,
    modality: str,
    train: bool = False,
    seed: int = 0,
    epoch: int = 0,
    augmentation: Augmentation = PUBLISHED,
) -> None:
    """Make clips.

    Args:
        x: (N, 3, T, V, M) float32, filled.
        poses: (all frames, M, V, 3) float32.
        starts, lengths: (n,) int64, the clips' first frames in poses, and the frames that count.
        positions: (N,) int64; of clip position % n.
        modality, train, seed, epoch, augmentation: as of `Feeder`.
    """
    persons, joints = poses.shape[1:3]
    places = np.arange(persons * joints, dtype=np.uint64).reshape(persons, joints)  # of the joints in a frame
    pitch, yaw, axis_drop, joint_drop, turned = augmentation
    kernel = feeder_kernels.ntu if skeleton.name == "ntu" else feeder_kernels.ucla
    angles = () if skeleton.name == "ntu" else (np.int64(pitch), np.int64(yaw), float(turned))
    if not is_compiled(kernel):
        _log.info("compiling the feeder once (about %d s)", COMPILING)
    kernel(
        x.reshape(*x.shape[:3], joints * persons),
        poses.reshape(len(poses), -1),
        starts,
        lengths,
        places.T.ravel(),
        places[:, skeleton.parents].T.ravel(),
        positions,
        train,
        modality.startswith("bone"),
        modality.endswith("motion"),
        np.uint64(seed % 2**64),
        np.uint64(epoch % 2**64),
        *angles,
    )
    if train:
        drop(x, positions, seed, epoch, axis_drop, joint_drop)


def compile_kernels() -> None:
    """Compile both pipelines for this machine, so that no later process has to wait for it."""
    for skeleton in SKELETONS.values():
        poses = np.ones((2, skeleton.persons, skeleton.num_joints, 3), np.float32)
        x = np.empty((1, 3, skeleton.window, skeleton.num_joints, skeleton.persons), np.float32)
        first = np.zeros(1, np.int64)
        _fill(x, skeleton, poses, first, first + 2, first, "joint", train=True)


if __name__ == "__main__":
    compile_kernels()
