"""Attention as maps and bars: drawn weights, names, entropies; recognised and mistaken clips."""

import numpy as np
import pytest
from figures import attention_of, clip_of, joints_of, no_state_leaks, texts  # noqa: F401

from bpilib.plots import attention_heatmaps, attention_skeleton
from bpilib.plots.style import short
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit down", "throw"]


@pytest.mark.parametrize("head", [None, 3])
def test_attention_maps_draw_the_weights_with_joint_names(head):
    maps, joints = attention_of(UCLA), joints_of(UCLA)
    figure = attention_heatmaps.attention_maps(maps, joints, UCLA, head=head)
    for ax, part in zip(figure.axes, maps):
        expected = maps[part].mean(0) if head is None else maps[part][head]
        np.testing.assert_allclose(ax.images[0].get_array(), expected * len(joints[part][1]))  # multiples of even
        assert [t.get_text() for t in ax.get_yticklabels()] == [short(UCLA.joints[j]) for j in joints[part][0]]
        assert [t.get_text() for t in ax.get_xticklabels()] == [short(UCLA.joints[j]) for j in joints[part][1]]
        assert {t for t in texts(ax) if t in maps} == set(maps) - {part}
    assert len({ax.images[0].get_clim() for ax in figure.axes[:3]}) == 1  # one scale
    with pytest.raises(ValueError, match=r"0…7, got 8"):
        attention_heatmaps.attention_maps(maps, joints, UCLA, head=8)


def test_attention_heads_say_their_entropy():
    maps = attention_of(NTU)
    keys = maps["leg"].shape[-1]
    figure = attention_heatmaps.attention_heads(maps, joints_of(NTU), NTU, "leg", np.arange(8) / 4)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["head 1: 0.00 bits", "head 2: 0.25 bits"]
    assert f"all {keys} joints alike: {np.log2(keys):.2f} bits" in figure.get_suptitle()
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), maps["leg"][5] * keys)
    with pytest.raises(ValueError, match="each of 8 heads, got 3"):
        attention_heatmaps.attention_heads(maps, joints_of(NTU), NTU, "leg", [1, 2, 3])
    with pytest.raises(ValueError, match="torso, arm, leg"):
        attention_heatmaps.attention_heads(maps, joints_of(NTU), NTU, "tail", np.ones(8))


def test_attention_of_other_joints_is_refused():
    maps = attention_of(UCLA)
    with pytest.raises(ValueError, match=r"attention of torso must have 3 axes, the last \(9, 20\)"):
        attention_heatmaps.attention_maps(maps, joints_of(NTU), NTU)
    with pytest.raises(ValueError, match="3 axes"):
        attention_skeleton.attention_on_skeleton({"arm": maps["arm"][0]}, joints_of(UCLA), clip_of(UCLA)[0], UCLA)
    with pytest.raises(ValueError, match="same parts"):
        attention_heatmaps.attention_maps({**maps, "tail": maps["leg"]}, joints_of(UCLA), UCLA)


def test_received_attention_has_a_row_per_class():
    joints = joints_of(UCLA)
    per_class = {p: m.mean((1, 2)) for p, m in attention_of(UCLA, clips=(3,)).items()}
    figure = attention_heatmaps.received_attention(per_class, joints, CLASSES, UCLA)
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), per_class["leg"] * len(joints["leg"][1]))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == CLASSES
    with pytest.raises(ValueError, match="2 rows"):
        attention_heatmaps.received_attention(per_class, joints, CLASSES[:2], UCLA)


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
