"""Every parameter once: name, type, unit, default, meaning; resolved strictly, recipes included.

`python -m bpilib.config` prints the parameter table of docs/parameters.md.
"""

import ast
import dataclasses
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bpilib.errors import did_you_mean
from bpilib.model import MODELS
from bpilib.recipes import BENCHMARKS, RAW, benchmarks_of, own_benchmark, recipe
from bpilib.skeleton import MODALITIES
from bpilib.system.device import pick_device
from bpilib.system.files import PARAMS, in_project, mask_secrets
from bpilib.system.tables import text_table

RUN_KEYS = ("dataset", "benchmark", "model", "modality", "seed", "tag")  # what a run directory is called by
# What a parameter changes: the numbers of a run, or only where, how fast and on what it runs.
RESULT, PLACE, MACHINE, NOTEBOOK = "result", "place", "machine", "notebook"


def _param(default: Any, meaning: str, changes: str = RESULT, unit: str = "", choices: tuple = ()) -> Any:
    """A field of `Config` with what the tables say of it."""
    extra = {"meaning": meaning, "changes": changes, "unit": unit, "choices": choices}
    return dataclasses.field(default=default, metadata=extra)


@dataclass(frozen=True)
class Config:
    """A resolved run; make it with `resolve`. The fields' metadata are the table of docs/parameters.md."""

    dataset: str = _param("ucla", f"data set: {', '.join(BENCHMARKS)}, or the name of one of your own")
    benchmark: str | None = _param(None, "evaluation protocol; None: the first of the store, or of the data set")
    model: str = _param("bpi", "network", choices=MODELS)
    modality: str = _param("joint", "input stream", choices=MODALITIES)
    seed: int = _param(0, "seed of initial weights and of every draw")
    tag: str = _param("", "suffix of the run directory, to keep runs of other settings apart")

    raw: str | list[str] | None = _param(
        None, "raw files: folder or zip; or prepared clips: .npz, .pkl, a folder with clips.csv (01)", PLACE
    )
    download: bool = _param(False, "fetch what is missing from its publisher: NW-UCLA (01), the pose model (10)", PLACE)
    on_error: str = _param("skip", "a bad raw file is left out, or raises (01)", PLACE, "", ("skip", "raise"))
    overwrite: bool = _param(False, "prepare again and replace the store at data (01)", PLACE)
    export_clips: str | None = _param(None, "write the clips beside the store, too (01)", PLACE, "", ("npz", "pickle"))
    tracker: str | None = _param(
        None, "whose joints raw clips have; None: NTU's or NW-UCLA's, of a clip_file: its run's (03, 08, 10)", PLACE,
        choices=("mediapipe", "kinect_v1", "kinect_v2", "coco", "openpose_25", "openpose_18", "human36m", "smpl",
                 "azure_kinect"),
    )
    data: str | None = _param(None, "prepared store; None: data/prepared/<dataset>", PLACE)
    outputs: str = _param("outputs", "where run directories go", PLACE)
    prompts: str | None = _param(
        None,
        "class texts; None: <data>.prompts.yaml if 08 wrote it, else params/prompts/<dataset>.yaml; a .txt: published "
        "part descriptions, with <name>.synonyms.txt beside them",
        PLACE,
    )

    epochs: int | None = _param(None, "length of training", unit="epochs")
    batch_size: int | None = _param(None, "clips of a step", unit="clips")
    test_batch_size: int | None = _param(None, "clips of an evaluation step; None: batch_size", MACHINE, "clips")
    repeats: int | None = _param(None, "passes over the training clips in an epoch", unit="passes")
    lr: float | None = _param(None, "learning rate after warm-up")
    schedule: str | None = _param(None, "decay of the learning rate", choices=("step", "cosine"))
    steps: list[int] | None = _param(None, "epochs after which the rate falls to a tenth (step)", unit="epochs")
    warmup: int | None = _param(None, "linear warm-up", unit="epochs")
    momentum: float | None = _param(None, "Nesterov momentum of SGD")
    weight_decay: float | None = _param(None, "L2 penalty")
    alpha: float | None = _param(None, "weight of the contrastive loss")
    k: int | None = _param(None, "exponent of the bone operator; None: 1 for bones, 8 (NTU) or 6 (NW-UCLA) for joints")
    width: int | None = _param(None, "channels of the first blocks", unit="channels")

    unseen: list[str] | None = _param(None, "names of classes kept out of training, to be recognised by text (09)")
    text: str | None = _param(
        None, "text encoder; None: clip on a GPU, else minilm; none: no text", choices=("clip", "minilm", "none")
    )
    clip_model: str = _param("ViT-B-32", "open_clip model name")
    clip_pretrained: str = _param("openai", "open_clip pretrained tag, or a local weight file")
    clip_trained: bool = _param(True, "train the CLIP text tower along, as published")

    start_from: str | None = _param(None, "run directory or checkpoint to take the first weights from, where they fit")
    select: str = _param(
        "last", "epoch that best.pt keeps: the last, the best on held-out subjects, or (as published) the best on test",
        choices=("last", "heldout", "test"),
    )
    heldout: float = _param(0.2, "share of the training subjects kept from training (select heldout)")
    eval_every: int | None = _param(None, "evaluate after every n epochs, and after the last", unit="epochs")
    device: str = _param("auto", "auto, cpu, cuda, cuda:1, ...", MACHINE)
    precision: str = _param(
        "auto", "of training; auto: bf16 where the device has it", MACHINE, "", ("auto", "fp32", "tf32", "bf16", "fp16")
    )
    compile: str = _param(
        "none", "torch.compile of the network in training: not, as one graph, as CUDA graphs too (GPUs)", MACHINE, "",
        ("none", "default", "graph"),
    )
    deterministic: bool = _param(False, "the same bits from every run on a GPU, at some cost in speed", MACHINE)

    devices: int = _param(1, "processes on each machine that share every batch, one per GPU (02)", MACHINE)
    nodes: int = _param(1, "machines that share every batch, each with `devices` processes (02)", MACHINE)
    rendezvous: str | None = _param(None, "host:port of the first machine, the same on all (nodes)", MACHINE)
    sync_batchnorm: bool = _param(False, "BatchNorm over the whole batch, not each process's share (GPUs)", MACHINE)
    max_restarts: int = _param(3, "times that a dead process starts all anew from the last checkpoint (02)", MACHINE)
    checkpoint_minutes: float = _param(10.0, "save within an epoch this often", MACHINE, "minutes")

    tensorboard: bool = _param(False, "show TensorBoard in the notebook (02)", NOTEBOOK)
    weights_file: str | None = _param(None, "published weight file to evaluate instead of a trained run (03)", NOTEBOOK)
    clip_file: str | None = _param(None, "raw clip to classify; None: the first test clip (03, 08)", NOTEBOOK)
    film: str | None = _param(None, "film or recorded landmarks to classify and play; None: test clips (10)", NOTEBOOK)
    window_seconds: float = _param(3.0, "windows that a long recording is cut into (10)", NOTEBOOK, "seconds")
    people: int = _param(1, "persons taken from a film, 1 or 2 (10)", PLACE, "persons")
    mirrored: bool = _param(False, "films show the world as a mirror does, as many selfies do (10)", PLACE)
    pose_model: str | None = _param(None, "model of MediaPipe; None: data/models/pose_landmarker_full.task (10)", PLACE)
    export: str | None = _param(
        None, "classifier files to write (03)", NOTEBOOK, choices=("onnx", "pt2", "published", "all")
    )
    figure_style: str = _param(
        "screen", "of figures; paper: column width, no questions as titles, fit for grey print (01, 04, 09)", NOTEBOOK,
        choices=("screen", "paper"),
    )
    clips: int = _param(12, "clips shown one by one (04, 09)", NOTEBOOK, "clips")
    query: str | None = _param(None, "description to find clips by; None: a synonym of a class (09)", NOTEBOOK)
    modalities: list[str] | None = _param(None, "streams to ensemble; None: all that have been run (05)", NOTEBOOK)
    weights: str = _param(
        "published", "ensemble weights: the published ones, searched on held-out scores, or equal (05, 06)", NOTEBOOK,
        choices=("published", "searched", "equal"),
    )
    runs: list[str] | None = _param(
        None, "runs to compare in pairs, the first two in detail; None: one of each setting (07)", NOTEBOOK
    )
    sweep: str = _param("params/sweep.yaml", "table of runs (06)", NOTEBOOK)
    cluster: str = _param("local", "local, slurm, or a running Dask scheduler's address (06)", NOTEBOOK)
    workers: int | None = _param(None, "runs at once; None: one per GPU, or as the cores give (06)", NOTEBOOK)
    cores: int = _param(4, "cores of a run where there is no GPU, or of a SLURM job (06)", NOTEBOOK)

    @property
    def run_directory(self) -> Path:
        """outputs/<dataset>_<benchmark>/<model>_<modality>_seed<seed>[_<tag>]"""
        name = f"{self.model}_{self.modality}_seed{self.seed}" + (f"_{self.tag}" if self.tag else "")
        return Path(self.outputs) / f"{self.dataset}_{self.benchmark}" / name

    def result_settings(self) -> dict[str, Any]:
        """What the numbers of a run depend on, as plain values for YAML."""
        unused = ("text", "clip_model", "clip_pretrained", "clip_trained", "alpha") if self.model == "ctrgcn" else ()
        names = [f.name for f in _FIELDS.values() if f.metadata["changes"] == RESULT]
        shares = {"devices x nodes": 1 if self.sync_batchnorm else self.devices * self.nodes}  # of BatchNorm
        return {name: getattr(self, name) for name in names if name not in unused} | shares

    @classmethod
    def saved(cls, values: dict[str, Any]) -> "Config":
        """From a run's config.yaml, checked like parameters; those that it does not have yet are the default.

        Raises:
            ValueError: a value that no parameter can have.
        """
        config = cls(**{name: _checked(name, value) for name, value in values.items() if name in _FIELDS})
        _check_names(vars(config))
        return config

    def settings(self) -> dict[str, Any]:
        """All parameters, as plain values for YAML; what looks like a secret is masked."""
        return {name: mask_secrets(getattr(self, name)) for name in _FIELDS}

    def changed(self, **changes: Any) -> "Config":
        """A copy with other settings, checked like those of `resolve`; what they imply is not looked up anew."""
        config = dataclasses.replace(self, **{name: _checked(name, value) for name, value in changes.items()})
        _check_names(vars(config))
        return config

    def _repr_html_(self) -> str:
        """Shown as a table where a notebook cell ends with the configuration."""
        return f'<div style="max-height:30em;overflow:auto">{text_table(self.table().map(str)).to_html()}</div>'

    def table(self, *groups: str) -> pd.DataFrame:
        """Name, value, unit and meaning of every parameter, for the notebooks."""
        groups = groups or (RESULT, PLACE, MACHINE, NOTEBOOK)
        rows = [
            (f.name, mask_secrets(getattr(self, f.name)), f.metadata["unit"], f.metadata["meaning"])
            for f in _FIELDS.values()
            if f.metadata["changes"] in groups
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "unit", "meaning"]).set_index("parameter")


_FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def _checked(name: str, value: Any) -> Any:
    """`value` as parameter `name` holds it, or ValueError."""
    if name not in _FIELDS:
        raise ValueError(f"unknown parameter {name!r}{did_you_mean(name, _FIELDS)} (known: {', '.join(_FIELDS)})")
    field = _FIELDS[name]
    if name == "compile" and isinstance(value, bool):  # as files have it that were written when it was yes or no
        value = "default" if value else "none"
    kinds = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    plain = [typing.get_origin(kind) or kind for kind in kinds]
    if isinstance(value, Path) and str in plain:
        value = str(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in plain:
        value = float(value)
    fits = type(value) in plain or (value is None and type(None) in plain)
    if fits and isinstance(value, list):
        item = typing.get_args(next(kind for kind in kinds if typing.get_origin(kind) is list))[0]
        fits = all(type(entry) is item for entry in value)
    if not fits:
        wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in plain)
        hint = ": in YAML write 1.0e-4, since 1e-4 arrives as text" if isinstance(value, str) and float in plain else ""
        raise ValueError(f"parameter {name}: expected {wanted}, got {type(value).__name__} {value!r}{hint}")
    choices = field.metadata["choices"]
    if choices and value is not None and value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"parameter {name}: unknown {value!r}{did_you_mean(value, choices)} (expected one of {known})")
    return value


