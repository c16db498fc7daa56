"""Small things that tests are made of: raw clips, a store, class texts, configurations."""

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bpilib.config import Config, resolve
from bpilib.data import SkeletonStore, prepare, synthetic, ucla
from bpilib.evaluate import Scores
from bpilib.system.files import PROJECT
from bpilib.text.prompts import PARTS, digest_texts, load_prompts

HELPERS = Path(__file__).parent
UCLA_PLACES = (PROJECT / "data/NW-UCLA/all_sqe.zip", PROJECT.parent / "shared/data/NW-UCLA/all_sqe.zip")
NO_UCLA = "the real all_sqe.zip is not here: name it in the environment variable BPI_UCLA_ZIP"


def ucla_zip() -> Path | None:
    """The real NW-UCLA zip, if this machine has it."""
    named = os.environ.get("BPI_UCLA_ZIP")
    places = (Path(named),) if named else UCLA_PLACES
    return next((path for path in places if path.is_file()), None)


def ucla_store(folder: Path) -> Path:
    """The real NW-UCLA, prepared: the project's store, or one made in `folder`."""
    prepared = PROJECT / "data/prepared/ucla"
    if (prepared / "manifest.json").exists():
        return prepared
    prepare("ucla", raw=ucla_zip(), out=folder / "store", progress=False)
    return folder / "store"


def record(name: str, skeletons: object, label: object) -> dict[str, object]:
    """A clip's JSON as NW-UCLA has it."""
    return {"file_name": name, "skeletons": skeletons, "label": label}


def ucla_records(subjects: Iterable[int] = (1, 2), views: Iterable[int] = (1, 2, 3)) -> dict[str, dict[str, object]]:
    """Clips under NW-UCLA's file names, acted by the synthetic people; name → record. The first has one frame."""
    records = {}
    for label, action in enumerate(ucla.ACTIONS, 1):
        for subject in subjects:
            clip = synthetic.perform(label, subject, 0)
            for view in views:
                name = f"a{action:02d}_s{subject:02d}_e00_v{view:02d}"
                seen = synthetic.observe(clip, view, np.random.default_rng((label, subject, view)))
                records[name] = record(name, seen[: 1 if not records else 12 + label].round(4).tolist(), label)
    return records


def write_folder(folder: Path, records: dict[str, object]) -> Path:
    """name → record (or bytes, or text) to JSON files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in records.items():
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(content)
    return folder


def synthetic_store(folder: Path, subjects: int = 3, episodes: int = 1) -> SkeletonStore:
    """folder/store of 10 classes × subjects × episodes × 3 views clips."""
    return prepare(
        "synthetic", raw=folder / "raw", out=folder / "store", progress=False, subjects=subjects, episodes=episodes
    )


def plant_copies(folder: Path, names: Iterable[str]) -> None:
    """Let raw clips of view 3 below folder/raw be those of view 2, before `synthetic_store` prepares them."""
    synthetic.write_raw(folder / "raw", subjects=1, episodes=1)
    for name in names:
        clip = json.loads((folder / "raw" / f"{name[:-1]}2.json").read_text())
        (folder / "raw" / f"{name}.json").write_text(json.dumps(clip | {"file_name": name}))


def write_prompts(folder: Path, classes: Iterable[str] = synthetic.CLASSES, dim: int = 16, seed: int = 0) -> Path:
    """A prompts file with made-up texts, and made-up embeddings of them beside it."""
    entries = [
        {"name": name, "synonyms": [f"{name} again", f"act of {name}"], **{part: f"{part} in {name}" for part in PARTS}}
        for name in classes
    ]
    path = folder / "prompts.yaml"
    content = {"dataset": "synthetic", "classes": [entry["name"] for entry in entries], "prompts": entries}
    path.write_text(yaml.safe_dump(content))
    write_embeddings(path, dim, seed)
    return path


def write_embeddings(prompts: Path, dim: int = 16, seed: int = 0) -> None:
    """Random embeddings for the texts of a prompts file, in the shipped format."""
    texts = load_prompts(prompts).texts()
    values = np.random.default_rng(seed).standard_normal((len(texts), dim)).astype(np.float16)
    content = io.BytesIO()
    np.savez(content, texts=np.array(texts), digest=np.array(digest_texts(texts)), embeddings=values)
    prompts.with_suffix(".minilm.npz").write_bytes(content.getvalue())


def tiny_config(folder: Path, outputs: Path, **changes: object) -> Config:
    """A configuration of seconds: width 8, 3 epochs of 5 steps, on folder/store with folder/prompts.yaml."""
    settings = {
        "dataset": "synthetic", "data": folder / "store", "prompts": folder / "prompts.yaml", "outputs": outputs,
        "epochs": 3, "batch_size": 12, "repeats": 1, "width": 8, "lr": 0.05, "text": "minilm", "device": "cpu",
        "precision": "fp32",
    }  # fmt: skip
    return resolve(**(settings | changes))


def events(folder: Path) -> EventAccumulator:
    """All that a run has written for TensorBoard."""
    return EventAccumulator(str(folder / "tensorboard"), dict.fromkeys(("scalars", "images", "tensors"), 0)).Reload()


def save_result(outputs: Path, right: list[bool], best_test: float = 50.0, names: list[str] | None = None,
                labels: list[int] | None = None, copies: list[str] | None = None,
                environment: dict[str, object] | None = None, **changes: object) -> Path:  # fmt: skip
    """The files of a finished run that recognised these clips of three classes, without a training.

    Of the clips, those named in `copies` are copies of training clips; None: that is not known.
    """
    config = resolve(**{"dataset": "synthetic", "device": "cpu", "text": "minilm", "outputs": outputs} | changes)
    labels = np.arange(len(right)) % 3 if labels is None else np.asarray(labels)
    predicted = np.where(right, labels, (labels + 1) % 3)
    names = [f"clip{i}" for i in range(len(right))] if names is None else names
    logits = np.eye(3, dtype=np.float32)[predicted]
    folder = config.run_directory
    copies = None if copies is None else np.isin(names, copies)
    Scores(logits, labels, np.array(names), ["bow", "kick", "wave"], copies=copies).save(folder / "scores.npz")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.settings()))
    best = {"best_test_epoch_as_published": {"epoch": 1, "test_top1": best_test}}
    recorded = {} if environment is None else {"environment": environment}
    (folder / "summary.json").write_text(json.dumps(best | recorded))
    return folder
