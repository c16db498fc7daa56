"""The browsers: every control changes what is shown, at the cost of one picture, and an empty choice says so."""

import asyncio
import gc
import threading
from typing import NamedTuple

import numpy as np
import pytest
from figures import attention_of, clip_of, joints_of
from matplotlib.text import Annotation, Text

from bpilib import widgets
from bpilib.plots import activation as activation_plots
from bpilib.plots import attention_heatmaps, attention_skeleton
from bpilib.plots.style import THEME
from bpilib.skeleton import NTU, UCLA

CLASSES = ["pick up", "sit <down>", "throw"]
LABELS, PREDICTIONS = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])


class Seen(NamedTuple):
    """As bpilib.analysis.outputs.SubsetOutputs, of which the browser takes these."""

    labels: np.ndarray
    predictions: np.ndarray
    maps: dict
    joints: dict
    bias: np.ndarray | None = None
    activation: np.ndarray | None = None


def seen(skeleton=UCLA, persons=1, **changes):
    activation = np.random.default_rng(0).normal(size=(5, 2, persons, 13, skeleton.num_joints))
    maps = attention_of(skeleton, clips=(5,))
    return Seen(LABELS, PREDICTIONS, maps, joints_of(skeleton), np.arange(3.0), activation)._replace(**changes)


def browser(skeleton=UCLA, views=None, persons=1, **changes):
    given = {
        "views": {"run A": seen(skeleton, persons)} if views is None else views,
        "clips": [clip_of(skeleton, 6 + k, persons, seed=k) for k in range(5)],
        "frames": [np.linspace(0, 5 + k, 13).astype(int) for k in range(5)],
        "classes": CLASSES,
        "skeleton": skeleton,
        "window": 52,
        "names": [f"file{k}" for k in range(5)],
    }
    return widgets.attention_browser(**(given | changes))


@pytest.mark.parametrize(("skeleton", "persons"), [(UCLA, 1), (NTU, 2)], ids=["ucla", "ntu"])
def test_every_control_changes_the_picture(skeleton, persons):
    shown = browser(skeleton, persons=persons)
    assert list(shown.controls) == ["run", "class", "clip", "shown", "picture", "part", "head"]
    pictures = [shown.view.value]
    assert bytes(pictures[0]).startswith(b"\x89PNG")
    changes = (("clip", 1), ("part", "leg"), ("head", 4), ("class", 2), ("picture", "true"))
    for control, value in changes:
        shown.controls[control].value = value
        assert shown.view.value not in pictures, control
        pictures.append(shown.view.value)
    for control, value in (("picture", "attention"), ("head", -1), ("part", "torso"), ("class", 0)):
        shown.controls[control].value = value
    shown.controls["clip"].value = 0
    assert shown.view.value == pictures[0]  # the picture depends on the controls alone


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_no_name_of_a_joint_is_cut(spread):
    """Of arms that hang, reach out, and of somebody who lies: the longest name on either side."""
    pose = np.zeros((1, 1, 20, 3))
    pose[0, 0, :, 1] = np.linspace(-0.9, 0.9, 20)
    pose[0, 0, :, 0] = spread * np.linspace(-0.9, 0.9, 20)[np.random.default_rng(0).permutation(20)]
    weights, query, key, groups = attention_heatmaps.check_attention(attention_of(UCLA), joints_of(UCLA))["arm"]
    longest = UCLA.joints.index("shoulder centre")
    for side in (-1, 1):
        pose[0, 0, longest, 0] = side * spread * 0.9
        weights[..., key == longest] = 0.5
        figure = attention_skeleton.attention_card(pose, weights, query, key, groups, UCLA, "arm")
        figure.png()
        names = [t for t in figure.findobj(Annotation) if t.get_text().startswith("shoulder centre")]
        boxes = [Text.get_window_extent(name) for name in names]  # without the leader
        assert boxes and all(box.x0 >= 0 and box.x1 <= 0.42 * figure.bbox.x1 for box in boxes)


def test_the_picture_shows_the_chosen_head_and_clip():
    maps = attention_of(UCLA, clips=(5,))
    maps["arm"][3, 2] = maps["arm"][3, 2][:, ::-1]
    same, other = browser(), browser(views={"run A": seen(maps=maps)})
    for shown in (same, other):
        shown.controls["part"].value = "arm"
        shown.controls["head"].value = 2
    assert same.view.value == other.view.value  # another clip's map changed
    for shown in (same, other):
        shown.controls["clip"].value = 3
    assert same.view.value != other.view.value


