"""Networks and feeders in the published order of operations, for comparison: what `bpilib` is measured against.

Written from the description in the papers: three subsets one after the other, averages over time after the
convolutions, every branch a module of its own, one loop a part. It takes the weights of a network of ours by their
published names (`bpilib.reference.reference_state_dict`), so that both compute the same function.
"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpilib.data import SkeletonStore
from bpilib.model import BPIClassifier, CTRGCNClassifier, GAPClassifier, Output
from bpilib.reference import CLIP_NAME, reference_state_dict


class Refine(nn.Module):
    """One subset's channel-wise topology and the product with it."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        rank = 8 if channels_in == 3 else channels_in // 8
        self.conv1 = nn.Conv2d(channels_in, rank, 1)
        self.conv2 = nn.Conv2d(channels_in, rank, 1)
        self.conv3 = nn.Conv2d(channels_in, channels_out, 1)
        self.conv4 = nn.Conv2d(rank, channels_out, 1)

    def forward(self, x: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T, V)."""
        q, p, values = self.conv1(x).mean(2), self.conv2(x).mean(2), self.conv3(x)
        d = torch.tanh(q.unsqueeze(-1) - p.unsqueeze(-2))  # (N, R, V, V)
        a = self.conv4(d) * alpha + adjacency  # (N, C, V, V)
        return torch.einsum("ncuv,nctv->nctu", a, values)


class Spatial(nn.Module):
    """The three subsets, summed."""

    def __init__(self, channels_in: int, channels_out: int, joints: int):
        super().__init__()
        self.convs = nn.ModuleList(Refine(channels_in, channels_out) for _ in range(3))
        self.PA = nn.Parameter(torch.zeros(3, joints, joints))
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(channels_out)
        self.down = nn.Identity()
        if channels_in != channels_out:
            self.down = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T, V)."""
        total = None
        for conv, adjacency in zip(self.convs, self.PA):
            part = conv(x, adjacency, self.alpha)
            total = part if total is None else total + part
        return torch.relu(self.bn(total) + self.down(x))


class Convolution(nn.Module):
    """A convolution over T and its BatchNorm."""

    def __init__(self, channels_in: int, channels_out: int, taps: int, stride: int, dilation: int = 1):
        super().__init__()
        pad = dilation * (taps - 1) // 2
        self.conv = nn.Conv2d(channels_in, channels_out, (taps, 1), (stride, 1), (pad, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T/stride, V)."""
        return self.bn(self.conv(x))


class Temporal(nn.Module):
    """Four branches one after the other."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        quarter = channels // 4

        def reduce() -> list[nn.Module]:
            return [nn.Conv2d(channels, quarter, 1), nn.BatchNorm2d(quarter), nn.ReLU()]

        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        self.branches = nn.ModuleList([
            nn.Sequential(*reduce(), Convolution(quarter, quarter, 5, stride, 1)),
            nn.Sequential(*reduce(), Convolution(quarter, quarter, 5, stride, 2)),
            nn.Sequential(*reduce(), pool, nn.BatchNorm2d(quarter)),
            nn.Sequential(nn.Conv2d(channels, quarter, 1, (stride, 1)), nn.BatchNorm2d(quarter)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C, T/stride, V)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class PlainBlock(nn.Module):
    """relu(temporal(spatial(x)) + residual(x))."""

    def __init__(self, channels_in: int, channels_out: int, joints: int, stride: int, first: bool):
        super().__init__()
        self.gcn1 = Spatial(channels_in, channels_out, joints)
        self.tcn1 = Temporal(channels_out, stride)
        self.first = first
        changes = channels_in != channels_out or stride != 1
        self.residual = Convolution(channels_in, channels_out, 1, stride) if changes and not first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T/stride, V)."""
        out = self.tcn1(self.gcn1(x))
        return torch.relu(out if self.first else out + self.residual(x))


class PlainNetwork(nn.Module):
    """CTR-GCN, GAP or BPI as `model` is, with its weights."""

    def __init__(self, model: CTRGCNClassifier):
        super().__init__()
        joints, persons = model.skeleton.num_joints, model.num_persons
        width, embed = model.backbone.channels // 4, 0
        self.register_buffer("bone_operator", model.bone_operator, persistent=False)
        self.data_bn = nn.BatchNorm1d(persons * joints * 3)
        channels = [3] + [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        for i in range(10):
            stride = 2 if i in (4, 7) else 1
            setattr(self, f"l{i + 1}", PlainBlock(channels[i], channels[i + 1], joints, stride, i == 0))
        self.fc = nn.Linear(4 * width, model.num_classes)
        self.joints_of = getattr(model, "part_joints", {})
        self.exponential = isinstance(model, BPIClassifier)
        if isinstance(model, GAPClassifier):
            embed = model.global_head.out_features
            self.logit_scale = nn.Parameter(torch.zeros(1 + len(model.parts)))
            self.linear_head = nn.ModuleDict({CLIP_NAME: nn.Linear(4 * width, embed)})
        if self.exponential:
            self.cross_part = nn.ModuleDict({f"CA{i}": PlainAttention(4 * width, embed) for i in (1, 2, 3)})
        elif self.joints_of:
            self.part_list = nn.ModuleList(nn.Linear(4 * width, embed) for _ in self.joints_of)
        state, own = reference_state_dict(model), self.state_dict()
        self.load_state_dict({name: tensor.reshape(own[name].shape) for name, tensor in state.items()})

    def forward(self, x: Tensor) -> Output:
        """(N, 3, T, V, M) to what `bpilib.model` returns."""
        n, c, t, v, m = x.shape
        if self.bone_operator is not None:
            x = torch.einsum("uv,nctvm->nctum", self.bone_operator, x)
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n, m * v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for i in range(10):
            x = getattr(self, f"l{i + 1}")(x)
        x = x.view(n, m, x.shape[1], x.shape[2], v)  # (N, M, C, T/4, V)
        pooled = x.float().flatten(3).mean(3).mean(1)  # (N, C)
        logits = self.fc(pooled)
        if not self.joints_of:
            return Output(logits)
        whole = self.linear_head[CLIP_NAME](pooled)
        if self.exponential:
            tokens = x.float().mean((1, 3)).transpose(1, 2)  # (N, V, C)
            parts = list(self.joints_of.values())
            embeddings = [
                self.cross_part[f"CA{i + 1}"](
                    tokens[:, list(parts[i])], torch.cat([tokens[:, list(p)] for p in parts if p is not parts[i]], 1)
                )
                for i in range(3)
            ]
            return Output(logits, whole, torch.stack(embeddings, 1), self.logit_scale.exp())
        order = ("head", "hand", "foot", "hip")
        embeddings = [
            self.part_list[order.index(name)](x[..., list(joints)].float().mean((1, 3, 4)))
            for name, joints in self.joints_of.items()
        ]
        return Output(logits, whole, torch.stack(embeddings, 1), self.logit_scale)


class PlainAttention(nn.Module):
    """One part's cross-attention, head by head."""

    def __init__(self, channels: int, embed: int):
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Linear(channels, channels) for _ in range(3))
        self.layer_norm = nn.LayerNorm(channels, eps=1e-6)
        self.proj = nn.Linear(channels, embed)

    def forward(self, part: Tensor, others: Tensor) -> Tensor:
        """(N, Vq, C) and (N, Vk, C) to (N, D)."""
        size = part.shape[-1] // 8
        heads = []
        for q, k, v in zip(*(t.split(size, -1) for t in (self.wq(part), self.wk(others), self.wv(others)))):
            heads.append(torch.softmax(q @ k.transpose(1, 2) / size**0.5, -1) @ v)
        return self.proj(self.layer_norm(torch.cat(heads, -1) + part).mean(1))


def plain_batch(store: SkeletonStore, indices: np.ndarray, modality: str = "joint") -> tuple[Tensor, Tensor]:
    """A training batch made clip by clip, as the published feeders do in each loader worker; bones by CTR-GCN's rule.

    Args:
        store: of NTU's or NW-UCLA's skeleton.
        indices: (N,) clips.
        modality: joint, bone, joint_motion or bone_motion.

    Returns:
        x (N, 3, T, V, M) float32 and labels (N,).
    """
    one = _ntu_clip if store.skeleton.name == "ntu" else _ucla_clip
    clips = []
    for index in indices:
        x = one(store.sample(int(index)))  # (T, M, V, 3)
        if modality.startswith("bone"):
            bones = np.zeros_like(x)
            for child, parent in store.skeleton.bones:
                bones[:, :, child] = x[:, :, child] - x[:, :, parent]
            x = bones
        if modality.endswith("motion"):
            motion = np.zeros_like(x)
            motion[:-1] = x[1:] - x[:-1]
            x = motion
        clips.append(torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 2, 1), np.float32)))
    return torch.stack(clips), torch.as_tensor([int(store.labels[index]) for index in indices])


