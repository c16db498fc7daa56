"""The card of a pretrained network: what it was trained on and how, what it recognises, and what not to expect."""

from typing import Any

from bpilib.config import Config, resolve, same_setting

TITLES = {"bpi": "BPI", "gap": "GAP", "ctrgcn": "CTR-GCN"}
DATASETS = {"ucla": "NW-UCLA", "ntu60": "NTU RGB+D 60", "ntu120": "NTU RGB+D 120", "synthetic": "synthetic acted clips"}
SELECTED = {
    "last": "of the last epoch, whatever it gives",
    "heldout": "of the epoch that was best on held-out training clips",
    "test": "of the epoch that was best **on the test clips**, as published: too good for new clips",
}


def write_card(config: dict[str, Any], run: Config, license: str | None) -> str:
    """Write README.md of a network, as text.

    Args:
        config: as of config.json.
        run: the configuration it was trained with.
        license: of the weights; None: not stated.
    """
    title = f"{TITLES[config['model_type']]} on {DATASETS.get(config['dataset'], config['dataset'])}"
    parts = [
        _write_front_matter(config, license),
        f"# {title}, {config['modality'].replace('_', ' ')} stream",
        "A network for skeleton-based action recognition, trained and saved with the BPI workbench. A clip of body "
        f"joints goes in, scores of {len(config['id2label'])} classes come out.",
        _explain_loading(config),
        "## Data\n\n" + _describe_data(config),
        "## Recipe\n\n" + _describe_recipe(run),
        "## Figures\n\n" + _list_figures(config),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _list_limits(config, run)),
        "## License\n\n" + (
            f"The weights: {license}. " if license else "None is stated for the weights: ask who made them. "
        ) + "The clips have terms of their own, of those who recorded them.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _write_front_matter(config: dict[str, Any], license: str | None) -> str:
    """Write what the Hub reads of a card."""
    tags = ["skeleton-based-action-recognition", config["model_type"], config["dataset"]]
    lines = ["---", *([f"license: {license}"] if license else []), "library_name: bpilib", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in tags), "---"])


def _explain_loading(config: dict[str, Any]) -> str:
    persons, joints = config["persons"], len(config["joints"])
    return f"""## Load it

```python
from bpilib.classify import classify
from bpilib.reference import from_pretrained

network = from_pretrained("path/to/this/folder")  # or its name, or owner/name on the Hub
x = network.prepare(poses)                        # poses (L, {persons}, {joints}, 3): L frames of joints in metres
logits = network(x).logits                        # (1, {len(config["id2label"])})
classify(network, poses)                          # probabilities by class name
```

In the notebooks it is the parameter `pretrained`. Without the workbench: `config.json` has the classes (`id2label`),
the joints and, in words, how a clip is prepared."""


def _describe_data(config: dict[str, Any]) -> str:
    data, tracker = config["data"], config["tracker"]
    sums = "\n".join(f"- `{name}` {digest}" for name, digest in sorted(data["sha256"].items()))
    source = f" found by {tracker}" if tracker else ""
    return (
        f"{data['train']:,} training clips of {data['clips']:,} of `{config['dataset']}`, benchmark "
        f"`{config['benchmark']}`; {len(config['joints'])} joints{source}, up to {config['persons']} person(s). "
        f"Classes: {', '.join(config['id2label'].values())}.\n\nSHA-256 of the prepared store:\n\n{sums}"
    )


def _describe_recipe(run: Config) -> str:
    """Describe how it was trained, as far as that differs from what is published."""
    names = ("dataset", "benchmark", "model", "modality", "data", "prompts", "outputs")
    same = {name: getattr(run, name) for name in names}
    published = resolve(**same, text="clip", device="cpu").result_settings()
    own = {**dict.fromkeys(("tag", "seed", "start_from", "clip_pretrained", "devices x nodes"))}
    differ = [
        f"- `{name}`: {value!r} (published: {published[name]!r})"
        for name, value in run.result_settings().items()
        if name not in own and not same_setting(value, published[name])
    ]
    said = ", but for\n\n" + "\n".join(differ) if differ else "."
    passes = f"Seed {run.seed}; {run.epochs * run.repeats} passes over the training clips in {run.epochs} epochs"
    started = ", from the weights of another network" if run.start_from else ""
    return f"{passes}{started}. As the published recipe (`params/recipes.yaml`){said}"


def _list_figures(config: dict[str, Any]) -> str:
    stated = config["expected"]
    rows = [("all test clips", stated)]
    if "without_copies" in stated:
        rows.append(("test clips that are no copies of training clips", stated["without_copies"]))
    lines = ["| on | top-1 % (95 % interval) | right | float noise could change |", "| --- | --- | --- | --- |"]
    for name, row in rows:
        low, high = row["interval_95"]
        right = f"{row['right']} of {row['clips']}"
        lines.append(f"| {name} | {row['top1']:.2f} ({low:.1f}–{high:.1f}) | {right} | {row['undecided']} |")
    precision = "half precision" if config["dtype"] == "float16" else "float32"
    return (
        "\n".join(lines) + f"\n\nOf the weights as they are in this folder ({precision}), computed in float32 on the "
        "test clips. Notebook 03 with `pretrained` prints them beside what it finds."
    )


def _list_limits(config: dict[str, Any], run: Config) -> list[str]:
    lines = [
        f"One training, seed {run.seed}: another seed differs by about as much as the interval is wide.",
        f"The weights are {SELECTED[run.select]}.",
        f"Every clip is given one of the {len(config['id2label'])} classes, also one that shows none of them.",
        "Other trackers, cameras, frame rates and people may give much less than the figures.",
    ]
    if "without_copies" in config["expected"]:
        copies = config["expected"]["clips"] - config["expected"]["without_copies"]["clips"]
        lines.insert(0, f"{copies} test clips are copies of training clips: the second figure is the honest one.")
    if config["embed_dim"] is not None:
        lines.append("The text encoder is not here: embeddings can be compared with texts only where it is at hand.")
    return lines
