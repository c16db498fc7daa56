"""`benchmarks/gpu.py`, rehearsed on the CPU: every stage runs, and nothing is found wrong."""

import json
import subprocess
import sys

import pytest

from bpilib.system.files import PROJECT


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_is_rehearsed_without_one(tmp_path):
    script = PROJECT / "benchmarks" / "gpu.py"
    command = [sys.executable, script, "--device", "cpu", "--small", "--out", tmp_path / "gpu.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())
    bad = {name: row["found"] for name, row in rows.items() if row["found"].startswith(("FAILED", "WRONG", "not fin"))}
    assert not bad, done.stdout + done.stderr
    for stage in ("machine", "golden", "gradients", "feeder", "matrix product", "whole step", "inference", "resume",
                  "gradients of two", "text tower", "step ucla", "1 epochs of joint"):  # fmt: skip
        assert any(name.startswith(stage) for name in rows), stage
    assert rows["resume, deterministic False"]["again"] and rows["resume, deterministic False"]["cut"]
