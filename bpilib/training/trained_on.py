"""What a network was trained on, so that a run that starts from its weights is not tested or selected on those clips.

A checkpoint has it as `trained_on`:

    runs              one entry for each training that the weights went through, the last one last: "run" (its name),
                      "dataset", "select", and "clips", the sorted hashes of its training clips (`hash_clips`), or None
                      where these are not known
    start_from_clips  what `check_start` said when the last one began; None if it started from no weights
"""

import dataclasses
import logging
import warnings
from typing import Any

import numpy as np
import torch

from bpilib.data.copies import hash_clips
from bpilib.runs import Run, same_clips
from bpilib.system.distributed import rank_zero_only

Training = dict[str, Any]
NTU = {"ntu60", "ntu120"}  # the second holds the recordings of the first
_log = logging.getLogger(__name__)


@rank_zero_only
def note_training(run: Run) -> None:
    """Add a run to what its weights are trained on, before its first step, or where its checkpoints don't have it."""
    config = run.config
    before, start = run.trained_on.get("runs", []), run.trained_on.get("start_from_clips")
    if config.start_from is not None and not before:  # begun when this was not noted
        before, start = [unknown_training(config.start_from, config.dataset)], "unknown"
    mine = unknown_training("/".join(config.run_directory.parts[-2:]), config.dataset, config.select)
    mine["clips"] = _hash_training_clips(run)
    runs = [one for one in before if not _is_same(one, mine)]
    run.trained_on.update(runs=[*runs, mine], start_from_clips=start)


def unknown_training(name: str, dataset: str, select: str = "last") -> Training:
    """The entry of a training whose clips are not known."""
    return {"run": name, "dataset": dataset, "select": select, "clips": None}


def find_trainings(run: Run, place: str, content: dict[str, Any]) -> list[Training]:
    """The trainings that weights went through; of those that don't say, the clips are looked up in this run's store.

    Args:
        run: that is to start from them.
        place: of the weights.
        content: of their checkpoint, or of a pretrained network: "config", and if it is known "data", the checksums of
            the clips they were trained on, and "started_from".
    """
    if noted := content.get("trained_on"):
        return noted["runs"]
    its, imported = content["config"], content.get("imported", {})
    last = unknown_training(place, its["dataset"], its.get("select", "last"))
    if same_clips(run.store, (imported or content).get("data", {})):
        splits = {name: its.get(name) for name in ("unseen", "heldout_by", "heldout_view")}
        splits |= {name: its.get(name, getattr(run.config, name)) for name in ("benchmark", "heldout")}
        last["clips"] = _hash_training_clips(dataclasses.replace(run, config=run.config.changed(**splits)))
    started = its.get("start_from") or imported.get("started_from") or content.get("started_from")
    return [*([unknown_training(started, its["dataset"])] if started else []), last]


def _hash_training_clips(run: Run) -> torch.Tensor:
    """Sorted int64, without those that nobody is in."""
    hashes = np.unique(hash_clips(run.store, run.indices("train")))
    return torch.from_numpy(hashes[hashes != 0])


def _is_same(one: Training, other: Training) -> bool:
    """Whether two trainings saw the same clips and were selected in the same way."""
    alike = all(one[name] == other[name] for name in ("dataset", "select"))
    return alike and one["clips"] is not None and torch.equal(one["clips"], other["clips"])


def check_start(run: Run, source: str, runs: list[Training]) -> str:
    """Check that a run may start from weights: that they have seen none of the clips that it must not see.

    Copies of clips that it trains on itself are no reason: these are counted as copies (`bpilib.data.copies`).

    Args:
        run: that is to start from them.
        source: what the weights are, for messages.
        runs: the trainings that they went through.

    Returns:
        For `start_from_clips` in summary.json: "known" (compared, and all is well), "other data set" (not known, but
        of another data set by its name), "unknown" (of this data set, and it is not known which), or "test-selected"
        (an epoch was selected on test clips of this data set).

    Warns:
        What is known does not do for an honest accuracy.

    Raises:
        ValueError: they were trained on test clips, held-out clips, or clips of unseen classes.
    """
    store = run.store
    train = store.split(run.config.benchmark, "train")
    unseen = train[run.unseen[store.labels[train]]]
    mine = hash_clips(store, run.indices("train"))
    kept = {"test clips": run.indices("test"), "held-out clips": run.indices("heldout")}
    kept["clips of unseen classes"] = unseen
    hashes = {what: hash_clips(store, clips) for what, clips in kept.items()}
    here = np.concatenate([mine, *hashes.values()])
    for one in runs:
        if one["clips"] is None:
            continue
        its = np.setdiff1d(one["clips"].numpy(), mine)
        counts = {what: int(np.isin(some, its).sum()) for what, some in hashes.items()}
        if any(counts.values()):
            seen = " and ".join(f"{n} of the {len(kept[what])} {what}" for what, n in counts.items() if n)
            raise ValueError(
                f"{source}: {one['run']} was trained on {seen} of this run, whose accuracies would be too good: start "
                "from a run of the same benchmark with the same held-out clips and unseen classes, or from none"
            )
    for one in runs:
        if doubt := _doubt(run, one, here):
            status, what = doubt
            warnings.warn(f"{source}: {what}, so the accuracy of this run does not count as honest", stacklevel=4)
            return status
    for one in runs:
        if one["clips"] is None:
            which = one["dataset"] or "another data set"
            _log.info("%s was trained on clips of %s, which are not compared with these", one["run"], which)
            return "other data set"
    return "known"


def _doubt(run: Run, one: Training, here: np.ndarray) -> tuple[str, str] | None:
    """What speaks against a training of the same recordings, by its data set's name: a word, and a sentence.

    Args:
        run: that is to start from its weights.
        one: the training.
        here: hashes of the run's clips of all parts.
    """
    name, dataset = one["run"], one["dataset"]
    if dataset != run.config.dataset and not {dataset, run.config.dataset} <= NTU:
        return None
    if one["clips"] is None:
        return "unknown", f"it is not known on which clips of {dataset} {name} was trained"
    if not np.isin(here, one["clips"].numpy()).any():
        return "unknown", f"{name} was trained on clips of {dataset} that are not among those of {run.store.path}"
    if one["select"] == "test":
        return "test-selected", f"the epoch of {name} was selected on test clips of {dataset}"
    return None
