"""What summary.json says of a finished run."""

from typing import Any

import numpy as np
import torch

from bpilib.evaluate import Scores, summarise_copies
from bpilib.runs import Run
from bpilib.system import distributed
from bpilib.system.environment import collect_environment, count_flops
from bpilib.training.progress import Progress


def summarize(run: Run, scores: Scores, progress: Progress, epoch_clips: int, precision: str) -> dict[str, Any]:
    """Accuracies with intervals, what was selected and how, time, machine.

    Args:
        run: with the selected weights.
        scores: of these weights, with `copies` filled in.
        progress: of the finished training.
        epoch_clips: that an epoch trains on.
        precision: of training.

    Returns:
        Plain values for JSON.
    """
    config = run.config
    test_epoch, test_best = progress.best("test_top1")
    summary = {
        "settings": config.result_settings(),
        "epochs": config.epochs,
        "select": config.select,
        "selected_epoch": progress.selected(config.select),
        "test_top1": scores.top(1),
        "test_top1_interval_95": scores.interval(),
        "test_top5": scores.top(5),
        "test_clips": len(scores.labels),
        **summarise_copies(scores),
        "best_test_epoch_as_published": {"epoch": test_epoch, "test_top1": test_best},
        "parameters": _parameters(run),
        "training_seconds": sum(epoch_clips / row["clips_per_second"] for row in progress.rows),
        "resumed": progress.resumed,
        "device": str(run.device),
        "processes": distributed.world_size(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "data": run.store.manifest["sha256"],
        "environment": _describe_environment(run),
    }
    if config.start_from is not None:
        summary["start_from_clips"] = run.trained_on["start_from_clips"]
    if scores.heldout is not None:
        summary["heldout_top1"] = scores.heldout.top(1)
        summary["heldout_top1_interval_95"] = scores.heldout.interval()
        summary["heldout_clips"] = len(scores.heldout.labels)
    return summary


def _parameters(run: Run) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())


def _describe_environment(run: Run) -> dict[str, Any]:
    """What a reader needs who wants to repeat the run."""
    one_clip = run.feeder("test").batch(np.zeros(1, int))[0]  # (1, 3, T, V, M)
    return collect_environment(run.device) | {
        "parameters": _parameters(run),
        "flops_per_clip": count_flops(run.model, one_clip),
        "seed": run.config.seed,
        "text_digest": run.text_digest,
    }
