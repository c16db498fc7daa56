"""How even attention is, before and after training, of several runs."""

import numpy as np
import pandas as pd

from bpilib.plots.style import GRAY, PART_COLORS, PART_INK, Picture, draw_rows, new_picture, styled, table_columns


@styled
def attention_evenness(table: pd.DataFrame) -> Picture:
    """Entropy of each head's attention in % of the largest, by run: filled after training, hollow before.

    Args:
        table: columns run, part, head, trained, untrained (`bpilib.analysis.evenness.measure_evenness`).

    Returns:
        A figure with a panel a part and a row a run.

    Raises:
        ValueError: a missing column, or no rows.
    """
    columns = {name: np.asarray(values) for name, values in table_columns(table, "run part trained untrained").items()}
    runs = list(dict.fromkeys(columns["run"].tolist()))
    parts = list(dict.fromkeys(columns["part"].tolist()))
    figure = new_picture(11, 2.0 + 0.42 * len(runs))
    for ax, part in zip(np.atleast_1d(figure.subplots(1, len(parts), sharex=True, sharey=True)), parts):
        for at, run in enumerate(runs):
            here = (columns["run"] == run) & (columns["part"] == part)
            after, before = columns["trained"][here].astype(float), columns["untrained"][here].astype(float)
            ax.scatter(before, np.full(here.sum(), at + 0.18), s=34, facecolors="none", edgecolors=GRAY, linewidths=1.2)
            ax.scatter(after, np.full(here.sum(), at - 0.18), s=40, color=PART_COLORS[part], edgecolors="white")
        draw_rows(ax, runs)
        ax.axvline(100, color=GRAY, lw=1.2, zorder=1)
        ax.set_title(part, color=PART_INK[part])
        ax.xaxis.set_major_formatter("{x:g}%")
    figure.supxlabel(
        "entropy of a joint's attention, % of the most: 100 % is the same share for every joint\n"
        "a dot a head: filled after training, hollow before",
        fontsize=11,
    )
    figure.suptitle("Has training made attention choose?")
    return figure
