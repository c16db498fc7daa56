"""The skeleton on a film, the classes of a recording over time, the player's payload."""

import base64
import io
import json
import re

import numpy as np
import pytest
from figures import attention_of, joints_of
from lab import FLAGS, chromium
from matplotlib.collections import LineCollection
from PIL import Image

from bpilib.plots import film_figures, film_player
from bpilib.skeleton import NTU

CLASSES = ["wave", "clap", "kick </script>"]
RNG = np.random.default_rng(0)


def moment(second, window=0, clip_frame=0, jpeg=None, persons=1):
    pose = RNG.normal(size=(2, 25, 3))
    pose[persons:] = 0
    over = np.full((2, 25, 2), np.nan)
    over[:persons] = RNG.uniform(0, 64, (persons, 25, 2))
    found = {"pose": pose, "second": second, "number": int(30 * second), "window": window, "clip_frame": clip_frame}
    return found | ({"jpeg": jpeg, "over": over} if jpeg else {})


def window(k=0, attends=True, strength=1.0):
    shares = np.full(3, 0.1)
    shares[k] = 0.8
    activation = np.zeros((2, 4, 25))
    activation[0, 1, 7], activation[0, 2, 3] = strength, -strength / 2
    maps = attention_of(NTU) if attends else {}
    return {"probabilities": shares, "maps": maps, "activation": activation, "frames": np.array([4, 12, 20, 28])}


def play(frames, windows, **given):
    return film_player.play_film(frames, windows, joints_of(NTU), CLASSES, NTU, **given)


