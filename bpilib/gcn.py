"""CTR-GCN, the backbone: channel-wise topology refinement and multi-scale temporal convolution.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition",
ICCV 2021. The results are the published ones, with less computation: averages over T are taken before the 1x1
convolutions that feed the topology, the convolutions of the three subsets are one, and one product sums over subsets
and neighbours; scale, bias and the learned adjacency are part of the convolution that makes the topology.

Features are (N, C, V, T) here, joints before frames, so that subset and joint are one axis of that product. Their
memory format is channels-last, which is fastest for convolutions, except in the product itself, which needs the matrix
of each channel to be contiguous.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bpilib.ops.topology_refinement import SUBSETS, TopologyRefinement, bias_shift, by_convolution


def _init_conv(weight: Tensor, bias: Tensor, fan_out: int) -> None:
    """He initialisation over the fan-out of one published convolution; zero bias."""
    nn.init.normal_(weight, 0, math.sqrt(2 / fan_out))
    nn.init.zeros_(bias)


class NarrowPointwise(nn.Conv2d):
    """A 1x1 convolution of stride (1, s) as one of stride 1 on every s-th frame.

    With fewer input channels than a vector register holds (16 floats under AVX-512), oneDNN's backward pass of the
    strided, channels-last form writes beyond its buffer (github.com/uxlfoundation/oneDNN/issues/6035). Wider ones are
    not affected; they keep the stride, which saves a copy of x.
    """

    CHANNELS = 16

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, V, T) to (N, C, V, T/s)."""
        return F.conv2d(x[..., :: self.stride[1]], self.weight, self.bias)


