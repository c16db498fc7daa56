"""Configuration to Run: data, network and text encoder of a run, and what lies in its directory."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from bpilib.config import Config, resolve
from bpilib.data.store import SkeletonStore
from bpilib.errors import MissingInputError, did_you_mean
from bpilib.feeders import Feeder
from bpilib.model import CTRGCNClassifier, build_model
from bpilib.system import checkpoint
from bpilib.system.device import keep_malloc_memory, use_device
from bpilib.system.files import in_project, parse_yaml, write_atomically
from bpilib.text import build_text
from bpilib.text.encoder import TextEncoder
from bpilib.text.prompts import load_prompts


def selected_epoch(config: Config) -> int | None:
    """The epoch that a finished run's figures are of; None where that is not known."""
    try:
        return json.loads((config.run_directory / "summary.json").read_text())["selected_epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def missing_run(config: Config) -> MissingInputError:
    """That there is no run, and which there are."""
    found = sorted(str(p.parent.relative_to(config.outputs)) for p in Path(config.outputs).glob("*/*/best.pt"))
    return MissingInputError(
        f"no trained run in {config.run_directory}: run notebooks/02_train.ipynb with the same parameters first. "
        f"Runs there are: {', '.join(found) or 'none'}"
    )


def saved_config(config: Config) -> Config:
    """The configuration a run was started with, places and machine as given now.

    Raises:
        MissingInputError: no such run; those there are, are listed.
    """
    path = config.run_directory / "config.yaml"
    if not path.exists():
        raise missing_run(config)
    saved, given = _settings(path), vars(config)
    return resolve(**(given | {name: saved[name] for name in config.result_settings() if name in saved}))


def _settings(path: Path) -> dict[str, Any]:
    """What a config.yaml holds."""
    try:
        saved = parse_yaml(path.read_bytes())
        if not {"dataset", "model", "seed"} <= saved.keys():
            raise ValueError("settings are missing")
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        again = "remove it and run notebooks/02_train.ipynb with the run's parameters again: its checkpoints are kept"
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): {again}") from error
    return saved


def write_or_check_config(config: Config) -> None:
    """Write config.yaml into the run directory, or check that the run there asks for the same results.

    A directory with a config.yaml alone (a start that failed) holds no run.

    Raises:
        ValueError: another configuration is there; the differences are listed.
    """
    path = config.run_directory / "config.yaml"
    if path.exists():
        there, now = Config.saved(_settings(path)).result_settings(), config.result_settings()
        differ = [f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in now if there.get(key) != now[key]]
        if not differ:
            return
        made = ("last.pt", "last.previous.pt", "best.pt", "scores.npz", "summary.json")
        if any((config.run_directory / name).exists() for name in made):
            raise ValueError(
                f"{config.run_directory} holds a run with other settings ({'; '.join(differ)}). Nothing was changed: "
                "set the parameter tag (say tag='b') or outputs to start another run beside it, or use its settings"
            )
    write_atomically(path, yaml.safe_dump(config.settings(), sort_keys=False))


def history(config: Config) -> pd.DataFrame:
    """metrics.csv of a run: one row an epoch."""
    return pd.read_csv(config.run_directory / "metrics.csv")


