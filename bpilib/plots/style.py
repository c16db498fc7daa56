"""The figure language: one colour per body part, one style, figures that show once."""

import base64
import functools
import html
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from bpilib.skeleton import Skeleton
from bpilib.system.files import write_atomically

# Colours that stay apart under the three colour-vision deficiencies. A hand is GAP's arm and a foot GAP's leg: the
# joints are the same, so the colours are.
PART_COLORS = {
    "torso": "#D55E00",
    "arm": "#0062A8",
    "leg": "#2FB58A",
    "head": "#882255",
    "hand": "#0062A8",
    "hip": "#E69F00",
    "foot": "#2FB58A",
    "global": "#4A4A4A",
}
# The same hues, dark enough for letters (4.9:1 on white or more).
PART_INK = PART_COLORS | {"torso": "#B34E00", "leg": "#12805C", "foot": "#12805C", "hip": "#8F6200"}
# Plum: more than even, or for; ochre: less, or against. They stay apart under the colour-vision deficiencies.
_OCHRE_TO_PLUM = ["#5C3500", "#B87B14", "#F0D9A8", "#FFFFFF", "#F4C6D8", "#B4549B", "#4B1458"]
SIGNED_COLORS = LinearSegmentedColormap.from_list("signed", _OCHRE_TO_PLUM)
INK, PALE, GRAY, GRID = "#22262B", "#C4C9CF", "#6B7178", "#E3E6EA"
RIGHT, WRONG = "#0062A8", "#D55E00"  # of predictions, and of the two sides of any pair
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # our ticks are below; to look for ticks above takes a twelfth of the drawing
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

# A dark theme turns the lightness of a figure over and keeps its hues: white becomes #1f1f1f, every contrast stays.
# The rule reaches nothing but our figures; where a page drops style sheets they stay white cards.
THEME = (
    '<style>body[data-jp-theme-light="false"] .bpi-figure,body.vscode-dark .bpi-figure'
    "{filter:invert(.88) hue-rotate(180deg)}.bpi-figure{max-width:100%;border-radius:6px}</style>"
)


class Picture(Figure):
    """A figure outside pyplot: shows once, as a cell's last line or with `display`, in any notebook and theme."""

    def png(self, dpi: int = 100) -> bytes:
        """The figure as PNG bytes on white."""
        out, before = io.BytesIO(), self.dpi
        self.set_dpi(dpi)
        FigureCanvasAgg(self).print_png(out, pil_kwargs={"compress_level": 3})  # print_figure would draw twice
        self.set_dpi(before)
        return out.getvalue()

    def keep(self, path: str | Path) -> "Picture":
        """Write the figure to a PNG file, atomically and at print resolution; returns itself, to be shown."""
        write_atomically(path, self.png(150))
        return self

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        image = base64.b64encode(self.png()).decode()
        said = [self.get_suptitle(), *(ax.get_title() for ax in self.axes)]
        alt = html.escape("; ".join(dict.fromkeys(text for text in said if text))[:300])
        tag = f'{THEME}<img class="bpi-figure" alt="{alt}" src="data:image/png;base64,{image}">'
        return {"image/png": image, "text/html": tag}


def styled(function):
    """Runs a drawing function under the figure style, leaving matplotlib's global settings as they were."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return inner


def new_picture(width: float, height: float) -> Picture:
    """An empty figure of width × height inches that arranges its axes without overlaps."""
    return Picture(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def ratio_norm(*ratios: np.ndarray, least: float = 1.25) -> LogNorm:
    """A scale for multiples of an even share: white at 1×, as far down as up: to the largest, or a third at most."""
    tops = [max(np.nanmax(ratio), min(3, 1 / max(np.nanmin(ratio), 1e-3))) for ratio in ratios]
    top = max(least, float(max(tops)))
    return LogNorm(1 / top, top, clip=True)


def signed_norm(*values: np.ndarray) -> Normalize:
    """A scale for signed values: white at 0, as far down as up."""
    top = max(float(np.nanmax(np.abs(value))) for value in values) or 1.0
    return Normalize(-top, top)


def ratio_bar(figure, norm: LogNorm, label: str, **where):
    """The colour bar of a `ratio_norm`, its ticks in ×; `where` as figure.colorbar takes it: ax and shrink, or cax."""
    top = norm.vmax
    steps = [s for s in (1.1, 1.25, 1.5, 2, 3, 5, 10, 20) if top ** (1 / 3) < s <= top][-2:]
    look = {"aspect": 30, "pad": 0.01} if "ax" in where else {}
    bar = figure.colorbar(ScalarMappable(norm, SIGNED_COLORS), **look, **where)
    at = [1 / s for s in reversed(steps)] + [1, *steps]
    bar.set_ticks(at, labels=[f"{a:.3g}×" if a >= 1 else f"{a:.2g}×" for a in at])
    bar.ax.minorticks_off()
    bar.set_label(label)
    return bar


def short(name: str) -> str:
    """A joint's name for a crowded axis: "left hand tip" → "L hand tip"."""
    return name.replace("left ", "L ").replace("right ", "R ")


