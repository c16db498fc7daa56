"""What float32 may change in a network's outputs, found from the network itself, so that it holds on every processor.

`bpilib.rounding` says how; here it is done in float64, where nothing else moves. A wrong formula is off by far more
than rounding is, and in float64 it stands out by ten more digits.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.rounding import ROUNDINGS, shake


@contextmanager
def in_float64() -> Iterator[None]:
    """What networks and losses turn into float32 on their way becomes float64."""
    original = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = original


@torch.no_grad()
def exact(network: nn.Module, run: Callable[[nn.Module], dict[str, Tensor]]) -> tuple[dict, dict]:
    """What a network gives in float64, in eval mode, and the norm of what float32 may change in it.

    Args:
        network: left as it is.
        run: calls a network on float64 input; outputs by name.

    Returns:
        The outputs, and by name the most that ||found - output|| may be for a float32 result.
    """
    network = copy.deepcopy(network).eval().double()
    with in_float64():
        outputs = run(network)
        others = [run(shake(network, seed)) for seed in range(2)]
    allowed = {
        name: ROUNDINGS * max(torch.linalg.vector_norm(other[name] - value).item() for other in others)
        for name, value in outputs.items()
    }
    return outputs, allowed


def fields(out) -> dict[str, Tensor]:
    """The outputs of a network that depend on its input, by name."""
    found = {name: getattr(out, name) for name in ("logits", "global_embedding", "part_embeddings")}
    found |= {f"attention of {part}": value for part, value in (out.attention or {}).items()}
    return {name: value for name, value in found.items() if value is not None}


def assert_float32_of(network: nn.Module, x: Tensor, found: dict[str, Tensor | np.ndarray]) -> None:
    """`found` is what the network gives of x (N, 3, T, V, M) in eval mode, but for rounding in float32."""
    attention = any(name.startswith("attention") for name in found)
    options = {"return_attention": True} if attention else {}
    outputs, allowed = exact(network, lambda network: fields(network(x.double(), **options)))
    for name, value in found.items():
        value = torch.as_tensor(value)
        assert value.dtype == torch.float32 and value.shape == outputs[name].shape, name
        assert_near(value, outputs[name], allowed[name], name)


def assert_probabilities_of(network: nn.Module, x: Tensor, found: np.ndarray) -> None:
    """`found` (N, K) is the softmax of the logits of x (N, 3, T, V, M), but for rounding in float32.

    A probability is moved by at most half of what each logit is moved by.
    """
    outputs, allowed = exact(network, lambda network: {"logits": network(x.double()).logits})
    expected = outputs["logits"].softmax(-1)
    apart = (torch.from_numpy(np.array(found)).double() - expected).abs().max().item()
    assert apart <= allowed["logits"] / 2 + 4 * torch.finfo(torch.float32).eps, apart


def assert_near(found: Tensor, expected: Tensor, allowed: float, name: str) -> None:
    """||found - expected|| is at most `allowed`."""
    difference = torch.linalg.vector_norm(found.double() - expected).item()
    assert difference <= allowed, f"{name}: off by {difference:.3g}, {allowed:.3g} may be rounding"
