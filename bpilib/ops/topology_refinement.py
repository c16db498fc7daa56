"""Channel-wise topology refinement, the part of CTR-GCN that takes the time: products with an adjacency per channel.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition",
ICCV 2021.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SUBSETS = 3


class TopologyRefinement(torch.autograd.Function):
    """conv3 of all subsets, conv4, and the sum over subsets and neighbours.

    What conv3 and conv4 give is several times as large as x. For the backward pass the smaller of the two is kept, the
    larger computed again: little time for a third of a training step's memory.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, expand: Tensor, distance: Tensor, base: Tensor) -> Tensor:
        """Features of all neighbours, weighted and summed.

        Args:
            x: (N, Cin, V, T).
            weight, bias: (C*3, Cin, 1, 1) and (C*3,) of conv3.
            expand, distance: (3, C, R+2) and (N, 3, R, VV), see `SpatialUnit.topology`.
            base: (3, VV), PA, neighbour before joint.

        Returns:
            (N, C, V, T).
        """
        x, weight, bias, expand = (tensor.to(distance.dtype) for tensor in (x, weight, bias, expand))
        adjacency = TopologyRefinement.adjacency(expand, TopologyRefinement.rows(distance, base))
        values = TopologyRefinement.values(x, weight, bias)
        kept = (adjacency, None) if x.shape[2] <= x.shape[3] else (None, values)  # V joints, T frames
        ctx.save_for_backward(x, weight, bias, expand, distance, base, *kept)
        out = adjacency.transpose(1, 2) @ values
        return _channels_last(out.view(x.shape[0], -1, *x.shape[2:]))

    @staticmethod
    def rows(distance: Tensor, base: Tensor) -> Tensor:
        """(N, 3, R+2, VV): two more rows, which make "+ PA" and "+ alpha * bias" part of the product with `expand`."""
        base = base.to(distance.dtype)[None, :, None].expand(distance.shape[0], -1, -1, -1)
        return torch.cat([distance, base, torch.ones_like(base)], 2)

    @staticmethod
    def adjacency(expand: Tensor, rows: Tensor) -> Tensor:
        """(N*C, 3*V, V): each channel's adjacency, by subset and neighbour and by joint; written in place at once."""
        (n, _, _, vv), c = rows.shape, expand.shape[1]
        out = rows.new_empty(n, c, SUBSETS, vv)
        for k in range(SUBSETS):
            torch.bmm(expand[k].expand(n, -1, -1), rows[:, k], out=out[:, :, k])
        return out.view(n * c, -1, math.isqrt(vv))

    @staticmethod
    def values(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(N*C, 3*V, T), each channel's matrix contiguous."""
        n, _, v, t = x.shape
        if _by_convolution(x):
            return F.conv2d(x.contiguous(), weight, bias).view(-1, SUBSETS * v, t)
        out = torch.bmm(weight.flatten(1).expand(n, -1, -1), _points(x).transpose(1, 2))  # (N, C*3, VT)
        return out.add_(bias[:, None]).view(-1, SUBSETS * v, t)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, that of x channels-last, as the others that x gets."""
        x, weight, bias, expand, distance, base, adjacency, values = ctx.saved_tensors
        x = x.contiguous() if _by_convolution(x) else x  # once for both that want it so
        n, _, v, t = x.shape
        rows, gradient = TopologyRefinement.rows(distance, base), gradient.to(x.dtype).reshape(-1, v, t)
        adjacency = TopologyRefinement.adjacency(expand, rows) if adjacency is None else adjacency
        grad_values = (adjacency @ gradient).view(n, -1, v, t)
        values = TopologyRefinement.values(x, weight, bias) if values is None else values
        grad_adjacency = (values @ gradient.transpose(1, 2)).view(n, -1, SUBSETS, v * v).unbind(2)  # (N, C, VV) each
        grad_expand = torch.stack([(of @ rows[:, k].transpose(1, 2)).sum(0) for k, of in enumerate(grad_adjacency)])
        weights = expand[:, None, :, :-1].transpose(2, 3).expand(-1, n, -1, -1)  # (3, N, R+1, C): all but of the ones
        of_subsets = [torch.bmm(weights[k], of) for k, of in enumerate(grad_adjacency)]
        grad_rows = torch.stack(of_subsets, 1)  # (N, 3, R+1, VV)
        grad_base = grad_rows[:, :, -1].sum(0, dtype=base.dtype)
        grad_x, *grad_conv3 = TopologyRefinement.grad_values(x, weight, grad_values, ctx.needs_input_grad[0])
        grad_x = None if grad_x is None else _channels_last(grad_x)
        return grad_x, *grad_conv3, grad_expand, grad_rows[:, :, :-1], grad_base

    @staticmethod
    def grad_values(x: Tensor, weight: Tensor, gradient: Tensor, with_x: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of x, if it needs one, of weight and bias from that of conv3's result, (N, C*3, V, T)."""
        if _by_convolution(x):
            return torch.ops.aten.convolution_backward(
                gradient, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [with_x, True, True]
            )
        flat, back = gradient.flatten(2), weight.flatten(1).T.expand(len(x), -1, -1)  # (N, C*3, VT), (N, Cin, C*3)
        grad_x = torch.bmm(back, flat).view_as(x) if with_x else None
        return grad_x, (flat @ _points(x)).sum(0).view_as(weight), flat.sum(2).sum(0)


def _by_convolution(x: Tensor) -> bool:
    """Whether a 1x1 convolution goes faster through the library of convolutions than through that of products."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _points(x: Tensor) -> Tensor:
    """(N, C, V, T) to (N, VT, C), a view where x lies channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
