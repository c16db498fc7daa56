"""A statement from what training recorded, whatever somebody's summary.json holds."""

from making import save_result

from bpilib.analysis.reproducibility import write_statement
from bpilib.analysis.results import find_results

ENVIRONMENT = {
    "git": {"commit": "a" * 40, "clean": True},
    "python": "3.11.7",
    "libraries": {"torch": "2.14.1"},
    "cuda": None,
    "cpu": "AMD EPYC",
    "cores": 2,
    "gpu": None,
    "threads": 1,
    "platform": "Linux",
    "date": "2026-11-27T10:00:00+00:00",
    "peak_memory_gb": 0.74,
    "parameters": 1_450_000,
    "flops_per_clip": 3_559_392_320,
    "seed": 0,
    "text_digest": "",
}


def results_with(outputs, *environments):
    for seed, environment in enumerate(environments):
        save_result(outputs, [True, False], seed=seed, environment=environment)
    return find_results(outputs)[0]


def test_what_is_the_same_stands_once_and_what_differs_names_its_runs(tmp_path):
    other = ENVIRONMENT | {"seed": 1, "git": {"commit": "b" * 40, "clean": False}}
    text = write_statement(results_with(tmp_path, ENVIRONMENT, other))
    lines = text.splitlines()
    assert "hardware: AMD EPYC, 2 cores" in lines
    assert f"code: {'a' * 40} (synthetic_xview/bpi_joint_seed0)" in lines
    assert f"code: {'b' * 40} with changes (synthetic_xview/bpi_joint_seed1)" in lines
    assert "network: 1.450 M parameters, 3.56 GFLOPs a clip (2 a multiply-add)" in lines
    assert "texts: none" in lines and "peak memory: 0.7 GB" in lines
    assert lines[-1].endswith("in no commit when these were made: synthetic_xview/bpi_joint_seed1")


def test_a_gpu_is_named_with_its_cuda(tmp_path):
    on_gpu = ENVIRONMENT | {"gpu": "NVIDIA H100", "cuda": "13.0", "peak_gpu_memory_gb": 11.26}
    text = write_statement(results_with(tmp_path, on_gpu))
    assert "hardware: NVIDIA H100 (CUDA 13.0), AMD EPYC, 2 cores\n" in text
    assert "peak memory: 0.7 GB, 11.3 GB on the GPU\n" in text


def test_what_was_not_recorded_or_is_damaged_is_said(tmp_path):
    odd = {"git": [1], "threads": {"a": 1}, "cpu": "x\n\nFAKE LINE", "cores": 2, "gpu": None}
    text = write_statement(results_with(tmp_path, None, odd))
    assert "(1 with a recorded environment)" in text
    assert "code: not recorded\n" in text and "software: not recorded\n" in text
    assert "hardware: x FAKE LINE, 2 cores\n" in text  # one line
    assert "no environment was recorded for synthetic_xview/bpi_joint_seed0" in text
