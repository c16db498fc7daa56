"""Devices, precisions, seeds, and the memory of a process."""

import mmap
import resource
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bpilib.config import resolve
from bpilib.gcn import Block
from bpilib.model import build_model
from bpilib.skeleton import UCLA
from bpilib.system import device
from bpilib.system.device import (
    DelayedValues,
    GradScaler,
    autocast,
    compile_network,
    format_usage,
    full_float32,
    keep_malloc_memory,
    out_of_memory,
    pick_device,
    product_precision,
    seed_everything,
    usage,
    use_device,
)


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


@pytest.mark.parametrize(
    "amx, avx512, vendor, expected",
    [
        (True, True, "GenuineIntel", "bf16"),
        (False, True, "GenuineIntel", "fp32"),  # slower in bf16, as measured
        (False, True, "AuthenticAMD", "bf16"),
        (False, False, "AuthenticAMD", "fp32"),
    ],
)
def test_auto_takes_bf16_on_a_cpu_only_where_it_is_faster(monkeypatch, amx, avx512, vendor, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(device, "read_cpu_fact", {"vendor_id": vendor}.get)
    assert autocast("auto", torch.device("cpu"))[1] == expected


def test_what_is_used_is_measured():
    before = usage(torch.device("cpu"))
    assert list(before) == ["memory_gb"]
    held = np.frombuffer(mmap.mmap(-1, 300_000_000), np.uint8)  # new pages, none that the heap had kept
    held[:] = 1
    assert usage(torch.device("cpu"))["memory_gb"] - before["memory_gb"] == pytest.approx(0.3, abs=0.1)
    assert format_usage({"memory_gb": 1.24}) == "memory 1.2 GB" and held.all()


@pytest.mark.parametrize("says", [True, False])
def test_a_gpu_says_its_memory_and_how_busy_it_is_where_it_can(monkeypatch, says):
    def utilization(device):
        assert device == torch.device("cuda:1")
        if not says:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return 87

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (17.9e9, 24e9))
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    used = usage(torch.device("cuda:1"))
    assert used.pop("memory_gb") > 0
    busy = {"gpu_busy_percent": 87.0} if says else {}
    assert used == pytest.approx({"gpu_memory_gb": 6.1, "gpu_memory_whole_gb": 24.0} | busy)
    words = "memory 1.0 GB, GPU 87 %, 6.1 of 24.0 GB" if says else "memory 1.0 GB, GPU 6.1 of 24.0 GB"
    assert format_usage({"memory_gb": 1.0} | used) == words


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of Linux")
def test_freed_memory_is_used_again():
    keep_malloc_memory()

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
    keep_malloc_memory()


def fp32_settings():
    return [setting.read() for setting in device._fp32_settings()]


@pytest.mark.parametrize("users", [("tf32", "ieee"), ("ieee", "tf32"), ("tf32", "tf32")])
def test_products_are_rounded_where_asked_for_alone_and_a_users_settings_come_back(users):
    matmul, *cudnn = device._fp32_settings()
    before = fp32_settings()
    try:
        matmul.write(users[0])
        for setting in cudnn:
            setting.write(users[1])
        own = fp32_settings()
        assert autocast("tf32", torch.device("cpu"))[1] == "tf32" and fp32_settings() == own
        with product_precision("tf32"):
            inside = fp32_settings()
            with full_float32():
                assert fp32_settings() not in (inside, own)
            assert fp32_settings() == inside
        assert fp32_settings() == own
    finally:
        for setting, value in zip((matmul, *cudnn), before):
            setting.write(value)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this PyTorch has the older setting alone")
def test_a_general_setting_of_the_user_stays_the_general_one():
    before = torch.backends.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        with full_float32():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.backends.fp32_precision = "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.backends.fp32_precision = "tf32"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = before


