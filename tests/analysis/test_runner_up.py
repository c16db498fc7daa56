"""The lead of a clip's class: its terms sum to it, its drops are those of the two logits, whatever the network."""

import numpy as np
import pytest
import torch
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
    assert found.activation.sum() + found.bias == pytest.approx(found.lead, rel=1e-4)
    x = torch.from_numpy(prepare_clip(poses, skeleton, skeleton.persons, run.feeder("test").modality))
    with torch.no_grad():
        whole, without = (run.model(clip).logits[0] for clip in (x, occlude(x, [5], slice(None))))
    first, second = found.classes
    assert whole.argsort(descending=True)[:2].tolist() == [first, second]
    assert found.lead == pytest.approx(float(whole[first] - whole[second]), rel=1e-4)
    fall = float((whole - without)[first] - (whole - without)[second])
    assert found.drops["joints"][5] == pytest.approx(fall, rel=1e-2, abs=1e-4 * found.lead)
    assert {name: len(values) for name, values in found.drops.items()} == {
        "joints": skeleton.num_joints, "parts": 3, "time": 8,
    }  # fmt: skip


def test_another_skeleton_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected clips \(L, M, 25, 3\)"):
        explain_lead(run_of(tmp_path, NTU, "bpi"), clips_of(UCLA)[0])
