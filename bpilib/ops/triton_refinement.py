"""`TopologyRefinement` as Triton kernels: the large results of conv3 and conv4 never leave the GPU's registers.

Never measured on a GPU so far, so off unless the parameter `kernel` says triton. What it computes is tested against
`TopologyRefinement` in Triton's interpreter, on a CPU.

Of x, the result z and the gradients nothing larger than F = N*C*V*T numbers is read or written, where the plain form
writes and reads conv3's result of 3F and the adjacency of 3NCVV several times. Both are computed again, tile by tile,
in each of the four kernels. In the kernels' names: n sample, c channel of z, i channel of x, k subset, u neighbour,
v joint, t frame, r row of the topology.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bpilib.ops.topology_refinement import SUBSETS, TopologyRefinement

CHANNELS, FRAMES, INNER = 32, 16, 32  # of a tile: channels of z, frames, channels of x
SPLITS = 16  # parts of the batch whose gradients of conv3's weight are added up apart
SMALLEST = 16  # side of a matrix that tl.dot takes


@triton.jit
def _load_values(x, weight, n, c, i_count, u, k, t, c_count, t_count, x_n, x_i, x_v, x_t, subsets: tl.constexpr,
                 inner: tl.constexpr):  # fmt: skip
    """conv3's result (c, t) of subset k at neighbour u."""
    values = tl.zeros((c.shape[0], t.shape[0]), tl.float32)
    for first in range(0, i_count, inner):
        i = first + tl.arange(0, inner)
        here = i < i_count
        w = tl.load(weight + (c * subsets + k)[:, None] * i_count + i[None, :],
                    (c < c_count)[:, None] & here[None, :], 0.0)  # fmt: skip
        part = tl.load(x + n * x_n + i[:, None] * x_i + u * x_v + t[None, :] * x_t,
                       here[:, None] & (t < t_count)[None, :], 0.0)  # fmt: skip
        values = tl.dot(w, part, values, input_precision="ieee")
    return values


@triton.jit
def _load_topology(expand, rows, n, c, r, v, u, k, c_count, r_count, v_count, subsets: tl.constexpr):
    """The adjacency (c, v) of subset k from neighbour u to every joint."""
    e = tl.load(expand + (k * c_count + c)[:, None] * r_count + r[None, :],
                (c < c_count)[:, None] & (r < r_count)[None, :], 0.0)  # fmt: skip
    row = tl.load(rows + (((n * subsets + k) * r_count + r)[:, None] * v_count + u) * v_count + v[None, :],
                  (r < r_count)[:, None] & (v < v_count)[None, :], 0.0)  # fmt: skip
    return tl.dot(e, row, input_precision="ieee")


@triton.jit
def _load_joints(z, n, c, v, t, c_count, v_count, t_count, z_n, z_c, z_v, z_t):
    """(c, v, t) of a tensor as large as the result, float32."""
    mask = (c < c_count)[:, None, None] & (v < v_count)[None, :, None] & (t < t_count)[None, None, :]
    places = z + n * z_n + c[:, None, None] * z_c + v[None, :, None] * z_v + t[None, None, :] * z_t
    return tl.load(places, mask, 0.0).to(tl.float32)


