"""Accuracy: curves, classes, confusions, ensembles, one clip. Accuracies are per cent, as everywhere.

Classes are K names in label order; long lists make tall figures, so that every name stays readable.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bpilib.metrics import wilson
from bpilib.plots.style import GRAY, GRID, INK, PALE, RIGHT, WRONG, Picture, check_matrix, new_picture, styled

_PERCENT = PercentFormatter(decimals=0)


def _class_axis(figure_axes, classes: Sequence[str], size: float = 10):
    """Class names down an axis, the first on top."""
    figure_axes.set_yticks(range(len(classes)), classes, fontsize=size)
    figure_axes.set_ylim(len(classes) - 0.4, -0.6)
    figure_axes.tick_params(axis="y", length=0)


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
    low, high = np.nan_to_num([wilson(round(a * n / 100), n) for a, n in zip(accuracy, counts)]).T
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


MOST_CLASSES = 120  # of which an image for TensorBoard has rows and columns; NTU RGB+D 120 has as many

_RIGHTS = LinearSegmentedColormap.from_list("right", ["#FFFFFF", "#9CC3E2", "#0062A8", "#003A66"])
_WRONGS = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#F7C49B", "#D55E00", "#7A3600"])


@styled
def confusion(matrix, classes: Sequence[str]) -> Picture:
    """Confusion matrix in per cent of the true class: the diagonal blue (right), the rest orange (wrong).

    Args:
        matrix: (K, K) counts, rows the true class, columns the predicted one.
        classes: K names; up to 20, every share from 0.5 % is written; above, the wrong ones from 10 %.

    Returns:
        A figure that grows with K.

    Raises:
        ValueError: wrong shape.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    count = len(classes)
    total = matrix.sum(1, keepdims=True)
    share = matrix / np.where(total > 0, total, 1)
    diagonal = np.eye(count, dtype=bool)
    cell = 0.62 if count <= 20 else 0.21
    longest = 0.085 * max(map(len, classes))
    figure = new_picture(max(6.5, count * cell + longest + 0.8), max(5.2, count * cell + longest))
    ax = figure.subplots()
    image = np.where(diagonal[..., None], _RIGHTS(share), _WRONGS(np.sqrt(share)))  # the root shows rare mistakes
    ax.imshow(image)
    written = share >= 0.005 if count <= 20 else (share >= 0.1) & ~diagonal
    for i, j in zip(*np.nonzero(written)):
        color = "white" if share[i, j] > (0.55 if i == j else 0.3) else INK
        size = 10 if count <= 20 else 6
        ax.text(j, i, f"{share[i, j] * 100:.0f}", ha="center", va="center", color=color, fontsize=size)
    names = 10 if count <= 20 else 8
    ax.set_xticks(range(count), classes, rotation=90 if count > 20 else 40, ha="center" if count > 20 else "right",
                  rotation_mode="default" if count > 20 else "anchor", fontsize=names)  # fmt: skip
    ax.set_yticks(range(count), classes, fontsize=names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=GRID, lw=0.6)
    ax.tick_params(which="minor", length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    top1 = np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(f"{top1:.1%} of {matrix.sum():,.0f} clips right\nper cent of the true class; blue right, orange wrong")
    return figure


def _most_mistaken(matrix: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The classes in most mistakes, up to `MOST_CLASSES` in label order; all others together are one more class."""
    if len(classes) <= MOST_CLASSES:
        return matrix, list(classes)
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
    place = np.full(len(classes), MOST_CLASSES)  # of each class in the smaller matrix
    place[kept] = np.arange(MOST_CLASSES)
    rows = np.zeros((MOST_CLASSES + 1, len(classes)))
    np.add.at(rows, place, matrix)
    small = np.zeros((MOST_CLASSES + 1,) * 2)
    np.add.at(small.T, place, rows.T)
    return small, [*(classes[i] for i in kept), f"{len(classes) - MOST_CLASSES:,} others"]


def confusion_image(matrix, classes: Sequence[str], dpi: int = 80) -> np.ndarray:
    """The confusion matrix as (H, W, 3) uint8, as TensorBoard's `add_image(..., dataformats="HWC")` takes it.

    Of more than `MOST_CLASSES` classes those that are mistaken most are drawn, so that it stays as small and as fast.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    figure = confusion(*_most_mistaken(matrix, classes))
    if len(classes) > MOST_CLASSES:
        right, total = np.trace(matrix), matrix.sum()
        figure.axes[0].set_title(
            f"{right / max(1, total):.1%} of {total:,.0f} clips right\n"
            f"the {MOST_CLASSES} of {len(classes):,} classes that are mistaken most; per cent of the true class"
        )
    canvas = FigureCanvasAgg(figure)
    canvas.figure.set_dpi(dpi)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@styled
def top_classes(probabilities, classes: Sequence[str], clip: str, truth: int | None = None, top: int = 5) -> Picture:
    """The most probable classes of a clip.

    Args:
        probabilities: (K,), sum 1.
        classes: K names.
        clip: its name, for the title.
        truth: its true class, drawn in blue; None: not known.
        top: how many classes.

    Returns:
        A figure with one bar a class, the likeliest on top.

    Raises:
        ValueError: not one probability per class, or a true class that is none of them.
    """
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.shape != (len(classes),):
        raise ValueError(f"expected ({len(classes)},) probabilities, one a class, got shape {probabilities.shape}")
    if truth is not None and not 0 <= truth < len(classes):
        raise ValueError(f"expected a true class within 0...{len(classes) - 1} or None, got {truth}")
    order = np.argsort(-probabilities, kind="stable")[:top]
    figure = new_picture(10, 1.5 + 0.42 * len(order))
    ax = figure.subplots()
    colors = [RIGHT if k == truth else PALE for k in order]
    bars = ax.barh(range(len(order)), 100 * probabilities[order], 0.7, color=colors)
    ax.bar_label(bars, [f"{100 * probabilities[k]:.1f}%" for k in order], padding=4, color=INK)
    ax.set_yticks(range(len(order)), [classes[k] for k in order])
    ax.tick_params(axis="y", length=0)
    known = "" if truth is None else f" (its class: {classes[truth]})"
    ax.set(xlim=(0, 109), ylim=(len(order) - 0.4, -0.6), xlabel="probability", title=f"Clip {clip}{known}")
    ax.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    ax.set_xticks(range(0, 101, 20))
    return figure
