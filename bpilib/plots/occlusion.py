"""Occlusion drawn: what each class needs as a map, what a clip or a class needs on a skeleton."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import MaxNLocator

from bpilib.plots.activation import joints_by_part, window_labels
from bpilib.plots.attention_heatmaps import draw_map
from bpilib.plots.clips import broadside, draw_skeleton
from bpilib.plots.style import (
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    Picture,
    check_clip,
    draw_rows,
    fit_name,
    new_picture,
    part_of_joint,
    present,
    short,
    signed_colors,
    signed_norm,
    styled,
    with_interval,
)
from bpilib.skeleton import Skeleton


def _leaves_out_zero(values: np.ndarray) -> np.ndarray:
    """(..., 3) mean, low, high → (...) bool; False where there is no interval."""
    return (values[..., 1] > 0) | (values[..., 2] < 0)


@styled
def occlusion_by_class(
    joints, parts, time, classes: Sequence[str], skeleton: Skeleton, window: int, how: str = "frozen"
) -> Picture:
    """Which joints, parts and moments each class needs: how far its logit falls without them.

    Args:
        joints: (K, V, 3) mean, low, high drop of each class's own logit (`analysis.occlusion.average_drops_by_class`).
        parts: (K, P, 3) the same for torso, arm, leg.
        time: (K, S, 3) the same for stretches of the window.
        classes: K names.
        skeleton: the joint set.
        window: T, the network's frames.
        how: what was done: "frozen" or "average".

    Returns:
        A figure with three maps; a dot where the interval leaves out 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    values = {name: np.asarray(v, dtype=float) for name, v in (("joint", joints), ("part", parts), ("time", time))}
    names = list(skeleton.parts())
    expected = {"joint": (len(classes), skeleton.num_joints, 3), "part": (len(classes), len(names), 3)}
    wrong = [f"{name} {values[name].shape}" for name, shape in expected.items() if values[name].shape != shape]
    if wrong or values["time"].ndim != 3 or len(values["time"]) != len(classes):
        found = ", ".join(wrong) or f"time {values['time'].shape}"
        raise ValueError(f"expected (classes, regions, 3) drops of {len(classes)} classes, got {found}")
    order, groups = joints_by_part(skeleton)
    values["joint"] = values["joint"][:, order]
    steps = values["time"].shape[1]
    figure = new_picture(13, 2.8 + len(classes) * (0.3 if len(classes) <= 20 else 0.22))
    axes = figure.subplots(1, 3, width_ratios=[len(order), 4, steps])
    norm = signed_norm(*(v[..., 0] for v in values.values()))
    for ax, (name, drops) in zip(axes, values.items()):
        rows = classes if name == "joint" else []
        draw_map(ax, drops[..., 0], rows, order if name == "joint" else [], groups if name == "joint" else [], skeleton,
                 norm)  # fmt: skip
        marks = np.argwhere(_leaves_out_zero(drops))
        ax.scatter(marks[:, 1], marks[:, 0], s=9, color=INK, edgecolors="white", linewidths=0.5)
    axes[0].set_title("without a joint", pad=27)
    axes[1].set_title("a part", pad=27)
    axes[1].set_xticks(range(len(names)), names, rotation=90, fontsize=11)
    for label, part in zip(axes[1].get_xticklabels(), names):
        label.set_color(PART_INK[part])
    axes[2].set_xticks(range(steps), window_labels(steps, window), rotation=90, fontsize=11)
    axes[2].set_title("a stretch of time", pad=27)
    axes[2].set_xlabel("frames of the network's window")
    bar = figure.colorbar(ScalarMappable(norm, signed_colors()), ax=axes, format="{x:+.2g}", pad=0.01, aspect=30)
    bar.set_label("the logit falls by")
    axes[0].set_xlabel("dot: the 95 % interval leaves out 0")  # beside the colours it is too long for a few classes
    done = "frozen at its mean place" if how == "frozen" else "doing what it does in the average clip"
    figure.suptitle(f"What does each class need? (its logit with a region {done})")
    return figure


