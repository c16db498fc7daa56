"""Skeletons on paper and on screen: poses in two and three dimensions, film strips, animations.

Coordinates are those of the sensors: metres, y up, x to the sensor's left, z away from it; so a picture shows -x to
the right, as the camera saw it. Every function returns something that a notebook shows once as a cell's last line.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from bpilib.plots.player import Animation
from bpilib.plots.style import (
    GRAY,
    GRID,
    INK,
    PALE,
    PART_COLORS,
    Picture,
    check_clip,
    draw_rows,
    fit_name,
    new_picture,
    part_of_bone,
    part_of_joint,
    present,
    styled,
)
from bpilib.skeleton import Skeleton


def project(points: np.ndarray, azimuth: float = 0.0) -> np.ndarray:
    """(..., 3) → (..., 2): right and up, as the sensor sees it after the person is turned by `azimuth` degrees."""
    a = np.deg2rad(azimuth)
    return np.stack([-(points[..., 0] * np.cos(a) + points[..., 2] * np.sin(a)), points[..., 1]], -1)


def broadside(poses: np.ndarray, skeleton: Skeleton) -> float:
    """Degrees that turn persons (M, V, 3) so that their joints spread from left to right, fronts to us if it can be."""
    at, flat = skeleton.joints.index, poses[..., [0, 2]] - poses[..., [0, 2]].mean((0, 1))  # (M, V, 2)
    spread = np.linalg.svd(flat.reshape(-1, 2), full_matrices=False)[2][0]
    across = sum(flat[:, at(f"right {name}")] - flat[:, at(f"left {name}")] for name in ("shoulder", "hip")).sum(0)
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
        xy = project(xyz, azimuth)
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
    found = []  # (left, right, low, high) of each frame; a frame is centred on its persons, all have the same scale
    for pose in clip[shown]:
        x, y = project(pose[present(pose)], azimuth).reshape(-1, 2).T
        found.append((x.min(), x.max(), y.min(), y.max()) if len(x) else (np.nan,) * 4)
    boxes = np.array(found) if np.isfinite(found).any() else np.array([[-0.5, 0.5, 0, 1]] * len(shown))
    half = max(0.2, np.nanmax(boxes[:, 1] - boxes[:, 0]) / 2 * 1.12)
    low, high = np.nanmin(boxes[:, 2]) - 0.06, np.nanmax(boxes[:, 3]) + 0.06
    width = min(13.0, max(5.0, 1.25 * len(shown), 3.0 * len(shown) * 2 * half / (high - low)))  # 1.25: for its title
    figure = new_picture(width, 0.95 + min(3.2, width / len(shown) * (high - low) / (2 * half)))
    for ax, frame, box in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, boxes):
        draw_skeleton(ax, clip[frame], skeleton, azimuth, lw=3)
        middle = np.nan_to_num(box[:2].mean())
        ax.set(xlim=(middle - half, middle + half), ylim=(low, high))
        ax.set_title(f"frame {frame + 1}" if frame else f"frame 1 of {len(clip)}", fontsize=10, fontweight="normal")
    if title:
        figure.suptitle(fit_name(title, 120))
    _add_part_key(figure, skeleton, bool(present(clip)[:, 1:].any()))
    return figure


def _add_part_key(figure: Picture, skeleton: Skeleton, second: bool) -> None:
    """The part colours below a figure, and what a second person's joints look like."""
    key = [Line2D([], [], color=PART_COLORS[part], lw=4, label=part) for part in skeleton.parts()]
    if second:
        key.append(Line2D([], [], marker="o", ls="", mfc="white", mec=INK, label="hollow joints: person 2"))
    figure.legend(handles=key, ncols=len(key), loc="outside lower center")


