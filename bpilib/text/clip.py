"""An open_clip text tower, and the packing of several texts into a row. The only file that imports open_clip.

In a causal transformer a token sees its text up to itself and nothing else. So texts that begin alike have the same
values there, and a row that holds several texts gives each of them what it gets alone, provided that every token has
its own text's position, and a mask lets it see the beginning of its own text only.
"""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpilib.errors import did_you_mean
from bpilib.system.checkpoint import check_pickles
from bpilib.system.device import full_float32
from bpilib.text.encoder import TextEncoder
from bpilib.text.foreign import is_foreign, read_foreign
from bpilib.text.prompts import Prompts
from bpilib.text.torchscript import is_torchscript, read_tensors

CHUNK = 64  # texts encoded at once where no gradient is kept


class Pool(NamedTuple):
    """How the token that a tower reads the embedding from is found.

    Attributes:
        kind: "argmax", the highest id, or "eos", the first `eos`.
        eos: id of the end of text.
    """

    kind: str
    eos: int | None


class ClipText(TextEncoder):
    """An open_clip text tower, trained along (as published) or frozen; the image tower is dropped.

    Trained: a batch's unique texts are encoded once and gathered; where that changes nothing (causal attention) each
    ends at its end of text and shares a row with others (`pack`). Frozen: all texts are encoded at the first use;
    the tower is no part of the module then, so there are no parameters and the state dict is empty.
    """

    def __init__(
        self,
        model: str,
        prompts: Prompts,
        clip: str | tuple[nn.Module, Callable] = "ViT-B-32",
        pretrained: str | None = "openai",
        trained: bool = True,
        fetch: bool = True,
    ):
        """Build the tower and tokenize the prompts.

        Args:
            model, prompts: "bpi" or "gap", and the texts of the K classes in label order.
            clip: open_clip model name (QuickGELU is switched on where the tag asks for it; for a local weight file
                trained with it, name a "-quickgelu" model); hf-hub:owner/name or local-dir:/path, with the weights that
                are there (see `read_foreign`); or a built open_clip model, which loses its image tower, and its
                tokenizer.
            pretrained: open_clip tag, or local weight file; OpenAI's own .pt files are read too. None: random weights.
            trained: train the tower along.
            fetch: False: weights of a tag are not fetched, since others will be loaded; they are random then.

        Raises:
            ValueError: unknown model or tag (the nearest is named), missing or unfit file, failed download; a config of
                somebody else's that could load code.
        """
        super().__init__(model, prompts)
        network, tokenizer = _open_clip(clip, pretrained, fetch) if isinstance(clip, str) else clip
        tower = network.text if hasattr(network, "text") else network
        for name in {"visual", "logit_scale", "logit_bias"} & {*dir(tower)}:  # open_clip's CLIP is its own text tower
            delattr(tower, name)
        self.trained = trained
        self._tokenizer = tokenizer
        self._pool = _find_pool(tower)
        self._holder = [] if trained else [tower]  # a list hides it from parameters(), state_dict() and to()
        tower.cpu().train(trained).requires_grad_(trained)
        if trained:
            self.tower = tower
        self._tokens = tokenizer(list(self.texts))  # (texts, L), on the host
        self._table: Tensor | None
        self.register_buffer("_table", None, persistent=False)  # (texts, D), frozen only
        last = self._tokens.shape[1] - 1
        if self._pool and (full := int((self._ends(self._tokens, self._pool) == last).sum())):
            warnings.warn(f"{full} prompts fill the tower's context and are cut at its end: shorten them", stacklevel=2)
        with torch.no_grad():
            self.dim = self._encode(self._tokens[:1]).shape[1]

    def embed(self, texts: Iterable[str]) -> Tensor:
        """(n, D) float32 embeddings of any texts, no gradient."""
        return self._encode_all(self._tokenizer(list(texts)))

    def _prepare_rows(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The rows; of a trained tower, where each stands among the unique ones, and these packed."""
        if not self.trained:
            return (torch.from_numpy(rows),)
        unique, where = np.unique(rows, return_inverse=True)
        return torch.from_numpy(where.reshape(rows.shape)), *self._pack(self._tokens[torch.from_numpy(unique)])

    def encode(self, *prepared: Tensor) -> Tensor:
        """What `_prepare_rows` made to (..., D) float32."""
        rows, *packed = prepared
        if self.trained:
            return self._run_tower(*packed)[rows].float()
        if self._table is None:
            self._table = self._encode_all(self._tokens)
        return self._table[rows]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode_all(self, tokens: Tensor) -> Tensor:
        """(n, L) on the host → (n, D) float32 without gradient; a frozen tower visits the device for it."""
        towers = nn.ModuleList(self._holder).to(self.device)
        with torch.autocast(self.device.type, enabled=False), full_float32():
            out = torch.cat([self._encode(chunk).float() for chunk in tokens.split(CHUNK)])
        towers.cpu()
        return out

    def _ends(self, tokens: Tensor, pool: Pool) -> Tensor:
        """(n, L) → (n,) position of the token that a cuttable tower reads the embedding from."""
        return (tokens if pool.kind == "argmax" else (tokens == pool.eos).int()).argmax(-1)

    def _encode(self, tokens: Tensor) -> Tensor:
        """(n, L) int64 on the host → (n, D)."""
        return self._run_tower(*(tensor.to(self.device) for tensor in self._pack(tokens)))

    def _pack(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """(n, L) int64 on the host, as the tower takes it: as it is, or packed (see `Packed`)."""
        if not self._pool:
            return (tokens,)
        lengths = (self._ends(tokens, self._pool) + 1).tolist()
        packed = pack([text[:length] for text, length in zip(tokens.tolist(), lengths)])
        return tuple(torch.from_numpy(array) for array in packed)

    def _run_tower(self, *packed: Tensor) -> Tensor:
        """What `_pack` made → (n, D); the same as the tower itself on all L tokens."""
        tower = self.tower if self.trained else self._holder[0]
        if not self._pool:
            out = tower.encode_text(*packed) if hasattr(tower, "encode_text") else tower(*packed)
            return out[0] if isinstance(out, tuple) else out
        tokens, positions, seen, ends = packed
        dtype, heads = tower.transformer.get_cast_dtype(), tower.transformer.resblocks[0].attn.num_heads
        mask = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)
        mask = mask.repeat_interleave(heads, 0)  # (R * heads, L, L)
        x = tower.token_embedding(tokens).to(dtype) + F.embedding(positions, tower.positional_embedding).to(dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask).flatten(0, 1)[ends])  # (n, width)
        project = tower.text_projection
        return x if project is None else project(x) if isinstance(project, nn.Module) else x @ project


def _find_pool(tower: nn.Module) -> Pool | None:
    """How a causal tower finds the end of text, from which it reads the embedding; later tokens have no effect there.

    None for a tower that needs whole texts: attention both ways, Hugging Face towers, towers that read another token
    or append their own.
    """
    from open_clip.transformer import Transformer

    kind = getattr(tower, "text_pool_type", getattr(tower, "pool_type", ""))
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    fits = causal and kind in ("argmax", "eos") and isinstance(tower.transformer, Transformer)
    return Pool(kind, getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))) if fits else None


def _open_clip(name: str, pretrained: str | None, fetch: bool = True) -> tuple[nn.Module, Callable]:
    """(open_clip model on the CPU in float32, its tokenizer) by name and tag or file; ValueError says what to do."""
    import open_clip

    if is_foreign(name):
        return _open_foreign(name, fetch)
    file = None
    name, known = name.replace("/", "-"), open_clip.list_models()
    if name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f"expected clip_model to be a name of open_clip's, got {name!r}{hint}")
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if pretrained and not tag:
        file, tags = Path(pretrained).expanduser(), open_clip.list_pretrained_tags_by_model(name)
        if not file.is_file():
            raise ValueError(
                f"clip_pretrained {pretrained!r} is neither a file nor a tag of {name}"
                f"{did_you_mean(pretrained, tags)} (tags: {', '.join(tags) or 'none'}): "
                "give one of them or the path of a weight file"
            )
    try:
        if file and is_torchscript(file):  # as OpenAI publishes its weights
            clip = open_clip.model.build_model_from_openai_state_dict(read_tensors(file), cast_dtype=torch.float32)
            return clip.float(), open_clip.get_tokenizer(name)
        if file:
            _check_file(file)
        quick = bool(tag.get("quick_gelu"))  # open_clip only warns where a tag's weights need it
        weights = str(file) if file else pretrained if fetch else None
        clip = open_clip.create_model(name, weights, force_quick_gelu=quick)
        return clip, open_clip.get_tokenizer(name)
    except Exception as error:
        what = f"{file} does not hold those of {name}" if file else f"{name} {pretrained!r} could not be fetched"
        raise ValueError(
            f"expected CLIP weights, but {what} ({type(error).__name__}: {str(error)[:300]}): set clip_pretrained to a "
            f'local weight file of {name}, or use text="minilm", whose embeddings are shipped'
        ) from error


def _open_foreign(name: str, fetch: bool) -> tuple[nn.Module, Callable]:
    """As `_open_clip`, of a folder or repository; open_clip would read the config anew and let more of it through."""
    import open_clip

    config, file = read_foreign(name, fetch)
    settings = {key: value for key, value in config.items() if key != "custom_text"}
    try:
        clip = (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**settings)
        if file:
            _check_file(file)
            open_clip.load_checkpoint(clip, str(file))
        return clip, open_clip.SimpleTokenizer(context_length=clip.context_length)
    except Exception as error:
        raise ValueError(
            f"expected {name} to be a CLIP with its weights, but {file or 'its config'} is not of one "
            f"({type(error).__name__}: {str(error)[:300]}): set clip_model to a name of open_clip's, or use "
            'text="minilm", whose embeddings are shipped'
        ) from error


def _check_file(file: Path) -> None:
    """Check the pickles of a weight file, where it has any, before open_clip reads the tensors in them and no more."""
    if file.suffix not in (".safetensors", ".npz", ".npy"):
        check_pickles(file)


ROOM = 96  # tokens of a row: longer rows are filled better, shorter ones attend to less
SHORT = 12  # tokens; texts of so many or fewer are laid last, into the gaps


class Packed(NamedTuple):
    """R rows of L tokens.

    Attributes:
        tokens: (R, L) int64; 0 where no text is.
        positions: (R, L) int64, of each token in its text.
        seen: (R, L, L) bool, which tokens (last axis) a token sees; itself at least.
        ends: (n,) int64, where the last token of each text lies in the flattened rows.
    """

    tokens: np.ndarray
    positions: np.ndarray
    seen: np.ndarray
    ends: np.ndarray


def pack(texts: list[list[int]], room: int = ROOM) -> Packed:
    """Lay texts out in rows, best fit: where most of a text's beginning is, then where least room is left.

    Args:
        texts: n texts of at least one token each.
        room: tokens of a row, or those of the longest text if that has more.
    """
    room = max(room, *map(len, texts))
    used: list[int] = []  # tokens by row
    last: list[int] = []  # text laid last, by row
    where: dict[int, tuple[int, np.ndarray]] = {}  # text → row, place of each token in it
    fresh = [0] * len(texts)  # tokens of the text that stood there before it
    for i in sorted(range(len(texts)), key=lambda i: (len(texts[i]) <= SHORT, texts[i])):
        shared = [_count_shared(texts[i], texts[j]) for j in last]
        fits = [row for row, there in enumerate(shared) if used[row] + len(texts[i]) - there <= room]
        row = max(fits, key=lambda row: (shared[row], used[row]), default=len(used))
        if row == len(used):
            used.append(0)
            last.append(i)
            shared.append(0)
        more = np.arange(used[row], used[row] + len(texts[i]) - shared[row])
        where[i] = row, np.concatenate([where[last[row]][1][: shared[row]], more]) if shared[row] else more
        fresh[i] = shared[row]
        last[row] = i
        used[row] += len(more)
    length = max(used)
    tokens, positions = np.zeros((2, len(used), length), np.int64)
    seen = np.repeat(np.eye(length, dtype=bool)[None], len(used), 0)
    for i, text in enumerate(texts):
        row, at = where[i]
        tokens[row, at], positions[row, at] = text, np.arange(len(text))
        seen[row, at[fresh[i] :, None], at] = np.tri(len(text), dtype=bool)[fresh[i] :]
    ends = [row * length + at[-1] for row, at in (where[i] for i in range(len(texts)))]
    return Packed(tokens, positions, seen, np.array(ends))


def _count_shared(one: list[int], other: list[int]) -> int:
    """Tokens that two texts begin with alike."""
    for count, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return count
    return min(len(one), len(other))
