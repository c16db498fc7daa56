"""Runs beside each other: all of them, pairs, and the seeds of a sweep."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from bpilib.plots.style import (
    GRAY,
    INK,
    PALE,
    RIGHT,
    WRONG,
    Picture,
    draw_rows,
    fit_name,
    new_picture,
    styled,
    table_columns,
)
from bpilib.run_keys import BENCHMARK_KEYS, GROUP_KEYS

A, B = "#6B1F6E", "#E0A000"  # the two runs that are compared


def _draw_interval(ax: Axes, at: float, low: float, high: float, color: str, zorder: float = 2) -> None:
    """A line from low to high in a row."""
    ax.plot([low, high], [at, at], color=color, lw=2.6, solid_capstyle="round", zorder=zorder)


@styled
def overview(table, published, title: str = "") -> Picture:
    """What a benchmark's runs reach, in three columns that are not to be mixed: honest, test-selected, published.

    Args:
        table: columns name, settings, n, top1, sd, low, high, best_test (`analysis.results.summarise`), one benchmark.
        published: columns method, streams, low, high, select (of `analysis.results.load_published`), same benchmark.
        title: of the benchmark.

    Returns:
        A figure with our runs above and published methods below, on one scale.

    Raises:
        ValueError: a missing column, or no rows.
    """
    own = table_columns(table, "name settings n top1 sd low high best_test")
    settings = [f", {text[:34]}" if text else "" for text in own["settings"]]
    names = [fit_name(name) + text for name, text in zip(own["name"], settings)]
    streams = [text.replace("_", " ").replace(" + ", ", ") for text in published["streams"]]
    streams = [text.replace("joint, bone, joint motion, bone motion", "4 streams") for text in streams]
    theirs = [f"{fit_name(method)}, {text}" for method, text in zip(published["method"], streams)]
    figure = new_picture(13, 1.9 + 0.36 * (len(names) + len(theirs)))
    axes = figure.subplots(1, 3, sharey=True, sharex=True)
    for at, (n, top1, sd, low, high, best) in enumerate(zip(*(own[k] for k in "n top1 sd low high best_test".split()))):
        if np.isfinite(top1):
            _draw_interval(axes[0], at, low, high, PALE)
            axes[0].scatter(top1, at, s=70, color=A, zorder=3)
            spread = f" ± {sd:.1f}" if n > 1 else ""
            _write_beside(axes[0], at, f"{top1:.1f}{spread}" + (f"  n={n}" if n > 1 else ""))
        if np.isfinite(best):
            axes[1].scatter(best, at, s=70, facecolors="white", edgecolors=A, linewidths=2, zorder=3)
            _write_beside(axes[1], at, f"{best:.1f}")
    for at, (low, high, select) in enumerate(zip(published["low"], published["high"], published["select"]), len(names)):
        if high > low:
            _draw_interval(axes[2], at, low, high, GRAY)
        known = select.startswith("best test")
        axes[2].scatter((low + high) / 2, at, s=60, marker="D", facecolors="white" if known else GRAY,
                        edgecolors=GRAY, linewidths=1.8, zorder=3)  # fmt: skip
        _write_beside(axes[2], at, f"{low:.1f}" + (f"–{high:.1f}" if high > low else ""))
    if not theirs:
        axes[2].text(0.5, 0.5, "no published figures\nof this benchmark", transform=axes[2].transAxes, ha="center",
                     va="center", color=GRAY)  # fmt: skip
    headings = ("Honest: epoch chosen\noff the test clips", "Test-selected: best\nepoch on the test clips", "Published")
    for ax, heading in zip(axes, headings):
        draw_rows(ax, names + theirs, 10.5, grid="both", most=60)
        ax.set_title(heading)
        ax.axhline(len(names) - 0.5, color=GRAY, lw=1)
        ax.margins(x=0.06)
    figure.supxlabel("top-1 in %    line: 95 % interval (published: range of reports)    ± sd over n seeds\n"
                     "hollow: epoch selected on the test clips    grey diamond, filled: rule not known",
                     fontsize=11)  # fmt: skip
    figure.suptitle(f"What is reached{f' on {fit_name(title)}' if title else ''}, and by which rule")
    return figure


def _signed(value: float, digits: int = 1) -> str:
    """"+2.8", with a minus sign that is as wide; zero has no sign."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def _chance(p: float) -> str:
    """"p = 0.012", or that it is very small."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _write_beside(ax: Axes, at: float, text: str, color: str = INK, fontweight: str = "normal") -> None:
    """A number at the right of a row."""
    ax.annotate(text, (1.015, at), xycoords=("axes fraction", "data"), va="center", fontsize=9.5, color=color,
                fontweight=fontweight)  # fmt: skip


@styled
def agreement(pair: Mapping) -> Picture:
    """Of all test clips, which two runs recognise: both, one alone, none. The two coloured parts are all that differs.

    Args:
        pair: a, b (names), both, only_a, only_b, neither (clips), difference, low, high, p: a row of `compare_pairs`.

    Returns:
        A figure with one bar of all clips.
    """
    parts = [
        ("both right", pair["both"], PALE, INK),
        (f"only {fit_name(pair['a'])}", pair["only_a"], A, "white"),
        (f"only {fit_name(pair['b'])}", pair["only_b"], B, INK),
        ("both wrong", pair["neither"], "#EEF0F2", INK),
    ]
    figure = new_picture(12, 2.5)
    ax = figure.subplots()
    start = 0
    for name, count, color, ink in parts:
        ax.barh(0, count, left=start, color=color, edgecolor="white", linewidth=1.5, label=f"{name}: {count} clips")
        if count > 0.025 * pair["clips"]:
            ax.text(start + count / 2, 0, f"{count}", ha="center", va="center", color=ink, fontsize=11)
        start += count
    ax.set(yticks=[], xlim=(0, start), xlabel="test clips")
    ax.spines["left"].set_visible(False)
    gap, low, high = (_signed(pair[key]) for key in ("difference", "low", "high"))
    ax.set_title(f"difference {gap} points (95 % interval {low} to {high}), exact McNemar {_chance(pair['p'])}",
                 fontweight="normal")  # fmt: skip
    figure.suptitle("Where do the two runs disagree?")
    longest = max(len(name) for name, *_ in parts)
    figure.legend(loc="outside lower center", ncols=4 if longest < 25 else 2)
    return figure


@styled
def classes(table, a: str, b: str) -> Picture:
    """Class by class, the accuracies of two runs as a dumbbell, and their difference with its interval beside it.

    Args:
        table: columns class, clips, a, b, difference, low, high, p_holm (of `compare_classes`), in the order to draw.
        a, b: names of the runs.

    Returns:
        A figure with one row a class.

    Raises:
        ValueError: a missing column, or no rows.
    """
    rows = table_columns(table, "class clips a b difference low high p_holm")
    names = [f"{fit_name(name)} ({clips})" for name, clips in zip(rows["class"], rows["clips"])]
    figure = new_picture(13, 2 + 0.36 * len(names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for at, (first, second) in enumerate(zip(rows["a"], rows["b"])):
        _draw_interval(left, at, first, second, PALE)
        same = abs(first - second) < 1e-9  # a ring around the dot, so that both are seen
        for value, size, color, name, order in (
            (second, 150 if same else 75, B, b, 3),
            (first, 55 if same else 75, A, a, 4),
        ):
            label = "" if at else fit_name(name)
            left.scatter(value, at, s=size, color=color, edgecolors="white", zorder=order, label=label)
    for at, (gap, low, high, p) in enumerate(zip(*(rows[k] for k in ("difference", "low", "high", "p_holm")))):
        color = GRAY if low <= 0 <= high else A if gap > 0 else B
        _draw_interval(right, at, low, high, color)
        right.scatter(gap, at, s=50, color=color, edgecolors="white", zorder=3)
        _write_beside(right, at, _signed(gap, 0) + ("  *" if p < 0.05 else ""))
    right.axvline(0, color=INK, lw=1.2)
    draw_rows(left, names, 10.5, grid="both", most=36)
    draw_rows(right, names, 10.5, grid="both", most=36)
    left.set(title="accuracy of each class", xlabel="clips of the class recognised, %", xlim=(None, 102))
    right.set(
        title=f"{fit_name(a, 28)}\nminus {fit_name(b, 28)}",
        xlabel="percentage points,\n95 % interval (one class at a time)",
    )
    handles, texts = left.get_legend_handles_labels()
    star = "* p < 0.05, corrected for the number of classes (Holm)" if min(rows["p_holm"]) < 0.05 else None
    figure.legend(handles[::-1], texts[::-1], loc="outside lower center", ncols=2, title=star)
    figure.suptitle("Which classes does one run know better? (in brackets: the class's test clips)")
    return figure


@styled
def pairs(table) -> Picture:
    """The difference of every pair of runs with its interval.

    Args:
        table: columns a, b, difference, low, high, p_holm (of `compare_pairs`).

    Returns:
        A figure with one row a pair; grey where the corrected p is 0.05 or more.

    Raises:
        ValueError: a missing column, or no rows.
    """
    rows = table_columns(table, "a b difference low high p_holm")
    names = [f"{fit_name(a, 32)}  −  {fit_name(b, 32)}" for a, b in zip(rows["a"], rows["b"])]
    figure = new_picture(12, 1.7 + 0.36 * len(names))
    ax = figure.subplots()
    for at, (gap, low, high, p) in enumerate(zip(*(rows[k] for k in ("difference", "low", "high", "p_holm")))):
        color = A if p < 0.05 else GRAY
        _draw_interval(ax, at, low, high, color)
        ax.scatter(gap, at, s=60, color=color, edgecolors="white", zorder=3)
        _write_beside(ax, at, f"{_signed(gap)}   {_chance(p)}", color, "bold" if p < 0.05 else "normal")
    ax.axvline(0, color=INK, lw=1.2)
    draw_rows(ax, names, 10.5, grid="both", most=70)
    ax.set(xlabel="difference of accuracy, percentage points (line: 95 % bootstrap interval over clips);\n"
                  "right of zero the first run is better, left of it the second")  # fmt: skip
    count = f"{len(names)} pair{'s' * (len(names) > 1)}"
    ax.set_title(f"p: exact McNemar, corrected for {count} (Holm); grey where p ≥ 0.05", fontweight="normal")
    figure.suptitle("Which differences between runs are more than chance?")
    return figure


@styled
def seed_spread(runs, summary) -> Picture:
    """Accuracy over seeds: a panel a benchmark, in it a row a model and modality.

    Args:
        runs: a DataFrame with a row a run or ensemble: dataset, benchmark, model, modality, tag, top1 (%).
        summary: a DataFrame with a row a group of runs, in the order to be shown: the same columns without top1, and n,
            mean, std (%; NaN for one seed). Modalities with " + " are ensembles.

    Returns:
        A figure: seeds are pale dots, means dark ones with a whisker of one standard deviation, ensembles orange.

    Raises:
        ValueError: no rows.
    """
    if not len(summary):
        raise ValueError("no finished runs to draw: wait for the first, or look at the failed ones' notebooks")
    keys = list(GROUP_KEYS)
    panels = list(summary.groupby(list(BENCHMARK_KEYS), sort=False))
    heights = [len(rows) + 1.6 for _, rows in panels]
    figure = new_picture(10, 0.5 + 0.36 * sum(heights) + 0.35 * len(panels))
    low = float(np.nanmin(np.minimum(runs["top1"].min(), (summary["mean"] - summary["std"].fillna(0)).min())))
    axes = np.atleast_1d(figure.subplots(len(panels), 1, height_ratios=heights, sharex=True))
    several_tags = summary["tag"].nunique() > 1
    for ax, ((dataset, benchmark), group) in zip(axes, panels):
        rows = group.reset_index(drop=True)
        seeds = runs.merge(rows[keys].assign(row=rows.index), on=keys)  # with the row each seed belongs to
        colors = [WRONG if " + " in modality else RIGHT for modality in rows["modality"]]
        given = {"data": seeds, "x": "top1", "y": "row", "hue": "row", "orient": "h", "ax": ax, "legend": False}
        given |= {"palette": colors, "order": range(len(rows)), "hue_order": range(len(rows))}
        sns.stripplot(**given, jitter=False, size=6, alpha=0.3)
        sns.pointplot(**given, errorbar="sd", capsize=0.3, markersize=7, linestyle="none", err_kws={"linewidth": 1.8},
                      markeredgecolor="white", markeredgewidth=1)  # fmt: skip
        for at, row in enumerate(rows.to_dict("records")):
            deviation = f" ± {row['std']:.1f}" if row["n"] > 1 else ""
            _write_beside(ax, at, f"{row['mean']:.1f}{deviation} %  (n = {row['n']})")
            if at and row["model"] != rows["model"][at - 1]:
                ax.axhline(at - 0.5, color=PALE, lw=1)
        tags = [f" [{tag}]" if several_tags and tag else "" for tag in rows["tag"]]
        modalities = [modality.replace("_", " ") for modality in rows["modality"]]
        draw_rows(ax, [f"{model}{tag}  {modality}" for model, tag, modality in zip(rows["model"], tags, modalities)],
                  most=60)  # fmt: skip
        ax.set(xlim=(max(0, low - 3), 101), xlabel="", ylabel="")
        ax.tick_params(axis="x", labelbottom=True)
        ax.set_title(f"{dataset} {benchmark}", loc="left")
        ax.xaxis.set_major_formatter("{x:g}%")
    figure.supxlabel("top-1 on test: pale dots the seeds, dark their mean ± standard deviation; orange: ensembles",
                     fontsize=11)  # fmt: skip
    return figure
