"""Charts: arrays in, a figure out. Accuracies are per cent, as everywhere; classes are counted in clips.

The heat maps are in `heatmaps.py` and can be had from here too.
Classes are K names in label order; long lists make tall figures, so that every name stays readable.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binomtest

from .heatmaps import (  # noqa: F401
    attention_heads,
    attention_maps,
    check_matrix,
    confusion,
    confusion_image,
    received_attention,
    similarity,
)
from .style import GRAY, GRID, INK, PALE, RIGHT, WRONG, Picture, new_picture, styled

_PERCENT = PercentFormatter(decimals=0)


def _class_axis(figure_axes, classes: Sequence[str], size: float = 10):
    """Class names down an axis, the first on top."""
    figure_axes.set_yticks(range(len(classes)), classes, fontsize=size)
    figure_axes.set_ylim(len(classes) - 0.4, -0.6)
    figure_axes.tick_params(axis="y", length=0)


@styled
def class_counts(labels, classes: Sequence[str], splits: Mapping[str, Sequence[int]]) -> Picture:
    """How many clips each class has in each split.

    Args:
        labels: (N,) class numbers.
        classes: K names.
        splits: name → indices into `labels`; splits may overlap.

    Returns:
        A figure with one group of bars a class, one bar a split.

    Raises:
        ValueError: a label outside 0…K-1.
    """
    labels = np.asarray(labels, dtype=int)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels must lie in 0…{len(classes) - 1} for {len(classes)} classes, got {labels.max()}")
    figure = new_picture(10, 1.3 + len(classes) * max(0.24, 0.2 * len(splits)))
    ax = figure.subplots()
    colors = mpl.colormaps["cividis"](np.linspace(0.12, 0.8, max(2, len(splits))))
    height = 0.8 / max(1, len(splits))
    for n, (name, indices) in enumerate(splits.items()):
        counts = np.bincount(labels[np.asarray(indices, dtype=int)], minlength=len(classes))
        at = np.arange(len(classes)) - 0.4 + (n + 0.5) * height
        bars = ax.barh(at, counts, height * 0.92, color=colors[n], label=f"{name} ({counts.sum():,} clips)")
        ax.bar_label(bars, fontsize=9 if height > 0.3 else 7, padding=3)
    _class_axis(ax, classes)
    ax.set(xlabel="clips", title="Clips of each class in each split")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.08)
    figure.legend(ncols=3, loc="outside lower center")
    return figure


@styled
def clip_lengths(lengths, labels, classes: Sequence[str]) -> Picture:
    """How long the clips of each class are: a box from quartile to quartile, whiskers from 5 to 95 %, the rest as dots.

    Args:
        lengths: (N,) frames.
        labels: (N,) class numbers.
        classes: K names.

    Returns:
        A figure with one box a class.

    Raises:
        ValueError: not one length per label.
    """
    lengths, labels = np.asarray(lengths), np.asarray(labels, dtype=int)
    if lengths.shape != labels.shape:
        raise ValueError(f"expected one length per label, got shapes {lengths.shape} and {labels.shape}")
    figure = new_picture(10, 1.4 + 0.34 * len(classes))
    ax = figure.subplots()
    line = {"color": INK, "linewidth": 1.2}
    look = {
        "boxprops": {**line, "facecolor": PALE},
        "medianprops": {"color": INK, "linewidth": 2.6},
        "whiskerprops": line,
    }
    dots = {"marker": "o", "markersize": 3.5, "markerfacecolor": GRAY, "markeredgewidth": 0, "alpha": 0.6}
    ax.boxplot(
        [lengths[labels == k] for k in range(len(classes))], positions=range(len(classes)), orientation="horizontal",
        whis=(5, 95), widths=0.6, patch_artist=True, showcaps=False, flierprops=dots, manage_ticks=False, **look,
    )  # fmt: skip
    _class_axis(ax, classes)
    span = f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}" if len(lengths) else "none"
    ax.set(xlabel="frames", xlim=(0, None), title=f"Length of the clips ({span} frames)")
    return figure


@styled
def training_curves(history: Mapping[str, Sequence], figure: Picture | None = None) -> Picture:
    """Loss, accuracy and learning rate over epochs.

    Args:
        history: columns (a DataFrame or a dict of lists): epoch and any of train_loss, cross_entropy, contrastive,
            train_top1, heldout_top1, test_top1 (%), lr. Missing values are left out.
        figure: a figure of an earlier call, to be drawn anew in place (live curves).

    Returns:
        The figure; panels without data are left out.

    Raises:
        ValueError: no epoch column.
    """
    if "epoch" not in history:
        raise ValueError(f"the history needs a column epoch, got {list(history)}: read it from a run's metrics.csv")
    epoch = np.asarray(history["epoch"], dtype=float)
    losses = (("train_loss", "whole", INK, "-"), ("cross_entropy", "cross-entropy", "#A35C00", "--"))
    losses += (("contrastive", "skeleton–text", "#882255", ":"),)
    shares = (("train_top1", "training", INK, "-"), ("heldout_top1", "held out", "#882255", "--"))
    shares += (("test_top1", "test", RIGHT, "-"),)
    panels = (("Training loss", "loss", losses), ("Accuracy", "top-1", shares))
    panels += (("Learning rate", "learning rate", (("lr", "last", INK, "-"),)),)
    panels = [(t, y, [c for c in curves if c[0] in history]) for t, y, curves in panels]
    panels = [p for p in panels if p[2]]
    figure = figure or new_picture(13, 4.4)
    figure.clear()
    for ax, (title, ylabel, curves) in zip(np.atleast_1d(figure.subplots(1, max(1, len(panels)))), panels):
        for column, name, color, dash in curves:
            values = np.asarray(history[column], dtype=float)
            there = np.isfinite(values)
            if not there.any():
                continue
            last = f"{values[there][-1]:.1f}%" if ylabel == "top-1" else f"{values[there][-1]:.3g}"
            mark = "o" if there.sum() < 25 else ""
            ax.plot(
                epoch[there], values[there], dash, color=color, lw=2, marker=mark, ms=4, label=f"{name} {last}"
            )
        ax.set(title=title, xlabel="epoch", ylabel=ylabel, xlim=(0, max(2, epoch.max(initial=1)) * 1.04))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y", color=GRID)
        ax.set_axisbelow(True)
        ax.set_ylim(0, 102 if ylabel == "top-1" else None)
        if ylabel == "top-1":
            ax.yaxis.set_major_formatter(_PERCENT)
        if ax.lines:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    return figure


def wilson(accuracy: float, clips: int) -> tuple[float, float]:
    """95 % Wilson interval, in %, of an accuracy in % over so many clips; (0, 100) without clips."""
    if not clips:
        return 0.0, 100.0
    low, high = binomtest(round(accuracy * clips / 100), int(clips)).proportion_ci(0.95, "wilson")
    return 100 * low, 100 * high


@styled
def per_class_bars(accuracy, counts, classes: Sequence[str]) -> Picture:
    """Accuracy of each class, best on top, with 95 % Wilson intervals.

    Args:
        accuracy: (K,) %; NaN for a class without clips.
        counts: (K,) clips behind each.
        classes: K names.

    Returns:
        A figure with one bar a class and a line at the mean over clips.

    Raises:
        ValueError: not one value per class.
    """
    accuracy, counts = np.nan_to_num(np.asarray(accuracy, dtype=float)), np.asarray(counts)
    if not accuracy.shape == counts.shape == (len(classes),):
        raise ValueError(f"expected ({len(classes)},) accuracies and counts, got {accuracy.shape} and {counts.shape}")
    order = np.argsort(-accuracy, kind="stable")
    low, high = np.array([wilson(a, n) for a, n in zip(accuracy, counts)]).T
    mean = (accuracy * counts).sum() / max(1, counts.sum())
    figure = new_picture(10, 1.4 + 0.34 * len(classes))
    ax = figure.subplots()
    error = np.stack([accuracy - low, high - accuracy]).clip(0)[:, order]
    ax.barh(
        range(len(order)),
        accuracy[order],
        0.72,
        color="#8FBADD",
        xerr=error,
        ecolor=INK,
        error_kw={"capsize": 3, "lw": 1.3},
    )
    for row, k in enumerate(order):
        ax.text(104.5, row, f"{accuracy[k]:.0f}% of {counts[k]:g}", va="center", fontsize=10)
    ax.axvline(mean, color=WRONG, lw=1.6, ls="--", label=f"all clips: {mean:.1f}%")
    _class_axis(ax, [classes[k] for k in order])
    ax.set(
        xlim=(0, 103),
        xlabel="clips of the class recognised (bar: share, whisker: 95 % interval)",
        title="Accuracy of each class",
    )
    ax.xaxis.set_major_formatter(_PERCENT)
    figure.legend(loc="outside lower center")
    return figure


@styled
def confused_pairs(matrix, classes: Sequence[str], top: int = 10) -> Picture:
    """The most frequent mistakes, as the share of the true class's clips.

    Args:
        matrix: (K, K) counts, rows the true class.
        classes: K names.
        top: how many pairs.

    Returns:
        A figure with one bar a pair "true → predicted".

    Raises:
        ValueError: wrong shape.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    total = matrix.sum(1)
    wrong = matrix / np.where(total > 0, total, 1)[:, None]
    np.fill_diagonal(wrong, 0)
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:top]]
    pairs = [(a, b) for a, b in pairs if wrong[a, b] > 0]
    figure = new_picture(11, 1.4 + 0.4 * max(1, len(pairs)))
    ax = figure.subplots()
    bars = ax.barh(range(len(pairs)), [100 * wrong[p] for p in pairs], 0.7, color="#F0A672")
    ax.bar_label(bars, [f"{matrix[a, b]:g} of {total[a]:g} clips" for a, b in pairs], padding=4, fontsize=10)
    _class_axis(ax, [f"{classes[a]} → {classes[b]}" for a, b in pairs])
    ax.set(xlabel="share of the true class taken for the other", title="Most confused: true class → predicted class")
    ax.xaxis.set_major_formatter("{x:g}%")
    ax.margins(x=0.18)
    if not pairs:
        ax.axis("off")
        ax.set_title("No clip was taken for another class")
    return figure


