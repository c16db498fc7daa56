"""Curves of several runs, and one confusion matrix minus another."""

import numpy as np
import pytest
from figures import no_state_leaks, texts  # noqa: F401

from bpilib.plots.differences import MOST_RUNS, confusion_difference, curves_of_runs

CLASSES = ["pick up", "sit down", "throw"]


def test_a_panel_a_column_and_a_line_a_run():
    one = {"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "train_top1": [20, 40, 60], "test_top1": [10, np.nan, 50]}
    other = {"epoch": [1, 2], "train_loss": [4.0, 3.0]}
    figure = curves_of_runs({"bpi joint": one, "ctrgcn joint": other})
    loss, _, test = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[3, 2, 1], [4, 3]]
    assert test.lines[0].get_xdata().tolist() == [1, 3] and not len(test.lines[1].get_xdata())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bpi joint", "ctrgcn joint"]
    with pytest.raises(ValueError, match="expected 1 to 6 runs, got 7"):
        curves_of_runs({str(n): one for n in range(MOST_RUNS + 1)})
    with pytest.raises(ValueError, match="the history of a needs a column epoch"):
        curves_of_runs({"a": {"loss": [1]}})


def test_the_difference_is_in_points_of_the_true_class():
    first, second = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 4]]), np.array([[5, 2, 3], [0, 5, 0], [1, 0, 3]])
    figure = confusion_difference(first, second, CLASSES, "bpi", "ctrgcn")
    gap = figure.axes[0].images[0].get_array().filled(0)
    np.testing.assert_allclose(gap, [[30, 0, -30], [0, 0, 0], [-25, 0, 25]])
    assert {"+30", "−30", "+25", "−25", "bpi\nminus ctrgcn"} <= set(texts(figure)) and "+0" not in texts(figure)
    with pytest.raises(ValueError, match="of the same clips"):
        confusion_difference(first, 2 * second, CLASSES, "a", "b")


def test_a_class_without_clips_and_equal_runs_are_drawn():
    empty = np.zeros((3, 3))
    figure = confusion_difference(empty, empty, CLASSES, "a", "b")
    figure.draw_without_rendering()
    assert figure.axes[0].images[0].get_array().mask.all()
