"""Exported classifiers: the trained network's logits in any batch size, and files that say what they need."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from making import tiny_config
from noise import assert_float32_of

from bpilib import classify, export
from bpilib.classify import Classifier
from bpilib.evaluate import predict
from bpilib.export import export_run
from bpilib.reference import load_reference_weights
from bpilib.rounding import LEAST, MOST, sample_clips
from bpilib.runs import build

SUBJECTS = 2  # of `place`


def settle(model):
    """Weights of a network that has seen something: logits that differ from clip to clip."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("bn.weight", "down.1.weight", "alpha")):
                tensor.uniform_(0.2, 1)


@pytest.fixture(scope="module")
def made(place):
    """A bpi run of bones (its operator is part of the graph), and what was exported of it."""
    run = build(tiny_config(place, place / "outputs", modality="bone"))
    settle(run.model)
    run.epoch = 3
    return run, export_run(run)


def test_all_files_are_there_and_nothing_else(made):
    run, paths = made
    folder = run.config.run_directory / "export"
    assert {path.name for path in folder.iterdir()} == {
        "classifier.onnx", "classifier.pt2", "classifier.json", "published.pt"
    }  # fmt: skip
    assert paths == {name: folder / file for name, file in export.FILES.items()}


@pytest.mark.parametrize("name", ["onnx", "pt2"])
def test_files_give_the_networks_logits_for_any_number_of_clips(made, name):
    run, paths = made
    feeder = run.feeder("test")
    want = predict(run.model, feeder, 20)
    network = Classifier.load(paths[name], trusted=True)._network
    for count in (1, 2, 20):
        x = feeder.batch(np.arange(count))[0].numpy()
        got = network(x)
        assert got.shape == (count, 10) and got.dtype == np.float32
        assert_float32_of(run.model, torch.from_numpy(x), {"logits": got})
    assert np.ptp(want, axis=0).max() > 1e-3


def test_onnx_needs_neither_this_project_nor_torch(made, tmp_path):
    run, paths = made
    x = run.feeder("test").batch([4])[0].numpy()
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, json, numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(paths['onnx'])!r}, providers=['CPUExecutionProvider'])\n"
        f"logits = session.run(None, {{'x': numpy.load({str(tmp_path / 'x.npy')!r})}})[0]\n"
        "classes = json.loads(session.get_modelmeta().custom_metadata_map['classes'])\n"
        "assert not {'torch', 'bpilib'} & {*sys.modules}\n"
        "print(classes[logits[0].argmax()])"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert said.stdout.strip() == run.store.classes[predict(run.model, run.feeder("test"), 20)[4].argmax()]


@pytest.mark.parametrize("name", ["onnx", "pt2"])
def test_metadata_say_what_a_user_needs(made, name):
    run, paths = made
    about = Classifier.load(paths[name], trusted=True).about
    sheet = json.loads((paths[name].parent / "classifier.json").read_text())
    assert all(sheet[key] == value for key, value in about.items())
    assert about["classes"] == run.store.classes and about["joints"] == list(run.store.skeleton.joints)
    assert (about["model"], about["modality"], about["fed"], about["epoch"]) == ("bpi", "bone", "joint", 3)
    assert (about["skeleton"], about["window"], about["persons"]) == ("ucla", 52, 1)
    assert "float32 (N, 3, 52, 20, 1)" in about["input"] and len(about["preparation"]) == 5
    check = sheet["difference from PyTorch"]
    assert 0 <= check[name] <= check["at most"] and LEAST <= check["at most"] <= MOST


def test_files_hold_no_weights_of_training_alone_and_no_place_of_this_machine(made):
    run, paths = made
    ours = sum(tensor.numel() for name, tensor in run.model.state_dict().items() if "head" not in name)
    heads = sum(tensor.numel() for name, tensor in run.model.state_dict().items() if "head" in name)
    program = torch.export.load(paths["pt2"])
    assert sum(tensor.numel() for tensor in program.state_dict.values()) <= ours < ours + heads
    for path in paths.values():
        assert str(export.__file__).encode() not in path.read_bytes()
    onnx = pytest.importorskip("onnx").load(paths["onnx"])
    assert not any(node.metadata_props for node in onnx.graph.node)
    shape = onnx.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [dim.dim_value for dim in shape[1:]]) == ("N", [3, 52, 20, 1])


def test_the_published_file_is_read_as_one(made):
    run, paths = made
    fresh = build(run.config)
    assert not torch.equal(fresh.model.classifier.weight, run.model.classifier.weight)
    load_reference_weights(fresh.model, paths["published"])
    assert all(torch.equal(tensor, run.model.state_dict()[name]) for name, tensor in fresh.model.state_dict().items())


def test_the_run_is_left_as_it_was(made):
    run, _ = made
    assert {"global_head", "part_heads"} <= {name for name, _ in run.model.named_children()}
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_logits_that_differ_are_not_written(made, monkeypatch, tmp_path):
    run, _ = made
    other = build(run.config.changed(outputs=str(tmp_path)))
    monkeypatch.setattr(export, "_export_program", lambda run, x: None)
    monkeypatch.setattr(export, "_save_pt2", lambda program, about: b"")
    feeder = other.feeder("test")
    clips = sample_clips(other)
    for off in (2 * clips.noise, np.nan):
        monkeypatch.setitem(
            classify.OPENERS, ".pt2",
            lambda content, off=off: (lambda x: off * clips.scale + predict_batch(other.model, x), {}),
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"classifier\.pt2: its logits differ .* nothing was written"):
            export_run(other, "pt2")
    assert not (other.config.run_directory / "export").exists()
    monkeypatch.setitem(
        classify.OPENERS, ".pt2", lambda content: (lambda x: predict_batch(other.model, x), {})
    )
    assert export_run(other, "pt2")["pt2"].exists() and len(feeder) == 20 and len(clips.x) == 8


@torch.no_grad()
def predict_batch(model, x):
    return model.eval()(torch.from_numpy(x)).logits.numpy()


def test_unknown_files_are_refused(made):
    with pytest.raises(ValueError, match=r"expected onnx, pt2, published or all, got 'onx', did you mean 'onnx'"):
        export_run(made[0], "onx")
