"""Scores of a run, their metrics with intervals, and ensembles."""

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bpilib.config import Config
from bpilib.data.copies import is_copy
from bpilib.data.store import SkeletonStore
from bpilib.errors import MissingInputError
from bpilib.feeders import Feeder
from bpilib.metrics import wilson
from bpilib.model import CTRGCNClassifier
from bpilib.recipes import ensemble_weights
from bpilib.runs import Run, open_run, selected_epoch
from bpilib.skeleton import MODALITIES
from bpilib.system import distributed
from bpilib.system.device import full_float32, out_of_memory
from bpilib.system.files import read_npz, remove_leftovers, write_atomically, write_together
from bpilib.system.tables import interval, plus_minus


@dataclass(frozen=True)
class Scores:
    """Logits of a set of clips.

    Attributes:
        logits: (n, K) float32.
        labels: (n,) int64.
        names: (n,) str, the clips' names.
        classes: K class names.
        epoch: epoch of the weights that were scored.
        heldout: scores of the held-out clips, or None.
        copies: (n,) bool, True for copies of training clips (`bpilib.data.copies`); None: not searched for.
    """

    logits: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    classes: list[str]
    epoch: int = 0
    heldout: "Scores | None" = None
    copies: np.ndarray | None = None

    @property
    def predictions(self) -> np.ndarray:
        """(n,) int64."""
        return self.logits.argmax(1)

    def top(self, k: int = 1) -> float:
        """Share of clips, in %, whose class is among the k highest logits."""
        k = min(k, self.logits.shape[1])
        best = np.argpartition(-self.logits, k - 1, 1)[:, :k]
        return 100 * float((best == self.labels[:, None]).any(1).mean())

    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of top-1, in %."""
        return wilson(int((self.predictions == self.labels).sum()), len(self.labels))

    def confusion(self) -> np.ndarray:
        """(K, K) counts, rows the true classes."""
        count = len(self.classes)
        pairs = self.labels.astype(np.int64) * count + self.predictions
        return np.bincount(pairs, minlength=count**2).reshape(count, count)

    def per_class(self) -> pd.DataFrame:
        """One row a class.

        Returns:
            class, clips, top1, low, high (%, the 95 % Wilson interval; NaN without clips), and most often taken for,
            the class of most of its mistakes ("" without mistakes).
        """
        matrix = self.confusion()
        clips = matrix.sum(1)
        right = np.diag(matrix)
        top1 = np.divide(100 * right, clips, out=np.full(len(clips), np.nan), where=clips > 0)
        low, high = zip(*(wilson(*pair) for pair in zip(right, clips)))
        wrong = matrix - np.diag(right)
        taken = [self.classes[row.argmax()] if row.any() else "" for row in wrong]
        columns = {"class": self.classes, "clips": clips, "top1": top1, "low": low, "high": high}
        return pd.DataFrame(columns | {"most often taken for": taken})

    def only(self, keep: np.ndarray) -> "Scores":
        """The scores of the clips where `keep`, (n,) bool, is True."""
        copies = None if self.copies is None else self.copies[keep]
        return replace(self, logits=self.logits[keep], labels=self.labels[keep], names=self.names[keep], copies=copies)

    def without_copies(self) -> "Scores | None":
        """The scores of the clips that are no copies of training clips; None if all are, none is, or it is unknown."""
        if self.copies is None or not self.copies.any() or self.copies.all():
            return None
        return self.only(~self.copies)

    def describe_copies(self) -> str:
        """One line: top-1 without copies with its interval, or that there are none, or that it is not known."""
        if self.copies is None:
            return "copies of training clips among the test clips: not known, run notebooks/03_evaluate.ipynb again"
        if not self.copies.any():
            return "no test clip is a copy of a training clip"
        count = f"{self.copies.sum()} of the {len(self.labels)} test clips are copies of training clips"
        if (rest := self.without_copies()) is None:
            return count
        low, high = rest.interval()
        interval = f"(95 % interval {low:.1f} to {high:.1f})"
        return f"without copies: top-1 {rest.top(1):.2f} % {interval} on {len(rest.labels)} clips; {count}"

    def save(self, path: str | Path) -> None:
        """Write a scores.npz, atomically."""
        write_atomically(path, self.pack(path))

    def pack(self, path: str | Path) -> bytes:
        """The bytes of a scores.npz that is to lie at `path`."""
        arrays = {"logits": self.logits, "labels": self.labels, "names": self.names, "epoch": np.array(self.epoch)}
        arrays["classes"] = np.array(self.classes)
        if self.heldout is not None:
            arrays |= {f"heldout_{name}": getattr(self.heldout, name) for name in ("logits", "labels", "names")}
        if self.copies is not None:
            arrays["copies"] = self.copies
        arrays["run"] = np.array(_run_of(path))
        buffer = io.BytesIO()
        arrays["sha256"] = np.array(_checksum(arrays))
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # as in `StoreWriter.finish`
        return buffer.getvalue()

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read a scores.npz.

        Raises:
            MissingInputError: not there.
            ValueError: damaged, or of another run: the folder was renamed, or the file comes from elsewhere.
            PermissionError: it may not be read.
        """
        again = f"run notebooks/{'05_ensemble' if '_ensemble_' in _run_of(path) else '03_evaluate'}.ipynb again"
        try:
            arrays = read_npz(path)
            if "sha256" in arrays and arrays.pop("sha256").item() != _checksum(arrays):
                raise ValueError("its content differs from its checksum")
            whose = arrays["run"].item() if "run" in arrays else _run_of(path)
            classes = arrays["classes"].tolist()
            epoch = int(arrays["epoch"])
            held = None
            if "heldout_logits" in arrays:
                held_arrays = (arrays["heldout_logits"], arrays["heldout_labels"], arrays["heldout_names"])
                held = cls(*held_arrays, classes, epoch)
            test_arrays = (arrays["logits"], arrays["labels"], arrays["names"])
            scores = cls(*test_arrays, classes, epoch, held, arrays.get("copies"))
        except FileNotFoundError as error:
            raise MissingInputError(f"no scores at {path}: run notebooks/03_evaluate.ipynb first") from error
        except PermissionError as error:
            raise PermissionError(error.errno, f"{path} may not be read ({error.strerror}): ask its owner") from error
        except Exception as error:  # zip, zlib and NumPy each have their own for a damaged file
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): {again}") from error
        if whose != _run_of(path):
            raise ValueError(
                f"{path} is of the run {whose}: either the folder has been renamed, then name it {whose} again; or the "
                f"file has been copied from there, then {again}"
            )
        return scores


