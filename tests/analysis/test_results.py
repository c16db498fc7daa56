import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from killing import killed_at
from making import save_result

from bpilib import evaluate
from bpilib.analysis.results import (
    describe_copies,
    find_results,
    format_for_paper,
    group_seeds,
    label_result,
    label_results,
    load_published,
    remove_copies,
    summarise,
)
from bpilib.evaluate import Scores
from bpilib.recipes import BENCHMARKS


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


def published(*rows):
    names = ["benchmark", "method", "model", "streams", "low", "high", "select", "source"]
    return pd.DataFrame(rows, columns=names)


def test_a_run_is_read_with_what_it_is_called_by_and_how_it_was_chosen(outputs):
    save_result(outputs, [True, True, False, True], modality="bone", seed=3, tag="b", best_test=90.0)
    save_result(outputs, [True] * 4, select="test", best_test=100.0)
    (honest, chosen), left_out = find_results(outputs)
    assert honest.name == "synthetic_xview/bpi_bone_seed3_b" and left_out.empty
    assert (honest.benchmark, honest.model, honest.modality, honest.seed, honest.tag) == (
        "synthetic_xview",
        "bpi",
        "bone",
        3,
        "b",
    )
    assert honest.honest and not chosen.honest
    assert honest.best_test == 90 and honest.scores.top(1) == 75
    assert not {"seed", "tag", "model", "data"} & {*honest.settings} and honest.settings["epochs"] == 10
    assert label_result(honest) == "bpi bone (b)"


@pytest.mark.parametrize(
    ("given", "honest"),
    [({"pretrained": "ucla_bpi_joint"}, True), ({"pretrained": "someone/net", "select": "test"}, False),
     ({"weights_file": "net.pt"}, False)],
)  # fmt: skip
def test_weights_from_elsewhere_are_compared_by_their_scores_as_honest_as_is_known(outputs, given, honest):
    folder = save_result(outputs, [True, True, False, True], tag="there", **given)
    (folder / "summary.json").unlink()  # nothing was trained here
    (result,), left_out = find_results(outputs)
    assert left_out.empty and result.honest is honest and label_result(result) == "bpi joint (there)"
    assert result.best_test == (None if honest else 75) and result.environment == {}
    row = summarise([result], published()).iloc[0]
    assert (row["top1"], row["best_test"]) == pytest.approx((75, np.nan) if honest else (np.nan, 75), nan_ok=True)
    (folder / "scores.npz").unlink()
    none, left_out = find_results(outputs)
    assert none == [] and "were not evaluated: run 03_evaluate.ipynb with them" in left_out["reason"][0]


@pytest.mark.parametrize(
    ("noted", "honest"),
    [("known", True), ("other data set", True), ("unknown", False), ("test-selected", False), (None, False)],
)
def test_a_run_is_as_honest_as_the_weights_it_started_from(outputs, noted, honest):
    folder = save_result(outputs, [True, False], start_from="outputs/a")
    summary = json.loads((folder / "summary.json").read_text())
    if noted:  # older runs did not look
        (folder / "summary.json").write_text(json.dumps(summary | {"start_from_clips": noted}))
    (result,), _ = find_results(outputs)
    assert result.honest is honest


def test_right_is_in_the_order_of_names_whatever_that_of_the_file(outputs):
    save_result(outputs, [True, False, True], names=["c", "a", "b"])
    (result,), _ = find_results(outputs)
    assert result.right.to_dict() == {"a": False, "b": True, "c": True}
    assert [*result.right.index] == ["a", "b", "c"]


