"""Parameters: the published recipes to the number, strict names and types, paths, notebooks."""

import dataclasses
import html
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from bpilib.config import RUN_KEYS, Config, from_notebook, parameter_table, resolve
from bpilib.data.store import Clip, StoreWriter
from bpilib.model import build_model
from bpilib.recipes import BENCHMARKS, ensemble_weights
from bpilib.skeleton import MODALITIES, NTU, UCLA
from bpilib.system import files
from bpilib.system.files import PARAMS
from bpilib.system.tables import text_table

J, B, JM, BM = MODALITIES
LONG, SHORT = [90, 100], [80, 90]
# The published table: models, benchmark and modalities; k, batch, lr, steps, epochs, weight decay.
PUBLISHED = [
    ("bpi", "ntu60 xsub", (J, B), (8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("bpi", "ntu60 xsub", (JM, BM), (8, 1), 64, 0.1, LONG, 110, 2e-4),
    ("bpi", "ntu60 xview", (J, B, JM), (8, 1, 8), 200, 0.1, LONG, 110, 5e-4),
    ("bpi", "ntu60 xview", (BM,), (1,), 64, 0.1, SHORT, 100, 1e-4),
    ("bpi", "ntu120 xsub", (J, B, JM, BM), (8, 1, 8, 1), 64, 0.1, LONG, 110, 2e-4),
    ("bpi", "ntu120 xset", (J, B), (8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("bpi", "ntu120 xset", (JM, BM), (8, 1), 100, 0.1, LONG, 110, 3e-4),
    ("bpi", "ucla xview", (J, B, JM, BM), (6, 1, 6, 1), 32, 0.1, SHORT, 100, 1e-4),
    ("gap", "ntu60 xsub", (J, B, JM, BM), (8, 1, 8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("gap", "ntu60 xview", (J, B, JM, BM), (8, 1, 8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("gap", "ntu120 xsub", (J, B, JM, BM), (8, 1, 8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("gap", "ntu120 xset", (J, B, JM, BM), (8, 1, 8, 1), 200, 0.1, LONG, 110, 5e-4),
    ("gap", "ucla xview", (J, B, JM, BM), (6, 1, 6, 1), 64, 0.2, LONG, 110, 4e-4),
    ("ctrgcn", "ntu60 xsub", (J, B, JM, BM), (None,) * 4, 64, 0.1, [35, 55], 65, 4e-4),
    ("ctrgcn", "ntu60 xview", (J, B, JM, BM), (None,) * 4, 64, 0.1, [35, 55], 65, 4e-4),
    ("ctrgcn", "ntu120 xsub", (J, B, JM, BM), (None,) * 4, 64, 0.1, [35, 55], 65, 4e-4),
    ("ctrgcn", "ntu120 xset", (J, B, JM, BM), (None,) * 4, 64, 0.1, [35, 55], 65, 4e-4),
    ("ctrgcn", "ucla xview", (J, B, JM, BM), (None,) * 4, 16, 0.1, [50], 65, 1e-4),
]
ROWS = [(row[0], *row[1].split(), m, k, *row[4:]) for row in PUBLISHED for m, k in zip(row[2], row[3])]

MAY_BE_NONE = {
    "unseen", "query",
    "k", "threads", "modalities", "export", "export_clips", "tracker", "start_from", "weights_file", "clip_file",
    "pretrained", "heldout_by", "heldout_view", "test_yaw",
    "runs", "workers", "rendezvous", "film", "pose_model",
}  # fmt: skip
NO_PARAMETERS = {PARAMS / "recipes.yaml", PARAMS / "published.yaml", *PARAMS.glob("sweep*.yaml")}


@pytest.fixture(autouse=True)
def no_stores(tmp_path, monkeypatch):
    """Relative paths lie in an empty folder: what is prepared in the checkout says which benchmarks there are."""
    monkeypatch.setattr(files, "PROJECT", tmp_path / "project")


def test_the_table_has_every_published_combination():
    assert len(ROWS) == 3 * 5 * 4 and len({row[:4] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:4]))
def test_a_recipe_resolves_to_exactly_the_published_numbers(row):
    model, dataset, benchmark, modality, k, batch, lr, steps, epochs, decay = row
    c = resolve(model=model, dataset=dataset, benchmark=benchmark, modality=modality)
    ucla = dataset == "ucla"
    assert (c.batch_size, c.lr, c.steps, c.epochs, c.weight_decay) == (batch, lr, steps, epochs, decay)
    assert (c.schedule, c.warmup, c.momentum) == ("step", 5, 0.9)
    assert c.test_batch_size == (64 if ucla else batch)
    assert (c.alpha, c.repeats) == ((1.0, 5) if ucla else (0.8, 1))
    assert (c.width, c.eval_every, c.k) == (64, 1, None)
    network = build_model(model, UCLA if ucla else NTU, 10, modality, k=c.k, width=8)
    assert network.k == k


def test_what_is_given_wins_over_the_recipe():
    c = resolve(dataset="ucla", model="gap", lr=0.03, epochs=7, steps=[3], test_batch_size=5, repeats=2, k=1)
    assert (c.lr, c.epochs, c.steps, c.test_batch_size, c.repeats, c.k) == (0.03, 7, [3], 5, 2, 1)
    assert (c.batch_size, c.weight_decay) == (64, 4e-4)  # the rest as published


def test_nothing_is_left_open_but_what_may_be():
    for dataset, model in itertools.product(BENCHMARKS, ("bpi", "gap", "ctrgcn")):
        c = resolve(dataset=dataset, model=model)
        assert {name for name, value in c.settings().items() if value is None} <= MAY_BE_NONE
        assert c.benchmark == BENCHMARKS[dataset][0]


@pytest.mark.parametrize("path", sorted(set(PARAMS.glob("*.yaml")) - NO_PARAMETERS), ids=lambda p: p.stem)
def test_every_parameter_file_resolves(path):
    given = yaml.safe_load(path.read_text())
    c = resolve(**given)
    assert {name: getattr(c, name) for name in given} == given


def test_there_is_a_parameter_file_for_ucla_and_synthetic():
    assert {"ucla", "synthetic"} <= {path.stem for path in PARAMS.glob("*.yaml")}


# --- strictness


@pytest.mark.parametrize(
    ("name", "near"),
    [("epoch", "epochs"), ("learning_rate", ""), ("batchsize", "batch_size"), ("wieght_decay", "weight_decay"),
     ("Dataset", "dataset")],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, near):
    with pytest.raises(ValueError, match=f"unknown parameter '{name}'") as caught:
        resolve(**{name: 1})
    assert (f"did you mean '{near}'" in str(caught.value)) == bool(near)
    assert "weight_decay" in str(caught.value)  # the known ones are listed


@pytest.mark.parametrize(
    ("name", "value", "near", "expected"),
    [("dataset", "uclaa", "ucla", "ntu120"), ("dataset", "NTU60", "ntu60", "ucla"), ("model", "bpl", "bpi", "ctrgcn"),
     ("modality", "joint motion", "joint_motion", "bone_motion"), ("text", "clipp", "clip", "minilm"),
     ("schedule", "cosin", "cosine", "step"), ("select", "tests", "test", "heldout"),
     ("precision", "float32", "", "fp32"), ("weights", "equals", "equal", "searched")],
)  # fmt: skip
def test_an_unknown_choice_is_refused_with_the_nearest_and_all_known_ones(name, value, near, expected):
    with pytest.raises(ValueError, match=f"parameter {name}: unknown '{value}'") as caught:
        resolve(**{name: value})
    assert f"did you mean '{near}'" in str(caught.value) or not near
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "benchmark"), [("ucla", "xsub"), ("ntu60", "xset"), ("ntu120", "xview"), ("synthetic", "x-view")]
)
def test_an_unknown_benchmark_is_refused_naming_those_of_the_data_set(dataset, benchmark):
    with pytest.raises(ValueError, match=f"benchmark: {dataset} has {', '.join(BENCHMARKS[dataset])}, not"):
        resolve(dataset=dataset, benchmark=benchmark)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", "10"), ("epochs", 10.0), ("epochs", True), ("dataset", 60), ("dataset", None), ("lr", "0.1"),
     ("lr", [0.1]), ("steps", 90), ("steps", (90, 100)), ("steps", [90, "100"]), ("steps", [90.5]), ("seed", None),
     ("clip_trained", 1), ("tag", None), ("modalities", "joint"), ("modalities", [1]), ("download", "yes")],
)  # fmt: skip
def test_a_wrong_type_is_refused_naming_parameter_and_both_types(name, value):
    with pytest.raises(ValueError, match=f"parameter {name}: expected ") as caught:
        resolve(**{name: value})
    assert f"got {type(value).__name__} {value!r}" in str(caught.value)


def test_a_number_that_yaml_read_as_text_comes_with_a_hint():
    given = yaml.safe_load("weight_decay: 1e-4")
    with pytest.raises(ValueError, match=r"parameter weight_decay.*in YAML write 1.0e-4, since 1e-4 arrives as text"):
        resolve(**given)
    assert resolve(**yaml.safe_load("weight_decay: 1.0e-4")).weight_decay == 1e-4
    with pytest.raises(ValueError) as caught:
        resolve(epochs="10")
    assert "1e-4" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"steps": "[1, 2]"}, r"expected list or None, got str '\[1, 2\]': papermill's -p .* with -y, such as -y 'steps"),
     ({"tag": 2}, "expected str, got int 2: papermill's -p .* pass text with -r, such as -r tag 2")],
)  # fmt: skip
def test_what_papermill_passes_as_something_else_comes_with_a_hint(given, said):
    with pytest.raises(ValueError, match=said):
        resolve(**given)


def test_whole_numbers_fit_where_numbers_are_wanted():
    c = resolve(lr=1, alpha=0, outputs=Path("somewhere"))
    assert (c.lr, c.alpha) == (1.0, 0.0) and type(c.lr) is float
    assert c.outputs == str(files.PROJECT / "somewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", -1), ("test_batch_size", 0), ("repeats", 0), ("eval_every", 0), ("clips", 0),
     ("workers", 0), ("cores", 0),
     ("lr", -0.1), ("weight_decay", -1e-4), ("alpha", -1.0), ("warmup", -1), ("seed", -1), ("heldout", 0.0),
     ("heldout", 1.0)],
)  # fmt: skip
def test_an_impossible_value_is_refused(name, value):
    with pytest.raises(ValueError, match=f"parameter {name}: expected"):
        resolve(**{name: value})


