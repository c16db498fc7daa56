"""Finished runs and ensembles in outputs/, their means over seeds, and published accuracies.

Accuracies are top-1 in %. Results selected by their accuracy on the test clips have a column of their own.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bpilib.config import Config
from bpilib.evaluate import Scores
from bpilib.metrics import bootstrap
from bpilib.run_keys import RUN_KEYS
from bpilib.system.files import PARAMS, parse_yaml
from bpilib.system.tables import interval, plus_minus

ENSEMBLE = re.compile(r"(?P<model>[a-z]+)_ensemble_seed(?P<seed>\d+)(?:_(?P<tag>.+))?")  # folders of notebook 05
ACCURACY = ("top1", "sd", "low", "high")


@dataclass(frozen=True)
class Result:
    """A finished run, or an ensemble of runs, with its scores.

    Attributes:
        name: its folder in outputs, "ucla_xview/bpi_joint_seed0".
        benchmark: "<dataset>_<benchmark>".
        model, modality: of the run; for an ensemble its streams, joined by " + ".
        seed, tag: of the run.
        settings: everything else that the numbers depend on.
        honest: its epoch was not selected on the test clips, and the weights that it started from were not trained on
            them; False where that is unknown, as of a weight file.
        scores: of the test clips, by the selected epoch.
        best_test: top-1 in % of the epoch that is best on the test clips; None where it is not known, and for an
            ensemble of honest runs.
        texts: hash of the class texts that the run was trained with; "" without any, or where it is not known. Of an
            ensemble: those of its streams.
        environment: machine and software as recorded in summary.json; empty for ensembles, pretrained networks and
            older runs.
    """

    name: str
    benchmark: str
    model: str
    modality: str
    seed: int
    tag: str
    settings: dict[str, Any]
    honest: bool
    scores: Scores
    best_test: float | None
    texts: str = ""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> pd.Series:
        """(n,) bool by clip name, whether the clip was recognised."""
        return pd.Series(self.scores.predictions == self.scores.labels, self.scores.names).sort_index()

    @property
    def labels(self) -> pd.Series:
        """(n,) int64 by clip name."""
        return pd.Series(self.scores.labels, self.scores.names).sort_index()


def find_results(outputs: str | Path) -> tuple[list[Result], pd.DataFrame]:
    """Read every run and ensemble in `outputs`, and list what could not be read.

    Returns:
        Results in the order of their names; a table (run, reason) of the folders that hold no finished run.
    """
    outputs = Path(outputs)
    found: dict[str, Result] = {}
    left_out = []
    for marker, read in (("config.yaml", _read_run), ("subsets.csv", _read_ensemble)):
        for path in sorted(outputs.rglob(marker)):
            name = path.parent.relative_to(outputs).as_posix()
            try:
                found[name] = read(path.parent, name, found)
            except Exception as error:  # whatever is wrong with one folder, the others are still compared
                reason = f"{path.name} or summary.json lacks {error}" if isinstance(error, KeyError) else str(error)
                if not isinstance(error, ValueError | KeyError | OSError | yaml.YAMLError):
                    reason = f"damaged ({error!r:.200})"
                left_out.append((name, " ".join(reason.split())[:500]))
    return [found[name] for name in sorted(found)], pd.DataFrame(left_out, columns=["run", "reason"])


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Within it, what is wrong with a file's content is said with the file's name."""
    try:
        yield
    except (KeyError, OSError):  # whose message has it
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {error}") from error
    except Exception as error:
        raise ValueError(f"{file}: damaged ({error!r:.200})") from error