def _run_of(path: str | Path) -> str:
    """Name of the run directory, which stays when its parents are moved."""
    return Path(path).absolute().parent.name


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@torch.no_grad()
@full_float32()
def predict(model: CTRGCNClassifier, feeder: Feeder, batch_size: int) -> np.ndarray:
    """(n, K) float32 logits of all clips of a feeder, in order; float32 whatever the training precision.

    Processes of one run share the batches; the logits are those that one process alone would give.

    Raises:
        ValueError: logits that are not finite.
        MemoryError: out of memory; states how much was requested and what to change.
    """
    fused = model.fuse()
    logits = torch.zeros(len(feeder), model.num_classes)
    change = "lower test_batch_size, which changes no result, free memory, or set another device"
    parts = torch.arange(len(feeder)).split(batch_size)[distributed.rank() :: distributed.world_size()]
    with out_of_memory(f"evaluation on {feeder.device} with test_batch_size={batch_size}", change):
        found = []
        for number, part in enumerate(parts, 1):
            if number < len(parts) and feeder.device.type != "cpu":  # made while the GPU works on this one
                feeder.expect(parts[number])
            found.append(fused(feeder.take(part).x).logits.float())
        for part, values in zip(parts, found):
            logits[part] = values.cpu()
    feeder.close()
    distributed.all_reduce_sum(logits)
    if not torch.isfinite(logits).all():
        raise ValueError("the network's logits are not finite: training diverged; lower lr or use precision='fp32'")
    return logits.numpy()


