"""What TensorBoard reads: curves of precision and recall that are scikit-learn's, points with their names."""

import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from making import events, tiny_config
from noise import exact
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray
from torch.nn.functional import normalize

from bpilib.analysis.text import embed_class_texts
from bpilib.evaluate import Scores, score
from bpilib.runs import build
from bpilib.training import tensorboard
from bpilib.training.tensorboard import COLUMNS, TensorBoardLogger, projector_points

SUBJECTS = 3
CLASSES = ["wave", "put on a hat/cap", "nobody does it"]


@pytest.fixture(scope="module")
def run_of(place):
    """model → a run as it begins, and the scores of its test clips."""
    made = {}

    def of(model, **changes):
        key = (model, *changes.items())
        if key not in made:
            torch.manual_seed(0)
            run = build(tiny_config(place, place / "outputs", model=model, test_batch_size=7, **changes))
            run.epoch = 3
            made[key] = run, score(run)
        return made[key]

    return of


def scores_of(labels, logits, classes=CLASSES, epoch=3):
    labels = np.asarray(labels)
    return Scores(np.asarray(logits, np.float32), labels, np.array([f"clip{i}" for i in labels]), classes, epoch)


def test_curves_have_a_point_an_epoch_and_nan_has_none(tmp_path):
    book = TensorBoardLogger(tmp_path, 0)
    scores = scores_of([0, 0, 1], np.eye(3)[[0, 1, 1]])
    for epoch in (1, 2):
        values = {"train_loss": 1 / epoch, "lr": 0.1, "machine/memory_gb": 2.0, "contrastive": math.nan}
        book.epoch(epoch, values, scores)
    book.close()
    found = events(tmp_path)
    assert set(found.Tags()["scalars"]) == {"loss/train_loss", "lr", "machine/memory_gb"}
    assert [(point.step, point.value) for point in found.Scalars("loss/train_loss")] == [(1, 1.0), (2, 0.5)]
    (first, _) = found.Images("confusion")
    assert (first.step, first.width, first.height) == (1, 48, 48)


def test_a_drawing_that_takes_long_is_made_now_and_then_and_of_the_end(tmp_path, run_of, monkeypatch):
    run, scores = run_of("ctrgcn")
    book = TensorBoardLogger(tmp_path, 0)
    for epoch in (1, 2, 3):
        monkeypatch.setattr(book._pace, "is_due", lambda due=epoch == 1: due)
        book.epoch(epoch, {}, scores)
    book.finish(run, scores)
    book.close()
    assert [image.step for image in events(tmp_path).Images("confusion")] == [1, run.epoch]


def test_the_confusion_of_the_selected_epoch_is_drawn_once(tmp_path, run_of):
    run, scores = run_of("ctrgcn")
    book = TensorBoardLogger(tmp_path, 0)
    for epoch in (run.epoch, run.epoch + 1):  # an earlier one than the last is kept
        book.epoch(epoch, {}, scores)
    book.finish(run, scores)
    book.close()
    assert [image.step for image in events(tmp_path).Images("confusion")] == [run.epoch, run.epoch + 1]


def test_without_a_drawing_the_confusion_matrix_is_shades(tmp_path, monkeypatch):
    shown = []
    book = TensorBoardLogger(tmp_path, 0)
    monkeypatch.setattr(book._writer, "add_image", lambda tag, image, step, dataformats: shown.append(image))
    book.epoch(1, {}, scores_of([0, 0, 1], np.eye(3)[[0, 1, 1]]))
    (image,) = shown
    np.testing.assert_array_equal(image[::16, ::16, 0], [[127, 127, 0], [0, 255, 0], [0, 0, 0]])


@pytest.mark.parametrize("most", [10, 2000])
def test_shades_of_many_classes_stay_small(tmp_path, monkeypatch, most):
    monkeypatch.setattr(tensorboard, "MAX_PIXELS", most)
    book = TensorBoardLogger(tmp_path, 0)
    book.epoch(1, {}, scores_of([0, 1], np.eye(300)[:2], [f"class {i}" for i in range(300)]))
    book.close()
    assert events(tmp_path).Images("confusion")[0].width == (10 if most == 10 else 6 * 300)


def test_events_after_the_last_checkpoint_are_dropped(tmp_path):
    for last, value in ((0, 1.0), (1, 2.0)):
        book = TensorBoardLogger(tmp_path, last)
        for epoch in range(last + 1, 4):
            book.epoch(epoch, {"lr": value}, None)
        book.close()
    assert [(point.step, point.value) for point in events(tmp_path).Scalars("lr")] == [(1, 1.0), (2, 2.0), (3, 2.0)]