def drawn(monkeypatch, picture, clip):
    """What the browser asks to be drawn of a clip's evidence."""
    calls = []
    real = activation_plots.class_activation
    monkeypatch.setattr(widgets, "class_activation", lambda *a: calls.append(a) or real(*a))
    shown = browser()
    shown.controls["picture"].value = picture
    shown.controls["clip"].value = clip
    return shown, calls[-1]


@pytest.mark.parametrize(("picture", "which", "bias"), [("true", 0, 0.0), ("predicted", 1, 1.0)])
def test_evidence_for_the_truth_and_for_the_prediction(monkeypatch, picture, which, bias):
    shown, call = drawn(monkeypatch, picture, 1)  # a "pick up" taken for "sit down"
    np.testing.assert_array_equal(call[1], seen().activation[1, which])
    assert call[2] == bias
    assert call[6] == f"What adds to the logit of “{CLASSES[which]}”?"
    assert shown.controls["part"].disabled and shown.controls["head"].disabled
    shown.controls["picture"].value = "attention"
    assert not shown.controls["part"].disabled


def test_evidence_of_a_mistake_is_a_difference(monkeypatch):
    shown, call = drawn(monkeypatch, "mistake", 1)
    evidence = seen().activation[1]
    np.testing.assert_allclose(call[1], evidence[1] - evidence[0])
    assert call[2] == 1.0 and call[7] == "difference of logits"
    assert call[6] == "What adds to “sit <down>” more than to “pick up”?"
    shown.controls["clip"].value = 3
    assert "Choose a wrong clip" in shown.message.value and shown.view.layout.display == "none"
    shown.controls["clip"].value = 1
    assert shown.view.layout.display == ""


def test_a_run_is_looked_at_when_it_is_first_chosen():
    calls = []

    def other():
        calls.append(1)
        return seen(predictions=LABELS[::-1])

    shown = browser(views={"run A": seen(), "run B": other})
    assert calls == []
    shown.controls["shown"].value = "wrong"
    assert shown.current == 1
    shown.controls["run"].value = "run B"
    assert [i for _, i in shown.controls["clip"].options] == [0, 1, 3, 4] and shown.current == 1
    shown.controls["run"].value = "run A"
    shown.controls["run"].value = "run B"
    assert calls == [1]


def test_a_run_that_cannot_be_shown_says_why_and_leaves_the_last_one():
    def damaged():
        raise ValueError("best.pt is damaged: train <again>")

    shown = browser(views={"run A": seen(), "run B": damaged, "run C": seen(labels=LABELS[:4])})
    before = shown.view.value
    for run, message in (("run B", "best.pt is damaged: train &lt;again&gt;"), ("run C", "5 clips, got 4 labels")):
        shown.controls["run"].value = run
        assert f"{run} cannot be shown: " in shown.message.value and message in shown.message.value
        assert shown.controls["run"].value == "run A" and shown.view.value == before
    shown.controls["clip"].value = 2
    assert "cannot be shown" not in shown.message.value


def test_while_a_run_is_looked_at_the_one_before_can_be_browsed():
    ready = threading.Event()

    def slow():
        assert ready.wait(600)
        return seen(predictions=LABELS[::-1])

    def damaged():
        raise RuntimeError("out of memory")

    async def in_a_kernel():
        shown = browser(views={"run A": seen(), "run B": slow, "run C": damaged})
        pictures = [shown.view.value]
        shown.controls["run"].value = "run B"
        assert "run B: this takes a while" in shown.message.value
        for control, value in (("part", "leg"), ("class", 1)):
            shown.controls[control].value = value
            assert shown.view.value not in pictures
            assert "run B: this takes a while" in shown.message.value and "✓ recognised" in shown.message.value
            pictures.append(shown.view.value)
        assert [i for _, i in shown.controls["clip"].options] == [2, 3]
        shown.controls["class"].value = 0
        ready.set()
        while "takes a while" in shown.message.value:
            await asyncio.sleep(0.01)
        assert "taken for <b>throw" in shown.message.value
        shown.controls["run"].value = "run C"
        while "takes a while" in shown.message.value:
            await asyncio.sleep(0.01)
        assert shown.controls["run"].value == "run B"
        assert shown.message.value == "run C cannot be shown: out of memory"

    asyncio.run(asyncio.wait_for(in_a_kernel(), 1200))


def test_views_without_evidence_have_attention_alone():
    shown = browser(views={"run A": seen(activation=None)})
    assert shown.controls["picture"].options == (("attention", "attention"),)


