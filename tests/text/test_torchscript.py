"""TorchScript archives: tensors come out as PyTorch reads them, nothing in them is run."""

import pickle
import zipfile

import pytest
import torch
from bomb import Bomb

from bpilib.text.torchscript import is_torchscript, read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3).half())
        self.register_buffer("mask", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("count", torch.tensor(7))
        self.names, self.number = ["a", "b"], 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.fixture
def archive(tmp_path):
    torch.jit.save(torch.jit.script(Tower()), tmp_path / "tower.pt")
    return tmp_path / "tower.pt"


def rewritten(path, method=zipfile.ZIP_STORED, **changes):
    """The archive with other members, by the last part of their name."""
    with zipfile.ZipFile(path) as old:
        members = {name: changes.get(name.rpartition("/")[2].replace(".", "_"), old.read(name))
                   for name in old.namelist()}  # fmt: skip
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return path


def test_the_tensors_are_those_that_pytorch_reads(archive):
    assert is_torchscript(archive)
    expected = torch.jit.load(archive).state_dict()
    found = read_tensors(archive)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_other_files_are_none(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("text")
    assert not is_torchscript(tmp_path / "plain.pt") and not is_torchscript(tmp_path / "text.pt")


def test_a_hostile_pickle_is_refused_and_not_executed(archive, tmp_path):
    content = pickle.dumps(Bomb(tmp_path / "executed"), 2)
    with pytest.raises(ValueError, match=r"it names (posix|nt)\.mkdir, which no tensor needs"):
        read_tensors(rewritten(archive, data_pkl=content))
    assert not (tmp_path / "executed").exists()
    pickle.loads(content)
    assert (tmp_path / "executed").exists()  # it was a real one


def test_hostile_code_is_never_compiled(archive):
    """The code member is garbage: PyTorch's reader stumbles over it, ours does not look."""
    with zipfile.ZipFile(archive) as whole:
        code = next(name for name in whole.namelist() if "/code/" in name and name.endswith(".py"))
    rewritten(archive, **{code.rpartition("/")[2].replace(".", "_"): b"import os; os.mkdir('executed')"})
    assert "inner.0.weight" in read_tensors(archive)


@pytest.mark.parametrize("name", [b"0", b"../../etc/passwd"])
def test_data_that_lie_are_refused(archive, name):
    key = (b"\x80\x02(U\x07storagectorch\nFloatStorage\nU" + bytes([len(name)]) + name
           + b"U\x03cpuJ\xff\xff\xff\x7ftQ.")  # fmt: skip
    with pytest.raises(ValueError, match="is no TorchScript archive of tensors"):
        read_tensors(rewritten(archive, data_pkl=key))


def test_packed_members_are_refused(archive):
    with pytest.raises(ValueError, match="pkl is packed"):
        read_tensors(rewritten(archive, zipfile.ZIP_DEFLATED))


def test_a_tensor_beyond_its_data_is_refused(archive):
    with zipfile.ZipFile(archive) as whole:
        content = whole.read(next(name for name in whole.namelist() if name.endswith("/data.pkl")))
    changed = content.replace(b"(K\x04K\x03t", b"(K\x63K\x03t", 1)  # the shape of `mask`
    assert changed != content
    with pytest.raises(ValueError, match="is no TorchScript archive of tensors"):
        read_tensors(rewritten(archive, data_pkl=changed))


class Shared(torch.nn.Module):
    """Its one tensor has eight gigabytes by name, four bytes on the disk."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1).as_strided((1 << 31,), (0,)), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_tensor_whose_numbers_are_stored_once_is_refused(tmp_path):
    torch.jit.script(Shared()).save(str(tmp_path / "model.pt"))
    assert (tmp_path / "model.pt").stat().st_size < 10_000
    with pytest.raises(ValueError, match="of 1 numbers") as error:
        read_tensors(tmp_path / "model.pt")
    assert "2147483648" in str(error.value)