@dataclass
class Run:
    """The parts of a run, on its device.

    Attributes:
        config: resolved parameters.
        store: prepared data.
        model: the network.
        text: the text encoder, or None (ctrgcn).
        text_digest: hash of the prompts.
        device: where model and text live.
        epoch: epochs the weights were trained for.
    """

    config: Config
    store: SkeletonStore
    model: CTRGCNClassifier
    text: TextEncoder | None
    text_digest: str
    device: torch.device
    epoch: int = 0
    _feeders: dict[tuple[str, bool], Feeder] = field(default_factory=dict, repr=False)

    @property
    def unseen(self) -> np.ndarray:
        """(K,) bool, the classes that training must not see; ValueError: a name of no class, or no class left."""
        classes, names = self.store.classes, self.config.unseen or []
        if wrong := [name for name in names if name not in classes]:
            raise ValueError(
                f"parameter unseen: {wrong[0]!r} is no class of {self.config.dataset}{did_you_mean(wrong[0], classes)} "
                f"(its classes: {', '.join(classes)})"
            )
        if len(names) == len(classes):
            raise ValueError(f"parameter unseen: all {len(classes)} classes are unseen; leave some to train on")
        return np.isin(classes, names)

    def indices(self, subset: str) -> np.ndarray:
        """Clips to train on ("train"), select with ("heldout"; empty unless select is heldout), or test on ("test").

        Held-out clips are those of a fixed share of the training subjects, the same for every seed and modality.
        Clips of unseen classes are among the test clips alone.
        """
        if subset not in ("train", "heldout", "test"):
            raise ValueError(f"expected subset to be train, heldout or test, got {subset!r}")
        test = self.store.split(self.config.benchmark, "test")
        train = self.store.split(self.config.benchmark, "train")
        if subset == "test":
            return test
        keep = np.zeros(len(train), bool)
        if self.config.select == "heldout":
            subjects = np.unique(self.store.subjects[train])
            count = max(1, round(self.config.heldout * len(subjects)))
            if count == len(subjects):
                raise ValueError(f"heldout {self.config.heldout} leaves none of {len(subjects)} subjects for training")
            keep = np.isin(self.store.subjects[train], np.random.default_rng(0).permutation(subjects)[:count])
        seen = ~self.unseen[self.store.labels[train]]
        return train[seen & keep] if subset == "heldout" else train[seen & ~keep]

    def feeder(self, subset: str, train: bool = False) -> Feeder:
        """The feeder of "train", "heldout" or "test" clips, of the modality that the network is fed; made once."""
        if (subset, train) in self._feeders:
            return self._feeders[subset, train]
        fed = self.config.modality
        if self.config.model != "ctrgcn":
            fed = fed.replace("bone", "joint")  # the network's operator makes the bones
        repeats = self.config.repeats if train else 1
        self._feeders[subset, train] = Feeder(
            self.store, self.indices(subset), fed, train=train, device=self.device, seed=self.config.seed,
            repeats=repeats,
        )  # fmt: skip
        return self._feeders[subset, train]

    def content(self) -> dict[str, Any]:
        """What every checkpoint holds of the run; `load` takes it."""
        return {
            "config": self.config.settings(),
            "epoch": self.epoch,
            "text_digest": self.text_digest,
            "data": self.store.manifest["sha256"],
            "model": self.model.state_dict(),
            "text": {} if self.text is None else self.text.state_dict(),
        }

    def check(self, content: dict[str, Any], path: Path) -> None:
        """ValueError if a checkpoint's content is of another model or run; each difference is named."""
        mine, its = self.config.result_settings(), content["config"]
        shape = ("dataset", "benchmark", "model", "modality", "width", "k", "text")
        wrong = [name for name in mine if its.get(name, None if name in shape else mine[name]) != mine[name]]
        if wrong:
            wrong.sort(key=lambda name: name not in shape)
            differ = "; ".join(f"{name}: {its.get(name)!r}, expected {mine[name]!r}" for name in wrong)
            what = "model" if wrong[0] in shape else "run"
            raise ValueError(f"{path} is a checkpoint of another {what} ({differ}): choose that run instead")

    def load(self, path: Path, *others: Path, epoch: int | None = None, need: str = "model") -> dict[str, Any]:
        """Take network and trained text encoder from a checkpoint of this run, or one that may stand in for it.

        Args:
            path, others: see `checkpoint.load`.
            epoch: that the weights must be of; None: of any.
            need: what else the checkpoint must hold.

        Returns:
            The checkpoint's content.

        Raises:
            MissingInputError, ValueError: none is there; they are damaged, or of another run, epoch, ...
        """

        def check(content: dict[str, Any], place: Path) -> None:
            self.check(content, place)
            if need not in content:
                raise ValueError(f"{place} is a checkpoint of weights alone")
            if epoch not in (None, content["epoch"]):
                raise ValueError(f"{place} holds epoch {content['epoch']}, expected {epoch}")

        content = checkpoint.load(path, check, *others)
        try:
            self.model.load_state_dict(content["model"])
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not fit this version's network ({str(error).splitlines()[-1].strip()[:200]}): open it "
                "with the version that made it, or set the parameter tag to train anew"
            ) from error
        if self.text is not None:
            self.text.load_state_dict(content["text"])
        self.epoch = content["epoch"]
        return content


def same_clips(store: SkeletonStore, sha256: dict[str, str]) -> bool:
    """Whether checksums, as a manifest has them, are of the store's clips, labels and splits."""
    return all(sha256.get(name) == store.manifest["sha256"][name] for name in ("poses.npy", "index.npz"))


