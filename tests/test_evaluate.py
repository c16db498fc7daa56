"""Scores and their metrics against scikit-learn and by hand; ensembles that never look at test labels."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making import plant_copies, synthetic_store, tiny_config, write_prompts
from noise import assert_float32_of
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from bpilib.errors import MissingInputError
from bpilib.evaluate import Scores, ensemble, evaluate, predict, score, score_subsets, summarise_copies
from bpilib.runs import build, open_run
from bpilib.skeleton import MODALITIES
from bpilib.train import fit

SUBJECTS = 2  # of `place`
CLASSES = [f"class {i}" for i in range(10)]
J, B, JM, BM = MODALITIES


def scores(seed=0, n=200, strength=1.0, heldout=0, **changes):
    """Logits that favour the right class the more, the higher `strength`; labels are the same for every seed."""
    rng, labels = np.random.default_rng(seed), np.random.default_rng(99).integers(0, 10, n)
    logits = (rng.standard_normal((n, 10)) + strength * np.eye(10)[labels]).astype(np.float32)
    names = np.array([f"clip{i}" for i in range(n)])
    held = None
    if heldout:
        held_labels = np.random.default_rng(98).integers(0, 10, heldout)
        held_logits = (rng.standard_normal((heldout, 10)) + strength * np.eye(10)[held_labels]).astype(np.float32)
        held = Scores(held_logits, held_labels, np.array([f"held{i}" for i in range(heldout)]), CLASSES, 3)
    return replace(Scores(logits, labels, names, CLASSES, 3, held), **changes)


def four(heldout=0):
    """Streams of different worth."""
    worth = dict(zip(MODALITIES, (2.0, 1.5, 0.7, 0.2)))
    return {name: scores(i, strength=worth[name], heldout=heldout) for i, name in enumerate(MODALITIES)}


# --- metrics


@pytest.mark.parametrize("k", [1, 2, 5, 10, 50])
def test_top_k_is_scikit_learn_s(k):
    one = scores()
    expected = top_k_accuracy_score(one.labels, one.logits, k=min(k, 10), labels=range(10)) if k < 10 else 1.0
    assert one.top(k) == pytest.approx(100 * expected)


def test_top_1_is_the_accuracy_of_the_predictions():
    one = scores()
    assert one.top() == one.top(1) == pytest.approx(100 * accuracy_score(one.labels, one.predictions))
    np.testing.assert_array_equal(one.predictions, one.logits.argmax(1))


def test_two_classes_have_a_top_5():
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    two = Scores(logits, np.array([0, 1, 1]), np.array(list("abc")), ["x", "y"])
    assert two.top(1) == pytest.approx(200 / 3) and two.top(5) == 100


def test_the_confusion_matrix_has_true_classes_as_rows_and_all_of_them():
    one = scores()
    expected = confusion_matrix(one.labels, one.predictions, labels=range(10))
    np.testing.assert_array_equal(one.confusion(), expected)
    logits = np.eye(4, dtype=np.float32)[[1, 1, 0]]
    few = Scores(logits, np.array([0, 1, 0]), np.array(list("abc")), list("wxyz"))
    np.testing.assert_array_equal(few.confusion(), [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_per_class_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 2, 1, 1, 0])
    table = Scores(np.eye(4)[predicted], labels, labels.astype(str), list("wxyz")).per_class()
    assert table["class"].tolist() == list("wxyz") and table["clips"].tolist() == [4, 2, 1, 0]
    np.testing.assert_array_equal(table["top1"], [25, 100, 0, np.nan])  # no accuracy without clips
    expected = [wilson(right, n) for right, n in ((1, 4), (2, 2), (0, 1))] + [[np.nan, np.nan]]
    np.testing.assert_allclose(table[["low", "high"]], expected, atol=1e-9)
    assert table["most often taken for"].tolist() == ["x", "", "w", ""]


def wilson(right, n):
    """Wilson, JASA 1927, with z of 95 %."""
    z, p = 1.959963984540054, right / n
    middle, half = (p + z * z / 2 / n), z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return [100 * (middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (408, 464), (1, 1)])
def test_the_interval_is_wilson_s(right, n):
    labels = np.zeros(n, int)
    logits = np.eye(2)[(np.arange(n) >= right).astype(int)]
    one = Scores(logits, labels, labels.astype(str), ["x", "y"])
    assert one.interval() == pytest.approx(wilson(right, n), abs=1e-9)
    low, high = one.interval()
    assert 0 <= low <= one.top(1) <= high <= 100


def test_a_known_interval():
    labels = np.zeros(10, int)
    one = Scores(np.eye(2)[(np.arange(10) >= 7).astype(int)], labels, labels.astype(str), ["x", "y"])
    assert one.interval() == pytest.approx((39.68, 89.22), abs=0.01)


# --- copies of training clips


def ten(copies=None):
    """Ten clips of two classes, the last two wrong; copies: their places, or None."""
    labels = np.tile([0, 1], 5)
    predicted = np.where(np.arange(10) < 8, labels, 1 - labels)
    mask = None if copies is None else np.isin(np.arange(10), copies)
    return Scores(np.eye(2, dtype=np.float32)[predicted], labels, labels.astype(str), ["x", "y"], copies=mask)


def test_accuracy_without_copies_by_hand():
    whole = ten([0, 1, 2, 9])  # of the six others five are right
    rest = whole.without_copies()
    assert whole.top(1) == 80 and rest.top(1) == pytest.approx(500 / 6)
    assert whole.interval() == pytest.approx(wilson(8, 10)) and rest.interval() == pytest.approx(wilson(5, 6))
    assert rest.labels.tolist() == [1, 0, 1, 0, 1, 0] and rest.confusion().tolist() == [[2, 1], [0, 3]]
    assert summarise_copies(whole) == {
        "test_copies": 4, "test_top1_without_copies": rest.top(1),
        "test_top1_without_copies_interval_95": rest.interval(),
    }  # fmt: skip
    low, high = wilson(5, 6)
    assert whole.describe_copies() == (
        f"without copies: top-1 83.33 % (95 % interval {low:.1f} to {high:.1f}) on 6 clips; "
        "4 of the 10 test clips are copies of training clips"
    )


def test_where_there_are_no_copies_or_nothing_else_there_is_one_figure():
    assert ten([]).without_copies() is ten().without_copies() is ten(range(10)).without_copies() is None
    assert ten([]).describe_copies() == "no test clip is a copy of a training clip"
    assert "not known, run notebooks/03_evaluate.ipynb again" in ten().describe_copies()
    assert ten(range(10)).describe_copies() == "10 of the 10 test clips are copies of training clips"
    assert (summarise_copies(ten()), summarise_copies(ten([]))) == ({}, {"test_copies": 0})
    assert summarise_copies(ten(range(10))) == {"test_copies": 10}


def test_scores_are_saved_without_what_old_numpy_takes_for_an_array(tmp_path, monkeypatch):
    """NumPy's oldest version that is supported has no `allow_pickle` here, and would write it as an array."""
    save = np.savez_compressed
    keys = []
    monkeypatch.setattr(np, "savez_compressed", lambda file, **arrays: (keys.extend(arrays), save(file, **arrays)))
    ten().save(tmp_path / "scores.npz")
    assert {*keys} == {"logits", "labels", "names", "epoch", "classes", "run", "sha256"}
    assert Scores.load(tmp_path / "scores.npz").labels.tolist() == ten().labels.tolist()


