"""Where runs are executed: who may talk to their scheduler, the text of SLURM jobs, sbatch's answers, errors."""

import asyncio
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys

import dask
import psutil
import pytest
from distributed import Client
from distributed.comm import CommClosedError
from distributed.comm import connect as connect_to
from distributed.security import Security

from bpilib.sweeps import sweep
from bpilib.sweeps.clusters import KEYS, connect, start_local, start_slurm

pytest.importorskip("cryptography", reason="TLS keys are made with the package cryptography")
OPTIONS = {
    "queue": "gpu",
    "account": "lab",
    "walltime": "1-02:00:00",
    "memory": "32 GB",
    "interface": "lo",
    "job_extra_directives": ["--gres=gpu:1"],
    "job_script_prologue": ["module load cuda"],
}


def listening():
    """(address, port) of the TCP sockets on which this process and its children listen."""
    found = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        found |= {tuple(c.laddr) for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def refuses(address, **connection):
    """Whether a scheduler turns somebody away who connects in this way."""

    async def ask():
        comm = await connect_to(address, timeout=600, **connection)
        try:
            await comm.write({"op": "identity", "reply": True})
            await comm.read()
        finally:
            comm.abort()

    try:
        asyncio.run(asyncio.wait_for(ask(), 600))
    except (CommClosedError, ssl.SSLError, ConnectionResetError):  # not a timeout
        return True
    return False


def strangers():
    """Ways to connect without the scheduler's own keys: plainly, over TLS without keys, with keys of another one."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    another = Security.temporary().get_connection_args("client")["ssl_context"]
    another.verify_mode = ssl.CERT_NONE
    return ({}, {"ssl_context": trusting, "require_encryption": True}, {"ssl_context": another})


# --- who may talk to a scheduler


def test_local_workers_listen_on_loopback_and_take_no_stranger():
    before = listening()
    with start_local(0, 1, 1) as cluster, Client(cluster) as client:
        assert client.submit(os.getpid).result() != os.getpid()
        opened = listening() - before
        assert len(opened) >= 3 and {address for address, _ in opened} == {"127.0.0.1"}
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        for connection in strangers():
            assert refuses(address if connection else address.replace("tls", "tcp"), **connection)
        assert not refuses(address, **cluster.security.get_connection_args("client"))
    assert {address for address, _ in listening() - before} <= {"127.0.0.1"}


def test_a_slurm_scheduler_listens_where_it_is_told_and_takes_no_stranger(tmp_path):
    before = listening()
    with start_slurm(1, 2, OPTIONS, tmp_path) as cluster:
        opened = listening() - before
        assert opened and {address for address, _ in opened} == {"127.0.0.1"}  # the interface lo
        address = cluster.scheduler_address
        for connection in strangers():
            assert refuses(address if connection else address.replace("tls", "tcp"), **connection)
        with Client(cluster) as client:  # who has the keys
            assert client.run_on_scheduler(os.getpid) == os.getpid()


def test_without_an_interface_one_address_is_taken_not_all(tmp_path):
    before = listening()
    with start_slurm(1, 2, {name: value for name, value in OPTIONS.items() if name != "interface"}, tmp_path):
        opened = {address for address, _ in listening() - before}
        assert opened and not opened & {"0.0.0.0", "::", ""}


def test_keys_are_for_this_user_alone_and_go_with_the_sweep(tmp_path):
    left = tmp_path / f"{KEYS}left"  # by a killed sweep
    left.mkdir()
    (left / "key.pem").write_text("old")
    (left / "lock").touch()
    with start_slurm(1, 2, OPTIONS, tmp_path) as cluster:
        (place,) = tmp_path.glob(f"{KEYS}*")
        assert place != left and stat.S_IMODE(place.stat().st_mode) == 0o700
        assert {path.name for path in place.iterdir()} == {"ca.pem", "cert.pem", "key.pem", "lock"}
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in place.glob("*.pem"))
        assert "PRIVATE KEY" in (place / "key.pem").read_text() and "PRIVATE" not in cluster.job_script()
        with start_slurm(1, 2, OPTIONS, tmp_path):  # a second one beside it leaves its keys alone
            assert place.exists() and len([*tmp_path.glob(f"{KEYS}*")]) == 2
    assert not [*tmp_path.iterdir()]


# --- job scripts


def test_the_job_script_says_what_was_asked_for(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with start_slurm(3, 8, OPTIONS, tmp_path / "a sweep's") as cluster:
        script = cluster.job_script()
        assert cluster.scheduler.allowed_failures > 1000
    lines = script.splitlines()
    expected = ("-J bpi-sweep", "-p gpu", "-A lab", "-n 1", "--cpus-per-task=8", "--mem=30G", "-t 1-02:00:00")
    for line in (*expected, "--gres=gpu:1"):
        assert f"#SBATCH {line}" in lines
    exports = ["export OMP_NUM_THREADS=8", "export MKL_NUM_THREADS=8", "module load cuda"]
    at = lines.index(exports[0])
    assert lines[at : at + 3] == exports
    assert "distributed.cli.dask_worker tls://127.0.0.1:" in lines[at + 3]
    # one run at a time, and it is handed back five minutes before the end
    assert "--nthreads 1 " in lines[at + 3] and f"--lifetime {26 * 3600 - 300}s" in lines[at + 3]
    assert "/a sweep'\"'\"'s/.keys-" in lines[at + 3]  # quoted for the shell
    assert signal.getsignal(signal.SIGINT) is before  # Ctrl-C still interrupts


def test_what_comes_from_a_table_is_quoted(tmp_path):
    tables = {
        "queue": "a; touch b",
        "account": "$(touch c)",
        "python": "/opt/my env/$(touch d)/python",
        "local_directory": "$TMPDIR/${USER}/`touch e`/$(touch f)\"'",
    }
    with start_slurm(1, 1, OPTIONS | tables, tmp_path) as cluster:
        lines = cluster.job_script().splitlines()
    assert "#SBATCH -p 'a; touch b'" in lines and "#SBATCH -A '$(touch c)'" in lines
    command = next(line for line in lines if "dask_worker" in line)
    command = command.replace("'/opt/my env/$(touch d)/python'", "printf '%s\\n'", 1)
    shown = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"TMPDIR": "/t m p", "USER": "me"}, capture_output=True
    ).stdout.decode()
    assert "--local-directory\n/t m p/me/`touch e`/$(touch f)\"'\n" in shown
    assert not [*tmp_path.iterdir()]  # nothing was touched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": "gpu\ntouch x"}, "slurm queue: expected a text in one line"),
        ({"account": 3}, "slurm account: expected a text in one line, got 3"),
        ({"job_extra_directives": ["--gres=gpu:1\ntouch x"]}, "slurm job_extra_directives: expected a text in one"),
        ({"job_extra_directives": "--gres=gpu:1"}, "expected a list of options"),
        ({"job_script_prologue": "module load cuda"}, "expected a list of shell commands"),
        ({"log_directory": "lo gs$(id)"}, "slurm log_directory: expected a name without blanks"),
        ({"interface": "nowhere0"}, "slurm interface: this machine has none of the name 'nowhere0'"),
        ({"security": "off"}, "slurm security: every sweep makes its own keys"),
        ({"walltime": "1 day"}, r"slurm walltime: expected \"\[days-\]hours:minutes:seconds\" in quotes"),
        ({"walltime": 86400}, "slurm walltime: expected"),
        ({"walltime": "24:00"}, "slurm walltime: expected"),
        ({"walltime": ""}, "slurm walltime: expected"),
        ({"walltime": "00:09:59"}, "at least 10 minutes"),
    ],
)
def test_options_that_no_job_can_have_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message), start_slurm(1, 1, options, tmp_path):
        pass
    assert not [*tmp_path.iterdir()]


# --- sbatch


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """fake_slurm(script): puts an sbatch of this shell script first on the PATH; scancel ends what it started."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in (("sbatch", script), ("scancel", 'kill -- "-$1"')):
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return make


def table_of_one(tmp_path):
    """A sweep of one run whose store is never opened."""
    path = tmp_path / "table.yaml"
    path.write_text("runs: [{dataset: synthetic, model: ctrgcn}]\n")
    return sweep.load_sweep(path, tmp_path / "outputs")


def slurm_client(table):
    return connect("slurm", workers=2, cores=1, options=OPTIONS, folder=table.folder)


REFUSES = """echo "sbatch: error: invalid partition specified: gpuu" >&2
echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
exit 1"""


def test_refused_jobs_end_the_sweep_with_sbatch_s_own_words(tmp_path, fake_slurm, monkeypatch):
    fake_slurm(REFUSES)
    monkeypatch.setattr(sweep, "check_sweep", lambda _: None)
    table = table_of_one(tmp_path)
    words = "SLURM refused all jobs: sbatch: error: invalid partition specified: gpuu sbatch: error: Batch job"
    with slurm_client(table) as client, pytest.raises(RuntimeError, match=words):
        sweep.run_sweep(table, client, pause=0.1)
    assert not table.configs[0].run_directory.exists() and not [*table.folder.glob(f"{KEYS}*")]


def test_no_sbatch_at_all_ends_the_sweep_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sweep, "check_sweep", lambda _: None)
    table = table_of_one(tmp_path)
    words = r"sbatch: No such file or directory \(is this a machine that submits SLURM jobs\?\)"
    with slurm_client(table) as client, pytest.raises(RuntimeError, match=words):
        sweep.run_sweep(table, client, pause=0.1)


def test_a_job_s_worker_finds_its_keys_and_works(tmp_path, fake_slurm):
    """sbatch here starts the very script that it is given."""
    log = shlex.quote(str(tmp_path / "job.log"))
    fake_slurm(f'setsid bash "$1" > {log} 2>&1 &\necho "Submitted batch job $!"\nsleep 1')
    options = OPTIONS | {"memory": "1 GB", "job_script_prologue": ["export TOLD=yes"], "python": sys.executable}
    with connect("slurm", workers=1, cores=1, options=options, folder=tmp_path / "a sweep") as client:
        assert client.submit(os.getenv, "TOLD").result(timeout=600) == "yes"
        assert client.cluster.refusal() == ""


# --- other places


def test_slurm_needs_a_number_of_jobs():
    with pytest.raises(ValueError, match="how many SLURM jobs"), connect("slurm"):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "slrm"])
def test_no_scheduler_at_an_address_says_how_to_start_one(address):
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with socket.socket() as deaf:  # bound, so that nobody listens there
        deaf.bind(("127.0.0.1", 0))
        address = address.format(deaf.getsockname()[1])
        words = f"{address}.*dask worker <address> --nthreads 1"
        with soon, pytest.raises(ConnectionError, match=words), connect(address):
            pass