@styled
def occlusion_card(
    clip, drops: Mapping, skeleton: Skeleton, window: int, title: str, norm=None, what: str = "logit"
) -> Picture:
    """What one clip, or one class, needs: joints on a skeleton, and joints, parts and moments as bars.

    Args:
        clip: (L, M, V, 3), metres; its middle frame is drawn.
        drops: "joints" → (V,), "parts" → (P,), "time" → (S,) by how much the logit falls; or each with two more
            columns, the ends of an interval.
        skeleton: the joint set.
        window: T, the network's frames.
        title: heading.
        norm: colour scale; None: of these joints.
        what: falls.

    Returns:
        A figure with a skeleton and three panels of bars; names are bold where an interval leaves out 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    joints, parts, time = (with_interval(drops[name]) for name in ("joints", "parts", "time"))
    names = list(skeleton.parts())
    if len(joints) != skeleton.num_joints or len(parts) != len(names):
        raise ValueError(
            f"expected drops of {skeleton.num_joints} joints and {len(names)} parts, got {len(joints)} and {len(parts)}"
        )
    clip = check_clip(clip, skeleton)
    norm = norm or signed_norm(joints[:, 0])
    order, _ = joints_by_part(skeleton)
    colors = [PART_COLORS[part] for part in part_of_joint(skeleton)]
    inks = [PART_INK[part] for part in part_of_joint(skeleton)]
    figure = new_picture(12, 1.3 + 0.235 * len(order))
    body, left, right = figure.subplots(1, 3, width_ratios=[4, 4, 3.6])
    right.axis("off")
    upper, lower = (right.inset_axes(box) for box in ((0.2, 0.7, 0.8, 0.3), (0.2, 0.0, 0.8, 0.55)))
    pose = clip[len(clip) // 2]
    turn = broadside(pose[present(pose)], skeleton) if present(pose).any() else 0.0
    for xy in draw_skeleton(body, pose, skeleton, turn, colors=PALE, lw=4, joints=False):
        sizes = 12 + 330 * np.abs(joints[:, 0]) / float(norm.vmax)
        body.scatter(*xy.T, s=sizes, c=signed_colors()(norm(joints[:, 0])), edgecolors=INK, linewidths=0.7, zorder=4)
    body.margins(0.15)
    body.axis("off")
    moments = window_labels(len(time), window)
    _draw_drops(left, joints[order], [short(skeleton.joints[j]) for j in order], [colors[j] for j in order],
                [inks[j] for j in order])  # fmt: skip
    left.set_title("without a joint", fontsize=11)
    _draw_drops(upper, parts, names, [PART_COLORS[part] for part in names], [PART_INK[part] for part in names])
    upper.set_title("without a part", fontsize=11)
    _draw_drops(lower, time, moments, [INK] * len(time), [INK] * len(time))
    lower.set_title("without frames of the window", fontsize=11)
    figure.supxlabel(f"the {what} falls by", fontsize=11)
    figure.suptitle(fit_name(title, 80))
    return figure


def _draw_drops(ax, values: np.ndarray, names: Sequence[str], colors: Sequence[str], inks: Sequence[str]) -> None:
    """Bars of (R, 3) value, low, high with their whiskers; bold names where the interval leaves out 0."""
    rows = np.arange(len(values))
    ax.barh(rows, values[:, 0], 0.7, color=colors, alpha=0.85)
    whisker = np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]).clip(0)
    ax.errorbar(values[:, 0], rows, xerr=whisker, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2)
    draw_rows(ax, names, 9.5, inks)
    for label, bold in zip(ax.get_yticklabels(), _leaves_out_zero(values)):
        label.set_fontweight("bold" if bold else "normal")
    ax.axvline(0, color=INK, lw=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(4))
