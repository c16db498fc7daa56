"""Films on paper: the skeleton on their frames, the classes of a long recording over time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection

from bpilib.plots.style import (
    GRID,
    INK,
    PALE,
    PART_COLORS,
    Picture,
    fit_name,
    new_picture,
    part_of_bone,
    part_of_joint,
    styled,
)
from bpilib.skeleton import Skeleton


class Photo(Picture):
    """A figure with photographs: a dark theme must not turn over their lightness, as it does with drawings."""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(include, exclude)
        plain = bundle["text/html"].replace('class="bpi-figure"', 'style="max-width:100%;border-radius:6px"')
        return bundle | {"text/html": plain}


@styled
def skeleton_on_film(
    images: Sequence[np.ndarray],
    points: Sequence[np.ndarray],
    skeleton: Skeleton,
    captions: Sequence[str],
    title: str = "",
) -> Picture:
    """Frames of a film with the skeleton that was found on them.

    Args:
        images: n frames (H, W, 3) uint8 RGB of one size.
        points: n of (M, V, 2) pixels; NaN for nobody.
        skeleton: the joint set.
        captions: n texts, one above each frame.
        title: heading.

    Returns:
        A figure with an axes a frame, four in a row, of upright films eight.

    Raises:
        ValueError: nothing to draw, or not as many points as images.
    """
    if not len(images) or not len(images) == len(points) == len(captions):
        raise ValueError(f"expected as many points and captions as images, got {len(images)}, {len(points)}")
    height, width = images[0].shape[:2]
    columns = min(4 if width > 0.8 * height else 8, len(images))
    rows = -(-len(images) // columns)
    tall = 0.6 + rows * (0.3 + 12.3 / columns * height / width)
    figure = Photo(figsize=(12.5, tall), dpi=100, layout="constrained", facecolor="white")
    colors = [PART_COLORS[part] for part in part_of_bone(skeleton)]
    dots = [PART_COLORS[part] for part in part_of_joint(skeleton)]
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, image, persons, caption in zip(axes, images, points, captions):
        ax.imshow(image, extent=(0, width, height, 0))
        for number, joints in enumerate(persons):
            if np.isfinite(joints).all():
                bones = joints[np.array(skeleton.bones)]
                ax.add_collection(LineCollection(bones, colors="white", linewidths=4.5, capstyle="round"))
                ax.add_collection(LineCollection(bones, colors=colors, linewidths=2.6, capstyle="round"))
                ax.scatter(*joints.T, s=9, c="white" if number else dots, edgecolors=dots, linewidths=1, zorder=3)
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.set_title(fit_name(caption, 90 // columns), fontsize=10, fontweight="normal")
    figure.suptitle(fit_name(title, 120) if title else "")
    return figure


@styled
def class_timeline(begins, ends, probabilities, classes: Sequence[str], title: str = "", top: int = 8) -> Picture:
    """Which class when: the probability of each class in each window of a long recording.

    Args:
        begins, ends: (n,) seconds of n windows, which may overlap.
        probabilities: (n, K), rows sum to 1.
        classes: K names.
        title: heading.
        top: classes shown; those that are most probable somewhere go first.

    Returns:
        A figure: above, the likeliest class of each moment; below, a row a class. Grey is where nobody was found.

    Raises:
        ValueError: shapes that do not fit.
    """
    begins, ends, shares = (np.asarray(a, dtype=float) for a in (begins, ends, probabilities))
    if shares.ndim != 2 or shares.shape != (len(begins), len(classes)) or len(ends) != len(begins) or not len(begins):
        raise ValueError(f"expected ({len(begins)}, {len(classes)}) probabilities of windows, got {shares.shape}")
    names = [fit_name(one, 24) for one in classes]
    edges, of = moments(begins, ends)
    known, winners = of >= 0, np.where(of >= 0, shares.argmax(1)[of], -1)
    won = np.bincount(winners[known], np.diff(edges)[known], minlength=len(classes))  # seconds
    peak = shares.max(0)
    first = [edges[np.argmax(winners == k)] if won[k] else np.inf for k in range(len(won))]
    kept = sorted(np.lexsort((-peak, -won))[:top], key=lambda k: (first[k], -peak[k]))
    unit, name = (60, "minutes") if edges[-1] - edges[0] > 300 else (1, "seconds")
    edges = edges / unit
    figure = new_picture(12.5, 2.1 + 0.36 * len(kept))
    best, ax = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(1.5, len(kept) * 0.55)])
    values = np.where(known[None], shares[of][:, kept].T, np.nan)
    mesh = ax.pcolormesh(edges, np.arange(len(kept) + 1), values, cmap="Purples", vmin=0, vmax=1)
    ax.set_yticks(np.arange(len(kept)) + 0.5, [names[k] for k in kept])
    ax.set_facecolor(PALE)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.hlines(np.arange(1, len(kept)), edges[0], edges[-1], color=GRID, lw=0.8)
    ax.set_xlabel(f"{name} of the recording")
    certain = np.where(known, shares[of].max(1), np.nan)
    best.stairs(100 * certain, edges, color=INK, lw=1.5, baseline=None)
    for start, stop, k in runs(winners):
        if k >= 0:
            span = edges[start], edges[stop + 1]
            best.axvspan(*span, color="#F1F3F5" if (k % 2) else "white", lw=0, zorder=0)
            room = (span[1] - span[0]) / (edges[-1] - edges[0])
            if room * 95 > len(names[k]):  # as many letters as fit
                low = 100 * certain[start : stop + 1].min() < 45  # the line runs where the name would stand
                y, side = (104, "top") if low else (8, "bottom")
                best.text(sum(span) / 2, y, names[k], ha="center", va=side, fontsize=10, fontweight="bold")
    best.set(ylim=(0, 108), ylabel="likeliest, %", yticks=[0, 50, 100])
    best.grid(axis="y", color=GRID)
    figure.colorbar(mesh, ax=[best, ax], label="probability", pad=0.01, aspect=25)
    figure.suptitle(fit_name(title, 120) if title else "")
    return figure


def moments(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (T+1,) of moments, and (T,) the window whose middle is nearest to each among those over it; -1: none."""
    order = np.argsort((begins + ends) / 2, kind="stable")
    begins, ends = begins[order], ends[order]
    middles = (begins + ends) / 2
    edges = np.unique(np.concatenate([begins, ends, (middles[1:] + middles[:-1]) / 2]).round(6))
    edges = edges if len(edges) > 1 else np.array([begins[0], begins[0] + 1e-3])
    at = (edges[1:] + edges[:-1]) / 2
    near = (np.searchsorted(middles, at)[:, None] + np.arange(-2, 2)).clip(0, len(middles) - 1)  # (T, 4)
    over = (begins[near] <= at[:, None]) & (at[:, None] <= ends[near])
    best = np.where(over, np.abs(middles[near] - at[:, None]), np.inf).argmin(1)
    return edges, np.where(over.any(1), order[near[np.arange(len(at)), best]], -1)


def runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """(first, last, value) of each stretch of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    return [(int(piece[0]), int(piece[-1]), int(values[piece[0]])) for piece in np.split(np.arange(len(values)), cuts)]
