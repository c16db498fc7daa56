"""The first weights of a new run, from a trained run or from a weight file of the published code."""

from pathlib import Path
from typing import Any

from torch import Tensor

from bpilib.errors import MissingInputError
from bpilib.pretrained.loading import read as read_pretrained
from bpilib.pretrained.places import is_pretrained
from bpilib.recipes import BENCHMARKS
from bpilib.reference import (
    is_same_shape,
    load_reference_weights,
    look_at,
    read_weights,
    reference_state_dict,
    unwrap_tensors,
)
from bpilib.runs import Run, kept_weights
from bpilib.system import checkpoint
from bpilib.system.files import in_project
from bpilib.training.trained_on import check_start, find_trainings, unknown_training

PUBLISHED = {(60, 25): "ntu60", (120, 25): "ntu120", (10, 20): "ucla"}  # classes and joints of published weights
MAX_LISTED = 20  # tensors that did not fit, in a report


def start_from(run: Run, place: str | Path) -> str:
    """Give a new run the weights of a trained one, so far as their names and shapes fit, to be trained on.

    What these were trained on is then in the run's `trained_on`.

    The classifier is taken only if the classes are the same: from a run on a data set of the same name, or from a
    published file with as many classes for a run on a published data set.

    Args:
        run: from `build`; changed in place.
        place: run directory (its best.pt, or last.pt until there is one), checkpoint, pretrained network (shipped, a
            folder, or on the Hub; see `from_pretrained`), or a weight file of the published CTR-GCN, GAP or BPI code;
            what is relative lies in the project folder.

    Returns:
        What was taken and what was not, for people to read.

    Warns:
        It is not known whether they were trained on clips that this run is tested on.

    Raises:
        MissingInputError: nothing there.
        ValueError: damaged; another kind of file; less than half fits; a run that has seen what this one must not see,
            as test clips, held-out clips or unseen classes, or that started from one that has.
    """
    if is_pretrained(place):
        found = read_pretrained(place)
        settings = found.config["training"] | found.config
        its = {"data": found.config["data"]["sha256"], "started_from": found.config.get("started_from")}
        return _start_from_checkpoint(run, found.name, its | {"config": settings, "model": found.state, "text": {}})
    path = in_project(place)
    if not path.is_file() and path.suffix != ".pt":
        path = checkpoint.find_weights(path)
    if not checkpoint.exists(path):
        raise MissingInputError(f"parameter start_from: no checkpoint at {path}: name the directory of a trained run")
    try:
        published = unwrap_tensors(read_weights(path))
    except (OSError, ValueError, RuntimeError):  # `checkpoint.load` says what it is, or finds the one before it
        published = {}
    if published:
        return _start_from_published(run, path, published)
    return _start_from_checkpoint(run, str(path), checkpoint.load(path))


def _start_from_checkpoint(run: Run, path: str, content: dict[str, Any]) -> str:
    its = content["config"]
    same = its["dataset"] == run.config.dataset
    if same and (known := {*(run.config.unseen or [])} - {*(its.get("unseen") or [])}):
        raise ValueError(
            f"{path} was trained on {', '.join(sorted(known))}, which the parameter unseen keeps from this run: start "
            "from a run with the same unseen classes, or from none"
        )
    runs = find_trainings(run, path, content)
    status = check_start(run, path, runs)
    skip = "" if same else "classifier"
    weights = kept_weights(content)
    taken, left = checkpoint.take_fitting(run.model, weights, skip)
    if run.text is not None and run.text.trained:
        more, beside = checkpoint.take_fitting(run.text, content["text"])
        taken, left = taken + more, left + beside
    source = f"{its['model']} {its['modality']} on {its['dataset']}, width {its['width']}"
    _check_share(run, f"{path} ({source})", taken, left)
    run.trained_on.update(runs=runs, start_from_clips=status)
    joints = {tensor.shape[-1] for name, tensor in weights.items() if name.endswith("adjacency")}
    return _report(run, f"{path} ({source})", taken, left, joints)


def _start_from_published(run: Run, path: Path, state: dict[str, Tensor]) -> str:
    if run.config.unseen:
        raise ValueError(
            f"{path} does not say which classes it was trained on, and the parameter unseen keeps "
            f"{', '.join(run.config.unseen)} from this run: start from a run of this workbench, or from none"
        )
    mine = reference_state_dict(run.model)
    fitting, left = {}, []
    for name, tensor in mine.items():
        there = state.get(name)
        if there is None or not is_same_shape(there, tensor):
            left.append(f"{name} {tuple(tensor.shape)} here, {'none' if there is None else tuple(there.shape)} there")
        elif name.startswith("fc.") and run.config.dataset not in BENCHMARKS:
            left.append(f"{name}, of other classes")
        else:
            fitting[name] = there
    seen = look_at(state)
    source = f"{path} (published weights of {seen})"
    _check_share(run, source, len(fitting), left)
    shape = (seen.classes or 0, seen.joints or 0)
    as_here = shape == (len(run.store.classes), run.store.skeleton.num_joints)
    dataset = PUBLISHED.get(shape, run.config.dataset if as_here else "")
    runs = [unknown_training(str(path), dataset)]
    run.trained_on.update(runs=runs, start_from_clips=check_start(run, str(path), runs))
    load_reference_weights(run.model, mine | fitting)
    joints = {tensor.shape[-1] for name, tensor in state.items() if name.endswith("gcn1.PA")}
    return _report(run, source, len(fitting), left, joints)


def _check_share(run: Run, source: str, taken: int, left: list[str]) -> None:
    """ValueError if less than half of the tensors fit."""
    if 2 * taken < taken + len(left):
        raise ValueError(
            f"{source}: only {taken} of {taken + len(left)} tensors fit a {run.config.model} of width "
            f"{run.config.width}: choose a run of the same model and width, or set width as there"
        )


def _report(run: Run, source: str, taken: int, left: list[str], joints: set[int]) -> str:
    heading = f"started from {source}: {taken} of {taken + len(left)} tensors taken"
    here = run.store.skeleton.num_joints
    if joints and here not in joints:
        heading += f"; it has {joints.pop()} joints, this run {here}: what belongs to single joints starts anew"
    more = [f"and {len(left) - MAX_LISTED} more"] if len(left) > MAX_LISTED else []
    return "\n  ".join([heading, *(f"not taken: {line}" for line in left[:MAX_LISTED]), *more])
