"""Configuration to Run: data, network and text encoder of a run, and what lies in its directory."""

import contextlib
import functools
import io
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from bpilib.config import PROCESSES, Config, resolve, same_setting, unknown_settings
from bpilib.data.copies import find_copies, fingerprint
from bpilib.data.store import SkeletonStore
from bpilib.errors import MissingInputError, did_you_mean
from bpilib.feeders import Feeder
from bpilib.model import CTRGCNClassifier, build_model
from bpilib.ops.augmentation import Augmentation
from bpilib.run_keys import RUN_KEYS
from bpilib.system import checkpoint
from bpilib.system.device import keep_malloc_memory, use_device
from bpilib.system.files import parse_yaml, remove_leftovers, write_atomically
from bpilib.system.threads import choose_threads, set_threads
from bpilib.text import build_text
from bpilib.text.encoder import TextEncoder
from bpilib.text.prompts import Prompts, load_prompts


def describe_epoch(epoch: int) -> str:
    """What notebooks say of weights: their epoch; 0 is of a weight file, or of a run that has not ended its first."""
    return f"weights of epoch {epoch}" if epoch else "weights that name no epoch"


def selected_epoch(config: Config) -> int | None:
    """The epoch whose weights the results of a finished run are of; None where that is not known."""
    try:
        return json.loads((config.run_directory / "summary.json").read_text())["selected_epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_other_tags(config: Config) -> list[str]:
    """Tags of the trained runs that differ from this one in nothing of their name but the tag."""
    plain = config.changed(tag="").run_directory
    names = {path.parent.name for path in plain.parent.glob(f"{plain.name}*/best.pt")} - {config.run_directory.name}
    tags = {name.removeprefix(plain.name) for name in names}
    return sorted(tag.removeprefix("_") for tag in tags if not tag or tag.startswith("_"))


def missing_run(config: Config) -> MissingInputError:
    """The error that there is no such run; it lists those there are, first one that differs only in its tag."""
    found = sorted(str(p.parent.relative_to(config.outputs)) for p in Path(config.outputs).glob("*/*/best.pt"))
    tags = find_other_tags(config)[:3]
    near = "".join(f" Found one that differs only in its tag: set tag = {tag!r}." for tag in tags)
    return MissingInputError(
        f"no trained run in {config.run_directory}: run notebooks/02_train.ipynb with the same parameters first.{near} "
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
    saved = _settings(path)
    _check_place(config, saved)
    kept = {
        name: saved[name]
        for name, now in config.result_settings().items()
        if name in saved and not same_setting(saved[name], now)
    }
    return resolve(**(vars(config) | kept))


def read_run_config(directory: str | Path) -> Config:
    """Read the configuration of the run in a directory, wherever its outputs are now.

    Raises:
        MissingInputError: there is none.
        ValueError: its config.yaml is damaged, or the directory has been renamed.
    """
    directory = Path(directory).absolute()
    path = directory / "config.yaml"
    if not path.is_file():
        raise MissingInputError(f"no run in {directory}: expected a config.yaml there, as notebook 02 writes it")
    config = Config.saved(_settings(path) | {"outputs": str(directory.parents[1])})
    if config.run_directory != directory:
        raise ValueError(f"{directory} has been renamed: by its config.yaml it should be {config.run_directory}")
    return config


def _check_place(config: Config, saved: dict[str, Any]) -> None:
    """ValueError if a run's directory has been moved or renamed: it is no longer called what its config.yaml says."""
    there = Config.saved({"benchmark": config.benchmark} | saved | {"outputs": config.outputs}).run_directory
    here = config.run_directory
    if (there.parent.name, there.name) != (here.parent.name, here.name):
        raise ValueError(
            f"{here} has been moved or renamed: its config.yaml is of the run {there.parent.name}/{there.name}. Move "
            f"it back to {there} and set the parameters as there: "
            + ", ".join(f"{name} {saved.get(name)!r}" for name in RUN_KEYS)
        )


def _settings(path: Path) -> dict[str, Any]:
    """The parameters in a config.yaml, as plain values."""
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
        ValueError: see `check_config`; or the run there has settings that this version does not know.
    """
    path = config.run_directory / "config.yaml"
    if not check_config(config):
        write_atomically(path, yaml.safe_dump(config.settings(), sort_keys=False))
    _check_known(_settings(path), path)


def _check_known(saved: dict[str, Any], path: Path) -> None:
    """ValueError if a run, by its config.yaml or checkpoint at `path`, has settings that this version does not know."""
    if unknown := unknown_settings(saved):
        raise ValueError(
            f"{path} is of a run with settings that this version of bpilib does not know ({unknown}): train it on with "
            "the version that made it, or set the parameter tag to train another"
        )


def check_config(config: Config) -> bool:
    """Whether the config.yaml of the run directory asks for the same results; nothing is written.

    Where a run has lost it, its settings are those in its summary.json or its checkpoints.

    Raises:
        ValueError: the directory holds a run with other settings; the differences are listed.
    """
    folder = config.run_directory
    path = folder / "config.yaml"
    saved = _settings(path) if path.exists() else _find_settings(folder)
    if saved is None:
        return False
    there, now = Config.saved(saved).result_settings(), config.result_settings()
    there[PROCESSES] = saved.get(PROCESSES, there[PROCESSES])  # which a summary.json has in place of its factors
    differ = [key for key in now if not same_setting(there.get(key), now[key])]
    if not differ:
        return path.exists()
    made = ("last.pt", "last.previous.pt", "best.pt", "scores.npz", "summary.json")
    if not any((folder / name).exists() for name in made):
        return False
    _check_place(config, saved)
    said = "; ".join(f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in differ)
    raise ValueError(
        f"{folder} holds a run with other settings ({said}). Nothing was changed: set the parameter tag (say tag='b') "
        "or outputs to start another run beside it, or use its settings" + _how_to_train_longer(config, there, differ)
    )


def _find_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of a run without a config.yaml, from its summary.json or a checkpoint; None: there is no run.

    Raises:
        ValueError: there is one, and nothing tells its settings.
    """
    summary, weights = folder / "summary.json", checkpoint.find_weights(folder)
    if not summary.exists() and not checkpoint.exists(weights):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # or it is older than the entry
        return dict(json.loads(summary.read_text())["settings"])
    try:
        return checkpoint.load(weights, lambda *_: None, folder / "last.pt", folder / "last.previous.pt")["config"]
    except ValueError as error:
        raise ValueError(
            f"{folder} holds a run without its config.yaml, and nothing else there tells its settings ({error}): put "
            "config.yaml back, or set the parameter tag to start another run"
        ) from error


def _how_to_train_longer(config: Config, there: dict[str, Any], differ: list[str]) -> str:
    """What to do about a run that only is to have more epochs; its learning rate has fallen by a shorter schedule."""
    if not {"epochs"} <= {*differ} <= {"epochs", "steps", "warmup"} or config.epochs <= there["epochs"]:
        return ""
    return (
        f". To train its weights on, set start_from={str(config.run_directory)!r} and a tag: the schedule of that run "
        f"was made for {there['epochs']} epochs"
    )


def history(config: Config) -> pd.DataFrame:
    """metrics.csv of a run: one row an epoch.

    Raises:
        MissingInputError: not there.
        ValueError: damaged.
    """
    path = config.run_directory / "metrics.csv"
    again = "run notebooks/02_train.ipynb with the run's parameters again"
    try:
        text = path.read_text()
        rows = pd.read_csv(io.StringIO(text))
        if not text.endswith("\n") or rows["epoch"].tolist() != [*range(1, len(rows) + 1)]:
            raise ValueError("cut, or without a row for each epoch")
    except FileNotFoundError as error:
        raise MissingInputError(f"no {path}: {again}") from error
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): {again}") from error
    return rows


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
        trained_on: the clips they were trained on, see `bpilib.training.trained_on`; empty where that is not known. A
            copy of the run has the same dict.
    """

    config: Config
    store: SkeletonStore
    model: CTRGCNClassifier
    text: TextEncoder | None
    text_digest: str
    device: torch.device
    epoch: int = 0
    trained_on: dict[str, Any] = field(default_factory=dict, repr=False)
    _feeders: dict[tuple[str, bool, int], Feeder] = field(default_factory=dict, repr=False)

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
        """Clips to train on ("train"), select with ("heldout"; empty unless heldout_by says what), or test on ("test").

        Held out are the clips of a fixed share of the training subjects, the same for every seed and modality, or those
        of one view without copies of training or test clips. Clips of unseen classes are among the test clips alone.
        """
        if subset not in ("train", "heldout", "test"):
            raise ValueError(f"expected subset to be train, heldout or test, got {subset!r}")
        test = self.store.split(self.config.benchmark, "test")
        train = self.store.split(self.config.benchmark, "train")
        if subset == "test":
            return test
        kept = self._held_out(train)
        seen = ~self.unseen[self.store.labels[train]]
        if subset == "train":
            return train[seen & ~kept]
        held = train[seen & kept]
        if self.config.heldout_by != "view" or not len(held):
            return held
        return held[~np.isin(self.store.names[held], self._copies_by_view)]

    def _held_out(self, train: np.ndarray) -> np.ndarray:
        """(n,) bool, which of the clips `train` (n,) are kept from training."""
        config = self.config
        if config.heldout_by is None:
            return np.zeros(len(train), bool)
        if config.heldout_by == "view":
            views = np.unique(self.store.cameras[train])
            view = int(views[-1]) if config.heldout_view is None else config.heldout_view
            if view not in views or len(views) < 2:
                there = ", ".join(map(str, views))
                raise ValueError(f"heldout_by view: view {view} can't be kept from training, whose views are {there}")
            return self.store.cameras[train] == view
        subjects = np.unique(self.store.subjects[train])
        count = max(1, round(config.heldout * len(subjects)))
        if count == len(subjects):
            raise ValueError(f"heldout {config.heldout} leaves none of {len(subjects)} subjects for training")
        return np.isin(self.store.subjects[train], np.random.default_rng(0).permutation(subjects)[:count])

    @functools.cached_property
    def _copies_by_view(self) -> list[str]:
        """Names of the clips of the held-out view that are copies of test clips, or of clips that are trained on."""
        assert self.config.benchmark is not None, "a configuration from `resolve` has a benchmark"
        train = self.store.split(self.config.benchmark, "train")
        kept = self._held_out(train)
        others = np.concatenate([self.store.split(self.config.benchmark, "test"), train[~kept]])
        prints = fingerprint(self.store, progress=False)
        return [copy.test for copy in find_copies(self.store, train[kept], others, prints, progress=False)]

    def feeder(self, subset: str, train: bool = False, turned: int = 0) -> Feeder:
        """The feeder of "train", "heldout" or "test" clips, of the modality that the network is fed; made once.

        Args:
            subset: as of `indices`.
            train: random crops and rotations.
            turned: degrees of yaw by which the clips are turned where `train` is not set.
        """
        if (subset, train, turned) in self._feeders:
            return self._feeders[subset, train, turned]
        fed = self.config.modality
        if self.config.model != "ctrgcn":
            fed = fed.replace("bone", "joint")  # the network's operator makes the bones
        config = self.config
        augmentation = Augmentation(config.pitch, config.yaw, config.axis_drop, config.joint_drop, turned)
        self._feeders[subset, train, turned] = Feeder(
            self.store,
            self.indices(subset),
            fed,
            train=train,
            device=self.device,
            seed=config.seed,
            repeats=config.repeats if train else 1,
            augmentation=augmentation,
        )
        return self._feeders[subset, train, turned]

    def content(self) -> dict[str, Any]:
        """The part of every checkpoint that `load` reads: configuration, epoch, hashes of the inputs, weights."""
        return {
            "config": self.config.settings(),
            "epoch": self.epoch,
            "text_digest": self.text_digest,
            "data": self.store.manifest["sha256"],
            "trained_on": self.trained_on,
            "model": self.model.state_dict(),
            "text": {} if self.text is None else self.text.state_dict(),
        }

    def check(self, content: dict[str, Any], path: Path) -> None:
        """ValueError if a checkpoint's content is of another model or run; each difference is named."""
        mine, its = self.config.result_settings(), content["config"]
        shape = ("dataset", "benchmark", "model", "modality", "width", "k", "text")
        theirs = {name: its.get(name, None if name in shape else value) for name, value in mine.items()}
        wrong = [name for name, value in mine.items() if not same_setting(theirs[name], value)]
        if wrong:
            wrong.sort(key=lambda name: name not in shape)
            differ = "; ".join(f"{name}: {its.get(name)!r}, expected {mine[name]!r}" for name in wrong)
            what = "model" if wrong[0] in shape else "run"
            raise ValueError(f"{path} is a checkpoint of another {what} ({differ}): choose that run instead")

    def load(self, path: Path, *others: Path, epoch: int | None = None, need: str = "model") -> dict[str, Any]:
        """Load network and trained text encoder from a checkpoint of this run, or one that may replace it.

        Args:
            path, others: see `checkpoint.load`.
            epoch: that the weights must be of; None: of any.
            need: what else the checkpoint must hold: "progress" to train on. Otherwise the weights are those that are
                evaluated: their average where the run has one.

        Returns:
            The checkpoint's content.

        Raises:
            MissingInputError, ValueError: none is there; they are damaged, or of another run, epoch, ...
        """

        def check(content: dict[str, Any], place: Path) -> None:
            self.check(content, place)
            if need not in content:
                raise ValueError(f"{place} is a checkpoint of weights alone")
            if need == "progress":
                _check_known(content["config"], place)
            if epoch not in (None, content["epoch"]):
                raise ValueError(f"{place} holds epoch {content['epoch']}, expected {epoch}")

        content = checkpoint.load(path, check, *others)
        try:
            self.model.load_state_dict(content["model"] if need == "progress" else kept_weights(content))
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not fit this version's network ({str(error).splitlines()[-1].strip()[:200]}): open it "
                "with the version that made it, or set the parameter tag to train anew"
            ) from error
        if self.text is not None:
            self.text.load_state_dict(content["text"])
        self.epoch = content["epoch"]
        self.trained_on.update(content.get("trained_on", {}))
        return content