def damage(folder, name, content):
    (folder / name).write_bytes(content) if content is not None else (folder / name).unlink()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", None, "unfinished, 2 of 10 epochs: run 02_train.ipynb"),
        ("summary.json", b"{", "Expecting"),
        ("summary.json", b"{}", "lacks 'best_test_epoch_as_published'"),
        ("summary.json", b"[]", "list"),
        ("scores.npz", None, "03_evaluate.ipynb"),
        ("scores.npz", b"PK\x03\x04 cut", "is damaged"),
        ("config.yaml", b"a: [", "expected"),
        ("config.yaml", b"", "NoneType"),
        ("config.yaml", b"\xff\xfe\xff", "unacceptable character"),
        ("summary.json", b'{"best_test_epoch_as_published": {"test_top1": [1]}}', "damaged (TypeError("),
        ("summary.json", b'{"best_test_epoch_as_published": {"test_top1": 1}, "environment": 3}', "expected a mapping"),
        ("summary.json", b"[" * 100_000, "damaged (RecursionError("),
    ],
)
def test_what_is_damaged_or_unfinished_is_listed_with_the_reason(outputs, name, content, reason):
    folder = save_result(outputs, [True, False])
    (folder / "metrics.csv").write_text("epoch\n1\n2\n")
    save_result(outputs, [True, False], seed=1)
    damage(folder, name, content)
    results, left_out = find_results(outputs)
    assert [result.seed for result in results] == [1]
    assert left_out["run"].tolist() == ["synthetic_xview/bpi_joint_seed0"]
    assert reason in left_out["reason"][0] and "\n" not in left_out["reason"][0]
    assert name in left_out["reason"][0] or "unfinished" in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("tag", "<img src=x onerror=alert(1)>"), ("tag", "a/b"), ("dataset", "../up"), ("seed", "1"), ("model", ["bpi"])],
)
def test_settings_that_no_parameter_can_have_are_refused(outputs, name, value):
    folder = save_result(outputs, [True, False])
    save_result(outputs, [True, False], seed=1)
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(content | {name: value}))
    results, left_out = find_results(outputs)
    assert [result.seed for result in results] == [1]
    assert f"parameter {name}: expected" in left_out["reason"][0]


@pytest.mark.parametrize("wrong", ["twice", "labels", "infinite", "shape", "classes", "flat"])
def test_scores_that_do_not_fit_themselves_are_left_out(outputs, wrong):
    folder = save_result(outputs, [True, False, True])
    with np.load(folder / "scores.npz") as archive:
        arrays = dict(archive)
    if wrong == "twice":
        arrays["names"] = np.array(["a", "a", "b"])
    elif wrong == "labels":
        arrays["labels"] = np.array([0, 1, 9])
    elif wrong == "classes":
        arrays["classes"] = np.array([["bow", "kick", "wave"]])
    elif wrong == "flat":
        arrays["labels"] = arrays["labels"][:, None]
    elif wrong == "infinite":
        arrays["logits"][0, 0] = np.inf
    else:
        arrays["logits"] = arrays["logits"][:2]
    np.savez(folder / "scores.npz", **arrays)
    results, left_out = find_results(outputs)
    assert not results and "scores.npz" in left_out["reason"][0]


def save_ensemble(outputs, subset, name="bpi_ensemble_seed0"):
    folder = save_result(outputs, [True, True, True, False], modality="joint_motion")
    scores = Scores.load(folder / "scores.npz")
    folder = folder.rename(folder.with_name(name))
    scores.save(folder / "scores.npz")
    for file in ("config.yaml", "summary.json"):
        (folder / file).unlink()
    table = {"subset": ["joint", subset], "weights": ["1", "1, 0.79"], "origin": "published"}
    pd.DataFrame(table | {"top1": [50.0, scores.top(1)]}).to_csv(folder / "subsets.csv", index=False)


@pytest.mark.parametrize("select", ["last", "test"])
def test_an_ensemble_is_as_honest_as_its_streams(outputs, select):
    save_result(outputs, [True] * 4)
    save_result(outputs, [True] * 4, modality="bone", select=select)
    save_ensemble(outputs, "joint + bone")
    results, _ = find_results(outputs)
    whole = next(result for result in results if result.modality == "joint + bone")
    assert whole.honest == (select == "last") and whole.best_test == (None if select == "last" else 75)
    row = summarise([whole], published()).iloc[0]
    assert (row.top1 == 75) == (select == "last") and (row.best_test == 75) == (select == "test")