def _read_run(folder: Path, name: str, _: dict[str, Result]) -> Result:
    with _named("config.yaml"):
        saved = parse_yaml((folder / "config.yaml").read_bytes())
        known = Config.saved(saved)
    settings = {key: value for key, value in known.result_settings().items() if key not in RUN_KEYS}
    naming = (f"{known.dataset}_{known.benchmark}", known.model, known.modality, known.seed, known.tag)
    if known.pretrained or known.weights_file:  # trained elsewhere: there is no more than scores
        if not (folder / "scores.npz").exists():
            raise ValueError("weights from elsewhere that were not evaluated: run 03_evaluate.ipynb with them")
        scores = _read_scores(folder)
        honest = bool(known.pretrained) and known.select != "test"
        return Result(name, *naming, settings, honest, scores, None if honest else scores.top(1))
    if not (folder / "summary.json").exists():
        rows = (folder / "metrics.csv").read_text().count("\n") - 1 if (folder / "metrics.csv").exists() else 0
        done = f"unfinished, {rows} of {saved['epochs']} epochs"
        raise ValueError(f"{done}: run 02_train.ipynb with its parameters again to go on")
    with _named("summary.json"):
        summary = json.loads((folder / "summary.json").read_text())
        best = float(summary["best_test_epoch_as_published"]["test_top1"])
    scores = _read_scores(folder)
    if (epoch := summary.get("selected_epoch", scores.epoch)) != scores.epoch:
        raise ValueError(f"scores.npz is of epoch {scores.epoch}, summary.json of {epoch}: run 03_evaluate.ipynb again")
    environment = summary.get("environment", {})
    if not isinstance(environment, dict):
        raise ValueError(f"summary.json: expected a mapping as environment, got {environment!r:.80}")
    started = known.start_from is None or summary.get("start_from_clips") in ("known", "other data set")
    honest, texts = known.select != "test" and started, str(environment.get("text_digest", ""))
    return Result(name, *naming, settings, honest, scores, best, texts, environment)


def _read_ensemble(folder: Path, name: str, found: dict[str, Result]) -> Result:
    """Read an ensemble of notebook 05; it is honest if all its streams are."""
    match = ENSEMBLE.fullmatch(folder.name)
    if not match:
        raise ValueError(f"expected a folder <model>_ensemble_seed<seed>, got {folder.name}")
    table = pd.read_csv(folder / "subsets.csv")
    again = "run 05_ensemble.ipynb again"
    if not len(table) or not (folder / "scores.npz").exists():
        raise ValueError(f"an ensemble without its scores or its table: {again}")
    whole = table.iloc[-1]
    streams = whole["subset"].split(" + ")
    runs = [str(Path(name).with_name(folder.name.replace("_ensemble_", f"_{stream}_"))) for stream in streams]
    if len(streams) == 1:
        raise ValueError("an ensemble of one stream, which is listed by itself: run 05_ensemble.ipynb with more")
    if lost := [run for run in runs if run not in found]:
        names = ", ".join(lost)
        raise ValueError(f"an ensemble of {names}, no finished run here: how its epoch was selected is unknown")
    honest = all(found[run].honest for run in runs)
    settings = {"weights": whole["weights"], "origin": whole["origin"]}
    scores = _read_scores(folder)
    if abs(float(whole["top1"]) - scores.top(1)) > 1e-6:
        raise ValueError(f"subsets.csv says top-1 {whole['top1']} %, scores.npz {scores.top(1)} %: {again}")
    naming = (found[runs[0]].benchmark, match["model"], whole["subset"], int(match["seed"]), match["tag"] or "")
    texts = " ".join(filter(None, dict.fromkeys(found[run].texts for run in runs)))
    return Result(name, *naming, settings, honest, scores, None if honest else scores.top(1), texts)


def _read_scores(folder: Path) -> Scores:
    """Read scores.npz and check that its arrays fit each other."""
    scores = Scores.load(folder / "scores.npz")
    kinds = (scores.logits.dtype.kind, scores.labels.dtype.kind, scores.names.dtype.kind)
    if kinds != ("f", "i", "U") or not all(isinstance(name, str) for name in scores.classes):
        raise ValueError(f"{folder / 'scores.npz'}: expected float logits, int labels, and names as text, got others")
    count = len(scores.labels)
    classes = len(scores.classes)
    if scores.labels.ndim != 1 or scores.names.ndim != 1:
        raise ValueError(f"{folder / 'scores.npz'}: expected one label and one name a clip, got others")
    if scores.logits.shape != (count, classes) or len(set(scores.names.tolist())) != count or not count:
        raise ValueError(f"{folder / 'scores.npz'}: expected {classes} logits for each of {count} clips, got others")
    if scores.copies is not None and (scores.copies.shape != (count,) or scores.copies.dtype != bool):
        raise ValueError(f"{folder / 'scores.npz'}: expected one bool for each of {count} clips in copies")
    if not 0 <= scores.labels.min() <= scores.labels.max() < classes or not np.isfinite(scores.logits).all():
        raise ValueError(f"{folder / 'scores.npz'}: labels without a class, or logits that are not finite")
    return scores


