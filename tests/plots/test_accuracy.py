"""Accuracy: drawn values, names and colours, not only that nothing raises."""

import numpy as np
import pandas as pd
import pytest
from figures import no_state_leaks, texts  # noqa: F401
from matplotlib.colors import to_hex

from bpilib.plots import accuracy as accuracy_plots
from bpilib.plots.accuracy import top_classes
from bpilib.plots.style import PALE, RIGHT

CLASSES = ["pick up", "sit down", "throw"]
SEVEN = [f"class {i}" for i in range(7)]
SHARES = np.array([0.05, 0.4, 0.1, 0.0, 0.3, 0.02, 0.13])


def test_training_curves_show_what_there_is_and_redraw_in_place():
    history = {"epoch": [1, 2, 3, 4], "train_loss": [3, 2, 1.5, 1.2], "train_top1": [20, 40, 60, 70]}
    history |= {"test_top1": [np.nan, 50, np.nan, 65], "lr": [0.1, 0.1, 0.05, 0.01]}
    figure = accuracy_plots.training_curves(history)
    assert [ax.get_title() for ax in figure.axes] == ["Training loss", "Accuracy", "Learning rate"]
    accuracy = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(accuracy["test 65.0%"].get_xdata()) == [2, 4]
    longer = {k: [*v, v[-1]] for k, v in history.items()} | {"epoch": [1, 2, 3, 4, 5]}
    assert accuracy_plots.training_curves(longer, figure=figure) is figure
    assert len(figure.axes) == 3
    assert len(figure.axes[0].lines[0].get_xdata()) == 5
    del longer["lr"]
    assert len(accuracy_plots.training_curves(longer).axes) == 2
    with pytest.raises(ValueError, match="column epoch"):
        accuracy_plots.training_curves({"loss": [1]})


def cell_colors(ax):
    """(row, column) → the colour it is drawn in."""
    out = {}
    for mesh in ax.collections:
        mesh.update_scalarmappable()
        shown = ~np.ma.getmaskarray(mesh.get_array())
        faces = mesh.get_facecolor().reshape(*shown.shape, 4)
        out |= {(int(row), int(column)): faces[row, column] for row, column in zip(*shown.nonzero())}
    return out


def test_confusion_is_in_per_cent_of_the_true_class():
    matrix = np.array([[8, 2, 0], [0, 4, 0], [1, 1, 2]])
    figure = accuracy_plots.confusion(matrix, CLASSES)
    ax = figure.axes[0]
    written = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts}
    assert written == {(0, 0): "80", (0, 1): "20", (1, 1): "100", (2, 0): "25", (2, 1): "25", (2, 2): "50"}
    assert ax.get_title().startswith("77.8% of 18 clips right")
    assert [t.get_text() for t in ax.get_xticklabels()] == [t.get_text() for t in ax.get_yticklabels()] == CLASSES
    colors = cell_colors(ax)
    assert set(colors) == {(row, column) for row in range(3) for column in range(3)}
    assert colors[0, 0][2] > colors[0, 0][0] and colors[0, 1][0] > colors[0, 1][2]  # blue on the diagonal, orange off
    with pytest.raises(ValueError, match=r"must be \(2, 2\).*got \(3, 3\)"):
        accuracy_plots.confusion(matrix, CLASSES[:2])


def test_a_class_without_clips_is_not_recognised_in_0_per_cent():
    ax = accuracy_plots.confusion(np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]]), CLASSES).axes[0]
    assert [(t.get_text(), t.get_position()[1]) for t in ax.texts if t.get_text() == "no clips"] == [("no clips", 1.5)]
    (band,) = ax.patches
    assert (band.get_y(), band.get_height()) == (1, 1) and to_hex(band.get_facecolor()) == to_hex(PALE)


def test_confusion_of_many_classes_names_all_and_writes_only_mistakes():
    matrix = np.eye(60) * 10
    matrix[3, 5] = 3
    figure = accuracy_plots.confusion(matrix, [f"class {k}" for k in range(60)])
    assert [t.get_text() for t in figure.axes[0].texts] == ["23"]
    assert len(figure.axes[0].get_yticklabels()) == 60
    assert min(figure.get_size_inches()) > 12


def test_confusion_image_of_many_classes_shows_those_that_are_mistaken_most(monkeypatch):
    random = np.random.default_rng(0)
    matrix = np.diag(np.full(1000, 50)) + (random.random((1000, 1000)) < 0.001)
    matrix[7, 990] = 40  # the most of all
    drawn = []
    monkeypatch.setattr(accuracy_plots, "MOST_CLASSES", 10)
    plain = accuracy_plots.confusion
    keep = lambda *given: drawn.append((*given, plain(*given))) or drawn[-1][-1]  # noqa: E731
    monkeypatch.setattr(accuracy_plots, "confusion", keep)
    image = accuracy_plots.confusion_image(matrix, [f"class {i}" for i in range(1000)])
    assert max(image.shape) < 1000
    small, names, figure = drawn[0]
    assert len(names) == 11 and {"class 7", "class 990"} < set(names) and names[-1] == "990 others"
    assert small.sum() == matrix.sum()
    kept = [int(name.split()[1]) for name in names[:-1]]
    assert kept == sorted(kept)
    np.testing.assert_array_equal(small[:-1, :-1], matrix[np.ix_(kept, kept)])
    np.testing.assert_array_equal(small[:-1].sum(1), matrix[kept].sum(1))
    np.testing.assert_array_equal(small[:, :-1].sum(0), matrix[:, kept].sum(0))
    title = figure.axes[0].get_title()
    assert title.startswith(f"{np.trace(matrix) / matrix.sum():.1%} of") and "10 of 1,000 classes" in title


