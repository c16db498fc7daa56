"""Starting the processes of one run with PyTorch's elastic launcher, and following them from the notebook.

The launching process shows how far the run is, and passes Ctrl-C on. Where one process dies, the launcher ends the
others and starts them all again, from the last checkpoint.
"""

import contextlib
import gc
import json
import logging
import os
import re
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
import torch.distributed as dist
import tqdm
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bpilib.config import Config
from bpilib.errors import MissingInputError
from bpilib.system.device import pick_device
from bpilib.system.distributed import FOLDER, all_gather, all_reduce_sum, progress_bar, rank
from bpilib.system.files import open_in_place, write_atomically
from bpilib.system.logs import show_log
from bpilib.system.scratch import hold, scratch_folder
from bpilib.system.signals import ENDING, listening
from bpilib.system.threads import choose_threads
from bpilib.training.trainer import Watch, show_history

Work = Callable[..., None]
_log = logging.getLogger(__name__)
LAUNCHER = "BPI_LAUNCHER"  # environment variable: the launching process of a worker
LOOK_SECONDS = 0.2  # between two looks at what the workers have written
_PASSING = (RuntimeError, OSError, MemoryError)  # may not come again; lost connections are RuntimeErrors
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (MissingInputError, ValueError, RuntimeError)
}  # of what a worker raised


# --- in a worker


def _worker(parent: int, *arguments: Any) -> tuple[str, Any]:
    """`_do_share`; then the launching process takes what it returns, or the worker ends without it if that has gone."""
    try:
        return _do_share(parent, *arguments)
    finally:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process as soon as it has lost its launching process: PyTorch would wait for it for ever."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def _do_share(parent: int, work: Work, config: Config, folder: str, arguments: tuple) -> tuple[str, Any]:
    """What a worker does from its start to its end; returns "done", "interrupted" or "failed", and an explanation.

    An error that would only come again is kept for the next try, where all workers return it instead of working.
    """
    place = Path(folder)
    signal.signal(signal.SIGINT, lambda *_: os.getppid() == parent or os._exit(1))  # comes when the parent dies, too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    show_log()
    os.environ[FOLDER], os.environ[LAUNCHER] = folder, str(parent)
    local = int(os.environ["LOCAL_RANK"])
    with contextlib.suppress(FileNotFoundError):  # the launching process has gone already
        held = hold(place)  # noqa: F841 (until this process ends)
        write_atomically(place / f"{local}.pid", str(os.getpid()))
    device = pick_device(config.device)
    if device.type == "cuda":
        config = config.changed(device=f"cuda:{local if device.index is None else device.index}")
        torch.cuda.set_device(config.device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if config.rendezvous is None:  # all are here: they meet in a file, and listen to nobody else
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
        file = place / f"group{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        store = dist.FileStore(str(file), config.devices)
        dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=config.devices)
    else:
        dist.init_process_group(backend)

    def stop() -> bool:
        """The same answer in all processes, so that all stop after the same step."""
        return bool(all_reduce_sum(torch.tensor(float(_is_asked_to_stop(place, parent)))))

    logs = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parent
    start = all_gather((_read(place / "failure.json"), str(logs)))
    if failure := next((failure for failure, _ in start if failure), None):
        return "failed", failure
    result: tuple[str, Any]
    try:
        if stop():
            raise KeyboardInterrupt("stopped before the first step")
        _wait_for(Path(start[0][1]))
        work(config, stop, *arguments)
        result = "done", None
    except KeyboardInterrupt as interrupt:
        result = "interrupted", str(interrupt)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, ValueError) or not isinstance(error, _PASSING):
            kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "")
            text = str(error) if kind else f"{type(error).__name__}: {error}"
            failure = {"kind": kind or "RuntimeError", "text": text, "note": f"process {rank()}, see {logs}/stderr.log"}
            write_atomically(place / "failure.json", json.dumps(failure))
        raise
    dist.destroy_process_group()  # not after an error, when other processes may be gone
    return result


def _is_asked_to_stop(place: Path, parent: int) -> bool:
    """Whether the launching process wants this worker to save and leave, or has gone."""
    return (place / "stop").exists() or not place.exists() or os.getppid() != parent