def load_published(path: str | Path = PARAMS / "published.yaml") -> pd.DataFrame:
    """Read published accuracies: one row for each method, set of streams and benchmark.

    Returns:
        benchmark, method, model ("" where it is none of ours), streams, low, high (%; equal where a single number was
        published), select (how the epoch was selected), source.

    Raises:
        ValueError: an entry without one of the keys.
    """
    rows = []
    for entry in parse_yaml(Path(path).read_bytes())["figures"]:
        if missing := {"method", "streams", "select", "source", "top1"} - {*entry}:
            raise ValueError(f"{path}: {entry.get('method', entry)} lacks {', '.join(sorted(missing))}")
        streams = entry["streams"]
        for benchmark, top1 in entry["top1"].items():
            low, high = top1 if isinstance(top1, list) else (top1, top1)
            rows.append(
                {
                    "benchmark": benchmark,
                    "method": entry["method"],
                    "model": entry.get("model", ""),
                    "streams": " + ".join(streams) if isinstance(streams, list) else f"{streams} streams",
                    "low": float(low),
                    "high": float(high),
                    "select": entry["select"],
                    "source": entry["source"],
                }
            )
    columns = ["benchmark", "method", "model", "streams", "low", "high", "select", "source"]
    return pd.DataFrame(rows, columns=columns)


def label_result(result: Result) -> str:
    """Name a result in a figure by model and streams, "bpi joint + bone", with the tag if there is one."""
    return f"{result.model} {result.modality}" + (f" ({result.tag})" if result.tag else "")


def label_results(results: Sequence[Result]) -> dict[str, str]:
    """Label every result: `Result.name` → `label_result`, or the name of its folder if several have the same label."""
    short = [label_result(result) for result in results]
    return {r.name: text if short.count(text) == 1 else Path(r.name).name for r, text in zip(results, short)}


