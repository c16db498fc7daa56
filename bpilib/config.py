"""Every parameter once: name, type, unit, default, meaning; resolved strictly, recipes included.

`python -m bpilib.config` prints the parameter table of docs/parameters.md.
"""

import ast
import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bpilib.errors import did_you_mean
from bpilib.model import MODELS
from bpilib.recipes import BENCHMARKS, PLAIN_NAME, RAW, benchmarks_of, own_benchmark, recipe
from bpilib.skeleton import MODALITIES
from bpilib.system.device import pick_device
from bpilib.system.files import PARAMS, in_project, mask_secrets, mask_url_secrets
from bpilib.system.tables import text_table

RUN_KEYS = ("dataset", "benchmark", "model", "modality", "seed", "tag")  # what a run directory is called by
# What a parameter changes: the numbers of a run, or only where, how fast and on what it runs.
RESULT, PLACE, MACHINE, NOTEBOOK = "result", "place", "machine", "notebook"
_SUFFIX = re.compile(r"[A-Za-z0-9._-]{0,64}")  # of a run directory's name
WITH_TEXT = ("gap", "bpi")  # the models that are trained with a text encoder


def _param(
    default: Any,
    meaning: str,
    changes: str = RESULT,
    unit: str = "",
    choices: tuple[str, ...] = (),
    *,
    optional: bool = False,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    path: bool = False,
    fits: re.Pattern | None = None,
    models: tuple[str, ...] = MODELS,
) -> Any:
    """A field of `Config` with what is known of the parameter.

    Args:
        default: value where none is given.
        meaning: one line for the tables.
        changes: RESULT, PLACE, MACHINE or NOTEBOOK.
        unit: of the value, for the tables.
        choices: the values it may have; empty: any.
        optional: None may be given, but a resolved configuration has a value of the field's type.
        at_least, above, below: limits of a number.
        path: a file or folder, or a list of them; what is relative lies in the project folder.
        fits: pattern of plain characters, where it is part of the name of a folder.
        models: the networks whose results depend on it.
    """
    limits = {"at_least": at_least, "above": above, "below": below}
    extra = {"meaning": meaning, "changes": changes, "unit": unit, "choices": choices, "optional": optional}
    return dataclasses.field(default=default, metadata=extra | limits | {"path": path, "fits": fits, "models": models})


