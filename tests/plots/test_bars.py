"""Paired bars and dots: drawn values, intervals, names; heads and mistakes."""

import numpy as np
import pytest
from figures import attention_of, joints_of, no_state_leaks, texts  # noqa: F401

from bpilib.plots import attention_heatmaps
from bpilib.plots.style import draw_pairs, new_picture, short
from bpilib.plots.text import paired_bars
from bpilib.skeleton import UCLA

NAMES = ["pick up", "sit down", "throw"]
FIRST = np.array([[50, 40, 60], [70, 65, 72], [90, 80, 95.0]])
SECOND = FIRST[::-1] + 1


def segments(ax):
    """Every interval drawn, (n, 2) low and high."""
    drawn = [s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    return np.array(sorted((s[0][0], s[1][0]) for s in drawn if s.size and np.isfinite(s).all()))


@pytest.mark.parametrize("as_bars", [True, False])
def test_each_row_has_both_values_and_their_intervals(as_bars):
    figure = paired_bars(NAMES, FIRST, SECOND, ("run A", "run B"), "top-1, %", "A title", bars=as_bars)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == NAMES
    np.testing.assert_allclose(segments(ax), sorted(map(tuple, np.concatenate([FIRST, SECOND])[:, 1:])))
    if as_bars:
        assert [p.get_width() for p in ax.patches] == [*FIRST[:, 0], *SECOND[:, 0]]
        assert all(p.get_hatch() for p in ax.patches[3:]) and not any(p.get_hatch() for p in ax.patches[:3])
    else:
        dots = [line for line in ax.lines if line.get_marker() in ("o", "D")]
        assert [list(line.get_xdata()) for line in dots] == [list(FIRST[:, 0]), list(SECOND[:, 0])]
    assert {"run A", "run B", "top-1, %", "A title"} <= set(texts(figure))


def test_values_without_intervals_are_joined():
    (ax,) = paired_bars(NAMES, FIRST[:, 0], SECOND[:, 0], "AB", "%", bars=False).axes
    np.testing.assert_allclose(segments(ax), sorted(zip(FIRST[:, 0], SECOND[:, 0])))


def test_bars_start_at_their_base():
    ax = new_picture(3, 3).subplots()
    draw_pairs(ax, NAMES, FIRST, SECOND, bars=True, base=1.0)
    assert [p.get_x() for p in ax.patches] == [1.0] * 6
    assert ax.patches[0].get_width() == 49


def test_rows_and_names_must_agree():
    with pytest.raises(ValueError, match="3 rows, one a name, got 2 and 3"):
        paired_bars(NAMES, FIRST[:2], SECOND, "AB", "%")
    with pytest.raises(ValueError, match=r"value, low, high, got \(3, 2\)"):
        paired_bars(NAMES, FIRST[:, :2], SECOND, "AB", "%")


def contrasted(joints, **changes):
    count = sum(len(key) for _, key in joints.values())
    right = np.stack([np.ones(count), np.full(count, 0.9), np.full(count, 1.1)], 1)
    difference = np.tile([0.1, -0.1, 0.3], (count, 1))
    difference[[2, 20]] = [[0.2, 0.1, 0.3], [-0.2, -0.3, -0.1]]
    given = {"right": right, "wrong": right + 0.5, "difference": difference} | changes
    return attention_heatmaps.contrasted_attention(*given.values(), joints, (30, 12), UCLA)


def test_mistakes_have_a_row_a_key_joint_and_bold_names_where_they_differ():
    joints = joints_of(UCLA)
    figure = contrasted(joints)
    panels = figure.axes[:3]
    for ax, (part, (_, key)) in zip(panels, joints.items()):
        assert ax.get_title() == f"{part} looks at …"
        assert [t.get_text() for t in ax.get_yticklabels()] == [short(UCLA.joints[j]) for j in key]
        dots = [line for line in ax.lines if line.get_marker() in ("o", "D")]
        assert [set(line.get_xdata()) for line in dots] == [{1.0}, {1.5}]
    bold = [(n, row) for n, ax in enumerate(panels) for row, t in enumerate(ax.get_yticklabels())
            if t.get_fontweight() == "bold"]  # fmt: skip
    assert bold == [(0, 2), (1, 20 - len(joints["torso"][1]))]
    assert {"30 recognised clips", "12 mistaken clips of the same classes"} <= set(texts(figure))
    with pytest.raises(ValueError, match="one a key joint"):
        contrasted(joints, wrong=np.ones((3, 3)))


def test_heads_are_dots_at_their_share_of_the_most():
    bits = {part: np.tile(np.linspace(1, 4, 8), (5, 1)) for part in attention_of(UCLA)}
    bits["arm"][:, 3] = [0, 1, 2, 3, 4]
    most = dict.fromkeys(bits, 4.0)
    figure = attention_heatmaps.head_entropy(bits, most)
    arm = figure.axes[1]
    assert arm.get_title() == "arm (100 % = 4.00 bits)"
    dots = arm.collections[-1].get_offsets()
    np.testing.assert_allclose(dots[:, 0], 25 * bits["arm"].mean(0))
    np.testing.assert_allclose(arm.collections[0].get_segments()[3][:, 0], [5, 95])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [f"head {h + 1}" for h in range(8)]
    with pytest.raises(ValueError, match="torso, arm, leg"):
        attention_heatmaps.head_entropy({"arm": bits["arm"]}, most)
    with pytest.raises(ValueError, match="n ≥ 1"):
        attention_heatmaps.head_entropy({part: np.zeros((0, 8)) for part in bits}, most)