def test_copies_are_saved_and_come_back(tmp_path):
    for one in (ten(), ten([]), ten([0, 9])):
        one.save(tmp_path / "scores.npz")
        again = Scores.load(tmp_path / "scores.npz").copies
        assert again is None if one.copies is None else (again.dtype == bool and again.tolist() == one.copies.tolist())


def test_ensembles_know_their_streams_copies():
    mask = np.arange(200) < 40
    streams = four() | {B: scores(1, strength=1.5, copies=mask)}  # the others were scored before that was looked for
    whole = ensemble(streams).scores
    assert whole.copies.tolist() == mask.tolist()
    right = (whole.logits.argmax(1) == whole.labels)[40:]
    assert whole.without_copies().top(1) == pytest.approx(100 * right.mean())
    marked = {name: replace(stream, copies=mask) for name, stream in streams.items()}
    table = score_subsets(marked, "bpi").set_index("subset")
    assert list(table)[-3:] == ["top1_without_copies", "low_without_copies", "high_without_copies"]
    row = table.loc[" + ".join(MODALITIES)]
    assert row["top1"] == whole.top(1) and row["top1_without_copies"] == whole.without_copies().top(1)
    assert (row["low_without_copies"], row["high_without_copies"]) == whole.without_copies().interval()
    clean = {name: replace(stream, copies=mask & False) for name, stream in streams.items()}
    assert list(score_subsets(clean, "bpi"))[-1] == "top5"


