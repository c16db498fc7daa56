"""The backbone against a plain version that follows the published order of operations, subset by subset."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bpilib.gcn import CTRGCN, Block, MaxPool, NarrowPointwise, SpatialUnit, TemporalUnit, make_pointwise
from bpilib.ops.topology_refinement import TopologyRefinement, bias_shift
from bpilib.skeleton import NTU, UCLA

ADJACENCY = torch.from_numpy(UCLA.adjacency())
N, T, V = 2, 7, 20


# The plain version. It reads the weights of ours by slices, so that gradients come out at the same leaves.


def conv(x, weight, bias, stride=1):
    """1x1 convolution."""
    weight = weight.reshape(weight.shape[0], -1)
    return torch.einsum("oc,nctv->notv", weight, x[:, :, ::stride]) + bias[None, :, None, None]


def batch_norm(x, bn, rows=slice(None)):
    """(N, C, T, V), by the formula, with the channels `rows` of bn."""
    if bn.training:
        mean = x.mean((0, 2, 3))
        variance = (x - mean[None, :, None, None]).pow(2).mean((0, 2, 3))
    else:
        mean, variance = bn.running_mean[rows], bn.running_var[rows]
    scale = bn.weight[rows] / (variance + 1e-5).sqrt()
    return (x - mean[None, :, None, None]) * scale[None, :, None, None] + bn.bias[rows][None, :, None, None]


def plain_spatial(unit, x):
    channels_in, c = x.shape[1], unit.bn.num_features
    r = 8 if channels_in == 3 else channels_in // 8
    total = 0
    for k in range(3):
        rows1, rows2 = slice(k * r, (k + 1) * r), slice((3 + k) * r, (4 + k) * r)
        q = conv(x, unit.relate.weight[rows1], unit.relate.bias[rows1]).mean(2)  # conv1, then the mean over T
        p = conv(x, unit.relate.weight[rows2], unit.relate.bias[rows2]).mean(2)  # conv2
        d = torch.tanh(q[:, :, :, None] - p[:, :, None, :])  # (N, R, U, V)
        a = unit.alpha * conv(d, unit.expand_weight[k], unit.expand_bias[k]) + unit.adjacency[k]
        rows3 = slice(k, None, 3)
        values = conv(x, unit.transform.weight[rows3], unit.transform.bias[rows3])
        total = total + torch.einsum("ncuv,nctv->nctu", a, values)
    down = x if channels_in == c else batch_norm(conv(x, unit.down[0].weight, unit.down[0].bias), unit.down[1])
    return (batch_norm(total, unit.bn) + down).clamp(min=0)


def temporal_conv(x, weight, bias, dilation, stride):
    """Five taps over T, zeros beyond the ends."""
    padded = F.pad(x, (0, 0, 2 * dilation, 2 * dilation))
    frames = range(0, x.shape[2], stride)
    out = 0
    for tap in range(5):
        seen = torch.stack([padded[:, :, t + tap * dilation] for t in frames], 2)
        out = out + torch.einsum("oc,nctv->notv", weight[:, :, 0, tap], seen)
    return out + bias[None, :, None, None]


def max_pool(x, stride):
    """Three frames, as many as there are at the ends."""
    return torch.stack([x[:, :, max(t - 1, 0) : t + 2].amax(2) for t in range(0, x.shape[2], stride)], 2)


def plain_temporal(unit, x, stride):
    quarter = x.shape[1] // 4
    rows = [slice(b * quarter, (b + 1) * quarter) for b in range(4)]
    branches = []
    for b in range(3):
        y = conv(x, unit.reduce.weight[rows[b]], unit.reduce.bias[rows[b]])
        y = batch_norm(y, unit.reduce_bn, rows[b]).clamp(min=0)
        if b < 2:
            y = temporal_conv(y, unit.convs[b].weight, unit.convs[b].bias, b + 1, stride)
        else:
            y = max_pool(y, stride)
        branches.append(batch_norm(y, unit.bn, rows[b]))
    branches.append(batch_norm(conv(x, unit.skip.weight, unit.skip.bias, stride), unit.bn, rows[3]))
    return torch.cat(branches, 1)


def plain_block(block, x, stride, residual):
    out = plain_temporal(block.temporal, plain_spatial(block.spatial, x), stride)
    if residual and block.shortcut is not None:
        out = out + batch_norm(conv(x, block.shortcut[0].weight, block.shortcut[0].bias, stride), block.shortcut[1])
    elif residual:
        out = out + x
    return out.clamp(min=0)


def randomise(module):
    """float64, every parameter and statistic away from its start."""
    torch.manual_seed(1)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.5)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return module


def joints_first(module, x):
    """(N, C, T, V) through a module that takes and gives (N, C, V, T)."""
    return module(x.transpose(2, 3)).transpose(2, 3)


def assert_equal(module, plain, channels_in, training):
    randomise(module).train(training)
    x = torch.randn(N, channels_in, T, V, dtype=torch.float64, requires_grad=True)
    theirs = plain(x)
    ours = joints_first(module, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    weight = torch.randn_like(ours)
    leaves = {"x": x, **dict(module.named_parameters())}
    gradients = (torch.autograd.grad((out * weight).sum(), list(leaves.values())) for out in (ours, theirs))
    for name, a, b in zip(leaves, *gradients):
        assert (a - b).abs().max() <= 1e-8 * max(1, b.abs().max()), name


MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@MODES
@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 24)], ids=str)
def test_spatial_unit_equals_the_plain_one(channels, training):
    unit = SpatialUnit(*channels, ADJACENCY)
    assert_equal(unit, lambda x: plain_spatial(unit, x), channels[0], training)


@MODES
@pytest.mark.parametrize("stride", [1, 2])
def test_temporal_unit_equals_the_plain_one(stride, training):
    unit = TemporalUnit(16, stride)
    assert_equal(unit, lambda x: plain_temporal(unit, x, stride), 16, training)


@MODES
@pytest.mark.parametrize(
    ("channels_in", "channels_out", "stride", "residual"),
    [(3, 16, 1, False), (16, 16, 1, True), (16, 32, 2, True), (16, 16, 2, True), (8, 16, 1, True)],
)
def test_block_equals_the_plain_one(channels_in, channels_out, stride, residual, training):
    block = Block(channels_in, channels_out, ADJACENCY, stride, residual)
    assert_equal(block, lambda x: plain_block(block, x, stride, residual), channels_in, training)


@pytest.mark.parametrize("persons", [1, 2])
def test_backbone_equals_the_plain_one(persons):
    net = randomise(CTRGCN(ADJACENCY, persons, width=8)).eval()
    with torch.no_grad():
        for block in net.blocks:  # keep the numbers of ten blocks in bounds
            block.spatial.bn.weight.mul_(0.1)
            block.temporal.bn.weight.mul_(0.3)
    x = torch.randn(N, 3, T, V, persons, dtype=torch.float64)
    normed = torch.empty_like(x)
    bn = net.data_bn
    for m in range(persons):
        for v in range(V):
            for c in range(3):
                i = (m * V + v) * 3 + c
                scale = bn.weight[i] / (bn.running_var[i] + 1e-5).sqrt()
                normed[:, c, :, v, m] = ((x[:, c, :, v, m] - bn.running_mean[i]) * scale + bn.bias[i]).detach()
    y = torch.cat([normed[n, ..., m][None] for n in range(N) for m in range(persons)])  # (NM, C, T, V)
    for i, block in enumerate(net.blocks, 1):
        y = plain_block(block, y, stride=2 if i in (5, 8) else 1, residual=i > 1)
    theirs = y.view(N, persons, *y.shape[1:])
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(net(x), theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("frames", [1, 6, 16])
def test_backbone_shapes(width, frames):
    net = CTRGCN(torch.from_numpy(NTU.adjacency()), 2, width)
    out = net(torch.randn(2, 3, frames, 25, 2))
    quarter = math.ceil(frames / 4)
    assert out.shape == (2, 2, 4 * width, quarter, 25)
    assert net.channels == 4 * width
    widths = [block.temporal.bn.num_features // width for block in net.blocks]
    assert widths == [1, 1, 1, 1, 2, 2, 2, 4, 4, 4]


def test_strides_halve_the_frames_at_blocks_five_and_eight():
    net = CTRGCN(ADJACENCY, 1, 8).eval()
    y, frames = torch.randn(1, 3, V, 52), []
    for block in net.blocks:
        y = block(y)
        frames.append(y.shape[3])
    assert frames == [52] * 4 + [26] * 3 + [13] * 3


def test_the_first_block_alone_has_no_residual():
    net = CTRGCN(ADJACENCY, 1, 8)
    assert [block.has_residual for block in net.blocks] == [False] + [True] * 9
    assert [i for i, block in enumerate(net.blocks, 1) if block.shortcut is not None] == [5, 8]


@pytest.mark.parametrize("width", [0, -8, 4, 12, 20])
def test_impossible_widths_are_refused(width):
    with pytest.raises(ValueError, match=f"multiple of 8, not {width}"):
        CTRGCN(ADJACENCY, 1, width)


def test_start_is_as_published():
    net = CTRGCN(ADJACENCY, 1, 8)
    for block in net.blocks:
        assert block.spatial.alpha.shape == (1,)
        assert block.spatial.alpha.item() == 0
        assert torch.equal(block.spatial.adjacency, ADJACENCY)
        assert torch.equal(block.spatial.bn.weight, torch.full_like(block.spatial.bn.weight, 1e-6))
        assert not block.spatial.bn.bias.any()
    assert CTRGCN(ADJACENCY, 1).channels == 256


def test_the_learned_adjacencies_are_apart_from_each_other_and_from_the_graph():
    before = ADJACENCY.clone()
    net = CTRGCN(ADJACENCY, 1, 8)
    with torch.no_grad():
        net.blocks[0].spatial.adjacency.add_(1)
    assert torch.equal(ADJACENCY, before)
    assert torch.equal(net.blocks[1].spatial.adjacency, before)


@torch.no_grad()
def test_topology_starts_as_the_graph():
    unit = SpatialUnit(8, 16, ADJACENCY)
    expand, distance = unit.topology(torch.randn(2, 8, V, T))
    rows = TopologyRefinement.rows(distance, unit.adjacency.transpose(1, 2).flatten(1))
    topology = (expand @ rows).view(2, 3, 16, V, V).transpose(3, 4)  # joint before neighbour
    torch.testing.assert_close(topology, ADJACENCY[None, :, None].expand_as(topology), rtol=0, atol=1e-6)
    together = TopologyRefinement.adjacency(expand, rows).view(2, 16, 3, V, V)
    torch.testing.assert_close(together, topology.permute(0, 2, 1, 4, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_parameter_has_a_gradient(training):
    torch.manual_seed(2)
    net = CTRGCN(ADJACENCY, 1, 8).double()
    x = torch.randn(4, 3, 8, V, 1, dtype=torch.float64)
    with torch.no_grad():
        for block in net.blocks:
            block.spatial.alpha.fill_(0.5)
            block.spatial.bn.weight.fill_(1)
        for module in net.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        net(x)  # the running statistics become this batch's, so that no tanh is saturated in eval mode
    out = net.train(training)(x)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias right before a batch norm is cancelled by the batch's mean: no gradient in training mode.
        if not training or not name.endswith("bias"):
            assert parameter.grad.abs().max() > 1e-9, name


def test_sixteen_bit_autocast_stays_near():
    unit = randomise(SpatialUnit(16, 16, ADJACENCY)).float().eval()
    x = torch.randn(N, 16, V, T)
    exact = unit(x)
    with torch.autocast("cpu", torch.bfloat16):
        near = unit(x)
    assert (near.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("skeleton", [UCLA, NTU], ids=lambda skeleton: skeleton.name)
def test_folded_blocks_give_the_same(skeleton):
    net = randomise(CTRGCN(torch.from_numpy(skeleton.adjacency()), skeleton.persons, 8)).eval()
    x = torch.randn(N, 3, 16, skeleton.num_joints, skeleton.persons, dtype=torch.float64)
    with torch.no_grad():
        before = net(x)
        for block in net.blocks:
            block.fold()
        after = net(x)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9 * before.abs().max().item())
    assert [name for name, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)] == []


def test_folded_blocks_stay_in_half_precision():
    """What is left of a BatchNorm does not bring features back to float32, which would double what they move."""
    block = randomise(Block(8, 16, ADJACENCY, stride=2)).float().eval()
    block.fold()
    x = torch.randn(N, 8, V, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        near = block(x)
        assert near.dtype == block.spatial(x).dtype == torch.bfloat16
    with torch.no_grad():
        exact = block(x)
    assert (near - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("frames", [3, 7], ids=["values kept", "adjacency kept"])
def test_gradients_of_the_recomputed_product_are_those_of_autograd(frames):
    torch.manual_seed(0)
    shapes = [(2, 4, 5, frames), (18, 4, 1, 1), (18,), (3, 6, 4), (2, 3, 2, 25), (3, 25)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(TopologyRefinement.apply, (*leaves, None))
    x, weight, *others = leaves
    assert not TopologyRefinement.apply(*(leaf.detach() for leaf in leaves), None).requires_grad
    TopologyRefinement.apply(x.detach(), weight, *others, None).sum().backward()  # as in the first block
    assert x.grad is None and weight.grad.any()


@pytest.mark.parametrize("frames", [3, 7], ids=["values kept", "adjacency kept"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["convolution", "product"])
def test_precisions_give_the_product_and_its_gradients(kind, frames):
    """float32 on a CPU goes through convolutions, other precisions through products: the same within rounding."""
    torch.manual_seed(0)
    shapes = [(2, 16, 5, frames), (24, 16, 1, 1), (24,), (3, 8, 4), (2, 3, 2, 25), (3, 25)]
    exact = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    near = [leaf.detach().to(kind).requires_grad_() for leaf in exact]
    gradient = torch.randn(2, 8, 5, frames, dtype=torch.float64)
    outs = [TopologyRefinement.apply(*leaves, None) for leaves in (exact, near)]
    for out in outs:
        out.backward(gradient.to(out.dtype))
    assert outs[1].dtype == kind and outs[1].is_contiguous(memory_format=torch.channels_last)
    for expected, found in [outs, *((a.grad, b.grad) for a, b in zip(exact, near))]:
        assert found.shape == expected.shape and found.dtype == kind
        assert (found - expected).norm() < (1e-5 if kind == torch.float32 else 2e-2) * expected.norm()


# --- a fault of oneDNN's: strided 1x1 convolutions of few channels, channels-last


class Strided(TorchDispatchMode):
    """Input channels of the strided 1x1 convolutions that PyTorch is asked for."""

    def __init__(self):
        super().__init__()
        self.channels = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default and args[1].shape[2:] == (1, 1) and max(args[3]) > 1:
            self.channels.append(args[1].shape[1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("width", "expected"), [(8, [16, 32, 16]), (16, [32, 16, 64, 32]), (24, [48, 24, 96, 48])])
def test_no_strided_convolution_has_fewer_channels_than_a_vector_register(width, expected):
    """Those left: the skip of block 5 (and its shortcut), the skip and the shortcut of block 8."""
    net = CTRGCN(ADJACENCY, 1, width)
    with Strided() as seen:
        net(torch.randn(2, 3, 8, V, 1))
    assert seen.channels == expected and min(expected) >= NarrowPointwise.CHANNELS


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_narrow_strided_convolution_equals_the_strided_one(training):
    narrow = make_pointwise(8, 12, stride=2).double().train(training)
    assert type(narrow) is NarrowPointwise and type(make_pointwise(16, 12, stride=2)) is torch.nn.Conv2d
    plain = torch.nn.Conv2d(8, 12, 1, stride=(1, 2)).double()
    plain.load_state_dict(narrow.state_dict())
    for frames in (1, 2, 7, 8):
        x = torch.randn(3, 8, 5, frames, dtype=torch.float64, requires_grad=True)
        ours, theirs = narrow(x), plain(x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        weight = torch.randn_like(ours)
        for a, b in zip(*(torch.autograd.grad((y * weight).sum(), [x, *c.parameters()])
                          for y, c in ((ours, narrow), (theirs, plain)))):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


NARROW = """
import torch
from bpilib.gcn import CTRGCN, make_pointwise
from bpilib.skeleton import NTU

