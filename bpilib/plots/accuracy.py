"""Accuracy: curves, classes, confusions, ensembles, one clip. Accuracies are per cent, as everywhere.

Classes are K names in label order; long lists make tall figures, so that every name stays readable.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bpilib.plots.style import (
    GRAY,
    GRID,
    INK,
    PALE,
    RIGHT,
    WRONG,
    Picture,
    check_matrix,
    draw_rows,
    fit_name,
    name_columns,
    new_picture,
    styled,
    table_columns,
)

_PERCENT = PercentFormatter(decimals=0)
_BAR, _MISTAKE = "#8FBADD", "#F0A672"  # pale blue and pale orange: right and wrong as wide bars


class _Curve(NamedTuple):
    column: str
    name: str
    color: str
    dash: str


class _Panel(NamedTuple):
    title: str
    ylabel: str
    curves: tuple[_Curve, ...]


_PANELS = (
    _Panel("Training loss", "loss", (
        _Curve("train_loss", "whole", INK, "-"),
        _Curve("cross_entropy", "cross-entropy", "#A35C00", "--"),
        _Curve("contrastive", "skeleton–text", "#882255", ":"),
    )),
    _Panel("Accuracy", "top-1", (
        _Curve("train_top1", "training", INK, "-"),
        _Curve("heldout_top1", "held out", "#882255", "--"),
        _Curve("test_top1", "test", RIGHT, "-"),
    )),
    _Panel("Learning rate", "learning rate", (_Curve("lr", "last", INK, "-"),)),
)  # fmt: skip


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
    panels = [panel for panel in _PANELS if any(curve.column in history for curve in panel.curves)]
    figure = figure or new_picture(13, 4.4)
    figure.clear()
    for ax, panel in zip(np.atleast_1d(figure.subplots(1, max(1, len(panels)))), panels):
        per_cent = panel.ylabel == "top-1"
        for curve in panel.curves:
            values = np.asarray(history.get(curve.column, np.full(len(epoch), np.nan)), dtype=float)
            known = np.isfinite(values)
            if not known.any():
                continue
            last = f"{values[known][-1]:.1f}%" if per_cent else f"{values[known][-1]:.3g}"
            ax.plot(
                epoch[known], values[known], curve.dash, color=curve.color, lw=2,
                marker="o" if known.sum() < 25 else "", ms=4, label=f"{curve.name} {last}",
            )  # fmt: skip
        ax.set(title=panel.title, xlabel="epoch", ylabel=panel.ylabel, xlim=(0, max(2, epoch.max(initial=1)) * 1.04))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y", color=GRID)
        ax.set_axisbelow(True)
        ax.set_ylim(0, 102 if per_cent else None)
        if per_cent:
            ax.yaxis.set_major_formatter(_PERCENT)
        if ax.lines:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    return figure


@styled
def per_class_bars(table) -> Picture:
    """Accuracy of each class with its interval, best on top.

    Args:
        table: of `Scores.per_class()`: a DataFrame or dict with columns class, clips, and top1, low, high in %; they
            are NaN for a class without clips.

    Returns:
        A figure with one bar a class and a line at the mean over clips; classes without clips are at the bottom.

    Raises:
        ValueError: a missing column, or no rows.
    """
    columns = table_columns(table, "class clips top1 low high")
    top1, low, high = (columns[name].astype(float) for name in ("top1", "low", "high"))
    order = np.argsort(-np.nan_to_num(top1, nan=-1), kind="stable")
    clips = columns["clips"][order]
    top1, low, high = top1[order], low[order], high[order]
    rows = np.arange(len(order))
    figure = new_picture(10, 1.4 + 0.34 * len(order))
    ax = figure.subplots()
    sns.barplot(x=top1, y=rows, orient="h", order=rows, errorbar=None, width=0.72, color=_BAR, saturation=1, ax=ax)
    whisker = np.stack([top1 - low, high - top1]).clip(0)
    ax.errorbar(top1, rows, xerr=whisker, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3)
    for row in rows:
        known = np.isfinite(top1[row])
        text = f"{top1[row]:.0f}% of {clips[row]:g}" if known else "no clips"
        ax.annotate(text, (1.015, row), xycoords=("axes fraction", "data"), va="center", fontsize=10,
                    color=INK if known else GRAY)  # fmt: skip
    known = np.isfinite(top1)
    if known.any():
        mean = np.average(top1[known], weights=clips[known])
        ax.axvline(mean, color=WRONG, lw=1.6, ls="--", label=f"all clips: {mean:.1f}%")
        figure.legend(loc="outside lower center")
    draw_rows(ax, columns["class"][order].tolist())
    ax.set(
        xlim=(0, 103),
        xlabel="clips of the class recognised (bar: share, whisker: 95 % interval)",
        ylabel="",
        title="Accuracy of each class",
    )
    ax.xaxis.set_major_formatter(_PERCENT)
    return figure


def _draw_bars(ax: Axes, values: np.ndarray, colors: Sequence[str], texts: Sequence[str]) -> None:
    """Horizontal bars in per cent, the first on top, each with a text at its end."""
    rows = np.arange(len(values))
    sns.barplot(
        x=values, y=rows, hue=rows, orient="h", order=rows, palette=list(colors), legend=False, width=0.7,
        saturation=1, ax=ax,
    )  # fmt: skip
    for row, (value, text) in enumerate(zip(values, texts)):
        ax.annotate(text, (value, row), (4, 0), textcoords="offset points", va="center", fontsize=10)


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
    ranked = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:top]]
    pairs = [(a, b) for a, b in ranked if wrong[a, b] > 0]
    figure = new_picture(11, 1.4 + 0.4 * max(1, len(pairs)))
    ax = figure.subplots()
    if not pairs:
        ax.axis("off")
        ax.set_title("No clip was taken for another class")
        return figure
    shares = np.array([100 * wrong[pair] for pair in pairs])
    texts = [f"{matrix[a, b]:g} of {total[a]:g} clips" for a, b in pairs]
    _draw_bars(ax, shares, [_MISTAKE] * len(pairs), texts)
    draw_rows(ax, [f"{fit_name(classes[a], 28)} → {fit_name(classes[b], 28)}" for a, b in pairs], most=60)
    ax.set(
        xlim=(0, 1.18 * shares.max()),
        xlabel="share of the true class taken for the other",
        ylabel="",
        title="Most confused: true class → predicted class",
    )
    ax.xaxis.set_major_formatter("{x:g}%")
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
            ax.axhline(at - 0.5, color=PALE, lw=1)
    draw_rows(ax, [row[0] if isinstance(row[0], str) else " + ".join(row[0]) for row in rows], most=60)
    ax.set(xlabel="top-1 (dot) with its 95 % interval (line)", title="Every subset of the runs")
    ax.xaxis.set_major_formatter(PercentFormatter())
    return figure


MOST_CLASSES = 120  # of which an image for TensorBoard has rows and columns; NTU RGB+D 120 has as many
_FEW_CLASSES = 20  # up to which a confusion matrix has every share written into it

_RIGHTS = LinearSegmentedColormap.from_list("right", ["#FFFFFF", "#9CC3E2", "#0062A8", "#003A66"])
_WRONGS = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#F7C49B", "#D55E00", "#7A3600"])


@styled
def confusion(matrix, classes: Sequence[str]) -> Picture:
    """Confusion matrix in per cent of the true class: the diagonal blue (right), the rest orange (wrong).

    Args:
        matrix: (K, K) counts, rows the true class, columns the predicted one.
        classes: K names; up to 20, every share from 0.5 % is written; above, the wrong ones from 10 %. The row of a
            class without clips is grey.

    Returns:
        A figure that grows with K.

    Raises:
        ValueError: wrong shape.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    count = len(classes)
    few = count <= _FEW_CLASSES
    total = matrix.sum(1, keepdims=True)
    share = 100 * matrix / np.where(total > 0, total, 1)
    diagonal = np.eye(count, dtype=bool)
    written = share >= 0.5 if few else (share >= 10) & ~diagonal
    cell = 0.62 if few else 0.21
    longest = 0.085 * max(len(fit_name(name)) for name in classes)
    figure = new_picture(max(6.5, count * cell + longest + 0.8), max(5.2, count * cell + longest))
    ax = figure.subplots()
    # The root shows rare mistakes.
    for cells, colors, norm in (
        (diagonal, _RIGHTS, Normalize(0, 100)),
        (~diagonal, _WRONGS, PowerNorm(0.5, 0, 100)),
    ):
        for annotated in (False, True):
            if not (chosen := cells & (written == annotated)).any():
                continue
            sns.heatmap(
                share, mask=~chosen, cmap=colors, norm=norm, vmin=0, vmax=100, annot=annotated, fmt=".0f",
                annot_kws={"fontsize": 10 if few else 6}, square=True, linewidths=0.6, linecolor=GRID, cbar=False,
                xticklabels=False, yticklabels=False, ax=ax,
            )  # fmt: skip
    size = 10 if few else 8
    middles = np.arange(count) + 0.5
    name_columns(ax, classes, size, rotation=40 if few else 90, at=middles)
    ax.set_yticks(middles, [fit_name(name) for name in classes], fontsize=size, rotation=0)
    for row in np.flatnonzero(total == 0).tolist():
        ax.axhspan(row, row + 1, color=PALE, zorder=3)
        ax.text(count / 2, row + 0.5, "no clips", color=INK, fontsize=size, ha="center", va="center", zorder=4)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    right = np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(
        f"{right:.1%} of {matrix.sum():,.0f} clips right\nper cent of the true class; blue right, orange wrong"
    )
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
        right = np.trace(matrix)
        total = matrix.sum()
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
    shares = 100 * probabilities[order]
    figure = new_picture(10, 1.5 + 0.42 * len(order))
    ax = figure.subplots()
    _draw_bars(ax, shares, [RIGHT if k == truth else PALE for k in order], [f"{share:.1f}%" for share in shares])
    draw_rows(ax, [classes[k] for k in order])
    known = "" if truth is None else f" (its class: {fit_name(classes[truth])})"
    ax.set(xlim=(0, 109), xlabel="probability", ylabel="", title=f"Clip {fit_name(clip)}{known}")
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.set_xticks(range(0, 101, 20))
    return figure
