"""Whatever classes, clips and runs are called: every figure of the package draws, as text, with nothing cut off."""

import importlib
import inspect
import itertools
import pkgutil
import warnings

import numpy as np
import pandas as pd
import pytest
from figures import attention_of, clip_of, joints_of, no_state_leaks  # noqa: F401
from matplotlib.text import Text

from bpilib import plots
from bpilib.plots import style
from bpilib.plots.style import COLUMN, PAGE, fit_name
from bpilib.skeleton import MODALITIES, UCLA

NAMES = [
    "$x^2$ costs $", "a_b^c \\frac{1}{0} & 100 %", "<img src=x onerror=alert(1)>", "", "x" * 300, "挥手 👋",
    "two\nlines\x00 \\alpha$", "$" + "word " * 60,
]  # fmt: skip
K = len(NAMES)
MATRIX = np.random.default_rng(0).integers(1, 20, (K, K))
LABELS = np.arange(3 * K) % K
JOINTS, MAPS = joints_of(UCLA), attention_of(UCLA)
CLIP = clip_of(UCLA)
KEYS = sum(len(key) for _, key in JOINTS.values())
SHARES = {"top1": 50.0, "low": 40.0, "high": 60.0}
RUN = {"dataset": "d", "benchmark": "b", "model": "bpi", "modality": "joint"}
PAIR = {"both": 5, "only_a": 3, "only_b": 2, "neither": 1, "clips": 11, "p": 0.5}
GAP = {"difference": 1.0, "low": -1.0, "high": 2.0, "p_holm": 0.5}


def normal(*shape):
    """The same numbers in every call, whichever were before it."""
    return np.random.default_rng(0).normal(size=shape)


def seeds():
    runs = pd.DataFrame([RUN | {"tag": name, "top1": top1} for name in NAMES for top1 in (50.0, 60.0)])
    return runs, pd.DataFrame([RUN | {"tag": name, "n": 2, "mean": 55.0, "std": 7.1} for name in NAMES])


