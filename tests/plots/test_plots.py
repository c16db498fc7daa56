"""Figures show the numbers they are given: drawn values, names and colours, not only that nothing raises."""

import base64
import html
import itertools
import json
import re

import numpy as np
import pytest
from figures import attention_of, clip_of, joints_of, no_state_leaks, texts  # noqa: F401
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb

from bpilib.plots import accuracy as accuracy_plots
from bpilib.plots import attention_heatmaps, attention_skeleton
from bpilib.plots.clips import animate, animate_grid, class_counts, clip_lengths, draw_skeleton, film_strip, scene
from bpilib.plots.style import (
    PART_COLORS,
    PART_INK,
    SIGNED_COLORS,
    THEME,
    new_picture,
    part_of_bone,
    part_of_joint,
    ratio_norm,
    short,
    signed_norm,
)
from bpilib.plots.text import similarity
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit down", "throw"]
SKELETONS = [UCLA, NTU]


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_each_joint_and_bone_has_the_part_it_belongs_to(skeleton):
    for model in ("bpi", "gap"):
        parts = skeleton.parts("joint", model)
        for joint, part in enumerate(part_of_joint(skeleton, model)):
            assert joint in parts[part]
    name = dict(zip(skeleton.joints, part_of_joint(skeleton)))
    assert (name["left shoulder"], name["right hip"], name["head"]) == ("arm", "leg", "torso")
    torso_bones = [c for (c, _), part in zip(skeleton.bones, part_of_bone(skeleton)) if part == "torso"]
    assert {skeleton.joints[c] for c in torso_bones} >= {"head", "left shoulder", "right hip"}
    assert PART_COLORS["arm"] == PART_COLORS["hand"]
    assert len({PART_COLORS[p] for p in ("torso", "arm", "leg")}) == 3


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


def played(animation):
    """What the player will play, read back from its HTML."""
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', animation.data)[1])
    assert "http" not in page  # nothing is fetched
    assert page.count("</script>") == 1  # nothing of a title ends it early
    return json.loads(re.search(r"const D=(\{.*?\});\n", page)[1])


def test_animation_holds_every_frame_and_its_coordinates():
    clip = clip_of(UCLA, 31)
    animation = animate(clip, UCLA, 'a <b>"title"</b> </script>', max_frames=100)
    data = played(animation)
    (one,) = data["clips"]
    assert len(one["frames"]) == one["length"] == 31
    assert one["title"] == 'a <b>"title"</b> </script>'
    drawn = np.array(one["frames"][7][0]).reshape(20, 3)
    expected = clip[7, 0] - clip[7, 0, 0]
    scale = np.abs(drawn - drawn[0]).max() / np.abs(expected).max()
    np.testing.assert_allclose(drawn - drawn[0], expected * scale, atol=1.5)  # whole numbers out of 1000
    assert [b[:2] for b in data["bones"]] == [list(b) for b in UCLA.bones]


def test_animation_of_long_clips_is_thinned_and_small():
    clips = [clip_of(UCLA, 100 + k, seed=k) for k in range(10)]
    animation = animate_grid(clips, [f"class {k}" for k in range(10)], UCLA, max_frames=60)
    data = played(animation)
    assert [len(c["frames"]) for c in data["clips"]] == [60] * 10
    assert [c["at"][-1] for c in data["clips"]] == [99 + k for k in range(10)]
    assert len(animation._repr_html_()) < 500_000


def test_animation_of_two_persons_leaves_out_the_absent_one():
    clip = clip_of(NTU, 6, persons=2)
    clip[3, 1] = 0
    frames = played(animate(clip, NTU))["clips"][0]["frames"]
    assert frames[3][1] == 0
    assert len(frames[2][1]) == 75


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


def test_a_picture_follows_the_theme_and_says_what_it_shows():
    figure = accuracy_plots.confusion(np.eye(3), CLASSES)
    bundle = figure._repr_mimebundle_()
    assert bundle["image/png"] == base64.b64encode(figure.png()).decode()
    tag = bundle["text/html"]
    assert 'class="bpi-figure"' in tag and THEME in tag and bundle["image/png"] in tag
    assert 'alt="100.0% of 3 clips right' in tag
    assert 'class="bpi-figure"' in animate(clip_of(UCLA), UCLA).data


