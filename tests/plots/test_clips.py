"""Skeletons and what notebook 01 shows: drawn places, names and colours."""

import itertools

import numpy as np
import pytest
from figures import clip_of, no_state_leaks, texts  # noqa: F401
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from bpilib.plots.clips import animate, class_counts, clip_lengths, draw_skeleton, film_strip, scene
from bpilib.plots.style import PART_COLORS, new_picture, part_of_bone
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit down", "throw"]


def test_skeleton_is_drawn_upright_and_as_the_sensor_saw_it():
    pose = clip_of(UCLA)[0]
    ax = new_picture(3, 3).subplots()
    xy = draw_skeleton(ax, pose, UCLA)
    np.testing.assert_allclose(xy[0], np.stack([-pose[0, :, 0], pose[0, :, 1]], -1), rtol=1e-6)
    (limbs,) = ax.findobj(LineCollection)
    np.testing.assert_allclose(limbs.get_segments(), xy[0][np.array(UCLA.bones)])
    colors = [to_hex(c).upper() for c in limbs.get_colors()]
    assert colors == [PART_COLORS[p] for p in part_of_bone(UCLA)]
    assert ax.get_aspect() == 1
    turned = draw_skeleton(ax, pose, UCLA, azimuth=90)
    np.testing.assert_allclose(turned[0], np.stack([-pose[0, :, 2], pose[0, :, 1]], -1), rtol=1e-5)


def test_an_absent_second_person_is_left_out():
    clip = clip_of(NTU, persons=2)
    ax = new_picture(3, 3).subplots()
    assert len(draw_skeleton(ax, clip[0], NTU)) == 2
    clip[:, 1] = 0
    assert len(draw_skeleton(ax, clip[0], NTU)) == 1
    assert not [t for t in texts(film_strip(clip, NTU)) if "person 2" in t]
    assert [t for t in texts(film_strip(clip_of(NTU, persons=2), NTU)) if "person 2" in t]


@pytest.mark.parametrize(("length", "panels"), [(44, 8), (5, 5), (1, 1)])
def test_film_strip_shows_first_and_last_frame(length, panels):
    figure = film_strip(clip_of(UCLA, length), UCLA, frames=8, title="throw")
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == panels
    assert titles[0] == f"frame 1 of {length}"
    assert length == 1 or titles[-1] == f"frame {length}"
    assert "throw" in texts(figure)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_titles_of_a_slim_person_s_frames_fit():
    figure = film_strip(clip_of(UCLA, 1020) * (0.1, 1, 0.1), UCLA)
    figure.png()  # arranges it
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    assert boxes[0].x0 >= 0 and all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_film_strip_of_nobody():
    assert len(film_strip(np.zeros((3, 1, 20, 3)), UCLA).axes) == 3


def test_a_scene_shows_poses_in_space_over_their_track():
    clip = clip_of(NTU, 9, persons=2)
    clip[:, 1] = 0
    figure = scene(clip, NTU, frames=3, title="walk")
    (ax,) = figure.axes
    limbs = [c for c in ax.findobj(LineCollection) if len(c.get_colors()) > 1]  # the others lie on the floor
    assert len(limbs) == 3 and "walk" in texts(figure)
    colors = [to_hex(c).upper() for c in limbs[0].get_colors()]
    assert colors == [PART_COLORS[p] for p in part_of_bone(NTU)]
    track = np.array(ax.lines[0].get_data_3d())  # right, away, floor
    np.testing.assert_allclose(track[0], -clip[:, 0, :, 0].mean(1), rtol=1e-5)
    np.testing.assert_allclose(track[1], clip[:, 0, :, 2].mean(1), rtol=1e-5)
    np.testing.assert_allclose(track[2], clip[:, 0, :, 1].min(), rtol=1e-5)
    assert {"to the right, m", "away from the sensor, m", "up, m"} <= set(texts(figure))
    assert len(scene(clip_of(NTU, 9, persons=2), NTU, frames=3).axes[0].lines) == 2
    with pytest.raises(ValueError, match="nobody is in this clip"):
        scene(np.zeros((3, 1, 25, 3)), NTU)


def test_class_counts_count_each_split():
    labels = np.array([0, 0, 1, 2, 2, 2])
    figure = class_counts(labels, CLASSES, {"train": [0, 2, 3], "test": [1, 4, 5]})
    (ax,) = figure.axes
    assert [[bar.get_width() for bar in group] for group in ax.containers] == [[1, 1, 1], [1, 0, 2]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["train (3 clips)", "test (3 clips)"]
    with pytest.raises(ValueError, match="0…1 for 2 classes, got 2"):
        class_counts(labels, CLASSES[:2], {"train": [0]})


def test_clip_lengths_draw_the_medians():
    figure = clip_lengths([10, 20, 30, 7, 9, 50], [0, 0, 0, 1, 1, 2], CLASSES)
    medians = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linewidth() == 2.6]
    assert medians == [20, 8, 50]
    assert "7 to 50" in figure.axes[0].get_title()
    with pytest.raises(ValueError, match="one length per label"):
        clip_lengths([1, 2], [0], CLASSES)


@pytest.mark.parametrize("shape", [(5, 20, 3), (0, 1, 20, 3), (5, 1, 25, 3), (5, 1, 20, 2)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"a clip of ucla must be \(L, M, 20, 3\)"):
        film_strip(np.ones(shape), UCLA)
    with pytest.raises(ValueError, match="got"):
        animate(np.ones(shape), UCLA)