def test_a_run_on_data_with_copies_says_so_wherever_it_is_scored(tmp_path):
    copies = ["a04_s01_e00_v03", "a07_s01_e00_v03", "a10_s01_e00_v03"]
    plant_copies(tmp_path, copies)
    synthetic_store(tmp_path, subjects=1)
    write_prompts(tmp_path)
    config = tiny_config(tmp_path, tmp_path / "outputs", model="ctrgcn", epochs=1, batch_size=20)
    folder = fit(config)
    trained = Scores.load(folder / "scores.npz")
    assert trained.names[trained.copies].tolist() == copies and len(trained.labels) == 10
    summary = json.loads((folder / "summary.json").read_text())
    right = np.delete(trained.predictions == trained.labels, np.flatnonzero(trained.copies))
    assert summary["test_copies"] == 3 and summary["test_top1"] == trained.top(1)
    assert summary["test_top1_without_copies"] == pytest.approx(100 * right.sum() / 7)
    assert summary["test_top1_without_copies_interval_95"] == pytest.approx(wilson(right.sum(), 7))
    again = evaluate(config)
    assert again.copies.tolist() == Scores.load(folder / "scores.npz").copies.tolist() == trained.copies.tolist()


# --- files


@pytest.mark.parametrize("heldout", [0, 30])
def test_saved_scores_come_back(tmp_path, heldout):
    one = scores(heldout=heldout)
    one.save(tmp_path / "scores.npz")
    again = Scores.load(tmp_path / "scores.npz")
    for a, b in ((one, again), (one.heldout, again.heldout)) if heldout else ((one, again),):
        np.testing.assert_array_equal(a.logits, b.logits)
        assert b.logits.dtype == np.float32 and b.labels.tolist() == a.labels.tolist()
        assert b.names.tolist() == a.names.tolist() and (b.classes, b.epoch) == (CLASSES, 3)
    assert (again.heldout is None) == (not heldout)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]
    before = (tmp_path / "scores.npz").read_bytes()
    again.save(tmp_path / "scores.npz")
    assert (tmp_path / "scores.npz").read_bytes() == before


def test_missing_scores_name_the_notebook(tmp_path):
    with pytest.raises(MissingInputError, match=r"no scores at .*scores\.npz: run notebooks/03_evaluate\.ipynb first"):
        Scores.load(tmp_path / "scores.npz")


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path):
    path.write_bytes(b"")


def page(path: Path):
    path.write_text("<html>")


def stream(path: Path):
    """The packed logits start with a block type that does not exist."""
    data = bytearray(path.read_bytes())
    data[data.index(b"logits.npy") + len(b"logits.npy") + 20] |= 0b111
    path.write_bytes(data)