def _turn(x: float, y: float, z: float) -> np.ndarray:
    """Rz Ry Rx, (3, 3), for column vectors."""
    about_x = np.array([[1, 0, 0], [0, np.cos(x), np.sin(x)], [0, -np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), np.sin(z), 0], [-np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _ntu_clip(poses: np.ndarray) -> np.ndarray:
    """Crop, interpolate to 64 frames, rotate."""
    frames, persons, joints, _ = poses.shape
    length = min(max(int(np.floor(random.uniform(0.5, 1) * frames)), 64), frames)
    start = random.randint(0, frames - length)
    crop = torch.from_numpy(poses[start : start + length].copy()).float()
    rows = crop.permute(1, 2, 3, 0).reshape(1, 1, -1, length)
    rows = F.interpolate(rows, size=(rows.shape[2], 64), mode="bilinear", align_corners=False)
    x = rows.reshape(persons, joints, 3, 64).permute(3, 0, 1, 2)
    turn = torch.from_numpy(_turn(*np.random.uniform(-0.3, 0.3, 3))).float()
    turned = torch.matmul(turn[None].repeat(64, 1, 1), x.reshape(64, -1, 3).transpose(1, 2)).transpose(1, 2)
    return turned.reshape(64, persons, joints, 3).numpy()


def _ucla_clip(poses: np.ndarray) -> np.ndarray:
    """Centre, rotate, normalise over the clip, draw 52 frames."""
    clip = poses[:, 0].astype(np.float64)  # (L, 20, 3)
    clip = clip - clip[0, 1]
    x, y = (math.radians(random.randint(-60, 60)) for _ in range(2))
    flat = (clip.reshape(-1, 3) @ (_turn(0, y, 0) @ _turn(x, 0, 0))).reshape(clip.shape)
    low, high = flat.min((0, 1)), flat.max((0, 1))
    flat = (flat - low) / np.where(high > low, high - low, 1) * 2 - 1
    every = list(np.arange(len(flat))) * 100
    chosen = sorted(random.sample(every, 52))
    return flat[chosen][:, None]
