"""Results of a sweep over its seeds: each run's, each ensemble's, and their means with standard deviations."""

import json
import math

import pandas as pd

from bpilib.config import Config
from bpilib.evaluate import Scores, ensemble
from bpilib.skeleton import MODALITIES
from bpilib.sweeps.sweep import COLUMNS, GROUP_KEYS, Sweep, is_finished
from bpilib.system.tables import plus_minus


def read_results(sweep: Sweep) -> pd.DataFrame:
    """Read the results of finished runs, one row each: settings, top1, top5 and best_test_epoch_as_published (%)."""
    rows = []
    for config in filter(is_finished, sweep.configs):
        summary = json.loads((config.run_directory / "summary.json").read_text())
        best = summary["best_test_epoch_as_published"]["test_top1"]
        rows.append([getattr(config, name) for name in COLUMNS] + [summary["test_top1"], summary["test_top5"], best])
    return pd.DataFrame(rows, columns=[*COLUMNS, "top1", "top5", "best_test_epoch_as_published"])


def combine_streams(sweep: Sweep, weights: str = "published") -> pd.DataFrame:
    """Combine the modalities of each benchmark, model and seed that has two or more finished ones.

    Args:
        sweep: from `load_sweep`.
        weights: "published", "searched" (on held-out scores) or "equal".

    Returns:
        One row per ensemble: settings (modality: those combined), top1, top5, weights, origin of the weights, low, high
        (95 % interval of top1).
    """
    sums: dict[tuple, list[Config]] = {}
    for config in filter(is_finished, sweep.configs):
        key = (config.dataset, config.benchmark, config.model, config.tag, config.seed)
        sums.setdefault(key, []).append(config)
    rows = []
    for (dataset, benchmark, model, tag, seed), configs in sums.items():
        if len(configs) < 2:
            continue
        configs = sorted(configs, key=lambda config: MODALITIES.index(config.modality))
        streams = {config.modality: Scores.load(config.run_directory / "scores.npz") for config in configs}
        whole = ensemble(streams, model, weights)
        used = ", ".join(f"{weight:g}" for weight in whole.weights.values())
        settings = (dataset, benchmark, model, " + ".join(streams), tag, seed)
        top = (whole.scores.top(1), whole.scores.top(5))
        rows.append((*settings, *top, used, whole.origin, *whole.scores.interval()))
    return pd.DataFrame(rows, columns=[*COLUMNS, "top1", "top5", "weights", "origin", "low", "high"])


def summarise(runs: pd.DataFrame, sums: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Args:
        runs: from `read_results`.
        sums: from `combine_streams`.

    Returns:
        One row per data set, benchmark, model, modality and tag: n (seeds), mean and std of top1 (%; std is NaN for one
        seed), and mean of best_test_epoch_as_published (%; NaN for ensembles).
    """
    groups = pd.concat([runs, sums]).groupby(list(GROUP_KEYS), sort=False)
    table = groups.agg(
        n=("top1", "count"),
        mean=("top1", "mean"),
        std=("top1", "std"),
        best_test_epoch_as_published=("best_test_epoch_as_published", "mean"),
    ).reset_index()
    model = table.groupby(["dataset", "benchmark", "model", "tag"], sort=False).ngroup()
    return table.iloc[model.argsort(kind="stable")].reset_index(drop=True)  # an ensemble below its streams


def format_for_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of `summarise` for a paper, all cells as text; for `bpilib.system.tables.write_latex`."""
    return pd.DataFrame(
        {
            "Benchmark": [f"{dataset} {benchmark}" for dataset, benchmark in zip(table["dataset"], table["benchmark"])],
            "Model": [model + (f" ({tag})" if tag else "") for model, tag in zip(table["model"], table["tag"])],
            "Streams": table["modality"],
            "Seeds": table["n"],
            "Top-1 (%)": [plus_minus(mean, std) for mean, std in zip(table["mean"], table["std"])],
            "Best test epoch (%)": [plus_minus(best, math.nan) for best in table["best_test_epoch_as_published"]],
        }
    )