def test_confusion_image_is_an_rgb_array_that_depends_on_the_counts():
    one = accuracy_plots.confusion_image(np.eye(3), CLASSES)
    other = accuracy_plots.confusion_image(np.eye(3)[::-1], CLASSES)
    assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3
    assert one.shape == other.shape and (one != other).any()


def test_per_class_bars_are_sorted_with_the_intervals_of_the_table():
    table = pd.DataFrame({
        "class": CLASSES, "clips": [10, 0, 30], "top1": [50, np.nan, 90], "low": [20, np.nan, 75],
        "high": [80, np.nan, 97],
    })  # fmt: skip
    ax = accuracy_plots.per_class_bars(table).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["throw", "pick up", "sit down"]
    assert [bar.get_width() for bar in ax.patches if np.isfinite(bar.get_width())] == [90, 50]
    (whiskers,) = [lines for lines in ax.collections if len(lines.get_segments()) > 1]
    drawn = [segment[:, 0].tolist() for segment in whiskers.get_segments() if len(segment)]
    assert [low_and_high for low_and_high in drawn if np.isfinite(low_and_high).all()] == [[75, 97], [20, 80]]
    assert [t.get_text() for t in ax.texts] == ["90% of 30", "50% of 10", "no clips"]
    assert "all clips: 80.0%" in [t.get_text() for t in ax.figure.legends[0].get_texts()]
    with pytest.raises(ValueError, match=r"missing: \['low'\]"):
        accuracy_plots.per_class_bars(table.drop(columns="low"))
    nothing = table.assign(clips=0, top1=np.nan, low=np.nan, high=np.nan)
    assert [t.get_text() for t in accuracy_plots.per_class_bars(nothing).axes[0].texts] == ["no clips"] * 3


def test_confused_pairs_name_true_then_predicted():
    figure = accuracy_plots.confused_pairs([[8, 2, 0], [0, 4, 0], [3, 0, 1]], CLASSES, top=5)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["throw → pick up", "pick up → sit down"]
    assert [p.get_width() for p in ax.patches] == [75, 20]
    assert "3 of 4 clips" in texts(figure)
    assert "No clip" in accuracy_plots.confused_pairs(np.eye(3), CLASSES).axes[0].get_title()
    ax = accuracy_plots.confused_pairs([[81, 19, 0], [6, 94, 0], [0, 0, 1]], CLASSES).axes[0]
    ax.figure.png()
    assert all(float(t.get_text().rstrip("%")) == at for t, at in zip(ax.get_xticklabels(), ax.get_xticks()))


def test_ensembles_are_sorted_by_size_then_accuracy():
    table = {
        "subset": ["joint + bone", "bone", ("joint",)],
        "top1": [92, 85, 90],
        "low": [90, 80, 87],
        "high": [94, 88, 93],
        "n": [2, 1, 1],
    }
    ax = accuracy_plots.ensemble_table(table).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["joint", "bone", "joint + bone"]
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[87, 93], [80, 88]]
    assert [c.get_offsets()[0][0] for c in ax.collections] == [90, 85, 92]
    assert {"90.0%", "85.0%", "92.0%"} <= set(texts(ax))
    with pytest.raises(ValueError, match=r"missing: \['n'\]"):
        accuracy_plots.ensemble_table({k: v for k, v in table.items() if k != "n"})


def drawn_classes(figure):
    ax = figure.axes[0]
    return ax, [label.get_text() for label in ax.get_yticklabels()], [bar.get_width() for bar in ax.patches]


def test_bars_are_the_likeliest_classes_in_order():
    ax, names, widths = drawn_classes(top_classes(SHARES, SEVEN, "a01", top=3))
    assert names == ["class 1", "class 4", "class 6"]
    np.testing.assert_allclose(widths, [40, 30, 13])
    assert [text.get_text() for text in ax.texts] == ["40.0%", "30.0%", "13.0%"]
    assert ax.get_title() == "Clip a01" and ax.get_ylim()[0] > ax.get_ylim()[1]  # the likeliest on top
    assert len(drawn_classes(top_classes(SHARES, SEVEN, "a01"))[1]) == 5
    assert len(drawn_classes(top_classes(SHARES[:2], SEVEN[:2], "a01"))[1]) == 2


def test_the_true_class_alone_is_blue():
    ax, *_ = drawn_classes(top_classes(SHARES, SEVEN, "a01", truth=4))
    assert [to_hex(bar.get_facecolor()) == RIGHT.lower() for bar in ax.patches] == [False, True, False, False, False]
    assert "its class: class 4" in ax.get_title()
    ax, *_ = drawn_classes(top_classes(SHARES, SEVEN, "a01", truth=3))  # not among the likeliest
    assert {to_hex(bar.get_facecolor()) for bar in ax.patches} == {PALE.lower()}


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expected \(7,\) probabilities.*\(3,\)"):
        top_classes(SHARES[:3], SEVEN, "a01")
    with pytest.raises(ValueError, match=r"true class within 0\.\.\.6 or None, got 7"):
        top_classes(SHARES, SEVEN, "a01", truth=7)
