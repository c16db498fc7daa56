"""What lies in a run directory beside the checkpoints: which run it is, and which epoch was selected."""

import json
from pathlib import Path
from typing import Any

import yaml

from bpilib.config import Config, resolve
from bpilib.files import MissingInputError, parse_yaml, write_atomically


def selected_epoch(config: Config) -> int | None:
    """The epoch that a finished run's figures are of; None where that is not known."""
    try:
        return json.loads((config.run_directory / "summary.json").read_text())["selected_epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def no_run(config: Config) -> MissingInputError:
    """That there is no run, and which there are."""
    found = sorted(str(p.parent.relative_to(config.outputs)) for p in Path(config.outputs).glob("*/*/best.pt"))
    return MissingInputError(
        f"no trained run in {config.run_directory}: run notebooks/02_train.ipynb with the same parameters first. "
        f"Runs there are: {', '.join(found) or 'none'}"
    )


def saved_config(config: Config) -> Config:
    """The configuration a run was started with, places and machine as given now.

    Raises:
        MissingInputError: no such run; those there are, are listed.
    """
    path = config.run_directory / "config.yaml"
    if not path.exists():
        raise no_run(config)
    saved, given = _settings(path), vars(config)
    return resolve(**(given | {name: saved[name] for name in config.result_settings() if name in saved}))


def _settings(path: Path) -> dict[str, Any]:
    """What a config.yaml holds."""
    try:
        saved = parse_yaml(path.read_bytes())
        if not {"dataset", "model", "seed"} <= saved.keys():
            raise ValueError("settings are missing")
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        again = "remove it and run notebooks/02_train.ipynb with the run's parameters again: its checkpoints are kept"
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): {again}") from error
    return saved


def claim(config: Config) -> None:
    """Write config.yaml into the run directory, or check that the run there asks for the same results.

    A directory with a config.yaml alone (a start that failed) holds no run.

    Raises:
        ValueError: another configuration is there; the differences are listed.
    """
    path = config.run_directory / "config.yaml"
    if path.exists():
        there, now = Config.saved(_settings(path)).result_settings(), config.result_settings()
        differ = [f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in now if there.get(key) != now[key]]
        if not differ:
            return
        made = ("last.pt", "last.previous.pt", "best.pt", "scores.npz", "summary.json")
        if any((config.run_directory / name).exists() for name in made):
            raise ValueError(
                f"{config.run_directory} holds a run with other settings ({'; '.join(differ)}). Nothing was changed: "
                "set the parameter tag (say tag='b') or outputs to start another run beside it, or use its settings"
            )
    write_atomically(path, yaml.safe_dump(config.settings(), sort_keys=False))