@contextlib.contextmanager
def saving_when_stopped(save: Callable[[], None]) -> Iterator[None]:
    """Within it, a worker that is to stop saves at once, in a thread; it ends after its step, together with the others.

    A signal that ends it, such as a scheduler's SIGTERM, has it save and exit without waiting for its step. SIGINT
    alone is for the launching process, as long as that lives.

    Args:
        save: may be called in another thread, at any time.
    """
    place = Path(os.environ[FOLDER])
    parent = int(os.environ[LAUNCHER])
    saved = threading.Event()

    def save_once() -> None:
        if not saved.is_set():
            saved.set()
            save()

    def hear(number: int) -> None:
        if number in ENDING and (number != signal.SIGINT or os.getppid() != parent):
            try:
                save_once()
            finally:
                os._exit(128 + number)

    def look() -> None:
        if _is_asked_to_stop(place, parent):
            save_once()

    for number in ENDING:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # the thread hears of it
    with listening(hear, look):
        yield


def _wait_for(path: Path) -> None:
    """Wait until a file of the first process is visible here; a shared folder may show it late."""
    end = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > end:
            raise ValueError(
                f"{path}, written by the first process, can't be seen on {socket.gethostname()}: set outputs to a "
                "folder that all machines of the run share"
            )
        time.sleep(0.1)


def _loopback() -> str:
    """Name of the network interface that can't be reached from outside."""
    interfaces = psutil.net_if_addrs().items()
    return next(name for name, addresses in interfaces if any(a.address == "127.0.0.1" for a in addresses))


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


# --- in the launching process


def launch(
    work: Work,
    config: Config,
    *arguments: Any,
    stop: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
) -> None:
    """Do the work of a run in `config.devices` processes here, together with `config.nodes` machines; wait for its end.

    Args:
        work: called in each worker as work(config, stop, *arguments): config has the worker's own device, stop() is
            True in all workers once they are to save and raise KeyboardInterrupt. Of an importable module, as are the
            arguments.
        config: of the run; its directory gets `logs/`.
        stop: asked several times a second; True once the run is to be left.
        watch: called with metrics.csv whenever it has changed.

    Raises:
        ValueError: devices, nodes and rendezvous that do not fit this machine, or what a worker raised.
        RuntimeError: workers that fail more than `max_restarts` times; machines that do not meet.
        KeyboardInterrupt: after `stop`, once everything is saved.
    """
    _check(config)
    for part in (work, *arguments):
        if getattr(part, "__module__", None) == "__main__":
            name = getattr(part, "__name__", part)
            raise ValueError(f"{name}: other processes can't import what a notebook has; put it into a module")
    gc.collect()  # a rendezvous that this process hosted before, at the same address, ends with its last reference
    logs = config.run_directory / "logs"
    restarts = config.max_restarts
    environment = _thread_environment(config)
    with scratch_folder("bpi_launch_") as place, _launcher_log(logs), _environment(environment):
        folder = str(place)
        settings = LaunchConfig(
            min_nodes=config.nodes,
            max_nodes=config.nodes,
            nproc_per_node=config.devices,
            run_id=f"{config.run_directory.parent.name}_{config.run_directory.name}",
            rdzv_backend="c10d",
            rdzv_endpoint=config.rendezvous or f"{folder}/launcher",
            rdzv_configs={} if config.rendezvous else {"store_type": "file"},
            local_addr="localhost" if _is_local(config.rendezvous) else None,
            max_restarts=restarts,
            logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
        )
        group: Future[dict[int, tuple[str, Any]]] = Future()
        given = (os.getpid(), work, config, folder, arguments)
        thread = threading.Thread(target=_start, args=(group, settings, *given), daemon=True)
        thread.start()
        try:
            _follow(group, Path(folder), config, stop, watch)
        except BaseException:  # the second Ctrl-C, or curves that can't be drawn
            _end(Path(folder))
            thread.join(20)  # longer only where it waits for other machines; without `folder`, its workers stop at once
            raise
        try:
            how, said = next(iter(group.result().values()))
        except ChildFailedError as error:
            if failure := _read(Path(folder) / "failure.json"):
                raise _error(failure) from error
            if (Path(folder) / "stop").exists():  # the signal has ended the workers, too, after they had saved
                raise KeyboardInterrupt(f"saved in {config.run_directory}: run the same again to go on") from error
            number, first = error.get_first_failure()
            raise RuntimeError(
                f"process {number} failed after {restarts} restarts, at last with: {first.message}. All that it said "
                f"is in {Path(first.error_file).parent}. Run the same again to go on from the last checkpoint"
            ) from error
        except RendezvousError as error:
            raise RuntimeError(
                f"the {config.nodes} machines of the run did not meet at {config.rendezvous} ({error}): start the same "
                "command on all of them, and check that they reach this address"
            ) from error
    if how == "failed":
        raise _error(said)
    if how == "interrupted":
        raise KeyboardInterrupt(said)


