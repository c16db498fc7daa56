"""The figure language: one colour per body part, one style, figures that show once.

All figures are `Picture`s, so what holds for every text, every file and both styles (screen and paper) is said here
once: no text is read as mathematics, a glyph that no font has is a box, and what is kept is kept as PNG and as PDF.
"""

import base64
import functools
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection, PathCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from bpilib.skeleton import Skeleton
from bpilib.system.files import write_atomically

# Colours that stay apart under the three colour-vision deficiencies, and by their lightness in grey print. A hand is
# GAP's arm and a foot GAP's leg: the joints are the same, so the colours are.
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
# Of the style paper: lightness falls from one end to the other, so that the sign is seen in grey print.
SIGNED_COLORS_PAPER = LinearSegmentedColormap.from_list(
    "signed_paper", ["#FFF3C4", "#EBC66B", "#C99A6E", "#A96A86", "#7F3C7D", "#4B1458", "#22052B"]
)
INK, PALE, GRAY, GRID = "#22262B", "#C4C9CF", "#6B7178", "#E3E6EA"
RIGHT, WRONG = "#0062A8", "#D55E00"  # of predictions, and of the two sides of any pair
FONT = "DejaVu Sans"  # matplotlib's own, the same on every machine
# Where one is installed, it draws what DejaVu lacks: Chinese, Japanese, Korean, emoji, symbols.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Malgun Gothic", "Noto Emoji", "Noto Sans Symbols 2", "Segoe UI Symbol",
)  # fmt: skip
STYLE: dict[str, Any] = {
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
    "text.parse_math": False,  # a class may be called "$5 bill"
    "pdf.fonttype": 42,  # fonts embedded as TrueType, as publishers ask
}
STYLES = ("screen", "paper")
COLUMN, PAGE = 3.35, 7.0  # inches, widths of the style paper: one column, and both
_SINGLE_COLUMN_UP_TO = 8.0  # inches on the screen that one column of a paper takes
_SMALLEST_SCALE = 0.62  # of letters and lines in the style paper: 10 points become 6.2
_MAX_NAME = 40  # characters of a name on an axis
_LETTER = 0.66  # width of a bold letter, as a share of the font size
_chosen_style = "screen"

# A dark theme turns the lightness of a figure over and keeps its hues: white becomes #1f1f1f, every contrast stays.
# The rule reaches nothing but our figures; where a page drops style sheets they stay white cards.
THEME = (
    '<style>body[data-jp-theme-light="false"] .bpi-figure,body.vscode-dark .bpi-figure'
    "{filter:invert(.88) hue-rotate(180deg)}.bpi-figure{max-width:100%;border-radius:6px}</style>"
)

P = ParamSpec("P")
R = TypeVar("R")


def use_style(name: str) -> None:
    """Choose the style of all figures drawn from now on.

    Args:
        name: "screen", or "paper": as wide as one column (3.35 in) or two (7 in), smaller letters, no question as
            title, signed values in colours whose lightness falls from one end to the other.

    Raises:
        ValueError: another name.
    """
    global _chosen_style
    if name not in STYLES:
        raise ValueError(f"unknown figure style {name!r}: expected one of {', '.join(STYLES)}")
    _chosen_style = name


def signed_colors() -> Colormap:
    """The colours of signed values and of multiples of an even share, in the chosen style."""
    return SIGNED_COLORS_PAPER if _chosen_style == "paper" else SIGNED_COLORS


@functools.cache
def _font_families() -> tuple[str, ...]:
    installed = {font.name for font in fontManager.ttflist}
    return (FONT, *(name for name in FALLBACK_FONTS if name in installed))


def _rc() -> dict[str, Any]:
    return STYLE | {"font.family": list(_font_families())}


