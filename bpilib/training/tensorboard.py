"""What a run leaves for TensorBoard: curves, confusion, precision against recall, clips among the texts of classes.

`tensorboard --logdir outputs` shows all runs, `%tensorboard` the same in a notebook.
"""

import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch.utils.tensorboard import SummaryWriter

from bpilib.evaluate import Scores
from bpilib.runs import Run
from bpilib.training.pace import Pace

DrawConfusion = Callable[[np.ndarray, list[str]], np.ndarray]
# Section of TensorBoard → columns of metrics.csv in it; others have one of their own, or the one they name.
SECTIONS = {
    "accuracy": ("train_top1", "heldout_top1", "heldout_top5", "test_top1", "test_top5"),
    "loss": ("train_loss", "cross_entropy", "contrastive"),
    "machine": ("clips_per_second",),
}
MAX_PIXELS = 2000  # of a side of a confusion matrix without names, which has 16 a class, or fewer
MAX_NAMED = 200  # classes of a confusion matrix with names; drawing more takes longer than an epoch
MAX_PROJECTED = 500  # clips in the projector, at most
COLUMNS = ("label", "class", "kind", "predicted", "clip")  # of the projector's table of points


class TensorBoardLogger:
    """The event files of a run in its `tensorboard/`; one process writes them.

    Steps are epochs; events of later ones, which a stopped run may have left, are dropped.
    """

    def __init__(self, folder: Path, epoch: int, draw_confusion: DrawConfusion | None = None):
        """folder: the run directory. epoch: the last that counts. draw_confusion: see `bpilib.train.fit`."""
        self.folder = folder / "tensorboard"
        self.draw_confusion = draw_confusion
        self._writer = SummaryWriter(str(self.folder), purge_step=epoch + 1)
        self._pace = Pace()
        self._drawn: set[int] = set()  # epochs whose confusion matrix is there

    def close(self) -> None:
        """Flush, and write no more."""
        self._writer.close()

    def epoch(self, epoch: int, values: dict[str, float], scores: Scores | None) -> None:
        """Curves of an epoch, and where it was evaluated the confusion matrix, as often as `Pace` has it.

        Args:
            epoch: from 1.
            values: name → number; NaN is left out.
            scores: of the test clips.
        """
        section = {name: f"{section}/{name}" for section, names in SECTIONS.items() for name in names}
        for name, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(section.get(name, name), value, epoch)
        if scores is not None and self._pace.is_due():
            self._draw_confusion(epoch, scores)
        self._writer.flush()

    def _draw_confusion(self, epoch: int, scores: Scores) -> None:
        with self._pace.measured():
            self._writer.add_image("confusion", self._confusion_image(scores), epoch, dataformats="HWC")
        self._drawn.add(epoch)

    def _confusion_image(self, scores: Scores) -> np.ndarray:
        """(H, W, 1 or 3) uint8: drawn as was asked for, or in shades where that fails or there are too many classes."""
        matrix = scores.confusion()
        if self.draw_confusion and len(matrix) <= MAX_NAMED:
            try:
                return self.draw_confusion(matrix, scores.classes)
            except Exception as error:  # no figure ends a training
                warnings.warn(f"the confusion matrix can't be drawn ({type(error).__name__}: {error})", stacklevel=3)
                self.draw_confusion = None
        share = (matrix / np.maximum(matrix.sum(1, keepdims=True), 1))[:MAX_PIXELS, :MAX_PIXELS]
        side = max(1, min(16, MAX_PIXELS // len(share)))
        return np.kron(np.uint8(255 * share), np.ones((side, side), np.uint8))[:, :, None]

    def finish(self, run: Run, scores: Scores) -> None:
        """Confusion matrix, precision against recall, and projector's points, of the weights that a run ends with."""
        if run.epoch not in self._drawn:
            self._draw_confusion(run.epoch, scores)
        shares = softmax(scores.logits, 1)
        is_class = scores.labels[:, None] == np.arange(len(scores.classes))  # (n, K)
        curves = {"all classes": (is_class.ravel(), shares.ravel())}
        curves |= {name: (is_class[:, k], shares[:, k]) for k, name in enumerate(scores.classes)}
        for name, (right, share) in curves.items():
            if right.any():
                self._writer.add_pr_curve(f"precision_recall/{name}", right, share, run.epoch)
        points, rows = projector_points(run, scores)
        shutil.rmtree(self.folder / f"{run.epoch:05d}", ignore_errors=True)  # of an end that was cut short
        self._writer.add_embedding(points, rows, tag="clips_and_texts", global_step=run.epoch, metadata_header=COLUMNS)
        self._writer.flush()


@torch.no_grad()
def projector_points(run: Run, scores: Scores) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Test clips, and the names of the classes as texts, in the space where the contrastive loss compares them.

    The mean of the clips is taken from the clips and that of the texts from the texts, as in
    `bpilib.analysis.text.compute_tsne_layout`. A run without texts has the clips alone, as the classifier gets them.

    Args:
        run: with the weights that the scores are of.
        scores: of all its test clips.

    Returns:
        (n, D) float64 of unit length before the means were taken, to four places, and a row of `COLUMNS` for each:
        clips evenly spread over the test set, `MAX_PROJECTED` at most, then K texts.
    """
    feeder = run.feeder("test")
    total = len(scores.labels)
    chosen = np.unique(np.linspace(0, total - 1, min(total, MAX_PROJECTED)).astype(int))
    run.model.eval()
    found = []
    for part in np.array_split(chosen, -(-len(chosen) // run.config.test_batch_size)):
        pooled, _ = run.model.features(feeder.batch(part)[0])  # (N, C)
        found.append(F.normalize((pooled if run.text is None else run.model.global_head(pooled)).float(), dim=-1).cpu())
    groups = [torch.cat(found)]
    named = [scores.classes[k] for k in scores.labels[chosen]]
    predicted = [scores.classes[k] for k in scores.predictions[chosen]]
    kinds = ["recognised" if truth == said else "mistaken" for truth, said in zip(named, predicted)]
    rows: list[tuple[str, ...]] = list(zip(named, named, kinds, predicted, scores.names[chosen]))
    if run.text is not None:
        groups.append(F.normalize(run.text.anchors()[0].float().cpu(), dim=-1))
        rows += [(f"“{name}”", name, "text", "–", "–") for name in scores.classes]
    return np.concatenate([(g - g.mean(0)).double().numpy().round(4) for g in groups]), rows
