"""What depends on the machine: device, memory and what is used of it, precision, seeds."""

import contextlib
import ctypes
import os
import platform
import random
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor


def pick_device(name: str = "auto") -> torch.device:
    """The device of a `device` parameter; auto is the first GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"parameter device: {name!r} is no device (auto, cpu, cuda, cuda:1)") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"parameter device: {name} was asked for, but PyTorch sees no GPU here: use auto or cpu")
    return device


def use_device(name: str = "auto") -> torch.device:
    """`pick_device`, and make a GPU the current one, where operations that name no device take place."""
    device = pick_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device if device.index is not None else torch.cuda.current_device())
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, for what is drawn outside the feeder: initial weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def keep_malloc_memory() -> None:
    """Have the C library keep what tensors free, which otherwise goes back to the system and comes page by page.

    Saves up to half the time of a step on a CPU. For Linux with glibc; elsewhere nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


_NO_MEMORY = re.compile(
    "can't allocate memory|out of memory|ALLOC_FAILED|bad_alloc"
    "|could not (create|execute) a primitive$"  # oneDNN, which has no other words for it
)


@contextlib.contextmanager
def out_of_memory(what: str, change: str) -> Iterator[None]:
    """Where memory runs out, on a GPU or not, raise a MemoryError that says how much was wanted and what to change.

    Args:
        what: was to be done, with the sizes that count.
        change: what to do about it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # what PyTorch raises on a CPU has no kind of its own
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))
        if not known or str(error).startswith("out of memory in "):  # said already, by what is within
            raise
        traceback.clear_frames(error.__traceback__)  # the tensors there would live as long as the error does
        said = (str(error).strip().splitlines() or ["no memory"])[0].rpartition("DefaultCPUAllocator: ")[2][:300]
        said = re.sub(r"\b(\d{6,}) bytes", lambda match: f"{int(match[1]) / 1e6:,.0f} MB", said)
        raise MemoryError(f"out of memory in {what} ({said}): {change}") from error


def usage(device: torch.device) -> dict[str, float]:
    """What this process and its GPU use now.

    Returns:
        memory_gb of the process; on a GPU also gpu_memory_gb, of all its processes, gpu_memory_whole_gb, and
        gpu_busy_percent where PyTorch can tell (it asks the package nvidia-ml-py).
    """
    found = {"memory_gb": psutil.Process().memory_info().rss / 1e9}
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        found |= {"gpu_memory_gb": (whole - free) / 1e9, "gpu_memory_whole_gb": whole / 1e9}
        with contextlib.suppress(Exception):  # no package, no driver, a GPU that does not say: each has its own
            found["gpu_busy_percent"] = float(torch.cuda.utilization(device))
    return found


def format_usage(used: dict[str, float]) -> str:
    """`usage` in a line, such as "memory 1.2 GB, GPU 87 %, 6.1 of 24.0 GB"."""
    said = f"memory {used['memory_gb']:.1f} GB"
    if "gpu_memory_gb" in used:
        busy = f" {used['gpu_busy_percent']:.0f} %," if "gpu_busy_percent" in used else ""
        said += f", GPU{busy} {used['gpu_memory_gb']:.1f} of {used['gpu_memory_whole_gb']:.1f} GB"
    return said


def autocast(precision: str, device: torch.device) -> tuple[torch.autocast, str]:
    """The context of the forward pass in training, and the precision's name, from the parameter precision.

    auto: on a GPU bf16 (fp16 on one that only emulates bf16), on a CPU bf16 if it has fast instructions for it
    (AMX, or AMD's AVX-512), else fp32.
    tf32: float32 whose products a GPU rounds to 10 bits of mantissa. That also concerns the backward pass, so
    `product_precision` sets it for a whole step, not this context.

    Raises:
        ValueError: fp16 on a CPU.
    """
    if precision == "auto":
        precision = _fastest_precision(device)
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("parameter precision: fp16 is for GPUs; use bf16 or fp32 on a CPU")
    dtypes = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32), precision


def _fastest_precision(device: torch.device) -> str:
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is about the current device
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return "bf16"
    # AMD's AVX-512 multiplies bf16 at twice the rate of float32, Intel's at the same rate, less the conversions
    # (docs/performance.md)
    in_avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return "bf16" if in_avx512 and "AuthenticAMD" in read_cpu_fact("vendor_id") else "fp32"


def read_cpu_fact(name: str) -> str:
    """What Linux says of the first processor in /proc/cpuinfo, such as its "model name" or "vendor_id".

    On other systems, and where the fact is missing: what Python knows of the processor, or else its architecture.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class _Fp32Setting:
    """One of PyTorch's settings of how a GPU multiplies float32 numbers: "ieee" (in full), "tf32" or "none" (unset).

    PyTorch refuses a mixture of its older boolean `allow_tf32` and its newer `fp32_precision`. This uses the newer one
    wherever the installed PyTorch has it.
    """

    def __init__(self, holder: Any, inherits: bool = False):
        """inherits: the general setting shows through where it is unset; cuDNN's are set from the start."""
        self._holder = holder
        self._inherits = inherits

    def read(self) -> Any:
        """The value for `write` that restores the present state."""
        if not hasattr(self._holder, "fp32_precision"):
            return self._holder.allow_tf32
        own = self._holder.fp32_precision
        return "none" if self._inherits and own == torch.backends.fp32_precision else own

    def write(self, value: Any) -> None:
        if hasattr(self._holder, "fp32_precision"):
            self._holder.fp32_precision = value
        else:
            self._holder.allow_tf32 = value if isinstance(value, bool) else value == "tf32"


def _fp32_settings() -> list[_Fp32Setting]:
    """Those of matrix products and of cuDNN, whose operations PyTorch wants to be set alike."""
    cudnn = [getattr(torch.backends.cudnn, name, None) for name in ("conv", "rnn")]
    if not all(hasattr(holder, "fp32_precision") for holder in cudnn):
        cudnn = [torch.backends.cudnn]
    return [_Fp32Setting(torch.backends.cuda.matmul, inherits=True), *map(_Fp32Setting, cudnn)]


@contextlib.contextmanager
def product_precision(precision: str) -> Iterator[None]:
    """Within it a GPU's float32 products and convolutions are rounded to TF32 for "tf32", else computed in full.

    The user's own settings are in force again after it.

    Args:
        precision: a name that `autocast` returned.
    """
    settings = _fp32_settings()
    before = [setting.read() for setting in settings]
    try:
        for setting in settings:
            setting.write("tf32" if precision == "tf32" else "ieee")
        yield
    finally:
        for setting, value in zip(settings, before):
            setting.write(value)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """A context, or decorator, of full float32 products on GPUs (PyTorch rounds convolutions to TF32 by default)."""
    with product_precision("fp32"):
        yield


class GradScaler(torch.amp.GradScaler):
    """PyTorch's loss scaler for fp16; going on with a run begun in another precision, it starts from its default."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The state of a scaler that was disabled is empty and changes nothing."""
        if state_dict:
            super().load_state_dict(state_dict)


class DelayedValues:
    """Numbers on their way from the device to the host, which need not wait for them now.

    Args:
        values: any shape, on any device.
    """

    def __init__(self, values: Tensor):
        self._values = values.detach().to("cpu", non_blocking=True)  # from a GPU: into pinned memory
        self._arrival = None
        if values.device.type == "cuda":
            self._arrival = torch.cuda.Event()
            self._arrival.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """The numbers, flattened, once the device has computed them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._values.flatten().tolist()


COMPILE_MODES = ("none", "default", "graph")


def compile_network(network: torch.nn.Module, mode: str = "default") -> torch.nn.Module:
    """The network through torch.compile as one graph, or as it is where that is not wanted or nothing can be compiled.

    Args:
        network: of fixed input shapes; another shape compiles it again.
        mode: "none"; "default"; "graph": as CUDA graphs as well, which a GPU runs without the host launching each
            kernel (on a CPU the same as default).

    Warns:
        Nothing can be compiled on this machine: no C++ compiler, no Triton, a GPU too old, ...

    Raises:
        ValueError: unknown mode.
    """
    if mode not in COMPILE_MODES:
        raise ValueError(f"parameter compile: expected {', '.join(COMPILE_MODES)}, got {mode!r}")
    if mode == "none":
        return network
    device = next(network.parameters()).device
    try:
        torch.compile(torch.nn.Linear(2, 2).to(device))(torch.ones(1, 2, device=device))
    except Exception as error:  # compilers and drivers raise many kinds
        reason = str(error).strip().splitlines()[0][:200]
        warnings.warn(f"torch.compile does not work here, going on without ({reason})", stacklevel=2)
        return network
    options: dict[str, Any] = {"mode": "reduce-overhead"} if mode == "graph" else {}
    return torch.compile(network, fullgraph=True, dynamic=False, **options)


def make_deterministic() -> None:
    """Have PyTorch choose operations that give the same bits every time, for the rest of this process.

    Concerns GPUs, where sums over many threads are otherwise rounded in any order. Call it before the first product
    on a GPU. An operation that has no such form raises RuntimeError, which names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.enable_mem_efficient_sdp(False)  # its backward pass has no deterministic form
