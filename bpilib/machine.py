"""What depends on the machine: device, memory, precision, seeds."""

import contextlib
import ctypes
import random

import numpy as np
import torch


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


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, for what is drawn outside the feeder: initial weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free, which otherwise goes back to the system and comes page by page.

    Saves up to half the time of a step on a CPU. For Linux with glibc; elsewhere nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def autocast(precision: str, device: torch.device) -> tuple[contextlib.AbstractContextManager, str]:
    """The context of the forward pass in training, and the precision's name, from the parameter precision.

    auto: on a GPU bf16 (fp16 on those without), on a CPU bf16 if its instructions are there, else fp32.
    """
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            has = [getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
            precision = "bf16" if any(has) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("parameter precision: fp16 is for GPUs; use bf16 or fp32 on a CPU")
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=kind, enabled=precision != "fp32"), precision
