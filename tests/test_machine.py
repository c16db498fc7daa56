"""Devices, precisions, seeds, and the memory of a process."""

import resource
import sys

import pytest
import torch

from bpilib.config import resolve
from bpilib.machine import autocast, keep_freed_memory, pick_device, seed_everything
from bpilib.model import build_model
from bpilib.skeleton import UCLA


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="parameter device: 'gpu' is no device"):
        pick_device("gpu")


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu" and resolve().text == "minilm"
    with pytest.raises(ValueError, match="sees no GPU here"):
        pick_device("cuda")


def test_with_a_gpu_the_published_text_encoder_is_the_default(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda" and resolve().text == "clip"
    assert resolve(device="cpu").text == "minilm" and resolve(text="minilm").text == "minilm"


def test_a_seed_decides_initial_weights():
    def weights(seed):
        seed_everything(seed)
        return build_model("bpi", UCLA, 10, width=8).state_dict()

    a, b, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["classifier.weight"], other["classifier.weight"])


def test_precisions():
    cpu = torch.device("cpu")
    for wanted, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        context, name = autocast(wanted, cpu)
        with context:
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype and name == wanted
    assert autocast("auto", cpu)[1] in ("fp32", "bf16")
    with pytest.raises(ValueError, match="precision: fp16 is for GPUs"):
        autocast("fp16", cpu)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of Linux")
def test_freed_memory_is_used_again():
    keep_freed_memory()

    def page_faults(megabytes):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(megabytes << 18)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    sizes = [64, 17, 40, 8, 33] * 10
    for megabytes in sizes:
        page_faults(megabytes)
    assert sum(map(page_faults, sizes)) < 0.1 * sum(sizes) * 256  # pages of 4 kB


def test_elsewhere_than_on_linux_nothing_happens(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    keep_freed_memory()
