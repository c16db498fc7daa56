"""Keys that could collide are refused before a dict is made of them; PyTorch's own files pass."""

import collections
import io
import pickle
import zipfile

import pytest
import torch
from torch import nn

from bpilib.reference import read_weights
from bpilib.system import checkpoint
from bpilib.system.pickle_keys import MOST_KEYS, check_keys
from bpilib.text.torchscript import read_tensors

PRIME = (1 << 61) - 1  # whole numbers are hashed modulo this


def many(make, count=MOST_KEYS + 1):
    return {make(i): 0 for i in range(1, count + 1)}


def data_pkl(value):
    """The pickle within PyTorch's file."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@pytest.mark.parametrize("protocol", range(4))
def test_what_a_checkpoint_holds_passes(protocol):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    plain = {"settings": {"lr": 0.1, "seed": 1 << 40, "tags": ["a", "b"], "none": None}, "steps": many(int, 5000)}
    content = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), **plain}
    check_keys(data_pkl(content))
    check_keys(pickle.dumps(plain | {"big": [PRIME, -PRIME]}, protocol))  # as values they are harmless


@pytest.mark.parametrize("protocol", range(4))
@pytest.mark.parametrize(
    "make",
    [lambda i: i * PRIME, lambda i: -i * PRIME, lambda i: (i, i), lambda i: i + 0.5, lambda i: (("a", i),)],
    ids=["multiples", "negative", "tuples", "fractions", "nested"],
)
def test_many_keys_that_could_collide_are_refused(make, protocol):
    with pytest.raises(ValueError, match=f"more than {MOST_KEYS} keys"):
        check_keys(pickle.dumps(many(make), protocol))
    check_keys(pickle.dumps(many(make, 20), protocol))
    spread = {str(n): {make(MOST_KEYS * n + i): 0 for i in range(50)} for n in range(6)}
    with pytest.raises(ValueError, match=f"more than {MOST_KEYS} keys"):
        check_keys(pickle.dumps(spread, protocol))


class Called:
    def __reduce__(self):
        return collections.OrderedDict, ([["a", 1]],)


@pytest.mark.parametrize("made", [{1, 2}, collections.Counter("ab"), frozenset("a"), Called()])
def test_calls_in_which_keys_could_hide_are_refused(made):
    with pytest.raises(ValueError, match=r"a call of .* with what it is to hold"):
        check_keys(pickle.dumps({"a": made}, 2))
    check_keys(pickle.dumps(collections.OrderedDict(a=1), 2))  # made empty, and filled key by key


@pytest.mark.parametrize("content", [b"", b"hello", b"}", b"u.", b"\x80\x02}q\x00(X\x01\x00\x00\x00a", b"h\x05."])
def test_what_is_no_pickle_is_said_so(content):
    with pytest.raises(pickle.UnpicklingError):
        check_keys(content)


def test_other_opcodes_are_refused():
    with pytest.raises(ValueError, match="STACK_GLOBAL, which PyTorch does not write"):
        check_keys(pickle.dumps(collections.OrderedDict, 4))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_with_such_keys_are_refused_at_once(tmp_path, legacy, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    path = tmp_path / "a.pt"
    torch.save(many(lambda i: i * PRIME, 2000), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"a\.pt: more than 256 keys"):
        read_weights(path)
    with pytest.raises(ValueError, match=r"a\.pt can't be read"):
        checkpoint.load(path)
    with pytest.raises(ValueError, match=r"a\.pt is no TorchScript archive"):
        read_tensors(path)