@pytest.mark.parametrize("name", ["lr", "weight_decay", "alpha", "heldout"])
def test_not_a_number_is_refused(name):
    with pytest.raises(ValueError, match=f"parameter {name}"):
        resolve(**{name: float("nan")})


@pytest.mark.parametrize("tag", ["../../etc", "a/b", "a\\b", "a b", "ä", "a\n", "x" * 65, "/abs"])
def test_a_tag_that_is_no_plain_name_is_refused(tag):
    with pytest.raises(ValueError, match="parameter tag: expected letters"):
        resolve(tag=tag)


@pytest.mark.parametrize("tag", ["b", "lr_0.05", "..", "v1-2"])
def test_a_tag_stays_in_the_run_directory_s_name(tag):
    c = resolve(tag=tag)
    assert c.run_directory.name == f"bpi_joint_seed0_{tag}"
    assert c.run_directory.resolve().parent == (files.PROJECT / "outputs/ucla_xview").resolve()


def test_ctrgcn_has_no_bone_operator():
    with pytest.raises(ValueError, match="parameter k: ctrgcn has no bone operator"):
        resolve(model="ctrgcn", k=1)
    assert resolve(model="gap", k=1).k == 1


def test_changed_checks_like_resolve():
    c = resolve(dataset="ucla")
    assert c.changed(epochs=3).epochs == 3 and c.epochs == 100
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        c.changed(epoch=3)
    with pytest.raises(ValueError, match="parameter epochs: expected"):
        c.changed(epochs="3")


