"""What a trained network looks at: shapes, sums and means by hand."""

import numpy as np
import pytest
import torch
from making import tiny_config
from noise import assert_float32_of

from bpilib.analysis.attention import (
    average_received,
    average_received_by_class,
    compute_entropy,
    compute_even_flows,
    compute_flows,
    contrast_mistakes,
    judge_entropy,
)
from bpilib.analysis.outputs import SubsetOutputs, average_by_class, collect_outputs, find_sibling_runs
from bpilib.data import SkeletonStore
from bpilib.runs import build, write_or_check_config
from bpilib.skeleton import UCLA

SUBJECTS = 2  # of `place`


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
    return collect_outputs(run)


@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_attention_of_every_clip_in_order(place, modality):
    run = run_of(place, modality=modality, test_batch_size=7)  # 20 clips: the last batch is not full
    views = collect_outputs(run)
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
    found = {f"attention of {part}": views.maps[part][13:14] for part in out.attention}
    assert_float32_of(run.model, run.feeder("test").batch([13])[0], {"logits": views.logits[13:14]} | found)
    assert views.predictions[13] == out.logits.argmax()
    assert views.predictions.shape == (20,) and views.predictions.dtype == np.int64
    for n, embedding in enumerate([out.global_embedding[0], *out.part_embeddings[0]]):
        assert torch.dot(torch.from_numpy(views.embeddings[13, n]), embedding) > (1 - 1e-5) * embedding.norm()


def test_evidence_and_bias_are_the_logits_of_truth_and_prediction(place):
    run = run_of(place)
    with torch.no_grad():  # logits as large as trained ones
        run.model.classifier.weight *= 10 / float(np.abs(collect_outputs(run).logits).max())
    views = collect_outputs(run, activation=True)
    assert views.activation.shape == (20, 2, 1, 13, 20) and views.activation.dtype == np.float32
    for which, classes in enumerate((views.labels, views.predictions)):
        sums = views.activation[:, which].sum((1, 2, 3), dtype=np.float64) + views.bias[classes]
        # A float32 sum of n terms is off by at most n roundings of the sum of their sizes: here of 260 of 32 channels.
        allowed = 292 * np.finfo(np.float32).eps * np.abs(views.activation[:, which]).sum((1, 2, 3))
        assert (np.abs(sums - views.logits[np.arange(20), classes]) <= allowed).all()
    assert (views.activation[:, 0] != views.activation[:, 1]).any()  # some clips are mistaken
    np.testing.assert_array_equal(views.logits.argmax(1), views.predictions)
    assert collect_outputs(run).activation is None


def test_embeddings_have_unit_length(views):
    assert views.embeddings.shape == (20, 4, 16) and views.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(views.embeddings, axis=-1), 1, atol=1e-5)


def test_a_network_that_was_training_is_looked_at_in_test_mode(run, views):
    run.model.train()
    again = collect_outputs(run)
    for part in views.maps:
        np.testing.assert_array_equal(again.maps[part], views.maps[part])


def test_other_parts_of_the_data(place):
    run = run_of(place, select="heldout", heldout=0.5)
    for part in ("train", "heldout"):
        np.testing.assert_array_equal(collect_outputs(run, part).indices, run.indices(part))
    with pytest.raises(ValueError, match=r"train.*heldout.*test"):
        collect_outputs(run, "tset")


def test_nothing_was_held_out(run):
    with pytest.raises(ValueError, match=r"held.out"):
        collect_outputs(run, "heldout")


def test_gap_has_embeddings_but_no_attention(place):
    run = run_of(place, model="gap")
    views = collect_outputs(run)
    assert views.maps == {} and views.joints == {} and views.embeddings.shape == (20, 5, 16)
    assert average_received_by_class(views, 10) == {}


def test_ctrgcn_has_neither(place):
    with pytest.raises(ValueError, match="ctrgcn has neither attention nor embeddings: choose a run of bpi"):
        collect_outputs(run_of(place, model="ctrgcn"))


# --- means


def small_views():
    rng = np.random.default_rng(0)
    maps = {"arm": rng.random((5, 2, 3, 4), np.float32), "leg": rng.random((5, 2, 1, 6), np.float32)}
    embeddings = rng.standard_normal((5, 4, 16)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    labels = np.array([0, 2, 0, 3, 2])
    return SubsetOutputs(np.arange(5), labels, labels, embeddings, maps, {})


def test_class_means_of_the_attention_a_joint_receives():
    views = small_views()
    means = average_received_by_class(views, 5)
    assert means["arm"].shape == (5, 4) and means["leg"].shape == (5, 6)
    expected = [(views.maps["arm"][0, h, q, 1] + views.maps["arm"][2, h, q, 1]) / 2 for h in range(2) for q in range(3)]
    assert means["arm"][0, 1] == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(means["leg"][3], views.maps["leg"][3].mean((0, 1)), rtol=1e-6)
    assert np.isnan(means["arm"][[1, 4]]).all() and np.isfinite(means["arm"][[0, 2, 3]]).all()


def test_class_means_of_real_maps_sum_to_one(views):
    for values in average_received_by_class(views, 10).values():
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)


# --- flows, entropy, mistakes


def test_flows_by_hand():
    joints = {"torso": ((0, 1), (2, 3, 4)), "arm": ((2,), (0, 1, 3, 4)), "leg": ((3, 4), (0, 1, 2))}
    maps = {
        "torso": np.array([[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [[1, 0, 0], [0, 1, 0]]]),  # two heads
        "arm": np.full((2, 1, 4), 0.25),
        "leg": np.array([[[0, 0, 1], [0.5, 0.5, 0]]] * 2),
    }
    expected = [[0, 0.4, 0.6], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    np.testing.assert_allclose(compute_flows(maps, joints), expected)
    np.testing.assert_allclose(compute_even_flows(joints), [[0, 1 / 3, 2 / 3], [0.5, 0, 0.5], [2 / 3, 1 / 3, 0]])


def test_flows_of_every_clip_sum_to_one(views):
    found = compute_flows(views.maps, views.joints)
    assert found.shape == (20, 3, 3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[:, range(3), range(3)], 0)
    np.testing.assert_allclose(compute_even_flows(views.joints).sum(-1), 1)
    assert found.std(0).max() > 1e-3


def test_received_attention_is_a_mean_over_heads_and_queries(views):
    for part, values in average_received(views.maps).items():
        assert values.shape == (20, views.maps[part].shape[-1])
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)


def test_entropy_lies_between_one_joint_and_all_alike(views):
    assert compute_entropy(np.full((2, 3, 8), 1 / 8)) == pytest.approx([3, 3])
    assert compute_entropy(np.eye(4)[None]) == pytest.approx([0], abs=1e-9)
    assert compute_entropy(np.array([[[0.5, 0.5, 0, 0], [0.25] * 4]])) == pytest.approx([1.5])
    for weights in views.maps.values():
        bits = compute_entropy(weights)
        assert bits.shape == (20, 8)
        assert (bits >= 0).all() and (bits <= np.log2(weights.shape[-1]) + 1e-5).all()


def made_up(seed=0, shift=0.0):
    """400 clips of 4 classes at 0, 10, 20, 30; class 3 is mistaken most often, class 0 never."""
    rng = np.random.default_rng(seed)
    labels = np.arange(400) % 4
    wrong = rng.random(400) < labels * 0.15
    values = labels[:, None] * 10 + rng.normal(size=(400, 3)) + shift * wrong[:, None] * [1, 0, 0]
    return values, labels, np.where(wrong, 0, labels)


def test_classes_are_not_mistaken_for_a_difference():
    values, labels, predictions = made_up()
    found = contrast_mistakes(values, labels, predictions)
    wrong = labels != predictions
    np.testing.assert_allclose(found.wrong[:, 0], values[wrong].mean(0))
    assert values[wrong].mean() - values[~wrong].mean() > 5  # what a plain comparison would say
    assert np.abs(found.difference[:, 0]).max() < 0.5
    assert (found.difference[:, 1] < found.difference[:, 0]).all()
    assert (found.difference[:, 0] < found.difference[:, 2]).all()
    by_hand = sum((labels[wrong] == k).mean() * values[~wrong & (labels == k)].mean(0) for k in (1, 2, 3))
    np.testing.assert_allclose(found.right[:, 0], by_hand)
    np.testing.assert_allclose(found.difference[:, 0], found.wrong[:, 0] - found.right[:, 0])
    assert found.clips == (int((~wrong & (labels > 0)).sum()), int(wrong.sum())) and found.left_out == 0


def test_a_difference_is_found_and_intervals_hold_the_truth():
    held = []
    for seed in range(40):
        found = contrast_mistakes(*made_up(seed, shift=0.5), draws=200)
        held.append((found.difference[:, 1] <= [0.5, 0, 0]) & (found.difference[:, 2] >= [0.5, 0, 0]))
    assert 0.85 <= np.mean(held) <= 1
    assert contrast_mistakes(*made_up(shift=2)).difference[0, 1] > 1


def test_too_few_mistakes_are_not_compared():
    values, labels, predictions = made_up()
    wrong = np.flatnonzero(labels != predictions)
    predictions[wrong[9:]] = labels[wrong[9:]]
    assert contrast_mistakes(values, labels, predictions) is None
    assert contrast_mistakes(values, labels, predictions, fewest=9).clips[1] == 9
    assert contrast_mistakes(values, labels, labels) is None


def test_classes_never_recognised_are_left_out():
    values, labels, predictions = made_up()
    predictions[labels == 3] = 0
    found = contrast_mistakes(values, labels, predictions)
    assert found.left_out == 100
    assert found.clips[1] == ((labels != predictions) & (labels < 3)).sum()
    with pytest.raises(ValueError, match="5 and 400 clips"):
        contrast_mistakes(values, labels[:5], predictions)


def test_class_means_leave_empty_classes_out():
    means = average_by_class(np.array([[1.0], [3], [5]]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(means, [[2], [np.nan], [5]])


def test_runs_of_the_same_model_and_data(place, tmp_path):
    config = tiny_config(place, tmp_path)
    assert find_sibling_runs(config) == {"bpi_joint_seed0": config}
    others = [{"modality": "bone"}, {"seed": 3, "tag": "b"}, {"model": "gap"}, {"tag": "unfinished"}]
    for changes in others:
        other = tiny_config(place, tmp_path, **changes)
        write_or_check_config(other)
        if other.tag != "unfinished":
            (other.run_directory / "best.pt").touch()
    found = find_sibling_runs(config)
    assert list(found) == ["bpi_joint_seed0", "bpi_bone_seed0", "bpi_joint_seed3_b"]
    assert all(other.run_directory.name == name for name, other in found.items())


# --- text


def test_the_texts_are_those_of_the_store_s_classes(place, run):
    assert run.store.classes == SkeletonStore.open(place / "store").classes
    (name,) = run.text.embed([run.store.classes[3]])
    np.testing.assert_array_equal(run.text.anchors()[0, 3], name)


def test_nearly_even_heads_are_not_to_be_read():
    assert judge_entropy("arm", np.array([3.9, 3.95]), 4.0) == (
        "arm: 3.9 of 4.0 bits, every head is nearly even: do not read single arrows"
    )
    assert "1 of 2 heads are nearly even" in judge_entropy("arm", np.array([3.9, 2.0]), 4.0)
    assert judge_entropy("leg", np.array([1.0, 2.0]), 4.0) == "leg: 1.5 of 4.0 bits: every head prefers some joints"
