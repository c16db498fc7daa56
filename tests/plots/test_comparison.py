"""The figures of 07 show the numbers they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bpilib.plots import comparison
from bpilib.plots.style import GRAY

TABLE = pd.DataFrame({
    "name": ["bpi joint", "bpi bone", "gap joint"], "settings": ["", "epochs 6", ""], "n": [1, 3, 1],
    "top1": [91.2, 87.5, np.nan], "sd": [np.nan, 1.5, np.nan], "low": [88.2, 84.2, np.nan],
    "high": [93.4, 90.2, np.nan], "best_test": [92.5, np.nan, 95.0],
})  # fmt: skip
PUBLISHED = pd.DataFrame({
    "method": ["CTR-GCN", "HD-GCN", "GAP"],
    "streams": ["joint", "joint + bone + joint_motion + bone_motion", "unknown streams"],
    "low": [93.5, 96.9, 97.0], "high": [94.8, 96.9, 97.0], "select": ["best test epoch", "unknown", "unknown"],
})  # fmt: skip
PAIRS = pd.DataFrame({
    "a": ["bpi joint", "bpi joint"], "b": ["ctrgcn joint", "bpi bone"], "clips": [464, 464], "both": [397, 391],
    "only_a": [26, 32], "only_b": [13, 15], "neither": [28, 26], "difference": [2.8, -3.7], "low": [0.2, -6.5],
    "high": [5.4, -0.9], "p": [0.053, 0.019], "p_holm": [0.053, 0.037],
})  # fmt: skip
CLASSES = pd.DataFrame({
    "class": ["walk", "sit", "throw"], "clips": [49, 47, 47], "a": [90, 91, 80], "b": [70, 91, 85],
    "difference": [20, 0, -5], "low": [5, -8, -11], "high": [33, 8, 7], "p_holm": [0.01, 1, 1],
})  # fmt: skip


def texts(figure):
    return [t.get_text() for t in figure.findobj(plt.Text) if t.get_text()]


def dots(ax):
    return [tuple(point) for collection in ax.collections for point in collection.get_offsets()]


def test_overview_keeps_the_three_kinds_in_their_columns():
    figure = comparison.overview(TABLE, PUBLISHED, "a task")
    honest, selected, theirs = figure.axes
    assert dots(honest) == [(91.2, 0), (87.5, 1)]  # gap has no honest number
    assert dots(selected) == [(92.5, 0), (95.0, 2)]
    assert dots(theirs) == [(pytest.approx(94.15), 3), (96.9, 4), (97.0, 5)]
    faces = [collection.get_facecolor()[0].tolist() for collection in selected.collections]
    assert faces == [[1, 1, 1, 1]] * 2  # hollow: selected on the test clips
    assert theirs.collections[0].get_facecolor()[0].tolist() == [1, 1, 1, 1]
    assert theirs.collections[1].get_facecolor()[0].tolist() != [1, 1, 1, 1]
    assert [line.get_xdata().tolist() for line in honest.lines[:2]] == [[88.2, 93.4], [84.2, 90.2]]
    said = texts(figure)
    assert {"bpi bone, epochs 6", "87.5 ± 1.5  n=3", "93.5–94.8", "HD-GCN, 4 streams", "91.2"} <= {*said}
    assert not [text for text in said if "nan" in text]


def test_overview_of_a_benchmark_that_nobody_published():
    figure = comparison.overview(TABLE, PUBLISHED[:0])
    assert len(figure.axes) == 3 and not dots(figure.axes[2])
    assert "no published figures\nof this benchmark" in texts(figure.axes[2])


def test_agreement_is_all_clips():
    figure = comparison.agreement(PAIRS.iloc[0])
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [397, 26, 13, 28] and figure.axes[0].get_xlim() == (0, 464)
    said = texts(figure)
    assert "difference +2.8 points (95 % interval +0.2 to +5.4), exact McNemar p = 0.053" in said
    assert "only ctrgcn joint: 13 clips" in said


def test_classes_are_drawn_in_the_order_given_with_their_intervals():
    figure = comparison.classes(CLASSES, "one", "other")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["walk (49)", "sit (47)", "throw (47)"]
    assert sorted(dots(left)) == sorted([(90, 0), (70, 0), (91, 1), (91, 1), (80, 2), (85, 2)])
    assert [line.get_xdata().tolist() for line in right.lines[:3]] == [[5, 33], [-8, 8], [-11, 7]]
    colors = [line.get_color() for line in right.lines[:3]]
    assert colors == [comparison.A, GRAY, GRAY]  # zero inside the interval: grey
    assert {"+20  *", "0", "−5"} <= {*texts(figure)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]


def test_equal_accuracies_show_both_dots():
    left = comparison.classes(CLASSES, "one", "other").axes[0]
    sizes = [c.get_sizes()[0] for c in left.collections if c.get_offsets()[0].tolist() == [91, 1]]
    assert len(sizes) == 2 and max(sizes) > 2 * min(sizes)


def test_pairs_are_grey_unless_the_corrected_p_is_small():
    figure = comparison.pairs(PAIRS)
    lines = figure.axes[0].lines
    assert [line.get_color() for line in lines[:2]] == [GRAY, comparison.A]
    assert {"+2.8   p = 0.053", "−3.7   p = 0.037"} <= {*texts(figure)}
    assert "+2.8   p < 0.0001" in texts(comparison.pairs(PAIRS.assign(p_holm=1e-20)))
    assert "p: exact McNemar, corrected for 2 pairs (Holm); grey where p ≥ 0.05" in texts(figure)


@pytest.mark.parametrize("draw", [comparison.pairs, lambda t: comparison.classes(t, "a", "b"),
                                  lambda t: comparison.overview(t, PUBLISHED)])  # fmt: skip
def test_a_table_without_the_columns_is_refused(draw):
    with pytest.raises(ValueError, match="expected a table with columns"):
        draw(pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize(
    "figure", [comparison.overview(TABLE, PUBLISHED, "t"), comparison.agreement(PAIRS.iloc[0]),
               comparison.classes(CLASSES, "one", "other"), comparison.pairs(PAIRS)],
    ids=["overview", "agreement", "classes", "pairs"],
)  # fmt: skip
def test_nothing_leaves_the_figure(figure):
    figure.png()  # arranges it
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.03 and box.x1 <= width + 0.03 and box.y0 >= -0.03 and box.y1 <= height + 0.03
