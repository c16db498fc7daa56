"""Settings ranked by clips that were kept from training, so that none is chosen by the test clips."""

from typing import Any

import numpy as np
import pandas as pd

from bpilib.config import Config
from bpilib.metrics import seed_interval
from bpilib.sweeps.sweep import Sweep, find_finished

_NO_SETTING = ("seed", "tag", "heldout_by", "heldout_view", "heldout")  # what runs of one setting may differ in
_FIRST = "first"


def rank_settings(sweep: Sweep) -> pd.DataFrame:
    """Rank the settings of a sweep by top-1 on the clips kept from training; no test clip is looked at.

    Runs that differ in nothing but the seed, the tag and what is kept from training are of one setting. A seed of it
    counts once it has finished with everything that the sweep keeps (both views, say), so that all means are of the
    same clips.

    Args:
        sweep: from `load_sweep`, with `for_choosing` set.

    Returns:
        One row per setting, the highest mean first, those without a complete seed last: setting (how it differs from
        that of the table's first run, which is "first"), seeds (complete ones), a column for each of what is kept
        ("view 1": mean over seeds, %), mean (of these columns, %), sd (over seeds; NaN for one), gain (of the mean over
        the first setting, with the seeds that both have, percentage points), by_seed (the gain with each seed, "+1.3,
        -0.2"), gain_low, gain_high (95 % t interval over three seeds or more).
    """
    settings = [{k: v for k, v in c.result_settings().items() if k not in _NO_SETTING} for c in sweep.configs]
    titles = [_describe_setting(setting, settings[0]) for setting in settings]
    parts = [_name_part(config) for config in sweep.configs]
    runs = pd.DataFrame({"setting": titles, "part": parts, "seed": [config.seed for config in sweep.configs]})
    heldout = {config.run_directory: summary.get("heldout_top1") for config, summary in find_finished(sweep)}
    runs["top1"] = [heldout.get(config.run_directory, np.nan) for config in sweep.configs]
    of_seeds = runs.pivot_table(index=["setting", "seed"], columns="part", values="top1", dropna=False)
    of_seeds = of_seeds[list(dict.fromkeys(parts))].dropna()
    by_setting = {title: rows.droplevel("setting") for title, rows in of_seeds.groupby("setting")}
    nothing = of_seeds.iloc[:0].droplevel("setting")
    first = by_setting.get(_FIRST, nothing)
    table = pd.DataFrame([_summarise(title, by_setting.get(title, nothing), first) for title in dict.fromkeys(titles)])
    return table.sort_values("mean", ascending=False, kind="stable", na_position="last").reset_index(drop=True)


def _describe_setting(setting: dict[str, Any], first: dict[str, Any]) -> str:
    """Name what sets a setting apart from the first one."""
    names = [name for name in setting if name not in first or setting[name] != first[name]]
    return ", ".join(f"{name} {setting[name]}" for name in names) or _FIRST


def _name_part(config: Config) -> str:
    """Name what a run keeps from training."""
    if config.heldout_by == "view":
        return "last view" if config.heldout_view is None else f"view {config.heldout_view}"
    return f"{100 * config.heldout:g} % of the subjects"


def _summarise(title: str, own: pd.DataFrame, first: pd.DataFrame) -> dict[str, Any]:
    """Make the row of one setting.

    Args:
        title: of it.
        own: top-1 by seed (rows) and what was kept (columns), %.
        first: the same of the first setting.
    """
    means = own.mean(axis=1)
    gains = (means - first.mean(axis=1)).dropna() if title != _FIRST else means.iloc[:0]
    low, high = seed_interval(gains.to_numpy())
    return {
        "setting": title,
        "seeds": len(own),
        **own.mean(),
        "mean": means.mean(),
        "sd": means.std(),
        "gain": gains.mean(),
        "by_seed": ", ".join(f"{points:+.1f}" for points in gains),
        "gain_low": low,
        "gain_high": high,
    }