def middle(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def other_archive(path: Path):
    np.savez(path, x=np.zeros(3))


def one_array(path: Path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def objects(path: Path):
    np.savez(path, logits=np.array([{}], object), classes=np.array(["x"]), epoch=np.array(1))


DAMAGE = [cut, empty, page, stream, middle, other_archive, one_array, objects]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_damaged_scores_are_refused_saying_what_to_run(tmp_path, damage):
    path = tmp_path / "scores.npz"
    scores().save(path)
    damage(path)
    with pytest.raises(ValueError, match=r"scores\.npz is damaged .*run notebooks/03_evaluate\.ipynb again"):
        Scores.load(path)


@pytest.mark.parametrize("change", [{"logits": np.zeros((200, 10), np.float32)}, {"epoch": np.array(9)}])
def test_scores_that_were_changed_differ_from_their_checksum(tmp_path, change):
    scores().save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "scores.npz", **(arrays | change))
    with pytest.raises(ValueError, match="its content differs from its checksum"):
        Scores.load(tmp_path / "scores.npz")


def test_scores_of_another_run_are_refused(tmp_path):
    for run in ("bpi_joint_seed0", "bpi_joint_seed1"):
        scores().save(tmp_path / run / "scores.npz")
    (tmp_path / "bpi_joint_seed1" / "scores.npz").replace(tmp_path / "bpi_joint_seed0" / "scores.npz")
    said = r"scores\.npz is of the run bpi_joint_seed1: .*name it bpi_joint_seed1 again; .*copied .*run notebooks/03"
    with pytest.raises(ValueError, match=said):
        Scores.load(tmp_path / "bpi_joint_seed0" / "scores.npz")


@pytest.mark.parametrize(("name", "notebook"), [("bpi_joint_seed0", "03_evaluate"), ("bpi_ensemble_seed0", "05_")])
def test_a_renamed_folder_is_said_to_be_renamed_and_not_damaged(tmp_path, name, notebook):
    scores().save(tmp_path / name / "scores.npz")
    (tmp_path / name).rename(tmp_path / f"{name}_best")
    with pytest.raises(ValueError, match=f"folder has been renamed, then name it {name} again; .*{notebook}") as caught:
        Scores.load(tmp_path / f"{name}_best" / "scores.npz")
    assert "damaged" not in str(caught.value)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{name}_best").rename(tmp_path / "elsewhere" / name)  # moved as a whole, it is what it was
    assert len(Scores.load(tmp_path / "elsewhere" / name / "scores.npz").labels) == 200


def test_scores_that_may_not_be_read_are_not_damaged(tmp_path, monkeypatch):
    scores().save(tmp_path / "scores.npz")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bpilib.evaluate.read_npz", refuse)
    with pytest.raises(PermissionError, match=r"scores\.npz may not be read \(Permission denied\)"):
        Scores.load(tmp_path / "scores.npz")


def test_scores_from_before_there_were_checksums_are_read(tmp_path):
    scores().save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as archive:
        arrays = {name: value for name, value in archive.items() if name not in ("sha256", "run")}
    np.savez(tmp_path / "scores.npz", **arrays)
    np.testing.assert_array_equal(Scores.load(tmp_path / "scores.npz").logits, scores().logits)


def test_scores_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    scores().save(tmp_path / "scores.npz")
    monkeypatch.setattr("bpilib.system.files.MAX_NPZ_BYTES", 1000)
    with pytest.raises(ValueError, match="bytes once unpacked, more than the 1000 it may have"):
        Scores.load(tmp_path / "scores.npz")


# --- ensembles


def test_published_weights_go_by_name_not_by_order():
    streams = four()
    whole = ensemble(streams, "bpi", "published")
    assert whole.weights == {J: 1.0, B: 1.28, JM: 0.5, BM: 0.38} and whole.origin == "published"
    expected = sum(w * streams[name].logits for name, w in whole.weights.items())
    np.testing.assert_allclose(whole.scores.logits, expected, rtol=1e-6)
    backwards = ensemble(dict(reversed(streams.items())), "bpi")
    assert backwards.weights == whole.weights
    np.testing.assert_allclose(backwards.scores.logits, whole.scores.logits, rtol=1e-5, atol=1e-6)
    assert ensemble(streams, "gap").weights == {J: 0.8, B: 0.8, JM: 0.2, BM: 0.2}
    assert ensemble({J: streams[J], B: streams[B]}, "bpi").weights == {J: 1.0, B: 0.79}
    assert ensemble({name: streams[name] for name in (J, B, JM)}, "bpi").weights == {J: 0.6, B: 0.3, JM: 0.1}


def test_where_none_were_published_equal_weights_are_used_and_said():
    streams = four()
    whole = ensemble({J: streams[J], BM: streams[BM]}, "bpi", "published")
    assert whole.weights == {J: 1.0, BM: 1.0} and whole.origin == f"equal (none published for bpi with {J}, {BM})"
    assert ensemble(streams, "ctrgcn").weights == dict.fromkeys(MODALITIES, 1.0)


def test_equal_and_own_weights():
    streams = four()
    whole = ensemble(streams, weights="equal")
    assert whole.weights == dict.fromkeys(MODALITIES, 1.0) and whole.origin == "equal"
    np.testing.assert_allclose(whole.scores.logits, sum(s.logits for s in streams.values()), rtol=1e-6)
    own = ensemble({J: streams[J], B: streams[B]}, weights=[2, 0.5])
    assert own.weights == {J: 2.0, B: 0.5} and own.origin == "given"
    np.testing.assert_allclose(own.scores.logits, 2 * streams[J].logits + 0.5 * streams[B].logits, rtol=1e-6)
    assert own.scores.names.tolist() == streams[J].names.tolist()


def test_one_stream_is_itself():
    streams = four()
    alone = ensemble({J: streams[J]}, weights="equal")
    assert alone.scores.top(1) == streams[J].top(1)


@pytest.mark.parametrize("weights", ["best", "", "test"])
def test_an_unknown_name_of_weights_is_refused(weights):
    with pytest.raises(ValueError, match=r"weights: expected published, searched, equal or numbers, got"):
        ensemble(four(), weights=weights)


def test_wrong_ensembles_are_refused():
    streams = four()
    with pytest.raises(ValueError, match="no streams to ensemble: run 02 and 03"):
        ensemble({})
    with pytest.raises(ValueError, match="weights: expected 4 numbers, got 2"):
        ensemble(streams, weights=[1.0, 2.0])
    other = scores(names=np.array([f"other{i}" for i in range(200)]))
    with pytest.raises(ValueError, match="stream bone was scored on other clips or classes than joint"):
        ensemble({J: streams[J], B: other})
    with pytest.raises(ValueError, match="stream bone was scored on other clips"):
        ensemble({J: streams[J], B: scores(n=150)})
    with pytest.raises(ValueError, match="other clips or classes"):
        ensemble({J: streams[J], B: scores(classes=CLASSES[::-1])})


def test_search_needs_held_out_scores():
    with pytest.raises(
        ValueError, match=r"no held-out scores for bone, bone_motion: train with the parameter select='held"
    ):
        streams = four(heldout=50)
        ensemble({J: streams[J], B: scores(1), BM: scores(2)}, weights="searched")


def test_search_needs_the_same_held_out_clips():
    with pytest.raises(ValueError, match=r"held.out"):
        ensemble({J: scores(0, heldout=50), B: scores(1, heldout=40)}, weights="searched")


def test_searched_weights_are_the_best_on_held_out_clips():
    streams = four(heldout=300)
    whole = ensemble(streams, weights="searched")
    assert whole.origin == "searched" and max(whole.weights.values()) == 1

    def top1(weights):
        total = sum(w * streams[name].heldout.logits for name, w in zip(MODALITIES, weights))
        return (total.argmax(1) == streams[J].heldout.labels).mean()

    grid = [g for g in itertools.product(np.linspace(0, 1, 6), repeat=4) if max(g) == 1]
    assert top1(whole.weights.values()) >= max(map(top1, grid))
    assert top1(whole.weights.values()) > top1([1, 1, 1, 1])
    assert whole.weights[J] > whole.weights[BM]


def test_searched_never_looks_at_the_test_set():
    streams = four(heldout=100)
    weights = ensemble(streams, weights="searched").weights
    rng = np.random.default_rng(5)
    permuted = {name: replace(s, labels=rng.permutation(s.labels)) for name, s in streams.items()}
    assert ensemble(permuted, weights="searched").weights == weights
    shuffled = {name: replace(s, logits=rng.permutation(s.logits)) for name, s in streams.items()}
    assert ensemble(shuffled, weights="searched").weights == weights
    for name in streams:  # while the held-out labels do count
        held = streams[name].heldout
        streams[name] = replace(streams[name], heldout=replace(held, labels=(held.labels + 1) % 10))
    assert ensemble(streams, weights="searched").weights != weights


def test_of_equally_good_weights_the_most_equal_are_taken():
    one = scores(strength=20, heldout=50)  # always right: every grid point is
    assert ensemble({J: one, B: one}, weights="searched").weights == {J: 1.0, B: 1.0}


def test_the_table_has_every_subset_once():
    streams = four()
    table = score_subsets(dict(reversed(streams.items())), "bpi")
    assert list(table) == ["subset", "n", "weights", "origin", "top1", "low", "high", "top5"]
    assert len(table) == 15 and table["subset"].is_unique
    assert table["n"].tolist() == [1] * 4 + [2] * 6 + [3] * 4 + [4]
    assert table["subset"][:5].tolist() == [*MODALITIES, f"{J} + {B}"]
    rows = table.set_index("subset")
    for name in MODALITIES:
        assert rows.loc[name, "top1"] == streams[name].top(1) and rows.loc[name, "weights"] == "1"
        assert (rows.loc[name, "low"], rows.loc[name, "high"]) == streams[name].interval()
    pair = ensemble({J: streams[J], B: streams[B]}, "bpi").scores
    assert rows.loc[f"{J} + {B}", "top1"] == pair.top(1) and rows.loc[f"{J} + {B}", "top5"] == pair.top(5)
    assert rows.loc[f"{J} + {B}", "weights"] == "1, 0.79" and rows.loc[f"{J} + {B}", "origin"] == "published"
    assert rows.loc[" + ".join(MODALITIES), "weights"] == "1, 1.28, 0.5, 0.38"
    assert rows.loc[f"{J} + {BM}", "origin"].startswith("equal (none published")


def test_the_table_with_searched_weights():
    streams = four(heldout=60)
    table = score_subsets({J: streams[J], B: streams[B]}, "bpi", "searched").set_index("subset")
    assert table["origin"].tolist() == ["equal", "equal", "searched"]
    expected = ensemble({J: streams[J], B: streams[B]}, weights="searched").scores.top(1)
    assert table.loc[f"{J} + {B}", "top1"] == expected


# --- runs


def test_predictions_are_in_order_whatever_the_batch(place, tmp_path):
    run = build(tiny_config(place, tmp_path, model="gap"))
    feeder = run.feeder("test")
    run.model.train()
    one, other = predict(run.model, feeder, 20), predict(run.model, feeder, 7)
    assert run.model.training  # as it was
    assert one.shape == (20, 10) and one.dtype == np.float32
    for logits in (one, other):
        assert_float32_of(run.model, feeder.batch(range(20))[0], {"logits": logits})
    assert_float32_of(run.model, feeder.batch([5])[0], {"logits": one[5:6]})


def test_a_run_is_scored_on_test_and_held_out_clips(place, tmp_path):
    run = build(tiny_config(place, tmp_path, model="ctrgcn", select="heldout", heldout=0.5))
    whole = score(run)
    assert whole.names.tolist() == run.store.names[run.indices("test")].tolist()
    assert whole.labels.tolist() == run.store.labels[run.indices("test")].tolist()
    assert whole.heldout.names.tolist() == run.store.names[run.indices("heldout")].tolist()
    assert len(whole.heldout.labels) == 20 and whole.heldout.heldout is None
    assert_float32_of(run.model, run.feeder("heldout").batch(range(20))[0], {"logits": whole.heldout.logits})
    assert score(build(tiny_config(place, tmp_path, model="ctrgcn"))).heldout is None


def test_evaluate_saves_the_scores_of_the_selected_weights(place, tmp_path):
    config = tiny_config(place, tmp_path, model="ctrgcn", epochs=2, batch_size=40, select="test", lr=0.2)
    folder = fit(config)
    trained = Scores.load(folder / "scores.npz")
    (folder / "scores.npz").unlink()
    last = evaluate(config, "last")
    assert last.epoch == 2 and not (folder / "scores.npz").exists()  # those of other weights are not kept
    best = evaluate(config)
    saved = Scores.load(folder / "scores.npz")
    for found in (best, saved):
        np.testing.assert_array_equal(found.logits, trained.logits)
        assert found.epoch == trained.epoch == open_run(config).epoch


def test_evaluating_a_run_that_is_not_there_names_the_notebook(place, tmp_path):
    with pytest.raises(MissingInputError, match=r"no trained run in .*run notebooks/02_train\.ipynb"):
        evaluate(tiny_config(place, tmp_path))


def test_logits_are_averaged_over_the_angles_of_test_yaw(place, tmp_path):
    config = tiny_config(place, tmp_path, model="ctrgcn")
    run = build(config)
    size = config.test_batch_size  # sums of another batch may differ in their last digits
    wanted = [predict(run.model, run.feeder("test", turned=angle), size) for angle in (-20, 0, 20)]
    assert np.abs(wanted[0] - wanted[2]).max() > 1e-6
    run.config = config.changed(test_yaw=[-20, 0, 20])
    rounding = 4 * np.finfo(np.float32).eps * np.abs(wanted).max()  # of a mean of three
    np.testing.assert_allclose(score(run).logits, np.mean(wanted, 0), rtol=0, atol=rounding)
    run.config = config.changed(test_yaw=[0])
    np.testing.assert_array_equal(score(run).logits, wanted[1])