CALLS = {
    "accuracy.training_curves": lambda draw: draw({"epoch": [1, 2], "train_loss": [2, 1]}),
    "accuracy.per_class_bars": lambda draw: draw(pd.DataFrame({"class": NAMES, "clips": 10} | SHARES)),
    "accuracy.confused_pairs": lambda draw: draw(MATRIX, NAMES),
    "accuracy.ensemble_table": lambda draw: draw(pd.DataFrame({"subset": NAMES, "n": 1} | SHARES)),
    "accuracy.confusion": lambda draw: draw(MATRIX, NAMES),
    "accuracy.top_classes": lambda draw: draw(np.full(K, 1 / K), NAMES, NAMES[0] + NAMES[4], truth=4, top=K),
    "activation.class_activation": lambda draw: draw(
        CLIP, normal(1, 3, 20), 0.1, [0, 5, 11], UCLA, 52, f"What speaks for “{NAMES[4]} {NAMES[0]}”?"
    ),
    "activation.class_activation_by_class": lambda draw: draw(normal(K, 13, 20), NAMES, UCLA, 52),
    "attention_heatmaps.attention_maps": lambda draw: draw(MAPS, JOINTS, UCLA, title=NAMES[0] + NAMES[4]),
    "attention_heatmaps.attention_heads": lambda draw: draw(MAPS, JOINTS, UCLA, "arm", np.ones(8)),
    "attention_heatmaps.received_attention": lambda draw: draw(
        {part: np.repeat(m.mean((0, 1))[None], K, 0) for part, m in MAPS.items()}, JOINTS, NAMES, UCLA, NAMES[-1]
    ),
    "attention_heatmaps.contrasted_attention": lambda draw: draw(
        *normal(3, KEYS, 3), JOINTS, (30, 12), UCLA
    ),
    "attention_heatmaps.head_entropy": lambda draw: draw({p: np.ones((2, 8)) for p in MAPS}, dict.fromkeys(MAPS, 4.0)),
    "evenness.attention_evenness": lambda draw: draw(
        pd.DataFrame({"run": NAMES, "part": "arm", "head": 1, "trained": 80.0, "untrained": 99.0})
    ),
    "attention_skeleton.part_flow": lambda draw: draw(
        dict.fromkeys(NAMES, (1 - np.eye(3)) / 2), (1 - np.eye(3)) / 2, list(MAPS)
    ),
    "attention_skeleton.attention_on_skeleton": lambda draw: draw(MAPS, JOINTS, CLIP[0], UCLA, title=NAMES[7]),
    "attention_skeleton.attention_card": lambda draw: draw(
        CLIP, MAPS["arm"], *JOINTS["arm"], [("torso", 0, 3), ("leg", 3, len(JOINTS["arm"][1]))], UCLA, "arm"
    ),
    "clips.film_strip": lambda draw: draw(CLIP, UCLA, title=NAMES[7]),
    "clips.scene": lambda draw: draw(CLIP, UCLA, title=NAMES[0] + NAMES[4]),
    "clips.class_counts": lambda draw: draw(LABELS, NAMES, {NAMES[0]: range(9), NAMES[4]: range(9, 24)}),
    "clips.clip_lengths": lambda draw: draw(10 + LABELS, LABELS, NAMES),
    "comparison.overview": lambda draw: draw(
        pd.DataFrame({"name": NAMES, "settings": NAMES[::-1], "n": 2, "sd": 1.0, "best_test": 60.0} | SHARES),
        pd.DataFrame({"method": NAMES, "streams": NAMES, "low": 90.0, "high": 95.0, "select": "unknown"}),
        NAMES[0],
    ),
    "comparison.agreement": lambda draw: draw({"a": NAMES[4], "b": NAMES[0]} | PAIR | GAP),
    "comparison.classes": lambda draw: draw(
        pd.DataFrame({"class": NAMES, "clips": 9, "a": 50.0, "b": 60.0} | GAP), NAMES[4], NAMES[1]
    ),
    "comparison.pairs": lambda draw: draw(pd.DataFrame({"a": NAMES, "b": NAMES[::-1]} | GAP)),
    "comparison.seed_spread": lambda draw: draw(*seeds()),
    "differences.curves_of_runs": lambda draw: draw(
        {name: {"epoch": [1, 2], "train_loss": [2, 1], "test_top1": [50.0, 60.0]} for name in NAMES[:6]}
    ),
    "differences.confusion_difference": lambda draw: draw(MATRIX, MATRIX[:, ::-1], NAMES, NAMES[4], NAMES[7]),
    "film_figures.skeleton_on_film": lambda draw: draw(
        [np.full((48, 64, 3), 90, np.uint8)] * 2, [np.random.default_rng(0).uniform(5, 40, (1, 20, 2))] * 2, UCLA,
        (NAMES[0], NAMES[4]), NAMES[7],
    ),
    "film_figures.class_timeline": lambda draw: draw(
        np.arange(6.0), np.arange(6.0) + 2, np.random.default_rng(0).dirichlet(np.ones(K), 6), NAMES, NAMES[-1]
    ),
    "occlusion.occlusion_by_class": lambda draw: draw(
        *(normal(K, n, 3) for n in (20, 3, 8)), NAMES, UCLA, 52
    ),
    "occlusion.occlusion_card": lambda draw: draw(
        CLIP, {"joints": np.ones(20), "parts": np.ones(3), "time": np.ones(8)}, UCLA, 52, NAMES[0] + NAMES[4]
    ),
    "text.text_map": lambda draw: draw(
        {"global": np.split(normal(24 + K, 2), [24])}, LABELS, NAMES, [False] * K, range(K)
    ),
    "text.matches": lambda draw: draw(normal(24), LABELS, NAMES, NAMES[0] + NAMES[7]),
    "text.similarity": lambda draw: draw(normal(4, K, K), NAMES),
    "tour.graph_subsets": lambda draw: draw(CLIP[0, 0], UCLA),
    "tour.receptive_field": lambda draw: draw(
        CLIP[0, 0], {f"block {n}": np.eye(20)[n] for n in range(5)}, 0, UCLA
    ),
    "tour.topologies": lambda draw: draw(
        dict(zip(("given", "learned", "this clip", "another"), normal(4, 20, 20))), UCLA, NAMES[7]
    ),
    "tour.body_parts": lambda draw: draw(CLIP[0, 0], UCLA),
    "tour.modalities": lambda draw: draw(CLIP[0, 0], dict.fromkeys(MODALITIES, CLIP[1, 0]), UCLA, 3),
    "tour.raw_and_fed": lambda draw: draw(CLIP[:, 0], CLIP[:, 0], 3, UCLA),
    "tour.attention_by_hand": lambda draw: draw(CLIP[0, 0], 11, [3, 16, 19], [1.0, 0.0, -1.0], [0.6, 0.3, 0.1], UCLA),
    "tour.contrastive_steps": lambda draw: draw(
        dict.fromkeys(("cosines", "softmax", "target"), np.eye(4)), NAMES[3:7], NAMES[:4]
    ),
    "text.paired_bars": lambda draw: draw(NAMES, np.ones(K), np.ones(K), (NAMES[0], NAMES[4]), "share", NAMES[7]),
}  # fmt: skip


