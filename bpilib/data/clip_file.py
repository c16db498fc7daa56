"""Reads a single clip for a classifier, from a file of any supported format."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bpilib.data import ucla
from bpilib.data.formats import clip_folder, openpose
from bpilib.data.importer import MAX_CLIP_BYTES, refuse_or_warn
from bpilib.data.plausibility import Inspection
from bpilib.errors import MissingInputError
from bpilib.skeleton import SKELETONS


def read_clip(path: str | Path, about: dict[str, Any], tracker: str | None = None) -> np.ndarray:
    """Read a clip and check it as clips of a data set are checked.

    Args:
        path: NW-UCLA's .json, NTU's .skeleton, a .npy (L, V, 3) or (L, M, V, 3), of any name, or a folder of OpenPose's
            frames. NTU's joints may be in camera coordinates.
        about: metadata of the classifier (`bpilib.classify.describe`).
        tracker: whose joints the clip has, to be converted to NTU's (`bpilib.data.trackers`); None: those of the
            tracker that the classifier was trained with, unless the clip has the classifier's own joints.

    Returns:
        (L, M, V, 3) float32, as in a store.

    Raises:
        MissingInputError: no such file.
        ValueError: another kind of file or another skeleton; what is wrong with it; not a body in metres.
    """
    path, skeleton = Path(path), SKELETONS[about["skeleton"]]
    folder = openpose.is_folder(path)
    if not path.is_file() and not folder:
        raise MissingInputError(f"no clip at {path}: set clip_file to a .json, .skeleton or .npy file")
    kinds = {".json": "ucla", ".skeleton": "ntu", ".npy": about["skeleton"]}
    suffix = ".npy" if folder else path.suffix.lower()
    if kinds.get(suffix) != about["skeleton"]:
        fitting = " or ".join(ending for ending, kind in kinds.items() if kind == about["skeleton"])
        raise ValueError(f"{path}: expected a {fitting} clip, for a classifier of the {about['skeleton']} skeleton")
    if path.stat().st_size > MAX_CLIP_BYTES and not folder:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, more than the {MAX_CLIP_BYTES} a clip may have")
    try:
        if suffix == ".npy":
            copy_single = about["dataset"] == "ntu120"
            poses, said = clip_folder.load_single_clip(path, skeleton, tracker, about.get("tracker"), copy_single)
        else:
            if suffix == ".json":
                poses = ucla.parse_poses(json.loads(path.read_bytes())["skeletons"])
            else:
                from bpilib.data.ntu import build as ntu_build  # here, since it imports numba

                poses = ntu_build.parse_poses(path.read_bytes(), about["dataset"])
            inspection = Inspection(skeleton)
            inspection.see(path.name, poses)
            said = refuse_or_warn(inspection.findings(), path)
        for what in said:
            warnings.warn(what, stacklevel=2)
        return poses
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a clip that can be read: {error}") from error