@dataclass(frozen=True, repr=False)
class Config:
    """A resolved run; make it with `resolve`. The fields' metadata are the table of docs/parameters.md."""

    dataset: str = _param("ucla", f"data set: {', '.join(BENCHMARKS)}, or the name of one of your own", fits=PLAIN_NAME)
    benchmark: str = _param(
        None, "evaluation protocol; None: the first of the store, or of the data set", optional=True, fits=PLAIN_NAME
    )
    model: str = _param("bpi", "network", choices=MODELS)
    modality: str = _param("joint", "input stream", choices=MODALITIES)
    seed: int = _param(0, "seed of initial weights and of every draw", at_least=0, below=1 << 32)
    tag: str = _param("", "suffix of the run directory, to keep runs of other settings apart", fits=_SUFFIX)

    raw: str | list[str] = _param(
        None,
        "raw files: folder or zip; or prepared clips: .npz, .pkl, a folder with clips.csv (01)",
        PLACE,
        optional=True,
        path=True,
    )
    download: bool = _param(False, "fetch what is missing from its publisher: NW-UCLA (01), the pose model (10)", PLACE)
    on_error: str = _param("skip", "a bad raw file is left out, or raises (01)", PLACE, "", ("skip", "raise"))
    overwrite: bool = _param(False, "prepare again and replace the store at data (01)", PLACE)
    export_clips: str | None = _param(None, "write the clips beside the store, too (01)", PLACE, "", ("npz", "pickle"))
    tracker: str | None = _param(
        None,
        "whose joints raw clips have; None: NTU's or NW-UCLA's, a clip_file: its run's (01, 03, 08, 10)",
        PLACE,
        choices=(
            "mediapipe",
            "kinect_v1",
            "kinect_v2",
            "coco",
            "openpose_25",
            "openpose_18",
            "human36m",
            "smpl",
            "azure_kinect",
        ),
    )
    data: str = _param(None, "prepared store; None: data/prepared/<dataset>", PLACE, optional=True, path=True)
    outputs: str = _param("outputs", "where run directories go", PLACE, path=True)
    prompts: str = _param(
        None,
        "class texts; None: <data>.prompts.yaml if 08 wrote it, else params/prompts/<dataset>.yaml; a .txt: published "
        "part descriptions, with <name>.synonyms.txt beside them",
        PLACE,
        optional=True,
        path=True,
    )

    epochs: int = _param(None, "length of training", unit="epochs", optional=True, at_least=1)
    batch_size: int = _param(None, "clips of a step", unit="clips", optional=True, at_least=1)
    test_batch_size: int = _param(
        None, "clips of an evaluation step; None: batch_size", MACHINE, "clips", optional=True, at_least=1
    )
    repeats: int = _param(None, "passes over the training clips in an epoch", unit="passes", optional=True, at_least=1)
    lr: float = _param(None, "learning rate after warm-up", optional=True, at_least=0)
    schedule: str = _param(None, "decay of the learning rate", choices=("step", "cosine"), optional=True)
    steps: list[int] | None = _param(None, "epochs after which the rate falls to a tenth (step)", unit="epochs")
    warmup: int = _param(None, "linear warm-up", unit="epochs", optional=True, at_least=0)
    momentum: float = _param(None, "Nesterov momentum of SGD", optional=True, at_least=0)
    weight_decay: float = _param(None, "L2 penalty", optional=True, at_least=0)
    alpha: float = _param(None, "weight of the contrastive loss", optional=True, at_least=0, models=WITH_TEXT)
    k: int | None = _param(None, "exponent of the bone operator; None: 1 for bones, 8 (NTU) or 6 (NW-UCLA) for joints")
    width: int = _param(None, "channels of the first blocks", unit="channels", optional=True)
    attention: str = _param(
        "learned",
        "of the parts to each other; even: to test it, every joint of the others has the same share",
        choices=("learned", "even"),
        models=("bpi",),
    )
    true_bones: bool = _param(
        False,
        "bones are child minus parent also where the published operator has parent minus children (NW-UCLA)",
        models=WITH_TEXT,
    )
    label_smoothing: float = _param(0.0, "of the cross-entropy; not published", at_least=0, below=1)
    weight_average: float = _param(
        0.0,
        "decay of a moving average of the weights, which is then evaluated and kept; 0: none; not published",
        at_least=0,
        below=1,
    )
    pitch: int = _param(
        60,
        "training turns clips about the x axis up to this far either way (NW-UCLA)",
        unit="degrees",
        at_least=0,
        below=181,
    )
    yaw: int = _param(
        60,
        "training turns clips about the y axis up to this far either way (NW-UCLA)",
        unit="degrees",
        at_least=0,
        below=181,
    )
    axis_drop: float = _param(
        0.0, "probability that training sets one axis of a clip to 0; not published", at_least=0, below=1
    )
    joint_drop: float = _param(
        0.0,
        "probability that training sets some joints of a clip to 0 for some time; not published",
        at_least=0,
        below=1,
    )
    test_yaw: list[int] | None = _param(
        None,
        "evaluation averages the logits of clips turned by these angles (NW-UCLA); None: as they are",
        unit="degrees",
    )

    unseen: list[str] | None = _param(None, "names of classes kept out of training, to be recognised by text (09)")
    text: str = _param(
        None,
        "text encoder; None: clip on a GPU, else minilm; none: no text",
        choices=("clip", "minilm", "none"),
        optional=True,
        models=WITH_TEXT,
    )
    clip_model: str = _param("ViT-B-32", "open_clip model name", models=WITH_TEXT)
    clip_pretrained: str = _param("openai", "open_clip pretrained tag, or a local weight file", models=WITH_TEXT)
    clip_trained: bool = _param(True, "train the CLIP text tower along, as published", models=WITH_TEXT)
    embed_dim: int = _param(
        512,
        "of the embeddings where there is no text encoder (text: none), whose own it is otherwise",
        at_least=1,
        below=1 << 14,
        models=WITH_TEXT,
    )

    start_from: str | None = _param(
        None,
        "run directory, checkpoint, pretrained weights or published weight file to take the first weights from, where "
        "they fit",
    )
    select: str = _param(
        "last",
        "epoch that best.pt keeps: the last, the best on held-out subjects, or (as published) the best on test",
        choices=("last", "heldout", "test"),
    )
    heldout_by: str | None = _param(
        None,
        "what is kept from training and evaluated as held out: some subjects, or one view; None: subjects if "
        "select is heldout, else nothing",
        choices=("subject", "view"),
    )
    heldout: float = _param(0.2, "share of the training subjects kept from training", above=0, below=1)
    heldout_view: int | None = _param(
        None, "camera view kept from training (heldout_by view); None: the last of training", at_least=0
    )
    eval_every: int = _param(
        None, "evaluate after every n epochs, and after the last", unit="epochs", optional=True, at_least=1
    )
    device: str = _param("auto", "auto, cpu, cuda, cuda:1, ...", MACHINE)
    threads: int | None = _param(
        None,
        "CPU threads of a process; None: OMP_NUM_THREADS, or as many as cores are free",
        MACHINE,
        "threads",
        at_least=1,
    )
    precision: str = _param(
        "auto", "of training; auto: bf16 where the device has it", MACHINE, "", ("auto", "fp32", "tf32", "bf16", "fp16")
    )
    compile: str = _param(
        "none",
        "torch.compile of the network in training: not, as one graph, as CUDA graphs too (GPUs)",
        MACHINE,
        "",
        ("none", "default", "graph"),
    )
    kernel: str = _param(
        "plain",
        "of the topology refinement; triton: fused, for GPUs, tested but never measured on one",
        MACHINE,
        "",
        ("plain", "triton"),
    )
    deterministic: bool = _param(False, "the same bits from every run on a GPU, at some cost in speed", MACHINE)

    devices: int = _param(1, "processes on each machine that share every batch, one per GPU (02)", MACHINE, at_least=1)
    nodes: int = _param(1, "machines that share every batch, each with `devices` processes (02)", MACHINE, at_least=1)
    rendezvous: str | None = _param(None, "host:port of the first machine, the same on all (nodes)", MACHINE)
    sync_batchnorm: bool = _param(False, "BatchNorm over the whole batch, not each process's share (GPUs)", MACHINE)
    max_restarts: int = _param(
        3, "times that a dead process starts all anew from the last checkpoint (02)", MACHINE, at_least=0
    )
    checkpoint_minutes: float = _param(10.0, "save within an epoch this often", MACHINE, "minutes", at_least=0)

    tensorboard: bool = _param(False, "show TensorBoard in the notebook (02)", NOTEBOOK)
    weights_file: str | None = _param(
        None, "published weight file to evaluate instead of a trained run (03)", NOTEBOOK, path=True
    )
    pretrained: str | list[str] | None = _param(
        None,
        "weights to look at instead of a trained run: a name of `python -m bpilib.pretrained list`, a folder, or a "
        "Hub id (03, 04; 05: of all streams)",
        NOTEBOOK,
    )
    clip_file: str | None = _param(
        None, "raw clip to classify; None: the first test clip (03, 08)", NOTEBOOK, path=True
    )
    film: str | None = _param(
        None, "film or recorded landmarks to classify and play; None: test clips (10)", NOTEBOOK, path=True
    )
    window_seconds: float = _param(
        3.0, "windows that a long recording is cut into (10)", NOTEBOOK, "seconds", at_least=1
    )
    people: int = _param(1, "persons taken from a film, 1 or 2 (10)", PLACE, "persons", at_least=1)
    mirrored: bool = _param(False, "films show the world as a mirror does, as many selfies do (10)", PLACE)
    pose_model: str | None = _param(
        None, "model of MediaPipe; None: data/models/pose_landmarker_full.task (10)", PLACE, path=True
    )
    export: str | None = _param(
        None, "classifier files to write (03)", NOTEBOOK, choices=("onnx", "pt2", "published", "all")
    )
    figure_style: str = _param(
        "screen",
        "of figures; paper: column width, no questions as titles, fit for grey print (00, 01, 03 to 09)",
        NOTEBOOK,
        choices=("screen", "paper"),
    )
    clips: int = _param(12, "clips shown one by one (04, 09)", NOTEBOOK, "clips", at_least=1)
    query: str | None = _param(None, "description to find clips by; None: a synonym of a class (09)", NOTEBOOK)
    modalities: list[str] | None = _param(None, "streams to ensemble; None: all that have been run (05)", NOTEBOOK)
    weights: str = _param(
        "published",
        "ensemble weights: the published ones, searched on held-out scores, or equal (05, 06)",
        NOTEBOOK,
        choices=("published", "searched", "equal"),
    )
    runs: list[str] | None = _param(
        None, "runs to compare in pairs, the first two in detail; None: one of each setting (07)", NOTEBOOK
    )
    sweep: str = _param("params/sweep.yaml", "table of runs (06)", NOTEBOOK)
    cluster: str = _param("local", "local, slurm, or a running Dask scheduler's address (06)", NOTEBOOK)
    workers: int | None = _param(
        None, "runs at once; None: one per GPU, or as the cores give (06)", NOTEBOOK, at_least=1
    )
    cores: int = _param(4, "cores of a run where there is no GPU, or of a SLURM job (06)", NOTEBOOK, at_least=1)

    @property
    def run_directory(self) -> Path:
        """outputs/<dataset>_<benchmark>/<model>_<modality>_seed<seed>[_<tag>]"""
        name = f"{self.model}_{self.modality}_seed{self.seed}" + (f"_{self.tag}" if self.tag else "")
        return Path(self.outputs) / f"{self.dataset}_{self.benchmark}" / name

    def result_settings(self) -> dict[str, Any]:
        """What the numbers of a run depend on, as plain values; two runs whose values are equal are the same run.

        Passwords within URLs are masked, here and in `settings`, so that what is saved compares with what is given.
        """
        used = [f for f in _FIELDS.values() if f.metadata["changes"] == RESULT and self.model in f.metadata["models"]]
        batch_norm = {"devices x nodes": 1 if self.sync_batchnorm else self.devices * self.nodes}
        return {f.name: mask_url_secrets(getattr(self, f.name)) for f in used} | batch_norm

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
        """All parameters, as plain values for YAML.

        What looks like a secret is masked. Of parameters that are compared when the run is found again, only what is
        secret in a URL: the path of a weight file stays as it is, since it is read again.
        """
        masks = {
            name: mask_url_secrets if f.metadata["changes"] == RESULT else mask_secrets for name, f in _FIELDS.items()
        }
        return {name: masks[name](getattr(self, name)) for name in _FIELDS}

    def changed(self, **changes: Any) -> "Config":
        """A copy with other settings, checked like those of `resolve`; what they imply is not looked up anew."""
        config = dataclasses.replace(self, **{name: _checked(name, value) for name, value in changes.items()})
        _check_names(vars(config))
        return config

    def __repr__(self) -> str:
        """As a dataclass has it, secrets masked: notebooks keep what a cell ends with."""
        return f"Config({', '.join(f'{name}={mask_secrets(getattr(self, name))!r}' for name in _FIELDS)})"

    def _repr_html_(self) -> str:
        """In a notebook: what names the run and what differs from its recipe as a table, all parameters folded."""
        named = {name: getattr(self, name) for name in (*RUN_KEYS, "data", "raw")}
        recipe_alone = resolve(**named)
        own = [name for name in _FIELDS if name in RUN_KEYS or getattr(self, name) != getattr(recipe_alone, name)]
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
            for f in _FIELDS.values()
            if f.metadata["changes"] in groups
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "unit", "meaning"]).set_index("parameter")


_FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def same_setting(saved: Any, now: Any) -> bool:
    """Whether a value of a config.yaml or checkpoint, which may have been masked, is the one that is given now."""
    return saved == now or saved in (mask_url_secrets(now), mask_secrets(now))


def _checked(name: str, value: Any) -> Any:
    """`value` as parameter `name` holds it, or ValueError."""
    if name not in _FIELDS:
        raise ValueError(f"unknown parameter {name!r}{did_you_mean(name, _FIELDS)} (known: {', '.join(_FIELDS)})")
    field = _FIELDS[name]
    if name == "compile" and isinstance(value, bool):  # as files have it that were written when it was yes or no
        value = "default" if value else "none"
    kinds = list(typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,))
    if field.metadata["optional"]:
        kinds.append(types.NoneType)
    plain = [typing.get_origin(kind) or kind for kind in kinds]
    if isinstance(value, Path) and str in plain:
        value = str(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in plain:
        value = float(value)
    fits = type(value) in plain
    if fits and isinstance(value, list):
        item = typing.get_args(next(kind for kind in kinds if typing.get_origin(kind) is list))[0]
        fits = all(type(entry) is item for entry in value)
    if not fits:
        wanted = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in plain)
        raise ValueError(
            f"parameter {name}: expected {wanted}, got {type(value).__name__} {value!r}{_papermill_hint(plain, value)}"
        )
    choices = field.metadata["choices"]
    if choices and value is not None and value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"parameter {name}: unknown {value!r}{did_you_mean(value, choices)} (expected one of {known})")
    return value


