"""What a trained network looks at: shapes, sums, means and similarities by hand."""

import numpy as np
import pytest
import torch
from making import synthetic_store, tiny_config, write_prompts

from bpilib.attention import Views, by_class, look, text_similarity
from bpilib.data.store import SkeletonStore
from bpilib.runs import build
from bpilib.skeleton import UCLA


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    synthetic_store(folder, subjects=2)
    write_prompts(folder)
    return folder


def run_of(place, **changes):
    torch.manual_seed(0)
    run = build(tiny_config(place, place / "outputs", **changes))
    for name, value in run.model.named_parameters():  # attention that differs between joints, heads and clips
        if ".query." in name or ".key." in name:
            torch.nn.init.normal_(value, 0, 2)
        if name.endswith("spatial.bn.weight"):
            torch.nn.init.ones_(value)
    return run


@pytest.fixture(scope="module")
def run(place):
    return run_of(place)


@pytest.fixture(scope="module")
def views(run):
    return look(run)


@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_attention_of_every_clip_in_order(place, modality):
    run = run_of(place, modality=modality, test_batch_size=7)  # 20 clips: the last batch is not full
    views = look(run)
    np.testing.assert_array_equal(views.indices, run.indices("test"))
    np.testing.assert_array_equal(views.labels, run.store.labels[run.indices("test")])
    parts = UCLA.parts(modality)
    assert list(views.maps) == list(views.joints) == ["torso", "arm", "leg"]
    for part, weights in views.maps.items():
        others = tuple(j for other, joints in parts.items() if other != part for j in joints)
        assert views.joints[part] == (parts[part], others)
        assert weights.shape == (20, 8, len(parts[part]), len(others)) and weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert (weights >= 0).all()
        assert weights.std(axis=0).max() > 1e-3  # clips differ
        assert weights.std(axis=1).max() > 1e-3 and weights.std(axis=-1).max() > 1e-3  # heads and joints do


def test_it_is_what_the_network_returns(run, views):
    assert not run.model.training
    with torch.no_grad():
        out = run.model(run.feeder("test").batch([13])[0], return_attention=True)
    for part, weights in out.attention.items():
        np.testing.assert_allclose(views.maps[part][13], weights[0], atol=1e-5)
    assert views.predictions[13] == out.logits.argmax()
    assert views.predictions.shape == (20,) and views.predictions.dtype == np.int64
    embeddings = torch.cat([out.global_embedding[:, None], out.part_embeddings], 1)[0]  # (1+P, D)
    expected = embeddings / embeddings.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(views.embeddings[13], expected, atol=1e-5)


def test_embeddings_have_unit_length(views):
    assert views.embeddings.shape == (20, 4, 16) and views.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(views.embeddings, axis=-1), 1, atol=1e-5)


def test_a_network_that_was_training_is_looked_at_in_test_mode(run, views):
    run.model.train()
    again = look(run)
    for part in views.maps:
        np.testing.assert_array_equal(again.maps[part], views.maps[part])


def test_other_parts_of_the_data(place):
    run = run_of(place, select="heldout", heldout=0.5)
    for part in ("train", "heldout"):
        np.testing.assert_array_equal(look(run, part).indices, run.indices(part))
    with pytest.raises(ValueError, match=r"train.*heldout.*test"):
        look(run, "tset")


def test_nothing_was_held_out(run):
    with pytest.raises(ValueError, match=r"held.out"):
        look(run, "heldout")


def test_gap_has_embeddings_but_no_attention(place):
    run = run_of(place, model="gap")
    views = look(run)
    assert views.maps == {} and views.joints == {} and views.embeddings.shape == (20, 5, 16)
    assert by_class(views, 10) == {}
    assert set(text_similarity(views, run)) == {"global", "head", "hand", "hip", "foot"}


def test_ctrgcn_has_neither(place):
    with pytest.raises(ValueError, match="ctrgcn has neither attention nor embeddings: choose a run of bpi"):
        look(run_of(place, model="ctrgcn"))


# --- means


def small_views():
    rng = np.random.default_rng(0)
    maps = {"arm": rng.random((5, 2, 3, 4), np.float32), "leg": rng.random((5, 2, 1, 6), np.float32)}
    embeddings = rng.standard_normal((5, 4, 16)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    labels = np.array([0, 2, 0, 3, 2])
    return Views(np.arange(5), labels, labels, embeddings, maps, {})


def test_class_means_of_the_attention_a_joint_receives():
    views = small_views()
    means = by_class(views, 5)
    assert means["arm"].shape == (5, 4) and means["leg"].shape == (5, 6)
    expected = [(views.maps["arm"][0, h, q, 1] + views.maps["arm"][2, h, q, 1]) / 2 for h in range(2) for q in range(3)]
    assert means["arm"][0, 1] == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(means["leg"][3], views.maps["leg"][3].mean((0, 1)), rtol=1e-6)
    assert np.isnan(means["arm"][[1, 4]]).all() and np.isfinite(means["arm"][[0, 2, 3]]).all()


def test_class_means_of_real_maps_sum_to_one(views):
    for values in by_class(views, 10).values():
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)


# --- text


def test_similarity_of_classes_and_texts_by_hand(run):
    views = small_views()
    found = text_similarity(views, run)
    assert list(found) == ["global", "torso", "arm", "leg"]
    texts = run.text.anchors().numpy()  # (1+P, K, D)
    for b, branch in enumerate(found):
        assert found[branch].shape == (10, 10)
        for k in (0, 2, 3):
            mean = views.embeddings[views.labels == k, b].mean(0)
            for other in (0, 4, 9):
                text = texts[b, other]
                cosine = mean @ text / np.linalg.norm(mean) / np.linalg.norm(text)
                assert found[branch][k, other] == pytest.approx(cosine, abs=1e-5)
        assert np.isnan(found[branch][[1, 4, 9]]).all()


def test_an_embedding_equal_to_its_text_has_similarity_one(run):
    texts = torch.nn.functional.normalize(run.text.anchors(), dim=-1).numpy()  # (1+P, K, D)
    labels = np.arange(10)
    views = Views(labels, labels, labels, texts.transpose(1, 0, 2), {}, {})
    for values in text_similarity(views, run).values():
        np.testing.assert_allclose(np.diag(values), 1, atol=1e-5)
        assert values.max() < 1 + 1e-5 and np.median(values) < 0.9


def test_the_texts_are_those_of_the_store_s_classes(place, run):
    assert run.store.classes == SkeletonStore.open(place / "store").classes
    (name,) = run.text.embed([run.store.classes[3]])
    np.testing.assert_array_equal(run.text.anchors()[0, 3], name)
