"""Classes by text, clips by description: by hand, on embeddings made for it, and on a run with unseen classes."""

import importlib.util

import numpy as np
import pytest
import torch
from making import tiny_config
from sklearn.neighbors import KNeighborsClassifier

from bpilib.analysis.outputs import SubsetOutputs, collect_outputs
from bpilib.analysis.text import (
    classify_by_text,
    classify_run_by_text,
    compare_texts,
    compute_tsne_layout,
    embed,
    embed_class_texts,
    list_branches,
    measure_zero_shot,
)
from bpilib.runs import build
from bpilib.text.prompts import load_prompts

SUBJECTS = 2  # of `place`


@pytest.fixture(scope="module")
def run(place):
    torch.manual_seed(0)
    return build(tiny_config(place, place / "outputs"))


def unit(values) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def views_of(embeddings, labels) -> SubsetOutputs:
    return SubsetOutputs(np.arange(len(labels)), np.asarray(labels), np.asarray(labels), embeddings, {}, {})


@pytest.fixture
def random():
    """12 clips and 5 classes in 3 branches of 8 numbers."""
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(12, 3, 8))), unit(rng.normal(size=(3, 5, 8)))


# --- classification


def test_logits_by_text_by_hand():
    embeddings = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]])  # two clips, two branches
    texts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    found = classify_by_text(embeddings, texts, np.array([10.0, 4.0]))
    np.testing.assert_allclose(found, [[5.0, 2.0], [5.0, 4.0]])


def test_one_branch_is_the_nearest_neighbour_among_the_texts(random):
    embeddings, texts = random
    nearest = KNeighborsClassifier(1, metric="cosine").fit(texts[1], np.arange(5)).predict(embeddings[:, 1])
    found = classify_by_text(embeddings[:, 1:2], texts[1:2], np.array([7.0]))
    np.testing.assert_array_equal(found.argmax(1), nearest)
    assert len(set(nearest)) > 1


def test_a_branch_of_scale_0_has_no_say(random):
    embeddings, texts = random
    alone = classify_by_text(embeddings[:, :1], texts[:1], np.array([3.0]))
    both = classify_by_text(embeddings[:, :2], texts[:2], np.array([3.0, 0.0]))
    np.testing.assert_allclose(both, alone / 2)


def test_clips_that_lie_on_their_texts_are_recognised(run):
    labels = np.array([3, 0, 9, 3])
    found = classify_run_by_text(run, views_of(embed_class_texts(run)[:, labels].transpose(1, 0, 2), labels))
    np.testing.assert_array_equal(found.argmax(1), labels)
    scale = run.model.logit_scale.detach().numpy()
    assert found[0, 3] == pytest.approx(scale.mean(), rel=1e-5)  # every cosine is 1


def test_similarity_of_classes_and_texts_by_hand(run):
    rng = np.random.default_rng(1)
    labels = np.array([0, 0, 2, 3, 3, 3])
    views = views_of(unit(rng.normal(size=(6, 4, 16))).astype(np.float32), labels)
    found = compare_texts(views, run)
    assert list(found) == ["global", "torso", "arm", "leg"]
    texts = run.text.anchors().numpy()  # (1+P, K, D)
    for b, branch in enumerate(found):
        assert found[branch].shape == (10, 10)
        for k in (0, 2, 3):
            mean = views.embeddings[labels == k, b].mean(0)
            for other in (0, 4, 9):
                cosine = mean @ texts[b, other] / np.linalg.norm(mean) / np.linalg.norm(texts[b, other])
                assert found[branch][k, other] == pytest.approx(cosine, abs=1e-5)
        assert np.isnan(found[branch][[1, 4, 9]]).all()


def test_gap_has_other_branches(place):
    run = build(tiny_config(place, place / "outputs", model="gap"))
    names = ("global", "head", "hand", "hip", "foot")
    assert list_branches(run) == names and tuple(compare_texts(collect_outputs(run), run)) == names
    assert classify_run_by_text(run, collect_outputs(run)).shape == (20, 10)


# --- seen and unseen


def logits_of(answers, classes=4) -> np.ndarray:
    """(n, K) whose highest are the first answers, whose second highest the second ones."""
    logits = np.zeros((len(answers), classes))
    for row, (first, second) in zip(logits, answers):
        row[second], row[first] = 1, 2
    return logits


