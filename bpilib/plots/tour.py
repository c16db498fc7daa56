"""What notebook 00 draws: the graph on the body, how far a joint sees, what is fed, attention and loss by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator

from bpilib.plots.activation import joints_by_part
from bpilib.plots.attention_heatmaps import draw_map
from bpilib.plots.clips import broadside, draw_skeleton, project
from bpilib.plots.style import (
    GRAY,
    GRID,
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    Picture,
    check_clip,
    fit_name,
    new_picture,
    part_of_bone,
    part_of_joint,
    short,
    signed_colors,
    signed_norm,
    styled,
)
from bpilib.skeleton import MODALITIES, Skeleton

_AXES = ("x, to the left", "y, up", "z, away")  # of the sensor
_LINES = ("-", "--", ":")


def _draw_body(ax, pose, skeleton: Skeleton) -> tuple[np.ndarray, float]:
    """Draw the bones of (V, 3) broadside, in grey; returns the joints as drawn (V, 2), and the turn in degrees."""
    pose = check_clip(np.asarray(pose, dtype=float)[None, None], skeleton)[0]
    turn = broadside(pose, skeleton)
    (xy,) = draw_skeleton(ax, pose, skeleton, turn, colors=PALE, lw=3, joints=False)
    ax.margins(0.1)
    return xy, turn


def _shape_of(pose, skeleton: Skeleton) -> float:
    """Height over width of a pose (V, 3) that is drawn broadside."""
    pose = check_clip(np.asarray(pose, dtype=float)[None, None], skeleton)[0]
    width, height = np.ptp(project(pose[0], broadside(pose, skeleton)), axis=0)
    return float(np.clip(height / max(width, 1e-6), 0.6, 2.4))


def _draw_arrow(ax, start, end, color: str, lw: float = 1.6, head: float = 9, **given: Any) -> None:
    look: dict[str, Any] = {"shrinkA": 0.0, "shrinkB": 0.0, "color": color, "lw": lw, "zorder": 4} | given
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=head, **look))


def _write_number(value: float) -> str:
    """Two decimals, with a minus sign as wide as a plus."""
    return f"{value:.2f}".replace("-", "−")


def find_clearest_frame(clip, skeleton: Skeleton) -> int:
    """The frame of (L, V, 3) that is best drawn: whose two nearest joints are farthest apart when seen broadside.

    Raises:
        ValueError: wrong shape.
    """
    nearest = []
    for pose in check_clip(np.asarray(clip, dtype=float)[:, None], skeleton):
        xy = project(pose[0], broadside(pose, skeleton))
        distances = np.linalg.norm(xy[:, None] - xy, axis=-1)  # (V, V)
        nearest.append(distances[np.triu_indices(len(xy), 1)].min())
    return int(np.argmax(nearest))


@styled
def graph_subsets(pose, skeleton: Skeleton) -> Picture:
    """The three subsets of links of a graph convolution: who takes from whom.

    Args:
        pose: (V, 3), metres.
        skeleton: the joint set.

    Returns:
        A figure with a body a subset; an arrow goes from the joint that gives to the joint that takes.

    Raises:
        ValueError: wrong shape.
    """
    figure = new_picture(11, 1.2 + 2.6 * _shape_of(pose, skeleton))
    axes = figure.subplots(1, 3)
    joints = [PART_COLORS[part] for part in part_of_joint(skeleton)]
    bones = [PART_COLORS[part] for part in part_of_bone(skeleton)]
    titles = (f"self: {skeleton.num_joints} links", f"inward: {len(bones)} links", f"outward: {len(bones)} links")
    for ax, title in zip(axes, titles):
        xy, _ = _draw_body(ax, pose, skeleton)
        ax.set_title(title)
        if title.startswith("self"):
            ax.scatter(*xy.T, s=90, facecolors="none", edgecolors=joints, linewidths=2, zorder=4)
        ax.scatter(*xy.T, s=16, c=joints, zorder=5)
        for (child, parent), color in zip(skeleton.bones, bones):
            ends = {"inward": (child, parent), "outward": (parent, child)}.get(title.split(":")[0])
            if ends:
                start, end = xy[list(ends)]
                _draw_arrow(ax, start + 0.12 * (end - start), start + 0.88 * (end - start), color, 1.8, 11)
    figure.suptitle("Which joints does a joint take in?")
    return figure


@styled
def receptive_field(pose, shares: Mapping[str, np.ndarray], joint: int, skeleton: Skeleton) -> Picture:
    """Of which joints a joint's feature is made, after more and more blocks.

    Args:
        pose: (V, 3), metres.
        shares: title → (V,) share of each joint, 0 where it has not been taken in.
        joint: whose feature it is.
        skeleton: the joint set.

    Returns:
        A figure with a body a title; discs are the joints taken in, larger with their share.

    Raises:
        ValueError: wrong shapes.
    """
    for title, share in shares.items():
        if np.shape(share) != (skeleton.num_joints,):
            raise ValueError(f"expected ({skeleton.num_joints},) shares in {title!r}, got {np.shape(share)}")
    shape = _shape_of(pose, skeleton)
    figure = new_picture(13, 1.3 + 13 / max(4, len(shares)) * 0.85 * shape)
    parts = part_of_joint(skeleton)
    for ax, (title, share) in zip(np.atleast_1d(figure.subplots(1, len(shares))), shares.items()):
        xy, _ = _draw_body(ax, pose, skeleton)
        share = np.asarray(share, dtype=float)
        seen = share > 0
        ax.scatter(*xy[~seen].T, s=14, c="white", edgecolors=PALE, linewidths=1.2, zorder=3)
        colors = [PART_COLORS[parts[j]] for j in np.flatnonzero(seen)]
        ax.scatter(*xy[seen].T, s=22 + 420 * share[seen], c=colors, edgecolors="white", linewidths=0.8, zorder=4)
        ax.scatter(*xy[joint], s=22 + 420 * share[joint], facecolors="none", edgecolors=INK, linewidths=1.8, zorder=5)
        ax.set_title(f"{title}\n{seen.sum()} of {len(seen)} joints", fontsize=11)
    figure.suptitle(f"What has the {skeleton.joints[joint]} (ringed) taken in?")
    return figure


@styled
def topologies(matrices: Mapping[str, np.ndarray], skeleton: Skeleton, title: str = "") -> Picture:
    """Graphs as matrices: how much each joint (row) takes from each (column), on one scale.

    Args:
        matrices: title → (V, V).
        skeleton: the joint set.
        title: heading.

    Returns:
        A figure with a map a matrix, joints grouped by part.

    Raises:
        ValueError: wrong shape.
    """
    count = skeleton.num_joints
    for name, matrix in matrices.items():
        if np.shape(matrix) != (count, count):
            raise ValueError(f"expected ({count}, {count}) in {name!r}, got {np.shape(matrix)}")
    order, groups = joints_by_part(skeleton)
    ordered = {
        name: np.ma.masked_equal(np.asarray(matrix, dtype=float)[np.ix_(order, order)], 0)  # no link: white
        for name, matrix in matrices.items()
    }
    norm = signed_norm(*(np.asarray(matrix, dtype=float) for matrix in matrices.values()))
    figure = new_picture(14, 1.0 + 13 / len(matrices))
    axes = np.atleast_1d(figure.subplots(1, len(matrices)))
    names = [short(skeleton.joints[j]) for j in order]
    for ax, (name, matrix) in zip(axes, ordered.items()):
        draw_map(ax, matrix, names if ax is axes[0] else [], order, groups, skeleton, norm, size=8.5)
        for _, start, _ in groups:
            if start:
                ax.axhline(start - 0.5, color=INK, lw=1.5)
        ax.set_title(name, fontsize=11, pad=27)
    for part, start, stop in groups:
        for label in axes[0].get_yticklabels()[start:stop]:
            label.set_color(PART_INK[part])
    axes[0].set_ylabel("joint that takes")
    bar = figure.colorbar(ScalarMappable(norm, signed_colors()), ax=axes, format="{x:+.2g}", pad=0.01, aspect=25)
    bar.set_label("how much it takes")
    figure.suptitle(fit_name(title, 120) if title else "Which joint takes how much from which?")
    return figure


@styled
def body_parts(pose, skeleton: Skeleton) -> Picture:
    """The parts of BPI beside those of GAP, in the colours that they have everywhere.

    Args:
        pose: (V, 3), metres.
        skeleton: the joint set.

    Returns:
        A figure with a body a method; a joint of two parts has two rings.

    Raises:
        ValueError: wrong shape.
    """
    figure = new_picture(8.5, 1.0 + 3.0 * _shape_of(pose, skeleton))
    for ax, (model, name) in zip(figure.subplots(1, 2), {"bpi": "BPI", "gap": "GAP"}.items()):
        parts = skeleton.parts("joint", model)
        xy, _ = _draw_body(ax, pose, skeleton)
        counted = np.zeros(skeleton.num_joints, dtype=int)
        for part, joints in parts.items():
            for joint in joints:
                ring = {"facecolors": "none", "edgecolors": PART_COLORS[part], "linewidths": 2.6, "zorder": 4}
                ax.scatter(*xy[joint], s=60 + 110 * counted[joint], **ring)
                counted[joint] += 1
        key = [
            Line2D([], [], ls="", marker="o", mfc="none", mec=PART_COLORS[part], mew=2.6, ms=8,
                   label=f"{part} ({len(joints)})")
            for part, joints in parts.items()
        ]  # fmt: skip
        ax.set_title(f"{name}: {len(parts)} parts")
        ax.legend(handles=key, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2)
    figure.suptitle("Which joints make a part?")
    return figure


@styled
def modalities(pose, vectors: Mapping[str, np.ndarray], skeleton: Skeleton, stretch: float = 1.0) -> Picture:
    """What each modality says of one frame, as arrows on the body.

    Args:
        pose: (V, 3), metres.
        vectors: modality → (V, 3), what it holds of that frame in metres, for the modalities to draw.
        skeleton: the joint set.
        stretch: factor by which the arrows of motion are drawn longer than they are.

    Returns:
        A figure with a body a modality. Bones are drawn from the parent, motion from the joint.

    Raises:
        ValueError: wrong shapes, or an unknown modality.
    """
    for name, values in vectors.items():
        if name not in MODALITIES or np.shape(values) != (skeleton.num_joints, 3):
            raise ValueError(f"expected a modality and ({skeleton.num_joints}, 3), got {name!r}, {np.shape(values)}")
    figure = new_picture(13, 1.4 + 13 / max(3, len(vectors)) * 0.85 * _shape_of(pose, skeleton))
    joints = [PART_COLORS[part] for part in part_of_joint(skeleton)]
    for ax, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(vectors))), vectors.items()):
        xy, turn = _draw_body(ax, pose, skeleton)
        along = project(np.asarray(values, dtype=float), turn)
        moves = name.endswith("motion")
        if moves or name == "joint":
            ax.scatter(*xy.T, s=34 if name == "joint" else 8, c=joints, zorder=5)
        if name != "joint":
            starts = xy if moves else xy[skeleton.parents]
            for start, way, color in zip(starts, along * (stretch if moves else 1.0), joints):
                if np.hypot(*way) > 0.01:
                    _draw_arrow(ax, start, start + way, color, 2, 11)
        longer = f"\n(arrows {stretch:g} times as long)" if moves and stretch != 1 else ""
        ax.set_title(name.replace("_", " ") + longer, fontsize=11)
    reach = np.array([(*ax.get_xlim(), *ax.get_ylim()) for ax in figure.axes])  # left, right, low, high of each
    left, right, low, high = *reach[:, :2].T, *reach[:, 2:].T
    for ax in figure.axes:  # all bodies at one scale
        ax.set(xlim=(left.min(), right.max()), ylim=(low.min(), high.max()))
    tall = (high.max() - low.min()) / (right.max() - left.min())
    figure.set_figheight(1.2 + min(7.0, 13 / len(vectors) * tall))
    figure.suptitle("What does each modality say of this frame?")
    return figure


@styled
def raw_and_fed(clip, fed, joint: int, skeleton: Skeleton) -> Picture:
    """A clip as it was recorded beside the same clip as the network is fed: one joint's way, and one frame.

    Args:
        clip: (L, V, 3), metres.
        fed: (T, V, 3), in the network's units.
        joint: whose way is drawn.
        skeleton: the joint set.

    Returns:
        A figure with a row for each: lines over time, the middle frame beside them.

    Raises:
        ValueError: wrong shapes.
    """
    rows = {"raw": np.asarray(clip, dtype=float), "fed": np.asarray(fed, dtype=float)}
    figure = new_picture(11, 6.6)
    grid = figure.subplots(2, 2, width_ratios=[2.4, 1])
    colors = [PART_COLORS[part] for part in part_of_bone(skeleton)]
    ink = PART_INK[part_of_joint(skeleton)[joint]]
    units = {"raw": "metres", "fed": "units of the network"}
    for (left, right), (name, poses) in zip(grid, rows.items()):
        poses = check_clip(poses[:, None], skeleton)[:, 0]
        for axis, (label, line) in enumerate(zip(_AXES, _LINES)):
            left.plot(np.arange(1, len(poses) + 1), poses[:, joint, axis], line, color=ink, lw=2, label=label)
        left.set(ylabel=units[name], xlim=(1, max(2, len(poses))))
        left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2))
        left.grid(color=GRID)
        left.set_title(f"{name}: {len(poses)} frames, the {skeleton.joints[joint]}")
        middle = len(poses) // 2
        left.axvline(middle + 1, color=GRAY, lw=1)
        draw_skeleton(right, poses[middle], skeleton, 0.0, colors=colors, lw=3, joints=False)
        right.margins(0.1)
        right.set_title(f"frame {middle + 1} (grey line)", fontsize=11, fontweight="normal")
    grid[1, 0].set_xlabel("frame")
    grid[0, 0].legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.09))
    figure.suptitle("What does the network get to see?")
    return figure


@styled
def attention_by_hand(pose, query: int, keys: Sequence[int], scores, weights, skeleton: Skeleton) -> Picture:
    """One joint that looks at some others: scores, the weights that softmax makes of them, and the body.

    Args:
        pose: (V, 3), metres.
        query: the joint that looks.
        keys: (Vk,) joints it looks at.
        scores: (Vk,) before softmax.
        weights: (Vk,) after it; they sum to 1.
        skeleton: the joint set.

    Returns:
        A figure with the body, the scores and the weights.

    Raises:
        ValueError: shapes that do not fit, or weights that do not sum to 1.
    """
    scores, weights = np.asarray(scores, dtype=float), np.asarray(weights, dtype=float)
    if not scores.shape == weights.shape == (len(keys),) or not np.isclose(weights.sum(), 1):
        raise ValueError(f"expected {len(keys)} scores and weights that sum to 1, got {scores} and {weights}")
    figure = new_picture(11, 4.6)
    body, left, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    xy, _ = _draw_body(body, pose, skeleton)
    parts = part_of_joint(skeleton)
    for joint, weight in zip(keys, weights):
        bend = 0.25 if xy[query, 0] < xy[joint, 0] else -0.25
        _draw_arrow(body, xy[query], xy[joint], PART_COLORS[parts[query]], 1 + 7 * weight, 12 + 12 * weight,
               connectionstyle=f"arc3,rad={bend}", alpha=0.85, shrinkA=6, shrinkB=7)  # fmt: skip
        body.scatter(*xy[joint], s=90, c=PART_COLORS[parts[joint]], edgecolors="white", zorder=5)
    body.scatter(*xy[query], s=90, c="white", edgecolors=PART_COLORS[parts[query]], linewidths=2.4, zorder=5)
    body.set_title(f"the {skeleton.joints[query]} looks")
    names = [short(skeleton.joints[joint]) for joint in keys]
    for ax, values, title in ((left, scores, "scores"), (right, weights, "weights")):
        bars = ax.barh(range(len(keys)), values, color=[PART_COLORS[parts[joint]] for joint in keys])
        ax.bar_label(bars, labels=[_write_number(value) for value in values], padding=4, fontsize=11)
        ax.set_yticks(range(len(keys)), names if ax is left else [])
        ax.invert_yaxis()
        ax.axvline(0, color=INK, lw=0.8)
        ax.tick_params(axis="y", length=0)
        ax.margins(x=0.3)
        ax.set_title(title)
        ax.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))
    left.set_xlabel("query · key / √2")
    right.set(xlabel="softmax of the scores", xlim=(0, 1.15), xticks=(0, 0.5, 1))
    figure.suptitle("How does a joint share out its attention?")
    return figure


@styled
def contrastive_steps(matrices: Mapping[str, np.ndarray], clips: Sequence[str], texts: Sequence[str]) -> Picture:
    """From similarities of clips and texts to what the contrastive loss compares, number by number.

    Args:
        matrices: title → (N, N), a row a clip, a column a text.
        clips, texts: N names each.

    Returns:
        A figure with a map a matrix.

    Raises:
        ValueError: wrong shapes.
    """
    size = (len(clips), len(texts))
    figure = new_picture(1.8 + 3.1 * len(matrices), 4.4)
    axes = np.atleast_1d(figure.subplots(1, len(matrices)))
    for ax, (title, matrix) in zip(axes, matrices.items()):
        matrix = np.asarray(matrix, dtype=float)
        if matrix.shape != size:
            raise ValueError(f"expected {size} in {title!r}, got {matrix.shape}")
        norm = signed_norm(matrix) if (matrix < 0).any() else Normalize(-1, 1)
        ax.imshow(matrix, cmap=signed_colors(), norm=norm)
        for row, column in np.ndindex(size):
            dark = signed_colors()(norm(matrix[row, column]))[:3] @ np.array([0.3, 0.6, 0.1]) < 0.5
            ax.text(column, row, _write_number(float(matrix[row, column])), ha="center", va="center",
                    color="white" if dark else INK)  # fmt: skip
        ax.set_xticks(range(len(texts)), [fit_name(text) for text in texts], rotation=35, ha="right", fontsize=10)
        ax.set_yticks(range(len(clips)), [fit_name(clip) for clip in clips] if ax is axes[0] else [], fontsize=10)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("text")
    axes[0].set_ylabel("clip")
    figure.suptitle("What does the loss compare?")
    return figure
