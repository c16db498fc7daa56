"""The map of clips and texts, what a description finds, and the text box: what is drawn is what was given."""

import numpy as np
import pytest
from figures import clip_of, texts

from bpilib import widgets
from bpilib.plots.text import matches, paired_bars, similarity, text_map
from bpilib.skeleton import UCLA

CLASSES = ["pick up", "sit <down>", "throw", "walk"]
LABELS = np.array([0, 0, 1, 1, 2, 3])
UNSEEN = np.array([False, False, True, False])
CLIPS = np.arange(12.0).reshape(6, 2)
ROWS = ["pick up", "sit down", "throw"]
FIRST = np.array([[50, 40, 60], [70, 65, 72], [90, 80, 95.0]])
SECOND = FIRST[::-1] + 1


def drawn(shown=(0, 1, 2), texts=None, **changes):
    texts = np.array([[0.0, 0], [5, 5], [10, 0], [3, 9]]) if texts is None else texts
    given = {"points": {"global": (CLIPS, texts), "arm": (CLIPS, texts)}, "labels": LABELS, "classes": CLASSES,
             "unseen": UNSEEN, "shown": shown}  # fmt: skip
    return text_map(**(given | changes))


def test_the_map_draws_every_clip_and_the_texts_of_the_classes_shown():
    figure = drawn(notes={"arm": "50 % nearest"})
    assert [ax.get_title() for ax in figure.axes] == ["global", "arm: 50 % nearest"]
    rest, *coloured = [collection.get_offsets() for collection in figure.axes[0].collections]
    np.testing.assert_array_equal(rest, CLIPS[5:])
    for k, offsets in enumerate(coloured):
        np.testing.assert_array_equal(offsets, CLIPS[k == LABELS])
    numbers = figure.axes[0].texts
    assert [text.get_text() for text in numbers] == ["1", "2", "3"]
    frames = [text.get_bbox_patch().get_boxstyle().__class__.__name__ for text in numbers]
    assert frames == ["Circle", "Circle", "Square"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["1  pick up", "2  sit <down>", "3  throw (unseen)", "other classes"]
    assert figure.png().startswith(b"\x89PNG")


def test_texts_in_one_place_are_moved_apart_and_tied_to_it():
    figure = drawn(texts=np.array([[2.0, 2], [2, 2], [2, 2], [3, 9]]))
    at = np.array([text.get_position() for text in figure.axes[0].texts])
    far = np.linalg.norm(at[:, None] - at, axis=-1)[np.triu_indices(3, 1)]
    assert (far > 0.9 * 0.065 * 10).all()
    for line in figure.axes[0].lines:
        np.testing.assert_array_equal(line.get_xydata()[0], [2, 2])
    apart = drawn()
    np.testing.assert_allclose([t.get_position() for t in apart.axes[0].texts], [[0, 0], [5, 5], [10, 0]], atol=0.01)


def test_five_branches_leave_no_empty_axes():
    texts = np.eye(4, 2)
    figure = drawn(points=dict.fromkeys(("global", "head", "hand", "hip", "foot"), (CLIPS, texts)))
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": []}, "expected 1 to 10 classes to colour, got 0"),
        ({"shown": range(11)}, "expected 1 to 10 classes to colour, got 11"),
        ({"labels": LABELS[1:]}, r"expected \(5, 2\) clips"),
        ({"unseen": UNSEEN[1:]}, "unseen of as many classes"),
    ],
)
def test_a_map_of_what_does_not_fit_says_so(changes, message):
    with pytest.raises(ValueError, match=message):
        drawn(**changes)


def test_matches_orders_classes_and_fills_the_best_clips():
    cosines = np.array([0.1, 0.2, 0.9, 0.3, 0.5, 0.0])
    (ax,) = matches(cosines, LABELS, CLASSES, "sit", top=2).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sit <down>", "throw", "pick up", "walk"]
    offsets = [np.asarray(c.get_offsets())[:, 0].tolist() for c in ax.collections]
    assert [sorted(filled) for filled in offsets[1::2]] == [[0.9], [0.5], [], []]
    assert [sorted(hollow) for hollow in offsets[::2]] == [[0.3], [], [0.1, 0.2], [0.0]]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([0.6, 0.5, 0.15, 0])
    assert "“sit”" in ax.figure.get_suptitle() and "the 2 best" in ax.get_xlabel()
    (few,) = matches(cosines, LABELS, CLASSES, "sit", top=1, most=1).axes
    assert [label.get_text() for label in few.get_yticklabels()] == ["sit <down>"]
    far = np.array([-0.9, 1.0, 0.3, 0.3, 0.5, 0.0])  # the best clip is of a class with a low mean
    (few,) = matches(far, LABELS, CLASSES, "sit", top=1, most=2).axes
    assert [label.get_text() for label in few.get_yticklabels()] == ["throw", "pick up"]
    with pytest.raises(ValueError, match=r"got \(6,\) and \(5,\)"):
        matches(cosines, LABELS[1:], CLASSES, "sit")


