"""A resolved run, `Config`, and `resolve`, which makes it of any subset of the parameters."""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bpilib.config.checks import check_names, check_value, check_values
from bpilib.config.parameters import FIELDS, MACHINE, NOTEBOOK, PLACE, RESULT, Parameters
from bpilib.recipes import RAW, benchmarks_of, own_benchmark, recipe
from bpilib.run_keys import RUN_KEYS
from bpilib.system.device import pick_device
from bpilib.system.files import PARAMS, in_project, mask_secrets, mask_url_secrets
from bpilib.system.tables import text_table

PROCESSES = "devices x nodes"  # of these, results depend on the product alone


@dataclass(frozen=True, repr=False)
class Config(Parameters):
    """A resolved run; make it with `resolve`."""

    @property
    def run_directory(self) -> Path:
        """outputs/<dataset>_<benchmark>/<model>_<modality>_seed<seed>[_<tag>]"""
        name = f"{self.model}_{self.modality}_seed{self.seed}" + (f"_{self.tag}" if self.tag else "")
        return Path(self.outputs) / f"{self.dataset}_{self.benchmark}" / name

    def result_settings(self) -> dict[str, Any]:
        """What the numbers of a run depend on, as plain values; two runs whose values are equal are the same run.

        Passwords within URLs are masked, here and in `settings`, so that what is saved compares with what is given.
        """
        used = [f for f in FIELDS.values() if f.metadata["changes"] == RESULT and self.model in f.metadata["models"]]
        batch_norm = {PROCESSES: 1 if self.sync_batchnorm else self.devices * self.nodes}
        return {f.name: mask_url_secrets(getattr(self, f.name)) for f in used} | batch_norm

    @classmethod
    def saved(cls, values: dict[str, Any]) -> "Config":
        """From a run's config.yaml, checked like parameters; those that it does not have yet are the default.

        Warns:
            It has settings that this version does not know; they are left out.

        Raises:
            ValueError: a value that no parameter can have.
        """
        config = cls(**{name: check_value(name, value) for name, value in values.items() if name in FIELDS})
        check_names(vars(config))
        if unknown := unknown_settings(values):
            text = f"the run {config.run_directory} has settings that this version of bpilib does not know ({unknown})"
            warnings.warn(f"{text}, and goes without them here: open it with the version that made it", stacklevel=2)
        return config

    def settings(self) -> dict[str, Any]:
        """All parameters, as plain values for YAML.

        What looks like a secret is masked. Of parameters that are compared when the run is found again, only what is
        secret in a URL: the path of a weight file stays as it is, since it is read again.
        """
        masks = {
            name: mask_url_secrets if f.metadata["changes"] == RESULT else mask_secrets for name, f in FIELDS.items()
        }
        return {name: masks[name](getattr(self, name)) for name in FIELDS}

    def changed(self, **changes: Any) -> "Config":
        """A copy with other settings, checked like those of `resolve`; what they imply is not looked up anew."""
        config = dataclasses.replace(self, **{name: check_value(name, value) for name, value in changes.items()})
        check_names(vars(config))
        return config

    def __repr__(self) -> str:
        """As a dataclass has it, secrets masked: notebooks keep what a cell ends with."""
        return f"Config({', '.join(f'{name}={mask_secrets(getattr(self, name))!r}' for name in FIELDS)})"

    def _repr_html_(self) -> str:
        """In a notebook: what names the run and what differs from its recipe as a table, all parameters folded."""
        named = {name: getattr(self, name) for name in (*RUN_KEYS, "data", "raw")}
        recipe_alone = resolve(**named)
        own = [name for name in FIELDS if name in RUN_KEYS or getattr(self, name) != getattr(recipe_alone, name)]
        whole = self.table().map(str)
        return (
            f"{text_table(whole.loc[own]).to_html()}<details><summary>all {len(whole)} parameters, the others as "
            f'published or by default</summary><div style="max-height:30em;overflow:auto">'
            f"{text_table(whole).to_html()}</div></details>"
        )

    def table(self, *groups: str) -> pd.DataFrame:
        """Name, value, unit and meaning of every parameter, for the notebooks."""
        groups = groups or (RESULT, PLACE, MACHINE, NOTEBOOK)
        rows = [
            (f.name, mask_secrets(getattr(self, f.name)), f.metadata["unit"], f.metadata["meaning"])
            for f in FIELDS.values()
            if f.metadata["changes"] in groups
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "unit", "meaning"]).set_index("parameter")


def unknown_settings(saved: dict[str, Any]) -> str:
    """The settings of a run that this version does not know, in words, "mixup: 0.4"; "" without any."""
    return ", ".join(f"{name}: {value!r}" for name, value in saved.items() if name not in {*FIELDS, PROCESSES})


def same_setting(saved: Any, now: Any) -> bool:
    """Whether a value of a config.yaml or checkpoint, which may have been masked, is the one that is given now."""
    return saved == now or saved in (mask_url_secrets(now), mask_secrets(now))


def resolve(**given: Any) -> Config:
    """A full configuration from any subset of parameters; the rest as published, or the default.

    Args:
        given: parameters by name; None means "as published". Relative paths lie in the project folder.

    Raises:
        ValueError: unknown name (the nearest known one is named), wrong type, unknown choice, impossible value.
    """
    given = {name: check_value(name, value) for name, value in given.items()}
    values: dict[str, Any] = {name: f.default for name, f in FIELDS.items()} | given
    dataset = values["dataset"]
    values["data"] = values["data"] or f"data/prepared/{dataset}"
    values["raw"] = values["raw"] or RAW.get(dataset, f"data/{dataset}")
    for name, field in FIELDS.items():
        if field.metadata["path"]:
            values[name] = _absolute(values[name]) if values[name] or field.default else None
    if values["prompts"] is None:
        beside = Path(f"{values['data']}.prompts.yaml")  # as notebook 08 writes it
        values["prompts"] = str(beside if beside.exists() else PARAMS / "prompts" / f"{dataset}.yaml")
    protocols = benchmarks_of(dataset, values["data"]) or (own_benchmark(values, bool(given.get("raw"))),)
    values["benchmark"] = values["benchmark"] or protocols[0]
    if values["benchmark"] not in protocols:
        raise ValueError(f"parameter benchmark: {dataset} has {', '.join(protocols)}, not {values['benchmark']!r}")
    for name, value in recipe(values).items():
        if values[name] is None:
            values[name] = check_value(name, value)
    if values["test_batch_size"] is None:
        values["test_batch_size"] = values["batch_size"]
    if values["text"] is None:
        values["text"] = "clip" if pick_device(values["device"]).type == "cuda" else "minilm"
    values["unseen"] = sorted({*(values["unseen"] or [])}) or None
    check_values(values)
    if values["select"] == "heldout":
        values["heldout_by"] = values["heldout_by"] or "subject"
    return Config(**values)


def _absolute(place: str | list[str]) -> str | list[str]:
    """A path, or each of a list, absolute: what is relative lies in the project folder."""
    return [str(in_project(entry)) for entry in place] if isinstance(place, list) else str(in_project(place))
