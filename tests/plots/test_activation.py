"""Class activation drawn: the map's values, the film's columns and persons, what the logit is the sum of."""

import numpy as np
import pytest
from figures import clip_of, no_state_leaks, texts  # noqa: F401
from matplotlib.collections import LineCollection, PathCollection

from bpilib.plots import activation
from bpilib.plots.style import SIGNED_COLORS, part_of_joint, short, signed_norm
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit down", "throw"]

def parts_of(skeleton, steps=13, persons=1, seed=0):
    return np.random.default_rng(seed).normal(size=(persons, steps, skeleton.num_joints))


def drawn(skeleton=UCLA, persons=1, steps=13, clip=None, parts=None, **changes):
    clip = clip_of(skeleton, 30, persons) if clip is None else clip
    parts = parts_of(skeleton, steps, persons) if parts is None else parts
    frames = np.linspace(0, 29, steps).round().astype(int)
    given = {"bias": 0.5, "frames": frames, "skeleton": skeleton, "window": 4 * steps, "title": "What?"} | changes
    return activation.class_activation(clip, parts, **given)


def film_of(figure):
    return next(ax for ax in figure.axes if ax.get_label() == "film")


@pytest.mark.parametrize("skeleton", [UCLA, NTU], ids=lambda s: s.name)
def test_joints_are_grouped_by_part_each_once(skeleton):
    order, groups = activation.joints_by_part(skeleton)
    assert sorted(order) == list(range(skeleton.num_joints))
    of = part_of_joint(skeleton)
    for part, start, stop in groups:
        assert {of[j] for j in order[start:stop]} == {part}
    assert [part for part, *_ in groups] == ["torso", "arm", "leg"]


def test_the_map_shows_joints_by_part_over_the_frames_of_the_window():
    parts = parts_of(NTU, 16, persons=2)
    figure = drawn(NTU, 2, 16, parts=parts)
    ax, totals = figure.axes[:2]
    order, _ = activation.joints_by_part(NTU)
    np.testing.assert_allclose(ax.images[0].get_array(), parts.sum(0).T[order])
    assert [t.get_text() for t in ax.get_yticklabels()] == [short(NTU.joints[j]) for j in order]
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert (labels[0], labels[1], labels[-1], len(labels)) == ("1–4", "5–8", "61–64", 16)
    np.testing.assert_allclose([p.get_width() for p in totals.patches], parts.sum((0, 1))[order])


def test_the_sum_is_the_logit():
    parts = parts_of(NTU, 16, persons=2)
    clip = clip_of(NTU, 30, 2)
    one, two = parts.sum((1, 2))
    expected = f"logit {0.5 + one + two:.2f} = bias 0.50 + person 1 {one:.2f} + person 2 {two:.2f}".replace("-", "−")
    assert expected in texts(drawn(NTU, 2, 16, clip=clip, parts=parts))
    clip[:, 1] = 0
    assert [t for t in texts(drawn(NTU, 2, 16, clip=clip, parts=parts)) if "person 2 (nobody)" in t]
    said = texts(drawn(what="difference of logits"))
    assert [t for t in said if t.startswith("difference of logits")]
    assert "added to the difference of logits" in said and "added to the logit" not in said


def test_the_film_stands_over_its_columns():
    clip, parts = clip_of(UCLA, 30), parts_of(UCLA)
    figure = drawn(clip=clip, parts=parts)
    film = film_of(figure)
    assert film.get_position().x0 == figure.axes[0].get_position().x0
    assert film.get_xlim() == figure.axes[0].get_xlim()
    frames = np.linspace(0, 29, 13).round().astype(int)
    steps = [0, 2, 4, 6, 8, 10, 12]
    assert [(t.get_position()[0], t.get_text()) for t in film.texts] == [(s, f"frame {frames[s] + 1}") for s in steps]
    (bones,) = film.findobj(LineCollection)
    assert len(bones.get_segments()) == 7 * 19
    points = film.findobj(PathCollection)[0].get_offsets().reshape(7, 20, 2)
    np.testing.assert_allclose((points[..., 0].min(1) + points[..., 0].max(1)) / 2, steps)
    np.testing.assert_allclose(points[..., 1], clip[frames[steps], 0, :, 1], rtol=1e-5)
    norm = signed_norm(parts.sum(0), parts)
    colors = film.findobj(PathCollection)[0].get_facecolors().reshape(7, 20, 4)
    np.testing.assert_allclose(colors, SIGNED_COLORS(norm(parts[0, steps])))


def test_each_person_has_joints_of_their_own():
    clip, parts = clip_of(NTU, 30, 2), parts_of(NTU, 16, 2)
    clip[10:, 1] = 0  # the second person leaves
    film = film_of(drawn(NTU, 2, 16, clip=clip, parts=parts))
    frames = np.linspace(0, 29, 16).round().astype(int)
    steps = [round(t.get_position()[0]) for t in film.texts]
    there = sum(1 + (frames[s] < 10) for s in steps)
    assert len(steps) < 8  # two persons need room
    assert len(film.findobj(PathCollection)[0].get_offsets()) == there * 25


def test_nobody_at_all():
    figure = drawn(clip=np.zeros((30, 1, 20, 3)))
    assert len(film_of(figure).texts) == 0
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\(M, S, V\) = \(1, 13, 20\).*got \(1, 12, 20\)"):
        drawn(parts=parts_of(UCLA, 12))
    with pytest.raises(ValueError, match="within 0…29"):
        drawn(frames=np.arange(13) + 20)


def test_labels_of_windows_that_steps_do_not_divide():
    assert activation.window_labels(3, 12) == ["1–4", "5–8", "9–12"]
    assert activation.window_labels(2, 2) == ["1", "2"]


def test_classes_by_joint_and_by_time():
    values = np.random.default_rng(0).normal(size=(3, 13, 20))
    values[1] = np.nan  # a class without clips
    figure = activation.class_activation_by_class(values, CLASSES, UCLA, 52)
    left, right = figure.axes[:2]
    order, _ = activation.joints_by_part(UCLA)
    np.testing.assert_allclose(np.ma.filled(left.images[0].get_array(), np.nan), values.sum(1)[:, order])
    np.testing.assert_allclose(np.ma.filled(right.images[0].get_array(), np.nan), values.sum(2))
    assert [t.get_text() for t in left.get_yticklabels()] == CLASSES
    assert right.get_xticklabels()[-1].get_text() == "49–52"
    with pytest.raises(ValueError, match=r"\(2, S, 20\) contributions, got \(3, 13, 20\)"):
        activation.class_activation_by_class(values, CLASSES[:2], UCLA, 52)