def find(text):
    """Cosines of two branches, other ones for every length of the text."""
    if not text:
        raise ValueError("write <something>")
    return np.random.default_rng(len(text)).uniform(-1, 1, (6, 2))


def test_the_text_box_shows_the_best_clips_of_the_branch():
    clips = [clip_of(UCLA, 6 + k, seed=k) for k in range(6)]
    shown = widgets.finder(find, ("global", "arm"), clips, LABELS, CLASSES, UCLA, "sit down", top=2)
    assert bytes(shown.view.value).startswith(b"\x89PNG")
    for branch, text in ((0, "sit down"), (1, "sit down"), (1, "throw a ball")):
        before = shown.view.value
        shown.controls["branch"].value, shown.controls["text"].value = ("global", "arm")[branch], text
        cosines = find(text)[:, branch]
        best = np.argsort(-cosines)[:2]
        for n, i in enumerate(best, 1):
            assert f"{n}. {CLASSES[LABELS[i]]} ({cosines[i]:.2f})".split("<")[0] in shown.player.value
        assert (shown.view.value != before) == ((branch, text) != (0, "sit down"))
    shown.controls["text"].value = ""
    assert "write &lt;something&gt;" in shown.message.value
    assert shown.view.layout.display == shown.player.layout.display == "none"
    shown.controls["text"].value = "again"
    assert shown.view.layout.display == "" and "2 best of 6 clips" in shown.message.value


def test_similarity_marks_the_nearest_prompt():
    matrix = np.random.default_rng(0).normal(size=(4, 3, 3)) * 0.1 + 0.5 * np.eye(3)
    matrix[2] = matrix[2][[2, 0, 1]]
    figure = similarity(matrix, ROWS)
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == [f"{b}: {n} of 3 right" for b, n in (("global", 3), ("torso", 3), ("arm", 0), ("leg", 3))]
    dots = figure.axes[2].collections[0].get_offsets()
    np.testing.assert_array_equal(dots[:, 0], [2, 0, 1])
    assert len(similarity({"global": matrix[0]}, ROWS).axes) >= 1
    matrix[0, 0] = np.nan  # no clips of the first class
    ax = similarity(matrix, ROWS).axes[0]
    assert ax.get_title() == "global: 2 of 2 right"
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [(1, 1), (2, 2)])
    with pytest.raises(ValueError, match="got 3"):
        similarity(matrix[:3], ROWS)
    with pytest.raises(ValueError, match=r"must be \(2, 2\)"):
        similarity(matrix, ROWS[:2])


def segments(ax):
    """Every interval drawn, (n, 2) low and high."""
    drawn = [s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    return np.array(sorted((s[0][0], s[1][0]) for s in drawn if s.size and np.isfinite(s).all()))


@pytest.mark.parametrize("as_bars", [True, False])
def test_each_row_has_both_values_and_their_intervals(as_bars):
    figure = paired_bars(ROWS, FIRST, SECOND, ("run A", "run B"), "top-1, %", "A title", bars=as_bars)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ROWS
    np.testing.assert_allclose(segments(ax), sorted(map(tuple, np.concatenate([FIRST, SECOND])[:, 1:])))
    if as_bars:
        assert [p.get_width() for p in ax.patches] == [*FIRST[:, 0], *SECOND[:, 0]]
        assert all(p.get_hatch() for p in ax.patches[3:]) and not any(p.get_hatch() for p in ax.patches[:3])
    else:
        dots = [line for line in ax.lines if line.get_marker() in ("o", "D")]
        assert [list(line.get_xdata()) for line in dots] == [list(FIRST[:, 0]), list(SECOND[:, 0])]
    assert {"run A", "run B", "top-1, %", "A title"} <= set(texts(figure))


def test_values_without_intervals_are_joined():
    (ax,) = paired_bars(ROWS, FIRST[:, 0], SECOND[:, 0], "AB", "%", bars=False).axes
    np.testing.assert_allclose(segments(ax), sorted(zip(FIRST[:, 0], SECOND[:, 0])))


def test_rows_and_names_must_agree():
    with pytest.raises(ValueError, match="3 rows, one a name, got 2 and 3"):
        paired_bars(ROWS, FIRST[:2], SECOND, "AB", "%")
    with pytest.raises(ValueError, match=r"value, low, high, got \(3, 2\)"):
        paired_bars(ROWS, FIRST[:, :2], SECOND, "AB", "%")