def test_precision_and_recall_are_those_of_scikit_learn(tmp_path, run_of):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 30)
    scores = scores_of(labels, 3 * rng.standard_normal((30, 3)) + 2 * np.eye(3)[labels])
    book = TensorBoardLogger(tmp_path, 3)
    book.finish(run_of("ctrgcn")[0], scores)
    book.close()
    found = events(tmp_path)
    names = ["all classes", *CLASSES[:2]]  # nobody does it: there is nothing to recall
    assert found.Tags()["tensors"] == [f"precision_recall/{name}" for name in names]
    shares, truth = softmax(scores.logits, 1), np.eye(3)[labels].astype(bool)
    for name, right, share in [
        ("all classes", truth.ravel(), shares.ravel()), *zip(CLASSES, truth.T[:2], shares.T),
    ]:  # fmt: skip
        (event,) = found.Tensors(f"precision_recall/{name}")
        curve = make_ndarray(event.tensor_proto)  # (6, 127)
        assert event.step == 3 and curve.shape == (6, 127)
        for at in (0, 1, 13, 40, 63, 90, 120, 126):
            says = np.floor(share * 126) >= at
            (tn, fp), (fn, tp) = confusion_matrix(right, says, labels=[False, True])
            assert curve[:4, at].tolist() == [tp, fp, tn, fn]
            assert curve[4, at] == pytest.approx(precision_score(right, says, zero_division=0))
            assert curve[5, at] == pytest.approx(recall_score(right, says))


def assert_points(points, run, embed):
    """Points are the centred unit vectors of what `embed` gives of the test clips, rounded to four digits."""
    x = run.feeder("test").batch(np.arange(len(points)))[0].double()
    outputs, allowed = exact(run.model, lambda network: {"unit": normalize(embed(network, x), dim=-1)})
    unit = outputs["unit"].numpy()
    np.testing.assert_allclose(points, unit - unit.mean(0), rtol=0, atol=5.1e-5 + 2 * allowed["unit"])


def test_points_are_clips_and_texts_where_the_loss_compares_them(run_of):
    run, scores = run_of("bpi")
    points, rows = projector_points(run, scores)
    clips, count = len(scores.labels), len(scores.classes)
    assert points.shape == (clips + count, 16) and len(rows) == len(points)
    assert_points(points[:clips], run, lambda network, x: network(x).global_embedding)
    texts = embed_class_texts(run)[0]
    np.testing.assert_allclose(points[clips:], texts - texts.mean(0), atol=6e-5)
    assert [row[4] for row in rows[:clips]] == scores.names.tolist()
    assert [row[1] for row in rows] == [scores.classes[k] for k in [*scores.labels, *range(count)]]
    kinds = np.array([row[2] for row in rows])
    np.testing.assert_array_equal(kinds[:clips] == "recognised", scores.labels == scores.predictions)
    assert (kinds[clips:] == "text").all() and rows[clips][0] == f"“{scores.classes[0]}”"
    assert [row[3] for row in rows[:clips]] == [scores.classes[k] for k in scores.predictions]


@pytest.mark.parametrize(("model", "changes"), [("ctrgcn", {}), ("bpi", {"text": "none"})])
def test_without_texts_the_points_are_what_the_classifier_gets(run_of, model, changes):
    run, scores = run_of(model, **changes)
    points, rows = projector_points(run, scores)
    assert_points(points, run, lambda network, x: network.features(x)[0])
    assert len(rows) == len(scores.labels)


def test_points_are_bounded_and_evenly_spread(run_of, monkeypatch):
    run, scores = run_of("bpi")
    monkeypatch.setattr(tensorboard, "MAX_PROJECTED", 4)
    points, rows = projector_points(run, scores)
    total = len(scores.labels)
    assert total == 30 and len(points) == 4 + len(scores.classes)
    assert [row[4] for row in rows[:4]] == scores.names[[0, 9, 19, 29]].tolist()


def test_the_projector_finds_its_files_and_a_second_end_replaces_them(tmp_path, run_of, capsys):
    run, scores = run_of("bpi")
    for _ in range(2):
        book = TensorBoardLogger(tmp_path, 3)
        book.finish(run, scores)
        book.close()
    folder = tmp_path / "tensorboard"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (info,) = config.embeddings
    assert info.tensor_name == "clips_and_texts:00003"
    points, rows = projector_points(run, scores)
    np.testing.assert_array_equal(np.loadtxt(folder / info.tensor_path, delimiter="\t"), points)
    lines = (folder / info.metadata_path).read_text(encoding="utf-8").splitlines()
    assert [tuple(line.split("\t")) for line in lines] == [COLUMNS, *rows]
    assert "warning" not in capsys.readouterr().out