def test_the_player_holds_what_it_shows_and_nothing_that_needs_a_network():
    picture = film_player.jpeg(np.zeros((48, 64, 3), np.uint8))
    frames = [moment(k / 10, window=k // 5, clip_frame=3 * (k % 5), jpeg=picture) for k in range(10)]
    shown = play(frames, [window(0), window(1)], size=(64, 48), title="a film")
    payload = shown.payload
    assert [frame["window"] for frame in payload["frames"]] == [0] * 5 + [1] * 5
    assert [frame["step"] for frame in payload["frames"][:5]] == [0, 0, 0, 1, 1]  # the step whose frame is nearest
    assert payload["frames"][0]["pose"][1] == 0 and len(payload["frames"][0]["pose"][0]) == 75  # nobody is second
    assert payload["windows"][0]["top"][0] == ["wave", 0.8] and payload["windows"][1]["top"][0] == ["clap", 0.8]
    assert payload["windows"][0]["activation"][1][0][7] == 100 and payload["windows"][0]["activation"][2][0][3] == -50
    assert payload["windows"][0]["moment"] == [0, 1, -0.5, 0]
    assert not re.search(r"https?://", shown.page) and shown.page.count("</script>") == 1
    read = re.search(r"const D = (.*);\n", shown.page)[1]
    assert json.loads(read)["frames"][3]["jpeg"] == picture
    assert "bpi-figure" not in shown._repr_html_() and "trust this notebook" in shown._repr_html_()  # no negative film


def test_attention_is_a_multiple_of_an_even_share_and_none_where_a_joint_is_no_key():
    shown = play([moment(0)], [window()])
    joints = joints_of(NTU)
    for part, seen in shown.payload["windows"][0]["attention"].items():
        keys = {*map(int, joints[part][1])}
        assert {j for j, value in enumerate(seen) if value is not None} == keys
        assert np.mean([seen[j][0] for j in keys]) == pytest.approx(1, abs=0.3)
        assert all(0 <= seen[j][1] < film_player.SHADES for j in keys)


def test_networks_without_attention_are_played_too():
    assert play([moment(0)], [window(attends=False)]).payload["windows"][0]["attention"] == {}


def test_windows_that_are_not_shown_are_left_out():
    shown = play([moment(0, window=2), moment(0.1, window=4)], [window(k % 3) for k in range(6)])
    assert [frame["window"] for frame in shown.payload["frames"]] == [0, 1]
    assert [one["top"][0][0] for one in shown.payload["windows"]] == [CLASSES[2], CLASSES[1]]


def test_pictures_are_small_and_the_player_is_bounded(monkeypatch):
    noise = RNG.integers(0, 255, (1080, 1920, 3)).astype(np.uint8)
    text = film_player.jpeg(noise)
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (320, 180)
    monkeypatch.setattr(film_player, "BYTES", 20 * len(text))
    frames = [moment(k / 10, jpeg=text) for k in range(50)]
    shown = play(frames, [window()], fps=10)
    kept = shown.payload["frames"]
    assert 10 < len(kept) <= 20 and kept[0]["second"] == 0 and kept[-1]["second"] == 4.9
    assert shown.payload["fps"] == pytest.approx(10 * len(kept) / 50)  # the same length in seconds


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_panels_stand_in_one_row_or_two_by_two(tmp_path):
    """Never three and one, which leaves half of the player empty: at 830 pixels, JupyterLab's in a window of 1280."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[test]'")
    jpeg = film_player.jpeg(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "page.html").write_text(play([moment(0, jpeg=jpeg)], [window()])._repr_html_())
    rows = "() => [...document.querySelectorAll('figure')].map(e => e.getBoundingClientRect().top)"
    with sync_api.sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium(), args=FLAGS).new_page()
        for width, in_a_row in ((1300, 4), (830, 4), (700, 2), (350, 1)):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto((tmp_path / "page.html").as_uri())
            frame = page.frames[1]
            frame.wait_for_function("document.querySelector('#grid').style.gridTemplateColumns")
            tops = frame.evaluate(rows)
            assert [tops.count(top) for top in sorted({*tops})] == [in_a_row] * (4 // in_a_row)


@pytest.mark.parametrize(
    ("frames", "windows", "message"),
    [
        ([], [window()], "expected frames and windows to play, got 0 and 1"),
        ([moment(0)], [window() | {"probabilities": np.ones(4)}], r"expected \(3,\) probabilities"),
        ([moment(0) | {"pose": np.zeros((2, 20, 3))}], [window()], r"must be \(L, M, 25, 3\)"),
    ],
)
def test_what_does_not_fit_is_an_error(frames, windows, message):
    with pytest.raises(ValueError, match=message):
        play(frames, windows)


def test_moments_take_the_window_whose_middle_is_nearest_and_holes_take_none():
    begins, ends = np.array([0.0, 1.5, 10.0]), np.array([3.0, 4.5, 11.0])
    edges, of = film_figures.moments(begins, ends)
    at = (edges[1:] + edges[:-1]) / 2
    expected = [0 if a < 2.25 else 1 if a < 4.5 else -1 if a < 10 else 2 for a in at]
    assert of.tolist() == expected and edges[0] == 0 and edges[-1] == 11


def test_a_long_window_beside_a_short_one_keeps_its_end():
    begins, ends = np.array([0.0, 10.0]), np.array([9.9, 10.5])
    edges, of = film_figures.moments(begins, ends)
    at = (edges[1:] + edges[:-1]) / 2
    assert of[np.searchsorted(at, 8)] == 0 and (of[(at > 0) & (at < 9.9)] == 0).all()


def test_the_timeline_names_the_classes_in_their_order():
    shares = np.array([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    figure = film_figures.class_timeline([0, 3, 20], [3, 6, 23], shares, CLASSES, "a film")
    best, ax = figure.axes[:2]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["clap", "wave", CLASSES[2]]
    assert [text.get_text() for text in best.texts] == ["clap", "wave", "wave"]
    values = ax.collections[0].get_array()
    hole = np.ma.getmaskarray(np.ma.masked_invalid(values))
    assert hole.any() and (hole == hole[0]).all() and not hole[:, [0, -1]].any()
    with pytest.raises(ValueError, match=r"expected \(3, 2\) probabilities"):
        film_figures.class_timeline([0, 3, 20], [3, 6, 23], shares, CLASSES[:2])


def test_hours_are_drawn_in_minutes():
    begins = np.arange(0, 1200, 0.75)
    shares = np.tile([0.2, 0.5, 0.3], (len(begins), 1))
    figure = film_figures.class_timeline(begins, begins + 3, shares, CLASSES)
    assert figure.axes[1].get_xlabel() == "minutes of the recording"


def test_the_name_of_an_unsure_stretch_stands_clear_of_its_line():
    shares = np.array([[0.9, 0.05, 0.05], [0.3, 0.36, 0.34], [0.05, 0.05, 0.9]])
    best = film_figures.class_timeline([0, 3, 6], [3, 6, 9], shares, CLASSES).axes[0]
    assert [(text.get_position()[1] > 50) for text in best.texts] == [False, True, False]


def test_the_skeleton_lies_on_the_film():
    image, points = np.zeros((48, 64, 3), np.uint8), np.full((2, 25, 2), np.nan)
    points[0] = RNG.uniform(0, 40, (25, 2))
    figure = film_figures.skeleton_on_film([image] * 5, [points] * 5, NTU, ["x"] * 5, "a film")
    ax = figure.axes[0]
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(lines) == 2  # white below, the parts' colours above; nobody is second
    np.testing.assert_allclose(lines[0].get_segments()[0], points[0][list(NTU.bones[0])])
    assert ax.get_ylim() == (48, 0) and sum(ax.axison for ax in figure.axes) == 0
    shown = figure._repr_mimebundle_()["text/html"]
    assert "<img" in shown and 'class="bpi-figure"' not in shown  # a dark theme leaves photographs as they are
    with pytest.raises(ValueError, match="as many points and captions as images"):
        film_figures.skeleton_on_film([image], [], NTU, ["x"])
