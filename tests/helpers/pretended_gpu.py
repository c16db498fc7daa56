"""A GPU for machines without one: tensors that say they are on cuda:0 and compute on the CPU.

PyTorch's own dispatch then takes CUDA's way (CUDA's autocast, cuDNN's BatchNorm). What a GPU would refuse raises here,
too: tensors of two devices in one operation, a CUDA tensor given to NumPy. What would make the host wait for the GPU is
noted with the line that asks: values read (`item`, `tolist`, `bool`), results whose size depends on values (`nonzero`,
`unique`, boolean indices), copies that are not `non_blocking`, indices that are Python lists.

Not seen here: memory, speed, races between streams, the rounding of CUDA's kernels.

It uses private parts of PyTorch: `_make_wrapper_subclass`, `_set_only_lift_cpu_tensors`, and for the backward pass the
number of GPUs that autograd's engine sees (`backward_environment`). `missing_parts` says what the installed one lacks.
"""

import collections
import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
READS_VALUES = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2", "unique_dim", "unique_consecutive",
    "masked_select",
}  # fmt: skip
INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
NO_KERNEL = {
    "view", "_unsafe_view", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "t", "detach",
    "alias", "unbind", "split", "split_with_sizes", "as_strided", "diagonal", "unfold", "empty", "empty_like",
    "empty_strided", "new_empty", "new_empty_strided", "_local_scalar_dense", "_reshape_alias", "is_pinned",
}  # fmt: skip


def missing_parts() -> str:
    """What the installed PyTorch lacks for this, or ""."""
    needed = {
        "torch.Tensor._make_wrapper_subclass": hasattr(torch.Tensor, "_make_wrapper_subclass"),
        "torch._C._ensureCUDADeviceGuardSet": hasattr(torch._C, "_ensureCUDADeviceGuardSet"),
        "torch._C._set_only_lift_cpu_tensors": hasattr(torch._C, "_set_only_lift_cpu_tensors"),
        "a build with CUDA": torch.backends.cuda.is_built(),
    }
    return ", ".join(name for name, there in needed.items() if not there)


class Ledger:
    """What the pretended GPU was asked to do.

    Attributes:
        kernels: operation → times.
        waits: (what the host waited for, line of code) → times.
    """

    def __init__(self) -> None:
        self.kernels: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()

    def clear(self) -> None:
        """Forget all."""
        self.kernels.clear()
        self.waits.clear()

    def wait(self, what: str) -> None:
        """Note that the host waits, and where."""
        self.waits[what, _line()] += 1


def _line() -> str:
    """The innermost line outside PyTorch and this file."""
    inside = (str(Path(torch.__file__).parent), __file__)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


LEDGER = Ledger()


class Pretended(torch.Tensor):
    """A tensor that says it is on the GPU; `inner` has its numbers, on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Pretended":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=CUDA,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Pretended":
        if id(self) not in memo:
            with torch.no_grad():
                copied = Pretended(self.inner.detach().clone())
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def tolist(self) -> Any:
        LEDGER.wait("tolist")
        return self.inner.detach().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy


def _unwrap(value: Any) -> Any:
    return tree_map_only(Pretended, lambda tensor: tensor.inner, value)


def _is_cuda(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def _copy(source: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """`aten._to_copy`."""
    was_there = isinstance(source, Pretended)
    goes_there = was_there if options.get("device") is None else _is_cuda(options["device"])
    plain = {name: value for name, value in options.items() if name not in ("device", "non_blocking", "pin_memory")}
    inner = aten._to_copy.default(_unwrap(source), **plain)
    if was_there or goes_there:
        LEDGER.kernels["_to_copy"] += 1
    if was_there != goes_there and not options.get("non_blocking"):
        LEDGER.wait("copy to the GPU" if goes_there else "copy to the host")
    return Pretended(inner) if goes_there else inner


def _refuse_mixture(name: str, args: tuple, tensors: list[torch.Tensor]) -> None:
    """RuntimeError where tensors of both devices meet; numbers (0-d) and indices may come from the host."""
    strangers = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim()]
    if name in INDEXED and isinstance(args[0], Pretended):
        listed = [index for index in args[1] if index is not None]
        for index in listed:
            if not isinstance(index, Pretended):
                LEDGER.wait("index from the host")
            if index.dtype == torch.bool:
                LEDGER.wait("boolean index")
        strangers = [tensor for tensor in strangers if not any(tensor is index for index in listed)]
    if strangers:
        places = ", ".join(f"{tensor.device} {tuple(tensor.shape)}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two: {name}({places})")


def _dispatch(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.split("::")[1]
    tensors: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
    wanted = kwargs.get("device")
    ours = any(isinstance(tensor, Pretended) for tensor in tensors)
    if name == "_to_copy":
        return _copy(args[0], kwargs)
    if name in ("lift", "lift_fresh"):
        return args[0]
    if name == "_pin_memory":
        return args[0].clone()
    if name == "copy_":
        if isinstance(args[0], Pretended) != isinstance(args[1], Pretended) and not (args[2:] or [False])[0]:
            LEDGER.wait("copy_ between the devices")
        LEDGER.kernels["copy_"] += isinstance(args[0], Pretended)
        _unwrap(args[0]).copy_(_unwrap(args[1]))
        return args[0]
    if ours:
        _refuse_mixture(name, args, tensors)
    on_gpu = ours if wanted is None else _is_cuda(wanted)
    plain_args = _unwrap(args)
    plain_kwargs = _unwrap(kwargs)
    if wanted is not None:
        plain_kwargs["device"] = "cpu"
    plain_kwargs.pop("pin_memory", None)
    if not on_gpu:
        return func(*plain_args, **plain_kwargs)
    if name in READS_VALUES:
        LEDGER.wait(name)
    if name not in NO_KERNEL:
        LEDGER.kernels[name] += 1
    result = STAND_INS.get(name, func)(*plain_args, **plain_kwargs)
    return _wrap(func._schema, result, args, kwargs)


def _wrap(schema: Any, result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Results as tensors on the GPU; of operations in place, the tensors that were given."""
    if not schema.returns:
        return None
    if len(schema.returns) == 1 and isinstance(result, list | tuple):
        return type(result)(tree_map_only(torch.Tensor, Pretended, value) for value in result)
    values = result if isinstance(result, tuple) else (result,)
    wrapped = []
    for returned, value in zip(schema.returns, values):
        if returned.alias_info is not None and returned.alias_info.is_write:
            written = returned.alias_info.before_set
            place, argument = next(
                (i, a) for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.before_set == written
            )
            wrapped.append(kwargs[argument.name] if argument.name in kwargs else args[place])
        else:
            wrapped.append(tree_map_only(torch.Tensor, Pretended, value))
    return tuple(wrapped) if isinstance(result, tuple) else wrapped[0]