def resolve(**given: Any) -> Config:
    """A full configuration from any subset of parameters; the rest as published, or the default.

    Args:
        given: parameters by name; None means "as published". Relative paths lie in the project folder.

    Raises:
        ValueError: unknown name (the nearest known one is named), wrong type, unknown choice, impossible value.
    """
    given = {name: _checked(name, value) for name, value in given.items()}
    values = {name: f.default for name, f in _FIELDS.items()} | given
    dataset = values["dataset"]
    values["data"] = str(in_project(values["data"] or f"data/prepared/{dataset}"))
    raw = values["raw"] or RAW.get(dataset, f"data/{dataset}")
    values["raw"] = [str(in_project(place)) for place in raw] if isinstance(raw, list) else str(in_project(raw))
    protocols = benchmarks_of(dataset, values["data"]) or (own_benchmark(values, bool(given.get("raw"))),)
    values["benchmark"] = values["benchmark"] or protocols[0]
    if values["benchmark"] not in protocols:
        raise ValueError(
            f"parameter benchmark: {values['dataset']} has {', '.join(protocols)}, not {values['benchmark']!r}"
        )
    for name, value in recipe(values).items():
        if values[name] is None:
            values[name] = _checked(name, value)
    if values["test_batch_size"] is None:
        values["test_batch_size"] = values["batch_size"]
    if values["text"] is None:
        values["text"] = "clip" if pick_device(values["device"]).type == "cuda" else "minilm"
    values["unseen"] = sorted({*(values["unseen"] or [])}) or None
    values["outputs"] = str(in_project(values["outputs"]))
    for name in ("weights_file", "clip_file", "film", "pose_model"):
        values[name] = str(in_project(values[name])) if values[name] else None
    beside = Path(f"{values['data']}.prompts.yaml")  # as notebook 08 writes it
    shipped = PARAMS / "prompts" / f"{dataset}.yaml"
    values["prompts"] = str(in_project(values["prompts"] or (beside if beside.exists() else shipped)))
    _check_values(values)
    return Config(**values)