def contrast(color, other="white"):
    """Contrast of two colours by WCAG."""
    values = [np.array(to_rgb(c)) for c in (color, other)]
    linear = [np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for v in values]
    dark, light = sorted(v @ [0.2126, 0.7152, 0.0722] for v in linear)
    return (light + 0.05) / (dark + 0.05)


def test_letters_in_part_colours_can_be_read():
    assert contrast("black") == pytest.approx(21)
    assert set(PART_INK) == set(PART_COLORS)
    assert min(contrast(color) for color in PART_INK.values()) >= 4.5


def test_scales_are_white_at_even_and_at_zero():
    norm = ratio_norm(np.array([0.01, 1, 2.5]), np.array([1.2]))
    assert (norm(1), norm.vmax, norm.vmin) == (pytest.approx(0.5), 3, pytest.approx(1 / 3))
    assert ratio_norm(np.array([0.99, 1.01])).vmax == 1.25  # nothing is made of noise
    assert ratio_norm(np.array([1, 7.0])).vmax == 7
    signed = signed_norm(np.array([-3, 1, np.nan]), np.array([2]))
    assert (signed.vmin, signed.vmax) == (-3, 3)
    assert signed_norm(np.zeros(2)).vmax == 1
    assert min(SIGNED_COLORS(0.5)) > 0.99


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


def test_confusion_is_in_per_cent_of_the_true_class():
    matrix = np.array([[8, 2, 0], [0, 4, 0], [1, 1, 2]])
    figure = accuracy_plots.confusion(matrix, CLASSES)
    ax = figure.axes[0]
    written = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert written == {(0, 0): "80", (0, 1): "20", (1, 1): "100", (2, 0): "25", (2, 1): "25", (2, 2): "50"}
    assert ax.get_title().startswith("77.8% of 18 clips right")
    image = np.asarray(ax.images[0].get_array())
    assert image[0, 0, 2] > image[0, 0, 0] and image[0, 1, 0] > image[0, 1, 2]  # blue on the diagonal, orange off it
    with pytest.raises(ValueError, match=r"must be \(2, 2\).*got \(3, 3\)"):
        accuracy_plots.confusion(matrix, CLASSES[:2])


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


def test_per_class_bars_are_sorted():
    figure = accuracy_plots.per_class_bars([50, np.nan, 90], [10, 0, 30], CLASSES)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["throw", "pick up", "sit down"]
    assert [p.get_width() for p in ax.patches] == [90, 50, 0]
    assert "all clips: 80.0%" in [t.get_text() for t in figure.legends[0].get_texts()]
    with pytest.raises(ValueError, match=r"\(3,\) accuracies"):
        accuracy_plots.per_class_bars([0.5], [10], CLASSES)


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


def test_similarity_marks_the_nearest_prompt():
    matrix = np.random.default_rng(0).normal(size=(4, 3, 3)) * 0.1 + 0.5 * np.eye(3)
    matrix[2] = matrix[2][[2, 0, 1]]
    figure = similarity(matrix, CLASSES)
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == [f"{b}: {n} of 3 right" for b, n in (("global", 3), ("torso", 3), ("arm", 0), ("leg", 3))]
    dots = figure.axes[2].collections[0].get_offsets()
    np.testing.assert_array_equal(dots[:, 0], [2, 0, 1])
    assert len(similarity({"global": matrix[0]}, CLASSES).axes) >= 1
    with pytest.raises(ValueError, match="got 3"):
        similarity(matrix[:3], CLASSES)
    with pytest.raises(ValueError, match=r"must be \(2, 2\)"):
        similarity(matrix, CLASSES[:2])


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


@pytest.mark.parametrize("shape", [(5, 20, 3), (0, 1, 20, 3), (5, 1, 25, 3), (5, 1, 20, 2)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"a clip of ucla must be \(L, M, 20, 3\)"):
        film_strip(np.ones(shape), UCLA)
    with pytest.raises(ValueError, match="got"):
        animate(np.ones(shape), UCLA)


def test_animations_need_a_title_each():
    with pytest.raises(ValueError, match="2 clips and 1 titles"):
        animate_grid([clip_of(UCLA)] * 2, ["one"], UCLA)
