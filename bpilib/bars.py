"""Two values side by side with their intervals, row by row: paired bars, and dots joined by a line (dumbbells)."""

from collections.abc import Sequence

import numpy as np

from .style import GRID, INK, PALE, RIGHT, WRONG, Picture, new_picture, styled


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