def test_seen_unseen_and_their_harmonic_mean_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 3])
    answers = [(0, 1), (0, 1), (1, 0), (2, 1), (2, 0), (0, 2), (0, 3), (0, 2), (3, 0), (0, 3)]
    table = measure_zero_shot(logits_of(answers), labels, np.array([False, False, True, True]))
    assert table["top1"].round(6).to_dict() == {
        "seen": 75.0,  # 3 of 4
        "unseen": round(200 / 6, 6),  # 2 of 6
        "harmonic mean": round(2 * 75 * (200 / 6) / (75 + 200 / 6), 6),
        "unseen among unseen": round(500 / 6, 6),  # all but the one whose second is class 2
    }
    assert table["clips"].tolist() == [4, 6, 10, 6]
    assert table["chance"].tolist() == [25, 25, 25, 50]
    assert (table["low"] < table["top1"]).all() and (table["top1"] < table["high"]).all()
    assert table.loc["seen", "low"] == pytest.approx(30.06, abs=0.01)  # Wilson, 3 of 4


def test_without_unseen_classes_there_is_one_row():
    labels = np.array([0, 1, 1])
    table = measure_zero_shot(logits_of([(0, 1), (1, 0), (0, 1)], 2), labels, np.zeros(2, bool))
    assert table.index.tolist() == ["seen"] and table.loc["seen", "top1"] == pytest.approx(200 / 3)


def test_unseen_classes_without_test_clips_have_no_accuracy():
    table = measure_zero_shot(logits_of([(0, 1), (1, 0)], 3), np.array([0, 1]), np.array([False, False, True]))
    assert table.loc["seen", "top1"] == 100 and table.loc[["unseen", "harmonic mean"], "top1"].isna().all()


# --- descriptions


def test_the_nearest_clip_to_a_shipped_text_is_the_one_made_of_it(run):
    labels = np.arange(10)
    views = views_of(embed_class_texts(run).transpose(1, 0, 2), labels)
    for k in (0, 4, 9):
        (text,) = embed(run, [run.store.classes[k]])
        assert np.linalg.norm(text) == pytest.approx(1, abs=1e-5)
        cosines = views.embeddings[:, 0] @ text
        assert cosines.argmax() == k and cosines[k] == pytest.approx(1, abs=1e-5)


def test_texts_of_other_data_sets_come_with_the_shipped_ones(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    one, other = embed(run, ["sit down", "donning"])
    assert one.shape == (384,) and one @ other < 0.9


def test_a_text_that_nobody_ships_says_what_it_needs(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"(?s)juggle five torches.*\[minilm\].*text=\"clip\""):
        embed(run, ["juggle five torches"])


def test_an_empty_description_and_a_run_without_texts_say_so(place, run):
    with pytest.raises(ValueError, match="expected a description, got nothing"):
        embed(run, ["  "])
    without = build(tiny_config(place, place / "outputs", text="none"))
    for ask in (lambda: embed_class_texts(without), lambda: embed(without, ["walk"])):
        with pytest.raises(ValueError, match=r"no text encoder.*choose a run"):
            ask()


def test_any_encoder_reads_any_text(run, monkeypatch):
    """As with clip: the run's own encoder is asked, not minilm's."""
    monkeypatch.setattr(run, "config", run.config.changed(text="clip"))
    monkeypatch.setattr(run.text, "embed", lambda texts: torch.tensor([[3.0, 4.0]] * len(texts)))
    np.testing.assert_allclose(embed(run, ["juggle five torches"]), [[0.6, 0.8]])


# --- the map


def test_the_map_puts_texts_among_their_clips_and_repeats():
    rng = np.random.default_rng(0)
    centres, shift = unit(rng.normal(size=(4, 16))), 5 * np.ones(16)
    labels = np.repeat(np.arange(4), 12)
    clips, texts = unit(centres[labels] + 0.05 * rng.normal(size=(48, 16))), unit(0.3 * centres + shift)
    points, at = compute_tsne_layout(clips, texts)
    assert points.shape == (48, 2) and at.shape == (4, 2)
    nearest = np.linalg.norm(points[:, None] - at, axis=-1).argmin(1)
    assert (nearest == labels).all()  # although all texts are nearer to each other than to any clip
    again = compute_tsne_layout(clips, texts)
    np.testing.assert_array_equal(again[0], points)


def test_a_map_of_too_little_says_so():
    with pytest.raises(ValueError, match="at least 4, got 2 and 1"):
        compute_tsne_layout(np.eye(2), np.eye(2)[:1])


def test_prompts_have_a_synonym_for_the_default_query(run):
    assert load_prompts(run.config.prompts, run.store.classes).synonyms[0][0] in run.text.texts