class Picture(Figure):
    """A figure outside pyplot: shows once, as a cell's last line or with `display`, in any notebook and theme."""

    _drawn = False

    def draw(self, renderer: Any) -> None:
        """Draw: no text is mathematics, long titles are broken into lines, a glyph that no font has is a box."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        titles = [(ax.title, 0.75) for ax in self.axes]  # an axes takes about that share of the figure's width
        if title := getattr(self, "_suptitle", None):  # the text itself; matplotlib's public getter returns a str
            titles.append((title, 1.0))
        for title, share in titles:  # Text.set_wrap would read mathematics
            letters = int(share * 72 * self.get_figwidth() / (_LETTER * float(title.get_fontsize())))
            title.set_text("\n".join(fill(line, letters) for line in title.get_text().split("\n")))
        with mpl.rc_context(_rc()), warnings.catch_warnings():  # ticks are made here, too
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            super().draw(renderer)
        self._drawn = True

    def png(self, dpi: int = 100) -> bytes:
        """The figure as PNG bytes on white."""
        out, before = io.BytesIO(), self.dpi
        self.set_dpi(dpi)
        FigureCanvasAgg(self).print_png(out, pil_kwargs={"compress_level": 3})  # print_figure would draw twice
        self.set_dpi(before)
        return out.getvalue()

    def pdf(self) -> bytes:
        """The figure as it was drawn last, as PDF bytes: vectors, fonts embedded, no date."""
        out, before, engine = io.BytesIO(), self.dpi, self.get_layout_engine()
        if not self._drawn:
            self.draw_without_rendering()
        self.set_layout_engine("none")  # the axes are in their places: to arrange them anew takes half of the time
        with mpl.rc_context(_rc()):
            FigureCanvasPdf(self).print_pdf(out, metadata={"Title": self.describe(), "CreationDate": None})
        self.set_layout_engine(engine)
        self.set_dpi(before)
        return out.getvalue()

    def keep(self, path: str | Path) -> "Picture":
        """Write the figure to a PNG file at print resolution and to a PDF beside it; returns itself, to be shown.

        Each file is written atomically.
        """
        path = Path(path)
        write_atomically(path, self.png(150))
        write_atomically(path.with_suffix(".pdf"), self.pdf())
        return self

    def describe(self) -> str:
        """Its titles in one line, at most 300 characters."""
        titles = [self.get_suptitle(), *(ax.get_title() for ax in self.axes)]
        return "; ".join(dict.fromkeys(title for title in titles if title))[:300]

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        image = base64.b64encode(self.png()).decode()
        alt = html.escape(self.describe())
        tag = f'{THEME}<img class="bpi-figure" alt="{alt}" src="data:image/png;base64,{image}">'
        return {"image/png": image, "text/html": tag}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a drawing function under the chosen style, leaving matplotlib's global settings as they were."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_rc()):
            figure = function(*args, **kwargs)
            if _chosen_style == "paper" and isinstance(figure, Picture):
                _fit_paper(figure)
            return figure

    return inner


def new_picture(width: float, height: float) -> Picture:
    """An empty figure of width × height inches that arranges its axes without overlaps."""
    return Picture(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def _statement(title: str) -> str:
    """What is left of a title without its question: "Do they differ? (bold: yes)" → "bold: yes"."""
    return re.sub(r"^\((.*)\)$", r"\1", title.rpartition("?")[2].strip())


def _fit_paper(figure: Picture) -> None:
    """Bring a figure that was drawn for the screen to the width of one or two columns, letters and lines with it."""
    width, height = figure.get_size_inches()
    column = COLUMN if width <= _SINGLE_COLUMN_UP_TO else PAGE
    scale = max(_SMALLEST_SCALE, column / width)
    figure.set_size_inches(column, height * scale)
    if "?" in figure.get_suptitle():
        figure.suptitle(_statement(figure.get_suptitle()))
    for ax in figure.axes:
        if "?" in ax.get_title():
            ax.set_title(_statement(ax.get_title()))
        for axis in (ax.xaxis, ax.yaxis):
            if labels := axis.get_ticklabels():  # ticks that are made later, too
                axis.set_tick_params(labelsize=labels[0].get_fontsize())
    for text in figure.findobj(Text):
        text.set_fontsize(text.get_fontsize() * scale)
    for line in figure.findobj(Line2D):
        line.set(
            linewidth=line.get_linewidth() * scale,
            markersize=line.get_markersize() * scale,
            markeredgewidth=line.get_markeredgewidth() * scale,
        )
    for patch in figure.findobj(Patch):
        patch.set_linewidth(patch.get_linewidth() * scale)
    for collection in figure.findobj(Collection):
        collection.set_linewidth(np.asarray(collection.get_linewidth()) * scale)
        if isinstance(collection, PathCollection):
            collection.set_sizes(collection.get_sizes() * scale**2)


def fit_name(name: str, most: int = _MAX_NAME) -> str:
    """A name in one line of at most `most` characters, for an axis, a legend or a title; one without any says so."""
    name = " ".join("".join(char if char.isprintable() else " " for char in str(name)).split())
    return (name if len(name) <= most else name[: most - 1] + "…") or "(no name)"


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
    top = float(norm.vmax or 1)
    steps = [s for s in (1.1, 1.25, 1.5, 2, 3, 5, 10, 20) if top ** (1 / 3) < s <= top][-2:]
    look = {"aspect": 30, "pad": 0.01} if "ax" in where else {}
    bar = figure.colorbar(ScalarMappable(norm, signed_colors()), **look, **where)
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


def table_columns(table, wanted: str) -> dict[str, np.ndarray]:
    """The wanted columns of a table with at least one row, or ValueError."""
    missing = [name for name in wanted.split() if name not in table]
    if missing or not len(table[wanted.split()[0]]):
        raise ValueError(f"expected a table with columns {wanted} and at least one row, missing: {missing or 'rows'}")
    return {name: np.asarray(table[name]) for name in wanted.split()}


def with_interval(values) -> np.ndarray:
    """(R, 3) value, low, high as float64; (R,) values get an interval of NaN, which is not drawn."""
    values = np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = np.stack([values, np.full_like(values, np.nan), np.full_like(values, np.nan)], 1)
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"expected (R,) values or (R, 3) of value, low, high, got {values.shape}")
    return values


def draw_rows(
    ax, names: Sequence[str], size: float = 10, colors: Sequence[str] = (), grid: str = "x", most: int = _MAX_NAME
) -> None:
    """Row names down an axis, the first on top, on a light grid.

    Args:
        ax: matplotlib axes.
        names: R row names; long ones are shortened.
        size: of the names, in points.
        colors: R colours of the names; none: ink.
        grid: lines across the values ("x"), or at the rows as well ("both").
        most: characters of a name.
    """
    ax.set_yticks(range(len(names)), [fit_name(name, most) for name in names], fontsize=size)
    for label, color in zip(ax.get_yticklabels(), colors):
        label.set_color(color)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis=grid, color=GRID)
    ax.set_axisbelow(True)


def name_columns(ax, names: Sequence[str], size: float = 10, rotation: float = 90, at=None) -> None:
    """Column names below an axis, upright, or slanted so that each ends at its column; `at`: where, None: 0, 1, …"""
    names = [fit_name(name) for name in names]
    ax.set_xticks(range(len(names)) if at is None else at, names, fontsize=size, rotation=rotation)
    if rotation != 90:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def draw_pairs(
    ax,
    names: Sequence[str],
    first,
    second,
    labels: Sequence[str] = ("first", "second"),
    colors: Sequence[str] = (RIGHT, WRONG),
    bars: bool = False,
    base: float = 0.0,
    name_colors: Sequence[str] = (),
) -> None:
    """Two values a row with their intervals, on axes of one's own.

    Args:
        ax: matplotlib axes.
        names: R row names, the first on top.
        first, second: (R,) values, or (R, 3) of value, low, high; NaN is left out.
        labels: what the two sides are, for a legend.
        colors: of the two sides; the second's dots are diamonds, its bars hatched, so that they differ in grey too.
        bars: bars from `base`; else dots, joined by a grey line where no interval crosses it (a dumbbell).
        base: where bars start.
        name_colors: R colours of the names; none: ink.

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
    for side, (values, label, color) in enumerate(zip(sides, map(fit_name, labels), colors)):
        at, value = rows + (shift if side else -shift), values[:, 0]
        whisker = np.stack([value - values[:, 1], values[:, 2] - value]).clip(0)
        if bars:
            hatch: dict[str, Any] = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if side else {}
            ax.barh(at, value - base, 0.36, left=base, color=color, alpha=0.8, label=label, **hatch)
            ax.errorbar(value, at, xerr=whisker, fmt="none", ecolor=INK, elinewidth=1.3, capsize=2.5, zorder=3)
        else:
            ax.errorbar(
                value,
                at,
                xerr=whisker,
                ls="",
                marker="D" if side else "o",
                ms=5 if side else 6.5,
                color=color,
                elinewidth=1.8,
                mec="white",
                mew=0.7,
                zorder=3,
                label=label,
            )
