"""A CLIP of somebody else, from a folder or the Hub: its config, if it can't lead to code, and its weight file.

open_clip takes from such a config which tokenizer and which towers of other libraries to load, with which arguments,
and these may run Python that lies beside it. So the config is read here, once, and only one of open_clip's own towers
with the tokenizer that comes with it gets through.
"""

import json
from pathlib import Path
from typing import Any

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
MOST_CONFIG = 1 << 20  # bytes; those of open_clip have 1 kB
BLOCK = {"layers", "width", "mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type", "output_tokens",
         "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
         "scale_fc"}  # fmt: skip
ALLOWED = {
    "model_cfg": {"embed_dim", "text_cfg", "vision_cfg", "quick_gelu", "custom_text", "init_logit_scale",
                  "init_logit_bias", "nonscalar_logit_scale"},
    "text_cfg": BLOCK | {"context_length", "vocab_size", "heads", "embed_cls", "pad_id", "eos_id", "no_causal_mask",
                         "proj_type", "proj_bias"},
    "vision_cfg": BLOCK | {"image_size", "patch_size", "head_width", "patch_dropout", "attentional_pool",
                           "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre", "pos_embed_type"},
}  # fmt: skip
SUFFIXES = (".safetensors", ".bin", ".pth")
PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
             "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth",
             "model.pth")  # fmt: skip
ON_HUB = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def is_foreign(name: str) -> bool:
    """Whether a model name is that of a folder or a repository, local-dir:/path or hf-hub:owner/name."""
    return name.startswith((LOCAL, HUB))


def read_foreign(name: str, fetch: bool = True) -> tuple[dict[str, Any], Path | None]:
    """Read the config of a folder or repository and find its weight file; the files are those open_clip takes.

    Args:
        name: as of `is_foreign`.
        fetch: find the weight file; False: None in its place.

    Returns:
        The config's model_cfg, of nothing but numbers, texts and switches of open_clip's own CLIP; the weight file.

    Raises:
        ValueError: no such files; a config that is damaged, or has what could load code or another repository.
    """
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        return read_config(folder / CONFIG), _find_weights(folder) if fetch else None
    repository = name.removeprefix(HUB)
    path = _download(repository, CONFIG)
    return read_config(path), _download(repository, *ON_HUB, revision=path.parent.name) if fetch else None


def read_config(path: Path) -> dict[str, Any]:
    """Read the model_cfg of an open_clip_config.json; errors as of `read_foreign`."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_CONFIG + 1)
        if len(content) > MOST_CONFIG:
            raise ValueError(f"more than the {MOST_CONFIG} bytes it may have")
        whole = json.loads(content)
        config: Any = whole.get("model_cfg") if isinstance(whole, dict) else None
        _check("model_cfg", config)
        for part in ("text_cfg", "vision_cfg"):
            _check(part, config.get(part))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"expected {path} to describe a CLIP of open_clip's own towers and tokenizer, got {str(error)[:400]}. Set "
            "clip_model to a name of open_clip's, such as ViT-B-32, and clip_pretrained to one of its tags or the path "
            "of a weight file"
        ) from error
    return config


def _check(part: str, config: Any) -> None:
    """Raise ValueError for anything in a part of a config that is not allowed, or no plain value."""
    if not isinstance(config, dict):
        raise ValueError(f"no object {part}")
    if others := sorted(config.keys() - ALLOWED[part]):
        raise ValueError(
            f"{', '.join(map(repr, others[:4]))} in {part}, where only what can't load code or another repository is "
            "read"
        )
    for key, value in config.items():
        numbers = isinstance(value, list) and all(type(entry) is int for entry in value)
        if not (numbers or key in ALLOWED or value is None or isinstance(value, bool | int | float | str)):
            raise ValueError(f"{key} {str(value)[:60]} in {part}, where a number, a text or true or false is read")


def _find_weights(folder: Path) -> Path:
    """The weight file of a folder."""
    found = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    if not found:
        raise ValueError(f"expected a weight file ({', '.join(SUFFIXES)}) beside {folder / CONFIG}, got none")
    ranks = {name: rank for rank, name in enumerate(PREFERRED)}
    return min(found, key=lambda path: (ranks.get(path.name, len(ranks)), SUFFIXES.index(path.suffix), path.name))


def _download(repository: str, *names: str, revision: str | None = None) -> Path:
    """Fetch the first of some files that a repository on the Hub has into the Hub's cache."""
    from huggingface_hub import hf_hub_download

    problems = []
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # of the network and the cache there are many kinds
            problems.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    raise ValueError(
        f"{' or '.join(names)} of {repository} could not be fetched from the Hub ({'; '.join(problems)}): set "
        'clip_model to a folder (local-dir:/path) or a name of open_clip\'s, or use text="minilm", which needs no Hub'
    )
