"""From a trained run to the files of a pretrained network."""

import copy
import dataclasses
import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from bpilib.classify import describe
from bpilib.config import Config
from bpilib.evaluate import Scores, mark_copies, score
from bpilib.model import CTRGCNClassifier, GAPClassifier
from bpilib.pretrained.card import write_card
from bpilib.pretrained.figures import state_figures
from bpilib.pretrained.importing import OF_NETWORK
from bpilib.pretrained.loading import FORMAT, check_store, read_config
from bpilib.pretrained.places import CARD, CONFIG, TENSORS
from bpilib.rounding import sample_clips
from bpilib.runs import Run, open_run
from bpilib.system.files import is_leftover, remove_leftovers, write_together

_ELSEWHERE = {*OF_NETWORK, "embed_dim", "tag", "start_from", "devices x nodes"}  # not part of config.json's training


def save_pretrained(trained: Run | Config, folder: str | Path, half: bool = True, license: str | None = None) -> Path:
    """Write a trained network to a folder: model.safetensors, config.json and a card, README.md.

    The figures in config.json are of the weights as they are written: the test clips are classified with these. The
    same run gives the same bytes on the same machine. Text towers and texts are left out. A network that was there
    stays until all of the new one is written; what a killed call has left is removed.

    Args:
        trained: a run, or the configuration of one, whose selected epoch is taken then.
        folder: absent, empty, or of a network that was saved before and is replaced.
        half: weights in half precision; BatchNorm's running statistics stay float32. False: all float32.
        license: of the weights, as the Hub names it ("apache-2.0"); None: the card says that none is stated.

    Returns:
        The folder.

    Raises:
        MissingInputError: no such run, no prepared data.
        ValueError: the folder holds other things; weights too large for half precision; damaged data.
    """
    folder = Path(folder)
    _check_place(folder)
    remove_leftovers(folder)
    run = open_run(trained) if isinstance(trained, Config) else trained
    run.store.verify()
    state = _convert_tensors(run.model, half)
    model = copy.deepcopy(run.model)
    model.load_state_dict(state)
    saved = dataclasses.replace(run, model=model)
    scores = mark_copies(score(saved), run.store, run.config.benchmark)
    content = safetensors_bytes(state, {"format": "pt"})
    config = _describe_network(saved, scores, sample_clips(saved).noise, half)
    config["weights"] = {"file": TENSORS, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    card, said = write_card(config, run.config, license), json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    write_together({folder / TENSORS: content, folder / CARD: card, folder / CONFIG: said})
    check_store(read_config(folder / CONFIG), run.store)
    return folder


def _check_place(folder: Path) -> None:
    """Raise ValueError if a folder holds other things than a pretrained network and what a killed call has left."""
    files = (CONFIG, TENSORS, CARD)
    there = {path.name for path in folder.iterdir() if not is_leftover(path, files)} if folder.is_dir() else set()
    others = there.difference(files)
    if others or there == {CARD} or folder.is_file():
        listed = f" ({', '.join(sorted(others)[:4])})" if others else ""
        raise ValueError(f"{folder} holds other things than a pretrained network{listed}: choose a folder of its own")


def _convert_tensors(model: CTRGCNClassifier, half: bool) -> dict[str, Tensor]:
    """Convert the network's tensors to what is stored: what is learned in half precision, if so asked."""
    learned = {name for name, _ in model.named_parameters()}
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        state[name] = (tensor.half() if half and name in learned else tensor).clone().contiguous()
        if not torch.isfinite(state[name]).all():
            what = "not finite" if not torch.isfinite(tensor).all() else "too large for half precision: use half=False"
            raise ValueError(f"weights that are {what} ({name})")
    return state


def _describe_network(run: Run, scores: Scores, noise: float, half: bool) -> dict[str, Any]:
    """Collect what config.json says, but for the weights' checksum."""
    about, model = describe(run), run.model
    classes, name = about.pop("classes"), about.pop("model")
    settings = {key: value for key, value in run.config.result_settings().items() if key not in _ELSEWHERE}
    if "clip_pretrained" in settings:
        settings["clip_pretrained"] = PurePath(settings["clip_pretrained"]).name  # not where it lies
    return {
        "architectures": [type(model).__name__],
        "model_type": name,
        "dtype": "float16" if half else "float32",
        "format": FORMAT,
        **about,
        "id2label": {str(number): label for number, label in enumerate(classes)},
        "label2id": {label: number for number, label in enumerate(classes)},
        "width": run.config.width,
        "k": model.k,
        "embed_dim": model.global_head.out_features if isinstance(model, GAPClassifier) else None,
        "attention": run.config.attention,
        "true_bones": run.config.true_bones,
        "training": settings,
        "started_from": None if run.config.start_from is None else PurePath(run.config.start_from).name,
        "text_digest": run.text_digest,
        "data": {"clips": len(run.store), "train": len(run.indices("train")), "sha256": run.store.manifest["sha256"]},
        "expected": state_figures(scores, noise),
        "torch_version": torch.__version__,
    }
