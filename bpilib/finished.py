"""Is a finished run the one that is asked for?"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpilib.config import Config
from bpilib.data.store import SkeletonStore
from bpilib.runs import check_config, read_prompts, same_clips


def read_finished(
    config: Config, open_store: Callable[[str], SkeletonStore] = SkeletonStore.open
) -> dict[str, Any] | None:
    """The summary.json of a run that is finished and the one that is asked for; None if it is not finished.

    Settings, prompts and clips are compared, so far as the run has recorded them and they are still there.

    Args:
        config: what is asked for.
        open_store: opens its data; for many runs of the same data one that keeps what it has opened.

    Warns:
        The summary is damaged, which counts as not finished.

    Raises:
        ValueError: the directory holds a run with other settings, prompts or clips.
    """
    path = config.run_directory / "summary.json"
    if not path.exists():
        return None
    check_config(config)
    try:
        summary = json.loads(path.read_text())
        best = summary["best_test_epoch_as_published"]["test_top1"]
        sum([summary["epochs"], summary["test_top1"], summary["test_top5"], best])  # TypeError if one is no number
        recorded = {"data": summary.get("data")} | dict(summary.get("environment", {}))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else error
        warnings.warn(
            f"{path} is damaged ({what}): train the run again to have it made again from the checkpoints", stacklevel=3
        )
        return None
    if (Path(config.data) / "manifest.json").exists():
        store, digest = open_store(config.data), None
        if Path(config.prompts).exists():
            prompts = read_prompts(config, store)
            digest = prompts.digest() if prompts else ""
        check_inputs(recorded, path.parent, config, store, digest)
    return summary


def check_inputs(
    recorded: dict[str, Any], path: Path, config: Config, store: SkeletonStore, digest: str | None
) -> None:
    """Check that a run was trained with the texts and clips that there are now, so far as it has recorded them.

    Args:
        recorded: text_digest and data of a checkpoint, or of summary.json.
        path: of it, for the message.
        config, store: what there is now.
        digest: of the texts there are now; None: they are not there.

    Raises:
        ValueError: with others.
    """
    another = "put them back, or set the parameter tag to start another run"
    if digest is not None and recorded.get("text_digest") not in (None, digest):
        raise ValueError(f"{path} was trained with other prompts than {config.prompts} holds now: {another}")
    if recorded.get("data") and not same_clips(store, recorded["data"]):
        raise ValueError(f"{path} was trained with other clips than {config.data} holds now: {another}")