def test_a_config_can_not_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().epochs = 3


# --- places


def test_relative_paths_lie_in_the_project_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c = resolve(dataset="ucla", outputs="elsewhere", data="d", raw="r", prompts="p.yaml")
    found = (c.outputs, c.data, c.raw, c.prompts)
    assert found == tuple(str(files.PROJECT / name) for name in ("elsewhere", "d", "r", "p.yaml"))
    c = resolve(dataset="ntu120", outputs=tmp_path, data=str(tmp_path / "d"))
    assert (c.outputs, c.data) == (str(tmp_path), str(tmp_path / "d"))
    assert c.raw == str(files.PROJECT / "data/NTU") and c.prompts == str(PARAMS / "prompts/ntu120.yaml")
    assert resolve(outputs="~/x").outputs == str(Path.home() / "x")


def test_raw_can_be_several_places():
    c = resolve(dataset="ntu60", raw=["a.npz", "/b.npz"])
    assert c.raw == [str(files.PROJECT / "a.npz"), "/b.npz"]


# --- a data set of one's own


@pytest.fixture
def own(tmp_path):
    """The parameters of a data set of one's own that is prepared, with a benchmark "half" and another."""
    with StoreWriter(tmp_path / "store", "own", UCLA, ["wave"]) as writer:
        writer.add(Clip("clip", np.ones((3, 1, 20, 3), np.float32), 0))
        writer.finish({name: {"train": [0], "test": []} for name in ("half", "other")}, {})
    return {"dataset": "own", "data": str(tmp_path / "store")}


