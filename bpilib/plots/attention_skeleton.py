"""Who looks at whom: the flow between parts as a diagram, attention as links between the joints of a body."""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch

from bpilib.plots.attention_heatmaps import check_attention, draw_map
from bpilib.plots.clips import broadside, draw_skeleton, project
from bpilib.plots.style import (
    GRAY,
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    Picture,
    check_clip,
    fit_name,
    new_picture,
    present,
    ratio_bar,
    ratio_norm,
    short,
    signed_colors,
    styled,
)
from bpilib.skeleton import Skeleton

_NODES = {"torso": (0.0, 1.3), "arm": (-1.4, -0.95), "leg": (1.4, -0.95)}


def draw_flow(ax, flow, even, parts):
    """One diagram: parts as discs, an arrow from each part to each other, as thick as its share of attention.

    Args:
        ax: matplotlib axes.
        flow: (P, P) share of the row part's attention that goes to the column part.
        even: (P, P) the same for attention spread evenly over joints.
        parts: P names: torso, arm, leg.
    """
    for p, looks in enumerate(parts):
        for o, seen in enumerate(parts):
            if p == o:
                continue
            a, b = np.array(_NODES[looks]), np.array(_NODES[seen])
            for share, look in (
                (flow[p, o], {"fc": PART_COLORS[looks], "ec": "none", "gid": f"{looks} {seen}"}),
                (even[p, o], {"fc": "none", "ec": INK, "lw": 1, "ls": (0, (3, 2)), "zorder": 3}),
            ):
                width = 26 * share
                shape = f"simple,tail_width={width},head_width={width + 9},head_length=11"
                ends = (_NODES[looks], _NODES[seen])
                ax.add_patch(FancyArrowPatch(*ends, connectionstyle="arc3,rad=0.2", arrowstyle=shape, mutation_scale=1,
                                             shrinkA=24, shrinkB=24, **look))  # fmt: skip
            bend = (a + b) / 2 + 0.2 * np.array([(b - a)[1], -(b - a)[0]])  # the control point of arc3
            at = 0.4 * a + 0.465 * bend + 0.135 * b  # on the arrow, away from the number of the one that comes back
            text = f"{flow[p, o]:.0%}\n{flow[p, o] / even[p, o]:.2f}×"
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
            ax.text(*at, text, ha="center", va="center", color=PART_INK[looks], fontsize=10, fontweight="bold",
                    linespacing=1.0, bbox=box, zorder=6)  # fmt: skip
    for part in parts:
        ax.add_patch(Circle(_NODES[part], 0.4, fc=PART_COLORS[part], ec="white", lw=2, zorder=4))
        ax.text(*_NODES[part], part, ha="center", va="center", color="white", fontweight="bold", zorder=5)
    ax.set(xlim=(-1.85, 1.85), ylim=(-1.5, 1.75), aspect="equal")
    ax.axis("off")


