"""How many CPU threads PyTorch uses: as many as cores are free, since threads that wait for each other take time."""

import functools
import logging
import os

import joblib
import psutil
import torch

SAMPLE_SECONDS = 0.5  # in which it is measured how busy the cores are
_log = logging.getLogger(__name__)


@functools.cache
def usable_cores() -> int:
    """Cores that this process may use, by its affinity and its control group's quota, at most PyTorch's own choice."""
    return min(joblib.cpu_count(), torch.get_num_threads())


@functools.cache
def free_cores() -> int:
    """How many of the usable cores other processes leave free, at least 1; measured once in a process.

    `free_cores.cache_clear()` has the next call measure anew.
    """
    usable = usable_cores()
    busy = psutil.cpu_percent(SAMPLE_SECONDS, percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(busy))
    idle = sum(1 - busy[core] / 100 for core in mine if core < len(busy))
    return max(1, min(usable, round(idle)))


def choose_threads(wanted: int | None, processes: int = 1) -> int:
    """How many threads a process is to use.

    Args:
        wanted: the parameter threads.
        processes: of this run on this machine, which share what is free.

    Returns:
        What is wanted, or what OMP_NUM_THREADS says, or the share of the free cores, at least 1.
    """
    if wanted is not None:
        return wanted
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if said.isdecimal() and int(said) > 0:  # not what PyTorch uses now: an earlier run of this process may have set it
        return int(said)
    return max(1, free_cores() // processes)


def set_threads(count: int) -> None:
    """Have PyTorch use so many CPU threads, and say so."""
    usable = usable_cores()  # before it is changed
    if count == torch.get_num_threads():
        return
    torch.set_num_threads(count)
    others = ": the other cores are busy" if count < usable else ""
    _log.info("CPU threads: %d of %d (parameter threads)%s", count, usable, others)
