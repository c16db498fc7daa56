"""What notebook 00 says of the receptive field is what the network's gradients reach."""

import numpy as np
import torch

from bpilib.gcn import CTRGCN
from bpilib.skeleton import UCLA

HAND = UCLA.joints.index("right hand")


def test_a_feature_reaches_as_many_frames_and_joints_as_the_tour_says():
    torch.manual_seed(0)
    network = CTRGCN(torch.from_numpy(UCLA.adjacency()), persons=1).eval().double()
    seen = []
    for block in network.blocks:
        torch.nn.init.ones_(block.spatial.bn.weight)
        block.register_forward_hook(lambda _module, _given, features: seen.append(features))
    x = torch.randn(1, 3, 320, 20, 1, dtype=torch.float64, requires_grad=True)
    network(x)
    step = UCLA.adjacency().sum(0)
    frames, apart = 1, 1
    for block, features in enumerate(seen, 1):
        frames += 8 * apart
        apart *= 2 if block in (5, 8) else 1
        if block not in (1, 4, 7, 10):
            continue
        middle = features[0, :, HAND, features.shape[-1] // 2].sum()
        reached = torch.autograd.grad(middle, x, retain_graph=True)[0].abs().sum((0, 1, 4)) > 0  # (T, V)
        at = reached.any(1).nonzero().ravel()
        assert int(at[-1] - at[0]) + 1 == frames
        taken = np.linalg.matrix_power(step, block)[HAND] > 0
        np.testing.assert_array_equal(reached.any(0).numpy(), taken)
    assert frames == 153
