"""The adjacency of each channel is the one that the block multiplies with."""

import pytest
import torch

from bpilib.analysis.topology import compute_topologies
from bpilib.gcn import CTRGCN
from bpilib.skeleton import UCLA


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    network = CTRGCN(torch.from_numpy(UCLA.adjacency()), persons=1, width=8).eval()
    for block in network.blocks:
        torch.nn.init.normal_(block.spatial.alpha)
        torch.nn.init.normal_(block.spatial.expand_bias)
        torch.nn.init.normal_(block.spatial.adjacency)
    return network


def clips(count=2):
    return torch.randn(count, 3, 16, 20, 1, generator=torch.Generator().manual_seed(1))


def test_with_them_the_block_can_be_written_as_one_einsum(backbone):
    unit, seen = backbone.blocks[4].spatial, []
    unit.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    unit.bn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    graphs = compute_topologies(backbone, clips(), 4)
    x, product = seen[:2]
    values = unit.transform(x).unflatten(1, (-1, 3))  # (N, C, 3, V, T)
    apart = torch.einsum("ncsuv,ncsvt->ncut", graphs, values) - product
    assert apart.norm() <= 60 * torch.finfo(torch.float32).eps * product.norm()  # sums of 60 terms


def test_without_training_they_are_the_given_graph(backbone):
    fresh = CTRGCN(torch.from_numpy(UCLA.adjacency()), persons=1, width=8).eval()
    given = torch.from_numpy(UCLA.adjacency())
    torch.testing.assert_close(compute_topologies(fresh, clips(1), 0)[0], given.expand(8, -1, -1, -1))
    assert not torch.allclose(compute_topologies(backbone, clips(1), 0)[0], given)


def test_a_block_that_is_not_there(backbone):
    with pytest.raises(ValueError, match=r"block within 0\.\.\.9, got 10"):
        compute_topologies(backbone, clips(1), 10)
