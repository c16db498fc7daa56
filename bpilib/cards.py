"""One part of one clip: what it looks at, on the body and joint by joint. Fast: a browser draws it at every move."""

import numpy as np

from .heatmaps import draw_map
from .looks import draw_attention
from .skeleton import Skeleton
from .style import PART_INK, Picture, new_picture, ratio_bar, ratio_norm, short, styled

_BOXES = ((0.0, 0.02, 0.4, 0.88), (0.52, 0.27, 0.375, 0.56), (0.905, 0.27, 0.012, 0.56))  # left, bottom, width, height


@styled
def attention_card(
    clip, weights, query, key, groups, skeleton: Skeleton, part: str, head: int | None = None
) -> Picture:
    """One part of one clip: its links on the skeleton beside its joint-to-joint map.

    Args:
        clip: (L, M, V, 3); its middle frame is drawn.
        weights: (heads, Vq, Vk).
        query: (Vq,) joints that look.
        key: (Vk,) joints looked at.
        groups: (part, start, stop) of the keys, from `check_attention`.
        skeleton: the joint set.
        part: the part that looks.
        head: one head from 0; None: the mean over heads.

    Returns:
        A figure with two panels.
    """
    shown = weights[slice(None) if head is None else slice(head, head + 1)]
    figure = new_picture(11, 4.9)
    figure.set_layout_engine("none")  # fixed margins: arranging the axes would take most of the time
    left, right, scale = (figure.add_axes(box) for box in _BOXES)
    draw_attention(left, shown, query, key, np.asarray(clip)[len(clip) // 2], skeleton, part)
    ratios = shown.mean(0) * len(key)
    names, norm = [short(skeleton.joints[j]) for j in query], ratio_norm(ratios)
    draw_map(right, ratios, names, key, groups, skeleton, norm, PART_INK[part])
    right.set_title("mean over heads" if head is None else f"head {head + 1} of {len(weights)}", pad=27)
    ratio_bar(figure, norm, "a joint's attention (1×: an even share)", cax=scale)
    return figure
