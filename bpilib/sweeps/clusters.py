"""Where a sweep's runs are executed: Dask workers on this machine, of a running scheduler, or in SLURM jobs."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Event, Nanny, Reschedule, Scheduler, SpecCluster, Status, get_worker
from tornado.ioloop import PeriodicCallback

from bpilib.sweeps.notebook_runner import execute_notebook
from bpilib.system.files import mask_secrets

SLURM_OPTIONS = (
    "queue", "account", "walltime", "memory", "job_extra_directives", "job_script_prologue", "log_directory",
    "local_directory", "interface", "python", "security",
)  # fmt: skip
_PATIENT = {"allowed_failures": 1_000_000}  # a run whose worker is lost goes on elsewhere, however often
_LEAVING = (Status.closing, Status.closing_gracefully, Status.closed)


def work(notebook: Path, folder: Path, parameters: dict[str, Any], stop: str) -> tuple[str, str]:
    """The Dask task: `execute` until the event named `stop` is set; a worker that leaves hands the run back."""
    worker, event = get_worker(), Event(stop)

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
    """
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
            "nthreads": 1, "host": "127.0.0.1", "dashboard": False, "memory_limit": 0, "env": environment,
            "preload": [quiet], "name": number, "silence_logs": 40,
        }  # fmt: skip
        specs[number] = {"cls": Nanny, "options": options}
    here = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(workers=specs, scheduler={"cls": Scheduler, "options": here | _PATIENT}, silence_logs=40)


def slurm(workers: int, cores: int, options: dict[str, Any]) -> SpecCluster:
    """SLURM jobs of one worker each, submitted when `adapt` asks for them; `.job_script()` is what is submitted.

    Args:
        workers: jobs at once, at most.
        cores: of a job.
        options: of `dask_jobqueue.SLURMCluster`, those in SLURM_OPTIONS. Five minutes before the end of walltime a
            worker saves its run and hands it to the next job.
    """
    walltime = options.get("walltime", "24:00:00")
    parts = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", str(walltime))
    if not isinstance(walltime, str) or not parts:
        raise ValueError(f'slurm walltime: expected "[days-]hours:minutes:seconds" in quotes, got {walltime!r}')
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    lifetime = ((days * 24 + hours) * 60 + minutes) * 60 + seconds - 300
    if lifetime < 300:
        raise ValueError(f"slurm walltime: expected at least 10 minutes, got {walltime}")
    threads = [f"export {name}={cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    given = {"memory": "16 GB"} | options | {"walltime": walltime}
    given["job_script_prologue"] = [*threads, *options.get("job_script_prologue", [])]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask_jobqueue import SLURMCluster  # here, since this import makes Ctrl-C end the process

    for number, handler in handlers.items():
        signal.signal(number, handler)
    dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"})  # time to save before the job is cancelled
    cluster = SLURMCluster(
        cores=1, processes=1, job_cpu=cores, job_name="bpi-sweep", silence_logs=40, **given,
        worker_extra_args=["--no-dashboard", "--lifetime", f"{lifetime}s"],
        scheduler_options={"dashboard_address": ":0"} | _PATIENT,
    )  # fmt: skip
    cluster.adapt(maximum_jobs=workers, target_duration="100ms", wait_count=30)
    # `adapt` takes a lost job for one still planned; scaling to what is planned submits it anew
    again = PeriodicCallback(lambda: cluster.scale(len(cluster.worker_spec)), 30_000)
    cluster.loop.add_callback(again.start)
    return cluster


@contextlib.contextmanager
def connect(
    cluster: str, gpus: int = 0, workers: int | None = None, cores: int = 4, options: dict[str, Any] | None = None
) -> Iterator[Client]:
    """A client of the workers; those it started end with it.

    Args:
        cluster: "local", "slurm", or the address of a running scheduler, whose workers are taken as they are.
        gpus: of this machine ("local").
        workers: how many at once; for "slurm" it must be said.
        cores: of a run without a GPU ("local"), of a job ("slurm").
        options: of the jobs ("slurm").

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
            place = stack.enter_context(slurm(workers, cores, options or {}))
            print(mask_secrets(place.job_script()))
        else:
            place = cluster
        try:
            client = stack.enter_context(Client(place))
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"parameter cluster: no Dask scheduler answers at {cluster!r} ({error}): start one with `dask "
                "scheduler` and workers with `dask worker <address> --nthreads 1`, or use 'local' or 'slurm'"
            ) from error
        at_once = client.nthreads() or {"": workers}
        print(f"{cluster}: {sum(at_once.values())} runs at once" + (" at most" if cluster == "slurm" else ""))
        yield client
