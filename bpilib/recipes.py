"""What is published of each data set: benchmarks, hyperparameters, ensemble weights."""

import json
import re
from pathlib import Path
from typing import Any

from bpilib.errors import did_you_mean
from bpilib.skeleton import MODALITIES
from bpilib.system.files import PARAMS, parse_yaml

BENCHMARKS = {"ucla": ("xview",), "synthetic": ("xview",), "ntu60": ("xsub", "xview"), "ntu120": ("xsub", "xset")}
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")  # fit to be the name of a folder
RAW = {"ucla": "data/NW-UCLA", "synthetic": "data/synthetic", "ntu60": "data/NTU", "ntu120": "data/NTU"}


def benchmarks_of(dataset: str, store: str | Path) -> tuple[str, ...]:
    """The benchmarks of a data set: those its store has, where it is prepared; else the published; else none."""
    try:
        manifest = json.loads((Path(store) / "manifest.json").read_bytes())
        if manifest["dataset"] == dataset:
            return tuple(manifest["counts"]["splits"])
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or damaged: opening the store will say so
        pass
    return BENCHMARKS.get(dataset, ())


def _published() -> dict[str, Any]:
    return parse_yaml((PARAMS / "recipes.yaml").read_bytes())


def ensemble_weights(model: str, modalities: list[str]) -> list[float] | None:
    """Published weights of a model's streams, in the order of `modalities`; None where none were published."""
    weights = _published()["ensembles"].get(model, {}).get(len(modalities))
    ordered = sorted(modalities, key=MODALITIES.index)
    if weights is None or ordered != list(MODALITIES[: len(ordered)]):
        return None
    return [float(weights[ordered.index(modality)]) for modality in modalities]


def recipe(chosen: dict[str, Any]) -> dict[str, Any]:
    """Published hyperparameters of a dataset, benchmark, model and modality."""
    take: dict[str, Any] = {}
    for rule in _published()["recipes"]:
        conditions = rule["when"].items()
        if all(chosen[key] in (want if isinstance(want, list) else [want]) for key, want in conditions):
            take |= rule["take"]
    return take


def own_benchmark(values: dict[str, Any], raw_given: bool) -> str:
    """The benchmark of a data set of one's own before it is prepared; ValueError where there is nothing to prepare."""
    dataset = values["dataset"]
    fit = PLAIN_NAME.fullmatch(dataset) and dataset.lower() not in BENCHMARKS
    if not fit or not (raw_given or Path(values["raw"]).exists()):
        raise ValueError(
            f"parameter dataset: unknown {dataset!r}{did_you_mean(dataset.lower(), BENCHMARKS)} (expected one of "
            f"{', '.join(BENCHMARKS)}; or a name of your own, of letters, digits, '.', '_' and '-': prepare it with "
            f"notebook 01, whose parameter raw names its clips. There is no store of it at {values['data']})"
        )
    return values["benchmark"] or "split"