def part_of_joint(skeleton: Skeleton, model: str = "bpi") -> tuple[str, ...]:
    """The one part that gives each joint its colour; shoulders and hips, which are in two parts, go to the limb.

    Args:
        skeleton: the joint set.
        model: whose parts: "bpi" (torso, arm, leg) or "gap" (head, hand, hip, foot).

    Returns:
        V part names.
    """
    parts = skeleton.parts("joint", model)
    order = [p for p in ("torso", "hip", "head", "leg", "foot", "arm", "hand") if p in parts]  # the last one wins
    out = [order[0]] * skeleton.num_joints
    for part in order:
        for joint in parts[part]:
            out[joint] = part
    return tuple(out)


def part_of_bone(skeleton: Skeleton) -> tuple[str, ...]:
    """The part that colours each of the V-1 bones: torso where both ends are torso joints, else the child's part."""
    torso, of_joint = set(skeleton.parts()["torso"]), part_of_joint(skeleton)
    return tuple("torso" if {child, parent} <= torso else of_joint[child] for child, parent in skeleton.bones)


def check_clip(clip, skeleton: Skeleton) -> np.ndarray:
    """A clip as float64 (L, M, V, 3), or a ValueError that says what was expected."""
    clip = np.asarray(clip, dtype=float)
    if clip.ndim != 4 or not len(clip) or clip.shape[2] != skeleton.num_joints or clip.shape[3] != 3:
        raise ValueError(
            f"a clip of {skeleton.name} must be (L, M, {skeleton.num_joints}, 3) with L ≥ 1, got {clip.shape}: "
            "give it as the store does (frames, persons, joints, xyz)"
        )
    return clip


def present(poses: np.ndarray) -> np.ndarray:
    """(..., V, 3) → (...) bool, whether there is a person: finite coordinates that are not all zero."""
    return np.isfinite(poses).all((-1, -2)) & (poses != 0).any((-1, -2))


def check_matrix(matrix, classes: Sequence[str], what: str) -> np.ndarray:
    """A matrix as float64 (K, K), or a ValueError that says what was expected."""
    matrix = np.asarray(matrix, dtype=float)
    if matrix.shape != (len(classes),) * 2:
        raise ValueError(
            f"{what} must be ({len(classes)}, {len(classes)}), one row and column a class, got {matrix.shape}"
        )
    return matrix


def with_interval(values) -> np.ndarray:
    """(R, 3) value, low, high as float64; (R,) values get an interval of NaN, which is not drawn."""
    values = np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = np.stack([values, np.full_like(values, np.nan), np.full_like(values, np.nan)], 1)
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"expected (R,) values or (R, 3) of value, low, high, got {values.shape}")
    return values


def draw_rows(ax, names: Sequence[str], size: float = 10, colors=None):
    """Row names down an axis, the first on top, on a light grid."""
    ax.set_yticks(range(len(names)), names, fontsize=size)
    for label, color in zip(ax.get_yticklabels(), colors or []):
        label.set_color(color)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)


def draw_pairs(
    ax, names: Sequence[str], first, second, labels=("first", "second"), colors=(RIGHT, WRONG), bars=False,
    base: float = 0.0, name_colors=None,
):  # fmt: skip
    """Two values a row with their intervals, on axes of one's own.

    Args:
        ax: matplotlib axes.
        names: R row names, the first on top.
        first, second: (R,) values, or (R, 3) of value, low, high; NaN is left out.
        labels: what the two sides are, for a legend.
        colors: of the two sides; the second's dots are diamonds, its bars hatched, so that they differ in grey too.
        bars: bars from `base`; else dots, joined by a grey line where no interval crosses it (a dumbbell).
        base: where bars start.
        name_colors: R colours of the names.

    Raises:
        ValueError: not one row a name.
    """
    sides = [with_interval(first), with_interval(second)]
    if not len(sides[0]) == len(sides[1]) == len(names):
        raise ValueError(f"expected {len(names)} rows, one a name, got {len(sides[0])} and {len(sides[1])}")
    draw_rows(ax, names, colors=name_colors)
    intervals = any(np.isfinite(side[:, 1:]).any() for side in sides)
    shift = 0.19 if bars or intervals else 0.0
    rows = np.arange(len(names))
    if not bars and not intervals:
        ax.hlines(rows, sides[0][:, 0], sides[1][:, 0], color=PALE, lw=3, zorder=1)
    for side, (values, label, color) in enumerate(zip(sides, labels, colors)):
        at, value = rows + (shift if side else -shift), values[:, 0]
        whisker = np.stack([value - values[:, 1], values[:, 2] - value]).clip(0)
        if bars:
            hatch = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if side else {}
            ax.barh(at, value - base, 0.36, left=base, color=color, alpha=0.8, label=label, **hatch)
            ax.errorbar(value, at, xerr=whisker, fmt="none", ecolor=INK, elinewidth=1.3, capsize=2.5, zorder=3)
        else:
            marker = {"marker": "D", "ms": 5} if side else {"marker": "o", "ms": 6.5}
            ax.errorbar(value, at, xerr=whisker, ls="", color=color, elinewidth=1.8, mec="white", mew=0.7, zorder=3,
                        label=label, **marker)  # fmt: skip
