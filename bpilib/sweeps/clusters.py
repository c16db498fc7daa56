"""Where a sweep's runs are executed: Dask workers on this machine, of a running scheduler, or in SLURM jobs.

Whoever may talk to a scheduler may run code as its user. A sweep's own scheduler therefore listens on one address, and
takes only those who hold keys that are made for it and go with it (TLS on both sides).
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
KEYS = ".keys-"  # begins the names of folders with keys
# A run whose worker is lost goes on elsewhere, however often; the scheduler's web pages are seen on this machine alone.
_SCHEDULER = {"allowed_failures": 1_000_000, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
_PATIENT_WITH_JOBS = {"distributed.deploy.lost-worker-timeout": "60s"}  # time to save before a job is cancelled
_LEAVING = (Status.closing, Status.closing_gracefully, Status.closed)


def work(notebook: Path, folder: Path, parameters: dict[str, Any], stop: str) -> tuple[str, str]:
    """The Dask task: `execute_notebook` until the event named `stop` is set; a leaving worker hands the run back."""
    worker = get_worker()
    event = Event(stop)

    def stopped() -> bool:
        try:
            return worker.status in _LEAVING or event.is_set()
        except OSError:  # the scheduler is gone, and with it whoever wants the result
            return True

    outcome = execute_notebook(notebook, folder, parameters, stopped, worker.address)
    if outcome[0] == "interrupted" and worker.status in _LEAVING:
        raise Reschedule
    return outcome


def local(gpus: int, workers: int | None, cores: int) -> SpecCluster:
    """Workers on this machine, one run at a time each: one per GPU, or without GPUs one per so many cores.

    Args:
        gpus: how many there are; `CUDA_VISIBLE_DEVICES` chooses among them.
        workers: how many; None: as many as there are GPUs, or as the cores give.
        cores: threads of a worker's run, fewer if the workers would exceed the machine's cores.

    They listen on loopback alone, and take only who holds the keys that are made here and stay in memory.
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
def _shared_keys(folder: Path) -> Iterator[tuple[Security, Path]]:
    """Keys for one scheduler, and a folder with them that only this user may read; it is removed at the end.

    Args:
        folder: on a disk that the jobs share. What killed sweeps left there is removed.
    """
    security = Security.temporary()
    contents = (security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key)
    with scratch_folder(KEYS, folder) as place:
        for name, content in zip(("ca.pem", "cert.pem", "key.pem"), contents):
            with open(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
        yield security, place


@contextlib.contextmanager
def slurm(workers: int, cores: int, options: dict[str, Any], folder: Path) -> Iterator[SpecCluster]:
    """SLURM jobs of one worker each, submitted when there is work; `.job_script()` is what is submitted.

    The scheduler and its workers talk TLS with keys made for them. The scheduler listens on the address of
    `options["interface"]`, or else on the one that leads to other machines, and on no other.

    Args:
        workers: jobs at once, at most.
        cores: of a job.
        options: of `dask_jobqueue.SLURMCluster`, those in SLURM_OPTIONS. Five minutes before the end of walltime a
            worker saves its run and hands it to the next job.
        folder: for the keys, on a disk that the jobs share.

    Raises:
        ValueError: an option that is wrong or can't be written into a job script.
    """
    options = dict(options)
    if options.pop("security", True) is not True:
        raise ValueError("slurm security: every sweep has keys of its own; leave it out")
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
    from bpilib.sweeps import slurm_jobs  # here, since what it imports makes Ctrl-C end the process

    for number, handler in handlers.items():
        signal.signal(number, handler)
    given = {"memory": "16 GB"} | slurm_jobs.job_options(options) | {"walltime": walltime}
    given["job_script_prologue"] = [*threads, *options.get("job_script_prologue", [])]
    if (interface := given.get("interface")) is not None and interface not in psutil.net_if_addrs():
        there = ", ".join(psutil.net_if_addrs())
        raise ValueError(f"slurm interface: this machine has none of the name {interface!r} (it has {there})")
    host = get_ip() if interface is None else get_ip_interface(interface)
    with (
        _shared_keys(folder) as (security, keys),
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
            worker_extra_args=slurm_jobs.worker_arguments(keys, lifetime),
            scheduler_options={"host": host} | _SCHEDULER,
            **given,
        ) as cluster,
    ):
        cluster.adapt(maximum_jobs=workers, target_duration="100ms", wait_count=30)
        # `adapt` takes a lost job for one still planned; scaling to what is planned submits it anew
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
    """A client of the workers; those it started end with it.

    Args:
        cluster: "local", "slurm", or the address of a running scheduler, whose workers are taken as they are.
        gpus: of this machine ("local").
        workers: how many at once; for "slurm" it must be said.
        cores: of a run without a GPU ("local"), of a job ("slurm").
        options: of the jobs ("slurm").
        folder: of the sweep, on a disk that the jobs share ("slurm").

    Raises:
        ValueError: no number of SLURM jobs; a wrong option.
        ConnectionError: no scheduler answers at that address.
    """
    with contextlib.ExitStack() as stack:
        if cluster == "local":
            place = stack.enter_context(local(gpus, workers, cores))
        elif cluster == "slurm":
            if workers is None:
                raise ValueError("parameter workers: say how many SLURM jobs may run at once, e.g. workers=8")
            if folder is None:
                raise ValueError("expected the sweep's folder for the jobs' keys: pass folder, as notebook 06 does")
            place = stack.enter_context(slurm(workers, cores, options or {}, folder))
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