def score(run: Run) -> Scores:
    """Scores of a run's test clips, and of its held-out clips where it has some.

    Processes of one run all score the weights of the first one.
    """
    distributed.broadcast_state(run.model)
    test = _score_subset(run, "test")
    return replace(test, heldout=_score_subset(run, "heldout") if len(run.indices("heldout")) else None)


def _score_subset(run: Run, subset: str) -> Scores:
    indices = run.indices(subset)
    angles = run.config.test_yaw or [0]
    logits = np.zeros((len(indices), run.model.num_classes), np.float32)
    for angle in angles:
        logits += predict(run.model, run.feeder(subset, turned=angle), run.config.test_batch_size) / len(angles)
    return Scores(logits, run.store.labels[indices], run.store.names[indices], run.store.classes, run.epoch)


def mark_copies(scores: Scores, store: SkeletonStore, benchmark: str | None) -> Scores:
    """The scores with `copies` filled in from the store (`bpilib.data.copies`; searched for once per store)."""
    assert benchmark is not None, "a configuration from `resolve` has a benchmark"
    return replace(scores, copies=is_copy(scores.names, store, benchmark))


def summarise_copies(scores: Scores) -> dict[str, object]:
    """The entries of summary.json on copies: their number, and top-1 in % without them where there are some."""
    if scores.copies is None:
        return {}
    out: dict[str, object] = {"test_copies": int(scores.copies.sum())}
    if (rest := scores.without_copies()) is not None:
        out |= {"test_top1_without_copies": rest.top(1), "test_top1_without_copies_interval_95": rest.interval()}
    return out


def evaluate(config: Config, which: str = "best") -> Scores:
    """Score a trained run and, for its selected weights, save scores.npz in its directory.

    Args:
        config: dataset, benchmark, model, modality, seed, tag and outputs name the run.
        which: "best" (the selected epoch) or "last".

    Raises:
        MissingInputError: no such run.
    """
    run = open_run(config, which)
    run.store.verify()
    scores = mark_copies(score(run), run.store, run.config.benchmark)
    if which == "best" and selected_epoch(config) in (None, run.epoch):
        scores.save(config.run_directory / "scores.npz")
    return scores


@dataclass(frozen=True)
class Ensemble:
    """A weighted sum of the logits of several streams; `origin` names the source of the weights."""

    scores: Scores
    weights: dict[str, float]
    origin: str


def ensemble(streams: dict[str, Scores], model: str = "bpi", weights: str | Sequence[float] = "published") -> Ensemble:
    """Add up the weighted logits of streams of the same test clips.

    Args:
        streams: modality → scores.
        model: the network whose published weights are taken.
        weights: "published", "searched" (on held-out scores, never on test), "equal", or numbers in the streams' order.

    Raises:
        ValueError: no streams; streams of different clips; no held-out scores to search on; an unknown name.
    """
    if not streams:
        raise ValueError("no streams to ensemble: run 02 and 03 for at least one modality")
    first, *_ = streams.values()
    for name, scores in streams.items():
        if not np.array_equal(scores.names, first.names) or scores.classes != first.classes:
            raise ValueError(f"stream {name} was scored on other clips or classes than {next(iter(streams))}")
    used, origin = _ensemble_weights(streams, model, weights)
    if len(used) != len(streams):
        raise ValueError(f"weights: expected {len(streams)} numbers, got {len(used)}")
    total = sum(weight * scores.logits for weight, scores in zip(used, streams.values()))
    copies = next((scores.copies for scores in streams.values() if scores.copies is not None), None)
    whole = Scores(np.asarray(total), first.labels, first.names, first.classes, first.epoch, copies=copies)
    return Ensemble(whole, dict(zip(streams, map(float, used))), origin)


def _ensemble_weights(
    streams: dict[str, Scores], model: str, weights: str | Sequence[float]
) -> tuple[Sequence[float], str]:
    """The weights of the streams, and where they come from."""
    if not isinstance(weights, str):
        return weights, "given"
    equal = [1.0] * len(streams)
    if weights == "published":
        published = ensemble_weights(model, list(streams))
        if published is None:
            return equal, f"equal (none published for {model} with {', '.join(streams)})"
        return published, weights
    if weights == "searched":
        return _search_weights(streams), weights
    if weights == "equal":
        return equal, weights
    raise ValueError(f"weights: expected published, searched, equal or numbers, got {weights!r}")


