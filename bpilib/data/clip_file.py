"""One raw file to poses."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bpilib.data import ucla
from bpilib.data.formats import clip_folder
from bpilib.data.importer import MAX_CLIP_BYTES
from bpilib.errors import MissingInputError
from bpilib.skeleton import SKELETONS


def read_clip(path: str | Path, about: dict[str, Any], tracker: str | None = None) -> np.ndarray:
    """One raw file to poses (L, M, V, 3) float32.

    Args:
        path: NW-UCLA's .json, NTU's .skeleton, or a .npy (L, V, 3) or (L, M, V, 3) as a store has it, of any name.
        about: of the classifier that it is for.
        tracker: whose joints a .npy has, to be made NTU's (`bpilib.data.trackers`); None: the classifier's own.

    Returns:
        (L, M, V, 3) float32, as a store has them.

    Raises:
        MissingInputError: not there.
        ValueError: another kind of file or another skeleton; what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no clip at {path}: set clip_file to a .json, .skeleton or .npy file")
    kinds = {".json": "ucla", ".skeleton": "ntu", ".npy": about["skeleton"]}
    if kinds.get(path.suffix) != about["skeleton"]:
        fitting = " or ".join(suffix for suffix, skeleton in kinds.items() if skeleton == about["skeleton"])
        raise ValueError(f"{path}: expected a {fitting} clip, for a classifier of the {about['skeleton']} skeleton")
    if path.stat().st_size > MAX_CLIP_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, more than the {MAX_CLIP_BYTES} a clip may have")
    try:
        if path.suffix == ".json":
            return ucla.poses_of(json.loads(path.read_bytes())["skeletons"])
        if path.suffix == ".npy":
            return np.array(clip_folder.load(path, (SKELETONS[about["skeleton"]].num_joints,), tracker), np.float32)
        from bpilib.data.ntu import build as ntu_build  # brings the compiler along

        return ntu_build.poses_of(path.read_bytes(), about["dataset"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a clip that can be read: {error}") from error