def _papermill_hint(wanted: list[type], value: Any) -> str:
    """How papermill's command line passes a value of the wanted types, if it may have passed this one as another."""
    if isinstance(value, str) and float in wanted:
        return ": in YAML write 1.0e-4, since 1e-4 arrives as text"
    if isinstance(value, str) and list in wanted:
        return ": papermill's -p passes a list as text; pass it with -y, such as -y 'steps: [90, 100]'"
    if isinstance(value, int | float) and str in wanted:
        return ": papermill's -p passes what looks like a number as a number; pass text with -r, such as -r tag 2"
    return ""


def resolve(**given: Any) -> Config:
    """A full configuration from any subset of parameters; the rest as published, or the default.

    Args:
        given: parameters by name; None means "as published". Relative paths lie in the project folder.

    Raises:
        ValueError: unknown name (the nearest known one is named), wrong type, unknown choice, impossible value.
    """
    given = {name: _checked(name, value) for name, value in given.items()}
    values: dict[str, Any] = {name: f.default for name, f in _FIELDS.items()} | given
    dataset = values["dataset"]
    values["data"] = values["data"] or f"data/prepared/{dataset}"
    values["raw"] = values["raw"] or RAW.get(dataset, f"data/{dataset}")
    for name, field in _FIELDS.items():
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
            values[name] = _checked(name, value)
    if values["test_batch_size"] is None:
        values["test_batch_size"] = values["batch_size"]
    if values["text"] is None:
        values["text"] = "clip" if pick_device(values["device"]).type == "cuda" else "minilm"
    values["unseen"] = sorted({*(values["unseen"] or [])}) or None
    _check_values(values)
    return Config(**values)


