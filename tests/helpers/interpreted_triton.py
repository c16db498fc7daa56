"""Compares Triton's form of the topology refinement with the plain one, in Triton's interpreter (TRITON_INTERPRET=1).

Prints the largest difference of each result and gradient, relative to its norm.
"""

import json
import sys

import torch

from bpilib.ops.topology_refinement import TopologyRefinement
from bpilib.ops.triton_refinement import TritonRefinement

NAMES = ("x", "weight", "expand", "distance", "base", "shift")


def inputs(n, i, c, v, t, r, dtype):
    torch.manual_seed(0)
    x = torch.randn(n, i, v, t).contiguous(memory_format=torch.channels_last)
    made = [x, torch.randn(c * 3, i, 1, 1) / i**0.5, torch.randn(3, c, r + 2), torch.randn(n, 3, r, v * v).tanh()]
    made += [torch.randn(3, v * v), torch.randn(n, c, v)]
    made[3] = made[3].to(dtype)
    return [tensor.requires_grad_() for tensor in made]


def results(apply, made, weight):
    out = apply(*made)
    gradients = torch.autograd.grad((out.float() * weight).sum(), made)
    return dict(zip(("out", *NAMES), (out, *gradients)))


def main(sizes: str, kind: str) -> None:
    dtype = getattr(torch, kind)
    made = inputs(*json.loads(sizes), dtype)
    n, _, v, t = made[0].shape
    weight = torch.randn(n, made[2].shape[1], v, t)
    exact = [tensor.detach().double().requires_grad_() for tensor in made]
    wanted = results(lambda x, w, e, d, b, s: TopologyRefinement.apply(x, w, None, e, d, b, s), exact, weight.double())
    plain = results(lambda x, w, e, d, b, s: TopologyRefinement.apply(x, w, None, e, d, b, s), made, weight)
    found = results(TritonRefinement.apply, made, weight)
    assert found["out"].is_contiguous(memory_format=torch.channels_last)
    differences = {
        name: [float((one[name].double() - wanted[name]).norm() / wanted[name].norm()) for one in (plain, found)]
        for name in wanted
    }
    print(json.dumps(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
