"""Two or more results on the same clips, compared with paired tests.

Accuracies are in %, differences in percentage points. What was selected on the test clips is never compared with what
was not.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bpilib.analysis.results import Result, groups
from bpilib.errors import did_you_mean
from bpilib.metrics import bootstrap, holm, mcnemar, paired_interval


def paired(a: Result, b: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether a and b recognised each clip, and the clips' classes, clip by clip: two (n,) bool and (n,) int64.

    Raises:
        ValueError: other test clips or classes; one chosen on the test clips and one not.
    """
    if a.honest != b.honest:
        chosen, other = (b, a) if a.honest else (a, b)
        raise ValueError(f"{chosen.name} was selected on the test clips and {other.name} was not: they don't compare")
    labels = [result.labels for result in (a, b)]
    if a.scores.classes != b.scores.classes or not labels[0].equals(labels[1]):
        shared = len(labels[0].index.intersection(labels[1].index))
        raise ValueError(
            f"{a.name} and {b.name} were scored on other clips or classes ({len(labels[0])} and {len(labels[1])} "
            f"clips, {shared} of the same name): compare runs of one store, or run 03_evaluate.ipynb again"
        )
    return a.right.to_numpy(), b.right.to_numpy(), labels[0].to_numpy()


def compare_pairs(results: Sequence[Result]) -> pd.DataFrame:
    """Every pair of results of the same clips.

    Returns:
        a, b (names), clips, both, only_a, only_b, neither (clips recognised), difference of accuracy a - b, low, high
        (its 95 % bootstrap interval, percentage points), p (McNemar's), p_holm (corrected for the number of pairs).
    """
    rows = []
    for a, b in itertools.combinations(results, 2):
        right_a, right_b, _ = paired(a, b)
        gain = right_a.astype(float) - right_b
        cells = [int((x & y).sum()) for x in (right_a, ~right_a) for y in (right_b, ~right_b)]
        both, only_a, only_b, neither = cells
        rows.append(
            (
                a.name,
                b.name,
                len(gain),
                both,
                only_a,
                only_b,
                neither,
                100 * gain.mean(),
                *bootstrap(gain),
                mcnemar(right_a, right_b),
            )
        )
    columns = ["a", "b", "clips", "both", "only_a", "only_b", "neither", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]))


def compare_classes(a: Result, b: Result) -> pd.DataFrame:
    """Per class, the accuracy of two results and its difference, the largest gain of a first.

    Returns:
        class, clips, a, b (%), difference a - b, low, high (its 95 % interval, percentage points), p_holm (McNemar's,
        corrected for the number of classes).
    """
    right_a, right_b, labels = paired(a, b)
    rows = []
    for number, name in enumerate(a.scores.classes):
        in_a, in_b = right_a[labels == number], right_b[labels == number]
        if not len(in_a):
            continue
        top1_a = 100 * in_a.mean()
        top1_b = 100 * in_b.mean()
        interval = paired_interval(in_a, in_b)
        rows.append((name, len(in_a), top1_a, top1_b, top1_a - top1_b, *interval, mcnemar(in_a, in_b)))
    table = pd.DataFrame(rows, columns=["class", "clips", "a", "b", "difference", "low", "high", "p_holm"])
    table["p_holm"] = holm(table["p_holm"])
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def choose(results: Sequence[Result], names: Sequence[str] | None = None) -> list[Result]:
    """The results to compare pair by pair, the first two in detail.

    Args:
        results: of one benchmark.
        names: as `Result.name`, or its last part; None: of the results that were chosen off the test clips and scored
            on the same clips as most, the first seed of each group, led by the two that differ least in what they are
            called by (rather in model than in modality).

    Raises:
        ValueError: a name that is not there; the nearest is named.
    """
    if names is not None:
        by_name = {Path(result.name).name: result for result in results} | {result.name: result for result in results}
        for name in names:
            if name not in by_name:
                there = ", ".join(result.name for result in results) or "none"
                near = did_you_mean(name, by_name)
                raise ValueError(f"parameter runs: no finished run {name!r}{near} (there are: {there})")
        return [by_name[name] for name in names]
    firsts = [group[0] for group in groups(results) if group[0].honest]
    clips = [hash((*result.labels.items(), *result.scores.classes)) for result in firsts]
    firsts = [result for result, key in zip(firsts, clips) if key == max(clips, key=clips.count)]

    def distance(pair: tuple[Result, Result]) -> tuple[int, bool]:
        differ = [getattr(pair[0], key) != getattr(pair[1], key) for key in ("model", "modality", "seed", "tag")]
        return sum(differ), not differ[0]

    lead = min(itertools.combinations(firsts, 2), key=distance, default=())
    return [*lead, *(result for result in firsts if result not in lead)]
