"""Figures of the tour: who takes from whom, what has been taken in, numbers as they were given."""

import numpy as np
import pytest
from figures import clip_of, no_state_leaks, texts  # noqa: F401
from matplotlib.patches import FancyArrowPatch

from bpilib.plots import tour
from bpilib.plots.activation import joints_by_part
from bpilib.skeleton import NTU, UCLA

POSE = clip_of(UCLA)[0, 0]


def test_the_clearest_frame_has_no_joint_on_another():
    clip = clip_of(UCLA, 4)[:, 0]
    clip[[0, 1, 3], 11] = clip[[0, 1, 3], 10]
    assert tour.find_clearest_frame(clip, UCLA) == 2


@pytest.mark.parametrize("skeleton", [UCLA, NTU])
def test_a_link_is_an_arrow_from_who_gives_to_who_takes(skeleton):
    figure = tour.graph_subsets(clip_of(skeleton)[0, 0], skeleton)
    _, inward, outward = figure.axes
    counts = [skeleton.num_joints, len(skeleton.bones), len(skeleton.bones)]
    assert [int(ax.get_title().split()[1]) for ax in figure.axes] == counts
    graph = skeleton.adjacency()
    for subset, ax in ((1, inward), (2, outward)):
        places = ax.collections[-1].get_offsets()
        arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
        assert len(arrows) == len(skeleton.bones)
        for arrow in arrows:
            start, end = (np.array(point) for point in arrow._posA_posB)
            gives = int(np.abs(places - (start - 0.12 / 0.76 * (end - start))).sum(1).argmin())
            takes = int(np.abs(places - (end + 0.12 / 0.76 * (end - start))).sum(1).argmin())
            assert graph[subset, takes, gives] > 0


def test_what_has_not_been_taken_in_is_hollow():
    shares = {"block 1": np.eye(20)[[11, 10]].mean(0), "block 10": np.full(20, 0.05)}
    figure = tour.receptive_field(POSE, shares, 11, UCLA)
    assert [ax.get_title().split("\n")[1] for ax in figure.axes] == ["2 of 20 joints", "20 of 20 joints"]
    hollow, taken = figure.axes[0].collections[1:3]
    assert len(hollow.get_offsets()) == 18 and len(taken.get_offsets()) == 2
    assert taken.get_sizes()[0] > figure.axes[1].collections[2].get_sizes()[0]
    with pytest.raises(ValueError, match=r"expected \(20,\) shares in 'x'"):
        tour.receptive_field(POSE, {"x": np.ones(3)}, 0, UCLA)


def test_graphs_are_drawn_in_the_order_of_parts():
    matrix = np.arange(400.0).reshape(20, 20)
    figure = tour.topologies({"given": matrix, "learned": -matrix}, UCLA)
    order, _ = joints_by_part(UCLA)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), matrix[np.ix_(order, order)])
    assert figure.axes[0].images[0].norm.vmax == 399
    with pytest.raises(ValueError, match=r"expected \(20, 20\) in 'x'"):
        tour.topologies({"x": np.eye(3)}, UCLA)


@pytest.mark.parametrize("skeleton", [UCLA, NTU])
def test_a_joint_has_as_many_rings_as_parts(skeleton):
    figure = tour.body_parts(clip_of(skeleton)[0, 0], skeleton)
    for ax, model in zip(figure.axes, ("bpi", "gap")):
        rings = sum(len(joints) for joints in skeleton.parts("joint", model).values())
        assert len(ax.collections) == 1 + rings  # the bones are one
        assert [text.get_text() for text in ax.get_legend().get_texts()] == [
            f"{part} ({len(joints)})" for part, joints in skeleton.parts("joint", model).items()
        ]


def test_motion_is_drawn_longer_and_says_so():
    figure = tour.modalities(POSE, {"joint": POSE, "joint_motion": np.full((20, 3), 0.1)}, UCLA, stretch=3)
    assert "3 times as long" in figure.axes[1].get_title() and not figure.axes[0].patches
    (length,) = {round(float(np.hypot(*np.subtract(*arrow._posA_posB))), 6) for arrow in figure.axes[1].patches}
    assert length > 0.1
    with pytest.raises(ValueError, match="expected a modality and"):
        tour.modalities(POSE, {"speed": POSE}, UCLA)


def test_raw_and_fed_are_drawn_in_their_own_units():
    clip, fed = clip_of(UCLA, 12)[:, 0], clip_of(UCLA, 52, seed=1)[:, 0]
    figure = tour.raw_and_fed(clip, fed, 19, UCLA)
    raw, _, seen, _ = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in raw.lines[:3]], clip[:, 19].T)
    np.testing.assert_allclose([line.get_ydata() for line in seen.lines[:3]], fed[:, 19].T)
    assert raw.get_title() == "raw: 12 frames, the right foot" and seen.get_title().startswith("fed: 52 frames")


def test_scores_and_weights_are_written():
    shown = texts(tour.attention_by_hand(POSE, 11, [3, 16, 19], [1.41, 0.0, -0.71], [0.74, 0.18, 0.08], UCLA))
    assert {"1.41", "−0.71", "0.74", "0.18", "head", "R hip", "the right hand looks"} <= set(shown)
    with pytest.raises(ValueError, match="weights that sum to 1"):
        tour.attention_by_hand(POSE, 11, [3], [1.0], [0.5], UCLA)


def test_every_number_of_the_loss_is_written():
    steps = {"cosines": np.array([[1.0, -0.5], [0.25, 0.75]]), "target": np.array([[0.5, 0.5], [0, 1]])}
    figure = tour.contrastive_steps(steps, ["wave", "kick"], ["“wave”", "“kick”"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "−0.50", "0.25", "0.75"]
    with pytest.raises(ValueError, match=r"expected \(2, 2\) in 'target'"):
        tour.contrastive_steps({"target": np.eye(3)}, ["a", "b"], ["c", "d"])
