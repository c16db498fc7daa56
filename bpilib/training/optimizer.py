"""The optimizer of a run: SGD with Nesterov momentum, as published."""

from collections.abc import Iterable

import torch
from torch import nn

from bpilib.config import Config


def build_sgd(parameters: Iterable[nn.Parameter], config: Config, device: torch.device) -> torch.optim.SGD:
    """SGD with a run's settings; on a GPU in one pass over weights, gradients and momenta (PyTorch's fused form).

    The form follows the device also where the optimizer's state comes from a checkpoint of another one.
    """
    fused = True if device.type == "cuda" else None
    optimizer = torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )

    def keep_form(loaded: torch.optim.Optimizer) -> None:
        for group in loaded.param_groups:
            group["fused"] = fused

    optimizer.register_load_state_dict_post_hook(keep_form)
    return optimizer
