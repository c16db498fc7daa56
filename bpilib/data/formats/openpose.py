"""Reads a clip from OpenPose's JSON files, one per frame.

A folder for each clip holds `<anything>_000000000012_keypoints.json`, as `--write_json` writes them; each of a file's
`people` has `pose_keypoints_2d`, x, y and a score for 25 (BODY_25) or 18 keypoints (COCO). OpenPose does not track
people: who is first in one frame may be second in the next, so they are tracked here.

Source: Cao et al., "OpenPose", TPAMI 2019.
"""

import json
import re
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

NUMBER = re.compile(r"(\d+)_keypoints\.json", re.IGNORECASE)
MAX_BYTES = 4 << 20  # of a frame
KEPT = 2  # persons
FEW = 0.25  # persons with fewer keypoints than this share of the most visible person's are left out
FAR = 0.75  # body heights; at a larger distance it is another person


def is_folder(path: Path) -> bool:
    """Whether a folder holds OpenPose's frames."""
    return path.is_dir() and any(NUMBER.search(entry.name) for entry in path.iterdir())


def list_frames(folder: Path) -> list[Path]:
    """A folder's files of frames, by name."""
    return sorted(path for path in folder.iterdir() if NUMBER.search(path.name))


def read_folder(folder: Path) -> np.ndarray:
    """Read a folder's frames in the order of their numbers.

    Returns:
        (L, M, V, 3) float64, x, y in pixels and a score; zeros where a person or a keypoint was not seen.

    Raises:
        ValueError: a file that is something else; several recordings; frames of different keypoints; nobody in any.
    """
    matches = [(match, path) for path in list_frames(folder) if (match := NUMBER.search(path.name))]
    found = sorted((int(match[1]), path) for match, path in matches)
    recordings = sorted({path.name[: match.start()] for match, path in matches})
    if len(recordings) > 1 or len({number for number, _ in found}) < len(found):
        what = f"several recordings ({', '.join(recordings[:4])})" if len(recordings) > 1 else "a frame's number twice"
        raise ValueError(f"{folder.name}, {len(found)} frames of OpenPose: {what}: give each a folder of its own")
    frames = [_read_people(path) for _, path in found]
    joints = {person.shape[0] for people in frames for person in people}
    if len(joints) != 1:
        what = f"keypoints of {sorted(joints)} joints" if joints else "nobody in any frame"
        raise ValueError(f"{folder.name}, {len(found)} frames of OpenPose: {what}")
    return _follow(frames, joints.pop())


def _read_people(path: Path) -> list[np.ndarray]:
    """Read the persons (V, 3) of a frame."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name}: {path.stat().st_size} bytes, more than the {MAX_BYTES} a frame may have")
    try:
        people = [np.array(person["pose_keypoints_2d"], float) for person in json.loads(path.read_bytes())["people"]]
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path.name} is no frame of OpenPose, people with pose_keypoints_2d ({error})") from error
    if any(person.ndim != 1 or len(person) % 3 for person in people):
        raise ValueError(f"{path.name}: pose_keypoints_2d: expected x, y and a score for each keypoint")
    if not all(np.isfinite(person).all() for person in people):
        raise ValueError(f"{path.name}: coordinates that are not finite (NaN or infinite)")
    people = [person.reshape(-1, 3) for person in people]
    return [np.where(person[:, 2:] > 0, person, 0) for person in people if (person[:, 2] > 0).any()]


def _follow(frames: list[list[np.ndarray]], joints: int) -> np.ndarray:
    """Assign the persons of each frame to tracks, by the distance to each track's last keypoints: (L, M, V, 3)."""
    tracks: list[dict[int, np.ndarray]] = []
    for number, people in enumerate(frames):
        last = [track[max(track)] for track in tracks]
        cost = np.array([_measure_distance(person, one) for person in people for one in last])
        cost = cost.reshape(len(people), len(last))
        near = {p: t for p, t in zip(*linear_sum_assignment(cost)) if cost[p, t] < FAR}
        for p, person in enumerate(people):
            if p in near:
                tracks[near[p]][number] = person
            else:
                tracks.append({number: person})
    seen = [sum((person[:, 2] > 0).sum() for person in track.values()) for track in tracks]
    kept = [t for t in np.argsort(seen, kind="stable")[::-1][:KEPT] if seen[t] >= FEW * max(seen)]
    out = np.zeros((len(frames), len(kept), joints, 3))
    for place, t in enumerate(sorted(kept)):
        for number, points in tracks[t].items():
            out[number, place] = points
    return out


def _measure_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of two persons' keypoints, of those that both have, in heights of the first person."""
    both = (one[:, 2] > 0) & (other[:, 2] > 0)
    if not both.any():
        return 1e6
    height = np.ptp(one[one[:, 2] > 0, 1]) or 1.0
    return float(np.linalg.norm(one[both, :2] - other[both, :2], axis=-1).mean() / height)
