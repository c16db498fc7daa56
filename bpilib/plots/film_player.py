"""A film and what a network sees in it, in one player: skeleton, attention, class activation, likeliest class."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from bpilib.plots.attention_heatmaps import check_attention
from bpilib.plots.attention_skeleton import received_ratio
from bpilib.plots.style import (
    PART_COLORS,
    SIGNED_COLORS,
    check_clip,
    part_of_bone,
    part_of_joint,
    present,
    ratio_norm,
    signed_norm,
)
from bpilib.skeleton import Skeleton

PAGE = Path(__file__).with_suffix(".html")
PLAYED = 240  # frames of a player at most
BYTES = 3_000_000  # of its pictures at most; frames are left out evenly until they fit
SHADES = 81  # of SIGNED_COLORS in a player


class FilmPlayer:
    """Shows as a player that needs no kernel and no network. `.data` is its HTML, `.payload` what it plays."""

    def __init__(self, payload: dict, size: int = 280):
        self.payload = payload
        script = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        page = PAGE.read_text(encoding="utf-8").replace("SIZE", str(size)).replace("DATA", script)
        frame = f"width:100%;height:{size + 190}px;border:1px solid #c4c9cf;border-radius:8px;background:#fff"
        self.page = page  # no class bpi-figure: a dark theme would make a negative of the film
        self.data = (
            f'<div style="max-width:1280px"><iframe srcdoc="{html.escape(page)}" '
            f'style="{frame}" loading="lazy" title="film, skeleton, attention and class activation">'
            "Player: trust this notebook (File → Trust Notebook) to see it play.</iframe></div>"
        )

    def _repr_html_(self) -> str:
        return self.data


def jpeg(image: np.ndarray, width: int = 320, quality: int = 68) -> str:
    """(H, W, 3) uint8 RGB, made so wide at most, as base64 of a JPEG."""
    picture, out = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((width, width * 4 // 3))
    picture.save(out, "JPEG", quality=quality)
    return base64.b64encode(out.getvalue()).decode()


def play_film(
    frames: Sequence[Mapping],
    windows: Sequence[Mapping],
    joints: Mapping,
    classes: Sequence[str],
    skeleton: Skeleton,
    size: tuple[int, int] = (1, 1),
    fps: float = 10.0,
    title: str = "",
) -> FilmPlayer:
    """Film, skeleton, attention and class activation side by side, in step, over the classes in time.

    Args:
        frames: what is shown, in order; of each: pose (M, V, 3) metres; number and second in the film; stretch, the
            number of the stretch without a gap that it is in; window, the number of its window; clip_frame, its frame
            in the window's clip; filled, whether it was interpolated; and where there is a film jpeg (base64) and over
            (M, V, 2) pixels, NaN for nobody.
        windows: of each: probabilities (K,), maps part → (heads, Vq, Vk) (empty for networks without attention),
            activation (M, S, V) of the likeliest class, frames (S,) the clip's frame of each step.
        joints: part → (query joints, key joints) of the attention.
        classes: K names.
        skeleton: the joint set.
        size: width and height of the film in the pixels of `over`.
        fps: frames shown a second.
        title: of the film.

    Returns:
        An object whose HTML plays in a saved notebook without a kernel; its pictures are `BYTES` at most.

    Raises:
        ValueError: no frame, or shapes that do not fit.
    """
    if not frames or not windows:
        raise ValueError(f"expected frames and windows to play, got {len(frames)} and {len(windows)}")
    poses = [check_clip(frame["pose"][None], skeleton)[0] for frame in frames]
    keep = _fitting([len(frame.get("jpeg") or "") for frame in frames])
    used = sorted({frames[n]["window"] for n in keep})  # of hours there are many; the player holds what it shows
    there = np.concatenate([pose[present(pose)] for pose in poses if present(pose).any()] or [np.zeros((1, 1, 3))])
    low, high = np.percentile(there.reshape(-1, 3), [0.1, 99.9], axis=0)
    middle = (low + high) / 2
    reach = max((high - low)[1] / 2, np.percentile(np.hypot(*(there - middle)[..., [0, 2]].reshape(-1, 2).T), 99), 1e-6)
    drawn = []
    for n in keep:
        frame, pose = frames[n], poses[n]
        over = np.asarray(frame.get("over", np.zeros((0, 1, 2))), float)
        window = windows[frame["window"]]
        drawn.append({
            "number": int(frame["number"]), "second": round(float(frame["second"]), 3),
            "window": used.index(frame["window"]),
            "stretch": int(frame.get("stretch", 0)), "filled": bool(frame.get("filled", False)),
            "step": int(np.abs(np.asarray(window["frames"]) - frame["clip_frame"]).argmin()),
            "pose": [((p - middle) / reach * 1000).round().astype(int).ravel().tolist() if ok else 0
                     for p, ok in zip(pose, present(pose))],
            "over": [p.round(1).ravel().tolist() if np.isfinite(p).all() else 0 for p in over],
            "jpeg": frame.get("jpeg"),
        })  # fmt: skip
    shades = [to_hex(SIGNED_COLORS(share)) for share in np.linspace(0, 1, SHADES)]
    payload = {
        "title": title, "fps": fps * len(keep) / len(frames), "size": list(map(int, size)), "frames": drawn,
        "windows": _windows([windows[n] for n in used], joints, classes, skeleton), "colours": shades,
        "bones": [[c, p, PART_COLORS[part]] for (c, p), part in zip(skeleton.bones, part_of_bone(skeleton))],
        "part_of_bone": list(part_of_bone(skeleton)),
        "joints": [PART_COLORS[part] for part in part_of_joint(skeleton)],
        "key": [[part, PART_COLORS[part]] for part in skeleton.parts()],
    }  # fmt: skip
    return FilmPlayer(payload)


def _fitting(sizes: list[int]) -> np.ndarray:
    """Which frames are shown: evenly fewer until there are `PLAYED` of them and they have `BYTES`."""
    count = min(len(sizes), PLAYED)
    while True:
        keep = np.linspace(0, len(sizes) - 1, count).round().astype(int)
        if count <= 2 or sum(sizes[n] for n in keep) <= BYTES:
            return keep
        count = count * 9 // 10


def _windows(windows: Sequence[Mapping], joints: Mapping, classes: Sequence[str], skeleton: Skeleton) -> list[dict]:
    """What the player shows of each window; one scale of colours for all of them."""
    ratios = []
    for window in windows:
        checked = check_attention(window["maps"], joints) if window["maps"] else {}
        ratios.append({part: received_ratio(c[0], c[2], skeleton.num_joints) for part, c in checked.items()})
    every = [r for row in ratios for r in row.values()]
    norm = ratio_norm(*(every or [np.ones(1)]))
    scale = signed_norm(*(np.asarray(window["activation"]) for window in windows)).vmax
    out = []
    for window, row in zip(windows, ratios):
        shares = np.asarray(window["probabilities"], float)
        added = np.asarray(window["activation"], float)  # (M, S, V)
        if shares.shape != (len(classes),) or added.ndim != 3 or added.shape[2] != skeleton.num_joints:
            raise ValueError(
                f"expected ({len(classes)},) probabilities and (M, S, {skeleton.num_joints}) activation, got "
                f"{shares.shape} and {added.shape}"
            )
        order = np.argsort(-shares, kind="stable")[:5]
        seen = {
            part: [None if np.isnan(r) else [round(float(r), 2), round(float(norm(r)) * (SHADES - 1))] for r in values]
            for part, values in row.items()
        }
        most = {
            part: [(skeleton.joints[j], round(float(values[j]), 2)) for j in np.argsort(-np.nan_to_num(values))[:3]
                   if values[j] >= 1.05]
            for part, values in row.items()
        }  # fmt: skip
        out.append({
            "top": [[classes[k], round(float(shares[k]), 3)] for k in order],
            "attention": seen, "most": most,
            "activation": (100 * added / scale).round().astype(int).swapaxes(0, 1).tolist(),  # (S, M, V)
            "moment": added.sum((0, 2)).round(3).tolist(),
        })  # fmt: skip
    return out
