"""How even attention is after training, and how even it was before."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bpilib.analysis.attention import compute_entropy
from bpilib.analysis.outputs import Maps, collect_outputs
from bpilib.config import Config
from bpilib.runs import Run, build, open_run
from bpilib.system import checkpoint
from bpilib.system.files import parse_yaml

BATCHES = 8  # of training clips, for the statistics of an untrained network's BatchNorm
BATCH = 64  # clips
COLUMNS = ("run", "part", "head", "trained", "untrained")


@torch.no_grad()
def build_untrained(run: Run) -> Run:
    """The run with random weights, drawn with its seed; BatchNorm's statistics are those of training clips.

    Without these the features of an untrained network would have another scale than those that it is trained with. So
    was the run before its first step, unless it started from the weights of another (`start_from`).

    Args:
        run: a run of any model; it stays as it is.
    """
    with torch.random.fork_rng():
        torch.manual_seed(run.config.seed)
        fresh = build(run.config, run.store, pretrained=False)
    norms = [m for m in fresh.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    feeder = fresh.feeder("train", train=True)
    fresh.model.train()
    for number in range(BATCHES):
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # the mean over all batches
        fresh.model(feeder.batch((np.arange(BATCH) + number * BATCH) % len(feeder))[0])
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return fresh


def shares_of_most(maps: Maps) -> dict[str, np.ndarray]:
    """Part → (n, heads): entropy of attention (n, heads, Vq, Vk), in % of its largest value, log2(Vk) bits."""
    return {part: 100 * compute_entropy(weights) / np.log2(weights.shape[-1]) for part, weights in maps.items()}


def measure_evenness(
    configs: Iterable[Config], subset: str = "test", collected: Mapping[str, Maps] | None = None
) -> pd.DataFrame:
    """Entropy of attention, trained against untrained, of runs of bpi with learned attention.

    Args:
        configs: of finished runs; those without learned attention are left out.
        subset: the clips that it is measured on.
        collected: name of a run's directory → its trained attention on these clips, where that is there already.

    Returns:
        A row a run, part and head (from 1): run (its folder's name), part, head, trained and untrained, the means over
        clips in % of the largest entropy: 100 is an even share for every joint.
    """
    rows = []
    for config in configs:
        run = open_run(config)
        if run.config.model != "bpi" or run.config.attention != "learned":
            continue
        trained_maps = (collected or {}).get(config.run_directory.name)
        if trained_maps is None:
            trained_maps = collect_outputs(run, subset).maps
        shares = [shares_of_most(maps) for maps in (trained_maps, collect_outputs(build_untrained(run), subset).maps)]
        for part in shares[0]:
            trained, untrained = (share[part].mean(0) for share in shares)
            for head, values in enumerate(zip(trained, untrained), 1):
                rows.append((config.run_directory.name, part, head, *map(float, values)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_attending_runs(folders: Iterable[Path]) -> list[Config]:
    """The configurations of those run directories that hold a run of bpi, whose weights and clips are still there."""
    found = []
    for folder in folders:
        if not checkpoint.exists(folder / "best.pt"):  # an ensemble, or scores alone
            continue
        saved = parse_yaml((folder / "config.yaml").read_bytes())
        config = Config.saved(saved | {"outputs": str(folder.parent.parent)})
        if config.model == "bpi" and (Path(config.data) / "manifest.json").exists():
            found.append(config)
    return found