def kept_weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's weights in a checkpoint that are evaluated: their average where the run has one."""
    return content.get("average") or content["model"]


def same_clips(store: SkeletonStore, sha256: dict[str, str]) -> bool:
    """Whether checksums, as a manifest has them, are of the store's clips, labels and splits."""
    return all(sha256.get(name) == store.manifest["sha256"][name] for name in ("poses.npy", "index.npz"))


def read_prompts(config: Config, store: SkeletonStore) -> Prompts | None:
    """The texts of the store's classes that a run is trained with; None where it has none.

    Raises:
        ValueError: there is no such file, it is damaged, or misses a class.
    """
    if config.model == "ctrgcn" or config.text == "none":
        return None
    return load_prompts(config.prompts, store.classes)


def build(config: Config, store: SkeletonStore | None = None, pretrained: bool = True) -> Run:
    """Build network and text encoder on the configured device, and open the data.

    On a CPU PyTorch is set to as many threads as `bpilib.system.threads.choose_threads` says.

    Args:
        config: resolved parameters.
        store: of the run, open already; None: opened here.
        pretrained: fetch the weights of a text tower that is trained along; False where a checkpoint's follow.

    Raises:
        MissingInputError: no prepared data, or no prompts.
        ValueError: a store of another data set; prompts that miss a class.
    """
    device = use_device(config.device)
    if device.type == "cpu":
        keep_malloc_memory()
        set_threads(choose_threads(config.threads))
    store = SkeletonStore.open(config.data) if store is None else store
    if store.dataset != config.dataset:
        raise ValueError(
            f"{config.data} holds the data set {store.dataset}, but the parameter dataset is {config.dataset}"
        )
    text: TextEncoder | None = None
    embed_dim = config.embed_dim
    prompts = read_prompts(config, store)
    if prompts is not None:
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
        embed_dim = text.dim
    model = build_model(
        config.model,
        store.skeleton,
        len(store.classes),
        config.modality,
        store.persons,
        embed_dim,
        config.k,
        config.width,
        config.attention,
        config.true_bones,
    )
    if config.kernel == "triton":
        model.backbone.use_triton()
    return Run(config, store, model.to(device), text, prompts.digest() if prompts else "", device)


