"""The tensors of a TorchScript archive, as OpenAI publishes CLIP, read without running any of its code.

PyTorch's own reader would compile and may run what the archive holds. Here its code is left alone: of its data.pkl, a
pickle, objects become plain dicts and nothing is called but what makes a tensor of the archive's bytes.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpilib.system.pickle_keys import check_keys

_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name → tensor, on the CPU, of the parameters and buffers in an archive.

    Raises:
        ValueError: another kind of file, a damaged one, one that holds more than tensors and plain values, or packed
            tensors (a bomb could hide there; PyTorch packs code alone).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].partition("/")[0]
            root = _Reader(archive, top).load()
        if not isinstance(root, _Module):
            raise ValueError("it holds no module")
        found: dict[str, Tensor] = {}
        _collect(root, "", found)
        return found
    except Exception as error:  # pickle and zip have many kinds for a damaged file
        raise ValueError(f"{path} is no TorchScript archive of tensors ({type(error).__name__}: {error})") from error


class _Module(dict):
    """Attributes of a scripted object."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, top: str):
        self.archive, self.top = archive, top
        content = self._read("data.pkl")
        check_keys(content)
        super().__init__(io.BytesIO(content))

    def _read(self, name: str) -> bytes:
        member = self.archive.getinfo(f"{self.top}/{name}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is packed")
        return self.archive.read(member)

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return _plain
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ValueError(f"it names {module}.{name}, which no tensor needs")

    def persistent_load(self, key: tuple) -> Tensor:
        kind, dtype, name, _, count = key
        content = self._read(f"data/{name}")
        if kind != "storage" or len(content) != count * dtype.itemsize:
            raise ValueError(f"tensor data {name} are not the {count} numbers expected")
        return torch.frombuffer(bytearray(content), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, shape: tuple, stride: tuple, *_: Any) -> Tensor:
    if math.prod(shape) > len(storage):
        raise ValueError(f"a tensor {tuple(shape)} of {len(storage)} numbers")
    return storage.as_strided(shape, stride, offset).clone()


def _plain(value: Any, *_: Any) -> Any:
    """A typed list or dict as it is."""
    return value


def _collect(module: dict[str, Any], prefix: str, found: dict[str, Tensor]) -> None:
    for name, value in module.items():
        if isinstance(value, Tensor):
            found[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", found)