@pytest.mark.parametrize(
    ("subset", "name", "reason"),
    [
        ("joint + bone", "bpi_ensemble_seed0", "bpi_bone_seed0, no finished run"),
        ("joint", "bpi_ensemble_seed0", "one stream"),
        ("joint + bone", "whole", "expected a folder"),
    ],
)
def test_ensembles_of_unknown_origin_are_left_out(outputs, subset, name, reason):
    save_result(outputs, [True] * 4)
    save_ensemble(outputs, subset, name)
    results, left_out = find_results(outputs)
    assert len(results) == 1 and reason in left_out["reason"][0]


def test_seeds_share_a_row_and_other_settings_or_clips_do_not(outputs):
    for seed, right in enumerate(([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0])):
        save_result(outputs, [bool(r) for r in right], seed=seed, best_test=80.0 + seed)
    save_result(outputs, [True] * 4, seed=4, epochs=20)
    save_result(outputs, [True] * 4, seed=5, names=list("wxyz"))
    save_result(outputs, [True] * 4, seed=6, tag="b")
    results, _ = find_results(outputs)
    assert sorted(len(group) for group in group_seeds(results)) == [1, 1, 1, 3]
    table = summarise(results, published())
    row = table[table.n == 3].iloc[0]
    assert (row.top1, row.sd, row.clips, row.best_test) == (50, 25, 4, 81)
    assert row.low < 50 < row.high and row.settings == "epochs 10"
    one = table[(table.n == 1) & (table.settings == "epochs 20")].iloc[0]
    assert np.isnan(one.sd) and (one.low, one.high) == results[-1].scores.interval()  # all right, as here


def test_seeds_of_other_texts_are_not_averaged(outputs):
    for seed, digest in enumerate(("aaaaaaaaaa", "aaaaaaaaaa", "bbbbbbbbbb")):
        save_result(outputs, [True, False], seed=seed, environment={"text_digest": digest})
    results, _ = find_results(outputs)
    assert [[result.seed for result in group] for group in group_seeds(results)] == [[0, 1], [2]]
    assert summarise(results, published())["settings"].tolist() == ["texts aaaaaaaa", "texts bbbbbbbb"]
    save_result(outputs, [True, False], seed=3)  # of an older version
    results, _ = find_results(outputs)
    assert [len(group) for group in group_seeds(results)] == [2, 1, 1]
    assert [len(group) for group in group_seeds([*results[:2], results[3]])] == [3]


def test_what_was_selected_on_the_test_clips_stays_out_of_the_honest_column(outputs):
    save_result(outputs, [True, False], select="test", best_test=50.0)
    save_result(outputs, [True, False], seed=1, best_test=60.0)
    table = summarise(find_results(outputs)[0], published())
    assert len(table) == 2  # never in one mean
    chosen, honest = table.iloc[table.top1.isna().argsort()[::-1]].itertuples()
    assert np.isnan([chosen.top1, chosen.low, chosen.high]).all() and chosen.best_test == 50
    assert honest.top1 == 50 and honest.best_test == 60


def test_published_figures_stand_beside_the_same_model_and_streams_alone(outputs):
    save_result(outputs, [True, False], model="ctrgcn")
    save_result(outputs, [True, False])
    theirs = published(
        ("synthetic_xview", "A", "ctrgcn", "joint", 94.6, 94.6, "", ""),
        ("synthetic_xview", "A again", "ctrgcn", "joint", 93.5, 94.8, "", ""),
        ("synthetic_xview", "A", "ctrgcn", "bone", 80.0, 80.0, "", ""),
        ("ucla_xview", "A", "ctrgcn", "joint", 70.0, 70.0, "", ""),
    )
    table = summarise(find_results(outputs)[0], theirs).set_index("name")["published"]
    assert table.to_dict() == {"bpi joint": "", "ctrgcn joint": "94.6; 93.5–94.8"}