def build(config: Config, pretrained: bool = True) -> Run:
    """Open the data, build network and text encoder on the configured device.

    Args:
        config: resolved parameters.
        pretrained: fetch the weights of a text tower that is trained along; False where a checkpoint's follow.

    Raises:
        MissingInputError: no prepared data, or no prompts.
        ValueError: a store of another data set; prompts that miss a class.
    """
    device = use_device(config.device)
    if device.type == "cpu":
        keep_malloc_memory()
    store = SkeletonStore.open(config.data)
    if store.dataset != config.dataset:
        raise ValueError(
            f"{config.data} holds the data set {store.dataset}, but the parameter dataset is {config.dataset}"
        )
    text, digest, embed_dim = None, "", 512
    if config.model != "ctrgcn" and config.text != "none":
        prompts = load_prompts(config.prompts, store.classes)
        text = build_text(
            config.text,
            config.model,
            prompts,
            minilm_path=Path(config.prompts).with_suffix(".minilm.npz"),
            clip_model=config.clip_model,
            clip_pretrained=config.clip_pretrained,
            trained=config.clip_trained,
            fetch=pretrained or not config.clip_trained,
        ).to(device)
        digest, embed_dim = prompts.digest(), text.dim
    model = build_model(
        config.model, store.skeleton, len(store.classes), config.modality, store.persons, embed_dim, config.k,
        config.width,
    ).to(device)  # fmt: skip
    return Run(config, store, model, text, digest, device)


def open_run(config: Config, which: str = "best") -> Run:
    """A trained run, by the parameters that name its directory; the others are taken from the run.

    Args:
        config: dataset, benchmark, model, modality, seed, tag and outputs choose the run.
        which: "best" (the selected epoch) or "last".

    Raises:
        MissingInputError: no such run; those there are, are listed.
        ValueError: which is neither; a damaged checkpoint or one of another model.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which: expected 'best' or 'last', got {which!r}")
    path = config.run_directory / f"{which}.pt"
    saved = saved_config(config)
    if not checkpoint.exists(path):
        raise missing_run(config)
    run = build(saved, pretrained=False)
    selected = selected_epoch(config) if which == "best" else None
    try:
        others = () if selected is None else (path.with_name("last.pt"), path.with_name("last.previous.pt"))
        content = run.load(path, *others, epoch=selected)
    except ValueError:
        if selected is None:
            raise
        content = run.load(path)
        text = f"the weights of epoch {selected}, which summary.json is of, are lost: these are of epoch {run.epoch}"
        warnings.warn(text, stacklevel=2)
    if content["text_digest"] != run.text_digest:
        warnings.warn(f"{config.prompts} has changed since {path} was trained: texts are not those", stacklevel=2)
    if not same_clips(run.store, content["data"]):
        warnings.warn(f"{config.data} has changed since {path} was trained: clips are not those", stacklevel=2)
    return run


def start_from(run: Run, place: str | Path) -> str:
    """Give a new run the weights of a trained one, so far as their names and shapes fit, to be trained on.

    The classifier is taken only from a run on a data set of the same name, whose classes are the same.

    Args:
        run: from `build`; changed in place.
        place: run directory (its best.pt) or checkpoint; what is relative lies in the project folder.

    Returns:
        What was taken and what was not, for people to read.

    Raises:
        MissingInputError: nothing there.
        ValueError: damaged; another kind of file; less than half fits; a run that has seen what this one must not see.
    """
    path = in_project(place)
    path = path / "best.pt" if path.suffix != ".pt" else path
    if not checkpoint.exists(path):
        raise MissingInputError(f"parameter start_from: no checkpoint at {path}: name the directory of a trained run")
    content = checkpoint.load(path)
    its = content["config"]
    same = its["dataset"] == run.config.dataset
    if same and (known := {*(run.config.unseen or [])} - {*(its.get("unseen") or [])}):
        raise ValueError(
            f"{path} was trained on {', '.join(sorted(known))}, which the parameter unseen keeps from this run: start "
            "from a run with the same unseen classes, or from none"
        )
    skip = "" if same else "classifier"
    taken, left = checkpoint.take_fitting(run.model, content["model"], skip)
    if run.text is not None and run.text.trained:
        more, beside = checkpoint.take_fitting(run.text, content["text"])
        taken, left = taken + more, left + beside
    of = f"{its['model']} {its['modality']} on {its['dataset']}, width {its['width']}"
    if 2 * taken < taken + len(left):
        raise ValueError(
            f"{path} ({of}): only {taken} of {taken + len(left)} tensors fit a {run.config.model} of width "
            f"{run.config.width}: choose a run of the same model and width, or set width as there"
        )
    heading = f"started from {path} ({of}): {taken} of {taken + len(left)} tensors taken"
    joints = {tensor.shape[-1] for name, tensor in content["model"].items() if name.endswith("adjacency")}
    if (here := run.store.skeleton.num_joints) not in joints:
        heading += f"; it has {joints.pop()} joints, this run {here}: what belongs to single joints starts anew"
    more = [f"and {len(left) - 20} more"] if len(left) > 20 else []
    return "\n  ".join([heading, *(f"not taken: {line}" for line in left[:20]), *more])
