"""Relates texts to clips: classes by the nearest text, clips by any description, a map of both."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE

from bpilib.analysis.outputs import ClipOutputs, class_means
from bpilib.metrics import harmonic_mean, share_right
from bpilib.runs import Run
from bpilib.text.encoder import TextEncoder
from bpilib.text.minilm import minilm


def branches(run: Run) -> tuple[str, ...]:
    """Names of the 1+P embeddings, in order."""
    return ("global", *run.model.parts)


def _encoder(run: Run) -> TextEncoder:
    if run.text is None:
        raise ValueError(
            f"{run.config.run_directory} has no text encoder (text='none', as published weight files): choose a run of "
            "bpi or gap that 02 has trained with texts"
        )
    return run.text


def class_text_embeddings(run: Run) -> np.ndarray:
    """(1+P, K, D) float32, unit length: each class's name, then its prompt of each part; ValueError without texts."""
    return F.normalize(_encoder(run).anchors().float().cpu(), dim=-1).numpy()


def embed(run: Run, texts: Iterable[str]) -> np.ndarray:
    """Embed texts with the encoder of a run.

    Args:
        run: trained with texts.
        texts: n descriptions.

    Returns:
        (n, D) float32, unit length.

    Raises:
        ValueError: a run without texts, an empty text, or the MiniLM encoder is needed and not installed.
    """
    encoder, texts = _encoder(run), [text.strip() for text in texts]
    if not all(texts):
        raise ValueError("expected a description, got nothing: write a few words, say 'walk while holding a box'")
    if run.config.text == "minilm" and not {*texts} <= {*encoder.texts}:  # it knows the run's own prompts alone
        values = torch.from_numpy(minilm(texts)[0])
    else:
        values = encoder.embed(texts)
    return F.normalize(values.float().cpu(), dim=-1).numpy()


def text_similarity(views: ClipOutputs, run: Run) -> dict[str, np.ndarray]:
    """Branch → (K, K): cosine of each class's mean embedding (rows) with each class's text (columns)."""
    means = class_means(views.embeddings, views.labels, len(run.store.classes))  # (K, 1+P, D)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    texts = zip(branches(run), class_text_embeddings(run))
    return {name: means[:, b] @ of_branch.T for b, (name, of_branch) in enumerate(texts)}


def text_logits(embeddings: np.ndarray, texts: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Classify by texts: scale times cosine, as the contrastive loss is trained with, mean over branches.

    Args:
        embeddings: (n, 1+P, D), unit length, of clips.
        texts: (1+P, K, D), unit length, of classes, seen in training or not.
        scale: (1+P,) as the loss uses it; weighs the branches.

    Returns:
        (n, K); the highest is the class.
    """
    return np.einsum("nbd,bkd,b->nk", embeddings, texts, scale, optimize=True) / len(scale)


def logits_by_text(run: Run, views: ClipOutputs) -> np.ndarray:
    """(n, K) `text_logits` of a run's clips, with the anchors of all classes and the scales it has learned."""
    scale = run.model.logit_scale.detach().float().cpu().numpy()
    return text_logits(views.embeddings, class_text_embeddings(run), scale)


def zero_shot(logits: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> pd.DataFrame:
    """Accuracy on seen and unseen classes, by the protocol of generalised zero-shot learning.

    Args:
        logits: (n, K).
        labels: (n,) int64.
        unseen: (K,) bool.

    Returns:
        top1, low, high, chance (%) and clips, by row: "seen" and "unseen" clips among all classes, their "harmonic
        mean", and "unseen among unseen", where only unseen classes can be answered; "seen" alone where none is unseen.
        Shares of clips, with 95 % Wilson intervals. The harmonic mean rises with both, so that the 97.5 % intervals of
        both hold it with 95 % or more.

    Source: Xian et al., "Zero-Shot Learning: A Comprehensive Evaluation", TPAMI 2019 (there with means over classes).
    """
    right, new, count = logits.argmax(1) == labels, unseen[labels], len(unseen)
    rows = {"seen": (*share_right(right[~new]), 100 / count, (~new).sum())}
    if unseen.any():
        rows["unseen"] = (*share_right(right[new]), 100 / count, new.sum())
        ends = harmonic_mean(share_right(right[~new], 0.975), share_right(right[new], 0.975))
        rows["harmonic mean"] = (*ends, 100 / count, len(labels))
        alone = np.where(unseen, logits[new], -np.inf).argmax(1) == labels[new]
        rows["unseen among unseen"] = (*share_right(alone), 100 / unseen.sum(), new.sum())
    table = pd.DataFrame(rows.values(), list(rows), ["top1", "low", "high", "chance", "clips"])
    return table.astype({"clips": int})


def tsne_layout(embeddings: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips and texts of one branch in the plane, by t-SNE of cosine distances.

    The mean of all clips is subtracted from the clips and that of all texts from the texts: otherwise what texts have
    in common would keep them together, away from the clips.

    Args:
        embeddings: (n, D), unit length.
        texts: (K, D), unit length.

    Returns:
        (n, 2) clips and (K, 2) texts; no unit. It starts from the principal components: the same every time.

    Raises:
        ValueError: fewer than 4 points, or no clips or no texts.
    """
    if len(embeddings) + len(texts) < 4 or not len(embeddings) or not len(texts):
        raise ValueError(f"a map needs clips and texts, at least 4, got {len(embeddings)} and {len(texts)}")
    both = np.concatenate([values - values.mean(0) for values in (embeddings, texts)])
    tsne = TSNE(perplexity=min(30, (len(both) - 1) / 3), metric="cosine", init="pca", random_state=0)
    points = tsne.fit_transform(both)
    return points[: len(embeddings)], points[len(embeddings) :]
