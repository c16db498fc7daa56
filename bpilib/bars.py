"""Values with their intervals, row by row: paired bars, dots joined by a line (dumbbells), heads, right and wrong."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from .skeleton import Skeleton
from .style import (
    GRAY,
    GRID,
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    RIGHT,
    WRONG,
    Picture,
    check_attention,
    new_picture,
    short,
    styled,
)


def with_interval(values) -> np.ndarray:
    """(R, 3) value, low, high as float64; (R,) values get an interval of NaN, which is not drawn."""
    values = np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = np.stack([values, np.full_like(values, np.nan), np.full_like(values, np.nan)], 1)
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"expected (R,) values or (R, 3) of value, low, high, got {values.shape}")
    return values


def draw_rows(ax, names: Sequence[str], size: float = 10, colors=None):
    """Row names down an axis, the first on top, on a light grid."""
    ax.set_yticks(range(len(names)), names, fontsize=size)
    for label, color in zip(ax.get_yticklabels(), colors or []):
        label.set_color(color)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)


def draw_pairs(
    ax, names: Sequence[str], first, second, labels=("first", "second"), colors=(RIGHT, WRONG), bars=False,
    base: float = 0.0, name_colors=None,
):  # fmt: skip
    """Two values a row with their intervals, on axes of one's own.

    Args:
        ax: matplotlib axes.
        names: R row names, the first on top.
        first, second: (R,) values, or (R, 3) of value, low, high; NaN is left out.
        labels: what the two sides are, for a legend.
        colors: of the two sides; the second's dots are diamonds, its bars hatched, so that they differ in grey too.
        bars: bars from `base`; else dots, joined by a grey line where no interval crosses it (a dumbbell).
        base: where bars start.
        name_colors: R colours of the names.

    Raises:
        ValueError: not one row a name.
    """
    sides = [with_interval(first), with_interval(second)]
    if not len(sides[0]) == len(sides[1]) == len(names):
        raise ValueError(f"expected {len(names)} rows, one a name, got {len(sides[0])} and {len(sides[1])}")
    draw_rows(ax, names, colors=name_colors)
    intervals = any(np.isfinite(side[:, 1:]).any() for side in sides)
    shift = 0.19 if bars or intervals else 0.0
    rows = np.arange(len(names))
    if not bars and not intervals:
        ax.hlines(rows, sides[0][:, 0], sides[1][:, 0], color=PALE, lw=3, zorder=1)
    for side, (values, label, color) in enumerate(zip(sides, labels, colors)):
        at, value = rows + (shift if side else -shift), values[:, 0]
        whisker = np.stack([value - values[:, 1], values[:, 2] - value]).clip(0)
        if bars:
            hatch = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if side else {}
            ax.barh(at, value - base, 0.36, left=base, color=color, alpha=0.8, label=label, **hatch)
            ax.errorbar(value, at, xerr=whisker, fmt="none", ecolor=INK, elinewidth=1.3, capsize=2.5, zorder=3)
        else:
            marker = {"marker": "D", "ms": 5} if side else {"marker": "o", "ms": 6.5}
            ax.errorbar(value, at, xerr=whisker, ls="", color=color, elinewidth=1.8, mec="white", mew=0.7, zorder=3,
                        label=label, **marker)  # fmt: skip


@styled
def paired_bars(
    names: Sequence[str], first, second, labels: Sequence[str], xlabel: str, title: str = "", bars: bool = True
) -> Picture:
    """Two values a row with their intervals, as a figure; arguments and errors as `draw_pairs`."""
    figure = new_picture(10, 1.5 + (0.46 if bars else 0.36) * max(1, len(names)))
    ax = figure.subplots()
    draw_pairs(ax, names, first, second, labels, bars=bars)
    ax.set(xlabel=xlabel, title=title)
    figure.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


@styled
def contrasted_attention(right, wrong, difference, joints: Mapping, clips: tuple[int, int], skeleton: Skeleton):
    """Which joints a part looks at in recognised and in mistaken clips, with intervals.

    Args:
        right, wrong, difference: (F, 3) mean, low, high for the key joints of all parts in a row, in multiples of an
            even share: the fields of `bpilib.attention.Contrast`.
        joints: part → (query joints, key joints).
        clips: recognised and mistaken clips behind it.
        skeleton: the joint set.

    Returns:
        A figure with a panel a part; a name is bold where the interval of the difference leaves out 0.

    Raises:
        ValueError: not one row a key joint.
    """
    count = sum(len(key) for _, key in joints.values())
    sides = [with_interval(values) for values in (right, wrong, difference)]
    if any(len(values) != count for values in sides):
        raise ValueError(f"expected {count} rows, one a key joint, got {[len(values) for values in sides]}")
    figure = new_picture(13, 1.6 + 0.25 * max(len(key) for _, key in joints.values()))
    start = 0
    for ax, (part, (_, key)) in zip(np.atleast_1d(figure.subplots(1, len(joints), sharex=True)), joints.items()):
        one, other, gap = (values[start : start + len(key)] for values in sides)
        start += len(key)
        groups = check_attention({part: np.ones((1, len(key)))}, joints, axes=2)[part][3]
        colors = [PART_INK[other_part] for other_part, low, high in groups for _ in range(low, high)]
        draw_pairs(ax, [short(skeleton.joints[j]) for j in key], one, other, name_colors=colors)
        for label, (_, low, high) in zip(ax.get_yticklabels(), gap):
            label.set_fontweight("bold" if low > 0 or high < 0 else "normal")
        ax.axvline(1, color=GRAY, lw=1.2, zorder=1)
        for _, low, _ in groups[1:]:
            ax.axhline(low - 0.5, color=PALE, lw=1.2)
        ax.set_title(f"{part} looks at …", color=PART_INK[part])
        ax.xaxis.set_major_formatter("{x:g}×")
    figure.axes[len(joints) // 2].set_xlabel("attention a joint receives (1×: an even share), with its 95 % interval")
    names = [f"{clips[0]} recognised clips", f"{clips[1]} mistaken clips of the same classes"]
    figure.legend(ax.get_legend_handles_labels()[0], names, ncols=2, loc="outside lower center")
    figure.suptitle("Do mistaken clips look elsewhere? (bold: the difference leaves out 0)")
    return figure


@styled
def head_entropy(bits: Mapping[str, np.ndarray], most: Mapping[str, float]) -> Picture:
    """How widely each head spreads its attention: entropy, as a share of the largest possible.

    Args:
        bits: part → (n, heads) entropy of each clip's attention.
        most: part → log2 of the number of key joints: all alike.

    Returns:
        A figure with a panel a part: a dot is the mean over clips, a line reaches over the middle 90 % of clips.

    Raises:
        ValueError: parts that differ, or no clips.
    """
    if set(bits) != set(most) or not all(np.ndim(values) == 2 and len(values) for values in bits.values()):
        raise ValueError(f"expected (n, heads) entropies of {', '.join(most)} with n ≥ 1, got those of {list(bits)}")
    figure = new_picture(11, 1.5 + 0.26 * max(np.shape(values)[1] for values in bits.values()))
    for ax, (part, values) in zip(np.atleast_1d(figure.subplots(1, len(bits), sharex=True, sharey=True)), bits.items()):
        share = 100 * np.asarray(values) / most[part]
        low, high = np.percentile(share, [5, 95], axis=0)
        heads = range(share.shape[1])
        ax.hlines(heads, low, high, color=PART_COLORS[part], lw=3, alpha=0.5)
        ax.scatter(share.mean(0), heads, s=52, color=PART_COLORS[part], edgecolors="white", zorder=3)
        draw_rows(ax, [f"head {n + 1}" for n in heads])
        ax.axvline(100, color=GRAY, lw=1.2, zorder=1)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(f"{part} (100 % = {most[part]:.2f} bits)", color=PART_INK[part])
        ax.xaxis.set_major_formatter("{x:g}%")
    figure.supxlabel(
        "entropy of a joint's attention, per cent of the most (dot: mean, line: 90 % of clips)", fontsize=11
    )
    figure.suptitle("Which heads pick (left) and which average (right)?")
    return figure
