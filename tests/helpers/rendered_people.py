"""The built-in people as shaded figures before a wall: films of which the truth is known. OpenCV writes them."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bpilib.data import synthetic
from bpilib.data.synthetic import dataset
from bpilib.skeleton import UCLA

WIDTH, HEIGHT, FOCAL, AWAY = 320, 240, 293.0, 3.1  # pixels, pixels, pixels, metres from the camera to the hips
RATE = 30
SKIN, SHIRT, TROUSERS, SHOES, HAIR, LIPS = (
    np.array(rgb, float)
    for rgb in ((224, 172, 138), (52, 98, 168), (48, 48, 66), (96, 64, 44), (58, 40, 30), (170, 72, 72))
)
LIGHT = np.array([-0.4, 0.7, -0.6]) / np.linalg.norm([-0.4, 0.7, -0.6])
Limb = tuple[np.ndarray, np.ndarray, float, float, np.ndarray]  # from, to (metres), radius there and there, colour


def limb(start, stop, thick: float, thin: float, colour) -> list[Limb]:
    """A rounded cone from one point to another."""
    return [(np.asarray(start, float), np.asarray(stop, float), thick, thin, np.asarray(colour, float))]


def body(pose: np.ndarray) -> list[Limb]:
    """(20, 3) joints to the limbs of a dressed person with a face."""
    at = dict(zip(UCLA.joints, pose))
    hips, neck, head = at["hip centre"], at["shoulder centre"], at["head"]
    up = (neck - hips) / np.linalg.norm(neck - hips)
    across = at["left shoulder"] - at["right shoulder"]
    across /= np.linalg.norm(across)
    front = np.cross(across, up)
    limbs = limb(hips + up * 0.06, neck - up * 0.05, 0.12, 0.11, SHIRT) + limb(neck, head, 0.05, 0.05, SKIN)
    for side in ("left", "right"):
        shoulder, elbow, wrist, hand = (at[f"{side} {name}"] for name in ("shoulder", "elbow", "wrist", "hand"))
        hip, knee, ankle, foot = (at[f"{side} {name}"] for name in ("hip", "knee", "ankle", "foot"))
        limbs += limb(shoulder, elbow, 0.057, 0.045, SHIRT) + limb(elbow, wrist, 0.041, 0.03, SKIN)
        limbs += limb(wrist, hand + (hand - wrist) * 0.6, 0.034, 0.03, SKIN)
        limbs += limb(hip, knee, 0.085, 0.06, TROUSERS) + limb(knee, ankle, 0.056, 0.04, TROUSERS)
        limbs += limb(ankle, foot, 0.045, 0.04, SHOES) + limb(hips, hip, 0.1, 0.1, TROUSERS)
        limbs += limb(hip + up * 0.06, shoulder - up * 0.05, 0.1, 0.075, SHIRT)
    limbs += limb(head - up * 0.03, head + up * 0.06, 0.085, 0.094, SKIN)
    limbs += limb(head - front * 0.02 + up * 0.075, head - front * 0.05 - up * 0.02, 0.097, 0.09, HAIR)
    limbs += limb(head + front * 0.09 + up * 0.02, head + front * 0.106 - up * 0.01, 0.012, 0.016, SKIN)  # nose
    mouth = head + front * 0.083 - up * 0.042
    limbs += limb(mouth - across * 0.024, mouth + across * 0.024, 0.01, 0.01, LIPS)
    for side in (-1, 1):
        eye = head + front * 0.088 + across * 0.034 * side + up * 0.035
        brow = head + front * 0.085 + across * 0.034 * side + up * 0.061
        ear = head + across * 0.095 * side + up * 0.01
        limbs += limb(eye, eye, 0.014, 0.014, (250, 250, 250)) + limb(ear, ear, 0.022, 0.022, SKIN)
        limbs += limb(eye + front * 0.01, eye + front * 0.01, 0.008, 0.008, (20, 20, 20))
        limbs += limb(brow - across * 0.018, brow + across * 0.018, 0.008, 0.008, HAIR)
    return limbs


def draw(persons: Iterable[np.ndarray]) -> np.ndarray:
    """Persons, each (20, 3) metres in camera axes (x to the camera's left, y up, z away), to (H, W, 3) uint8 RGB."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = (200 - 60 * rows / HEIGHT)[..., None] * np.array([1, 0.98, 0.94])
    picture[rows > HEIGHT * 0.78] = (120, 105, 90)
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for start, stop, thick, thin, colour in (limb for pose in persons for limb in body(pose)):
        ends = np.stack([start, stop])
        u, v = WIDTH / 2 - FOCAL * ends[:, 0] / ends[:, 2], HEIGHT / 2 - FOCAL * ends[:, 1] / ends[:, 2]
        r = FOCAL * np.array([thick, thin]) / ends[:, 2]
        low, high = np.maximum([v.min() - r.max(), u.min() - r.max()], 0), [v.max() + r.max(), u.max() + r.max()]
        box = np.s_[int(low[0]) : max(0, int(high[0] + 2)), int(low[1]) : max(0, int(high[1] + 2))]
        du, dv = u[1] - u[0], v[1] - v[0]
        along = (((columns[box] - u[0]) * du + (rows[box] - v[0]) * dv) / max(du**2 + dv**2, 1e-9)).clip(0, 1)
        radius = r[0] + along * (r[1] - r[0])  # of the limb there, in pixels
        right, down = (columns[box] - u[0] - along * du) / radius, (rows[box] - v[0] - along * dv) / radius
        out = np.sqrt(np.maximum(1 - right**2 - down**2, 0))  # towards the camera, in radii
        here = start[2] + along * (stop[2] - start[2]) - (thick + along * (thin - thick)) * out
        seen = (right**2 + down**2 < 1) & (here < depth[box])
        light = np.clip(-right * LIGHT[0] - down * LIGHT[1] - out * LIGHT[2], 0, 1)
        depth[box][seen] = here[seen]
        picture[box][seen] = (0.45 + 0.6 * light[seen])[:, None] * colour
    return picture.clip(0, 255).astype(np.uint8)


def acted(label: int, subject: int, episode: int = 0, turned: float = 0.0, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """(L, 20, 3) at 30 a second, metres in camera axes: a performance, turned by degrees, before the camera."""
    clip = synthetic.perform(label, subject, episode)
    angle = np.deg2rad(turned)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    clip = (clip - clip[0].mean(0)) @ turn.T
    times = np.arange(0, len(clip) - 1 + 1e-6, dataset.FPS / RATE)
    low = np.minimum(times.astype(int), len(clip) - 2)
    share = (times - low)[:, None, None]
    return (1 - share) * clip[low] + share * clip[low + 1] + np.array([0, 0, AWAY]) + np.asarray(shift)


def write_film(path: Path, frames: Iterable[np.ndarray], rate: float = RATE, codec: str = "mp4v") -> Path:
    """Frames (H, W, 3) RGB to a film."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for frame in frames:
        writer = writer or cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, frame.shape[1::-1])
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def film_of(path: Path, *clips: np.ndarray, rate: float = RATE) -> Path:
    """A film of one clip or of several persons at once, as long as the shortest."""
    return write_film(path, (draw(poses) for poses in zip(*clips)), rate)


def write_data_set(
    folder: Path, subjects: Iterable[int], test: Iterable[int], episodes: int = 1, most: int = 90
) -> Path:
    """Films of the ten classes, each of `most` frames at most, and clips.csv; people of `test` are the test split."""
    rows, test = [("name", "label", "subject", "split")], {*test}
    for label, action in enumerate(synthetic.CLASSES, 1):
        for subject in subjects:
            for episode in range(episodes):
                name = f"{action.replace(' ', '_')}_{subject:02d}_{episode:02d}"
                film_of(folder / f"{name}.mp4", acted(label, subject, episode)[:most])
                rows.append((name, action, str(subject), "test" if subject in test else "train"))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