def test_benchmarks_of_ones_own_come_from_its_store(own):
    assert resolve(**own).benchmark == "half" and resolve(**own, benchmark="other").benchmark == "other"
    with pytest.raises(ValueError, match="benchmark: own has half, other, not 'xsub'"):
        resolve(**own, benchmark="xsub")
    assert resolve(**own).prompts == str(PARAMS / "prompts/own.yaml")
    manifest = Path(own["data"]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"own"', '"ntu60"'))
    assert resolve(**own | {"dataset": "ntu60"}).benchmark == "half"  # imported from a file of one benchmark
    assert resolve(**own | {"dataset": "ntu120"}).benchmark == "xsub"  # opening it says that it is another's
    manifest.write_text("{")
    assert resolve(**own | {"dataset": "ntu60"}).benchmark == "xsub"


def test_a_data_set_of_ones_own_is_known_by_its_store_or_its_raw_clips(own, tmp_path):
    missing = {"dataset": "own", "data": str(tmp_path / "none")}
    with pytest.raises(ValueError, match=r"unknown 'own' .*or a name of your own.*no store of it at .*none"):
        resolve(**missing)
    c = resolve(**missing, raw=str(tmp_path))
    assert (c.benchmark, c.raw) == ("split", str(tmp_path))
    assert resolve(**missing, raw="x", benchmark="a").benchmark == "a"


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "", "a\\b"])
def test_names_of_a_store_that_lead_out_of_outputs_are_refused(name, tmp_path):
    """Also where a prepared store says so itself."""
    manifest = {"dataset": "mine", "counts": {"splits": {name: {}}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="parameter benchmark: expected letters"):
        resolve(dataset="mine", data=str(tmp_path), benchmark=name or None, text="none", device="cpu")
    (tmp_path / "manifest.json").write_text(json.dumps({"dataset": name, "counts": {"splits": {"a": {}}}}))
    with pytest.raises(ValueError, match="parameter dataset: expected letters"):
        resolve(dataset=name, data=str(tmp_path), text="none", device="cpu")


@pytest.mark.parametrize("name", ["NTU60", "my data", "../x", "", ".own", "a" * 65])
def test_names_that_are_none_for_a_data_set(name, tmp_path):
    with pytest.raises(ValueError, match="parameter dataset: unknown"):
        resolve(dataset=name, raw=str(tmp_path))


@pytest.mark.parametrize("model", ["bpi", "gap", "ctrgcn"])
def test_ones_own_data_set_has_a_recipe(own, model):
    c = resolve(**own, model=model)
    assert {name for name, value in c.settings().items() if value is None} <= MAY_BE_NONE
    assert c.steps[-1] < c.epochs and c.batch_size == c.test_batch_size == 64


def test_defaults_of_places():
    c = resolve(dataset="ucla")
    assert c.raw == str(files.PROJECT / "data/NW-UCLA") and c.data == str(files.PROJECT / "data/prepared/ucla")
    assert c.outputs == str(files.PROJECT / "outputs") and c.prompts == str(PARAMS / "prompts/ucla.yaml")


def test_the_run_directory_is_named_by_data_set_benchmark_model_modality_seed_and_tag(tmp_path):
    c = resolve(dataset="ntu60", benchmark="xview", model="gap", modality="bone_motion", seed=3, outputs=tmp_path)
    assert c.run_directory == tmp_path / "ntu60_xview" / "gap_bone_motion_seed3"
    c = resolve(dataset="ntu60", model="ctrgcn", outputs=tmp_path, tag="b")
    assert c.run_directory == tmp_path / "ntu60_xsub" / "ctrgcn_joint_seed0_b"


# --- tables


def test_settings_survive_yaml_and_resolve_to_the_same():
    c = resolve(dataset="ucla", model="gap", modality="bone", lr=0.0123, steps=[2, 4], modalities=["bone", "joint"])
    again = resolve(**yaml.safe_load(yaml.safe_dump(c.settings())))
    assert again == c


def test_result_settings_are_what_numbers_depend_on():
    names = set(resolve().result_settings())
    assert {"dataset", "model", "modality", "seed", "epochs", "lr", "text", "width", "batch_size", "select"} <= names
    assert not {"outputs", "data", "raw", "device", "precision", "test_batch_size", "clips"} & names


def test_devices_change_numbers_by_the_shares_of_batch_norm_alone():
    one, two = resolve(), resolve(devices=2)
    assert one.result_settings() != two.result_settings() == resolve(nodes=2).result_settings()
    assert resolve(devices=2, sync_batchnorm=True).result_settings() == one.result_settings()


def test_a_saved_configuration_may_lack_what_came_later():
    c = resolve(model="gap", epochs=3)
    old = {name: value for name, value in c.settings().items() if name != "devices"} | {"gone": 1}
    with pytest.warns(UserWarning, match=r"gap_joint_seed0 has settings that this version .* not know \(gone: 1\)"):
        assert Config.saved(old) == c


def test_the_tables_have_every_parameter_once_with_its_meaning():
    names = [f.name for f in dataclasses.fields(Config)]
    table = resolve().table()
    assert list(table.index) == names and (table["meaning"].str.len() > 3).all()
    assert table.loc["epochs", "value"] == 100 and table.loc["epochs", "unit"] == "epochs"
    lines = parameter_table().splitlines()
    assert [re.match(r"\| `(\w+)`", line)[1] for line in lines[2:]] == names
    assert {line.count(" |") for line in lines[2:]} == {4}
    assert "cosine" in next(line for line in lines if line.startswith("| `schedule`"))


def test_a_notebook_shows_the_whole_table():
    shown = html.unescape(resolve(tag="shown")._repr_html_())
    for f in dataclasses.fields(Config):
        assert f">{f.name}</th>" in shown and f.metadata["meaning"] in shown
    assert ">shown</td>" in shown and "<td>...</td>" not in shown  # no row left out


def test_a_notebook_shows_first_what_differs_from_the_recipe():
    first, whole = resolve(dataset="ntu60", epochs=3, tag="short", device="cpu")._repr_html_().split("<details>")
    assert re.findall(r">(\w+)</th>", first.partition("<tbody>")[2]) == [*RUN_KEYS, "epochs", "device"]
    assert ">weight_decay</th>" in whole and whole.count("</details>") == 1
    first, _ = resolve(dataset="ntu60")._repr_html_().split("<details>")
    assert re.findall(r">(\w+)</th>", first.partition("<tbody>")[2]) == [*RUN_KEYS]


def test_a_table_of_words_begins_at_the_left_and_names_its_rows_if_they_have_names():
    table = pd.DataFrame({"why": ["<br>", "late"]}, pd.Index(["one", "two"], name="run"))
    shown = text_table(table).to_html()
    assert "text-align: left" in shown and ">&lt;br&gt;</td>" in shown
    assert shown.count("<tr>") == 3 and ">run</th>" in shown and ">two</th>" in shown
    shown = text_table(table.reset_index(drop=True)).to_html()
    assert shown.count("<tr>") == 3 and ">1</th>" not in shown


# --- ensembles


@pytest.mark.parametrize(
    ("model", "modalities", "weights"),
    [("bpi", [J, B, JM, BM], [1, 1.28, 0.5, 0.38]), ("bpi", [J, B], [1, 0.79]), ("bpi", [J, B, JM], [0.6, 0.3, 0.1]),
     ("gap", [J, B, JM, BM], [0.8, 0.8, 0.2, 0.2]), ("bpi", [BM, JM, B, J], [0.38, 0.5, 1.28, 1]),
     ("bpi", [B, J], [0.79, 1]), ("bpi", [J, JM], None), ("bpi", [B, JM, BM], None), ("gap", [J, B], None),
     ("ctrgcn", [J, B, JM, BM], None)],
)  # fmt: skip
def test_published_ensemble_weights_go_with_their_modalities(model, modalities, weights):
    assert ensemble_weights(model, modalities) == weights


# --- notebooks


def notebook(*cells: str, **others: object) -> dict[str, object]:
    """Globals as IPython leaves them after running these cells."""
    namespace: dict[str, object] = {"In": [""], **others}
    for cell in cells:
        namespace["In"].append(cell)
        exec(cell, namespace)
    return namespace


CELL = '# parameters\ndataset = "synthetic"  # ucla, synthetic\nepochs = None\nlr: float = 0.05\ntag = ""\n'


def test_a_notebook_s_parameters_are_read():
    c = from_notebook(notebook("import os", CELL))
    assert (c.dataset, c.epochs, c.lr) == ("synthetic", resolve(dataset="synthetic").epochs, 0.05)


def test_what_papermill_injects_wins():
    c = from_notebook(notebook(CELL, "# Parameters\nepochs = 2\nseed = 7\n"))
    assert (c.dataset, c.epochs, c.lr, c.seed) == ("synthetic", 2, 0.05, 7)


def test_a_name_mistyped_for_papermill_stops_with_the_nearest():
    with pytest.raises(ValueError, match="unknown parameter 'epoch', did you mean 'epochs'"):
        from_notebook(notebook(CELL, "# Parameters\nepoch = 2\n"))


def test_running_the_cell_again_after_other_variables_were_defined_does_no_harm():
    namespace = notebook(CELL)
    first = from_notebook(namespace)
    exec("epoch = 5\nwidth = 3\nmodel = object()\nscores, rows = {}, []", namespace)
    namespace["In"] += ["config = from_notebook(globals())", "epoch = 5\nwidth = 3\nmodel = object()"]
    assert from_notebook(namespace) == first


def test_the_parameters_cell_edited_and_run_again_counts():
    namespace = notebook(CELL, CELL.replace("epochs = None", "epochs = 4"))
    assert from_notebook(namespace).epochs == 4
    namespace = notebook("# parameters\nepoch = 3\n", "# parameters\nepochs = 3\n")  # a mistake put right
    assert from_notebook(namespace).epochs == 3


def test_without_the_parameters_cell_it_says_which_cell_to_run():
    with pytest.raises(ValueError, match="run the cell that begins with '# parameters'"):
        from_notebook(notebook("epochs = 3"))
    with pytest.raises(ValueError, match="run the cell that begins with '# parameters'"):
        from_notebook({"epochs": 3})


# --- seeds


@pytest.mark.parametrize("seed", [2**32, 2**40])
def test_a_seed_that_numpy_can_not_take_is_refused_early(seed):
    with pytest.raises(ValueError, match="parameter seed"):
        resolve(seed=seed)


def test_what_is_left_open_is_shown_as_none():
    shown = resolve(model="ctrgcn")._repr_html_()
    assert ">None</td>" in shown and ">nan</td>" not in shown


def test_files_named_relative_lie_in_the_project_and_none_stays_none():
    data = files.PROJECT / "data"
    c = resolve(weights_file="data/runs-110.pt", clip_file="data/a.json")
    assert (c.weights_file, c.clip_file) == (str(data / "runs-110.pt"), str(data / "a.json"))
    assert resolve().weights_file is None and resolve().clip_file is None
    c = resolve(film="data/a.mp4", pose_model="data/pose.task")
    assert (c.film, c.pose_model) == (str(data / "a.mp4"), str(data / "pose.task"))
    for wrong in ({"people": 0}, {"window_seconds": 0.2}):
        with pytest.raises(ValueError, match="expected at least 1"):
            resolve(**wrong)
    with pytest.raises(ValueError, match="export: unknown 'onx', did you mean 'onnx'"):
        resolve(export="onx")


def test_compile_was_yes_or_no_once():
    assert [resolve(compile=value).compile for value in (False, True, "graph")] == ["none", "default", "graph"]


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"device": "cpu", "compile": "default"}])
def test_triton_is_for_gpus(given):
    assert resolve(device="cpu").kernel == "plain"
    with pytest.raises(ValueError, match="parameter kernel: triton runs on NVIDIA GPUs"):
        resolve(kernel="triton", **given)
