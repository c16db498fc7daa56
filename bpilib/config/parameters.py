"""Every parameter once: name, type, unit, default, meaning, and what it may be."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from bpilib.model import MODELS
from bpilib.recipes import BENCHMARKS, PLAIN_NAME
from bpilib.skeleton import MODALITIES

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
    """A field of `Parameters` with what is known of the parameter.

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
class Parameters:
    """The values of all parameters; the fields' metadata are the table of docs/parameters.md."""

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
        "raw files: folder or zip; or prepared clips: .npz, .pkl, a folder with clips.csv (01, 08, 10)",
        PLACE,
        optional=True,
        path=True,
    )
    download: bool = _param(False, "fetch what is missing from its publisher: NW-UCLA (01), the pose model (10)", PLACE)
    on_error: str = _param("skip", "a bad raw file is left out, or raises (01)", PLACE, "", ("skip", "raise"))
    overwrite: bool = _param(False, "prepare again and replace the store at data (01, 08, 10)", PLACE)
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
        "auto", "of training; auto: bf16 where it is the fastest", MACHINE, "", ("auto", "fp32", "tf32", "bf16", "fp16")
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
        "of figures; paper: column width, no questions as titles, fit for grey print",
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


FIELDS = {f.name: f for f in dataclasses.fields(Parameters)}


def parameter_table() -> str:
    """The parameter table of docs/parameters.md, Markdown."""
    lines = ["| parameter | default | unit | meaning |", "| --- | --- | --- | --- |"]
    for f in FIELDS.values():
        choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
        lines.append(f"| `{f.name}` | `{f.default!r}` | {f.metadata['unit']} | {f.metadata['meaning']}{choices} |")
    return "\n".join(lines) + "\n"