@styled
def ensemble_table(table) -> Picture:
    """Accuracy of every subset of runs with its interval: single runs on top, the largest ensembles below.

    Args:
        table: a DataFrame or dict with columns subset ("joint + bone", or a tuple of names), n (runs in it), top1,
            low, high (%).

    Returns:
        A figure with one dot and interval a subset, sorted by size, then accuracy; the best is orange and bold.

    Raises:
        ValueError: a missing column, or no rows.
    """
    columns = ("subset", "top1", "low", "high", "n")
    missing = [c for c in columns if c not in table]
    if missing or not len(table["subset"]):
        raise ValueError(f"expected columns {', '.join(columns)} and at least one row, missing: {missing}")
    rows = sorted(zip(*(list(table[c]) for c in columns)), key=lambda row: (row[4], -row[1]))
    best = max(range(len(rows)), key=lambda i: rows[i][1])
    figure = new_picture(10, 1.5 + 0.4 * len(rows))
    ax = figure.subplots()
    for at, (_, top1, low, high, _) in enumerate(rows):
        ax.plot([low, high], [at, at], color=GRAY, lw=2.5, solid_capstyle="round", zorder=2)
        ax.scatter(top1, at, s=80, color=WRONG if at == best else RIGHT, edgecolors="white", zorder=3)
        ax.annotate(f"{top1:.1f}%", (1.01, at), xycoords=("axes fraction", "data"), va="center",
                    fontweight="bold" if at == best else "normal")  # fmt: skip
        if at and rows[at][4] != rows[at - 1][4]:
            ax.axhline(at - 0.5, color="#D5D9DE", lw=1)
    _class_axis(ax, [row[0] if isinstance(row[0], str) else " + ".join(row[0]) for row in rows])
    ax.set(xlabel="top-1 (dot) with its 95 % interval (line)", title="Every subset of the runs")
    ax.xaxis.set_major_formatter(PercentFormatter())
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)
    return figure
