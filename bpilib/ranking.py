"""The classes of one clip, the likeliest first."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter

from .style import INK, PALE, RIGHT, Picture, new_picture, styled


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