def open_run(config: Config, which: str = "best") -> Run:
    """A trained run, by the parameters that name its directory; the others are taken from the run.

    Args:
        config: dataset, benchmark, model, modality, seed, tag and outputs choose the run.
        which: "best" (the selected epoch) or "last".

    Warns:
        It has not been trained to its end: its last checkpoint is taken where no epoch has been selected.

    Raises:
        MissingInputError: no such run; those there are, are listed.
        ValueError: which is neither; a damaged checkpoint or one of another model.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which: expected 'best' or 'last', got {which!r}")
    path = config.run_directory / f"{which}.pt"
    saved = saved_config(config)
    remove_leftovers(config.run_directory)
    last = path.with_name("last.pt")
    selected = selected_epoch(config) if which == "best" else None
    if selected is None and path != last and checkpoint.find_weights(config.run_directory) == last:
        text = f"{config.run_directory} is not trained to its end: these are the weights of its last checkpoint"
        warnings.warn(text, stacklevel=2)
        path = last
    if not checkpoint.exists(path):
        raise missing_run(config)
    run = build(saved, pretrained=False)
    try:
        others = () if selected is None else (last, path.with_name("last.previous.pt"))
        content = run.load(path, *others, epoch=selected)
    except ValueError:
        if selected is None:
            raise
        content = run.load(path)
        text = f"the weights of epoch {selected}, which summary.json is of, are lost: these are of epoch {run.epoch}"
        warnings.warn(text, stacklevel=2)
    if content["text_digest"] != run.text_digest:
        warnings.warn(f"{config.prompts} has changed since {path} was trained: the texts are others", stacklevel=2)
    if not same_clips(run.store, content["data"]):
        warnings.warn(f"{config.data} has changed since {path} was trained: the clips are others", stacklevel=2)
    return run
