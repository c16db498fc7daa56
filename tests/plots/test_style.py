"""The figure language: colours, scales, names, rows and pairs, what is kept, screen and paper."""

import base64

import numpy as np
import pytest
from figures import clip_of, no_state_leaks  # noqa: F401
from matplotlib.colors import to_rgb

from bpilib.plots.accuracy import confusion
from bpilib.plots.clips import animate
from bpilib.plots.style import (
    PART_COLORS,
    PART_INK,
    SIGNED_COLORS,
    THEME,
    draw_pairs,
    new_picture,
    part_of_bone,
    part_of_joint,
    ratio_norm,
    signed_norm,
)
from bpilib.skeleton import NTU, UCLA

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


def test_a_picture_follows_the_theme_and_says_what_it_shows():
    figure = confusion(np.eye(3), ["pick up", "sit down", "throw"])
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


def test_bars_start_at_their_base():
    ax = new_picture(3, 3).subplots()
    draw_pairs(ax, ["a", "b", "c"], [50, 70, 90], [91, 71, 51], bars=True, base=1.0)
    assert [p.get_x() for p in ax.patches] == [1.0] * 6
    assert ax.patches[0].get_width() == 49
