"""What is published of each data set: benchmarks, hyperparameters, ensemble weights."""

import json
from pathlib import Path
from typing import Any

import yaml

from bpilib.files import PARAMS
from bpilib.skeleton import MODALITIES

BENCHMARKS = {"ucla": ("xview",), "synthetic": ("xview",), "ntu60": ("xsub", "xview"), "ntu120": ("xsub", "xset")}
RAW = {"ucla": "data/NW-UCLA", "synthetic": "data/synthetic", "ntu60": "data/NTU", "ntu120": "data/NTU"}


def benchmarks_of(dataset: str, store: str | Path) -> tuple[str, ...]:
    """The benchmarks of a data set: those its store has, where it is prepared; else the published; else none."""
    try:
        manifest = json.loads((Path(store) / "manifest.json").read_text())
        if manifest["dataset"] == dataset:
            return tuple(manifest["counts"]["splits"])
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or damaged: opening the store will say so
        pass
    return BENCHMARKS.get(dataset, ())


def _published() -> dict[str, Any]:
    return yaml.safe_load((PARAMS / "recipes.yaml").read_text())


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
        fits = (chosen[key] in want if isinstance(want, list) else chosen[key] == want
                for key, want in rule["when"].items())
        if all(fits):
            take |= rule["take"]
    return take
