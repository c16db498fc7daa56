"""The fused kernels against the plain computation, in Triton's interpreter, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from making import HELPERS

pytest.importorskip("triton")  # not on every platform

from bpilib.model import build_model
from bpilib.ops.triton_refinement import TritonRefinement
from bpilib.skeleton import UCLA


def differences(sizes, kind):
    """By result: the plain form's and the kernels' distance from float64, relative to its norm."""
    command = [sys.executable, str(HELPERS / "interpreted_triton.py"), json.dumps(sizes), kind]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


# n, i, c, v, t, r: more than a tile and less, of NW-UCLA's and NTU's joints
CASES = [(2, 3, 16, 20, 5, 8), (1, 36, 40, 5, 18, 6), (17, 16, 16, 2, 3, 2)]


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_the_kernels_compute_what_the_plain_form_does(sizes):
    for name, (_, found) in differences(sizes, "float32").items():
        assert found < 2e-6, name  # float32 has 6e-8; sums of at most 1,000 products


def test_in_half_precision_they_are_no_further_from_the_truth(sizes=(2, 16, 16, 20, 6, 4)):
    for name, (plain, found) in differences(sizes, "float16").items():
        assert found <= 1.5 * plain + 5e-4, name  # rounded once to 11 bits at the end


def test_a_network_takes_them_on_demand():
    network = build_model("bpi", UCLA, 10, width=8)
    assert all(block.spatial.triton_refinement is None for block in network.backbone.blocks)
    network.backbone.use_triton()
    assert all(block.spatial.triton_refinement is TritonRefinement for block in network.fuse().backbone.blocks)
