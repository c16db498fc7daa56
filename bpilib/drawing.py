"""Skeletons on paper and on screen: poses, film strips, animations, attention as links between joints.

Coordinates are those of the sensors: metres, y up, x to the sensor's left, z away from it; so a picture shows -x to
the right, as the camera saw it. Every function returns something that a notebook shows once as a cell's last line.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from .skeleton import Skeleton
from .style import (
    ATTENTION_COLORS,
    INK,
    PALE,
    PART_COLORS,
    Animation,
    Picture,
    check_attention,
    check_clip,
    new_picture,
    part_of_bone,
    part_of_joint,
    present,
    short,
    styled,
)


def _project(points: np.ndarray, azimuth: float = 0.0) -> np.ndarray:
    """(..., 3) → (..., 2): right and up, as the sensor sees it after the person is turned by `azimuth` degrees."""
    a = np.deg2rad(azimuth)
    return np.stack([-(points[..., 0] * np.cos(a) + points[..., 2] * np.sin(a)), points[..., 1]], -1)


def _broadside(pose: np.ndarray, skeleton: Skeleton) -> float:
    """Degrees that turn a pose (V, 3) so that its joints spread from left to right, its front to us if it can be."""
    at, flat = skeleton.joints.index, pose[:, [0, 2]] - pose[:, [0, 2]].mean(0)
    spread = np.linalg.svd(flat)[2][0]
    across = sum(flat[at(f"right {name}")] - flat[at(f"left {name}")] for name in ("shoulder", "hip"))
    spread = spread if spread @ across >= 0 else -spread
    return float(np.degrees(np.arctan2(spread[1], spread[0])))


def draw_skeleton(
    ax, pose, skeleton: Skeleton, azimuth: float = 0.0, colors=None, lw: float = 4.0, joints: bool = True
):
    """Draws one frame with its limbs coloured by part, y up, equal scales, no axes.

    Args:
        ax: matplotlib axes.
        pose: (V, 3) or (M, V, 3), metres; persons that are all zero are left out.
        skeleton: the joint set.
        azimuth: degrees to turn about the vertical; 0 is the sensor's view.
        colors: one colour, or V-1 colours in the order of the bones; None: by part.
        lw: line width of a bone in points.
        joints: whether to draw joints (grey if `colors` is given); a second person's are hollow.

    Returns:
        (persons drawn, V, 2) the points as drawn.

    Raises:
        ValueError: wrong shape.
    """
    pose = check_clip(np.asarray(pose, dtype=float)[(None,) * (4 - np.ndim(pose))], skeleton)[0]
    bones = [PART_COLORS[p] for p in part_of_bone(skeleton)] if colors is None else colors
    dots = [PART_COLORS[p] for p in part_of_joint(skeleton)] if colors is None else PALE
    drawn = []
    for person, xyz in enumerate(pose):
        if not present(xyz):
            continue
        xy = _project(xyz, azimuth)
        segments = xy[np.array(skeleton.bones)]  # (V-1, 2, 2)
        ax.add_collection(LineCollection(segments, colors=bones, linewidths=lw, capstyle="round", zorder=2))
        if joints:
            face = dots if person == 0 else "white"
            ax.scatter(*xy.T, s=2.2 * lw**2, c=face, edgecolors=dots, linewidths=lw / 4, zorder=3)
        drawn.append(xy)
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")
    return np.array(drawn).reshape(-1, skeleton.num_joints, 2)


@styled
def film_strip(clip, skeleton: Skeleton, frames: int = 8, title: str = "", azimuth: float = 0.0) -> Picture:
    """A clip as equally spaced frames from left to right, at one scale, each centred on the persons in it.

    Args:
        clip: (L, M, V, 3), metres.
        skeleton: the joint set.
        frames: how many to show (all, if the clip is shorter).
        title: heading.
        azimuth: degrees to turn about the vertical.

    Returns:
        A figure with one axes per frame.

    Raises:
        ValueError: wrong shape.
    """
    clip = check_clip(clip, skeleton)
    shown = np.unique(np.linspace(0, len(clip) - 1, min(frames, len(clip))).round().astype(int))
    boxes = []  # (left, right, low, high) of each frame; a frame is centred on its persons, all have the same scale
    for pose in clip[shown]:
        x, y = _project(pose[present(pose)], azimuth).reshape(-1, 2).T
        boxes.append((x.min(), x.max(), y.min(), y.max()) if len(x) else (np.nan,) * 4)
    boxes = np.array(boxes) if np.isfinite(boxes).any() else np.array([[-0.5, 0.5, 0, 1]] * len(shown))
    half = max(0.2, np.nanmax(boxes[:, 1] - boxes[:, 0]) / 2 * 1.12)
    low, high = np.nanmin(boxes[:, 2]) - 0.06, np.nanmax(boxes[:, 3]) + 0.06
    width = min(13.0, max(5.0, 3.0 * len(shown) * 2 * half / (high - low)))
    figure = new_picture(width, 0.95 + min(3.2, width / len(shown) * (high - low) / (2 * half)))
    for ax, frame, box in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, boxes):
        draw_skeleton(ax, clip[frame], skeleton, azimuth, lw=3)
        middle = np.nan_to_num(box[:2].mean())
        ax.set(xlim=(middle - half, middle + half), ylim=(low, high))
        ax.set_title(f"frame {frame + 1}" if frame else f"frame 1 of {len(clip)}", fontsize=10, fontweight="normal")
    figure.suptitle(title or None)
    key = [Line2D([], [], color=PART_COLORS[part], lw=4, label=part) for part in skeleton.parts()]
    if present(clip)[:, 1:].any():
        key.append(Line2D([], [], marker="o", ls="", mfc="white", mec=INK, label="hollow joints: person 2"))
    figure.legend(handles=key, ncols=len(key), loc="outside lower center")
    return figure


def animate_grid(
    clips: Sequence,
    titles: Sequence[str],
    skeleton: Skeleton,
    fps: float = 15,
    max_frames: int = 100,
    azimuth: float = 0.0,
    columns: int = 5,
    size: int = 190,
) -> Animation:
    """Clips side by side in one player, each looping at its own length, each scaled to its own extent.

    Args:
        clips: K clips (L, M, V, 3), metres; lengths may differ.
        titles: K captions.
        skeleton: the joint set.
        fps: frames a second.
        max_frames: longer clips are thinned evenly to this many frames.
        azimuth: degrees to turn at the start.
        columns: how many fit in a row of full width.
        size: height of a cell in pixels.

    Returns:
        An object whose HTML plays in a saved notebook without a kernel (about 10 kB a clip of 30 frames).

    Raises:
        ValueError: wrong shapes, or not one title per clip.
    """
    if len(clips) != len(titles) or not len(clips):
        raise ValueError(
            f"expected at least one clip and a title for each, got {len(clips)} clips and {len(titles)} titles"
        )
    payload = []
    for clip, title in zip(clips, titles):
        clip = check_clip(clip, skeleton)
        at = np.linspace(0, len(clip) - 1, min(len(clip), max_frames)).round().astype(int)
        there = present(clip)
        points = clip[there].reshape(-1, 3) if there.any() else np.zeros((1, 3))
        low, high = np.percentile(points, [0.5, 99.5], axis=0)  # one stray joint must not shrink the figure
        middle = (low + high) / 2
        reach = max((high - low)[1] / 2, np.percentile(np.hypot(*(points - middle)[:, [0, 2]].T), 99.5), 1e-6)
        whole = np.where(there[..., None, None], (clip - middle) / reach * 1000, 0).round().astype(int)
        frames = [[p.ravel().tolist() if ok else 0 for p, ok in zip(whole[i], there[i])] for i in at]
        payload.append({"title": str(title), "length": len(clip), "at": at.tolist(), "frames": frames})
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    data = {
        "clips": payload,
        "fps": fps,
        "azimuth": azimuth,
        "key": [[part, PART_COLORS[part]] for part in skeleton.parts()],
        "bones": [[c, p, PART_COLORS[part]] for (c, p), part in zip(skeleton.bones, part_of_bone(skeleton))],
        "joints": [PART_COLORS[part] for part in part_of_joint(skeleton)],
    }
    return Animation(data, max(440, columns * (size + 22) + 16), rows * (size + 36) + 64, size)


def animate(
    clip, skeleton: Skeleton, title: str = "", fps: float = 15, max_frames: int = 200, azimuth: float = 0.0
) -> Animation:
    """One clip as a player; see `animate_grid` for arguments, result and errors."""
    return animate_grid([clip], [title], skeleton, fps, max_frames, azimuth, columns=1, size=340)


def _share(weights: np.ndarray, key, joints: int) -> np.ndarray:
    """(heads, Vq, Vk) to (V,) attention each joint receives, as a multiple of an even share; 0 where it is no key."""
    even = np.bincount(key, minlength=joints) / len(key)
    return np.bincount(key, weights.mean((0, 1)), minlength=joints) / np.where(even > 0, even, 1)


def draw_attention(ax, weights, query, key, pose, skeleton: Skeleton, part: str, top: int = 8, vmax: float = 0.0):
    """One part's attention on one skeleton: discs for the joints looked at, arcs for the strongest links.

    Args:
        ax: matplotlib axes.
        weights: (heads, Vq, Vk), each row over Vk sums to 1.
        query: (Vq,) joints of the part that looks.
        key: (Vk,) joints it can look at; a joint that is in two of the other parts occurs twice.
        pose: (V, 3) or (M, V, 3); the first person is drawn, turned to show its joints apart.
        skeleton: the joint set.
        part: the name of the part that looks.
        top: how many links are drawn as arcs, from the joint that looks to the joint looked at.
        vmax: multiple of an even share at which a disc is full (0: the largest here).

    Returns:
        (V,) the attention each joint receives, mean over heads and queries, as a multiple of an even share.
    """
    links = np.asarray(weights, dtype=float).mean(0)
    share = _share(links[None], key, skeleton.num_joints)
    vmax = vmax or share.max()
    pose = check_clip(np.asarray(pose, dtype=float)[(None,) * (4 - np.ndim(pose))], skeleton)[0, :1]
    color, own = PART_COLORS[part], set(query)
    limbs = [color if {c, p} <= own else PALE for c, p in skeleton.bones]
    drawn = draw_skeleton(ax, pose, skeleton, _broadside(pose[0], skeleton), colors=limbs, lw=5, joints=False)
    ax.set_title(f"{part} looks at …" if len(drawn) else f"{part}: nobody in this frame", color=color)
    if not len(drawn):
        return share
    xy, keys = drawn[0], np.unique(key)
    value = share[keys] / vmax
    ax.scatter(*xy[list(own)].T, s=46, c="white", edgecolors=color, linewidths=2.2, zorder=4)
    ax.scatter(*xy[keys].T, s=18 + 620 * value, c=ATTENTION_COLORS(value), edgecolors=INK, linewidths=0.8, zorder=5)
    pairs = [np.unravel_index(i, links.shape) for i in np.argsort(links, axis=None)[::-1]]
    pairs = [(q, k) for q, k in pairs if query[q] != key[k]][:top]
    for q, k in pairs:
        a, b = xy[query[q]], xy[key[k]]
        bend = f"arc3,rad={0.3 if a[0] < b[0] else -0.3}"
        width = 0.6 + 3.4 * links[q, k] / links[pairs[0]]
        look = {"arrowstyle": "-|>,head_length=5,head_width=2.6", "color": color, "alpha": 0.75, "zorder": 6}
        ax.add_patch(FancyArrowPatch(a, b, connectionstyle=bend, lw=width, shrinkA=4, shrinkB=5, gid="link", **look))
    low, high = xy.min(0), xy.max(0)
    half, middle = np.maximum((high - low) / 2, [0.3, 0.5]), (low + high) / 2
    named = keys[np.argsort(value)[::-1][:4]]
    for side in (-1, 1):
        # names go down a side, each beside its joint or as near as the last one lets it
        at, gap = np.inf, half[1] * 0.2
        column = sorted((j for j in named if (xy[j, 0] >= middle[0]) == (side > 0)), key=lambda j: -xy[j, 1])
        for n, joint in enumerate(column):
            at = max(min(xy[joint, 1] - middle[1], at - gap), (len(column) - 1 - n) * gap - half[1])
            ax.annotate(
                f"{short(skeleton.joints[joint])}\n{share[joint]:.1f}×",
                xy[joint],
                xytext=(middle[0] + side * (half[0] + 0.14 * half[1]), middle[1] + at),
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=10,
                linespacing=1.0,
                zorder=8,
                arrowprops={"arrowstyle": "-", "color": "#8A9097", "lw": 0.8, "shrinkB": 3},
            )
    wide = max(half[0] + 0.7 * half[1], 0.9 * half[1])
    ax.set(xlim=(middle[0] - wide, middle[0] + wide), ylim=(middle[1] - 1.1 * half[1], middle[1] + 1.1 * half[1]))
    return share


@styled
def attention_on_skeleton(maps: Mapping, joints: Mapping, pose, skeleton: Skeleton, top: int = 8, title: str = ""):
    """What each part looks at: a panel a part, discs sized by the attention a joint receives, arcs for strong links.

    Args:
        maps: part → (heads, Vq, Vk) weights of one clip, or their mean over clips.
        joints: part → (query joints, key joints), the model's `attention_joints`.
        pose: (V, 3) or (M, V, 3), a frame of that clip.
        skeleton: the joint set.
        top: how many links a panel.
        title: heading.

    Returns:
        A figure with one axes per part and a colour bar.

    Raises:
        ValueError: shapes or parts that do not fit each other.
    """
    checked = check_attention(maps, joints)
    largest = max(_share(weights, key, skeleton.num_joints).max() for weights, _, key, _ in checked.values())
    figure = new_picture(13, 5.4)
    axes = np.atleast_1d(figure.subplots(1, len(checked)))
    for ax, (part, (weights, query, key, _)) in zip(axes, checked.items()):
        draw_attention(ax, weights, query, key, pose, skeleton, part, top, largest)
    colors = ScalarMappable(Normalize(0, largest), ATTENTION_COLORS)
    bar = figure.colorbar(colors, ax=axes, shrink=0.7, aspect=24, pad=0.02, format="{x:.1f}×")
    bar.set_label("attention a joint receives (1×: an even share)")
    dot = {"marker": "o", "ls": "", "mec": INK}
    handles = [
        Line2D([], [], mfc="white", mew=2, label="joint of the part that looks", **dot),
        Line2D([], [], mfc=ATTENTION_COLORS(0.55), ms=11, label="joint looked at", **dot),
        Line2D([], [], color=INK, lw=3, label=f"arc: one of the {top} strongest links, thicker = more"),
    ]
    figure.legend(handles=handles, ncols=3, loc="outside lower center")
    figure.suptitle(title or "What each body part looks at (mean over heads)")
    return figure
