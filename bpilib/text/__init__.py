"""Class texts to embeddings: `build_text` makes the encoder of a run."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from bpilib.errors import did_you_mean
from bpilib.text.clip import ClipText
from bpilib.text.encoder import TextEncoder
from bpilib.text.minilm import SUFFIX, MiniLMText
from bpilib.text.prompts import Prompts

ENCODERS = ("clip", "minilm")


def build_text(
    encoder: str,
    model: str,
    prompts: Prompts,
    *,
    minilm_path: str | Path | None = None,
    clip_model: str | tuple[nn.Module, Callable] = "ViT-B-32",
    clip_pretrained: str | None = "openai",
    trained: bool = True,
    fetch: bool = True,
) -> TextEncoder:
    """The text encoder of a run.

    Args:
        encoder: "clip" or "minilm".
        model, prompts, clip_model, clip_pretrained, trained, fetch: see `ClipText`.
        minilm_path: embeddings file; None: the one beside the prompts file.

    Raises:
        ValueError: unknown encoder or model, or what the encoder raises.
    """
    if encoder not in ENCODERS:
        hint = did_you_mean(encoder, ENCODERS)
        raise ValueError(f"expected text to be {' or '.join(ENCODERS)}, got {encoder!r}{hint}")
    if encoder == "clip":
        return ClipText(model, prompts, clip_model, clip_pretrained, trained, fetch)
    if not minilm_path:
        if prompts.source is None:
            raise ValueError("minilm: expected minilm_path or prompts read from a YAML file, got neither; or use clip")
        minilm_path = prompts.source.with_suffix(SUFFIX)
    return MiniLMText(model, prompts, minilm_path)