def _cudnn_batch_norm(*given: Any) -> Any:
    """x, weight, bias, mean, var, training, momentum, eps; one more result than the CPU's, a reserve for backward."""
    found = aten.native_batch_norm.default(*given)
    return *found, torch.empty(0, dtype=torch.uint8)


def _cudnn_batch_norm_backward(
    x: Any, gradient: Any, weight: Any, mean: Any, var: Any, save_mean: Any, save_var: Any, eps: Any, reserve: Any
) -> Any:
    wanted = [True, True, True]
    return aten.native_batch_norm_backward.default(
        gradient, x, weight, mean, var, save_mean, save_var, True, eps, wanted
    )


def _softmax(function: Callable) -> Callable:
    """CUDA's takes half precision and returns float32 where asked to; the CPU's does not."""
    return lambda x, dim, to_float: function(x.float() if to_float else x, dim, False)


def _softmax_backward(function: Callable) -> Callable:
    return lambda gradient, out, dim, dtype: function(gradient, out, dim, gradient.dtype).to(dtype)


STAND_INS = {
    "cudnn_batch_norm": _cudnn_batch_norm,
    "cudnn_batch_norm_backward": _cudnn_batch_norm_backward,
    "_softmax": _softmax(aten._softmax.default),
    "_log_softmax": _softmax(aten._log_softmax.default),
    "_softmax_backward_data": _softmax_backward(aten._softmax_backward_data.default),
    "_log_softmax_backward_data": _softmax_backward(aten._log_softmax_backward_data.default),
}


class _Mode(TorchDispatchMode):
    """Sees the operations without a tensor of ours: what makes tensors, and what sends them to the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Event:
    """torch.cuda.Event."""

    def record(self, stream: object = None) -> None:
        """Nothing: all is done at once."""

    def synchronize(self) -> None:
        """The host waits."""
        LEDGER.wait("event")


@contextlib.contextmanager
def pretended_gpu(capability: tuple[int, int] = (9, 0)) -> Iterator[Ledger]:
    """Within it this machine has a GPU, cuda:0. Yields what is counted."""
    replaced = {
        "is_available": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: LEDGER.wait("synchronize"),
        "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
        "get_device_capability": lambda device=None: capability,
        "is_bf16_supported": lambda including_emulation=True: including_emulation or capability >= (8, 0),
        "is_current_stream_capturing": lambda: False,
        "current_stream": lambda device=None: None,
        "device": lambda device: contextlib.nullcontext(),
        "Event": _Event,
    }
    lift = torch._C._only_lift_cpu_tensors()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    LEDGER.clear()
    torch._C._ensureCUDADeviceGuardSet()  # where there is no GPU: a guard of the current device that does nothing
    with contextlib.ExitStack() as stack:
        for name, stand_in in replaced.items():
            stack.enter_context(patch.object(torch.cuda, name, stand_in))
        stack.callback(torch._C._set_only_lift_cpu_tensors, lift)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
        stack.enter_context(_Mode())
        yield LEDGER


_ONE_GPU = """
extern "C" {
signed char pretended_gpus;
int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) { *flags = 0; *active = 0; return 0; }
}
namespace c10 { namespace cuda { signed char device_count() noexcept { return pretended_gpus; } } }
"""  # autograd's engine asks how many GPUs there are and whether anybody uses them


def backward_environment(folder: Path) -> dict[str, str]:
    """Environment of a Python process in which `allow_backward` works; it needs a C++ compiler (g++).

    Args:
        folder: where a small library is built.
    """
    source = folder / "one_gpu.cpp"
    source.write_text(_ONE_GPU)
    library = folder / "one_gpu.so"
    command = ["g++", "-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


def allow_backward() -> None:
    """Have autograd's engine take pretended tensors; once in a process, before its first backward pass."""
    torch._C._ensureCUDADeviceGuardSet()
    ctypes.c_int8.in_dll(ctypes.CDLL(None), "pretended_gpus").value = 16  # the engine asks about more than the one