def _search_weights(streams: dict[str, Scores]) -> list[float]:
    """The grid point of the highest held-out top-1; of several, the one nearest to equal weights."""
    held = [scores.heldout for scores in streams.values() if scores.heldout is not None]
    without = [name for name, scores in streams.items() if scores.heldout is None]
    if without:
        raise ValueError(
            f"no held-out scores for {', '.join(without)}: train with the parameter select='heldout' to search "
            "ensemble weights, or use the published ones"
        )
    if any(not np.array_equal(scores.names, held[0].names) for scores in held):
        raise ValueError("the streams' held-out clips differ: train all of them with the same heldout share")
    logits = np.stack([scores.logits for scores in held])  # (S, n, K)
    labels = held[0].labels
    grid = [g for g in itertools.product(np.arange(0, 1.01, 0.1), repeat=len(held)) if max(g) == 1]
    right = [(np.tensordot(g, logits, 1).argmax(1) == labels).mean() for g in grid]
    return list(max(zip(right, grid), key=lambda pair: (pair[0], -np.ptp(pair[1]), pair[1]))[1])


def save_ensemble(folder: str | Path, table: pd.DataFrame, whole: Ensemble) -> None:
    """Write an ensemble's scores.npz and subsets.csv into its folder.

    subsets.csv marks a finished ensemble: no table is ever beside scores that are not its own, and one that was there
    stays until both files are written.

    Args:
        folder: outputs/<dataset>_<benchmark>/<model>_ensemble_seed<seed>.
        table: from `score_subsets`; its last row is the whole.
        whole: from `ensemble`, of all streams.
    """
    folder = Path(folder)
    remove_leftovers(folder)
    scores, subsets = folder / "scores.npz", folder / "subsets.csv"
    write_together({scores: whole.scores.pack(scores), subsets: table.to_csv(index=False)})


def score_subsets(streams: dict[str, Scores], model: str, weights: str = "published") -> pd.DataFrame:
    """One row for every subset of the streams.

    Returns:
        subset, n (streams), weights, origin, top1, low, high (95 % interval), top5; where test clips are copies of
        training clips, also top1_, low_ and high_without_copies. All in %.
    """
    order = [name for name in MODALITIES if name in streams]
    rows = []
    for size in range(1, len(order) + 1):
        for names in itertools.combinations(order, size):
            whole = ensemble({name: streams[name] for name in names}, model, weights if size > 1 else "equal")
            low, high = whole.scores.interval()
            used = ", ".join(f"{w:g}" for w in whole.weights.values())
            row = [" + ".join(names), size, used, whole.origin, whole.scores.top(1), low, high, whole.scores.top(5)]
            if (rest := whole.scores.without_copies()) is not None:
                row += [rest.top(1), *rest.interval()]
            rows.append(row)
    columns = ["subset", "n", "weights", "origin", "top1", "low", "high", "top5"]
    columns += [f"{name}_without_copies" for name in ("top1", "low", "high") if rows and len(rows[0]) > len(columns)]
    return pd.DataFrame(rows, columns=columns)


def format_subsets_for_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `score_subsets` for a paper, as text; for `bpilib.system.tables.write_latex`."""
    rows = {
        "Streams": table["subset"],
        "Weights": table["weights"],
        "Top-1 (%)": [plus_minus(top1, np.nan) for top1 in table["top1"]],
        "95 % interval": [interval(low, high) for low, high in zip(table["low"], table["high"])],
        "Top-5 (%)": [plus_minus(top5, np.nan) for top5 in table["top5"]],
    }
    if "top1_without_copies" in table:
        rows["Without copies (%)"] = [plus_minus(top1, np.nan) for top1 in table["top1_without_copies"]]
    return pd.DataFrame(rows)
