"""Heat maps with named rows and columns: confusion, attention between joints, skeleton–text similarity."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import ScaledTranslation

from .skeleton import Skeleton
from .style import (
    GRID,
    INK,
    PART_COLORS,
    PART_INK,
    SIGNED_COLORS,
    Picture,
    check_attention,
    new_picture,
    ratio_bar,
    ratio_norm,
    short,
    signed_norm,
    styled,
)

MOST_CLASSES = 120  # of which an image for TensorBoard has rows and columns; NTU RGB+D 120 has as many

_RIGHTS = LinearSegmentedColormap.from_list("right", ["#FFFFFF", "#9CC3E2", "#0062A8", "#003A66"])
_WRONGS = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#F7C49B", "#D55E00", "#7A3600"])


def check_matrix(matrix, classes: Sequence[str], what: str) -> np.ndarray:
    """A matrix as float64 (K, K), or a ValueError that says what was expected."""
    matrix = np.asarray(matrix, dtype=float)
    if matrix.shape != (len(classes),) * 2:
        raise ValueError(
            f"{what} must be ({len(classes)}, {len(classes)}), one row and column a class, got {matrix.shape}"
        )
    return matrix


@styled
def confusion(matrix, classes: Sequence[str]) -> Picture:
    """Confusion matrix in per cent of the true class: the diagonal blue (right), the rest orange (wrong).

    Args:
        matrix: (K, K) counts, rows the true class, columns the predicted one.
        classes: K names; up to 20, every share from 0.5 % is written; above, the wrong ones from 10 %.

    Returns:
        A figure that grows with K.

    Raises:
        ValueError: wrong shape.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    count = len(classes)
    total = matrix.sum(1, keepdims=True)
    share = matrix / np.where(total > 0, total, 1)
    diagonal = np.eye(count, dtype=bool)
    cell = 0.62 if count <= 20 else 0.21
    longest = 0.085 * max(map(len, classes))
    figure = new_picture(max(6.5, count * cell + longest + 0.8), max(5.2, count * cell + longest))
    ax = figure.subplots()
    image = np.where(diagonal[..., None], _RIGHTS(share), _WRONGS(np.sqrt(share)))  # the root shows rare mistakes
    ax.imshow(image)
    written = share >= 0.005 if count <= 20 else (share >= 0.1) & ~diagonal
    for i, j in zip(*np.nonzero(written)):
        color = "white" if share[i, j] > (0.55 if i == j else 0.3) else INK
        size = 10 if count <= 20 else 6
        ax.text(j, i, f"{share[i, j] * 100:.0f}", ha="center", va="center", color=color, fontsize=size)
    names = 10 if count <= 20 else 8
    ax.set_xticks(range(count), classes, rotation=90 if count > 20 else 40, ha="center" if count > 20 else "right",
                  rotation_mode="default" if count > 20 else "anchor", fontsize=names)  # fmt: skip
    ax.set_yticks(range(count), classes, fontsize=names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=GRID, lw=0.6)
    ax.tick_params(which="minor", length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    top1 = np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(f"{top1:.1%} of {matrix.sum():,.0f} clips right\nper cent of the true class; blue right, orange wrong")
    return figure


def _most_mistaken(matrix: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The classes in most mistakes, up to `MOST_CLASSES` in label order; all others together are one more class."""
    if len(classes) <= MOST_CLASSES:
        return matrix, list(classes)
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
    place = np.full(len(classes), MOST_CLASSES)  # of each class in the smaller matrix
    place[kept] = np.arange(MOST_CLASSES)
    rows = np.zeros((MOST_CLASSES + 1, len(classes)))
    np.add.at(rows, place, matrix)
    small = np.zeros((MOST_CLASSES + 1,) * 2)
    np.add.at(small.T, place, rows.T)
    return small, [*(classes[i] for i in kept), f"{len(classes) - MOST_CLASSES:,} others"]


def confusion_image(matrix, classes: Sequence[str], dpi: int = 80) -> np.ndarray:
    """The confusion matrix as (H, W, 3) uint8, as TensorBoard's `add_image(..., dataformats="HWC")` takes it.

    Of more than `MOST_CLASSES` classes those that are mistaken most are drawn, so that it stays as small and as fast.
    """
    matrix = check_matrix(matrix, classes, "a confusion matrix")
    figure = confusion(*_most_mistaken(matrix, classes))
    if len(classes) > MOST_CLASSES:
        right, total = np.trace(matrix), matrix.sum()
        figure.axes[0].set_title(
            f"{right / max(1, total):.1%} of {total:,.0f} clips right\n"
            f"the {MOST_CLASSES} of {len(classes):,} classes that are mistaken most; per cent of the true class"
        )
    canvas = FigureCanvasAgg(figure)
    canvas.figure.set_dpi(dpi)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_map(ax, ratios, rows: Sequence[str], joints, groups, skeleton: Skeleton, norm, row_color=INK, size=None):
    """A map of rows × joints, the joints named in their part's colour and grouped by part with separators.

    Args:
        ax: matplotlib axes.
        ratios: (R, V'), multiples of an even share, or any signed values.
        rows: R names; empty leaves them out.
        joints: (V',) joint numbers.
        groups: (part, start, stop) of the columns, from `check_attention`.
        skeleton: the joint set.
        norm: scale of the colours.
        row_color: colour of the row names.
        size: of the names, points; None: as large as so many columns let them be.
    """
    size = size or (11 if len(joints) <= 16 else 9.5)
    image = ax.imshow(ratios, cmap=SIGNED_COLORS, norm=norm, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(rows)), rows, fontsize=size, color=row_color)
    ax.set_xticks(range(len(joints)), [short(skeleton.joints[j]) for j in joints], rotation=90, fontsize=size)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
    above = ax.get_xaxis_transform() + ScaledTranslation(0, 5 / 72, ax.figure.dpi_scale_trans)
    bar = {"solid_capstyle": "butt", "clip_on": False}
    for part, start, stop in groups:
        for label in ax.get_xticklabels()[start:stop]:
            label.set_color(PART_INK[part])
        ax.plot([start - 0.42, stop - 0.58], [1, 1], color=PART_COLORS[part], lw=4, transform=above, **bar)
        where = {"xycoords": ax.get_xaxis_transform(), "xytext": (0, 10), "textcoords": "offset points"}
        ax.annotate(part, ((start + stop - 1) / 2, 1), ha="center", color=PART_INK[part], fontsize=11, **where)
        if start:
            ax.axvline(start - 0.5, color=INK, lw=1.5)
    return image


def _panels(figure: Picture, checked: Mapping) -> np.ndarray:
    """An axes a part, as wide as it has keys."""
    return np.atleast_1d(figure.subplots(1, len(checked), width_ratios=[len(c[2]) for c in checked.values()]))


def _even(weights: np.ndarray) -> np.ndarray:
    """Shares (..., Vk) as multiples of an even share."""
    return weights * weights.shape[-1]


@styled
def attention_maps(
    maps: Mapping, joints: Mapping, skeleton: Skeleton, head: int | None = None, title: str = ""
) -> Picture:
    """Who looks at whom: for each part, a map from its joints (rows) to the joints of the other parts (columns).

    Args:
        maps: part → (heads, Vq, Vk), rows over Vk sum to 1.
        joints: part → (query joints, key joints), the model's `attention_joints`.
        skeleton: the joint set.
        head: one head from 0; None: the mean over heads.
        title: heading in place of the usual one.

    Returns:
        A figure with one map a part, in multiples of an even share, on one colour scale.

    Raises:
        ValueError: shapes that do not fit, or no such head.
    """
    checked = check_attention(maps, joints)
    heads = min(len(weights) for weights, *_ in checked.values())
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head must lie in 0…{heads - 1}, got {head}: None shows the mean over heads")
    shown = {part: _even(c[0].mean(0) if head is None else c[0][head]) for part, c in checked.items()}
    figure = new_picture(12.5, 2.3 + 0.27 * max(len(c[1]) for c in checked.values()))
    norm, axes = ratio_norm(*shown.values()), _panels(figure, checked)
    for ax, (part, (_, query, key, groups)) in zip(axes, checked.items()):
        names = [short(skeleton.joints[j]) for j in query]
        draw_map(ax, shown[part], names, key, groups, skeleton, norm, PART_INK[part])
        ax.set_title(f"{part} looks at …", color=PART_INK[part], pad=27)
    ratio_bar(figure, norm, "a joint's attention\n(1×: an even share)", ax=axes, shrink=0.9)
    which = "mean over heads" if head is None else f"head {head + 1} of {heads}"
    figure.suptitle(title or f"Which joint of a part (row) looks at which joint of the others (column): {which}")
    return figure


@styled
def attention_heads(maps: Mapping, joints: Mapping, skeleton: Skeleton, part: str, bits: Sequence[float]) -> Picture:
    """All heads of one part side by side, each with the entropy of its attention.

    Args:
        maps: part → (heads, Vq, Vk).
        joints: part → (query joints, key joints).
        skeleton: the joint set.
        part: torso, arm or leg.
        bits: entropy of each head (`bpilib.attention.entropy`), mean over clips: that of a mean map is higher.

    Returns:
        A figure with one map a head, in multiples of an even share.

    Raises:
        ValueError: unknown part, or shapes that do not fit.
    """
    if part not in maps:
        raise ValueError(f"unknown part {part!r}: expected one of {', '.join(maps)}")
    weights, query, key, groups = check_attention(maps, joints)[part]
    if len(bits) != len(weights):
        raise ValueError(f"expected an entropy for each of {len(weights)} heads, got {len(bits)}")
    rows, most = -(-len(weights) // 4), np.log2(len(key))
    figure = new_picture(12.5, 1.7 + rows * (0.6 + 0.21 * len(query)))
    axes = figure.subplots(rows, 4, sharex=True, squeeze=False)
    norm = ratio_norm(_even(weights))
    for n, ax in enumerate(axes.flat):
        if n >= len(weights):
            ax.axis("off")
            continue
        names = [short(skeleton.joints[j]) for j in query]
        draw_map(ax, _even(weights[n]), names, key, groups, skeleton, norm, PART_INK[part], 9.5)
        ax.tick_params(labelleft=n % 4 == 0, labelbottom=n + 4 >= len(weights))
        ax.set_title(f"head {n + 1}: {bits[n]:.2f} bits", pad=25, fontsize=11)
    ratio_bar(figure, norm, "a joint's attention (1×: an even share)", ax=axes, shrink=0.8)
    figure.suptitle(f"What each head of the {part} looks at (all {len(key)} joints alike: {most:.2f} bits)")
    return figure


@styled
def received_attention(
    per_row: Mapping, joints: Mapping, rows: Sequence[str], skeleton: Skeleton, title: str = ""
) -> Picture:
    """Which joints each part looks at, row by row: classes, heads, runs, ...

    Args:
        per_row: part → (R, Vk), the mean attention each key joint receives, a row of sum 1 for each class (or head).
        joints: part → (query joints, key joints).
        rows: R names.
        skeleton: the joint set.
        title: heading in place of the usual one.

    Returns:
        A figure with one map a part, in multiples of an even share, on one colour scale.

    Raises:
        ValueError: shapes that do not fit.
    """
    checked = check_attention(per_row, joints, axes=2)
    for part, (weights, *_) in checked.items():
        if len(weights) != len(rows):
            raise ValueError(f"attention of {part} must have {len(rows)} rows, one a name, got {weights.shape}")
    norm = ratio_norm(*(_even(weights) for weights, *_ in checked.values()))
    figure = new_picture(12.5, 2.7 + len(rows) * (0.3 if len(rows) <= 20 else 0.22))
    axes = _panels(figure, checked)
    for n, (ax, (part, (weights, _, key, groups))) in enumerate(zip(axes, checked.items())):
        draw_map(ax, _even(weights), [] if n else rows, key, groups, skeleton, norm)
        ax.set_title(f"{part} looks at …", color=PART_INK[part], pad=27)
    ratio_bar(figure, norm, "attention a joint receives\n(1×: an even share)", ax=axes, shrink=0.9)
    figure.suptitle(title or "Where each part looks, class by class")
    return figure


@styled
def similarity(matrix, classes: Sequence[str]) -> Picture:
    """How near the skeleton embedding of each class is to the text of each class, branch by branch.

    Args:
        matrix: branch → (K, K), or (P+1, K, K) in the order global, torso, arm, leg (with five: global and GAP's
            head, hand, hip, foot): cosine of the mean embedding of a true class (row) with a prompt (column).
        classes: K names.

    Returns:
        A figure with one map a branch; a dot marks the prompt nearest to each row.

    Raises:
        ValueError: wrong shape.
    """
    if not isinstance(matrix, Mapping):
        names = {4: ("global", "torso", "arm", "leg"), 5: ("global", "head", "hand", "hip", "foot")}.get(len(matrix))
        if names is None:
            raise ValueError(f"expected 4 (BPI) or 5 (GAP) branches, got {len(matrix)}: pass a dict branch → (K, K)")
        matrix = dict(zip(names, matrix))
    matrix = {branch: np.asarray(m, dtype=float) for branch, m in matrix.items()}
    count = len(classes)
    for branch, m in matrix.items():
        check_matrix(m, classes, f"similarity of {branch}")
    norm = signed_norm(*matrix.values())
    cell = 0.34 if count <= 20 else 0.17
    columns = 2 if len(matrix) <= 4 else 3
    rows = -(-len(matrix) // columns)
    longest = 0.08 * max(map(len, classes))
    wide, tall = max(3.4, count * cell + 0.4), max(3.2, count * cell + 0.5)
    figure = new_picture(longest + 1.2 + columns * wide, longest + 1 + rows * tall)
    axes = figure.subplots(rows, columns, squeeze=False)
    for n, ax in enumerate(axes.flat):
        if n >= len(matrix):
            ax.axis("off")
            continue
        branch, m = list(matrix.items())[n]
        image = ax.imshow(m, cmap=SIGNED_COLORS, norm=norm)
        nearest = np.nan_to_num(m, nan=-np.inf).argmax(1)
        size, dot = (10, 34) if count <= 20 else (7, 7)
        ax.scatter(nearest, range(count), s=dot, c=INK, edgecolors="white", linewidths=0.8, zorder=3)
        ax.set_yticks(range(count), classes if n % columns == 0 else [], fontsize=size)
        ax.set_xticks(range(count), classes if n + columns >= len(matrix) else [], fontsize=size, rotation=90)
        ax.tick_params(length=0)
        right = int((nearest == np.arange(count)).sum())
        ax.set_title(f"{branch}: {right} of {count} right", color=PART_INK.get(branch, INK))
    figure.supylabel("skeletons of the class", fontsize=11)
    figure.supxlabel("text of the class", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02).set_label("cosine similarity")
    figure.suptitle("Which text (dot) are the skeletons of a class nearest to?")
    return figure
