"""Dask workers that execute a sweep's runs: on this machine, of a running scheduler, or in SLURM jobs.

Whoever can connect to a scheduler can run code as its user. A sweep's own scheduler therefore listens on one address
only and authenticates its peers (mutual TLS) by keys that are made for it and removed with it.
"""

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, Event, Nanny, Reschedule, Scheduler, SpecCluster, Status, get_worker
from distributed.security import Security
from distributed.utils import get_ip, get_ip_interface
from tornado.ioloop import PeriodicCallback

from bpilib.config import Config
from bpilib.finished import read_finished
from bpilib.sweeps.notebook_runner import execute_notebook
from bpilib.system.files import mask_secrets
from bpilib.system.scratch import scratch_folder

logger = logging.getLogger(__name__)

SLURM_OPTIONS = (
    "queue",
    "account",
    "walltime",
    "memory",
    "job_extra_directives",
    "job_script_prologue",
    "log_directory",
    "local_directory",
    "interface",
    "python",
    "security",
)
KEYS = ".keys-"  # prefix of folders with keys
# A run whose worker is lost goes on elsewhere, however often; the dashboard is reachable from this machine only.
_SCHEDULER = {"allowed_failures": 1_000_000, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
_PATIENT_WITH_JOBS = {"distributed.deploy.lost-worker-timeout": "60s"}  # time to save before a job is cancelled
_LEAVING = (Status.closing, Status.closing_gracefully, Status.closed)


def execute_run(notebook: Path, config: Config, parameters: dict[str, Any], stop: str) -> tuple[str, str]:
    """The Dask task: execute a notebook until the event named `stop` is set.

    Raises:
        Reschedule: the worker is shutting down; another one takes the run over.
    """
    worker = get_worker()
    event = Event(stop)

    def stopped() -> bool:
        try:
            return worker.status in _LEAVING or event.is_set()
        except OSError:  # the scheduler is gone, so nobody waits for the result
            return True

    def finished() -> bool:
        return read_finished(config) is not None

    outcome = execute_notebook(notebook, config.run_directory, parameters, stopped, worker.address, finished)
    if outcome[0] == "interrupted" and worker.status in _LEAVING:
        raise Reschedule
    return outcome


def start_local(gpus: int, workers: int | None, cores: int) -> SpecCluster:
    """Start workers on this machine, each executing one run at a time; they listen on loopback only.

    Args:
        gpus: number of GPUs; `CUDA_VISIBLE_DEVICES` chooses among them.
        workers: number of workers; None: one per GPU, or without GPUs one per `cores` cores.
        cores: threads of a run, fewer if all workers together would exceed the machine's cores.

    The TLS keys stay in memory.
    """
    security = Security.temporary()
    workers = workers or gpus or max(1, CPU_COUNT // cores)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    threads = str(max(1, min(cores, CPU_COUNT // workers)))
    quiet = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the notebook to handle
    specs = {}
    for number in range(workers):
        environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = visible[number % gpus]
        options = {
            "nthreads": 1,
            "host": "127.0.0.1",
            "protocol": "tls",
            "security": security,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "memory_limit": 0,
            "env": environment,
            "preload": [quiet],
            "name": number,
            "silence_logs": logging.ERROR,
        }
        specs[number] = {"cls": Nanny, "options": options}
    scheduler = {"host": "127.0.0.1", "port": 0, "protocol": "tls", "security": security} | _SCHEDULER
    return SpecCluster(
        workers=specs,
        scheduler={"cls": Scheduler, "options": scheduler},
        security=security,
        silence_logs=logging.ERROR,
    )


@contextlib.contextmanager
def _share_keys(folder: Path) -> Iterator[tuple[Security, Path]]:
    """Make keys for one scheduler, and write them to a folder that only this user can read; it is removed at the end.

    Args:
        folder: in which that folder is made, on a disk that the jobs share. Key folders of killed sweeps are removed.
    """
    security = Security.temporary()
    contents = (security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key)
    with scratch_folder(KEYS, folder) as place:
        for name, content in zip(("ca.pem", "cert.pem", "key.pem"), contents):
            with open(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
        yield security, place


@contextlib.contextmanager
def start_slurm(workers: int, cores: int, options: dict[str, Any], folder: Path) -> Iterator[SpecCluster]:
    """Submit SLURM jobs of one worker each when there is work; `.job_script()` returns the script.

    The scheduler listens on the address of `options["interface"]` only; without it, on the address by which other
    machines are reached.

    Args:
        workers: maximum number of jobs at once.
        cores: of a job.
        options: of `dask_jobqueue.SLURMCluster`, those in SLURM_OPTIONS. Five minutes before its walltime ends a
            worker saves its run and hands it to the next job.
        folder: for the keys, on a disk that the jobs share.

    Raises:
        ValueError: an option that is wrong or can't be written into a job script.
    """
    options = dict(options)
    if options.pop("security", True) is not True:
        raise ValueError("slurm security: every sweep makes its own keys; remove this option")
    walltime = options.get("walltime", "24:00:00")
    parts = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", str(walltime))
    if not isinstance(walltime, str) or not parts:
        raise ValueError(f'slurm walltime: expected "[days-]hours:minutes:seconds" in quotes, got {walltime!r}')
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    lifetime = ((days * 24 + hours) * 60 + minutes) * 60 + seconds - 300
    if lifetime < 300:
        raise ValueError(f"slurm walltime: expected at least 10 minutes, got {walltime}")
    threads = [f"export {name}={cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from bpilib.sweeps import slurm_jobs  # here, since dask_jobqueue replaces the signal handlers

    for number, handler in handlers.items():
        signal.signal(number, handler)
    given = {"memory": "16 GB"} | slurm_jobs.quote_job_options(options) | {"walltime": walltime}
    given["job_script_prologue"] = [*threads, *options.get("job_script_prologue", [])]
    if (interface := given.get("interface")) is not None and interface not in psutil.net_if_addrs():
        there = ", ".join(psutil.net_if_addrs())
        raise ValueError(f"slurm interface: this machine has none of the name {interface!r} (it has {there})")
    host = get_ip() if interface is None else get_ip_interface(interface)
    with (
        _share_keys(folder) as (security, keys),
        dask.config.set(_PATIENT_WITH_JOBS),
        slurm_jobs.Cluster(
            cores=1,
            processes=1,
            job_cpu=cores,
            job_name="bpi-sweep",
            silence_logs=logging.ERROR,
            security=security,
            protocol="tls://",
            submissions=slurm_jobs.Submissions(),
            worker_extra_args=slurm_jobs.make_worker_arguments(keys, lifetime),
            scheduler_options={"host": host} | _SCHEDULER,
            **given,
        ) as cluster,
    ):
        cluster.adapt(maximum_jobs=workers, target_duration="100ms", wait_count=30)
        # `adapt` takes a lost job for one that is still planned; scaling to the planned number submits it again
        again = PeriodicCallback(lambda: cluster.scale(len(cluster.worker_spec)), 30_000)
        cluster.loop.add_callback(again.start)
        yield cluster


@contextlib.contextmanager
def connect(
    cluster: str,
    gpus: int = 0,
    workers: int | None = None,
    cores: int = 4,
    options: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Iterator[Client]:
    """Connect a client to workers; workers that were started for it end with it.

    Args:
        cluster: "local", "slurm", or the address of a running scheduler, whose workers are used as they are.
        gpus: number of GPUs of this machine ("local").
        workers: number of workers; required for "slurm".
        cores: of a run without a GPU ("local"), of a job ("slurm").
        options: of the jobs ("slurm").
        folder: of the sweep, on a disk that the jobs share ("slurm").

    Raises:
        ValueError: the number of SLURM jobs is missing; a wrong option.
        ConnectionError: no scheduler answers at that address.
    """
    with contextlib.ExitStack() as stack:
        if cluster == "local":
            place = stack.enter_context(start_local(gpus, workers, cores))
        elif cluster == "slurm":
            if workers is None:
                raise ValueError("parameter workers: say how many SLURM jobs may run at once, e.g. workers=8")
            if folder is None:
                raise ValueError("expected the sweep's folder for the jobs' keys: pass folder, as notebook 06 does")
            place = stack.enter_context(start_slurm(workers, cores, options or {}, folder))
            logger.info("%s", mask_secrets(place.job_script()))
        else:
            place = cluster
        try:
            client = stack.enter_context(Client(place))
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"parameter cluster: no Dask scheduler answers at {cluster!r} ({error}): start one with `dask "
                "scheduler` and workers with `dask worker <address> --nthreads 1`, or use 'local' or 'slurm'"
            ) from error
        at_once = workers if cluster == "slurm" else sum(client.nthreads().values())
        logger.info("%s: %s runs at once%s", cluster, at_once, " at most" if cluster == "slurm" else "")
        yield client
