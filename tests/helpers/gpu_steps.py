"""Training steps on a pretended GPU, for a process started with `pretended_gpu.backward_environment`."""

import collections
import sys
from pathlib import Path

import numpy as np
import pretended_gpu as gpu
import torch
from making import tiny_config
from shares import know_tiny_clip

from bpilib.training.trainer import Trainer


def steps(config, count: int = 3) -> tuple[dict, dict, dict]:
    """Training steps.

    Returns:
        On the host: "gradients" and "changes" (of the weights) of the first step, name → tensor; weights after all of
        them, with the losses; what the last step asked of the GPU.
    """
    trainer = Trainer(config)
    trainer.run.model.train()
    parameters = dict(trainer.run.model.named_parameters())
    before = {name: p.detach().cpu().double() for name, p in parameters.items()}
    for number in range(count):
        gpu.LEDGER.clear()
        trainer._step(np.arange(number * config.batch_size, (number + 1) * config.batch_size))
        if number == 0:
            gradients = {name: p.grad.cpu().double() for name, p in parameters.items() if p.grad is not None}
            changes = {name: p.detach().cpu().double() - before[name] for name, p in parameters.items()}
    found = {"waits": collections.Counter(gpu.LEDGER.waits), "kernels": gpu.LEDGER.kernels.total()}
    trainer._read_losses()
    weights = {name: tensor.cpu() for name, tensor in trainer.run.model.state_dict().items()}
    losses = trainer.progress.sums
    trainer.close()
    return {"gradients": gradients, "changes": changes}, weights | {"losses": torch.tensor(losses)}, found


def assert_near(found: dict, expected: dict, what: str) -> None:
    """Each tensor within float32's noise: 1e-4 of its norm, or 1e-5 of that of all, some 50 times what is seen.

    Biases before a BatchNorm have gradients of noise alone. Later steps are not compared: training multiplies noise,
    tenfold a step here.
    """
    whole = torch.cat([tensor.flatten() for tensor in expected.values()]).norm()
    assert whole > 0 and found.keys() == expected.keys(), what
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() < 1e-4 * tensor.norm() + 1e-5 * whole, f"{what}: {name}"


def main(place: str, folder: str) -> None:
    """All networks in all precisions: at most one wait in a step; float32 as on the CPU."""
    gpu.allow_backward()
    know_tiny_clip()
    for model in ("bpi", "gap", "ctrgcn"):
        for text in ("minilm", "clip") if model == "bpi" else ("minilm",):
            given = {"model": model, "text": text, "clip_model": "tiny", "clip_pretrained": None}
            config = tiny_config(Path(place), Path(folder), **{n: v for n, v in given.items() if v is not None})
            config = config.changed(clip_pretrained="", batch_size=4)
            expected, _, _ = steps(config.changed(tag="cpu"))
            for precision in ("fp32", "bf16", "fp16"):
                with gpu.pretended_gpu():
                    there = config.changed(device="cuda", precision=precision, tag=f"gpu_{precision}")
                    first, found, asked = steps(there)
                waits = asked["waits"]
                print(f"{model} {text} {precision}: {asked['kernels']} kernels, waits {dict(waits)}", flush=True)
                if waits.total() > 1:
                    sys.exit(f"{model} {text} {precision}: more than one wait in a step: {dict(waits)}")
                if not all(torch.isfinite(tensor).all() for tensor in found.values()):
                    sys.exit(f"{model} {text} {precision}: not finite")
                if precision == "fp32":
                    for what, tensors in expected.items():
                        assert_near(first[what], tensors, f"{model} {text}, {what} of the first step")