torch.manual_seed(0)
conv = make_pointwise(4, 8, stride=2)
for _ in range(20):
    x = torch.randn(8, 4, 25, 64).contiguous(memory_format=torch.channels_last)
    conv.zero_grad()
    y = conv(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected = torch.einsum("novt,ncvt->oc", gradient.double(), x[..., ::2].double())
    assert (conv.weight.grad.flatten(1) - expected).norm() < 1e-5 * expected.norm()
net = CTRGCN(torch.from_numpy(NTU.adjacency()), 2, 8)
for _ in range(3):
    net.zero_grad()
    net(torch.randn(4, 3, 64, 25, 2)).square().mean().backward()
assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
print("done")
"""


def test_narrow_networks_are_trained_without_a_crash():
    """In a process of its own: it was killed by the heap, at 8 channels under AVX-512 and at 4 under AVX2."""
    process = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout == "done\n", process.stderr


def refinement_inputs(dtype):
    torch.manual_seed(0)
    n, c_in, c, r, v, t = 2, 4, 3, 2, 5, 4
    shapes = [(n, c_in, v, t), (c * 3, c_in, 1, 1), (c * 3,), (3, c, r + 2), (n, 3, r, v * v), (3, v * v)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def test_the_bias_of_conv3_is_the_same_in_its_result_and_as_a_shift():
    x, weight, bias, expand, distance, base = given = refinement_inputs(torch.float64)
    inside = TopologyRefinement.apply(x, weight, bias, expand, distance, base, None)
    shift = bias_shift(bias, expand, distance, base)
    outside = TopologyRefinement.apply(x, weight, None, expand, distance, base, shift)
    assert shift.shape == (2, 3, 5) and outside.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outside, inside, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(inside)
    wanted = torch.autograd.grad(inside, given, gradient)
    for found, expected in zip(torch.autograd.grad(outside, given, gradient), wanted):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_batches_are_counted_in_every_batchnorm():
    network = CTRGCN(torch.from_numpy(UCLA.adjacency()), 1, 8).train()
    for _ in range(2):
        network(torch.randn(2, 3, 8, 20, 1))
    network.eval()(torch.randn(2, 3, 8, 20, 1))
    counts = [tensor.item() for name, tensor in network.state_dict().items() if name.endswith("num_batches_tracked")]
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert counts == [2] * len(norms)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_deterministic_maximum_is_the_same(stride):
    pool = MaxPool(stride)
    x = torch.randn(2, 3, 4, 9, dtype=torch.float64, requires_grad=True)
    expected = pool(x)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, x, gradient)[0]
    torch.use_deterministic_algorithms(True)
    try:
        found = pool(x)
        assert torch.equal(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, x, gradient)[0], wanted, rtol=1e-12, atol=1e-12)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_block_is_one_graph():
    """No graph break in training; the whole network is compiled in test_model."""
    block = Block(8, 16, torch.from_numpy(UCLA.adjacency()), stride=2).train()
    x = torch.randn(2, 8, 20, 6)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    found = compiled(x)
    found.sum().backward()
    torch.testing.assert_close(found, block(x), rtol=1e-4, atol=1e-4)
