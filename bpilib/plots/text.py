"""Texts and skeletons in one space: maps, similarities, matches."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from bpilib.plots.style import (
    GRAY,
    INK,
    PALE,
    PART_INK,
    RIGHT,
    Picture,
    check_matrix,
    draw_pairs,
    draw_rows,
    fit_name,
    new_picture,
    signed_colors,
    signed_norm,
    styled,
)

# After Paul Tol's muted scheme, which stays apart under the colour-vision deficiencies, without its light colours: a
# dark theme would turn them too dark. The shape tells apart, too.
_COLORS = ("#332288", "#CC6677", "#117733", "#3A9BD1", "#882255", "#999933", "#44AA99", "#AA4499", "#C98A1B", "#6B7178")
_SHAPES = "osD^v"


def _apart(points: np.ndarray, least: float) -> np.ndarray:
    """(n, 2) points, pushed until no two are nearer than `least`."""
    points = points + 1e-3 * least * np.stack([np.sin(np.arange(len(points))), np.cos(np.arange(len(points)))], -1)
    for _ in range(100):
        way = points[:, None] - points  # (n, n, 2)
        far = np.linalg.norm(way, axis=-1, keepdims=True)
        push = np.where((far > 0) & (far < least), way / np.maximum(far, 1e-12) * (least - far) / 2, 0)
        points = points + push.sum(1)
    return points


@styled
def text_map(
    points: Mapping[str, tuple], labels, classes: Sequence[str], unseen, shown: Sequence[int],
    notes: Mapping[str, str] | None = None,
) -> Picture:  # fmt: skip
    """Clips coloured by class, with the text of each class among them as a numbered disc.

    Discs that would cover each other are moved, with a line to where they belong.

    Args:
        points: branch → ((n, 2) clips, (K, 2) texts).
        labels: (n,) classes of the clips.
        classes: K names.
        unseen: (K,) bool; the texts of unseen classes are squares.
        shown: up to 10 classes to colour; clips of others are pale, their texts not drawn.
        notes: branch → what to write beside its name.

    Returns:
        A figure with one panel a branch.

    Raises:
        ValueError: no class or more than 10 to colour, or arrays that do not fit.
    """
    labels, shown = np.asarray(labels, dtype=int), list(shown)
    if not 0 < len(shown) <= len(_COLORS):
        raise ValueError(f"expected 1 to {len(_COLORS)} classes to colour, got {len(shown)}")
    for branch, (clips, texts) in points.items():
        if np.shape(clips) != (len(labels), 2) or np.shape(texts) != (len(classes), 2) or len(unseen) != len(classes):
            raise ValueError(
                f"expected ({len(labels)}, 2) clips and ({len(classes)}, 2) texts, and unseen of as many classes, got "
                f"{np.shape(clips)}, {np.shape(texts)} and {len(unseen)} in {branch}"
            )
    columns = min(len(points), 2 if len(points) <= 4 else 3)
    rows = -(-len(points) // columns)
    figure = new_picture(columns * 4.6 + 3, rows * 4.4 + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for (branch, (clips, texts)), ax in zip(points.items(), axes):
        rest = ~np.isin(labels, shown)
        ax.scatter(*np.asarray(clips)[rest].T, s=14, color=PALE, linewidths=0)
        for n, k in enumerate(shown):
            look = {"color": _COLORS[n], "marker": _SHAPES[n % len(_SHAPES)]}
            ax.scatter(*np.asarray(clips)[labels == k].T, s=20, alpha=0.8, linewidths=0, **look)
        at = np.asarray(texts, dtype=float)[shown]
        span = np.ptp(np.concatenate([clips, at]), axis=0).max()
        for n, (k, true, moved) in enumerate(zip(shown, at, _apart(at, 0.065 * span))):
            ax.plot(*np.stack([true, moved]).T, color=INK, lw=1.2, marker=".", markevery=[0], ms=5)
            frame = {"boxstyle": "square" if unseen[k] else "circle", "fc": "white", "ec": _COLORS[n], "lw": 2.2}
            ax.text(*moved, str(n + 1), ha="center", va="center", fontsize=9, fontweight="bold", bbox=frame)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=PALE)
        note = (notes or {}).get(branch, "")
        ax.set_title(f"{branch}{note and ': '}{note}", color=PART_INK.get(branch, INK), fontsize=11)
        ax.margins(0.08)
    for ax in axes:
        ax.axis("off")
    key = [
        Line2D([], [], ls="", color=_COLORS[n], marker=_SHAPES[n % len(_SHAPES)], ms=7,
               label=f"{n + 1}  {fit_name(classes[k])}" + (" (unseen)" if unseen[k] else ""))
        for n, k in enumerate(shown)
    ]  # fmt: skip
    if (~np.isin(labels, shown)).any():
        key.append(Line2D([], [], ls="", color=PALE, marker="o", ms=6, label="other classes"))
    figure.legend(handles=key, loc="outside right upper", title="clips; texts are the numbers", alignment="left")
    figure.suptitle("Do clips lie around the text of their class?")
    return figure


@styled
def matches(cosines, labels, classes: Sequence[str], query: str, top: int = 10, most: int = 20) -> Picture:
    """How near each clip is to a description, class by class.

    Args:
        cosines: (n,) cosine similarity of each clip with the description.
        labels: (n,) classes of the clips.
        classes: K names.
        query: the description.
        top: so many best clips are filled.
        most: so many classes are shown, those of the best clips first, then the best by their mean.

    Returns:
        A figure with a row a class, the best on top; a dot is a clip, a line the mean of its class.

    Raises:
        ValueError: not one label a clip, or no clips.
    """
    cosines, labels = np.asarray(cosines, dtype=float), np.asarray(labels, dtype=int)
    if cosines.shape != labels.shape or cosines.ndim != 1 or not len(cosines):
        raise ValueError(f"expected n cosines and labels of as many clips, got {cosines.shape} and {labels.shape}")
    best = np.isin(np.arange(len(cosines)), np.argsort(-cosines, kind="stable")[:top])
    means = {k: cosines[labels == k].mean() for k in np.unique(labels)}
    order = sorted(means, key=lambda k: (not best[labels == k].any(), -means[k]))[:most]
    order.sort(key=lambda k: -means[k])
    figure = new_picture(10, 1.7 + 0.34 * len(order))
    ax = figure.subplots()
    draw_rows(ax, [classes[k] for k in order])
    for row, k in enumerate(order):
        at = np.flatnonzero(labels == k)
        lift = row + 0.26 * np.sin(2.4 * np.arange(len(at)))  # apart, and the same in every drawing
        near = best[at]
        ax.scatter(cosines[at[~near]], lift[~near], s=16, facecolors="none", edgecolors=GRAY, linewidths=0.9)
        ax.scatter(cosines[at[near]], lift[near], s=46, color=RIGHT, edgecolors="white", linewidths=0.7, zorder=4)
        ax.plot([means[k]] * 2, [row - 0.36, row + 0.36], color=INK, lw=2.2, zorder=3)
    ax.set_xlabel(f"cosine similarity with the description (blue: the {best.sum()} best; line: mean of the class)")
    figure.suptitle(f"Which clips are “{fit_name(query, 160)}”?")
    return figure


@styled
def similarity(matrix, classes: Sequence[str]) -> Picture:
    """How near the skeleton embedding of each class is to the text of each class, branch by branch.

    Args:
        matrix: branch → (K, K), or (P+1, K, K) in the order global, torso, arm, leg (with five: global and GAP's
            head, hand, hip, foot): cosine of the mean embedding of a true class (row) with a prompt (column);
            NaN in the row of a class without clips.
        classes: K names.

    Returns:
        A figure with one map a branch; a dot marks the prompt nearest to each row.

    Raises:
        ValueError: wrong shape.
    """
    if not isinstance(matrix, Mapping):
        branches = {4: ("global", "torso", "arm", "leg"), 5: ("global", "head", "hand", "hip", "foot")}
        if len(matrix) not in branches:
            raise ValueError(f"expected 4 (BPI) or 5 (GAP) branches, got {len(matrix)}: pass a dict branch → (K, K)")
        matrix = dict(zip(branches[len(matrix)], matrix))
    matrix = {branch: np.asarray(m, dtype=float) for branch, m in matrix.items()}
    count = len(classes)
    for branch, m in matrix.items():
        check_matrix(m, classes, f"similarity of {branch}")
    norm = signed_norm(*matrix.values())
    cell = 0.34 if count <= 20 else 0.17
    columns = 2 if len(matrix) <= 4 else 3
    rows = -(-len(matrix) // columns)
    names = [fit_name(name) for name in classes]
    longest = 0.08 * max(map(len, names))
    wide, tall = max(3.4, count * cell + 0.4), max(3.2, count * cell + 0.5)
    figure = new_picture(longest + 1.2 + columns * wide, longest + 1 + rows * tall)
    axes = figure.subplots(rows, columns, squeeze=False)
    for n, ax in enumerate(axes.flat):
        if n >= len(matrix):
            ax.axis("off")
            continue
        branch, m = list(matrix.items())[n]
        image = ax.imshow(m, cmap=signed_colors(), norm=norm)
        known = np.flatnonzero(np.isfinite(m).any(1))
        nearest = np.nan_to_num(m[known], nan=-np.inf).argmax(1)
        size, dot = (10, 34) if count <= 20 else (7, 7)
        ax.scatter(nearest, known, s=dot, c=INK, edgecolors="white", linewidths=0.8, zorder=3)
        ax.set_yticks(range(count), names if n % columns == 0 else [], fontsize=size)
        ax.set_xticks(range(count), names if n + columns >= len(matrix) else [], fontsize=size, rotation=90)
        ax.tick_params(length=0)
        right = int((nearest == known).sum())
        ax.set_title(f"{branch}: {right} of {len(known)} right", color=PART_INK.get(branch, INK))
    figure.supylabel("skeletons of the class", fontsize=11)
    figure.supxlabel("text of the class", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02).set_label("cosine similarity")
    figure.suptitle("Which text (dot) are the skeletons of a class nearest to?")
    return figure


@styled
def paired_bars(
    names: Sequence[str], first, second, labels: Sequence[str], xlabel: str, title: str = "", bars: bool = True
) -> Picture:
    """Two values a row with their intervals, as a figure; arguments and errors as `draw_pairs`."""
    figure = new_picture(10, 1.5 + (0.46 if bars else 0.36) * max(1, len(names)))
    ax = figure.subplots()
    draw_pairs(ax, names, first, second, labels, bars=bars)
    ax.set_xlabel(xlabel)
    if title:
        figure.suptitle(fit_name(title, 120))
    figure.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure
