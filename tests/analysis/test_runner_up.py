"""The lead of a clip's class: its terms sum to it, its drops are those of the two logits, whatever the network."""

import numpy as np
import pytest
import torch
from noise import exact
from untrained_runs import clips_of, run_of

from bpilib.analysis.occlusion import occlude
from bpilib.analysis.runner_up import explain_lead
from bpilib.feeders import prepare_clip
from bpilib.skeleton import NTU, UCLA


@pytest.mark.parametrize(
    ("skeleton", "model", "modality"), [(NTU, "bpi", "joint"), (UCLA, "ctrgcn", "bone")], ids=["ntu bpi", "ucla ctrgcn"]
)
def test_its_terms_sum_to_it_and_occlusion_is_of_both_logits(tmp_path, skeleton, model, modality):
    run = run_of(tmp_path, skeleton, model, modality)
    poses = clips_of(skeleton)[2]
    found = explain_lead(run, poses)
    np.testing.assert_array_equal(found.clip, poses)
    assert found.lead > 0 and found.frames.shape == (found.activation.shape[1],)
    x = torch.from_numpy(prepare_clip(poses, skeleton, skeleton.persons, run.feeder("test").modality))
    first, second = found.classes

    def compute(network):
        whole, without = (network(clip.double()).logits[0] for clip in (x, occlude(x, [5], slice(None))))
        return {"whole": whole, "without": without}

    outputs, allowed = exact(run.model, compute)
    lead, rest = (float(logits[first] - logits[second]) for logits in outputs.values())
    assert outputs["whole"].argsort(descending=True)[:2].tolist() == [first, second]
    assert abs(found.lead - lead) <= 2 * allowed["whole"]
    sizes = np.abs(found.activation).sum() * np.finfo(np.float32).eps
    assert abs(found.activation.sum() + found.bias - lead) <= 2 * allowed["whole"] + 32 * sizes
    assert abs(found.drops["joints"][5] - (lead - rest)) <= 2 * (allowed["whole"] + allowed["without"])
    assert {name: len(values) for name, values in found.drops.items()} == {
        "joints": skeleton.num_joints, "parts": 3, "time": 8,
    }  # fmt: skip


def test_another_skeleton_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected clips \(L, M, 25, 3\)"):
        explain_lead(run_of(tmp_path, NTU, "bpi"), clips_of(UCLA)[0])