def make_pointwise(channels_in: int, channels_out: int, groups_out: int = 1, stride: int = 1) -> nn.Conv2d:
    """Make a 1x1 convolution that replaces `groups_out` published ones with the same input."""
    narrow = stride > 1 and channels_in < NarrowPointwise.CHANNELS
    conv = (NarrowPointwise if narrow else nn.Conv2d)(channels_in, channels_out, 1, stride=(1, stride))
    _init_conv(conv.weight, conv.bias, channels_out // groups_out)
    return conv


class _Uncounted(nn.modules.batchnorm._BatchNorm):
    """A BatchNorm that does not count batches; `CTRGCN.forward` counts for all of them in one call.

    The counter `num_batches_tracked` is part of the state dict of PyTorch and of published weights, but is not used.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same, normalised over all but C."""
        if not self.training:
            return super().forward(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum or 0.0, self.eps
        )


class BatchNorm1d(_Uncounted, nn.BatchNorm1d):
    """BatchNorm over (N, C, T)."""


class BatchNorm2d(_Uncounted, nn.BatchNorm2d):
    """BatchNorm over (N, C, V, T)."""


def _read_affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale and shift (C,) that a BatchNorm applies in eval mode."""
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - scale * bn.running_mean


class Affine(nn.Module):
    """Scale (optional) and shift of each channel of (N, C, V, T), for a BatchNorm that can't be folded."""

    def __init__(self, scale: Tensor | None, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", None if scale is None else scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, V, T) to the same, in the precision of x."""
        shift = self.shift.to(x.dtype)
        return x + shift if self.scale is None else torch.addcmul(shift, x, self.scale.to(x.dtype))


def _fold(pair: nn.Sequential | None) -> nn.Conv2d | None:
    """Fold a convolution and its BatchNorm into one convolution."""
    return None if pair is None else fuse_conv_bn_eval(*pair)


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
        self.relate = make_pointwise(channels_in, 2 * SUBSETS * self.rank, 2 * SUBSETS)  # conv1 and conv2
        self.transform = make_pointwise(channels_in, channels_out * SUBSETS, SUBSETS)  # conv3, channels (C, 3)
        self.expand_weight = nn.Parameter(torch.empty(SUBSETS, channels_out, self.rank))  # conv4
        self.expand_bias = nn.Parameter(torch.empty(SUBSETS, channels_out))
        _init_conv(self.expand_weight, self.expand_bias, channels_out)
        self.adjacency = nn.Parameter(adjacency.clone())  # PA
        self.alpha = nn.Parameter(torch.zeros(1))
        self.triton_refinement: type[torch.autograd.Function] | None = None  # see `CTRGCN.use_triton`
        self.bn = BatchNorm2d(channels_out)
        nn.init.constant_(self.bn.weight, 1e-6)
        self.down = None
        if channels_in != channels_out:
            self.down = nn.Sequential(make_pointwise(channels_in, channels_out), BatchNorm2d(channels_out))

    def topology(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, Cin, V, T) to alpha * conv4 (3, C, R+2) and tanh(q_u - p_v) (N, 3, R, VV), neighbour v before joint u.

        conv4 has two more columns, for PA and for its bias; see `bpilib.ops.topology_refinement`.
        """
        n, v = x.shape[0], x.shape[2]
        pooled = self.relate(F.avg_pool2d(x, (1, x.shape[3])))  # (N, 2*3*R, V, 1)
        q, p = pooled.view(n, 2, SUBSETS, self.rank, v).unbind(1)  # (N, 3, R, V) each
        distance = torch.tanh(q.unsqueeze(-2) - p.unsqueeze(-1)).flatten(-2)  # (N, 3, R, VV)
        bias = (self.alpha * self.expand_bias).unsqueeze(-1)
        weight = torch.cat([self.alpha * self.expand_weight, torch.ones_like(bias), bias], -1)  # (3, C, R+2)
        return weight, distance

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, V, T) to (N, C, V, T)."""
        weight, bias, base = self.transform.weight, self.transform.bias, self.adjacency.transpose(1, 2).flatten(1)
        expand, distance = self.topology(x)
        shift = None
        if not by_convolution(distance):
            shift = bias_shift(bias, expand, distance, base)
            bias = None
        if self.triton_refinement is None:
            out = TopologyRefinement.apply(x, weight, bias, expand, distance, base, shift)
        else:
            out = self.triton_refinement.apply(x, weight, expand, distance, base, shift)
        return torch.relu_(self.bn(out) + (x if self.down is None else self.down(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold each BatchNorm into the layer before it, for inference."""
        scale, shift = _read_affine(self.bn)
        each = scale.repeat_interleave(SUBSETS)
        self.transform.weight.mul_(each[:, None, None, None])
        self.transform.bias.mul_(each)
        self.down, self.bn = _fold(self.down), Affine(None, shift)


class MaxPool(nn.MaxPool2d):
    """Maximum over three frames, every `stride` frames."""

    def __init__(self, stride: int):
        super().__init__((1, 3), stride=(1, stride), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, V, T) to (N, C, V, T/stride)."""
        if not torch.are_deterministic_algorithms_enabled():
            return super().forward(x)
        windows = F.pad(x, (1, 1), value=-math.inf).unfold(-1, 3, self.stride[1])  # max_pool2d's backward is not
        return windows.max(-1).values


class TemporalUnit(nn.Module):
    """Four branches over T with a quarter of the channels each: two dilated convolutions, max-pooling, a 1x1."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        quarter = channels // 4
        self.reduce = make_pointwise(channels, 3 * quarter, 3)
        self.reduce_bn = BatchNorm2d(3 * quarter)
        self.convs = nn.ModuleList()
        for dilation in (1, 2):
            conv = nn.Conv2d(
                quarter, quarter, (1, 5), stride=(1, stride), padding=(0, 2 * dilation), dilation=(1, dilation)
            )
            _init_conv(conv.weight, conv.bias, 5 * quarter)
            self.convs.append(conv)
        self.pool = MaxPool(stride)
        self.skip = make_pointwise(channels, channels - 3 * quarter, stride=stride)
        self.bn = BatchNorm2d(channels)
        for bn in (self.reduce_bn, self.bn):
            nn.init.normal_(bn.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, V, T) to (N, C, V, T/stride), without the final relu."""
        first, second, pooled = torch.relu_(self.reduce_bn(self.reduce(x))).chunk(3, 1)
        branches = [self.convs[0](first), self.convs[1](second), self.pool(pooled), self.skip(x)]
        return self.bn(torch.cat(branches, 1))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold each BatchNorm into the layer before it, for inference; that after the pooling becomes an `Affine`."""
        self.reduce, self.reduce_bn = fuse_conv_bn_eval(self.reduce, self.reduce_bn), nn.Identity()
        scale, shift = (values.chunk(4) for values in _read_affine(self.bn))
        for conv, a, b in zip((*self.convs, self.skip), (scale[0], scale[1], scale[3]), (shift[0], shift[1], shift[3])):
            conv.weight.mul_(a[:, None, None, None])
            conv.bias.mul_(a).add_(b)
        self.pool = nn.Sequential(self.pool, Affine(scale[2], shift[2]))
        self.bn = nn.Identity()


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
                make_pointwise(channels_in, channels_out, stride=stride), BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, V, T) to (N, C, V, T/stride)."""
        out = self.temporal(self.spatial(x))
        if self.has_residual:
            out = out + (x if self.shortcut is None else self.shortcut(x))
        return torch.relu_(out)

    def fold(self) -> None:
        """Fold each BatchNorm into the layer before it, for inference."""
        self.spatial.fold()
        self.temporal.fold()
        self.shortcut = _fold(self.shortcut)


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
        self.data_bn = BatchNorm1d(persons * joints * 3)
        channels = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        self.blocks = nn.ModuleList(
            Block(cin, cout, adjacency, stride=2 if i in (4, 7) else 1, residual=i > 0)
            for i, (cin, cout) in enumerate(zip([3, *channels], channels))
        )
        self.channels = channels[-1]
        self.find_norms()

    def use_triton(self) -> None:
        """From now on refine topologies by the fused kernels, which run on GPUs alone (`ops.triton_refinement`)."""
        from bpilib.ops.triton_refinement import TritonRefinement  # not every platform has Triton

        for block in self.blocks:
            block.spatial.triton_refinement = TritonRefinement

    def find_norms(self) -> None:
        """List the BatchNorms whose batches are counted; to be called again after some were replaced."""
        self._norms: list[_Uncounted] = [norm for norm in self.modules() if isinstance(norm, _Uncounted)]

    def _count_batch(self) -> None:
        """Count the batch for all BatchNorms at once."""
        if self.training:
            torch._foreach_add_([norm.num_batches_tracked for norm in self._norms], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, V, M) to (N, M, 4w, T/4, V)."""
        self._count_batch()
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)  # BatchNorm over M, V, C
        x = self.data_bn(x).view(n * m, v, c, t).transpose(1, 2)  # persons into the batch: (N*M, C, V, T)
        for block in self.blocks:
            x = block(x)
        return x.unflatten(0, (n, m)).transpose(3, 4)  # (N, M, 4w, T/4, V)
