"""The figures that a network must give, stated where its weights are saved and compared where they are used."""

from typing import Any

import numpy as np

from bpilib.evaluate import Scores
from bpilib.rounding import LEAST


def state_figures(scores: Scores, noise: float = LEAST) -> dict[str, Any]:
    """Make the figures that are stated of scores: of all clips, and of those that are no copies where some are.

    Args:
        scores: of the test clips.
        noise: how far roundings may move a logit, as a share of the largest difference between two clips' logits.
    """
    rest = scores.without_copies()
    return _count(scores, noise) | ({} if rest is None else {"without_copies": _count(rest, noise)})


def _count(scores: Scores, noise: float) -> dict[str, Any]:
    low, high = scores.interval()
    return {
        "clips": len(scores.labels),
        "right": int((scores.predictions == scores.labels).sum()),
        "top1": round(scores.top(1), 4),
        "interval_95": [round(low, 2), round(high, 2)],
        "undecided": count_undecided(scores, noise),
    }


def count_undecided(scores: Scores, noise: float = LEAST) -> int:
    """Count the clips that float noise could make right or wrong.

    A clip is right if its class has the highest logit. Noise moves each logit by at most `noise` of the largest
    difference between two clips' logits, so the margin of the class over the best other one by at most twice that.
    """
    rows = np.arange(len(scores.labels))
    others = scores.logits.copy()
    others[rows, scores.labels] = -np.inf
    margin = scores.logits[rows, scores.labels] - others.max(1)
    return int((np.abs(margin) <= 2 * noise * np.ptp(scores.logits, axis=0).max()).sum())


def compare(stated: dict[str, Any], scores: Scores) -> tuple[str, bool]:
    """Put stated figures beside those that were found.

    Args:
        stated: from `state_figures`.
        scores: found.

    Returns:
        One line a figure, and whether each differs by no more clips than float noise could change.
    """
    found, lines, same = state_figures(scores), [], True
    names: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {"all clips": (stated, found)}
    if "without_copies" in stated:
        names["without copies"] = (stated["without_copies"], found.get("without_copies"))
    for name, (theirs, ours) in names.items():
        if ours is None or ours["clips"] != theirs["clips"]:
            lines.append(f"{name}: stated of {theirs['clips']} clips, found {ours['clips'] if ours else 'none'}")
            same = False
            continue
        lines.append(
            f"{name}: stated {theirs['top1']:.2f} %, found {ours['top1']:.2f} % ({theirs['right']} and "
            f"{ours['right']} of {ours['clips']} right; float noise could change {theirs['undecided']})"
        )
        same &= abs(ours["right"] - theirs["right"]) <= theirs["undecided"]
    return "\n".join(lines), same
