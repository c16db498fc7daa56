"""Two or more results on the same clips, compared with paired tests.

Accuracies are in %, differences in percentage points. Results selected on the test clips are never compared with
results that were not.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bpilib.analysis.results import Result, group_seeds
from bpilib.errors import did_you_mean
from bpilib.metrics import bootstrap, holm, mcnemar, paired_interval, seed_interval, sign_flips
from bpilib.run_keys import OWN_KEYS


def pair_clips(a: Result, b: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether a and whether b recognised each clip, (n,) bool each, and the clips' classes, (n,) int64.

    Raises:
        ValueError: different test clips or classes; one result is honest and the other is not.
    """
    if a.honest != b.honest:
        chosen, other = (b, a) if a.honest else (a, b)
        raise ValueError(
            f"{chosen.name} was selected on the test clips, or may have started from weights trained on some, and "
            f"{other.name} was not: they can't be compared"
        )
    labels = [result.labels for result in (a, b)]
    if a.scores.classes != b.scores.classes or not labels[0].equals(labels[1]):
        shared = len(labels[0].index.intersection(labels[1].index))
        raise ValueError(
            f"{a.name} and {b.name} were scored on different clips or classes ({len(labels[0])} and {len(labels[1])} "
            f"clips, {shared} of the same name): compare runs of one store, or run 03_evaluate.ipynb again"
        )
    return a.right.to_numpy(), b.right.to_numpy(), labels[0].to_numpy()


def compare_pairs(results: Sequence[Result]) -> pd.DataFrame:
    """Compare every pair of results on the same clips.

    Returns:
        a, b (names), clips, both, only_a, only_b, neither (clips recognised), difference of accuracy a - b, low, high
        (its 95 % bootstrap interval, percentage points), p (McNemar's), p_holm (corrected for the number of pairs).
    """
    rows = []
    for a, b in itertools.combinations(results, 2):
        right_a, right_b, _ = pair_clips(a, b)
        gain = right_a.astype(float) - right_b
        cells = [int((x & y).sum()) for x in (right_a, ~right_a) for y in (right_b, ~right_b)]  # both, ..., neither
        p = mcnemar(right_a, right_b)
        rows.append((a.name, b.name, len(gain), *cells, 100 * gain.mean(), *bootstrap(gain), p))
    columns = ["a", "b", "clips", "both", "only_a", "only_b", "neither", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]))


def compare_seeds(results: Sequence[Result], chosen: Sequence[Result]) -> pd.DataFrame:
    """Compare settings by the means of the seeds that both were trained with: every pair with two seeds or more.

    Two questions have an interval each. Would these networks differ as much on other clips? And would networks of other
    seeds on these clips?

    Args:
        results: of one benchmark.
        chosen: one of each setting that is compared; its other seeds are found among the results.

    Returns:
        a, b (names of the chosen), seeds (those that both have, "0, 1, 2"), clips, mean_a, mean_b (%), difference of
        the means a - b, low, high (its 95 % bootstrap interval over clips, percentage points), p (permutation of the
        clips), p_holm (corrected for the number of pairs), by_seed (the difference with each seed, "+1.3, -0.2"),
        seeds_low, seeds_high (95 % t interval over three seeds or more).
    """
    groups = group_seeds(results)
    seeds = {r.name: {other.seed: other for other in group} for group in groups for r in group}
    rows = []
    for a, b in itertools.combinations(chosen, 2):
        shared = sorted(seeds[a.name].keys() & seeds[b.name].keys())
        if len(shared) < 2:
            continue
        pairs = [pair_clips(seeds[a.name][seed], seeds[b.name][seed])[:2] for seed in shared]
        right_a, right_b = (np.array(side, float) for side in zip(*pairs))  # (s, n) each
        gain = (right_a - right_b).mean(0)
        by_seed = 100 * (right_a - right_b).mean(1)
        rows.append(
            {
                "a": a.name,
                "b": b.name,
                "seeds": ", ".join(map(str, shared)),
                "clips": len(gain),
                "mean_a": 100 * right_a.mean(),
                "mean_b": 100 * right_b.mean(),
                "difference": 100 * gain.mean(),
                **dict(zip(("low", "high"), bootstrap(gain))),
                "p": sign_flips(gain),
                "by_seed": ", ".join(f"{points:+.1f}" for points in by_seed),
                **dict(zip(("seeds_low", "seeds_high"), seed_interval(by_seed))),
            }
        )
    table = pd.DataFrame(rows)
    if rows:
        table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def compare_classes(a: Result, b: Result) -> pd.DataFrame:
    """The accuracies of two results for each class, sorted by the difference, the largest gain of a first.

    Returns:
        class, clips, a, b (%), difference a - b, low, high (its 95 % interval, percentage points), p_holm (McNemar's,
        corrected for the number of classes).
    """
    right_a, right_b, labels = pair_clips(a, b)
    rows = []
    for number, name in enumerate(a.scores.classes):
        own = labels == number
        if not own.any():
            continue
        class_a, class_b = right_a[own], right_b[own]
        top1_a = 100 * class_a.mean()
        top1_b = 100 * class_b.mean()
        interval = paired_interval(class_a, class_b)
        rows.append((name, own.sum(), top1_a, top1_b, top1_a - top1_b, *interval, mcnemar(class_a, class_b)))
    table = pd.DataFrame(rows, columns=["class", "clips", "a", "b", "difference", "low", "high", "p_holm"])
    table["p_holm"] = holm(table["p_holm"])
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def choose_results(results: Sequence[Result], names: Sequence[str] | None = None) -> list[Result]:
    """Choose the results that are compared pair by pair, the first two of them in detail.

    Args:
        results: of one benchmark.
        names: `Result.name` or its last part, of each. None: the first seed of each group that was not selected on the
            test clips, among results scored on the same clips as most others; the two whose names differ least come
            first (a different model is preferred to a different modality).

    Raises:
        ValueError: an unknown name; the nearest one is suggested.
    """
    if names is not None:
        by_name = {Path(result.name).name: result for result in results} | {result.name: result for result in results}
        for name in names:
            if name not in by_name:
                there = ", ".join(result.name for result in results) or "none"
                near = did_you_mean(name, by_name)
                raise ValueError(f"parameter runs: no finished run {name!r}{near} (there are: {there})")
        return [by_name[name] for name in names]
    firsts = [group[0] for group in group_seeds(results) if group[0].honest]
    clips = [hash((*result.labels.items(), *result.scores.classes)) for result in firsts]
    firsts = [result for result, key in zip(firsts, clips) if key == max(clips, key=clips.count)]

    def distance(pair: tuple[Result, Result]) -> tuple[int, bool]:
        differ = [getattr(pair[0], key) != getattr(pair[1], key) for key in OWN_KEYS]
        return sum(differ), not differ[0]

    lead = min(itertools.combinations(firsts, 2), key=distance, default=())
    return [*lead, *(result for result in firsts if result not in lead)]
