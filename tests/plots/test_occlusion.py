"""What classes and clips need: drawn drops, names, marks."""

import numpy as np
import pytest
from figures import clip_of, no_state_leaks  # noqa: F401

from bpilib.plots.activation import joints_by_part
from bpilib.plots.occlusion import occlusion_by_class, occlusion_card
from bpilib.plots.style import short
from bpilib.skeleton import UCLA

CLASSES = ["pick up", "sit down", "throw"]


def drops(*shape):
    """Values with intervals that leave out 0 in the first region alone."""
    value = np.random.default_rng(0).normal(size=shape)
    out = np.stack([value, value - 9, value + 9], -1)
    out[..., 0, :] = [2.0, 1.0, 3.0]
    return out


def test_maps_draw_the_means_and_mark_what_is_not_chance():
    joints = drops(3, 20)
    figure = occlusion_by_class(joints, drops(3, 3), drops(3, 8), CLASSES, UCLA, 52)
    order, _ = joints_by_part(UCLA)
    left, middle, right = figure.axes[:3]
    np.testing.assert_allclose(left.images[0].get_array(), joints[:, order, 0])
    assert [label.get_text() for label in left.get_xticklabels()] == [short(UCLA.joints[j]) for j in order]
    assert [label.get_text() for label in middle.get_xticklabels()] == ["torso", "arm", "leg"]
    assert right.get_xticklabels()[0].get_text() == "1–6"
    for ax, column in ((left, order.index(0)), (middle, 0), (right, 0)):
        marks = ax.collections[-1].get_offsets()
        np.testing.assert_array_equal(marks, [[column, row] for row in range(3)])
    with pytest.raises(ValueError, match="drops of 2 classes"):
        occlusion_by_class(joints, drops(3, 3), drops(3, 8), CLASSES[:2], UCLA, 52)


@pytest.mark.parametrize("intervals", [True, False])
def test_a_card_has_a_bar_a_joint_part_and_stretch(intervals):
    given = {"joints": drops(20), "parts": drops(3), "time": drops(8)}
    given = given if intervals else {name: values[:, 0] for name, values in given.items()}
    figure = occlusion_card(clip_of(UCLA), given, UCLA, 52, "What does it need?")
    order, _ = joints_by_part(UCLA)
    _, left, right = figure.axes[:3]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], drops(20)[order, 0])
    bold = [t.get_text() for t in left.get_yticklabels() if t.get_fontweight() == "bold"]
    assert bold == ([short(UCLA.joints[0])] if intervals else [])
    upper, lower = right.child_axes
    assert [t.get_text() for t in upper.get_yticklabels()] == ["torso", "arm", "leg"]
    np.testing.assert_allclose([bar.get_width() for bar in lower.patches], drops(8)[:, 0])
    with pytest.raises(ValueError, match="20 joints and 3 parts, got 20 and 8"):
        occlusion_card(clip_of(UCLA), given | {"parts": given["time"]}, UCLA, 52, "")