@triton.jit
def _forward_kernel(x, weight, expand, rows, shift, z, i_count, c_count, v_count, t_count, r_count, x_n, x_i, x_v, x_t,
                    z_n, z_c, z_v, z_t, with_shift: tl.constexpr, subsets: tl.constexpr, channels: tl.constexpr,
                    joints: tl.constexpr, frames: tl.constexpr, ranks: tl.constexpr, inner: tl.constexpr):  # fmt: skip
    """z = sum over k, u of adjacency times conv3's result, and the shift."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * channels + tl.arange(0, channels)
    t = tl.program_id(2) * frames + tl.arange(0, frames)
    v, r = tl.arange(0, joints), tl.arange(0, ranks)
    total = tl.zeros((channels, joints, frames), tl.float32)
    for u in range(v_count):
        for k in tl.static_range(subsets):
            values = _load_values(x, weight, n, c, i_count, u, k, t, c_count, t_count, x_n, x_i, x_v, x_t, subsets,
                                  inner)  # fmt: skip
            adjacency = _load_topology(expand, rows, n, c, r, v, u, k, c_count, r_count, v_count, subsets)
            total += adjacency[:, :, None] * values[:, None, :]
    if with_shift:
        added = tl.load(shift + (n * c_count + c)[:, None] * v_count + v[None, :],
                        (c < c_count)[:, None] & (v < v_count)[None, :], 0.0)  # fmt: skip
        total += added.to(tl.float32)[:, :, None]
    mask = (c < c_count)[:, None, None] & (v < v_count)[None, :, None] & (t < t_count)[None, None, :]
    places = z + n * z_n + c[:, None, None] * z_c + v[None, :, None] * z_v + t[None, None, :] * z_t
    tl.store(places, total.to(z.dtype.element_ty), mask)


@triton.jit
def _grad_x_kernel(gradient, weight, expand, rows, grad_x, i_count, c_count, v_count, t_count, r_count, g_n, g_c, g_v,
                   g_t, x_n, x_i, x_v, x_t, subsets: tl.constexpr, channels: tl.constexpr, joints: tl.constexpr,
                   frames: tl.constexpr, ranks: tl.constexpr, wide: tl.constexpr):  # fmt: skip
    """At neighbour u: the gradient of conv3's result, then through conv3's weight."""
    n = tl.program_id(0).to(tl.int64)
    u = tl.program_id(1)
    t = tl.program_id(2) * frames + tl.arange(0, frames)
    v, r, i = tl.arange(0, joints), tl.arange(0, ranks), tl.arange(0, wide)
    total = tl.zeros((wide, frames), tl.float32)
    for first in range(0, c_count, channels):
        c = first + tl.arange(0, channels)
        g = _load_joints(gradient, n, c, v, t, c_count, v_count, t_count, g_n, g_c, g_v, g_t)
        for k in tl.static_range(subsets):
            adjacency = _load_topology(expand, rows, n, c, r, v, u, k, c_count, r_count, v_count, subsets)
            of_values = tl.sum(adjacency[:, :, None] * g, 1)  # (c, t)
            w = tl.load(weight + (c * subsets + k)[None, :] * i_count + i[:, None],
                        (c < c_count)[None, :] & (i < i_count)[:, None], 0.0)  # fmt: skip
            total = tl.dot(w, of_values.to(w.dtype), total, input_precision="ieee")
    mask = (i < i_count)[:, None] & (t < t_count)[None, :]
    tl.store(grad_x + n * x_n + i[:, None] * x_i + u * x_v + t[None, :] * x_t, total.to(grad_x.dtype.element_ty), mask)


@triton.jit
def _grad_weight_kernel(x, gradient, expand, rows, grad_weight, n_count, i_count, c_count, v_count, t_count, r_count,
                        x_n, x_i, x_v, x_t, g_n, g_c, g_v, g_t, splits: tl.constexpr, subsets: tl.constexpr,
                        channels: tl.constexpr, joints: tl.constexpr, frames: tl.constexpr, ranks: tl.constexpr,
                        inner: tl.constexpr):  # fmt: skip
    """conv3's weight: one part of the batch, one subset, one tile of channels of z and of x."""
    split, k = tl.program_id(0) // subsets, tl.program_id(0) % subsets
    zero = tl.program_id(0).to(tl.int64) * 0  # places need 64 bits
    c = tl.program_id(1) * channels + tl.arange(0, channels)
    i = tl.program_id(2) * inner + tl.arange(0, inner)
    v, r = tl.arange(0, joints), tl.arange(0, ranks)
    total = tl.zeros((channels, inner), tl.float32)
    for sample in range(split, n_count, splits):
        n = sample + zero
        for u in range(v_count):
            adjacency = _load_topology(expand, rows, n, c, r, v, u, k, c_count, r_count, v_count, subsets)
            for start in range(0, t_count, frames):
                t = start + tl.arange(0, frames)
                g = _load_joints(gradient, n, c, v, t, c_count, v_count, t_count, g_n, g_c, g_v, g_t)
                of_values = tl.sum(adjacency[:, :, None] * g, 1)  # (c, t)
                part = tl.load(x + n * x_n + i[None, :] * x_i + u * x_v + t[:, None] * x_t,
                               (i < i_count)[None, :] & (t < t_count)[:, None], 0.0)  # fmt: skip
                total = tl.dot(of_values.to(part.dtype), part, total, input_precision="ieee")
    places = grad_weight + (split * c_count + c)[:, None] * subsets * i_count + k * i_count + i[None, :]
    tl.store(places, total, (c < c_count)[:, None] & (i < i_count)[None, :])


