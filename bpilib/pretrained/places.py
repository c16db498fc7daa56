"""Where pretrained networks are: shipped with the package, in a folder, or on the Hugging Face Hub."""

import os
import re
from pathlib import Path
from typing import Any

from bpilib.errors import MissingInputError, did_you_mean
from bpilib.system.files import PROJECT, in_project

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"  # one folder a network, of its name
CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
MOST = {CONFIG: 1 << 20, TENSORS: 1 << 30}  # bytes; the largest of ours have 30 kB and 10 MB
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95})/([A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,200}))?", re.ASCII)


def list_shipped() -> dict[str, Path]:
    """Find the networks, name → folder, that come with the package."""
    return {path.parent.name: path.parent for path in sorted(WEIGHTS.glob(f"*/{CONFIG}"))}


def is_pretrained(name: str | Path) -> bool:
    """Tell whether a name is one that `locate` would look for: shipped, a folder of a network, or a Hub id."""
    return _find_folder(name) is not None or _parse_hub_id(str(name)) is not None


def locate(name: str | Path) -> Path:
    """Find the folder of a pretrained network; one on the Hub is downloaded into the Hub's cache.

    Args:
        name: a shipped network's, a folder (what is relative lies in the project folder), or a Hub id, owner/name or
            owner/name@revision.

    Raises:
        MissingInputError: no such network; those shipped are listed. The Hub can't be reached, and it is not cached.
        ValueError: what the Hub has under this name is too large, or no network.
    """
    if (folder := _find_folder(name)) is not None:
        return folder
    if (found := _parse_hub_id(str(name))) is not None:
        return _download(*found)
    there = list(list_shipped())
    raise MissingInputError(
        f"no pretrained network {str(name)!r}{did_you_mean(str(name), there)}: expected one of those shipped "
        f"({', '.join(there) or 'none so far'}), a folder with {CONFIG} and {TENSORS}, or a Hub id (owner/name)"
    )


def _find_folder(name: str | Path) -> Path | None:
    """Find the folder of a network on this machine; None: there is none."""
    path = in_project(name)
    return path if (path / CONFIG).is_file() else list_shipped().get(str(name))


def _parse_hub_id(name: str) -> tuple[str, str | None] | None:
    """Split a name into repository and revision; None: it is no Hub id, or begins with a folder of the project."""
    match = _HUB_ID.fullmatch(name)
    if match is None or (PROJECT / match[1]).exists():
        return None
    return f"{match[1]}/{match[2]}", match[3]


def _download(repository: str, revision: str | None) -> Path:
    """Fetch into the Hub's cache, and return the folder of, the two files that are needed."""
    name = repository + (f"@{revision}" if revision else "")
    folder = Path()
    for file in (CONFIG, TENSORS):
        size = _fetch(name, repository, revision, file, dry_run=True).file_size
        if size is None or size > MOST[file]:
            raise ValueError(f"{name}: {file} has {size} bytes, more than the {MOST[file]} it may have")
        folder = Path(_fetch(name, repository, revision, file)).parent
        revision = folder.name  # the commit: both files are of one
    return folder


def _fetch(name: str, repository: str, revision: str | None, file: str, dry_run: bool = False) -> Any:
    """Ask the Hub's client for a file: its place, or with `dry_run` what is known of it."""
    from huggingface_hub import errors, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT")  # the library reads it when it is imported
    try:
        return hf_hub_download(repository, file, revision=revision, endpoint=endpoint, dry_run=dry_run)
    except errors.RevisionNotFoundError as error:
        raise MissingInputError(f"{repository} on the Hub has no revision {revision!r}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise MissingInputError(
            f"{name} on the Hub has no {file}: expected a network that `python -m bpilib.pretrained save` wrote"
        ) from error
    except errors.RepositoryNotFoundError as error:  # also where it is private, or gated
        raise MissingInputError(
            f"no {repository!r} on the Hub, or none that may be read without a login, and no such folder in {PROJECT}"
        ) from error
    except Exception as error:  # of the network and the cache there are many kinds
        raise MissingInputError(
            f"{name} is no folder in {PROJECT}, and can't be had from the Hub ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}). Offline: name a folder with {CONFIG} and {TENSORS}, or a shipped "
            f"network ({', '.join(list_shipped()) or 'none so far'})"
        ) from error