def drawing_functions():
    """Every function of the package that draws under the figure style, by "module.function"."""
    found = {}
    for module in pkgutil.iter_modules(plots.__path__):
        whole = importlib.import_module(f"bpilib.plots.{module.name}")
        for name, function in inspect.getmembers(whole, inspect.isfunction):
            own = function.__module__ == whole.__name__
            if own and hasattr(function, "__wrapped__") and not name.startswith("_"):
                found[f"{module.name}.{name}"] = function
    return found


DRAW = drawing_functions()


def test_every_drawing_function_is_tried():
    assert set(CALLS) == set(DRAW)


def shown_texts(figure):
    """Every text that a drawn figure shows."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        yield from (ax.title, *ax.texts)
        for axis in (ax.xaxis, ax.yaxis) if ax.axison and ax.name != "3d" else ():
            low, high = sorted(axis.get_view_interval())
            yield from (axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high))


def cut_off(figure):
    """Texts that reach out of the figure after it has been drawn."""
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in shown_texts(figure):
            extent = Text.get_window_extent(text)
            inside = figure.bbox.x0 - 1.5 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1.5
            inside = inside and figure.bbox.y0 - 1.5 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1.5
            if text.get_visible() and text.get_text().strip() and not inside:
                out.append(text.get_text())
    return out


@pytest.mark.parametrize("name", CALLS)
def test_names_are_drawn_as_they_are_with_nothing_cut_off(name):
    figure = CALLS[name](DRAW[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a missing glyph, a layout that does not fit
        figure.draw_without_rendering()
    assert not any(text.get_parse_math() for text in shown_texts(figure))
    assert cut_off(figure) == []


@pytest.fixture
def paper():
    style.use_style("paper")
    yield
    style.use_style("screen")


IN_PAPER = ("accuracy.confusion", "attention_heatmaps.contrasted_attention", "comparison.agreement", "text.matches")
SLOW = [pytest.param(name, marks=() if name in IN_PAPER else pytest.mark.slow) for name in CALLS]


@pytest.mark.parametrize("name", SLOW)
def test_the_same_for_a_paper(name, paper):
    figure = CALLS[name](DRAW[name])
    assert figure.get_figwidth() in (COLUMN, PAGE)
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert not any("?" in title for title in titles)
    figure.draw_without_rendering()
    assert cut_off(figure) == []


def test_names_in_one_line():
    short = [fit_name(name, 12) for name in NAMES[2:7]]
    assert short == ["<img src=x …", "(no name)", "x" * 11 + "…", "挥手 👋", "two lines \\…"]
    assert all(len(fit_name(name)) <= 40 and "\n" not in fit_name(name) for name in itertools.chain(NAMES, [3]))


OF_CLASSES = (
    "accuracy.confused_pairs", "accuracy.confusion", "accuracy.per_class_bars", "activation.class_activation_by_class",
    "attention_heatmaps.received_attention", "clips.clip_lengths", "film_figures.class_timeline",
    "occlusion.occlusion_by_class", "text.similarity",
)  # fmt: skip


@pytest.mark.parametrize("figure_style", ["screen", "paper"])
@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("few", [2, 4])
def test_few_classes_leave_room_for_every_label(name, few, figure_style, monkeypatch):
    """A figure of few classes is low: what stands upright beside its colours has to fit in, too."""
    classes = {"NAMES": ["clap", "kick", "squat", "wave"][:few], "K": few}
    for variable, value in (classes | {"MATRIX": MATRIX[:few, :few], "LABELS": LABELS % few}).items():
        monkeypatch.setitem(globals(), variable, value)
    monkeypatch.setattr(style, "_chosen_style", figure_style)
    figure = CALLS[name](DRAW[name])
    figure.draw_without_rendering()
    assert cut_off(figure) == []
