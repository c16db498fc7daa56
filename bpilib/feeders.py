"""Store to batches: the published pipelines of NW-UCLA and NTU, all samples of a batch at once.

Where the poses lie on the host, a compiled kernel goes clip by clip (`bpilib.kernels`); where they lie on a GPU, its
tensor operations go over all clips at once. Nothing goes sample by sample through Python.
"""

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from bpilib import draws, kernels
from bpilib.data.store import SkeletonStore
from bpilib.kernels import NTU_MAX_ANGLE, NTU_MIN_CROP, NTU_TEST_SHARE, UCLA_COPIES, UCLA_MAX_ANGLE
from bpilib.skeleton import MODALITIES


class Feeder:
    """Batches of one modality from the clips of one split.

    Args:
        store: prepared clips; its skeleton chooses the pipeline.
        indices: (n,) int64, the clips to feed, in order.
        modality: joint, bone, joint_motion or bone_motion. Bones here are child minus parent, as CTR-GCN is fed;
            GAP and BPI make theirs in the network and are fed joint or joint_motion.
        window: T; the skeleton's own where None.
        train: random crops and rotations; otherwise the published test pipeline.
        device: where the batches live. To a GPU the whole store moves if it fits into half the free memory, and the
            batches are made there; else they are made on the host and copied.
        seed: of the draws, with `epoch` (an attribute, to be set before each epoch) and the position.
        repeats: times each clip comes in an epoch; positions run over n * repeats.
        shared: a feeder of the same store and device, whose poses are used, so that a GPU holds them once.
        ahead: make batches that are `expect`ed in a thread; None: where poses lie on the host and batches on a GPU.
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
        shared: "Feeder | None" = None,
        ahead: bool | None = None,
    ):
        if modality not in MODALITIES:
            raise ValueError(f"unknown modality {modality!r}: expected one of {', '.join(MODALITIES)}")
        given = np.asarray(indices)
        whole = given.ndim == 1 and len(given) and given.dtype.kind in "iu"
        if not whole or given.min() < 0 or given.max() >= len(store):
            raise ValueError(f"expected integer indices (n,) within 0...{len(store) - 1}, got {given.dtype} {given}")
        indices = given.astype(np.int64)
        self.store, self.modality, self.train, self.seed, self.repeats = store, modality, train, seed, repeats
        self.window = store.skeleton.window if window is None else window
        if not 1 <= self.window <= UCLA_COPIES:
            raise ValueError(f"window: expected 1 to {UCLA_COPIES} frames, got {self.window}")
        self.device = torch.device(device)
        self.epoch = 0
        self.indices = torch.from_numpy(indices).to(self.device)
        self.labels = torch.from_numpy(store.labels).to(self.device)[self.indices]
        # (all frames, MVC)
        self._frames = self._place(torch.from_numpy(store.poses).flatten(1)) if shared is None else shared._frames
        home = self._frames.device
        self._is_ntu = store.skeleton.name == "ntu"
        lengths = np.maximum(store.valid_frames, 1) if self._is_ntu else store.lengths
        self._starts, self._lengths = (torch.from_numpy(a[indices]).to(home) for a in (store.offsets, lengths))
        self._parents = torch.from_numpy(store.skeleton.parents).to(home)
        persons, joints = store.poses.shape[1:3]
        places = np.arange(persons * joints, dtype=np.uint64).reshape(persons, joints)  # of the joints in a frame
        self._own, self._parent = places.T.ravel(), places[:, store.skeleton.parents].T.ravel()
        ahead = home.type != self.device.type if ahead is None else ahead
        self._thread = ThreadPoolExecutor(1, "feeder") if ahead else None
        self._coming: deque[tuple[np.ndarray, Future]] = deque()

    def _place(self, frames: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return frames
        free, _ = torch.cuda.mem_get_info(self.device)
        return frames.to(self.device) if frames.nbytes < free / 2 else frames

    def __len__(self) -> int:
        return len(self.indices) * self.repeats

    def batch(self, positions: Tensor | np.ndarray | list[int]) -> tuple[Tensor, Tensor]:
        """Make a batch.

        Args:
            positions: (N,) integers within 0 ... len(feeder) - 1.

        Returns:
            x (N, 3, T, V, M) float32 and labels (N,) int64, on the device.

        Raises:
            IndexError: a position out of range.
        """
        if self._coming:
            expected, batch = self._coming.popleft()
            if np.array_equal(expected, positions):
                return batch.result()
            self._coming.clear()
        return self._make(positions)

    def expect(self, positions: np.ndarray) -> None:
        """Begin to make a batch that `batch` will be asked for next but one or later, in this order, in this epoch."""
        if self._thread is not None and len(positions):
            self._coming.append((positions, self._thread.submit(self._make, positions)))

    def _make(self, positions: Tensor | np.ndarray | list[int]) -> tuple[Tensor, Tensor]:
        positions = torch.as_tensor(positions, dtype=torch.int64, device="cpu")
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(self):
            raise IndexError(f"positions outside 0...{len(self) - 1}")
        rows = (positions % len(self.indices)).to(self.device)
        return (self._compiled(positions) if self._on_host else self._batched(positions)), self.labels[rows]

    @property
    def _on_host(self) -> bool:
        """Whether the poses lie on the host."""
        return self._frames.device.type == "cpu"

    def _compiled(self, positions: Tensor) -> Tensor:
        """Made on the host, clip by clip; (N, 3, T, V, M) on the device."""
        persons, joints = self.store.poses.shape[1:3]
        x = torch.empty(len(positions), 3, self.window, joints * persons, pin_memory=self.device.type == "cuda")
        (kernels.ntu if self._is_ntu else kernels.ucla)(
            x.numpy(), self._frames.numpy(), self._starts.numpy(), self._lengths.numpy(), self._own, self._parent,
            positions.numpy(), self.train, self.modality.startswith("bone"), self.modality.endswith("motion"),
            np.uint64(self.seed % 2**64), np.uint64(self.epoch % 2**64),
        )  # fmt: skip
        return x.unflatten(3, (joints, persons)).to(self.device, non_blocking=True)

    def _batched(self, positions: Tensor) -> Tensor:
        """Made where the poses lie, all clips at once; (N, 3, T, V, M)."""
        positions = positions.to(self._frames.device)
        rows = positions % len(self.indices)
        if not len(rows):
            empty = self.store.poses.shape[2:0:-1]
            return torch.zeros(0, 3, self.window, *empty, device=positions.device)
        x = self._ntu(positions, rows) if self._is_ntu else self._ucla(positions, rows)  # (N, T, M, V, 3)
        if self.modality.startswith("bone"):
            x = x - x[..., self._parents, :]
        if self.modality.endswith("motion"):
            x = torch.cat([x[:, 1:] - x[:, :-1], torch.zeros_like(x[:, :1])], 1)
        return x.permute(0, 4, 1, 3, 2).contiguous()

    def _gather(self, frames: Tensor) -> Tensor:
        """(...,) frame numbers of the store to (..., M, V, 3)."""
        return self._frames.index_select(0, frames.flatten()).view(*frames.shape, *self.store.poses.shape[1:])

    def _ntu(self, positions: Tensor, rows: Tensor) -> Tensor:
        """Crop, interpolate to the window, rotate; (N, T, M, V, 3)."""
        valid = self._lengths[rows]
        if self.train:
            share, place = draws.uniform(self.seed, self.epoch, positions, draws.CROP, 2).unbind(1)
            wanted = ((0.5 + 0.5 * share) * valid).floor().long().clamp(min=NTU_MIN_CROP)
            length = torch.minimum(wanted, valid)
            start = draws.integers(place, valid - length + 1)
        else:
            start = ((1 - NTU_TEST_SHARE) * valid.double() / 2).long()
            length = valid - 2 * start
        step = (length.float() / self.window)[:, None]
        source = ((torch.arange(self.window, device=rows.device) + 0.5) * step - 0.5).clamp(min=0)  # (N, T)
        low = torch.minimum(source.long(), length[:, None] - 1)
        high = torch.minimum(low + 1, length[:, None] - 1)
        share = (source - low)[..., None, None, None]
        first = (self._starts[rows] + start)[:, None]
        x = torch.lerp(self._gather(first + low), self._gather(first + high), share)
        if self.train:
            angles = draws.uniform(self.seed, self.epoch, positions, draws.ROTATE, 3).float()
            turn = rotation((2 * angles - 1) * NTU_MAX_ANGLE)
            x = torch.einsum("ndc,ntmvc->ntmvd", turn, x)
        return x

    def _ucla(self, positions: Tensor, rows: Tensor) -> Tensor:
        """Centre, rotate, normalise over the whole clip, draw frames; (N, T, M, V, 3)."""
        starts, lengths = self._starts[rows], self._lengths[rows]
        ends = lengths.cumsum(0)
        clip = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), lengths)  # (all frames,)
        offset = ends - lengths
        frames = torch.arange(len(clip), device=rows.device) - offset[clip] + starts[clip]
        x = self._gather(frames)  # (all frames, M, V, 3)
        x = x - x[offset, 0, 1][clip][:, None, None]  # joint 2 of the first frame
        if self.train:
            angles = draws.uniform(self.seed, self.epoch, positions, draws.ROTATE, 2)
            degrees = draws.integers(angles, torch.tensor(2 * UCLA_MAX_ANGLE + 1, device=rows.device)) - UCLA_MAX_ANGLE
            about_x, about_y = (degrees * (math.pi / 180)).float().unbind(1)
            zero = torch.zeros_like(about_x)
            turn = rotation(torch.stack([zero, about_y, zero], 1)) @ rotation(torch.stack([about_x, zero, zero], 1))
            x = torch.einsum("fmvc,fcd->fmvd", x, turn[clip])
        low = torch.segment_reduce(x.amin((1, 2)), "min", lengths=lengths)[clip][:, None, None]
        high = torch.segment_reduce(x.amax((1, 2)), "max", lengths=lengths)[clip][:, None, None]
        extent = high - low
        x = torch.where(extent > 0, (x - low) / extent.clamp(min=torch.finfo(x.dtype).tiny) * 2 - 1, 0)
        if self.train:
            chosen = draws.distinct(
                self.seed, self.epoch, positions, draws.FRAMES, UCLA_COPIES * lengths, self.window
            ).div(UCLA_COPIES, rounding_mode="floor")
        else:
            last = (lengths - 1)[:, None]
            step = last.double() / max(self.window - 1, 1)
            chosen = (torch.arange(self.window, device=rows.device) * step).long()
            if self.window > 1:
                chosen[:, -1:] = last
        return x[offset[:, None] + chosen]


def rotation(angles: Tensor) -> Tensor:
    """Rotation matrices Rz Ry Rx, as the published feeders turn.

    Args:
        angles: (N, 3) rad, about x, y, z.

    Returns:
        (N, 3, 3), to be applied to column vectors.
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, -1).unflatten(-1, (3, 3))

    about_x = matrix(one, zero, zero, zero, cx, sx, zero, -sx, cx)
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_z = matrix(cz, sz, zero, -sz, cz, zero, zero, zero, one)
    return about_z @ about_y @ about_x
