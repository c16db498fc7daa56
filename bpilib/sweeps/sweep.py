"""A sweep: many runs from one YAML table, executed as notebooks on Dask."""

import dataclasses
import functools
import itertools
import logging
import math
import re
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from distributed import Client, Event, Future

from bpilib.config import NOTEBOOK, Config, resolve
from bpilib.data.store import SkeletonStore
from bpilib.errors import MissingInputError, did_you_mean
from bpilib.finished import read_finished
from bpilib.run_keys import GROUP_KEYS, RUN_KEYS
from bpilib.runs import check_config, history
from bpilib.sweeps.clusters import SLURM_OPTIONS, execute_run
from bpilib.sweeps.notebook_runner import count_starts, is_running
from bpilib.system.files import NOTEBOOKS, in_project, parse_yaml, write_atomically

logger = logging.getLogger(__name__)

Watch = Callable[[pd.DataFrame], None]
TRAIN = NOTEBOOKS / "02_train.ipynb"
MAX_RUNS = 10_000  # runs of a grid
COLUMNS = (*GROUP_KEYS, "seed")  # of the sweep's tables
_FIELDS = {field.name: field for field in dataclasses.fields(Config)}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A table of runs.

    Attributes:
        name: of its folder, outputs/sweeps/<name>.
        folder: for its tables and figures.
        given: the parameters that each run sets; the others are as published.
        configs: the resolved configuration of each run.
        slurm: options of SLURM jobs.
    """

    name: str
    folder: Path
    given: list[dict[str, Any]]
    configs: list[Config]
    slurm: dict[str, Any]

    @property
    def for_choosing(self) -> bool:
        """The runs serve to choose a setting: of one data set, all keep clips from training, and the last epoch.

        A run that selects its epoch on held-out clips has no accuracy on these by which settings could be compared.
        """
        data = {(config.dataset, config.benchmark, config.data) for config in self.configs}
        return len(data) == 1 and all(config.heldout_by and config.select == "last" for config in self.configs)


def load_sweep(path: str | Path, outputs: str | Path = "outputs", here: bool = True) -> Sweep:
    """Read a table of runs and check it completely.

    The YAML has `defaults` (parameters of every run), `grid` (a mapping of parameters to lists, or a list of such
    mappings: every combination is a run), `runs` (a list of single runs), and optionally `name` (default: that of the
    file) and `slurm`.

    Args:
        path: of the YAML; a relative one is in the project folder.
        outputs: the folder of run directories, unless the table sets it.
        here: the runs are executed on this machine; otherwise the table must name the text encoder, whose default
            depends on the machine.

    Raises:
        MissingInputError: no such file.
        ValueError: an unknown, mistyped or duplicate entry; the message names the run.
    """
    path = in_project(path)
    if not path.is_file():
        raise MissingInputError(f"no table of runs at {path}: set the parameter sweep, e.g. to params/sweep.yaml")
    try:
        content = parse_yaml(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    shapes = {"name": str, "defaults": dict, "grid": dict | list, "runs": list, "slurm": dict}
    _check_keys(content, shapes, str(path))
    for key, shape in shapes.items():
        if content.get(key) is not None and not isinstance(content[key], shape):
            raise ValueError(f"{path}: expected {key} to be {_describe_shape(shape)}, got {content[key]!r}")
    name = content.get("name") or path.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"{path}: name: expected letters, digits, '.', '_' or '-', got {name!r}")
    _check_keys(content.get("slurm") or {}, SLURM_OPTIONS, f"{path}: slurm")
    given, configs = [], []
    for number, run in enumerate(_expand(content, path), 1):
        try:
            config, chosen = _resolve({"outputs": str(outputs)} | run, here)
        except ValueError as error:
            raise ValueError(f"{path}, run {number} ({_describe_run(run)}): {error}") from error
        given.append(chosen)
        configs.append(config)
    if not configs:
        raise ValueError(f"{path} has no runs: give it a `grid` or `runs`")
    directory, times = Counter(config.run_directory for config in configs).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path}: {times} runs would share {directory}: leave one out, or set the parameter tag")
    return Sweep(name, in_project(outputs) / "sweeps" / name, given, configs, content.get("slurm") or {})


def _check_keys(mapping: Any, known: Any, where: str) -> None:
    if not isinstance(mapping, dict):
        raise ValueError(f"{where}: expected a mapping with {', '.join(known)}, got {mapping!r}")
    for key in mapping:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{did_you_mean(key, known)} (known: {', '.join(known)})")


def _describe_shape(shape: Any) -> str:
    names = {str: "a name", dict: "a mapping", list: "a list"}
    return names.get(shape, "a mapping or a list of mappings")


def _describe_run(run: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in run.items() if key in RUN_KEYS)


def _expand(content: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Parameters of each run: every combination of the grids, then the single runs, each over the defaults."""
    grids = content.get("grid") or []
    singles = []
    for grid in [grids] if isinstance(grids, dict) else grids:
        if not isinstance(grid, dict):
            raise ValueError(f"{path}: grid: expected a mapping of parameters to lists, got {grid!r}")
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{path}: grid: expected a list of values for {name}, got {values!r}")
        if (runs := math.prod(map(len, grid.values()))) > MAX_RUNS:
            raise ValueError(f"{path}: grid: {runs:,} runs, more than the {MAX_RUNS:,} that one table may have")
        singles += [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    for run in content.get("runs") or []:
        if not isinstance(run, dict):
            raise ValueError(f"{path}: runs: expected a mapping of parameters, got {run!r}")
        singles.append(run)
    for name in itertools.chain(content.get("defaults") or {}, *singles):
        if not isinstance(name, str):
            raise ValueError(f"{path}: expected names of parameters, got {name!r}")
    return [(content.get("defaults") or {}) | run for run in singles]


def _resolve(run: dict[str, Any], here: bool) -> tuple[Config, dict[str, Any]]:
    """Resolve a run: its configuration, and its notebook's parameters, with this machine's defaults filled in."""
    config = resolve(**run)
    for name in run:
        if _FIELDS[name].metadata["changes"] == NOTEBOOK:
            raise ValueError(f"parameter {name} does not belong to training: remove it")
    if run.get("text") is None and config.model != "ctrgcn" and not here:
        raise ValueError("set text to clip or minilm, since the default depends on whether a machine has a GPU")
    return config, run | {"outputs": config.outputs, "text": config.text}


def check_sweep(sweep: Sweep) -> None:
    """Check before the start what would make runs fail later: missing data, a run directory with other settings."""
    for data in {config.data for config in sweep.configs if config.data is not None}:
        SkeletonStore.open(data)
    for config in sweep.configs:
        check_config(config)


def run_sweep(
    sweep: Sweep, client: Client, watch: Watch | None = None, pause: float = 2.0, notebook: Path = TRAIN
) -> pd.DataFrame:
    """Execute the runs that are not finished; return when every run has finished or failed.

    Args:
        sweep: from `load_sweep`.
        client: of the workers, from `bpilib.sweeps.clusters.connect`.
        watch: called every `pause` seconds with the table of states.
        pause: seconds.
        notebook: executed for each run.

    Returns:
        The table of states, also in runs.csv: one row per run as of `read_states`, with state finished, skipped,
        failed or interrupted.

    Raises:
        MissingInputError, ValueError: see `check_sweep`.
        RuntimeError: SLURM refused all jobs; quotes sbatch.
        KeyboardInterrupt: after Ctrl-C, once the running runs have saved.
    """
    check_sweep(sweep)
    stop = Event(f"stop-{uuid.uuid4().hex}", client=client)
    opened = functools.cache(SkeletonStore.open)
    done = [read_finished(config, opened) is not None for config in sweep.configs]
    ended = {number: ("skipped", "finished before") for number, finished in enumerate(done) if finished}
    futures = {}
    for number, config in enumerate(sweep.configs):
        if number not in ended:
            key = f"{config.run_directory.name}-{uuid.uuid4().hex}"
            task = (execute_run, notebook, config, sweep.given[number], stop.name)
            futures[number] = client.submit(*task, key=key, priority=-number, pure=False)
    refusal = getattr(client.cluster, "refusal", str)  # of SLURM; other clusters refuse nothing
    try:
        return _follow(sweep, futures, ended, watch, pause, refusal)
    except KeyboardInterrupt:
        logger.warning("stopping: running trainings save after their current step (interrupt again to stop at once)")
        stop.set()
        _follow(sweep, futures, ended, watch, pause, refusal)
        raise KeyboardInterrupt("stopped: run the same again to go on") from None


def _follow(
    sweep: Sweep,
    futures: dict[int, Future],
    ended: dict[int, tuple[str, str]],
    watch: Watch | None,
    pause: float,
    refusal: Callable[[], str],
) -> pd.DataFrame:
    """Show the table of states until all runs have ended, then write it to runs.csv."""
    while True:
        for number, future in futures.items():
            if number not in ended and future.done():
                ended[number] = _read_outcome(future)
        table = read_states(sweep, ended)
        if watch:
            watch(table)
        if len(ended) == len(sweep.configs):
            write_atomically(sweep.folder / "runs.csv", table.to_csv(index=False))
            return table
        if words := refusal():
            raise RuntimeError(
                f"SLURM refused all jobs: {words}. Correct `slurm` in the table of runs, and run the same again"
            )
        time.sleep(pause)


def _read_outcome(future: Future) -> tuple[str, str]:
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        return "failed", f"{type(error).__name__}: {error}"
    return "failed", f"{future.status} by the Dask scheduler: run the same again to go on"


def find_finished(sweep: Sweep) -> list[tuple[Config, dict[str, Any]]]:
    """The finished runs of a sweep with their summary.json.

    Warns:
        A run is damaged, or another one than the table asks for: it is named and left out.
    """
    opened = functools.cache(SkeletonStore.open)
    found = []
    for config in sweep.configs:
        try:
            summary = read_finished(config, opened)
        except ValueError as error:
            warnings.warn(f"left out of the sweep's tables: {error}", stacklevel=3)
        else:
            found += [] if summary is None else [(config, summary)]
    return found


def read_states(sweep: Sweep, ended: dict[int, tuple[str, str]] | None = None) -> pd.DataFrame:
    """Look up the state of every run, one row each: settings, state, epoch, epochs, test_top1 (%), starts, message,
    folder. In place of test_top1 a sweep for choosing has heldout_top1 (%).

    Args:
        sweep: from `load_sweep`.
        ended: run number → state and message, of runs known to have ended.
    """
    accuracy = "heldout_top1" if sweep.for_choosing else "test_top1"
    rows = []
    for number, config in enumerate(sweep.configs):
        folder = config.run_directory
        state, message = (ended or {}).get(number) or ("running" if is_running(folder) else "waiting", "")
        epoch, top1 = _read_progress(config, accuracy)
        row = {name: getattr(config, name) for name in COLUMNS}
        rows.append(
            row
            | {
                "state": state,
                "epoch": epoch,
                "epochs": config.epochs,
                accuracy: top1,
                "starts": count_starts(folder),
                "message": message,
                "folder": str(folder),
            }
        )
    return pd.DataFrame(rows)


def _read_progress(config: Config, accuracy: str) -> tuple[int, float]:
    """Epochs done, and the last accuracy in %, of the column `accuracy`."""
    try:
        rows = history(config)
    except (OSError, ValueError):  # not there yet, or nothing in it
        return 0, math.nan
    known = rows.reindex(columns=[accuracy]).dropna()[accuracy]
    return int(rows["epoch"].max()) if len(rows) else 0, float(known.iloc[-1]) if len(known) else math.nan
