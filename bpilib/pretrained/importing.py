"""Run directories made from pretrained networks, so that the notebooks treat them as trained runs."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpilib.config import RESULT, Config, resolve
from bpilib.data.store import SkeletonStore
from bpilib.evaluate import Scores, evaluate
from bpilib.pretrained.figures import compare
from bpilib.pretrained.loading import Found, check_store, read
from bpilib.pretrained.places import is_pretrained, list_shipped
from bpilib.runs import Run, build, same_clips, saved_config, write_or_check_config
from bpilib.skeleton import MODALITIES, SKELETONS
from bpilib.system import checkpoint
from bpilib.system.files import in_project
from bpilib.system.lock import lock_run

OF_NETWORK = ("dataset", "benchmark", "model", "modality", "width", "k", "attention", "true_bones")


def import_pretrained(config: Config, name: str | Path | None = None) -> Config:
    """Make a run directory of a pretrained network, so that 03, 04, 05 and 09 treat it as a trained run.

    Nothing is trained. Data set, benchmark, model, modality, seed and recipe are those of the network, whatever the
    configuration says; its tag is "pretrained" where it has none, and a store at the data set's usual place is the one
    of the network's data set. Texts are not shipped: the run's `text` is minilm if it was trained with that and the
    same texts are here, else none.

    Args:
        config: where the run goes and on what it runs.
        name: of a shipped network, a folder or a Hub id; None: as the parameter `pretrained` says.

    Returns:
        The configuration of that run; `config` itself if neither names a network.

    Raises:
        MissingInputError: no such network; no prepared data.
        ValueError: files that are damaged; a store of other data; the directory holds a run of other weights.
    """
    asked = config.pretrained if name is None else name
    if not asked:
        return config
    if isinstance(asked, list):
        raise ValueError(f"parameter pretrained: expected one network, got {len(asked)}: several are for notebook 05")
    found = read(asked)
    config = _resolve_run(config, found)
    import_once(config, found.name, found.config["weights"]["sha256"], lambda: _load(config, found))
    return config


def import_streams(config: Config) -> Config:
    """Make run directories, with scores, of the streams that the parameter `pretrained` names, for 05.

    Args:
        config: as of `import_pretrained`. `pretrained` is a list of networks of one model and seed, or one name, also
            without the modality: "ucla_bpi" for ucla_bpi_joint, ucla_bpi_bone, ... so far as they are shipped.

    Returns:
        The configuration of one of these runs; `config` itself if `pretrained` is None.

    Raises:
        MissingInputError, ValueError: as `import_pretrained`; networks that are not streams of one ensemble.
    """
    if not config.pretrained:
        return config
    names = config.pretrained if isinstance(config.pretrained, list) else _expand(config.pretrained)
    streams: dict[str, Config] = {}
    for name in names:
        stream = import_pretrained(config, name)
        first = next(iter(streams.values()), stream)
        if stream.modality in streams or first.changed(modality=stream.modality).run_directory != stream.run_directory:
            raise ValueError(
                f"parameter pretrained: {name} is no further stream of {names[0]}: expected the same data set, model "
                f"and seed, and another modality, got {stream.run_directory} beside {first.run_directory}"
            )
        streams[stream.modality] = stream
        if not (stream.run_directory / "scores.npz").exists():
            evaluate(stream)
    return next(iter(streams.values()))


def _expand(name: str) -> list[str]:
    """List the networks that a name without modality stands for; else the name itself."""
    found = [f"{name}_{modality}" for modality in MODALITIES if f"{name}_{modality}" in list_shipped()]
    return found if found and not is_pretrained(name) else [name]


def describe_stated(config: Config, scores: Scores) -> str:
    """Say what a pretrained network must give beside what it gave, in lines; "" for a run that is none.

    Args:
        config: from `import_pretrained`.
        scores: of that run.

    Raises:
        ValueError: on the same clips it gave something else, by more than float noise can change.
    """
    imported = checkpoint.load(config.run_directory / "best.pt").get("imported", {})
    if not imported.get("stated"):
        return ""
    lines, same = compare(imported["stated"], scores)
    text = f"{imported['file']}\n{lines}"
    if same:
        return text
    if same_clips(SkeletonStore.open(saved_config(config).data), imported["data"]):
        raise ValueError(
            f"{text}\nThe clips are those of the stated figures, so this is no float noise: something in between "
            "computes otherwise. Please report it, with the versions of bpilib and torch, and the device"
        )
    warnings.warn(f"the clips at {config.data} are others than those of the stated figures", stacklevel=2)
    return text


def _resolve_run(config: Config, found: Found) -> Config:
    """Make the configuration of the run of a network: its results from there, places and machine as given."""
    about = found.config
    known = {field.name for field in dataclasses.fields(Config) if field.metadata["changes"] == RESULT}
    settings = {name: value for name, value in about["training"].items() if name in known}
    settings |= {name: about[name] for name in OF_NETWORK}
    if about["k"] == SKELETONS[about["skeleton"]].default_k(about["modality"]):
        settings["k"] = None  # as a run has it that was trained with the published one
    if about["embed_dim"] is not None:
        settings["embed_dim"] = about["embed_dim"]
    if settings.get("text") != "minilm":
        settings["text"] = "none"
    places: dict[str, Any] = {}
    if about["dataset"] != config.dataset:  # what is derived from its name
        usual = config.data == str(in_project(f"data/prepared/{config.dataset}"))
        places = {"raw": None, "prompts": None} | ({"data": None} if usual else {})
    mine = {"tag": config.tag or "pretrained", "start_from": None}
    try:
        return resolve(**(vars(config) | settings | places | mine))
    except ValueError as error:
        raise ValueError(f"{found.name}, its config.json: {error}") from error


def import_once(config: Config, name: str | Path, sha256: str, load: Callable[[], tuple[Run, dict[str, Any]]]) -> None:
    """Write config.yaml and best.pt of a run whose weights come from elsewhere, unless they are there already.

    Args:
        config: of the run; its directory is locked meanwhile.
        name: of the weights, for the message.
        sha256: of the weights.
        load: the run with these weights, and what best.pt is to say of them: "file" they came in, and if it is known
            "data", the checksums of the clips they were trained on.

    Raises:
        ValueError: the directory holds a run of other weights.
    """
    target = config.run_directory / "best.pt"
    with lock_run(config.run_directory):
        held = checkpoint.find_weights(config.run_directory)
        if checkpoint.exists(held):
            there = checkpoint.load(held).get("imported", {})
            if there.get("sha256") == sha256:
                return
            what = f"the weights of {there['file']}" if there else "a trained run"
            raise ValueError(
                f"{config.run_directory} holds {what}, not of {name}: set the parameter tag to another name"
            )
        run, about = load()
        write_or_check_config(run.config)
        content = run.content()
        content["data"] = about.get("data", content["data"])
        checkpoint.save(target, content | {"imported": about | {"sha256": sha256}})


def _load(config: Config, found: Found) -> tuple[Run, dict[str, Any]]:
    """Build the run of a network with its weights, with what best.pt is to say of them."""
    store = SkeletonStore.open(config.data)
    check_store(found.config, store)
    run = _build_with_texts(config, found, store) or build(config.changed(text="none"), store)
    run.model.load_state_dict(found.state)
    run.epoch = found.config["epoch"]
    its = found.config
    about = {"file": found.name, "stated": its["expected"], "data": its["data"]["sha256"]}
    return run, about | {"started_from": its.get("started_from")}


def _build_with_texts(config: Config, found: Found, store: SkeletonStore) -> Run | None:
    """Build the run with the text encoder it was trained with; None where it had none, or its texts are not here."""
    if config.text == "none":
        return None
    with contextlib.suppress(ValueError):  # no texts, or others than the embeddings beside them
        run = build(config, store)
        if run.text_digest == found.config["text_digest"]:
            return run
    return None
