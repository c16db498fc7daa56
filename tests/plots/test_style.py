"""The figure language: colours, scales, names, rows and pairs, what is kept, screen and paper."""

import base64
import re

import numpy as np
import pytest
from figures import clip_of, no_state_leaks  # noqa: F401
from matplotlib.colors import to_rgb

from bpilib.plots.accuracy import confusion
from bpilib.plots.clips import animate
from bpilib.plots.style import (
    COLUMN,
    PAGE,
    PART_COLORS,
    PART_INK,
    RIGHT,
    SIGNED_COLORS,
    THEME,
    WRONG,
    draw_pairs,
    new_picture,
    part_of_bone,
    part_of_joint,
    ratio_norm,
    signed_colors,
    signed_norm,
    use_style,
)
from bpilib.plots.text import matches
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


@pytest.fixture
def paper():
    use_style("paper")
    yield
    use_style("screen")


def test_what_is_kept_is_a_png_and_a_pdf_with_its_fonts(tmp_path):
    figure = confusion(np.eye(3), ["pick up", "$x$", "throw"])
    assert figure.keep(tmp_path / "figures" / "a.b.png") is figure
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a.b.pdf", "a.b.png"]
    page = (tmp_path / "figures" / "a.b.pdf").read_bytes()
    assert page.startswith(b"%PDF") and b"/FontFile2" in page and b"/Type3" not in page
    assert page == figure.pdf()  # no date in it
    width, height = 72 * figure.get_size_inches()
    found = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+)", page)
    np.testing.assert_allclose([float(number) for number in found.groups()], [width, height], rtol=1e-4)


def test_a_pdf_is_laid_out_as_the_png():
    figure = confusion(np.eye(3), ["pick up", "a name that needs room", "throw"])
    figure.png()
    places = [ax.get_position().bounds for ax in figure.axes]
    other = confusion(np.eye(3), ["pick up", "a name that needs room", "throw"])
    other.pdf()
    for one, drawn in zip(places, other.axes):
        np.testing.assert_allclose(drawn.get_position().bounds, one, atol=0.02)


def test_a_figure_for_a_paper_fits_its_columns_and_asks_nothing(paper):
    narrow = confusion(np.eye(3), ["pick up", "sit down", "throw"])
    assert narrow.get_figwidth() == COLUMN
    wide = matches(np.linspace(0, 1, 6), [0, 0, 1, 1, 2, 2], ["pick up", "sit down", "throw"], "a throw")
    assert wide.get_figwidth() == PAGE and wide.get_suptitle() == ""
    sizes = [label.get_fontsize() for label in narrow.axes[0].get_xticklabels()]
    assert all(6 <= size < 10 for size in sizes)
    use_style("screen")
    same = matches(np.linspace(0, 1, 6), [0, 0, 1, 1, 2, 2], ["pick up", "sit down", "throw"], "a throw")
    assert same.get_figwidth() == 10 and "a throw" in same.get_suptitle()
    with pytest.raises(ValueError, match="unknown figure style 'print': expected one of screen, paper"):
        use_style("print")


def lightness(color):
    """CIE L* of a colour, 0 (black) to 100 (white): what is left of it in grey print."""
    value = np.array(to_rgb(color))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_grey_print_keeps_parts_and_signs_apart(paper):
    parts = sorted(lightness(PART_COLORS[part]) for part in ("torso", "arm", "leg"))
    assert min(np.diff(parts)) >= 10
    assert abs(lightness(RIGHT) - lightness(WRONG)) >= 10
    ramp = [lightness(color[:3]) for color in signed_colors()(np.linspace(0, 1, 33))]
    assert max(np.diff(ramp)) < 0  # the darker, the more
    assert ramp[0] - ramp[16] >= 30 and ramp[16] - ramp[-1] >= 30
