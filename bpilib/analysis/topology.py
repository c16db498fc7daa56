"""The graphs that CTR-GCN really uses: each channel's own, refined from the clip itself.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition",
ICCV 2021, eq. 4 to 6.
"""

import torch
from torch import Tensor

from bpilib.gcn import CTRGCN
from bpilib.ops.topology_refinement import SUBSETS, TopologyRefinement


@torch.no_grad()
def compute_topologies(backbone: CTRGCN, x: Tensor, block: int) -> Tensor:
    """The adjacency of every channel of a block for some clips.

    Args:
        backbone: in test mode.
        x: (N, 3, T, V, M) float32, what the backbone is given.
        block: from 0.

    Returns:
        (N*M, C, 3, V, V) float32, by subset: how much each joint (row) takes in from each joint (column).

    Raises:
        ValueError: no such block.
    """
    if not 0 <= block < len(backbone.blocks):
        raise ValueError(f"expected a block within 0...{len(backbone.blocks) - 1}, got {block}")
    unit = backbone.blocks[block].spatial
    given: list[Tensor] = []
    hook = unit.register_forward_pre_hook(lambda _module, arguments: given.append(arguments[0]))
    try:
        backbone(x)
    finally:
        hook.remove()
    expand, distance = unit.topology(given[0])
    base = unit.adjacency.transpose(1, 2).flatten(1)  # (3, VV), neighbour before joint
    flat = TopologyRefinement.adjacency(expand, TopologyRefinement.rows(distance, base))  # (N*M*C, 3*V, V)
    joints = flat.shape[-1]
    return flat.view(len(distance), -1, SUBSETS, joints, joints).transpose(-1, -2)