def group_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Group results that differ in nothing but the seed, and were scored on the same clips.

    Where they are known to be of several class texts, those of which it is not known are a group of their own.
    """
    together: dict[str, list[Result]] = {}
    for result in results:
        clips = hash((*result.labels.items(), *result.scores.classes))
        key = (result.benchmark, result.model, result.modality, result.tag, result.settings, clips)
        together.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(result)
    groups = []
    for group in together.values():
        by_texts: dict[str, list[Result]] = {}
        for result in group:
            by_texts.setdefault(result.texts, []).append(result)
        several = len({*by_texts} - {""}) > 1
        groups += list(by_texts.values()) if several else [group]
    return groups


def remove_copies(results: Sequence[Result]) -> list[Result]:
    """Restrict results to the test clips that are not copies of training clips, in benchmarks that have copies.

    Scores written before copies were looked for don't mark them: the marks of other results of the benchmark are used.
    """
    copies: dict[str, set[str]] = {}
    for result in results:
        if result.scores.copies is not None:
            found = copies.setdefault(result.benchmark, set())
            found |= {*result.scores.names[result.scores.copies].tolist()}
    out = []
    for result in results:
        keep = ~np.isin(result.scores.names, [*copies.get(result.benchmark, ())])
        if copies.get(result.benchmark) and keep.any():
            out.append(replace(result, scores=result.scores.only(keep)))
    return out


def describe_copies(results: Sequence[Result]) -> str:
    """Say in one line how many test clips of a benchmark are copies of training clips, from its results."""
    known = [result.scores.copies for result in results if result.scores.copies is not None]
    if not known:
        return "copies of training clips among the test clips: not known, run notebooks/03_evaluate.ipynb again"
    most = max(known, key=np.sum)
    count = f"{most.sum()} of the {len(most)} test clips are copies of training clips"
    return count if most.any() else "no test clip is a copy of a training clip"


def summarise(results: Sequence[Result], published: pd.DataFrame) -> pd.DataFrame:
    """Tabulate accuracies, one row per group of seeds: honest ones, ones selected on the test clips, published ones.

    Args:
        results: from `find_results`.
        published: from `load_published`.

    Returns:
        benchmark, name (`label_result`), settings (that differ within one name, the hash of the texts among them), n
        (seeds), clips; top1, sd (NaN for n = 1), low, high: mean, standard deviation and 95 % interval of honest runs,
        NaN for others; best_test: mean of the best test epochs; published: text, "" where there is none.
        The interval is Wilson's for one run, as in notebook 03; for several, a bootstrap over clips of their mean
        accuracy. Where test clips are copies of training clips: clips, top1, sd, low and high again without them, in
        columns clips_without_copies and so on.
    """
    rows = []
    clean = {result.name: result for result in remove_copies(results)}
    every = group_seeds(results)
    for group in every:
        first = group[0]
        alike = [
            other[0]
            for other in every
            if label_result(other[0]) == label_result(first) and other[0].benchmark == first.benchmark
        ]
        differ = [
            f"{key} {value}"
            for key, value in first.settings.items()
            if any(other.settings.get(key) != value for other in alike)
        ]
        if len({other.texts for other in alike} - {""}) > 1:
            differ.append(f"texts {max(result.texts for result in group)[:8] or 'not known'}")
        top1, sd, low, high = _measure_accuracy(group) if first.honest else (np.nan,) * 4
        best = [result.best_test for result in group if result.best_test is not None]
        same = published[
            (published.benchmark == first.benchmark)
            & (published.model == first.model)
            & (published.streams == first.modality)
        ]
        texts = [f"{row.low:g}" + (f"–{row.high:g}" if row.high > row.low else "") for row in same.itertuples()]
        rows.append(
            {
                "benchmark": first.benchmark,
                "name": label_result(first),
                "settings": ", ".join(differ),
                "n": len(group),
                "clips": len(first.scores.labels),
                "top1": top1,
                "sd": sd,
                "low": low,
                "high": high,
                "best_test": float(np.mean(best)) if best else np.nan,
                "published": "; ".join(texts),
            }
        )
        rest = [clean[result.name] for result in group if first.honest and result.name in clean]
        numbers = (len(rest[0].scores.labels), *_measure_accuracy(rest)) if rest else (np.nan,) * 5
        rows[-1] |= {f"{key}_without_copies": value for key, value in zip(("clips", *ACCURACY), numbers)}
    columns = "benchmark name settings n clips top1 sd low high best_test published".split()
    columns += [f"{key}_without_copies" for key in ("clips", *ACCURACY) if clean]
    return pd.DataFrame(rows, columns=columns).sort_values(["benchmark", "name"], ignore_index=True)


def format_for_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of `summarise` for a paper, all cells as text; for `bpilib.system.tables.write_latex`."""
    rows = []
    for row in table.to_dict("records"):
        cells = {
            "Benchmark": row["benchmark"],
            "Model and streams": row["name"] + (f" ({row['settings']})" if row["settings"] else ""),
            "Seeds": row["n"],
            "Top-1 (%)": plus_minus(row["top1"], row["sd"]),
            "95 % interval": interval(row["low"], row["high"]),
            "Best test epoch (%)": plus_minus(row["best_test"], np.nan),
            "Published (%)": row["published"] or "–",
        }
        if "top1_without_copies" in table:
            cells["Without copies (%)"] = plus_minus(row["top1_without_copies"], row["sd_without_copies"])
        rows.append(cells)
    return pd.DataFrame(rows)


def _measure_accuracy(group: list[Result]) -> tuple[float, float, float, float]:
    """Mean, standard deviation and 95 % interval of the accuracy of runs that differ in the seed."""
    top1 = [result.scores.top(1) for result in group]
    if len(group) == 1:
        return top1[0], np.nan, *group[0].scores.interval()
    clips = pd.concat([result.right for result in group], axis=1).mean(axis=1)
    return float(np.mean(top1)), float(np.std(top1, ddof=1)), *bootstrap(clips.to_numpy(float))