def _thread_environment(config: Config) -> dict[str, str]:
    """What the workers' OpenMP is told: how many threads, and that those that wait leave their core to others."""
    if pick_device(config.device).type == "cuda":
        return {}
    return {"OMP_NUM_THREADS": str(choose_threads(config.threads, config.devices)), "OMP_WAIT_POLICY": "passive"}


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started within; those that are set already stay."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _check(config: Config) -> None:
    """ValueError for parameters that this machine can't satisfy."""
    device = pick_device(config.device)
    if device.type == "cuda" and device.index is not None and config.devices > 1:
        raise ValueError(f"parameter device: {config.device} is one GPU, but devices is {config.devices}: use cuda")
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise ValueError(f"parameter devices: {config.devices}, but PyTorch sees {torch.cuda.device_count()} GPUs here")
    if device.type != "cuda" and config.sync_batchnorm:
        raise ValueError("parameter sync_batchnorm: PyTorch synchronises BatchNorm on GPUs alone; leave it False here")
    if config.nodes > 1 and config.rendezvous is None:
        raise ValueError(
            f"parameter rendezvous: with nodes={config.nodes} give the first machine's address, such as 'gpu1:29400', "
            "the same on all"
        )
    if config.rendezvous is not None and not re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}", config.rendezvous):
        raise ValueError(f"parameter rendezvous: expected host:port, such as 'gpu1:29400', got {config.rendezvous!r}")


def _is_local(rendezvous: str | None) -> bool:
    """Whether all workers are on this machine: its name need not lead to it then."""
    return rendezvous is None or rendezvous.rsplit(":", 1)[0] in ("localhost", "127.0.0.1", "[::1]")


def _start(group: Future, settings: LaunchConfig, *arguments: Any) -> None:
    """Run the launcher, in a thread that blocks SIGINT; so do workers at first, until they have their own handler."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # a shared one would keep the addresses of workers that died
    try:
        group.set_result(elastic_launch(settings, _worker)(*arguments))
    except BaseException as error:
        group.set_exception(error)


def _follow(
    group: Future[dict[int, tuple[str, Any]]],
    folder: Path,
    config: Config,
    stop: Callable[[], bool],
    watch: Watch | None,
) -> None:
    """Show progress and history, pass the wish to stop on, until the workers have ended."""
    metrics = config.run_directory / "metrics.csv"
    shown = _written(metrics)
    restarts = 0
    total = config.nodes * config.devices
    where = f"{config.devices} of them here; what they say: {metrics.parent}/logs"
    _log.info("%d processes share every batch, %s", total, where)
    with contextlib.ExitStack() as stack:
        bar: tqdm.tqdm | None = None
        before: dict[str, Any] | None = None
        done = False
        while not done:
            done = bool(wait([group], timeout=LOOK_SECONDS).done)
            if stop():
                (folder / "stop").touch()
            state = _read(folder / "progress.json")
            if state is not None and state != before:
                before = state
                if state["restarts"] > restarts:
                    restarts = state["restarts"]
                    tries = f"{restarts} of {config.max_restarts}"
                    _log.info("a process died: all resumed from the last checkpoint (%s)", tries)
                bar = bar or stack.enter_context(progress_bar(state["total"], state["desc"], state["n"]))
                bar.set_postfix_str(state["postfix"], refresh=False)
                bar.update(state["n"] - bar.n)
            if watch and _written(metrics) != shown:
                shown = _written(metrics)
                watch = show_history(watch, pd.read_csv(metrics))


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _end(folder: Path) -> None:
    """Kill the workers; those that the launcher starts in their place see `stop` and leave."""
    (folder / "stop").touch()
    for path in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def _error(failure: dict[str, str]) -> Exception:
    error = _KINDS[failure["kind"]](failure["text"])
    error.add_note(failure["note"])
    return error


@contextlib.contextmanager
def _launcher_log(folder: Path) -> Iterator[None]:
    """The launcher's own messages go into a file of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("torch.distributed.elastic")
    file = open_in_place(folder / "launcher.log", "a")
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        handler.close()
        file.close()
