"""Class activation drawn: a film strip over a map of joints × time, and joints and time class by class."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from bpilib.plots.attention_heatmaps import draw_map
from bpilib.plots.clips import broadside, project
from bpilib.plots.style import (
    GRID,
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    Picture,
    check_clip,
    fit_name,
    new_picture,
    part_of_joint,
    present,
    short,
    signed_colors,
    signed_norm,
    styled,
)
from bpilib.skeleton import Skeleton


def joints_by_part(skeleton: Skeleton) -> tuple[list[int], list[tuple[str, int, int]]]:
    """All joints once, grouped by the part that colours them: (V,) order, [(part, start, stop), …]."""
    of = part_of_joint(skeleton)
    order: list[int] = []
    groups: list[tuple[str, int, int]] = []
    for part in skeleton.parts():
        start = len(order)
        order += [j for j in range(skeleton.num_joints) if of[j] == part]
        groups.append((part, start, len(order)))
    return order, groups


def window_labels(steps: int, window: int) -> list[str]:
    """The frames of the window, counted from 1, that each step of the features stands for: 1–4, 5–8, …"""
    ends = np.linspace(0, window, steps + 1).round().astype(int)
    return [f"{low + 1}–{high}" if high > low + 1 else f"{high}" for low, high in pairwise(ends)]


def _strip(poses, skeleton: Skeleton, width: float, shown: int) -> tuple[list[int], np.ndarray, float]:
    """Places persons over the columns of their steps.

    Args:
        poses: (S, M, V, 3) metres, one frame a step.
        skeleton: the joint set.
        width: inches of the S columns.
        shown: steps shown at most.

    Returns:
        the steps shown, (S, M, V, 2) points: across in columns, up in metres, NaN where nobody is; inches of height.
    """
    there = present(poses)
    both = there.sum(1).max() > 1
    every = -(-len(poses) // (shown * 5 // 8 if both else shown))
    steps = list(range((len(poses) - 1) % every // 2, len(poses), every))
    xy = project(poses, broadside(poses[there], skeleton) if there.any() else 0.0)
    xy = np.where(there[..., None, None], xy, np.nan)
    steps = [step for step in steps if there[step].any()]
    low, high = (
        np.array([f(xy[step].reshape(-1, 2), 0) for step in steps] or [(0.0, 0.0)]) for f in (np.nanmin, np.nanmax)
    )
    tall, wide = high[:, 1].max() - low[:, 1].min() + 0.15, (high - low)[:, 0].max() + 0.1
    room = every * width / len(poses) * (0.85 if both else 1.05)
    height = float(np.clip(room * tall / wide, 0.8, 2.2))
    for step, left, right in zip(steps, low[:, 0], high[:, 0]):
        xy[step, ..., 0] = step + (xy[step, ..., 0] - (left + right) / 2) * height / tall * len(poses) / width
    return steps, xy, height


def _draw_strip(ax, steps, xy, parts, frames, skeleton: Skeleton, norm, size: float):
    """Grey bones, joints coloured and sized by what they add; the clip's frames above."""
    points, values = (v[:, steps].reshape(-1, *v.shape[2:]) for v in (xy.swapaxes(0, 1), parts))  # persons, steps
    there = np.isfinite(points).all((1, 2))
    bones = points[there][:, np.array(skeleton.bones)].reshape(-1, 2, 2)
    ax.add_collection(LineCollection(bones, colors=PALE, linewidths=2.4, capstyle="round", clip_on=False))
    flat, values = points[there].reshape(-1, 2), values[there].ravel()
    sizes = 6 + size * np.abs(values) / norm.vmax
    faces = signed_colors()(norm(values))
    ax.scatter(*flat.T, s=sizes, c=faces, edgecolors=INK, linewidths=0.6, zorder=3, clip_on=False)
    ax.set(xlim=(-0.5, parts.shape[1] - 0.5))
    ax.margins(y=0.06)
    ax.axis("off")
    for left, right in pairwise(steps):
        ax.axvline((left + right) / 2, color=GRID, lw=1)
    for step in steps:
        label = f"frame {frames[step] + 1}"
        ax.text(step, 1, label, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=9.5)