@triton.jit
def _grad_adjacency_kernel(x, weight, gradient, grad_adjacency, i_count, c_count, v_count, t_count, x_n, x_i, x_v, x_t,
                           g_n, g_c, g_v, g_t, subsets: tl.constexpr, channels: tl.constexpr, joints: tl.constexpr,
                           frames: tl.constexpr, inner: tl.constexpr):  # fmt: skip
    """The adjacency of one subset from one neighbour: conv3's result times the gradient, summed over frames."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * channels + tl.arange(0, channels)
    k, u = tl.program_id(2) // v_count, tl.program_id(2) % v_count
    v = tl.arange(0, joints)
    total = tl.zeros((channels, joints), tl.float32)
    for start in range(0, t_count, frames):
        t = start + tl.arange(0, frames)
        values = _load_values(x, weight, n, c, i_count, u, k, t, c_count, t_count, x_n, x_i, x_v, x_t, subsets, inner)
        g = _load_joints(gradient, n, c, v, t, c_count, v_count, t_count, g_n, g_c, g_v, g_t)
        total += tl.sum(values[:, None, :] * g, 2)
    places = grad_adjacency + (((n * c_count + c)[:, None] * subsets + k) * v_count + u) * v_count + v[None, :]
    tl.store(places, total.to(grad_adjacency.dtype.element_ty), (c < c_count)[:, None] & (v < v_count)[None, :])


def _padded(size: int) -> int:
    """The next power of 2 that tl.dot takes."""
    return max(SMALLEST, triton.next_power_of_2(size))


class TritonRefinement(torch.autograd.Function):
    """`TopologyRefinement` in four kernels; conv3's bias comes as `shift` (see `bias_shift`)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, expand: Tensor, distance: Tensor, base: Tensor, shift: Tensor | None
    ) -> Tensor:
        """As `TopologyRefinement.forward` without `bias`; (N, C, V, T), channels-last."""
        dtype = distance.dtype
        x, weight, expand = x.to(dtype), weight.to(dtype).flatten(1).contiguous(), expand.to(dtype).contiguous()
        rows = TopologyRefinement.rows(distance, base)
        (n, i, v, t), (_, c, r) = x.shape, expand.shape
        z = torch.empty((n, c, v, t), dtype=dtype, device=x.device, memory_format=torch.channels_last)
        added = z if shift is None else shift.to(dtype).contiguous()
        tile = {"subsets": SUBSETS, "channels": CHANNELS, "joints": _padded(v), "frames": FRAMES}
        _forward_kernel[n, triton.cdiv(c, CHANNELS), triton.cdiv(t, FRAMES)](
            x, weight, expand, rows, added, z, i, c, v, t, r, *x.stride(), *z.stride(), with_shift=shift is not None,
            ranks=_padded(r), inner=INNER, **tile,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, expand, rows, base)
        ctx.has_shift = shift is not None
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients; that of x channels-last."""
        x, weight, expand, rows, base = ctx.saved_tensors
        (n, i, v, t), (_, c, r) = x.shape, expand.shape
        gradient = gradient.to(x.dtype)
        tile = {"subsets": SUBSETS, "channels": CHANNELS, "joints": _padded(v), "frames": FRAMES}
        over_c = triton.cdiv(c, CHANNELS)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x, memory_format=torch.channels_last)
            _grad_x_kernel[n, v, triton.cdiv(t, FRAMES)](
                gradient, weight, expand, rows, grad_x, i, c, v, t, r, *gradient.stride(), *grad_x.stride(),
                ranks=_padded(r), wide=_padded(i), **tile,
            )  # fmt: skip
        parts = torch.empty((SPLITS, c * SUBSETS, i), dtype=torch.float32, device=x.device)
        _grad_weight_kernel[SPLITS * SUBSETS, over_c, triton.cdiv(i, INNER)](
            x, gradient, expand, rows, parts, n, i, c, v, t, r, *x.stride(), *gradient.stride(), splits=SPLITS,
            ranks=_padded(r), inner=INNER, **tile,
        )  # fmt: skip
        grad_weight = parts.sum(0).to(weight.dtype)[..., None, None]
        grad_adjacency = torch.empty((n, c, SUBSETS, v * v), dtype=x.dtype, device=x.device)
        _grad_adjacency_kernel[n, over_c, SUBSETS * v](
            x, weight, gradient, grad_adjacency, i, c, v, t, *x.stride(), *gradient.stride(), inner=INNER, **tile
        )
        grad_expand, grad_distance, grad_base = TopologyRefinement.grad_topology(grad_adjacency, expand, rows, base)
        grad_shift = gradient.sum(3) if ctx.has_shift else None
        return grad_x, grad_weight, grad_expand, grad_distance, grad_base, grad_shift
