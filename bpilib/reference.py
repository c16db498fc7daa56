"""Loads weights saved by the published CTR-GCN, GAP and BPI code, and saves ours under the published names."""

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpilib.config import Config
from bpilib.errors import MissingInputError
from bpilib.model import BPIClassifier, CTRGCNClassifier, GAPClassifier
from bpilib.ops.topology_refinement import SUBSETS
from bpilib.runs import build, write_or_check_config
from bpilib.system import checkpoint
from bpilib.system.lock import lock_run
from bpilib.system.pickle_keys import check_keys

CLIP_NAME = "ViT-B/32"  # part of the published names of the global head
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
Place = tuple[str, str, Any]  # published name, our name, index into our tensor


def _place_batch_norm(published: str, ours: str, index: Any = slice(None)) -> list[Place]:
    places: list[Place] = [(f"{published}.{leaf}", f"{ours}.{leaf}", index) for leaf in BATCH_NORM]
    return [*places, (f"{published}.num_batches_tracked", f"{ours}.num_batches_tracked", ())]


def _place_linear(published: str, ours: str, index: Any = slice(None)) -> list[Place]:
    return [(f"{published}.{leaf}", f"{ours}.{leaf}", index) for leaf in ("weight", "bias")]


def _place_block(number: int, model: CTRGCNClassifier) -> list[Place]:
    block = model.backbone.blocks[number]
    published, ours = f"l{number + 1}", f"backbone.blocks.{number}"
    gcn, spatial = f"{published}.gcn1", f"{ours}.spatial"
    tcn, temporal = f"{published}.tcn1.branches", f"{ours}.temporal"
    r = block.spatial.rank
    q = block.spatial.channels // 4
    places: list[Place] = [
        (f"{gcn}.PA", f"{spatial}.adjacency", slice(None)),
        (f"{gcn}.alpha", f"{spatial}.alpha", slice(None)),
        *_place_batch_norm(f"{gcn}.bn", f"{spatial}.bn"),
    ]
    for s in range(SUBSETS):
        conv = f"{gcn}.convs.{s}"
        places += _place_linear(f"{conv}.conv1", f"{spatial}.relate", slice(s * r, (s + 1) * r))
        places += _place_linear(f"{conv}.conv2", f"{spatial}.relate", slice((SUBSETS + s) * r, (SUBSETS + s + 1) * r))
        places += _place_linear(f"{conv}.conv3", f"{spatial}.transform", slice(s, None, SUBSETS))
        places += [(f"{conv}.conv4.weight", f"{spatial}.expand_weight", (s, ..., None, None))]  # (C, R, 1, 1)
        places += [(f"{conv}.conv4.bias", f"{spatial}.expand_bias", s)]
    if block.spatial.down is not None:
        places += _place_linear(f"{gcn}.down.0", f"{spatial}.down.0")
        places += _place_batch_norm(f"{gcn}.down.1", f"{spatial}.down.1")
    for b in range(3):
        places += _place_linear(f"{tcn}.{b}.0", f"{temporal}.reduce", slice(b * q, (b + 1) * q))
        places += _place_batch_norm(f"{tcn}.{b}.1", f"{temporal}.reduce_bn", slice(b * q, (b + 1) * q))
    for b in range(2):
        conv = f"{tcn}.{b}.3.conv"
        places.append((f"{conv}.weight", f"{temporal}.convs.{b}.weight", (..., 0, slice(None), None)))  # (q, q, 5, 1)
        places.append((f"{conv}.bias", f"{temporal}.convs.{b}.bias", slice(None)))
    places += _place_linear(f"{tcn}.3.0", f"{temporal}.skip")
    for b, name in enumerate(("0.3.bn", "1.3.bn", "2.4", "3.1")):
        places += _place_batch_norm(f"{tcn}.{name}", f"{temporal}.bn", slice(b * q, (b + 1) * q))
    if block.shortcut is not None:
        places += _place_linear(f"{published}.residual.conv", f"{ours}.shortcut.0")
        places += _place_batch_norm(f"{published}.residual.bn", f"{ours}.shortcut.1")
    return places


def _list_places(model: CTRGCNClassifier) -> list[Place]:
    """List where each tensor of the published state dict is in ours."""
    places = _place_batch_norm("data_bn", "backbone.data_bn") + _place_linear("fc", "classifier")
    for number in range(len(model.backbone.blocks)):
        places += _place_block(number, model)
    if isinstance(model, GAPClassifier):
        places.append(("logit_scale", "stored_scale", None))  # (1, 1+P)
        places += _place_linear(f"linear_head.{CLIP_NAME}", "global_head")
    if isinstance(model, BPIClassifier):
        leaves = {"wq": "query", "wk": "key", "wv": "value", "layer_norm": "norm", "proj": "project"}
        for number, part in enumerate(("torso", "arm", "leg"), 1):
            for theirs, mine in leaves.items():
                places += _place_linear(f"cross_part.CA{number}.{theirs}", f"part_heads.{part}.{mine}")
    elif isinstance(model, GAPClassifier):
        for number, part in enumerate(("head", "hand", "foot", "hip")):
            places += _place_linear(f"part_list.{number}", f"part_heads.{part}")
    return places