def test_an_older_pytorch_has_the_older_setting():
    older = SimpleNamespace(allow_tf32=True)
    setting = device._Fp32Setting(older)
    there = setting.read()
    setting.write("ieee")
    assert older.allow_tf32 is False
    setting.write("tf32")
    assert older.allow_tf32 is True
    setting.write(there)
    assert older.allow_tf32 is True


def test_fp16_goes_on_with_a_run_begun_in_another_precision():
    off, on = GradScaler("cpu", enabled=False), GradScaler("cpu", enabled=True)
    start = on.state_dict()
    on.load_state_dict(off.state_dict())
    assert on.state_dict() == start
    on.load_state_dict(start | {"scale": 8.0})
    assert on.state_dict()["scale"] == 8.0


def test_a_second_gpu_becomes_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert use_device("cuda:1") == torch.device("cuda:1") and current == [torch.device("cuda:1")]
    use_device("cpu")
    assert len(current) == 1


def test_delayed_values_are_those_of_their_time():
    values = torch.tensor([1.0, 2.5])
    assert DelayedValues(values).read() == [1.0, 2.5]


def test_where_nothing_can_be_compiled_the_network_stays_as_it_is(monkeypatch):
    def broken(module, **options):
        raise RuntimeError("no compiler\nand more")

    network = torch.nn.Linear(2, 2)
    assert compile_network(network, "none") is network
    with pytest.raises(ValueError, match="parameter compile: expected none, default, graph, got 'fast'"):
        compile_network(network, "fast")
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"torch.compile does not work here, going on without \(no compiler\)"):
        assert compile_network(network) is network


@pytest.mark.slow
def test_a_compiled_block_gives_the_same():
    torch.manual_seed(0)
    block = Block(8, 8, torch.from_numpy(UCLA.adjacency())).train()
    x = torch.randn(4, 8, 20, 12)
    ours = block(x)
    assert torch.allclose(compile_network(block)(x), ours, rtol=1e-4, atol=1e-5)


GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.14 GiB of which 1.12 GiB is free."
    "\nSee documentation"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError(GPU), r"\(CUDA out of memory. Tried to allocate 2.00 GiB. .* 1.12 GiB is free.\)"),
        (RuntimeError("CUDA error: out of memory"), r"\(CUDA error: out of memory\)"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), r"\(.* CUBLAS_STATUS_ALLOC_FAILED when\)"),
        (RuntimeError("could not create a primitive"), r"\(could not create a primitive\)"),
        (MemoryError("std::bad_alloc"), r"\(std::bad_alloc\)"),
        (MemoryError(), r"\(no memory\)"),
    ],
)
def test_out_of_memory_says_how_much_and_what_to_change(error, said):
    with pytest.raises(MemoryError, match=f"out of memory in a test {said}: use less") as found:  # noqa: SIM117
        with out_of_memory("a test", "use less"):
            raise error
    assert found.value.__cause__ is error and "documentation" not in str(found.value)


def test_what_the_cpu_could_not_give_is_said_in_megabytes():
    with pytest.raises(MemoryError, match="allocate 4,000,000,000 MB"):  # noqa: SIM117
        with out_of_memory("a test", "use less"):
            torch.empty(10**15)


def test_out_of_memory_is_said_once_and_other_errors_pass():
    with pytest.raises(MemoryError, match=r"^out of memory in evaluation \(no memory\): lower it$"):  # noqa: SIM117
        with out_of_memory("training", "change it"), out_of_memory("evaluation", "lower it"):
            raise MemoryError
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2 differ$"), out_of_memory("training", "change it"):
        raise RuntimeError("mat1 and mat2 differ")


def test_the_tensors_of_a_failed_step_are_set_free():
    kept = []

    def step():
        tensor = torch.ones(3)
        kept.append(weakref.ref(tensor))
        raise MemoryError

    with pytest.raises(MemoryError) as error, out_of_memory("a test", "use less"):
        step()
    assert error.value.__cause__.__traceback__ and kept[0]() is None
