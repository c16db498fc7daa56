"""Texts and clips in the shared embedding space: classification by nearest text, retrieval, a map of both."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE

from bpilib.analysis.outputs import SubsetOutputs, average_by_class
from bpilib.metrics import harmonic_mean, share_right
from bpilib.runs import Run
from bpilib.text.encoder import TextEncoder
from bpilib.text.minilm import embed_with_minilm


def list_branches(run: Run) -> tuple[str, ...]:
    """Names of the 1+P embeddings of a run's clips, in order."""
    return ("global", *run.model.parts)


def _require_encoder(run: Run) -> TextEncoder:
    if run.text is None:
        raise ValueError(
            f"{run.config.run_directory} has no text encoder (text='none', as published weight files): choose a run of "
            "bpi or gap that 02 has trained with texts"
        )
    return run.text


def embed_class_texts(run: Run) -> np.ndarray:
    """Embed each class's name and its prompt of each part: (1+P, K, D) float32, unit length.

    Raises:
        ValueError: a run without a text encoder.
    """
    return F.normalize(_require_encoder(run).anchors().float().cpu(), dim=-1).numpy()


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
    encoder, texts = _require_encoder(run), [text.strip() for text in texts]
    if not all(texts):
        raise ValueError("expected a description, got nothing: write a few words, e.g. 'walk while holding a box'")
    if run.config.text == "minilm" and not {*texts} <= {*encoder.texts}:  # its encoder knows the run's prompts only
        values = torch.from_numpy(embed_with_minilm(texts)[0])
    else:
        values = encoder.embed(texts)
    return F.normalize(values.float().cpu(), dim=-1).numpy()


def compare_texts(views: SubsetOutputs, run: Run) -> dict[str, np.ndarray]:
    """Compare each class's mean embedding (rows) with each class's text (columns): branch → (K, K) cosines."""
    means = average_by_class(views.embeddings, views.labels, len(run.store.classes))  # (K, 1+P, D)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    texts = zip(list_branches(run), embed_class_texts(run))
    return {name: means[:, b] @ class_texts.T for b, (name, class_texts) in enumerate(texts)}


def classify_by_text(embeddings: np.ndarray, texts: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Classify by texts: scaled cosines, as in the contrastive loss, averaged over branches.

    Args:
        embeddings: (n, 1+P, D) of clips, unit length.
        texts: (1+P, K, D) of classes, seen in training or not, unit length.
        scale: (1+P,) logit scales as the loss uses them.

    Returns:
        (n, K); the class with the largest one is the answer.
    """
    return np.einsum("nbd,bkd,b->nk", embeddings, texts, scale, optimize=True) / len(scale)


def classify_run_by_text(run: Run, views: SubsetOutputs) -> np.ndarray:
    """`classify_by_text` (n, K) of a run's clips, with the texts of all classes and the learned scales."""
    scale = run.model.logit_scale.detach().float().cpu().numpy()
    return classify_by_text(views.embeddings, embed_class_texts(run), scale)


def measure_zero_shot(logits: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> pd.DataFrame:
    """Accuracy on seen and unseen classes, by the protocol of generalised zero-shot learning.

    Args:
        logits: (n, K).
        labels: (n,) int64.
        unseen: (K,) bool.

    Returns:
        top1, low, high, chance (%) and clips, by row: "seen" and "unseen" clips among all classes, their "harmonic
        mean", and "unseen among unseen", where only unseen classes can be answered; only "seen" if no class is unseen.
        Intervals are Wilson's, 95 %. That of the harmonic mean comes from the 97.5 % intervals of both accuracies: it
        rises with both, so it lies between the means of their ends with 95 % or more.

    Source: Xian et al., "Zero-Shot Learning: A Comprehensive Evaluation", TPAMI 2019 (there with means over classes).
    """
    right = logits.argmax(1) == labels
    new = unseen[labels]
    count = len(unseen)
    rows = {"seen": (*share_right(right[~new]), 100 / count, (~new).sum())}
    if unseen.any():
        rows["unseen"] = (*share_right(right[new]), 100 / count, new.sum())
        ends = harmonic_mean(share_right(right[~new], 0.975), share_right(right[new], 0.975))
        rows["harmonic mean"] = (*ends, 100 / count, len(labels))
        alone = np.where(unseen, logits[new], -np.inf).argmax(1) == labels[new]
        rows["unseen among unseen"] = (*share_right(alone), 100 / unseen.sum(), new.sum())
    table = pd.DataFrame(rows.values(), list(rows), ["top1", "low", "high", "chance", "clips"])
    return table.astype({"clips": int})


def compute_tsne_layout(embeddings: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay clips and texts of one branch out in the plane by t-SNE of cosine distances.

    The mean of all clips is subtracted from the clips and that of all texts from the texts: otherwise what all texts
    have in common would separate them from the clips.

    Args:
        embeddings: (n, D), unit length.
        texts: (K, D), unit length.

    Returns:
        (n, 2) clips and (K, 2) texts, without unit; deterministic, since t-SNE starts from the principal components.

    Raises:
        ValueError: fewer than 4 points, or no clips or no texts.
    """
    if len(embeddings) + len(texts) < 4 or not len(embeddings) or not len(texts):
        raise ValueError(f"a map needs clips and texts, at least 4, got {len(embeddings)} and {len(texts)}")
    both = np.concatenate([values - values.mean(0) for values in (embeddings, texts)])
    tsne = TSNE(perplexity=min(30, (len(both) - 1) / 3), metric="cosine", init="pca", random_state=0)
    points = tsne.fit_transform(both)
    return points[: len(embeddings)], points[len(embeddings) :]
