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


def steps(config, count: int = 3) -> tuple[dict, gpu.Ledger]:
    """Weights on the host after `count` training steps, and what the last step asked of the GPU."""
    trainer = Trainer(config)
    trainer.run.model.train()
    for number in range(count):
        gpu.LEDGER.clear()
        trainer._step(np.arange(number * config.batch_size, (number + 1) * config.batch_size))
        trainer.progress.batch += 1
    found = {"waits": collections.Counter(gpu.LEDGER.waits), "kernels": gpu.LEDGER.kernels.total()}
    trainer._read_losses()
    weights = {name: tensor.cpu() for name, tensor in trainer.run.model.state_dict().items()}
    losses = trainer.progress.sums
    trainer.close()
    return weights | {"losses": torch.tensor(losses)}, found


def main(place: str, folder: str) -> None:
    """All networks in all precisions: at most one wait in a step; float32 as on the CPU."""
    gpu.allow_backward()
    know_tiny_clip()
    for model in ("bpi", "gap", "ctrgcn"):
        for text in ("minilm", "clip") if model == "bpi" else ("minilm",):
            given = {"model": model, "text": text, "clip_model": "tiny", "clip_pretrained": None}
            config = tiny_config(Path(place), Path(folder), **{n: v for n, v in given.items() if v is not None})
            config = config.changed(clip_pretrained="", batch_size=4)
            expected, _ = steps(config.changed(tag="cpu"))
            for precision in ("fp32", "bf16", "fp16"):
                with gpu.pretended_gpu():
                    found, asked = steps(config.changed(device="cuda", precision=precision, tag=f"gpu_{precision}"))
                waits = asked["waits"]
                print(f"{model} {text} {precision}: {asked['kernels']} kernels, waits {dict(waits)}", flush=True)
                if waits.total() > 1:
                    sys.exit(f"{model} {text} {precision}: more than one wait in a step: {dict(waits)}")
                if not all(torch.isfinite(tensor).all() for tensor in found.values()):
                    sys.exit(f"{model} {text} {precision}: not finite")
                if precision == "fp32":
                    for name, tensor in expected.items():
                        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=f"{model} {name}")
