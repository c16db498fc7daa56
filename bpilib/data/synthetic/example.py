"""Example clips of the user's own: the built-in people with MediaPipe's joints, as .npy files and a clips.csv.

The people are those of `bpilib.data.synthetic.people`; nothing was filmed.
"""

import csv
import io
from pathlib import Path

import numpy as np

from bpilib.data.formats.clip_folder import LIST
from bpilib.data.synthetic import dataset, people
from bpilib.data.trackers import MAPPINGS
from bpilib.skeleton import UCLA
from bpilib.system.files import write_atomically

ACTIONS = ("wave", "clap", "kick", "squat")
TEST_SUBJECTS = (5, 6)
# MediaPipe's joints that Kinect's first skeleton lacks → (a, b, share): they lie beyond a on the line from b to a, by
# that share of the distance between both.
LACKING = {
    "ear": ("head", "", 0), "pinky": ("hand", "wrist", 0.2), "index": ("hand", "wrist", 0.6),
    "thumb": ("hand", "wrist", 0.1), "heel": ("ankle", "foot", 0.3),
}  # fmt: skip


def convert_to_mediapipe(clip: np.ndarray) -> np.ndarray:
    """Convert Kinect's 20 joints to MediaPipe's 33 world landmarks; those of the face are at the head.

    Args:
        clip: (L, 20, 3), metres, Kinect's axes.

    Returns:
        (L, 33, 3) float32, metres, x to the image's right, y down, z away; the middle of the hips at the origin.
    """
    at = dict(zip(UCLA.joints, clip.swapaxes(0, 1)))  # name → (L, 3)
    out = []
    for joint in MAPPINGS["mediapipe"].joints:
        side, _, name = joint.partition(" ")
        far, near, share = LACKING.get(name, (name, "", 0))
        far = at.get(f"{side} {far}", at["head"])
        out.append(far + share * (far - at[f"{side} {near}"]) if near else far)
    poses = np.stack(out, 1) * MAPPINGS["mediapipe"].signs
    hips = [MAPPINGS["mediapipe"].joints.index(f"{side} hip") for side in ("left", "right")]
    return (poses - poses[:, hips].mean(1, keepdims=True)).astype(np.float32)


def write_clips(folder: str | Path, subjects: int = 6, episodes: int = 4) -> Path:
    """Write clips.csv and a .npy of MediaPipe's joints for each performance; deterministic to the byte.

    Args:
        folder: where to.
        subjects: people, from 1; those of `TEST_SUBJECTS` are the test split.
        episodes: clips of each action by each.
    """
    folder, rows = Path(folder), [("name", "label", "subject", "split")]
    for action in ACTIONS:
        for subject in range(1, subjects + 1):
            for episode in range(episodes):
                name = f"{action}_{subject:02d}_{episode:02d}"
                clip = dataset.perform(people.CLASSES.index(action) + 1, subject, episode)
                content = io.BytesIO()
                np.save(content, convert_to_mediapipe(clip))
                write_atomically(folder / f"{name}.npy", content.getvalue())
                rows.append((name, action, str(subject), "test" if subject in TEST_SUBJECTS else "train"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(folder / LIST, text.getvalue())
    return folder
