"""Attention as heat maps and bars: who looks at whom, head by head, in recognised and in mistaken clips."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from bpilib.plots.style import (
    GRAY,
    INK,
    PALE,
    PART_COLORS,
    PART_INK,
    Picture,
    draw_pairs,
    draw_rows,
    fit_name,
    new_picture,
    ratio_bar,
    ratio_norm,
    short,
    signed_colors,
    styled,
    with_interval,
)
from bpilib.skeleton import Skeleton


def check_attention(
    maps: Mapping, joints: Mapping, axes: int = 3
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, list]]:
    """Checks attention maps against the joints of their axes and says which keys belong to which part.

    Args:
        maps: part → weights (..., Vq, Vk) with `axes` axes in all; 2 means (rows, Vk).
        joints: part → (query joints (Vq,), key joints (Vk,)); the keys are the other parts' joints in this order.
        axes: expected number of axes.

    Returns:
        part → (weights, queries, keys, [(other part, start, stop), …]).

    Raises:
        ValueError: parts or shapes that do not fit each other.
    """
    if not maps or set(maps) - set(joints):
        raise ValueError(f"attention of {list(maps)} needs the joints of the same parts, got {list(joints)}")
    out = {}
    for part, weights in maps.items():
        weights = np.asarray(weights, dtype=float)
        query, key = (np.asarray(j, dtype=int).ravel() for j in joints[part])
        groups, start = [], 0
        for other in joints:
            if other != part:
                groups.append((other, start, start + len(joints[other][0])))
                start = groups[-1][2]
        expected = (len(query), len(key)) if axes > 2 else (len(key),)
        if weights.ndim != axes or weights.shape[-len(expected) :] != expected or start != len(key):
            raise ValueError(
                f"attention of {part} must have {axes} axes, the last {expected}, {start} keys from the other parts, "
                f"got {weights.shape}: pass a clip's attention and the attention_joints of its own model"
            )
        out[part] = (weights, query, key, groups)
    return out


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
    image = ax.imshow(ratios, cmap=signed_colors(), norm=norm, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(rows)), [fit_name(row) for row in rows], fontsize=size, color=row_color)
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
    usual = f"Which joint of a part (row) looks at which joint of the others (column): {which}"
    figure.suptitle(fit_name(title or usual, 120))
    return figure


@styled
def attention_heads(maps: Mapping, joints: Mapping, skeleton: Skeleton, part: str, bits: Sequence[float]) -> Picture:
    """All heads of one part side by side, each with the entropy of its attention.

    Args:
        maps: part → (heads, Vq, Vk).
        joints: part → (query joints, key joints).
        skeleton: the joint set.
        part: torso, arm or leg.
        bits: entropy of each head (`bpilib.analysis.attention.compute_entropy`), averaged over clips.

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
    figure.suptitle(fit_name(title or "Where each part looks, class by class", 120))
    return figure


@styled
def contrasted_attention(right, wrong, difference, joints: Mapping, clips: tuple[int, int], skeleton: Skeleton):
    """Which joints a part looks at in recognised and in mistaken clips, with intervals.

    Args:
        right, wrong, difference: (F, 3) mean, low, high for the key joints of all parts in a row, in multiples of an
            even share: the fields of `bpilib.analysis.attention.Contrast`.
        joints: part → (query joints, key joints).
        clips: recognised and mistaken clips behind it.
        skeleton: the joint set.

    Returns:
        A figure with a panel a part; a name is bold where the interval of the difference leaves out 0.

    Raises:
        ValueError: not one row a key joint.
    """
    count = sum(len(key) for _, key in joints.values())
    sides = [with_interval(values) for values in (right, wrong, difference)]
    if any(len(values) != count for values in sides):
        raise ValueError(f"expected {count} rows, one a key joint, got {[len(values) for values in sides]}")
    figure = new_picture(13, 1.6 + 0.25 * max(len(key) for _, key in joints.values()))
    start = 0
    for ax, (part, (_, key)) in zip(np.atleast_1d(figure.subplots(1, len(joints), sharex=True)), joints.items()):
        one, other, gap = (values[start : start + len(key)] for values in sides)
        start += len(key)
        groups = check_attention({part: np.ones((1, len(key)))}, joints, axes=2)[part][3]
        colors = [PART_INK[other_part] for other_part, low, high in groups for _ in range(low, high)]
        draw_pairs(ax, [short(skeleton.joints[j]) for j in key], one, other, name_colors=colors)
        for label, (_, low, high) in zip(ax.get_yticklabels(), gap):
            label.set_fontweight("bold" if low > 0 or high < 0 else "normal")
        ax.axvline(1, color=GRAY, lw=1.2, zorder=1)
        for _, low, _ in groups[1:]:
            ax.axhline(low - 0.5, color=PALE, lw=1.2)
        ax.set_title(f"{part} looks at …", color=PART_INK[part])
        ax.xaxis.set_major_formatter("{x:g}×")
    figure.axes[len(joints) // 2].set_xlabel("attention a joint receives (1×: an even share), with its 95 % interval")
    names = [f"{clips[0]} recognised clips", f"{clips[1]} mistaken clips of the same classes"]
    figure.legend(ax.get_legend_handles_labels()[0], names, ncols=2, loc="outside lower center")
    figure.suptitle("Do mistaken clips look elsewhere? (bold: the difference leaves out 0)")
    return figure


@styled
def head_entropy(bits: Mapping[str, np.ndarray], most: Mapping[str, float]) -> Picture:
    """How widely each head spreads its attention: entropy, as a share of the largest possible.

    Args:
        bits: part → (n, heads) entropy of each clip's attention.
        most: part → log2 of the number of key joints: all alike.

    Returns:
        A figure with a panel a part: a dot is the mean over clips, a line reaches over the middle 90 % of clips.

    Raises:
        ValueError: parts that differ, or no clips.
    """
    if set(bits) != set(most) or not all(np.ndim(values) == 2 and len(values) for values in bits.values()):
        raise ValueError(f"expected (n, heads) entropies of {', '.join(most)} with n ≥ 1, got those of {list(bits)}")
    figure = new_picture(11, 1.5 + 0.26 * max(np.shape(values)[1] for values in bits.values()))
    for ax, (part, values) in zip(np.atleast_1d(figure.subplots(1, len(bits), sharex=True, sharey=True)), bits.items()):
        share = 100 * np.asarray(values) / most[part]
        low, high = np.percentile(share, [5, 95], axis=0)
        heads = range(share.shape[1])
        ax.hlines(heads, low, high, color=PART_COLORS[part], lw=3, alpha=0.5)
        ax.scatter(share.mean(0), heads, s=52, color=PART_COLORS[part], edgecolors="white", zorder=3)
        draw_rows(ax, [f"head {n + 1}" for n in heads])
        ax.axvline(100, color=GRAY, lw=1.2, zorder=1)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(f"{part} (100 % = {most[part]:.2f} bits)", color=PART_INK[part])
        ax.xaxis.set_major_formatter("{x:g}%")
    figure.supxlabel(
        "entropy of a joint's attention, per cent of the most (dot: mean, line: 90 % of clips)", fontsize=11
    )
    figure.suptitle("How widely does each head spread its attention?")
    return figure
