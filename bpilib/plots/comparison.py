"""Runs beside each other: all of them, pairs, and the seeds of a sweep."""

from collections.abc import Mapping

import numpy as np

from bpilib.plots.style import GRAY, GRID, INK, PALE, RIGHT, WRONG, Picture, new_picture, styled

A, B = "#6B1F6E", "#E0A000"  # the two runs that are compared


def _rows(ax, names, size: float = 10.5):
    """Names down an axis, the first on top, with a light line at each."""
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(color=GRID)
    ax.set_axisbelow(True)


def _columns(table, wanted: str) -> dict[str, list]:
    """The wanted columns of a table with at least one row, or ValueError."""
    missing = [name for name in wanted.split() if name not in table]
    if missing or not len(table[wanted.split()[0]]):
        raise ValueError(f"expected a table with columns {wanted} and at least one row, missing: {missing or 'rows'}")
    return {name: list(table[name]) for name in wanted.split()}


def _range(ax, at: float, low: float, high: float, color: str, **more):
    ax.plot([low, high], [at, at], color=color, lw=2.6, solid_capstyle="round", **more)


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
    own = _columns(table, "name settings n top1 sd low high best_test")
    names = [f"{name}, {more[:34]}" if more else name for name, more in zip(own["name"], own["settings"])]
    streams = [text.replace("_", " ").replace(" + ", ", ") for text in published["streams"]]
    streams = [text.replace("joint, bone, joint motion, bone motion", "4 streams") for text in streams]
    theirs = [f"{method}, {text}" for method, text in zip(published["method"], streams)]
    figure = new_picture(13, 1.9 + 0.36 * (len(names) + len(theirs)))
    axes = figure.subplots(1, 3, sharey=True, sharex=True)
    for at, (n, top1, sd, low, high, best) in enumerate(zip(*(own[k] for k in "n top1 sd low high best_test".split()))):
        if np.isfinite(top1):
            _range(axes[0], at, low, high, PALE)
            axes[0].scatter(top1, at, s=70, color=A, zorder=3)
            spread = f" ± {sd:.1f}" if n > 1 else ""
            _note(axes[0], at, f"{top1:.1f}{spread}" + (f"  n={n}" if n > 1 else ""))
        if np.isfinite(best):
            axes[1].scatter(best, at, s=70, facecolors="white", edgecolors=A, linewidths=2, zorder=3)
            _note(axes[1], at, f"{best:.1f}")
    for at, (low, high, select) in enumerate(zip(published["low"], published["high"], published["select"]), len(names)):
        if high > low:
            _range(axes[2], at, low, high, GRAY)
        known = select.startswith("best test")
        axes[2].scatter((low + high) / 2, at, s=60, marker="D", facecolors="white" if known else GRAY,
                        edgecolors=GRAY, linewidths=1.8, zorder=3)  # fmt: skip
        _note(axes[2], at, f"{low:.1f}" + (f"–{high:.1f}" if high > low else ""))
    if not theirs:
        axes[2].text(0.5, 0.5, "no published figures\nof this benchmark", transform=axes[2].transAxes, ha="center",
                     va="center", color=GRAY)  # fmt: skip
    headings = ("Honest: epoch chosen\noff the test clips", "Test-selected: best\nepoch on the test clips", "Published")
    for ax, heading in zip(axes, headings):
        _rows(ax, names + theirs)
        ax.set_title(heading)
        ax.axhline(len(names) - 0.5, color=GRAY, lw=1)
        ax.margins(x=0.06)
    axes[1].set_xlabel("top-1 in %    line: 95 % interval (published: range of reports)    ± sd over n seeds\n"
                       "hollow: epoch selected on the test clips    grey diamond, filled: rule not known")  # fmt: skip
    figure.suptitle(f"What is reached{f' on {title}' if title else ''}, and by which rule")
    return figure


def _signed(value: float, digits: int = 1) -> str:
    """"+2.8", with a minus sign that is as wide; zero has no sign."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def _chance(p: float) -> str:
    """"p = 0.012", or that it is very small."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _note(ax, at: float, text: str, **look):
    """A number at the right of a row."""
    ax.annotate(text, (1.015, at), xycoords=("axes fraction", "data"), va="center", fontsize=9.5, **look)


