"""What a network returns for clips in no store is what it returns for the same clips of a store."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noise import assert_probabilities_of
from untrained_runs import clips_of, run_of

from bpilib.analysis.clip_outputs import check_skeleton, compute_clip_outputs
from bpilib.analysis.outputs import collect_outputs
from bpilib.classify import Classifier
from bpilib.feeders import prepare_clip
from bpilib.skeleton import NTU, UCLA


@pytest.mark.parametrize(
    ("skeleton", "model", "modality"),
    [(NTU, "bpi", "joint"), (NTU, "gap", "joint"), (NTU, "ctrgcn", "bone"), (UCLA, "bpi", "bone")],
    ids=lambda value: getattr(value, "name", value),
)
def test_clips_without_a_store_give_what_those_of_the_store_give(tmp_path, skeleton, model, modality):
    run = run_of(tmp_path, skeleton, model, modality)
    found = compute_clip_outputs(run, clips_of(skeleton))
    assert found.probabilities.shape == (5, 3) and found.activation.shape[0] == 5 and found.frames.shape[0] == 5
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    for number, poses in enumerate(clips_of(skeleton)):
        x = torch.from_numpy(prepare_clip(poses, skeleton, skeleton.persons, run.feeder("test").modality))
        assert_probabilities_of(run.model, x, found.probabilities[number][None])
        assert_probabilities_of(run.model, x, Classifier.of(run).classify(poses)[None])
    assert (found.frames >= 0).all() and (found.frames.max(1) < [20, 27, 34, 41, 48]).all()
    if model == "ctrgcn":
        assert found.maps == {}
        return
    seen = collect_outputs(run, activation=True)
    for part in seen.maps:
        np.testing.assert_allclose(found.maps[part], seen.maps[part], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.activation, seen.activation[:, 1], rtol=1e-3, atol=1e-5)
    assert found.joints == seen.joints


def test_one_person_alone_is_doubled_for_ntu120_as_its_clips_are(tmp_path):
    run = run_of(tmp_path, NTU, "bpi", dataset="mine")
    clip = clips_of(NTU)[0][:, :1]
    run.config = run.config.changed(dataset="ntu120")
    alone = compute_clip_outputs(run, [clip])
    both = compute_clip_outputs(run, [np.concatenate([clip, clip], 1)])
    np.testing.assert_array_equal(alone.probabilities, both.probabilities)
    run.config = run.config.changed(dataset="ntu60")
    assert np.abs(compute_clip_outputs(run, [clip]).activation - alone.activation).max() > 1e-3


def test_another_skeleton_is_refused(tmp_path):
    run = run_of(tmp_path, NTU, "bpi")
    with pytest.raises(ValueError, match=r"expected clips \(L, M, 25, 3\)"):
        compute_clip_outputs(run, clips_of(UCLA))
    with pytest.raises(ValueError, match="at least one clip"):
        compute_clip_outputs(run, [])
    other = SimpleNamespace(store=SimpleNamespace(skeleton=UCLA), config=SimpleNamespace(dataset="ucla"))
    with pytest.raises(ValueError, match="got one of ucla, whose bodies have 20"):
        check_skeleton(other, NTU)
    check_skeleton(run, NTU)
