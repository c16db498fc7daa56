"""Why one clip was given its class and not the one that came second: what adds to its lead, and what the lead needs."""

from typing import NamedTuple

import numpy as np
import torch

from bpilib.analysis.activation import compute_class_activation, locate_frames, record_features
from bpilib.analysis.clip_outputs import make_memory_store
from bpilib.analysis.occlusion import compute_drops
from bpilib.classify import Logits
from bpilib.feeders import Feeder
from bpilib.runs import Run
from bpilib.system.device import full_float32


class Lead(NamedTuple):
    """The logit of the likeliest class minus that of the second, of one clip.

    Attributes:
        classes: both, as numbers.
        clip: (L, M, V, 3) float32, with the persons of the run's data set.
        lead: the difference of the two logits.
        activation: (M, S, V) float32, what each person, step and joint adds to it; with `bias` they sum to it.
        bias: the difference of the classifier's biases.
        frames: (S,) int64, the clip's frame that each step is about, from 0.
        drops: "joints" → (V,), "parts" → (P,), "time" → (S',) float32, how far it falls without them.
    """

    classes: tuple[int, int]
    clip: np.ndarray
    lead: float
    activation: np.ndarray
    bias: float
    frames: np.ndarray
    drops: dict[str, np.ndarray]


@torch.no_grad()
@full_float32()
def explain_lead(run: Run, poses: np.ndarray) -> Lead:
    """Take the lead of a clip's likeliest class over the second apart, by class activation and by occlusion.

    Args:
        run: a trained run of any network.
        poses: (L, M, V, 3), as `bpilib.data.clip_file.read_clip` returns them.

    Raises:
        ValueError: another skeleton, or a network of one class.
    """
    if len(run.store.classes) < 2:
        raise ValueError("expected a run of at least two classes: a single one has no runner-up")
    store = make_memory_store(run, [poses])
    feeder = Feeder(store, np.arange(1), run.feeder("test").modality, device=run.device)
    x, _ = feeder.batch([0])
    run.model.eval()
    with record_features(run.model.backbone) as seen:
        logits = run.model(x).logits[0]
    first, second = (int(k) for k in logits.topk(2).indices)
    both = (torch.tensor([k], device=x.device) for k in (first, second))
    of_first, of_second = (compute_class_activation(seen[0], run.model.classifier, k) for k in both)
    difference = (of_first - of_second)[0].cpu().numpy()  # (M, S, V)
    bias = run.model.classifier.bias
    drops = compute_drops(Logits(run.model), x, run.store.skeleton)
    return Lead(
        (first, second),
        store.sample(0),
        float(logits[first] - logits[second]),
        difference,
        float(bias[first] - bias[second]),
        locate_frames(store, 0, feeder.window, difference.shape[1]),
        {name: values[0, :, first] - values[0, :, second] for name, values in drops._asdict().items()},
    )
