"""Who looks at whom: the diagram's numbers and widths, links and discs on each person."""

from itertools import combinations

import numpy as np
import pytest
from figures import attention_of, clip_of, joints_of, no_state_leaks, texts  # noqa: F401
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bpilib.plots import attention_skeleton
from bpilib.plots.style import PART_COLORS, short
from bpilib.skeleton import NTU, UCLA

PARTS = ["torso", "arm", "leg"]
EVEN = np.array([[0, 0.6, 0.4], [0.5, 0, 0.5], [0.4, 0.6, 0]])
FLOW = np.array([[0, 0.9, 0.1], [0.5, 0, 0.5], [0.2, 0.8, 0]])


def arrow_width(patch):
    """Of a "simple" arrow's tail, in points."""
    return patch.get_arrowstyle().tail_width


def test_the_diagram_has_an_arrow_for_each_flow_with_its_number():
    figure = attention_skeleton.part_flow({"throw": FLOW}, EVEN, PARTS)
    (ax,) = figure.axes
    assert ax.get_title() == "throw"
    arrows = {p.get_gid(): p for p in ax.patches if p.get_gid()}
    assert set(arrows) == {f"{a} {b}" for a in PARTS for b in PARTS if a != b}
    widths = {name: arrow_width(arrow) for name, arrow in arrows.items()}
    assert widths["torso arm"] / widths["torso leg"] == pytest.approx(9)
    assert widths["arm torso"] / widths["leg arm"] == pytest.approx(0.5 / 0.8)
    dashed = [arrow_width(p) for p in ax.patches if hasattr(p, "get_arrowstyle") and not p.get_gid()]
    scale = widths["torso arm"] / 0.9
    np.testing.assert_allclose(dashed, scale * EVEN[EVEN > 0])
    assert {"90%\n1.50×", "10%\n0.25×", "50%\n1.00×", "20%\n0.50×", "80%\n1.33×"} <= set(texts(ax))
    assert set(PARTS) <= set(texts(ax))
    assert "dashed: an even share over joints (1×)" in texts(figure)


def test_arrows_have_the_colour_of_the_part_that_looks():
    ax = attention_skeleton.part_flow({"throw": FLOW}, EVEN, PARTS).axes[0]
    for arrow in (p for p in ax.patches if p.get_gid()):
        looking = arrow.get_gid().split()[0]
        assert to_hex(arrow.get_facecolor()).upper() == PART_COLORS[looking]


def test_many_diagrams_stand_in_rows():
    figure = attention_skeleton.part_flow({f"class {k}": FLOW for k in range(6)}, EVEN, PARTS, columns=4)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == [f"class {k}" for k in range(6)]


def overlapping(boxes):
    """Pairs of boxes that share more than a pixel."""
    shared = [Bbox.intersection(one, other) for one, other in combinations(boxes, 2)]
    return [box for box in shared if box is not None and min(box.size) > 1]


def test_no_number_of_the_diagram_hides_another():
    figure = attention_skeleton.part_flow({f"class {k}": FLOW for k in range(8)}, EVEN, PARTS)
    figure.png()
    for ax in figure.axes:
        numbers = [t.get_bbox_patch() for t in ax.texts if t.get_bbox_patch()]
        assert len(numbers) == 6
        assert overlapping([box.get_window_extent() for box in numbers]) == []


def test_names_of_neighbouring_joints_stand_apart():
    pose = np.zeros((20, 3))
    pose[:, 0], pose[:, 1] = np.linspace(-1, 1, 20), np.abs(np.linspace(-0.6, 0.6, 20))  # wide: the panels are low
    maps, joints = attention_of(UCLA), joints_of(UCLA)
    for part, (_, key) in joints.items():
        maps[part][..., [key.index(j) for j in sorted(key)[-4:]]] = 0.2  # four joints side by side
    figure = attention_skeleton.attention_on_skeleton(maps, joints, pose, UCLA)
    figure.png()
    for ax in figure.axes[:3]:
        names = [Text.get_window_extent(t) for t in ax.texts]  # without the leaders
        assert len(names) > 1 and overlapping(names) == []


def test_flows_that_are_none_are_refused():
    with pytest.raises(ValueError, match="no flow to draw"):
        attention_skeleton.part_flow({}, EVEN, PARTS)
    with pytest.raises(ValueError, match=r"flow 'throw'.*rows that sum to 1"):
        attention_skeleton.part_flow({"throw": FLOW / 2}, EVEN, PARTS)
    with pytest.raises(ValueError, match="flow 'throw'"):
        attention_skeleton.part_flow({"throw": FLOW[:2, :2]}, EVEN, PARTS)


@pytest.mark.parametrize("skeleton", [UCLA, NTU], ids=lambda s: s.name)
@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_attention_on_skeleton_shows_multiples_of_an_even_share(skeleton, modality):
    maps, joints = attention_of(skeleton, modality=modality), joints_of(skeleton, modality)
    figure = attention_skeleton.attention_on_skeleton(maps, joints, clip_of(skeleton)[0], skeleton, top=5)
    panels = figure.axes[:3]
    assert [ax.get_title() for ax in panels] == ["torso looks at …", "arm looks at …", "leg looks at …"]
    for ax, part in zip(panels, maps):
        keys = list(joints[part][1])
        mean = maps[part].mean((0, 1))  # by key: a joint of two parts is there twice
        share = {j: np.mean([w for w, k in zip(mean, keys) if k == j]) * len(keys) for j in set(keys)}
        best = max(share, key=share.get)
        assert f"{short(skeleton.joints[best])}\n{share[best]:.1f}×" in texts(ax)
        links = [p for p in ax.patches if p.get_gid() == "link"]
        assert len(links) == 5
        widths = [p.get_linewidth() for p in links]
        assert widths == sorted(widths, reverse=True)
        discs = ax.findobj(PathCollection)[-1]
        assert len(discs.get_sizes()) == len(set(joints[part][1]))
        ratios = np.array([share[j] for j in sorted(share)])
        np.testing.assert_allclose(discs.get_sizes(), (70 * ratios).clip(6, 420))


def test_both_persons_carry_the_same_weights():
    maps, joints, pose = attention_of(NTU), joints_of(NTU), clip_of(NTU, persons=2)[0]
    figure = attention_skeleton.attention_on_skeleton(maps, joints, pose, NTU, top=5)
    assert [t for t in texts(figure) if "both persons: same weights" in t]
    for ax in figure.axes[:3]:
        assert len(ax.findobj(LineCollection)) == 2
        assert len([p for p in ax.patches if p.get_gid() == "link"]) == 10
        _, discs_one, _, discs_two = ax.findobj(PathCollection)
        np.testing.assert_allclose(discs_one.get_sizes(), discs_two.get_sizes())
        np.testing.assert_allclose(discs_one.get_facecolors(), discs_two.get_facecolors())
        assert np.abs(discs_one.get_offsets() - discs_two.get_offsets()).min(0).max() > 0
    pose[1] = 0
    figure = attention_skeleton.attention_on_skeleton(maps, joints, pose, NTU, top=5)
    assert not [t for t in texts(figure) if "both persons" in t]
    assert len(figure.axes[0].findobj(LineCollection)) == 1


def test_attention_on_a_frame_without_a_person():
    figure = attention_skeleton.attention_on_skeleton(attention_of(UCLA), joints_of(UCLA), np.zeros((20, 3)), UCLA)
    assert figure.axes[0].get_title() == "torso: nobody in this frame"
    assert not [p for p in figure.axes[0].patches if p.get_gid() == "link"]