def _drop_ones(tensor: Tensor) -> list[int]:
    """The shape without axes of length 1, in which the published layout and ours differ."""
    return [length for length in tensor.shape if length != 1]


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read the state dict in a weight file without running any code in it.

    Raises:
        ValueError: it is damaged, or holds anything but weights.
    """
    try:
        if zipfile.is_zipfile(path):
            checkpoint.check_archive(Path(path))
        else:  # of PyTorch before 1.6: magic number, version, system and content as pickles, then the numbers
            with open(path, "rb") as file:
                for _ in range(4):
                    check_keys(file)
        state = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint.check_size(state, Path(path).stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} does not hold weights only: it is damaged, or holds objects that could run code when read. "
            "Ask its author for a state dict"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"expected a state dict, name to tensor, got {type(state).__name__} in {path}")
    return state


def load_reference_weights(model: CTRGCNClassifier, source: str | Path | dict[str, Tensor]) -> None:
    """Load a published state dict into a model of ours, in place.

    Args:
        model: from `build_model`, with the skeleton, classes and persons the weights were trained with.
        source: a file saved by the published code (read with weights_only=True), or its state dict. Names may have the
            prefix "module.".

    Raises:
        ValueError: names or shapes that do not match, each listed; the model is then unchanged.
    """
    state = source if isinstance(source, dict) else read_weights(source)
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor | np.ndarray)]
    if others:
        listed = ", ".join(others[:8])
        raise ValueError(f"expected a state dict, name to tensor; no tensors: {listed}. Is it in one of these entries?")
    state = {name.removeprefix("module."): torch.as_tensor(tensor) for name, tensor in state.items()}
    places = _list_places(model)
    own = model.state_dict()
    expected = {published for published, _, _ in places}
    problems = [f"missing: {name}" for name in sorted(expected - state.keys())]
    problems += [f"not in this model: {name}" for name in sorted(state.keys() - expected)]
    for published, ours, index in places:
        want, got = own[ours][index], state.get(published)
        if got is not None and _drop_ones(got) != _drop_ones(want):
            problems.append(f"{published}: expected shape {tuple(want.shape)} of {ours}, got {tuple(got.shape)}")
    if problems:
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(
            "these weights do not fit this model:\n  " + "\n  ".join(problems[:12]) + more + "\n"
            "build the model they were trained for (name, skeleton, num_classes, num_persons, modality)"
        )
    with torch.no_grad():
        for published, ours, index in places:
            own[ours][index] = state[published].reshape(own[ours][index].shape).to(own[ours].dtype)


def reference_state_dict(model: CTRGCNClassifier) -> dict[str, Tensor]:
    """Copy the weights of a model from `build_model`, under the published names and in the published shapes."""
    own = model.state_dict()
    return {published: own[ours][index].clone() for published, ours, index in _list_places(model)}


def import_weights(config: Config, file: str | Path) -> Config:
    """Make a run directory from a published weight file, so that notebooks 03, 04 and 05 treat it as a trained run.

    Nothing is trained. The file does not say what it was trained on: dataset, benchmark, model and modality (and k, if
    it is not the published one) have to be right, or accuracy is near chance.

    Args:
        config: of the run; its tag is "published" if it has none.
        file: saved by the published code; see `load_reference_weights`.

    Returns:
        The configuration of that run, for `evaluate` and the like. Its `text` is "none": published files hold no text
        encoder.

    Raises:
        MissingInputError: no prepared data, or no such file.
        ValueError: weights that do not match, each difference listed; the directory holds a run of other weights.
    """
    config = config.changed(tag=config.tag or "published", text="none")
    target = config.run_directory / "best.pt"
    file = Path(file)
    if not file.is_file():
        raise MissingInputError(f"no weight file at {file}: set weights_file to one saved by the published code")
    with lock_run(config.run_directory):
        _import(config, target, file)
    return config


def _import(config: Config, target: Path, file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if checkpoint.exists(target):
        there = checkpoint.load(target).get("imported", {})
        if there.get("sha256") == digest:
            return
        what = f"the weights of {there['file']}" if there else "a trained run"
        raise ValueError(f"{config.run_directory} holds {what}, not of {file}: set the parameter tag to another name")
    run = build(config)
    load_reference_weights(run.model, file)
    write_or_check_config(config)
    imported = {"file": file.name, "sha256": digest}
    checkpoint.save(target, run.content() | {"imported": imported})
