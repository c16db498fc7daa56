"""The networks, evaluation, attention, single clips and export on a pretended GPU (tests/helpers/pretended_gpu.py)."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretended_gpu as gpu
import pytest
import torch
from making import tiny_config
from noise import assert_float32_of, assert_probabilities_of, exact, fields
from shares import know_tiny_clip
from torch import nn

from bpilib.analysis.outputs import collect_outputs
from bpilib.classify import Classifier
from bpilib.evaluate import score
from bpilib.export import export_run
from bpilib.model import build_model
from bpilib.runs import build
from bpilib.skeleton import NTU, UCLA
from bpilib.system.device import autocast, pick_device
from bpilib.text import build_text
from bpilib.text.prompts import load_prompts

pytestmark = pytest.mark.skipif(bool(gpu.missing_parts()), reason=f"PyTorch lacks {gpu.missing_parts()}")
ROUNDINGS = 100  # one after the other, that a number passes on its way through ten blocks
BOUND = {"fp32": ROUNDINGS * 2**-24, "bf16": ROUNDINGS * 2**-8, "fp16": ROUNDINGS * 2**-11}  # of the norm


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def lively(name, skeleton, x):
    """A network whose topology matters from the start, with conv3's bias and the statistics of x."""
    torch.manual_seed(0)
    model = build_model(name, skeleton, 5, embed_dim=16, width=8).train()
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.spatial.alpha.fill_(0.5)
            block.spatial.bn.weight.fill_(1.0)
            block.spatial.transform.bias.normal_()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        model(x)
    return model.eval()


@pytest.mark.parametrize(("name", "skeleton"), [("bpi", UCLA), ("bpi", NTU), ("gap", UCLA), ("ctrgcn", UCLA)])
def test_forward_in_every_precision_without_waiting(name, skeleton):
    x = torch.randn(2, 3, 16, skeleton.num_joints, skeleton.persons)
    model = lively(name, skeleton, x)
    expected, rounding = exact(model, lambda network: fields(network(x.double())))
    bounds = {name: BOUND | {"fp32": rounding[name] / value.norm()} for name, value in expected.items()}
    with gpu.pretended_gpu() as ledger:
        mine = copy.deepcopy(model).to("cuda")
        there = x.to("cuda")
        for network in (mine, mine.fuse()):
            for precision in BOUND:
                ledger.clear()
                with torch.no_grad(), autocast(precision, gpu.CUDA)[0]:
                    out = network(there)
                assert not ledger.waits, (precision, ledger.waits)
                assert out.logits.device == gpu.CUDA and ledger.kernels["bmm"] >= 30  # conv3 by products
                for what in {"logits", "part_embeddings"} & expected.keys():
                    apart = distance(getattr(out, what).float().cpu(), expected[what])
                    assert apart <= bounds[what][precision], (precision, what)


@pytest.mark.parametrize("name", ["bpi", "gap", "ctrgcn"])
def test_what_the_notebooks_do_with_a_trained_run(place, tmp_path, name):
    config = tiny_config(place, tmp_path, model=name)
    run = build(config)
    clip = run.store.sample(int(run.indices("test")[0]))
    x = run.feeder("test").batch(np.arange(len(run.indices("test"))))[0]
    with gpu.pretended_gpu():
        there = build(config.changed(device="cuda"))
        there.model.load_state_dict(run.model.state_dict())
        found = [score(there).logits]
        found += [collect_outputs(there).logits] if name != "ctrgcn" else []
        shares = Classifier.of(there).classify(clip)
        state = torch.load(export_run(there, "published")["published"], weights_only=True)
    for logits in found:
        assert_float32_of(run.model, x, {"logits": logits})
    assert_probabilities_of(run.model, x[:1], shares[None])
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    assert {type(tensor) for tensor in state.values()} == {torch.Tensor}


@pytest.mark.parametrize("trained", [True, False])
def test_a_text_tower_in_every_precision(place, trained):
    know_tiny_clip()
    torch.manual_seed(0)
    encoder = build_text("clip", "bpi", load_prompts(place / "prompts.yaml"), clip_model="tiny", clip_pretrained=None,
                         trained=trained)  # fmt: skip
    labels, draws = np.arange(4) % 3, np.linspace(0, 0.9, 4)
    prepared = encoder.prepare(labels, draws)
    with torch.no_grad():
        expected = encoder.encode(*prepared)
    if not trained:
        encoder._table = None
    with gpu.pretended_gpu() as ledger:
        there = copy.deepcopy(encoder).to("cuda")
        sent = [tensor.to("cuda") for tensor in prepared]
        for precision, bound in BOUND.items():
            with torch.no_grad(), autocast(precision, gpu.CUDA)[0]:
                there.encode(*sent)  # a frozen tower encodes all its texts at the first use
                ledger.clear()
                out = there.encode(*sent)
            assert not ledger.waits, (precision, ledger.waits)
            assert distance(out.float().cpu(), expected) < bound


def test_emulated_bf16_is_not_taken():
    with gpu.pretended_gpu((7, 5)):
        assert pick_device("auto").type == "cuda" and autocast("auto", gpu.CUDA)[1] == "fp16"
    with gpu.pretended_gpu((8, 0)):
        assert autocast("auto", gpu.CUDA)[1] == "bf16"


class LeftBehind(nn.Module):
    """A mistake: its constant is no buffer, so it stays on the host."""

    def __init__(self):
        super().__init__()
        self.constant = torch.ones(3)

    def forward(self, x):
        return x + self.constant


WAITING = {
    "item": lambda x: x * x.sum().item(),
    "bool": lambda x: x if x.sum() > 0 else -x,
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "boolean index": lambda x: x[x > 0],
    "list index": lambda x: x[[0, 2]],
    "copy to the host": lambda x: x.cpu(),
    "copy to the GPU": lambda x: x + torch.ones(3).to("cuda"),
}


def test_a_tensor_left_on_the_host_is_found():
    with gpu.pretended_gpu():
        module, x = LeftBehind().to("cuda"), torch.ones(3).to("cuda")
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            module(x)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            x.numpy()


@pytest.mark.parametrize("mistake", WAITING)
def test_a_wait_for_the_gpu_is_found_with_its_line(mistake):
    with gpu.pretended_gpu() as ledger:
        x = torch.arange(3.0).to("cuda")
        ledger.clear()
        WAITING[mistake](x)
        assert ledger.waits and all(line.startswith("test_pretended_gpu.py:") for _, line in ledger.waits)
        ledger.clear()
        assert (x * 2 + x.sum()).device == gpu.CUDA
        x.to("cpu", non_blocking=True)
        assert not ledger.waits


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_backward_and_whole_steps(place, tmp_path):
    """In a process of its own, in which autograd's engine believes that there is a GPU."""
    environment = gpu.backward_environment(tmp_path)
    paths = [str(Path(__file__).parent / "helpers"), str(Path(__file__).parent.parent)]
    start = f"import sys; sys.path[:0] = {paths!r}; import gpu_steps; "
    script = start + f"gpu_steps.main({str(place)!r}, {str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
