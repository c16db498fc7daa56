"""What sets runs apart: their curves over one another, and one confusion matrix minus another."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bpilib.plots.comparison import A, B
from bpilib.plots.style import (
    GRAY,
    GRID,
    INK,
    Picture,
    check_matrix,
    fit_name,
    name_columns,
    new_picture,
    signed_colors,
    signed_norm,
    styled,
)

MOST_RUNS = 6  # whose curves can be told apart
_LOOKS = ((A, "-"), (B, "--"), ("#0062A8", "-."), ("#2FB58A", ":"), ("#882255", (0, (5, 1, 1, 1))), ("#6B7178", "-"))
_PANELS = (("train_loss", "training loss"), ("train_top1", "training top-1, %"), ("test_top1", "test top-1, %"))
_FEW_CLASSES = 20  # whose shares are written into the map


@styled
def curves_of_runs(histories: Mapping[str, Mapping[str, Sequence]]) -> Picture:
    """Loss and accuracy of several runs over their epochs.

    Args:
        histories: name → columns of its metrics.csv (a DataFrame or a dict of lists): epoch, and any of train_loss,
            train_top1, test_top1; at most `MOST_RUNS` names.

    Returns:
        A figure with a panel a column and a line a run.

    Raises:
        ValueError: no run, too many, or a history without epochs.
    """
    if not 0 < len(histories) <= MOST_RUNS:
        raise ValueError(f"expected 1 to {MOST_RUNS} runs, got {len(histories)}: choose some with the parameter runs")
    if wrong := [name for name, rows in histories.items() if "epoch" not in rows]:
        raise ValueError(f"the history of {wrong[0]} needs a column epoch, got {list(histories[wrong[0]])}")
    figure = new_picture(13, 4.6)
    for ax, (column, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS):
        for (name, rows), (color, dash) in zip(histories.items(), _LOOKS):
            epochs = np.asarray(rows["epoch"], dtype=float)
            values = np.asarray(rows.get(column, np.full(len(epochs), np.nan)), dtype=float)
            known = np.isfinite(values)
            mark = "o" if known.sum() < 25 else ""
            ax.plot(epochs[known], values[known], ls=dash, color=color, lw=2, marker=mark, ms=4, label=fit_name(name))
        ax.set(title=label, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y", color=GRID)
        if column.endswith("top1"):
            ax.set_ylim(0, 102)
    longest = max(len(fit_name(name)) for name in histories)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3 if longest < 30 else 2)
    figure.suptitle("How did the runs get there?")
    return figure


@styled
def confusion_difference(first, second, classes: Sequence[str], a: str, b: str) -> Picture:
    """What one run takes for what more often than another: the difference of their confusion matrices.

    Args:
        first, second: (K, K) counts on the same clips, rows the true class, columns the predicted one.
        classes: K names; up to 20, every difference of at least one point is written.
        a, b: names of the runs.

    Returns:
        A figure with one map, in percentage points of the true class: first minus second; the diagonal is framed.

    Raises:
        ValueError: wrong shapes, or not the same clips.
    """
    one, two = (check_matrix(matrix, classes, "a confusion matrix") for matrix in (first, second))
    total = one.sum(1, keepdims=True)
    if not np.array_equal(total, two.sum(1, keepdims=True)):
        raise ValueError("expected two confusion matrices of the same clips: their rows have different sums")
    gap = 100 * (one - two) / np.where(total > 0, total, 1)
    few = len(classes) <= _FEW_CLASSES
    cell = 0.62 if few else 0.21
    longest = 0.085 * max(len(fit_name(name)) for name in classes)
    figure = new_picture(max(7.5, len(classes) * cell + longest + 2.2), max(5.4, len(classes) * cell + longest + 0.6))
    ax = figure.subplots()
    norm = signed_norm(gap)
    image = ax.imshow(np.ma.masked_equal(gap, 0), cmap=signed_colors(), norm=norm)  # no difference: white
    if few:
        for row, column in np.argwhere(np.abs(gap) >= 1):
            shade = signed_colors()(norm(gap[row, column]))[:3] @ np.array([0.3, 0.6, 0.1])
            text = f"{gap[row, column]:+.0f}".replace("-", "−")
            ax.text(column, row, text, ha="center", va="center", fontsize=9.5, color=INK if shade > 0.5 else "white")
    for k in range(len(classes)):
        ax.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, ec=GRAY, lw=0.8))
    size = 10 if few else 8
    name_columns(ax, classes, size, rotation=40 if few else 90)
    ax.set_yticks(range(len(classes)), [fit_name(name) for name in classes], fontsize=size)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.set_title(f"{fit_name(a, 36)}\nminus {fit_name(b, 36)}", fontsize=11)
    bar = figure.colorbar(image, ax=ax, format="{x:+g}", shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("percentage points of the true class")
    figure.suptitle("What does one run take for what more often?")
    return figure
