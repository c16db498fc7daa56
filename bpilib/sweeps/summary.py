"""Results of a sweep over its seeds: each run's, each ensemble's, and their means with standard deviations."""

import json

import pandas as pd

from bpilib.config import RUN_KEYS, Config
from bpilib.evaluate import Scores, ensemble
from bpilib.skeleton import MODALITIES
from bpilib.sweeps.sweep import Sweep, finished

GROUP = list(RUN_KEYS[:-1])  # all but the seed


def results(sweep: Sweep) -> pd.DataFrame:
    """One row a finished run: its settings, top1, top5 and best_test_epoch_as_published (%)."""
    rows = []
    for config in filter(finished, sweep.configs):
        summary = json.loads((config.run_directory / "summary.json").read_text())
        best = summary["best_test_epoch_as_published"]["test_top1"]
        rows.append([getattr(config, name) for name in RUN_KEYS]
                    + [summary["test_top1"], summary["test_top5"], best])  # fmt: skip
    return pd.DataFrame(rows, columns=[*RUN_KEYS, "top1", "top5", "best_test_epoch_as_published"])


def ensembles(sweep: Sweep, weights: str = "published") -> pd.DataFrame:
    """One row per benchmark, model and seed with two or more finished modalities: their weighted sum.

    Args:
        sweep: from `load`.
        weights: "published", "searched" (on held-out scores) or "equal".

    Returns:
        The columns of `results` (modality: those in the sum) and weights, origin, low, high (95 % interval).
    """
    sums: dict[tuple, list[Config]] = {}
    for config in filter(finished, sweep.configs):
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
        rows.append([dataset, benchmark, model, " + ".join(streams), tag, seed, whole.scores.top(1),
                     whole.scores.top(5), used, whole.origin, *whole.scores.interval()])  # fmt: skip
    return pd.DataFrame(rows, columns=[*RUN_KEYS, "top1", "top5", "weights", "origin", "low", "high"])


def summarise(runs: pd.DataFrame, sums: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds.

    Args:
        runs: from `results`.
        sums: from `ensembles`.

    Returns:
        Per data set, benchmark, model, modality and tag: n (seeds), mean and std of top1 (%; std is NaN for one seed),
        and mean of best_test_epoch_as_published (%; NaN for ensembles).
    """
    groups = pd.concat([runs, sums]).groupby(GROUP, sort=False)
    table = groups.agg(
        n=("top1", "count"), mean=("top1", "mean"), std=("top1", "std"),
        best_test_epoch_as_published=("best_test_epoch_as_published", "mean"),
    ).reset_index()  # fmt: skip
    model = table.groupby(["dataset", "benchmark", "model", "tag"], sort=False).ngroup()
    return table.iloc[model.argsort(kind="stable")].reset_index(drop=True)  # an ensemble below its streams
