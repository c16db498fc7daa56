"""A short round of benchmarks/chaos.py: every fault once, some kills, no loss."""

import json
import os
import subprocess
import sys

import pytest

from bpilib.system.files import PROJECT


@pytest.mark.slow
def test_nothing_is_lost(tmp_path):
    command = [sys.executable, PROJECT / "benchmarks" / "chaos.py", "--kills", "10", "--pairs", "1", "--sweep", "0",
               "--signals", "1", "--seed", "1", "--out", tmp_path / "chaos.json"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    said = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = json.loads((tmp_path / "chaos.json").read_text())
    assert said.returncode == 0 and found["losses"] == 0, said.stdout + said.stderr
    assert len(found["faults"]) > 20 and all(row["tries"] for row in found["faults"])