def test_occlusion_is_computed_once_and_shown_of_the_predicted_class(monkeypatch):
    asked, drawn = [], []

    def occlude(run, i):
        asked.append((run, i))
        return {name: np.arange(3.0 * n).reshape(n, 3) + i for name, n in (("joints", 20), ("parts", 3), ("time", 8))}

    real = widgets.occlusion_card
    monkeypatch.setattr(widgets, "occlusion_card", lambda *a: drawn.append(a) or real(*a))
    shown = browser(occlude=occlude)
    assert asked == []
    shown.controls["picture"].value = "occluded"
    shown.controls["clip"].value = 1
    shown.controls["clip"].value = 0
    assert asked == [("run A", 0), ("run A", 1)]
    np.testing.assert_array_equal(drawn[1][1]["joints"], 3.0 * np.arange(20) + 1 + PREDICTIONS[1])
    assert drawn[1][4] == f"What does “{CLASSES[PREDICTIONS[1]]}” need?" and shown.controls["part"].disabled


def test_a_network_without_attention_has_its_other_pictures():
    shown = browser(views={"run A": seen(maps={}, joints={})}, occlude=lambda run, i: {})
    assert [name for _, name in shown.controls["picture"].options] == ["true", "predicted", "mistake", "occluded"]
    assert bytes(shown.view.value).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to browse"):
        browser(views={"run A": seen(maps={}, joints={}, activation=None)})


HOSTILE = "<img src=x onerror=alert(1)>"


def test_names_are_text_in_every_browser():
    shown = browser(classes=[HOSTILE] * 3, names=[f"{HOSTILE} {k}" for k in range(5)])
    clips = widgets.clip_browser([clip_of(UCLA, 6)] * 5, LABELS, [HOSTILE] * 3, UCLA, [HOSTILE] * 5)
    for message in (shown.message.value, clips.message.value):
        assert "&lt;img src=x" in message and "<img" not in message
    assert "<img" not in clips.view.value
    with pytest.raises(ValueError):
        browser(views={HOSTILE: lambda: seen(labels=LABELS[:4])})


def test_pictures_follow_the_theme():
    shown = browser()
    assert "bpi-figure" in shown.view._dom_classes
    assert shown.children[-1].value == THEME


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


@pytest.mark.parametrize(("skeleton", "persons"), [(UCLA, 1), (NTU, 2)], ids=["ucla", "ntu"])
@pytest.mark.parametrize("picture", ["attention", "true"])
def test_a_change_draws_once(monkeypatch, skeleton, persons, picture):
    calls = []
    name = "attention_card" if picture == "attention" else "class_activation"
    draw = getattr(widgets, name)
    monkeypatch.setattr(widgets, name, lambda *a: calls.append(a) or draw(*a))
    shown = browser(skeleton, persons=persons)
    shown.controls["picture"].value = picture
    for k in (1, 2, 0):
        calls.clear()
        shown.controls["class"].value = k
        assert len(calls) == 1


def test_every_control_draws_once(monkeypatch):
    calls = []
    for name in ("attention_card", "class_activation"):
        draw = getattr(widgets, name)
        monkeypatch.setattr(widgets, name, lambda *a, draw=draw: calls.append(a) or draw(*a))
    shown = browser(views={"run A": seen(), "run B": seen(predictions=LABELS[::-1])})
    for number, (control, value) in enumerate([
        ("part", "leg"), ("head", 3), ("run", "run B"), ("run", "run A"), ("clip", 3), ("shown", "wrong"),
        ("class", 0), ("picture", "true"), ("run", "run B"), ("picture", "mistake"), ("picture", "attention"),
    ]):  # fmt: skip
        before = len(calls)
        shown.controls[control].value = value
        assert len(calls) == before + 1, (number, control)


def test_looking_around_never_waits_for_a_full_collection():
    """Ten figures left to Python's collector make it go through everything the kernel holds."""
    shown, full = browser(), []

    def note(phase, info):
        if phase == "start" and info["generation"] == 2:
            full.append(shown.controls["part"].value)

    gc.callbacks.append(note)
    try:
        for part in ("arm", "leg", "torso") * 8:
            shown.controls["part"].value = part
    finally:
        gc.callbacks.remove(note)
    assert full == [] and gc.isenabled()


def test_different_numbers_of_clips_are_refused():
    for views, message in (
        (seen(labels=LABELS[:4]), "5 clips, got 4 labels in run A"),
        (seen(predictions=PREDICTIONS[:4]), "4 predictions"),
        (seen(maps=attention_of(UCLA, clips=(4,))), "4 maps of torso"),
        (seen(maps=attention_of(UCLA)), "4 axes"),
    ):
        with pytest.raises(ValueError, match=message):
            browser(views={"run A": views})
    with pytest.raises(ValueError, match="frames of 5 clips, got 2"):
        browser(frames=[np.zeros(13, int)] * 2)
    with pytest.raises(ValueError, match="no run to browse"):
        browser(views={})


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
