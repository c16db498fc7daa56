"""The likeliest classes of a clip as bars."""

import numpy as np
import pytest

from bpilib.plots.accuracy import top_classes
from bpilib.plots.style import PALE, RIGHT

CLASSES = [f"class {i}" for i in range(7)]
SHARES = np.array([0.05, 0.4, 0.1, 0.0, 0.3, 0.02, 0.13])


def drawn(figure):
    ax = figure.axes[0]
    return ax, [label.get_text() for label in ax.get_yticklabels()], [bar.get_width() for bar in ax.patches]


def test_bars_are_the_likeliest_classes_in_order():
    ax, names, widths = drawn(top_classes(SHARES, CLASSES, "a01", top=3))
    assert names == ["class 1", "class 4", "class 6"]
    np.testing.assert_allclose(widths, [40, 30, 13])
    assert [text.get_text() for text in ax.texts] == ["40.0%", "30.0%", "13.0%"]
    assert ax.get_title() == "Clip a01" and ax.get_ylim()[0] > ax.get_ylim()[1]  # the likeliest on top
    assert len(drawn(top_classes(SHARES, CLASSES, "a01"))[1]) == 5
    assert len(drawn(top_classes(SHARES[:2], CLASSES[:2], "a01"))[1]) == 2


def test_the_true_class_alone_is_blue():
    from matplotlib.colors import to_hex

    ax, *_ = drawn(top_classes(SHARES, CLASSES, "a01", truth=4))
    assert [to_hex(bar.get_facecolor()) == RIGHT.lower() for bar in ax.patches] == [False, True, False, False, False]
    assert "its class: class 4" in ax.get_title()
    ax, *_ = drawn(top_classes(SHARES, CLASSES, "a01", truth=3))  # not among the likeliest
    assert {to_hex(bar.get_facecolor()) for bar in ax.patches} == {PALE.lower()}


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expected \(7,\) probabilities.*\(3,\)"):
        top_classes(SHARES[:3], CLASSES, "a01")
    with pytest.raises(ValueError, match=r"true class within 0\.\.\.6 or None, got 7"):
        top_classes(SHARES, CLASSES, "a01", truth=7)
