"""CTR-GCN, the backbone: channel-wise topology refinement and multi-scale temporal convolution.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition",
ICCV 2021. The numbers are the published ones; the work is less: averages over T are taken before the 1x1
convolutions that feed the topology, the convolutions of the three subsets are one, the scale alpha, the bias and
the learned adjacency ride along in the one product that makes the channel-wise adjacency.
"""

import math

import torch
from torch import Tensor, nn

SUBSETS = 3


def _init_conv(weight: Tensor, bias: Tensor, fan_out: int) -> None:
    """He initialisation over the fan-out of one published convolution; zero bias."""
    nn.init.normal_(weight, 0, math.sqrt(2 / fan_out))
    nn.init.zeros_(bias)


def pointwise(channels_in: int, channels_out: int, groups_out: int = 1, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution that stands for `groups_out` published ones side by side."""
    conv = nn.Conv2d(channels_in, channels_out, 1, stride=(stride, 1))
    _init_conv(conv.weight, conv.bias, channels_out // groups_out)
    return conv


class SpatialUnit(nn.Module):
    """Graph convolution over joints with one adjacency per channel, refined from the sample itself.

    Args:
        channels_in, channels_out: C of input and output.
        adjacency: (3, V, V), the start of the learned adjacency.
    """

    def __init__(self, channels_in: int, channels_out: int, adjacency: Tensor):
        super().__init__()
        self.channels = channels_out
        self.rank = 8 if channels_in == 3 else channels_in // 8
        self.relate = pointwise(channels_in, 2 * SUBSETS * self.rank, 2 * SUBSETS)  # conv1 and conv2 of the subsets
        self.transform = pointwise(channels_in, SUBSETS * channels_out, SUBSETS)  # conv3
        self.expand_weight = nn.Parameter(torch.empty(SUBSETS, channels_out, self.rank))  # conv4
        self.expand_bias = nn.Parameter(torch.empty(SUBSETS, channels_out))
        _init_conv(self.expand_weight, self.expand_bias, channels_out)
        self.adjacency = nn.Parameter(adjacency.clone())  # PA
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(channels_out)
        nn.init.constant_(self.bn.weight, 1e-6)
        self.down = None
        if channels_in != channels_out:
            self.down = nn.Sequential(pointwise(channels_in, channels_out), nn.BatchNorm2d(channels_out))

    def topology(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, 3, C, V, V): alpha * conv4(tanh(q_u - p_v)) + PA, per subset and channel."""
        n, v = x.shape[0], x.shape[-1]
        pooled = self.relate(x.mean(2, keepdim=True))  # (N, 2*3*R, 1, V)
        q, p = pooled.view(n, 2, SUBSETS, self.rank, v).unbind(1)  # (N, 3, R, V) each
        distance = torch.tanh(q.unsqueeze(-1) - p.unsqueeze(-2)).flatten(-2)  # (N, 3, R, VV)
        # Two more rows make "+ PA" and "+ alpha * bias" part of the product.
        base = self.adjacency.to(distance.dtype).flatten(1)[None, :, None].expand(n, -1, -1, -1)  # (N, 3, 1, VV)
        rows = torch.cat([distance, base, torch.ones_like(base)], 2)  # (N, 3, R+2, VV)
        bias = (self.alpha * self.expand_bias).unsqueeze(-1)
        weight = torch.cat([self.alpha * self.expand_weight, torch.ones_like(bias), bias], -1)  # (3, C, R+2)
        return (weight @ rows).view(n, SUBSETS, self.channels, v, v)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T, V)."""
        n, _, t, v = x.shape
        adjacency = self.topology(x)
        values = self.transform(x).view(n, SUBSETS, self.channels, t, v)
        out = 0
        for a, value in zip(adjacency.unbind(1), values.unbind(1)):
            out = out + value @ a.transpose(-1, -2)  # sum over neighbours: (N, C, T, V) @ (N, C, V, V)
        out = self.bn(out) + (x if self.down is None else self.down(x))
        return torch.relu(out)


class TemporalUnit(nn.Module):
    """Four branches over T, each a quarter of the channels: two dilated convolutions, a max-pool, a 1x1."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        quarter = channels // 4
        self.reduce = pointwise(channels, 3 * quarter, 3)
        self.reduce_bn = nn.BatchNorm2d(3 * quarter)
        self.convs = nn.ModuleList()
        for dilation in (1, 2):
            conv = nn.Conv2d(
                quarter, quarter, (5, 1), stride=(stride, 1), padding=(2 * dilation, 0), dilation=(dilation, 1)
            )
            _init_conv(conv.weight, conv.bias, 5 * quarter)
            self.convs.append(conv)
        self.pool = nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0))
        self.skip = pointwise(channels, channels - 3 * quarter, stride=stride)
        self.bn = nn.BatchNorm2d(channels)
        for bn in (self.reduce_bn, self.bn):
            nn.init.normal_(bn.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C, T/stride, V), without the closing relu."""
        first, second, pooled = torch.relu(self.reduce_bn(self.reduce(x))).chunk(3, 1)
        branches = [self.convs[0](first), self.convs[1](second), self.pool(pooled), self.skip(x)]
        return self.bn(torch.cat(branches, 1))


class Block(nn.Module):
    """relu(temporal(spatial(x)) + residual(x))."""

    def __init__(self, channels_in: int, channels_out: int, adjacency: Tensor, stride: int = 1, residual: bool = True):
        super().__init__()
        self.spatial = SpatialUnit(channels_in, channels_out, adjacency)
        self.temporal = TemporalUnit(channels_out, stride)
        self.has_residual = residual
        self.shortcut = None
        if residual and (channels_in != channels_out or stride != 1):
            self.shortcut = nn.Sequential(
                pointwise(channels_in, channels_out, stride=stride), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, T, V) to (N, C, T/stride, V)."""
        out = self.temporal(self.spatial(x))
        if self.has_residual:
            out = out + (x if self.shortcut is None else self.shortcut(x))
        return torch.relu(out)


class CTRGCN(nn.Module):
    """Ten blocks: channels w w w w 2w 2w 2w 4w 4w 4w, temporal stride 2 at blocks 5 and 8.

    Args:
        adjacency: (3, V, V) float32.
        persons: M.
        width: w, 64 as published; a multiple of 8.
    """

    def __init__(self, adjacency: Tensor, persons: int, width: int = 64):
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"width must be a positive multiple of 8, not {width}; 64 is the published one")
        joints = adjacency.shape[-1]
        self.data_bn = nn.BatchNorm1d(persons * joints * 3)
        channels = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        self.blocks = nn.ModuleList(
            Block(cin, cout, adjacency, stride=2 if i in (4, 7) else 1, residual=i > 0)
            for i, (cin, cout) in enumerate(zip([3, *channels], channels))
        )
        self.channels = channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, V, M) to (N, M, 4w, T/4, V)."""
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)  # BatchNorm over M, V, C
        x = self.data_bn(x).view(n, m, v, c, t)
        x = x.permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)  # persons into the batch
        for block in self.blocks:
            x = block(x)
        return x.view(n, m, *x.shape[1:])  # (N, M, 4w, T/4, V)