def test_the_published_file_holds_what_the_papers_say():
    table = load_published()
    at = table.set_index(["method", "benchmark", "streams"])
    four = "joint + bone + joint_motion + bone_motion"
    assert at.loc[("CTR-GCN", "ntu120_xset", four), "low"] == 90.6
    assert at.loc[("GAP", "ucla_xview", four), "low"] == 97.2
    assert at.loc[("ProtoGCN", "ntu60_xview", "6 streams"), "high"] == 97.8
    assert tuple(at.loc[("CTR-GCN, public code", "ucla_xview", "joint"), ["low", "high"]]) == (93.5, 94.8)
    known = {f"{name}_{protocol}" for name, protocols in BENCHMARKS.items() for protocol in protocols}
    assert {*table.benchmark} <= known and (table.low <= table.high).all() and table.source.str.len().min() > 5


def test_a_published_entry_without_a_source_is_refused(tmp_path):
    entry = {"method": "X", "streams": 1, "select": "", "top1": {"ucla_xview": 1}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"figures": [entry]}))
    with pytest.raises(ValueError, match="X lacks source"):
        load_published(tmp_path / "p.yaml")


def test_labels_fall_back_to_folders_where_they_would_be_the_same(outputs):
    for seed in (0, 1):
        save_result(outputs, [True], seed=seed)
    save_result(outputs, [True], modality="bone")
    names = label_results(find_results(outputs)[0])
    assert sorted(names.values()) == ["bpi bone", "bpi_joint_seed0", "bpi_joint_seed1"]


def test_nothing_there_is_nothing_found(outputs):
    results, left_out = find_results(outputs)
    assert results == [] and left_out.empty
    assert json.loads(summarise([], load_published()).to_json()) is not None


def test_accuracy_is_given_again_without_copies_where_there_are_some(outputs):
    right = [True, True, False, True, False, False, True, True]
    save_result(outputs, right, copies=["clip0", "clip1"])
    save_result(outputs, [not r for r in right], seed=1, copies=["clip0", "clip1"])
    save_result(outputs, right, model="gap", select="test", copies=["clip0", "clip1"])
    save_result(outputs, right, model="ctrgcn", epochs=7)  # scored before copies were looked for
    save_result(outputs, right, dataset="ucla", copies=[])
    results, _ = find_results(outputs)
    table = summarise(results, published()).set_index(["benchmark", "name"])
    bpi, old = table.loc[("synthetic_xview", "bpi joint")], table.loc[("synthetic_xview", "ctrgcn joint")]
    assert (bpi["n"], bpi["clips"], bpi["clips_without_copies"]) == (2, 8, 6)
    assert bpi["top1"] == 50 and bpi["top1_without_copies"] == 50
    assert bpi["sd_without_copies"] == pytest.approx(0, abs=1e-9) and bpi["sd"] == pytest.approx(25 / 2**0.5)
    assert old["top1"] == 62.5 and old["top1_without_copies"] == 50 and old["clips_without_copies"] == 6
    alone = next(result for result in remove_copies(results) if result.model == "ctrgcn")
    assert (old["low_without_copies"], old["high_without_copies"]) == alone.scores.interval()
    for row in (("synthetic_xview", "gap joint"), ("ucla_xview", "bpi joint")):  # not honest; nothing to leave out
        assert table.loc[row][[name for name in table if name.endswith("_without_copies")]].isna().all()
    assert [*table.columns[:9]] == "settings n clips top1 sd low high best_test published".split()


def test_without_copies_there_is_no_second_column(outputs):
    save_result(outputs, [True, False], copies=[])
    save_result(outputs, [True, True], seed=1)
    results, _ = find_results(outputs)
    assert remove_copies(results) == []
    assert [*summarise(results, published())][-1] == "published"
    assert describe_copies(results) == "no test clip is a copy of a training clip"
    assert "not known" in describe_copies(results[1:])


