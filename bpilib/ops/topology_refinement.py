"""Channel-wise topology refinement, the part of CTR-GCN that takes the time: products with an adjacency per channel.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition",
ICCV 2021.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SUBSETS = 3


class TopologyRefinement(torch.autograd.Function):
    """conv3 of all subsets, conv4, and the sum over subsets and neighbours.

    The results of conv3 and conv4 are several times as large as x. For the backward pass the smaller of the two is
    kept and the larger computed again: little time for a third of a training step's memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        expand: Tensor,
        distance: Tensor,
        base: Tensor,
        shift: Tensor | None,
    ) -> Tensor:
        """Features of all neighbours, weighted and summed.

        conv3's bias comes as `bias` where the convolution adds it at no cost (see `by_convolution`), and otherwise as
        `shift`, what it amounts to in the result (see `bias_shift`): then it never touches conv3's large result.

        Args:
            x: (N, Cin, V, T).
            weight: (C*3, Cin, 1, 1) of conv3.
            bias: (C*3,) of conv3, or None.
            expand: (3, C, R+2), see `SpatialUnit.topology`.
            distance: (N, 3, R, VV), see `SpatialUnit.topology`.
            base: (3, VV), PA, neighbour before joint.
            shift: (N, C, V), added to every frame, or None.

        Returns:
            (N, C, V, T), channels-last.
        """
        dtype = distance.dtype
        x = x.to(dtype)
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        expand = expand.to(dtype)
        adjacency = TopologyRefinement.adjacency(expand, TopologyRefinement.rows(distance, base))
        values = TopologyRefinement.values(x, weight, bias)
        kept = (adjacency, None) if x.shape[2] <= x.shape[3] else (None, values)  # V joints, T frames
        ctx.save_for_backward(x, weight, bias, expand, distance, base, *kept)
        ctx.has_shift = shift is not None
        out = (adjacency.transpose(1, 2) @ values).view(x.shape[0], -1, *x.shape[2:])
        return _channels_last(out) if shift is None else _add_channels_last(out, shift.to(dtype).unsqueeze(-1))

    @staticmethod
    def rows(distance: Tensor, base: Tensor) -> Tensor:
        """(N, 3, R+2, VV): two more rows, which make "+ PA" and "+ alpha * bias" part of the product with `expand`."""
        base = base.to(distance.dtype)[None, :, None].expand(distance.shape[0], -1, -1, -1)
        return torch.cat([distance, base, torch.ones_like(base)], 2)

    @staticmethod
    def adjacency(expand: Tensor, rows: Tensor) -> Tensor:
        """(N*C, 3*V, V): each channel's adjacency, by subset and neighbour and by joint."""
        (n, _, _, vv), c = rows.shape, expand.shape[1]
        if torch.compiler.is_compiling():  # the compiler takes no `out` with gaps, and fuses the stack itself
            products = [torch.bmm(expand[k].expand(n, -1, -1), rows[:, k]) for k in range(SUBSETS)]
            out = torch.stack(products, 2)
        else:
            out = rows.new_empty(n, c, SUBSETS, vv)
            for k in range(SUBSETS):
                torch.bmm(expand[k].expand(n, -1, -1), rows[:, k], out=out[:, :, k])
        return out.view(n * c, -1, math.isqrt(vv))

    @staticmethod
    def values(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """conv3 of x: (N*C, 3*V, T), each channel's matrix contiguous."""
        n, _, v, t = x.shape
        if by_convolution(x):
            return F.conv2d(x.contiguous(), weight, bias).view(-1, SUBSETS * v, t)
        out = torch.bmm(weight.flatten(1).expand(n, -1, -1), _points(x).transpose(1, 2))  # (N, C*3, VT)
        out = out if bias is None else out.add_(bias[:, None])
        return out.view(-1, SUBSETS * v, t)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, that of x channels-last, as the others that x gets."""
        x, weight, bias, expand, distance, base, adjacency, values = ctx.saved_tensors
        x = x.contiguous() if by_convolution(x) else x  # once for both that want it so
        n, _, v, t = x.shape
        rows = TopologyRefinement.rows(distance, base)
        gradient = gradient.to(x.dtype).reshape(-1, v, t)
        adjacency = TopologyRefinement.adjacency(expand, rows) if adjacency is None else adjacency
        grad_values = (adjacency @ gradient).view(n, -1, v, t)
        values = TopologyRefinement.values(x, weight, bias) if values is None else values
        grad_adjacency = (values @ gradient.transpose(1, 2)).view(n, -1, SUBSETS, v * v)
        grad_expand, grad_distance, grad_base = TopologyRefinement.grad_topology(grad_adjacency, expand, rows, base)
        grad_x, grad_weight, grad_bias = TopologyRefinement.grad_values(
            x, weight, bias, grad_values, ctx.needs_input_grad[0]
        )
        grad_x = None if grad_x is None else _channels_last(grad_x)
        grad_shift = gradient.sum(2).view(n, -1, v) if ctx.has_shift else None
        return grad_x, grad_weight, grad_bias, grad_expand, grad_distance, grad_base, grad_shift

    @staticmethod
    def grad_topology(
        grad_adjacency: Tensor, expand: Tensor, rows: Tensor, base: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `expand`, `distance` and `base` from that of the adjacency, (N, C, 3, VV)."""
        by_subset = grad_adjacency.unbind(2)  # (N, C, VV) each
        grad_expand = torch.stack([(g @ rows[:, k].transpose(1, 2)).sum(0) for k, g in enumerate(by_subset)])
        weights = expand[:, None, :, :-1].transpose(2, 3)  # (3, 1, R+1, C): all but of the ones
        weights = weights.expand(-1, len(rows), -1, -1)
        grad_rows = torch.stack([torch.bmm(weights[k], g) for k, g in enumerate(by_subset)], 1)  # (N, 3, R+1, VV)
        return grad_expand, grad_rows[:, :, :-1], grad_rows[:, :, -1].sum(0, dtype=base.dtype)

    @staticmethod
    def grad_values(
        x: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor, with_x: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients of x, if it needs one, of weight and bias from that of conv3's result, (N, C*3, V, T)."""
        if by_convolution(x):
            return torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                [len(weight)],
                [1, 1],
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                1,
                [with_x, True, bias is not None],
            )
        flat = gradient.flatten(2)  # (N, C*3, VT)
        grad_x = torch.bmm(weight.flatten(1).T.expand(len(x), -1, -1), flat).view_as(x) if with_x else None
        grad_bias = None if bias is None else flat.sum(2).sum(0)
        return grad_x, (flat @ _points(x)).sum(0).view_as(weight), grad_bias


def by_convolution(x: Tensor) -> bool:
    """Whether a 1x1 convolution goes faster through the library of convolutions than through that of products."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def bias_shift(bias: Tensor, expand: Tensor, distance: Tensor, base: Tensor) -> Tensor:
    """What conv3's bias amounts to in the result: the sum over subsets of bias times the adjacency's column sums.

    sum_v A_vu (W x_v + b) = sum_v A_vu W x_v + b sum_v A_vu, and the last sum is small: neither x nor T is in it.

    Args:
        bias: (C*3,) of conv3.
        expand, distance, base: as of `TopologyRefinement.forward`.

    Returns:
        (N, C, V).
    """
    n, subsets = distance.shape[:2]
    v = math.isqrt(distance.shape[-1])
    sums = distance.unflatten(-1, (v, v)).sum(-2)  # over neighbours: (N, 3, R, V)
    of_base = base.to(distance.dtype).unflatten(-1, (v, v)).sum(-2)[None, :, None].expand(n, -1, -1, -1)
    rows = torch.cat([sums, of_base, torch.full_like(of_base, v)], 2)  # (N, 3, R+2, V)
    weight = expand * bias.view(-1, subsets).T.unsqueeze(-1)  # (3, C, R+2)
    weight = weight.transpose(0, 1).flatten(1).to(distance.dtype)  # (C, 3*(R+2))
    return torch.matmul(weight, rows.flatten(1, 2))


def _points(x: Tensor) -> Tensor:
    """(N, C, V, T) to (N, VT, C), a view where x lies channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _add_channels_last(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written channels-last in the same pass; y broadcasts."""
    if torch.compiler.is_compiling():
        return _channels_last(x + y)
    return torch.add(x, y, out=torch.empty_like(x, memory_format=torch.channels_last))