@styled
def class_activation(
    clip,
    contributions,
    bias: float,
    frames,
    skeleton: Skeleton,
    window: int,
    title: str,
    what: str = "logit",
    shown: int = 8,
) -> Picture:
    """What speaks for a class, when and where: skeletons over time above a map of joints × time.

    Args:
        clip: (L, M, V, 3), metres.
        contributions: (M, S, V), what each person, step and joint adds to a logit, or to the difference of two.
        bias: the classifier's bias of that class, or the difference of two; with the contributions it is the logit.
        frames: (S,) the clip's frame that each step is about, from 0.
        skeleton: the joint set.
        window: T, the network's frames; the time axis counts them.
        title: heading.
        what: what the contributions add up to.
        shown: how many skeletons; fewer where there are two persons.

    Returns:
        A figure: the film, where each person has joints of their own; the map, persons summed; each joint's total;
        above them, what the logit is the sum of.

    Raises:
        ValueError: shapes that do not fit.
    """  # fmt: skip
    clip, parts, frames = check_clip(clip, skeleton), np.asarray(contributions, dtype=float), np.asarray(frames)
    expected = (clip.shape[1], len(frames), skeleton.num_joints)
    if parts.shape != expected or not len(frames) or not 0 <= frames.min() <= frames.max() < len(clip):
        raise ValueError(
            f"expected contributions (M, S, V) = {expected} and {len(frames)} frames within 0…{len(clip) - 1}, got "
            f"{parts.shape} and frames {frames}: pass one clip's contributions with its own frames (locate_frames)"
        )
    order, groups = joints_by_part(skeleton)
    whole = parts.sum(0).T[order]  # (V, S)
    norm = signed_norm(whole, parts)
    left, width, rows = 0.115, 0.665, 0.185 * len(order)
    steps, xy, film = _strip(clip[frames], skeleton, 12 * width, shown)
    tall = 0.62 + rows + 0.1 + film + 1.1
    figure = new_picture(12, tall)
    figure.set_layout_engine("none")  # fixed margins: the film stands over its columns, and it is fast
    bottom, height = 0.62 / tall, rows / tall
    ax = figure.add_axes((left, bottom, width, height))
    ax.imshow(whole, cmap=signed_colors(), norm=norm, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(order)), [short(skeleton.joints[j]) for j in order], fontsize=10)
    ax.set_xticks(range(len(frames)), window_labels(len(frames), window), fontsize=9.5)
    ax.tick_params(length=0)
    totals = figure.add_axes((left + width + 0.012, bottom, 0.1, height), sharey=ax)
    for part, start, stop in groups:
        for label in ax.get_yticklabels()[start:stop]:
            label.set_color(PART_INK[part])
        if start:
            ax.axhline(start - 0.5, color=INK, lw=1.5)
            totals.axhline(start - 0.5, color=INK, lw=1)
        totals.barh(range(start, stop), whole[start:stop].sum(1), 0.7, color=PART_COLORS[part])
    ax.set_xlabel(f"frames of the network's window (1 to {window})")
    ax.spines[:].set_visible(True)
    totals.axvline(0, color=INK, lw=0.8)
    totals.tick_params(axis="y", left=False, labelleft=False)
    totals.tick_params(axis="x", labelsize=9)
    totals.xaxis.set_major_locator(MaxNLocator(3))
    totals.set_title("sum over time", fontsize=10, fontweight="normal")
    totals.grid(axis="x", color=GRID)
    totals.set_axisbelow(True)
    scale = figure.add_axes((0.91, bottom, 0.012, height))
    figure.colorbar(ScalarMappable(norm, signed_colors()), cax=scale, format="{x:+.2g}", label=f"added to the {what}")
    over = figure.add_axes((left, bottom + height + 0.1 / tall, width, film / tall), label="film")
    _draw_strip(over, steps, xy, parts, frames, skeleton, norm, 90 * (film / 2.2) ** 2)
    figure.suptitle(fit_name(title, 80), y=1 - 0.12 / tall)
    names = [f"person {m + 1}" + ("" if seen.any() else " (nobody)") for m, seen in enumerate(present(clip).T)]
    sums = [("bias", bias), *zip(names, parts.sum((1, 2)))]
    text = f"{what} {sum(value for _, value in sums):.2f} = " + " + ".join(
        f"{name} {value:.2f}" for name, value in sums
    )
    figure.text(0.5, 1 - 0.58 / tall, text.replace("-", "−"), ha="center", va="center", fontsize=11)
    return figure


@styled
def class_activation_by_class(per_class, classes: Sequence[str], skeleton: Skeleton, window: int) -> Picture:
    """Which joints, and which moments, speak for each class.

    Args:
        per_class: (K, S, V) what each step and joint adds to a class's own logit, mean over its clips; NaN: no clip.
        classes: K names.
        skeleton: the joint set.
        window: T, the network's frames.

    Returns:
        A figure with two maps: classes × joints (summed over time) and classes × time (summed over joints).

    Raises:
        ValueError: wrong shape.
    """
    values = np.asarray(per_class, dtype=float)
    if values.ndim != 3 or len(values) != len(classes) or values.shape[2] != skeleton.num_joints:
        raise ValueError(f"expected ({len(classes)}, S, {skeleton.num_joints}) contributions, got {values.shape}")
    order, groups = joints_by_part(skeleton)
    joints, steps = values.sum(1)[:, order], values.sum(2)
    figure = new_picture(12.5, 2.8 + len(classes) * (0.3 if len(classes) <= 20 else 0.22))
    left, right = figure.subplots(1, 2, width_ratios=[len(order), steps.shape[1]])
    draw_map(left, joints, classes, order, groups, skeleton, signed_norm(joints))
    left.set_title("by joint (sum over time)", pad=27)
    draw_map(right, steps, [], [], [], skeleton, signed_norm(steps))
    right.set_xticks(range(steps.shape[1]), window_labels(steps.shape[1], window), rotation=90, fontsize=11)
    right.set(title="by time (sum over joints)", xlabel="frames of the network's window")
    for ax in (left, right):
        figure.colorbar(ax.images[0], ax=ax, format="{x:+.2g}", pad=0.01, aspect=30, shrink=0.9)
    figure.axes[-1].set_ylabel("added to the class's own logit")
    figure.suptitle("What adds to the logit of each class? (mean over its clips)")
    return figure
