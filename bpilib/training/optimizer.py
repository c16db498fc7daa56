"""The optimizer of a run: SGD with Nesterov momentum, as published."""

from collections.abc import Iterable

import torch
from torch import nn

from bpilib.config import Config


def build_sgd(parameters: Iterable[nn.Parameter], config: Config, device: torch.device) -> torch.optim.SGD:
    """SGD with a run's settings; on a GPU in one pass over weights, gradients and momenta (PyTorch's fused form).

    The form follows the device also where the optimizer's state comes from a checkpoint of another one.

    The fused form's momenta are 0 from the start, which gives the same first step. PyTorch would make them in the first
    call, without numbers in them, and take them for momenta in the second: where fp16's first step overflows and is
    left out, as is usual, all weights would be lost.
    """
    fused = True if device.type == "cuda" else None
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        trained,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )

    if fused and config.momentum > 0:
        for parameter in trained:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def keep_form(loaded: torch.optim.Optimizer) -> None:
        for group in loaded.param_groups:
            group["fused"] = fused

    optimizer.register_load_state_dict_post_hook(keep_form)
    return optimizer