@styled
def scene(clip, skeleton: Skeleton, frames: int = 4, title: str = "", azimuth: float | None = None) -> Picture:
    """A clip in space: equally spaced frames in one 3D view, the earlier ones fainter, over their tracks on the floor.

    Args:
        clip: (L, M, V, 3), metres.
        skeleton: the joint set.
        frames: how many poses.
        title: heading.
        azimuth: degrees that the viewer stands to the right of the sensor; None: where the clip is seen broadside.

    Returns:
        A figure with one 3D axes in metres.

    Raises:
        ValueError: wrong shape, or nobody in the clip.
    """
    clip = check_clip(clip, skeleton)
    there = present(clip)
    if not there.any():
        raise ValueError("nobody is in this clip: every frame is zero or not finite")
    space = np.stack([-clip[..., 0], clip[..., 2], clip[..., 1]], -1)  # right, away from the sensor, up
    bones = [PART_COLORS[part] for part in part_of_bone(skeleton)]
    dots = [PART_COLORS[part] for part in part_of_joint(skeleton)]
    floor = space[there][..., 2].min()
    figure = new_picture(9, 6.4)
    ax = figure.add_subplot(projection="3d")
    for person in np.flatnonzero(there.any(0)):
        seen = np.flatnonzero(there[:, person])
        track = space[seen, person].mean(1)
        ax.plot(track[:, 0], track[:, 1], floor, color=GRAY, lw=1.5)
        for n, frame in enumerate(chosen := np.unique(np.linspace(seen[0], seen[-1], frames).round().astype(int))):
            if not there[frame, person]:
                continue
            pose, strength = space[frame, person], (n + 1) / len(chosen)
            flat = np.where([True, True, False], pose, floor)
            ax.add_collection3d(Line3DCollection(flat[np.array(skeleton.bones)], colors=PALE, lw=2))
            segments = pose[np.array(skeleton.bones)]
            ax.add_collection3d(Line3DCollection(segments, colors=bones, lw=1 + 2.5 * strength, alpha=strength))
            face = "white" if person else dots
            ax.scatter(*pose.T, s=16 * strength, c=face, edgecolors=dots, alpha=strength, depthshade=False)
    low, high = space[there].reshape(-1, 3).min(0), space[there].reshape(-1, 3).max(0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2 + 0.15, 0.45)
    ax.set(
        xlim=middle[0] + [-half[0], half[0]], ylim=middle[1] + [-half[1], half[1]], zlim=(floor, floor + 2 * half[2])
    )
    ax.set_box_aspect(half, zoom=0.9)
    if azimuth is None:
        along = np.linalg.svd(space[there][..., :2].reshape(-1, 2) - middle[:2], full_matrices=False)[2][0]
        azimuth = np.degrees(np.arctan2(along[1], along[0])) % 180
        azimuth = (azimuth if azimuth <= 90 else azimuth - 180) + 20
    ax.view_init(elev=14, azim=azimuth - 90)
    ax.set(xlabel="to the right, m", ylabel="away from the sensor, m", zlabel="up, m")
    ax.zaxis.set_rotate_label(False)
    ax.zaxis.label.set_rotation(90)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MultipleLocator(0.5))
        axis.set_pane_color((1, 1, 1, 0))
        axis.set_tick_params(labelsize=8, grid_color=GRID)
    if title:
        figure.suptitle(fit_name(title, 120))
    _add_part_key(figure, skeleton, bool(there[:, 1:].any()))
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
        low, high = np.percentile(points, [0.1, 99.9], axis=0)  # one stray joint must not shrink the figure
        middle = (low + high) / 2
        reach = max((high - low)[1] / 2, np.percentile(np.hypot(*(points - middle)[:, [0, 2]].T), 99.9), 1e-6)
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


@styled
def class_counts(labels, classes: Sequence[str], splits: Mapping[str, Sequence[int]]) -> Picture:
    """How many clips each class has in each split.

    Args:
        labels: (N,) class numbers.
        classes: K names.
        splits: name → indices into `labels`; splits may overlap.

    Returns:
        A figure with one group of bars a class, one bar a split.

    Raises:
        ValueError: a label outside 0…K-1.
    """
    labels = np.asarray(labels, dtype=int)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels must lie in 0…{len(classes) - 1} for {len(classes)} classes, got {labels.max()}")
    names = list(splits)
    counts = {
        name: np.bincount(labels[np.asarray(indices, dtype=int)], minlength=len(classes))
        for name, indices in splits.items()
    }
    figure = new_picture(10, 1.3 + len(classes) * max(0.24, 0.2 * len(names)))
    ax = figure.subplots()
    legend = {name: f"{fit_name(name)} ({counts[name].sum():,} clips)" for name in names}
    bars = pd.DataFrame(
        [(row, legend[name], count) for name in names for row, count in enumerate(counts[name])],
        columns=["class", "split", "clips"],
    )
    colors = [tuple(color) for color in mpl.colormaps["cividis"](np.linspace(0.12, 0.8, max(2, len(names))))]
    sns.barplot(
        bars, x="clips", y="class", hue="split", orient="h", order=range(len(classes)), palette=colors[: len(names)],
        errorbar=None, saturation=1, legend=False, ax=ax,
    )  # fmt: skip
    for name, group in zip(names, ax.containers):
        assert isinstance(group, BarContainer), "a bar plot's containers hold bars"
        group.set_label(legend[name])
        ax.bar_label(group, fontsize=9 if len(names) < 3 else 7, padding=3, fmt="{:g}")
    draw_rows(ax, classes)
    ax.set(xlabel="clips", ylabel="", title="Clips of each class in each split")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.08)
    figure.legend(handles=list(ax.containers), ncols=3, loc="outside lower center")
    return figure


@styled
def clip_lengths(lengths, labels, classes: Sequence[str]) -> Picture:
    """How long the clips of each class are: a box from quartile to quartile, whiskers from 5 to 95 %, the rest as dots.

    Args:
        lengths: (N,) frames.
        labels: (N,) class numbers.
        classes: K names.

    Returns:
        A figure with one box a class.

    Raises:
        ValueError: not one length per label.
    """
    lengths, labels = np.asarray(lengths), np.asarray(labels, dtype=int)
    if lengths.shape != labels.shape:
        raise ValueError(f"expected one length per label, got shapes {lengths.shape} and {labels.shape}")
    figure = new_picture(10, 1.4 + 0.34 * len(classes))
    ax = figure.subplots()
    sns.boxplot(
        x=lengths, y=labels, orient="h", order=range(len(classes)), whis=(5, 95), width=0.6, color=PALE,
        saturation=1, linecolor=INK, linewidth=1.2, medianprops={"linewidth": 2.6}, showcaps=False,
        flierprops={"marker": "o", "markersize": 3.5, "markerfacecolor": GRAY, "markeredgewidth": 0, "alpha": 0.6},
        ax=ax,
    )  # fmt: skip
    draw_rows(ax, classes)
    span = f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}" if len(lengths) else "none"
    ax.set(xlabel="frames", ylabel="", xlim=(0, None), title=f"Length of the clips ({span} frames)")
    return figure