@styled
def part_flow(flows: Mapping[str, np.ndarray], even, parts, columns: int = 4) -> Picture:
    """Who looks at whom: a small directed diagram for all clips, for a class, for a clip, ...

    Args:
        flows: title → (P, P), see `bpilib.analysis.attention.compute_flows`; one diagram each.
        even: (P, P) flows of evenly spread attention, see `bpilib.analysis.attention.compute_even_flows`.
        parts: P names, a row and a column of the flows each: torso, arm, leg.
        columns: diagrams in a row.

    Returns:
        A figure with an axes a diagram. A number is the share of the attention of the part that looks; below it, the
        same as a multiple of an even share.

    Raises:
        ValueError: no flow, or flows that are not (P, P) with rows that sum to 1.
    """
    even = np.asarray(even, dtype=float)
    for title, flow in {**flows, "even": even}.items():
        if np.shape(flow) != (len(parts),) * 2 or not np.allclose(np.sum(flow, 1), 1, atol=1e-3):
            raise ValueError(f"flow {title!r} must be {(len(parts),) * 2}, rows that sum to 1, got {np.shape(flow)}")
    if not flows:
        raise ValueError("no flow to draw: pass at least one, title → (P, P)")
    columns = min(columns, len(flows))
    rows = -(-len(flows) // columns)
    figure = new_picture(max(6.5, 3.4 * columns), 1.0 + 3.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax in axes[len(flows) :]:
        ax.axis("off")
    for ax, (title, flow) in zip(axes, flows.items()):
        draw_flow(ax, np.asarray(flow, dtype=float), even, parts)
        ax.set_title(fill(fit_name(title, 60), 26), fontsize=11)
    if len(flows) > 1:
        figure.suptitle("Who looks at whom: share of a part's attention")
    handles = [
        Line2D([], [], color=GRAY, lw=7, label="arrow: from the part that looks, as thick as its share"),
        Line2D([], [], color=INK, lw=1, ls=(0, (3, 2)), label="dashed: an even share over joints (1×)"),
    ]
    figure.legend(handles=handles, ncols=2 if columns > 2 else 1, loc="outside lower center")
    return figure


def _stage(pose, skeleton: Skeleton) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """(V, 3) or (M, V, 3) to the persons present, their turn in degrees, half the size and the middle of their box."""
    pose = check_clip(np.asarray(pose, dtype=float)[(None,) * (4 - np.ndim(pose))], skeleton)[0]
    pose = pose[present(pose)]
    turn = broadside(pose, skeleton) if len(pose) else 0.0
    xy = project(pose, turn).reshape(-1, 2) if len(pose) else np.zeros((1, 2))
    half, middle = np.maximum(np.ptp(xy, 0) / 2, [0.3, 0.5]), (xy.min(0) + xy.max(0)) / 2
    return pose, turn, half, middle


def _half_width(half) -> float:
    """Of a panel: half the persons, a gap, and at least a quarter of the panel for a name like "shoulder centre"."""
    return max(half[0] + 0.95 * half[1], (half[0] + 0.24 * half[1]) / 0.48)


def received_ratio(weights, key, joints: int) -> np.ndarray:
    """(heads, Vq, Vk) to (V,) attention each joint receives, as a multiple of an even share; NaN where it is no key."""
    even = np.bincount(key, minlength=joints) / len(key)
    with np.errstate(invalid="ignore"):
        return np.bincount(key, np.mean(weights, (0, 1)), minlength=joints) / np.where(even > 0, even, np.nan)


def draw_attention(ax, weights, query, key, pose, skeleton: Skeleton, part: str, top: int = 8, norm=None):
    """One part's attention on the persons of a frame: discs for the joints looked at, arcs for the strongest links.

    The network attends over means of the persons' features, so both persons carry the same weights.

    Args:
        ax: matplotlib axes.
        weights: (heads, Vq, Vk), each row over Vk sums to 1.
        query: (Vq,) joints of the part that looks.
        key: (Vk,) joints it can look at; a joint that is in two of the other parts occurs twice.
        pose: (V, 3) or (M, V, 3); all persons present are drawn, turned to show their joints apart.
        skeleton: the joint set.
        part: the name of the part that looks.
        top: how many links are drawn as arcs, from the joint that looks to the joint looked at.
        norm: colour scale of the discs (None: `ratio_norm` of what is shown).

    Returns:
        (V,) attention each joint receives, mean over heads and queries, as a multiple of an even share; NaN: no key.
    """
    links = np.asarray(weights, dtype=float).mean(0)
    share = received_ratio(links[None], key, skeleton.num_joints)
    norm = norm or ratio_norm(share)
    pose, turn, half, middle = _stage(pose, skeleton)
    color, own = PART_COLORS[part], set(query)
    limbs = [color if {c, p} <= own else PALE for c, p in skeleton.bones]
    ax.set_title(f"{part} looks at …" if len(pose) else f"{part}: nobody in this frame", color=PART_INK[part])
    drawn = draw_skeleton(ax, pose, skeleton, turn, colors=limbs, lw=4, joints=False) if len(pose) else []
    ax.axis("off")
    keys = np.unique(key)
    pairs = [np.unravel_index(i, links.shape) for i in np.argsort(links, axis=None)[::-1]]
    pairs = [(q, k) for q, k in pairs if query[q] != key[k]][:top]
    for xy in drawn:
        ax.scatter(*xy[list(own)].T, s=26, c="white", edgecolors=color, linewidths=1.8, zorder=4)
        sizes = (70 * share[keys]).clip(6, 420)
        ax.scatter(*xy[keys].T, s=sizes, c=signed_colors()(norm(share[keys])), edgecolors=INK, linewidths=0.8, zorder=5)
        for q, k in pairs:
            a, b = xy[query[q]], xy[key[k]]
            bend = f"arc3,rad={0.3 if a[0] < b[0] else -0.3}"
            width = 0.6 + 3.4 * links[q, k] / links[pairs[0]]
            ax.add_patch(
                FancyArrowPatch(
                    a, b, connectionstyle=bend, arrowstyle="-|>,head_length=5,head_width=2.6", lw=width, color=color,
                    alpha=0.7, shrinkA=4, shrinkB=5, zorder=6, gid="link",
                )
            )  # fmt: skip
    if len(drawn):
        most = keys[np.argsort(-share[keys])]
        named = most[: max(1, min(4, (share[keys] >= 1.05).sum()))]
        _name_joints(ax, drawn, named, share, half, middle, skeleton)
    wide = _half_width(half)
    ax.set(xlim=(middle[0] - wide, middle[0] + wide), ylim=(middle[1] - 1.12 * half[1], middle[1] + 1.12 * half[1]))
    return share


def _name_joints(ax, drawn, named, share, half, middle, skeleton: Skeleton):
    """Names down both sides, near their joints, with leaders to the outer persons."""
    outer = {-1: min(drawn, key=lambda xy: xy[:, 0].mean()), 1: max(drawn, key=lambda xy: xy[:, 0].mean())}
    for side, xy in outer.items():
        if len(drawn) > 1:
            column = named[side < 0 :: 2]
        else:
            column = [j for j in named if (xy[j, 0] >= middle[0]) == (side > 0)]
        at, gap = np.inf, max(0.42 * half[1], 0.18 * _half_width(half))  # two lines, in the lowest panels too
        column = sorted(column, key=lambda j: -xy[j, 1])
        for n, joint in enumerate(column):
            at = max(min(xy[joint, 1] - middle[1], at - gap), (len(column) - 1 - n) * gap - half[1])
            ax.annotate(
                f"{short(skeleton.joints[joint])}\n{share[joint]:.1f}×",
                xy[joint],
                xytext=(middle[0] + side * (half[0] + 0.24 * half[1]), middle[1] + at),
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=10,
                linespacing=1.0,
                zorder=8,
                arrowprops={"arrowstyle": "-", "color": "#8A9097", "lw": 0.8, "shrinkA": 2, "shrinkB": 0},
            )


@styled
def attention_on_skeleton(maps: Mapping, joints: Mapping, pose, skeleton: Skeleton, top: int = 8, title: str = ""):
    """What each part looks at: a panel a part, discs sized by the attention a joint receives, arcs for strong links.

    Args:
        maps: part → (heads, Vq, Vk) weights of one clip, or their mean over clips.
        joints: part → (query joints, key joints), the model's `attention_joints`.
        pose: (V, 3) or (M, V, 3), a frame of that clip; two persons carry the same weights.
        skeleton: the joint set.
        top: how many links a panel.
        title: heading.

    Returns:
        A figure with one axes per part and a colour bar.

    Raises:
        ValueError: shapes or parts that do not fit each other.
    """
    checked = check_attention(maps, joints)
    norm = ratio_norm(*(received_ratio(c[0], c[2], skeleton.num_joints) for c in checked.values()))
    persons, _, half, _ = _stage(pose, skeleton)
    tall = 3.7 * 1.12 * half[1] / _half_width(half)  # as the panels will need it
    figure = new_picture(13, 1.5 + min(4.6, max(2.2, tall)))
    axes = np.atleast_1d(figure.subplots(1, len(checked)))
    for ax, (part, (weights, query, key, _)) in zip(axes, checked.items()):
        draw_attention(ax, weights, query, key, pose, skeleton, part, top, norm)
    ratio_bar(figure, norm, "attention a joint receives\n(1×: an even share)", ax=axes, shrink=0.9)
    both = "; both persons: same weights" if len(persons) > 1 else ""
    handles = [
        Line2D([], [], mfc="white", mec=GRAY, mew=2, marker="o", ls="", label="joint of the part that looks"),
        Line2D([], [], mfc="white", mec=INK, ms=10, marker="o", ls="", label="joint looked at, larger = more"),
        Line2D([], [], color=GRAY, lw=3, label=f"one of the {top} strongest links, thicker = more{both}"),
    ]
    figure.legend(handles=handles, ncols=3, loc="outside lower center")
    figure.suptitle(fit_name(title or "What each body part looks at (mean over heads)", 120))
    return figure


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
