"""The browsers: every control changes what is shown, fast, and an empty choice says so."""

import time

import numpy as np
import pytest
from test_plots import attention_of, clip_of, joints_of

from bpilib import widgets
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit <down>", "throw"]
LABELS, PREDICTIONS = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])


def browser(skeleton=UCLA, **changes):
    given = {
        "clips": [clip_of(skeleton, 6 + k, seed=k) for k in range(5)],
        "maps": attention_of(skeleton, clips=(5,)),
        "joints": joints_of(skeleton),
        "labels": LABELS,
        "predictions": PREDICTIONS,
        "classes": CLASSES,
        "skeleton": skeleton,
        "names": [f"file{k}" for k in range(5)],
    }
    return widgets.attention_browser(**(given | changes))


@pytest.mark.parametrize("skeleton", [UCLA, NTU], ids=lambda s: s.name)
def test_every_control_changes_the_picture(skeleton):
    shown = browser(skeleton)
    assert list(shown.controls) == ["class", "clip", "shown", "part", "head"]
    pictures = [shown.view.value]
    assert bytes(pictures[0]).startswith(b"\x89PNG")
    for control, value in (("clip", 1), ("part", "leg"), ("head", 4), ("class", 2)):
        shown.controls[control].value = value
        assert shown.view.value not in pictures, control
        pictures.append(shown.view.value)
    for control, value in (("head", -1), ("part", "torso"), ("class", 0)):
        shown.controls[control].value = value
    assert shown.view.value == pictures[0]  # the picture depends on the controls alone


def test_the_picture_shows_the_chosen_head_and_clip():
    maps = attention_of(UCLA, clips=(5,))
    maps["arm"][3, 2] = maps["arm"][3, 2][:, ::-1]
    same, other = browser(), browser(maps=maps)
    for shown in (same, other):
        shown.controls["part"].value = "arm"
        shown.controls["head"].value = 2
    assert same.view.value == other.view.value  # another clip's map changed
    for shown in (same, other):
        shown.controls["clip"].value = 3
    assert same.view.value != other.view.value


def test_class_and_verdict_choose_the_clips():
    shown = browser()
    names = lambda: [name for name, _ in shown.controls["clip"].options]  # noqa: E731
    assert names() == [f"file{k}" for k in range(5)]
    assert "pick up" in shown.message.value and "recognised" in shown.message.value
    shown.controls["shown"].value = "wrong"
    assert names() == ["file1"] and shown.current == 1
    assert "taken for <b>sit &lt;down&gt;</b>" in shown.message.value
    shown.controls["class"].value = 1
    assert names() == [] and shown.current is None
    assert "No clip matches" in shown.message.value
    assert shown.view.layout.display == "none" and shown.controls["clip"].disabled
    shown.controls["shown"].value = "right"
    assert names() == ["file2", "file3"] and shown.current == 2
    assert shown.view.layout.display == "" and not shown.controls["clip"].disabled
    shown.controls["clip"].value = 3
    shown.controls["shown"].value = "all"
    assert shown.current == 3  # the choice stays where it can


def test_a_change_draws_once_and_fast(monkeypatch):
    calls = []
    draw = widgets.attention_card
    monkeypatch.setattr(widgets, "attention_card", lambda *a: calls.append(a) or draw(*a))
    shown = browser()
    calls.clear()
    spent = []
    for k in (1, 2, 0):
        before = time.process_time()
        shown.controls["class"].value = k
        spent.append(time.process_time() - before)
    assert len(calls) == 3
    assert min(spent) < 0.3


def test_different_numbers_of_clips_are_refused():
    with pytest.raises(ValueError, match="5 clips, 4 labels"):
        browser(labels=LABELS[:4])
    with pytest.raises(ValueError, match="4 predictions"):
        browser(predictions=PREDICTIONS[:4])
    with pytest.raises(ValueError, match="4 maps of torso"):
        browser(maps=attention_of(UCLA, clips=(4,)))
    with pytest.raises(ValueError, match="4 axes"):
        browser(maps=attention_of(UCLA))


def test_clip_browser_plays_the_chosen_clip():
    clips = [clip_of(UCLA, 6 + k, seed=k) for k in range(5)]
    shown = widgets.clip_browser(clips, LABELS, CLASSES, UCLA)
    assert list(shown.controls) == ["class", "clip"]
    first = shown.view.value
    assert "<iframe" in first and "6 frames" in shown.message.value
    shown.controls["class"].value = 2
    assert shown.current == 4 and shown.view.value != first
    assert "clip 4" in shown.message.value and "10 frames" in shown.message.value


def test_browsers_without_clips_say_so():
    shown = widgets.clip_browser([], [], CLASSES, UCLA)
    assert shown.current is None and "No clip matches" in shown.message.value