def _absolute(place: str | list[str]) -> str | list[str]:
    """A path, or each of a list, absolute: what is relative lies in the project folder."""
    return [str(in_project(entry)) for entry in place] if isinstance(place, list) else str(in_project(place))


def _check_values(values: dict[str, Any]) -> None:
    """Numbers within their limits, names fit for paths."""
    for name, field in _FIELDS.items():
        value, facts = values[name], field.metadata
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_limits(name, value, facts["at_least"], facts["above"], facts["below"])
    _check_names(values)
    if values["model"] == "ctrgcn" and values["k"] is not None:
        raise ValueError("parameter k: ctrgcn has no bone operator; leave k at None")
    if values["kernel"] == "triton" and (values["compile"] != "none" or pick_device(values["device"]).type != "cuda"):
        raise ValueError(
            "parameter kernel: triton runs on NVIDIA GPUs, and not together with the parameter compile; "
            f"device is {pick_device(values['device'])}, compile {values['compile']}: leave kernel at plain"
        )
    if values["test_yaw"] is not None and not values["test_yaw"]:
        raise ValueError("parameter test_yaw: expected at least one angle, or None for clips as they are")
    if values["heldout_view"] is not None and values["heldout_by"] != "view":
        raise ValueError(f"parameter heldout_view: set heldout_by to view, it is {values['heldout_by']}")
    if values["select"] == "heldout":
        values["heldout_by"] = values["heldout_by"] or "subject"


def _check_names(values: dict[str, Any]) -> None:
    """ValueError where what becomes part of a path has other than plain characters."""
    for name, field in _FIELDS.items():
        fits, value = field.metadata["fits"], values[name]
        if fits is not None and value is not None and not fits.fullmatch(value):
            raise ValueError(f"parameter {name}: expected letters, digits, '.', '_' or '-', got {value!r}")


def _check_limits(name: str, value: float, at_least: float, above: float, below: float) -> None:
    """ValueError where a number is outside its limits, infinite, or not a number."""
    if math.isfinite(value) and at_least <= value < below and value > above:
        return
    limits = [f"at least {at_least:g}"] if math.isfinite(at_least) else []
    limits += [f"more than {above:g}"] if math.isfinite(above) else []
    limits += [f"less than {below:g}" if below < 1 << 20 else f"less than {below:,}"] if math.isfinite(below) else []
    raise ValueError(f"parameter {name}: expected {' and '.join(limits) or 'a finite number'}, got {value}")


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