@styled
def agreement(pair: Mapping) -> Picture:
    """Of all test clips, which two runs recognise: both, one alone, none. The two coloured parts are all that differs.

    Args:
        pair: a, b (names), both, only_a, only_b, neither (clips), difference, low, high, p: a row of `compare_pairs`.

    Returns:
        A figure with one bar of all clips.
    """
    parts = [("both right", pair["both"], PALE, INK), (f"only {pair['a']}", pair["only_a"], A, "white")]
    parts += [(f"only {pair['b']}", pair["only_b"], B, INK), ("both wrong", pair["neither"], "#EEF0F2", INK)]
    figure = new_picture(12, 2.5)
    ax, start = figure.subplots(), 0
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
    figure.legend(loc="outside lower center", ncols=4)
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
    rows = _columns(table, "class clips a b difference low high p_holm")
    names = [f"{name} ({clips})" for name, clips in zip(rows["class"], rows["clips"])]
    figure = new_picture(13, 2 + 0.36 * len(names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for at, (first, second) in enumerate(zip(rows["a"], rows["b"])):
        _range(left, at, first, second, PALE, zorder=2)
        same = abs(first - second) < 1e-9  # a ring around the dot, so that both are seen
        left.scatter(second, at, s=150 if same else 75, color=B, edgecolors="white", zorder=3, label="" if at else b)
        left.scatter(first, at, s=55 if same else 75, color=A, edgecolors="white", zorder=4, label="" if at else a)
    for at, (gap, low, high, p) in enumerate(zip(*(rows[k] for k in ("difference", "low", "high", "p_holm")))):
        color = GRAY if low <= 0 <= high else A if gap > 0 else B
        _range(right, at, low, high, color)
        right.scatter(gap, at, s=50, color=color, edgecolors="white", zorder=3)
        _note(right, at, _signed(gap, 0) + ("  *" if p < 0.05 else ""))
    right.axvline(0, color=INK, lw=1.2)
    _rows(left, names)
    _rows(right, names)
    left.set(title="accuracy of each class", xlabel="clips of the class recognised, %", xlim=(None, 102))
    right.set(title=f"{a} minus {b}", xlabel="percentage points, 95 % interval (one class at a time)")
    handles, texts = left.get_legend_handles_labels()
    star = "* p < 0.05, corrected for the number of classes (Holm)" if min(rows["p_holm"]) < 0.05 else None
    figure.legend(handles[::-1], texts[::-1], loc="outside lower center", ncols=2, title=star)
    figure.suptitle("Which classes does one run know better? (clips of the class)")
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
    rows = _columns(table, "a b difference low high p_holm")
    names = [f"{a}  −  {b}" for a, b in zip(rows["a"], rows["b"])]
    figure = new_picture(12, 1.7 + 0.36 * len(names))
    ax = figure.subplots()
    for at, (gap, low, high, p) in enumerate(zip(*(rows[k] for k in ("difference", "low", "high", "p_holm")))):
        color = A if p < 0.05 else GRAY
        _range(ax, at, low, high, color)
        ax.scatter(gap, at, s=60, color=color, edgecolors="white", zorder=3)
        _note(ax, at, f"{_signed(gap)}   {_chance(p)}", color=color, fontweight="bold" if p < 0.05 else "normal")
    ax.axvline(0, color=INK, lw=1.2)
    _rows(ax, names)
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
    panels = list(summary.groupby(["dataset", "benchmark"], sort=False))
    heights = [len(rows) + 1.6 for _, rows in panels]
    figure = new_picture(10, 0.5 + 0.36 * sum(heights) + 0.35 * len(panels))
    low = float(np.nanmin(np.minimum(runs["top1"].min(), (summary["mean"] - summary["std"].fillna(0)).min())))
    axes = np.atleast_1d(figure.subplots(len(panels), 1, height_ratios=heights, sharex=True))
    for ax, ((dataset, benchmark), rows) in zip(axes, panels):
        names = []
        for at, row in enumerate(rows.to_dict("records")):
            same = np.all([runs[name] == row[name] for name in ("dataset", "benchmark", "model", "modality", "tag")], 0)
            color = WRONG if " + " in row["modality"] else RIGHT
            seeds = runs["top1"][same]
            ax.scatter(seeds, np.full(len(seeds), at), s=36, color=color, alpha=0.3, linewidths=0)
            spread = 0 if np.isnan(row["std"]) else row["std"]
            ax.errorbar(row["mean"], at, xerr=spread, fmt="o", ms=8, color=color, mec="white", capsize=4, lw=1.8)
            deviation = f" ± {row['std']:.1f}" if row["n"] > 1 else ""
            ax.annotate(f"{row['mean']:.1f}{deviation} %  (n = {row['n']})", (1.01, at),
                        xycoords=("axes fraction", "data"), va="center", fontsize=10)  # fmt: skip
            tag = f" [{row['tag']}]" if summary["tag"].nunique() > 1 and row["tag"] else ""
            names.append(f"{row['model']}{tag}  {row['modality'].replace('_', ' ')}")
            if at and row["model"] != rows["model"].iloc[at - 1]:
                ax.axhline(at - 0.5, color="#D5D9DE", lw=1)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlim(max(0, low - 3), 101)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelbottom=True)
        ax.set_title(f"{dataset} {benchmark}", loc="left")
        ax.xaxis.set_major_formatter("{x:g}%")
        ax.grid(axis="x", color="#E3E6EA")
        ax.set_axisbelow(True)
    axes[-1].set_xlabel("top-1 on test: pale dots the seeds, dark their mean ± standard deviation; orange: ensembles")
    return figure
