"""The player: every frame and its coordinates, thinned, of two persons, whatever the titles."""

import html
import json
import re

import numpy as np
import pytest
from figures import clip_of

from bpilib.plots.clips import animate, animate_grid
from bpilib.skeleton import NTU, UCLA


def played(animation):
    """What the player will play, read back from its HTML."""
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', animation.data)[1])
    assert "http" not in page  # nothing is fetched
    assert page.count("</script>") == 1  # nothing of a title ends it early
    return json.loads(re.search(r"const DATA = (\{.*?\});\n", page)[1])


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


def test_animations_need_a_title_each():
    with pytest.raises(ValueError, match="2 clips and 1 titles"):
        animate_grid([clip_of(UCLA)] * 2, ["one"], UCLA)
