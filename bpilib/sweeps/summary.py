"""Results of a sweep over its seeds: each run's, each ensemble's, and their means with standard deviations."""

import math
import warnings

import pandas as pd

from bpilib.config import Config
from bpilib.evaluate import Scores, ensemble
from bpilib.run_keys import GROUP_KEYS
from bpilib.skeleton import MODALITIES
from bpilib.sweeps.sweep import COLUMNS, Sweep, find_finished
from bpilib.system.tables import plus_minus

CLEAN = "top1_without_copies"


def read_results(sweep: Sweep) -> pd.DataFrame:
    """Read the results of finished runs, one row each: settings, top1, top5 and best_test_epoch_as_published (%).

    Where test clips are copies of training clips, top1_without_copies as well (%; NaN where that is not known).
    """
    rows = []
    for config, summary in find_finished(sweep):
        best = summary["best_test_epoch_as_published"]["test_top1"]
        found = [summary["test_top1"], summary["test_top5"], best, summary.get(f"test_{CLEAN}", math.nan)]
        rows.append([getattr(config, name) for name in COLUMNS] + found)
    return _drop_unknown(pd.DataFrame(rows, columns=[*COLUMNS, "top1", "top5", "best_test_epoch_as_published", CLEAN]))


def combine_streams(sweep: Sweep, weights: str = "published") -> pd.DataFrame:
    """Combine the modalities of each benchmark, model and seed that has two or more finished ones.

    Args:
        sweep: from `load_sweep`.
        weights: "published", "searched" (on held-out scores) or "equal".

    Returns:
        One row per ensemble whose scores can be read: settings (modality: those combined), top1, top5, weights, origin
        of the weights, low, high (95 % interval of top1); top1_without_copies as in `read_results`.
    """
    sums: dict[tuple, list[Config]] = {}
    for config, _ in find_finished(sweep):
        key = (config.dataset, config.benchmark, config.model, config.tag, config.seed)
        sums.setdefault(key, []).append(config)
    rows = []
    for (dataset, benchmark, model, tag, seed), configs in sums.items():
        if len(configs) < 2:
            continue
        configs = sorted(configs, key=lambda config: MODALITIES.index(config.modality))
        try:
            streams = {config.modality: Scores.load(config.run_directory / "scores.npz") for config in configs}
        except ValueError as error:
            warnings.warn(f"an ensemble is left out of the sweep's tables: {error}", stacklevel=2)
            continue
        whole = ensemble(streams, model, weights)
        used = ", ".join(f"{weight:g}" for weight in whole.weights.values())
        settings = (dataset, benchmark, model, " + ".join(streams), tag, seed)
        top = (whole.scores.top(1), whole.scores.top(5))
        clean = math.nan if (rest := whole.scores.without_copies()) is None else rest.top(1)
        rows.append((*settings, *top, used, whole.origin, *whole.scores.interval(), clean))
    columns = [*COLUMNS, "top1", "top5", "weights", "origin", "low", "high", CLEAN]
    return _drop_unknown(pd.DataFrame(rows, columns=columns))


def _drop_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """The table without its column of accuracies without copies where no row has one."""
    return table if table[CLEAN].notna().any() else table.drop(columns=CLEAN)


def summarise(runs: pd.DataFrame, sums: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Args:
        runs: from `read_results`.
        sums: from `combine_streams`.

    Returns:
        One row per data set, benchmark, model, modality and tag: n (seeds), mean and std of top1 (%; std is NaN for one
        seed), and mean of best_test_epoch_as_published (%; NaN for ensembles). Where test clips are copies of training
        clips, mean_without_copies and std_without_copies as well.
    """
    every = pd.concat([runs, sums])
    wanted = {
        "n": ("top1", "count"),
        "mean": ("top1", "mean"),
        "std": ("top1", "std"),
        "best_test_epoch_as_published": ("best_test_epoch_as_published", "mean"),
    }
    if CLEAN in every:
        wanted |= {"mean_without_copies": (CLEAN, "mean"), "std_without_copies": (CLEAN, "std")}
    table = every.groupby(list(GROUP_KEYS), sort=False).agg(**wanted).reset_index()
    model = table.groupby([key for key in GROUP_KEYS if key != "modality"], sort=False).ngroup()
    return table.iloc[model.argsort(kind="stable")].reset_index(drop=True)  # an ensemble below its streams


def format_for_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of `summarise` for a paper, all cells as text; for `bpilib.system.tables.write_latex`."""
    cells = pd.DataFrame(
        {
            "Benchmark": [f"{dataset} {benchmark}" for dataset, benchmark in zip(table["dataset"], table["benchmark"])],
            "Model": [model + (f" ({tag})" if tag else "") for model, tag in zip(table["model"], table["tag"])],
            "Streams": table["modality"],
            "Seeds": table["n"],
            "Top-1 (%)": [plus_minus(mean, std) for mean, std in zip(table["mean"], table["std"])],
            "Best test epoch (%)": [plus_minus(best, math.nan) for best in table["best_test_epoch_as_published"]],
        }
    )
    if "mean_without_copies" in table:
        clean = zip(table["mean_without_copies"], table["std_without_copies"])
        cells["Without copies (%)"] = [plus_minus(mean, std) for mean, std in clean]
    return cells
