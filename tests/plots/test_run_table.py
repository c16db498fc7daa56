"""The table of a sweep's runs as HTML, and the figure of its seeds."""

import io
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.image import imread

from bpilib.plots import comparison, run_table

STATES = ["waiting", "finished", "running", "failed", "skipped", "interrupted"]


def table(folder, states=STATES, **changes):
    rows = [
        {"dataset": "synthetic", "benchmark": "xview", "model": "bpi", "modality": "joint", "tag": "", "seed": seed,
         "state": state, "epoch": 3, "epochs": 4, "test_top1": 61.25, "starts": 1, "message": "",
         "folder": str(folder / f"run{seed}")}
        for seed, state in enumerate(states)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def seeds_in(page):
    """The seeds in a page, in the order of its rows."""
    return [int(row.split("</td>")[0].rpartition(">")[2]) for row in page.split("<tr>")[2:]]


def test_what_needs_attention_comes_first_and_the_rest_is_counted(tmp_path):
    page = run_table.state_table(table(tmp_path), tmp_path, rows=4)
    assert seeds_in(page) == [2, 3, 5, 1]
    assert "… and 2 more" in page and "<b>6 runs</b>" in page
    whole = run_table.state_table(table(tmp_path), tmp_path, rows=None)
    assert seeds_in(whole) == [0, 1, 2, 3, 4, 5] and "more" not in whole


def test_only_columns_that_differ_are_shown(tmp_path):
    page = run_table.state_table(table(tmp_path), tmp_path)
    assert "3 of 4" in page and "61.2 %" in page and ">seed</th>" in page and ">model</th>" not in page
    assert ">model</th>" in run_table.state_table(table(tmp_path, model=list("abcdef")), tmp_path)
    one = run_table.state_table(table(tmp_path, ["running"], test_top1=float("nan")), tmp_path)
    assert ">model</th>" in one and " %<" not in one


def test_links_lead_to_what_is_there_and_messages_are_escaped(tmp_path):
    for name in ("02_train.ipynb", "run.log"):
        (tmp_path / "run3").mkdir(exist_ok=True)
        (tmp_path / "run3" / name).touch()
    (tmp_path / "notebooks").mkdir()
    page = run_table.state_table(table(tmp_path, message="<b>no</b>"), tmp_path / "notebooks")
    assert page.count("<a ") == 2
    assert 'href="../run3/02_train.ipynb"' in page and 'href="../run3/run.log"' in page
    assert "<b>no" not in page and page.count("&lt;b&gt;no&lt;/b&gt;</span>") == 2  # failed and interrupted
    long = run_table.state_table(table(tmp_path, message="x" * 500), tmp_path)
    assert f">{'x' * 88}…</span>" in long


def test_the_live_table_draws_only_changes_and_leaves_a_page(tmp_path, monkeypatch):
    drawn = []
    place = SimpleNamespace(update=lambda shown: drawn.append(shown.data))
    monkeypatch.setattr(run_table, "display", lambda *_, **__: place)
    live = run_table.LiveTable()
    live.finish(tmp_path / "early.html")  # nothing shown yet, nothing to keep
    assert not (tmp_path / "early.html").exists()
    for states in (STATES, STATES, STATES[::-1]):
        live.update(table(tmp_path, states))
    assert len(drawn) == 2
    live.finish(tmp_path / "runs.html")
    assert len(drawn) == 3 and seeds_in((tmp_path / "runs.html").read_text()) == [0, 1, 2, 3, 4, 5]


def spread(modalities=("joint", "bone", "joint + bone"), std=(2.0, float("nan"), 1.0)):
    same = {"dataset": "synthetic", "benchmark": "xview", "model": "bpi", "tag": ""}
    summary = pd.DataFrame([
        same | {"modality": modality, "n": 3 if deviation == deviation else 1, "mean": 60.0 + 10 * at, "std": deviation}
        for at, (modality, deviation) in enumerate(zip(modalities, std))
    ])  # fmt: skip
    runs = [same | {"modality": m, "top1": 60.0 + 10 * at + d} for at, m in enumerate(modalities) for d in (-1, 1)]
    return pd.DataFrame(runs), summary


def test_the_spread_shows_every_seed_mean_and_deviation():
    runs, summary = spread()
    figure = comparison.seed_spread(runs, summary)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bpi joint", "bpi bone", "bpi joint + bone"]
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["60.0 ± 2.0 %  (n = 3)", "70.0 %  (n = 1)", "80.0 ± 1.0 %  (n = 3)"]
    assert [len(dots.get_offsets()) for dots in ax.collections if hasattr(dots, "get_sizes")][:1] == [2]
    assert imread(io.BytesIO(figure.png())).shape[2] == 4


def test_each_benchmark_has_a_panel():
    runs, summary = spread()
    other = [frame.assign(benchmark="xsub") for frame in (runs, summary)]
    figure = comparison.seed_spread(pd.concat([runs, other[0]]), pd.concat([summary, other[1]]))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["synthetic xview", "synthetic xsub"]


def test_no_rows_to_draw():
    runs, summary = spread()
    with pytest.raises(ValueError, match="no finished runs"):
        comparison.seed_spread(runs[:0], summary[:0])