def _check_values(values: dict[str, Any]) -> None:
    """Numbers in their ranges, names fit for paths."""
    counts = ("epochs", "batch_size", "test_batch_size", "repeats", "eval_every", "clips")
    for name in (*counts, "devices", "nodes", "workers", "cores", "people", "window_seconds"):
        if values[name] is not None and values[name] < 1:
            raise ValueError(f"parameter {name}: expected at least 1, got {values[name]}")
    for name in ("lr", "weight_decay", "alpha", "warmup", "seed", "max_restarts"):
        if not values[name] >= 0:
            raise ValueError(f"parameter {name}: expected 0 or more, got {values[name]}")
    if values["seed"] >= 1 << 32:
        raise ValueError(f"parameter seed: expected less than 2^32, got {values['seed']}")
    if not 0 < values["heldout"] < 1:
        raise ValueError(f"parameter heldout: expected a share between 0 and 1, got {values['heldout']}")
    _check_names(values)
    if values["model"] == "ctrgcn" and values["k"] is not None:
        raise ValueError("parameter k: ctrgcn has no bone operator; leave k at None")


def _check_names(values: dict[str, Any]) -> None:
    """Names that become parts of a path."""
    for name in ("dataset", "benchmark"):
        if values[name] is not None and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", values[name]):
            raise ValueError(f"parameter {name}: expected letters, digits, '.', '_' or '-', got {values[name]!r}")
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", values["tag"]):
        raise ValueError(f"parameter tag: expected letters, digits, '.', '_' or '-', got {values['tag']!r}")


def from_notebook(namespace: dict[str, Any]) -> Config:
    """`resolve` with what a notebook's parameters cell and papermill's injected cell set.

    Papermill only warns of a mistyped name; here it raises. The names are read from the cells' source, so that
    other variables of a session, and cells run twice, do no harm.

    Args:
        namespace: the notebook's `globals()`.
    """
    sources = namespace.get("In", [])
    names: dict[str, None] = {}
    for heading in ("# parameters", "# Parameters"):  # the notebook's own cell, papermill's
        last = next((source for source in reversed(sources) if source.lstrip().startswith(heading)), "")
        for statement in ast.parse(last).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
            names |= {target.id: None for target in targets if isinstance(target, ast.Name)}
    if not names:
        raise ValueError("no parameters found: run the cell that begins with '# parameters' before this one")
    return resolve(**{name: namespace[name] for name in names})


def parameter_table() -> str:
    """The parameter table of docs/parameters.md, Markdown."""
    lines = ["| parameter | default | unit | meaning |", "| --- | --- | --- | --- |"]
    for f in _FIELDS.values():
        choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
        lines.append(f"| `{f.name}` | `{f.default!r}` | {f.metadata['unit']} | {f.metadata['meaning']}{choices} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(parameter_table(), end="")
