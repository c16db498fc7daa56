"""What a change of a control costs in the attention browser: processor time of one picture, and its share.

    python benchmarks/widgets.py      (a minute; a table here, outputs/bench/widgets.json to keep)

A change draws one picture (`tests/test_widgets.py` counts them), so the time of a change should be that of the picture
drawn alone: the ratio of their medians, taken in turns, says what the browser adds. Processor time, so that other
programs on the machine count little; a change that takes a third of a second is felt as a wait.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ipywidgets import VBox

from bpilib import widgets
from bpilib.skeleton import NTU, UCLA, Skeleton
from bpilib.system.files import PROJECT, write_atomically

REPEATS = 6
WAIT = 0.3  # seconds from which a change is felt as a wait
FOLDER = PROJECT / "outputs" / "bench"
PICTURES = {"attention": "attention_card", "true": "class_activation"}


class Seen(NamedTuple):
    """As bpilib.analysis.outputs.SubsetOutputs, of which the browser takes these."""

    labels: np.ndarray
    predictions: np.ndarray
    maps: dict
    joints: dict
    bias: np.ndarray
    activation: np.ndarray


def browser(skeleton: Skeleton, persons: int, classes: int = 3) -> VBox:
    """A browser of one made clip a class, 60 frames each."""
    draw = np.random.default_rng(0)
    parts = skeleton.parts("joint")
    joints = {p: (parts[p], sum((parts[o] for o in parts if o != p), ())) for p in parts}
    maps = {p: draw.dirichlet(np.ones(len(keys)), (classes, 8, len(queries))) for p, (queries, keys) in joints.items()}
    activation = draw.normal(size=(classes, 2, persons, 13, skeleton.num_joints))
    labels = np.arange(classes)
    clips = [draw.normal((0, 0, 3), 1, (60, persons, skeleton.num_joints, 3)).astype(np.float32) for _ in labels]
    return widgets.attention_browser(
        views={"run": Seen(labels, labels, maps, joints, np.zeros(classes), activation)},
        clips=clips,
        frames=[np.linspace(0, 59, 13).astype(int) for _ in labels],
        classes=[f"class {k}" for k in labels],
        skeleton=skeleton,
        window=skeleton.window,
        names=[f"clip {k}" for k in labels],
    )


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(skeleton: Skeleton, persons: int, picture: str) -> dict[str, float]:
    """Median seconds of a change, of its picture alone, and their ratio."""
    name, calls = PICTURES[picture], []
    draw = getattr(widgets, name)
    setattr(widgets, name, lambda *given: calls.append(given) or draw(*given))
    try:
        shown = browser(skeleton, persons)
        shown.controls["picture"].value = picture
        shown.controls["class"].value = 1  # the first is slower: fonts are read
        changes, alone = [], []
        for repeat in range(REPEATS):
            changes.append(seconds(lambda k=repeat % 2 * 2: setattr(shown.controls["class"], "value", k)))
            alone.append(seconds(lambda: draw(*calls[-1]).png()))
    finally:
        setattr(widgets, name, draw)
    change, picture_alone = statistics.median(changes), statistics.median(alone)
    return {"change": change, "picture alone": picture_alone, "ratio": change / picture_alone}


def main() -> None:
    """Measure, print, keep."""
    found = {
        f"{skeleton.name}, {persons} persons, {picture}": measure(skeleton, persons, picture)
        for skeleton, persons in ((UCLA, 1), (NTU, 2))
        for picture in PICTURES
    }
    print(f"{'':32} {'change':>9} {'picture':>9} {'ratio':>7}   medians of {REPEATS}, processor seconds")
    for name, row in found.items():
        late = f"   above {WAIT} s" * (row["change"] > WAIT)
        print(f"{name:32} {row['change']:8.3f}s {row['picture alone']:8.3f}s {row['ratio']:6.2f}x{late}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    report = {"machine": platform.processor() or platform.machine(), "seconds": found}
    write_atomically(FOLDER / "widgets.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