def test_copies_are_said_and_left_out_by_name_whatever_the_order(outputs):
    save_result(outputs, [True, False, True], copies=["a"], names=["c", "a", "b"])
    save_result(outputs, [True, True, False], seed=1, names=["a", "b", "c"], labels=[1, 2, 0])
    results, _ = find_results(outputs)
    assert [sorted(r.scores.names.tolist()) for r in remove_copies(results)] == [["b", "c"]] * 2
    assert [r.scores.top(1) for r in remove_copies(results)] == [100, 50]
    assert describe_copies(results) == "1 of the 3 test clips are copies of training clips"
    save_result(outputs, [True, True], seed=2, copies=["clip0", "clip1"])  # nothing is left of it
    assert len(remove_copies(find_results(outputs)[0])) == 2


def test_an_ensemble_that_is_killed_stays_as_it_was_or_is_made_again(outputs):
    joint = save_result(outputs, [True, True, False, True])
    bone = save_result(outputs, [True, False, True, True], modality="bone")
    streams = {name: Scores.load(folder / "scores.npz") for name, folder in (("joint", joint), ("bone", bone))}
    folder, seen, point = joint.with_name("bpi_ensemble_seed0"), [], 1
    made = [(evaluate.score_subsets(streams, "bpi", kind), evaluate.ensemble(streams, "bpi", kind))
            for kind in ("published", "equal")]  # fmt: skip
    while True:
        evaluate.save_ensemble(folder, *made[0])
        if not killed_at(point, lambda: evaluate.save_ensemble(folder, *made[1])):
            break
        results, _ = find_results(outputs)
        seen.append(len(results))
        if len(results) == 3:  # the table is there, and beside it the scores that it was there with
            assert pd.read_csv(folder / "subsets.csv").equals(pd.read_csv(io.StringIO(made[0][0].to_csv(index=False))))
            assert np.array_equal(Scores.load(folder / "scores.npz").logits, made[0][1].scores.logits)
        evaluate.save_ensemble(folder, *made[1])
        results, left_out = find_results(outputs)
        assert len(results) == 3 and left_out.empty
        assert sorted(path.name for path in folder.iterdir()) == ["scores.npz", "subsets.csv"]
        point += 1
    assert len(seen) > 4 and seen == [3] * (len(seen) - 2) + [2] * 2  # gone while two files take their places


def test_a_table_and_scores_of_two_ensembles_are_left_out(outputs):
    save_result(outputs, [True] * 4)
    save_result(outputs, [True] * 4, modality="bone")
    save_ensemble(outputs, "joint + bone")
    folder = outputs / "synthetic_xview" / "bpi_ensemble_seed0"
    table = pd.read_csv(folder / "subsets.csv")
    table.assign(top1=table["top1"] + 1).to_csv(folder / "subsets.csv", index=False)
    assert "run 05_ensemble.ipynb again" in find_results(outputs)[1]["reason"][0]
    table[:0].to_csv(folder / "subsets.csv", index=False)
    assert "without its scores or its table" in find_results(outputs)[1]["reason"][0]
    table.to_csv(folder / "subsets.csv", index=False)
    (folder / "scores.npz").unlink()
    assert "without its scores or its table" in find_results(outputs)[1]["reason"][0]


def test_the_table_of_a_paper(outputs):
    for seed, right in enumerate(([1, 1, 1, 0], [1, 1, 0, 0])):
        save_result(outputs, [bool(r) for r in right], seed=seed, best_test=80.0)
    save_result(outputs, [True] * 4, model="gap", select="test")
    table = format_for_paper(summarise(find_results(outputs)[0], published()))
    assert table["Top-1 (%)"].tolist() == ["62.50 ± 17.68", "–"]
    assert table["Seeds"].tolist() == [2, 1] and table["Best test epoch (%)"][0] == "80.00"
    assert table["95 % interval"][1] == "–"
