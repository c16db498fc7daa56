"""Where runs are executed: the text of SLURM jobs, and errors."""

import signal

import dask
import pytest

from bpilib.sweeps.clusters import connect, slurm

OPTIONS = {
    "queue": "gpu", "account": "lab", "walltime": "1-02:00:00", "memory": "32 GB", "interface": "lo",
    "job_extra_directives": ["--gres=gpu:1"], "job_script_prologue": ["module load cuda"],
}  # fmt: skip


def test_the_job_script_says_what_was_asked_for():
    before = signal.getsignal(signal.SIGINT)
    with slurm(3, 8, OPTIONS) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler.allowed_failures > 1000
    lines = script.splitlines()
    for line in ("-J bpi-sweep", "-p gpu", "-A lab", "-n 1", "--cpus-per-task=8", "--mem=30G", "-t 1-02:00:00",
                 "--gres=gpu:1"):  # fmt: skip
        assert f"#SBATCH {line}" in lines
    exports = ["export OMP_NUM_THREADS=8", "export MKL_NUM_THREADS=8", "module load cuda"]
    at = lines.index(exports[0])
    assert lines[at : at + 3] == exports
    assert "distributed.cli.dask_worker tcp://" in lines[at + 3]
    # one run at a time, and it is handed back five minutes before the end
    assert "--nthreads 1 " in lines[at + 3] and f"--lifetime {26 * 3600 - 300}s" in lines[at + 3]
    assert signal.getsignal(signal.SIGINT) is before  # Ctrl-C still interrupts


@pytest.mark.parametrize("walltime", ["1 day", 86400, "24:00", ""])
def test_a_walltime_of_another_form_is_refused(walltime):
    with pytest.raises(ValueError, match=r"slurm walltime: expected \"\[days-\]hours:minutes:seconds\" in quotes"):
        slurm(1, 1, {"walltime": walltime})


def test_a_walltime_too_short_to_save_is_refused():
    with pytest.raises(ValueError, match="at least 10 minutes"):
        slurm(1, 1, {"walltime": "00:09:59"})


def test_slurm_needs_a_number_of_jobs():
    with pytest.raises(ValueError, match="how many SLURM jobs"), connect("slurm"):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "slrm"])
def test_no_scheduler_at_an_address_says_how_to_start_one(address):
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with soon, pytest.raises(ConnectionError, match=f"{address}.*dask worker <address> --nthreads 1"), connect(address):
        pass
