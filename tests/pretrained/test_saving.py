"""A run's network in files: every number there and back, the figures of these very numbers, nothing of this machine."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from killing import killed_at
from safetensors.torch import load_file

from bpilib.errors import MissingInputError
from bpilib.evaluate import predict
from bpilib.pretrained import __main__ as command
from bpilib.pretrained import from_pretrained, save_pretrained, saving
from bpilib.runs import open_run
from bpilib.system import files

FILES = {"config.json", "model.safetensors", "README.md"}


def said(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(("model", "modality"), [("bpi", "bone"), ("gap", "joint_motion"), ("ctrgcn", "bone_motion")])
def test_float32_weights_come_back_bit_for_bit(make_run, tmp_path, model, modality):
    run = open_run(make_run(tmp_path / "outputs", model=model, modality=modality))
    folder = save_pretrained(run, tmp_path / "net", half=False)
    network = from_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert type(network) is type(run.model) and not network.training
    own = run.model.state_dict()
    assert own.keys() == network.state_dict().keys() == load_file(folder / "model.safetensors").keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
    x, _ = run.feeder("test").batch([0, 7])
    with torch.no_grad():
        assert torch.equal(network(x).logits, run.model.eval()(x).logits)


def test_half_precision_gives_the_logits_of_the_rounded_weights(config, folder):
    run, network = open_run(config), from_pretrained(folder)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32, torch.int64}
    stored = load_file(folder / "model.safetensors")
    assert {stored[name].dtype for name, _ in run.model.named_parameters()} == {torch.float16}
    exact = run.model.state_dict()
    assert all(torch.equal(stored[name], exact[name]) for name, _ in run.model.named_buffers() if name in stored)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.copy_(parameter.half().float())
    found = predict(network, run.feeder("test"), 20)
    assert np.array_equal(found, predict(run.model, run.feeder("test"), 20))
    assert not np.array_equal(found, predict(open_run(config).model, run.feeder("test"), 20))


def test_the_figures_are_those_of_the_weights_as_saved(config, folder):
    run, stated = open_run(config), said(folder)["expected"]
    logits = predict(from_pretrained(folder), run.feeder("test"), 20)
    right = int((logits.argmax(1) == run.store.labels[run.indices("test")]).sum())
    assert (stated["right"], stated["clips"]) == (right, len(logits))
    assert stated["top1"] == pytest.approx(100 * right / len(logits))
    assert "without_copies" not in stated  # there are none


def test_what_config_and_card_say(config, folder):
    run, about, card = open_run(config), said(folder), (folder / "README.md").read_text()
    assert about["architectures"] == ["BPIClassifier"] and about["model_type"] == "bpi" and about["dtype"] == "float16"
    assert list(about["id2label"].values()) == run.store.classes
    assert about["label2id"] == {name: number for number, name in enumerate(run.store.classes)}
    assert about["data"]["sha256"] == run.store.manifest["sha256"]
    assert about["joints"] == list(run.store.skeleton.joints)
    assert (about["width"], about["k"], about["embed_dim"], about["epoch"]) == (8, 6, 16, 3)
    assert card.startswith("---\nlicense: apache-2.0\n") and "The weights: apache-2.0." in card
    stated = about["expected"]
    assert f"| {stated['top1']:.2f} (" in card and f"{stated['right']} of {stated['clips']}" in card
    assert "- `epochs`: 3 (published: 10)" in card and "- `text`: 'minilm' (published: 'clip')" in card
    assert all(str(place) not in text for place in (config.outputs, config.data) for text in (card, json.dumps(about)))


def test_the_same_run_gives_the_same_bytes_and_replaces_what_was_saved_before(config, folder, tmp_path):
    again = save_pretrained(open_run(config), tmp_path / "net", license="apache-2.0")
    first = {name: (folder / name).read_bytes() for name in FILES}
    assert {name: (again / name).read_bytes() for name in FILES} == first
    save_pretrained(config, again, half=False)
    assert said(again)["dtype"] == "float32"
    assert "None is stated for the weights" in (again / "README.md").read_text()
    from_pretrained(again)


def test_where_weights_and_text_tower_came_from_stays_here(make_run, tmp_path):
    config = make_run(tmp_path, model="gap", start_from="/home/me/secret/runs/a", clip_pretrained="/home/me/tower.pt")
    about = said(save_pretrained(config, tmp_path / "net"))
    assert about["started_from"] == "a" and about["training"]["clip_pretrained"] == "tower.pt"
    written = "".join(path.read_text(errors="ignore") for path in (tmp_path / "net").iterdir())
    assert "/home/me" not in written and "from the weights of another network" in written


@pytest.mark.parametrize(
    "there",
    [("README.md",), ("config.json", "model.safetensors", "notes.txt"), (".notes.txt.here.1.part",), (".a.part",)],
)
def test_a_folder_of_other_things_is_left_alone(config, tmp_path, there):
    for name in there:
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"holds other things than a pretrained network.*a folder of its own"):
        save_pretrained(config, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(there, "mine")


def test_weights_beyond_half_precision_are_refused_and_leave_nothing(make_run, tmp_path):
    run = open_run(make_run(tmp_path, model="ctrgcn"))
    with torch.no_grad():
        run.model.classifier.bias[0] = 7e4
    with pytest.raises(ValueError, match=r"too large for half precision: use half=False \(classifier\.bias\)"):
        save_pretrained(run, tmp_path / "net")
    assert not (tmp_path / "net").exists()
    save_pretrained(run, tmp_path / "net", half=False)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_full_disk_leaves_the_network_that_was_there_and_nothing_else(config, folder, tmp_path, monkeypatch, name):
    net = shutil.copytree(folder, tmp_path / "net")
    sync = files.sync

    def full(path):
        if path.name.startswith(f".{name}."):
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    for there in (net, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            save_pretrained(config, there, half=False)
    assert {path.name: path.read_bytes() for path in net.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    monkeypatch.undo()
    from_pretrained(save_pretrained(config, tmp_path / "new"))


@pytest.mark.parametrize("over", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_after_a_kill_at_any_point_of_a_save_the_old_network_is_there_or_another_save_works(
    config, folder, tmp_path, monkeypatch, over
):
    run, seen, point = open_run(config), [], 1
    scores = saving.score(run)
    monkeypatch.setattr(saving, "score", lambda saved: scores)  # only what is done with files matters here
    net = tmp_path / "net"
    while True:
        shutil.rmtree(net, ignore_errors=True)
        if over:
            shutil.copytree(folder, net)
        if not killed_at(point, lambda: save_pretrained(run, net, half=False)):
            break
        try:
            seen.append(from_pretrained(net).config["dtype"])
        except MissingInputError:
            seen.append(None)
        assert said(save_pretrained(run, net, half=False))["dtype"] == "float32"
        assert {path.name for path in net.iterdir()} == FILES
        from_pretrained(net)
        point += 1
    assert said(net)["dtype"] == "float32"
    if over:  # it is gone while three files take their places, and not before
        assert seen == ["float16"] * (len(seen) - 3) + [None] * 3
    assert len(seen) > 6


def test_what_a_process_that_is_at_work_has_not_finished_is_no_other_thing(config, folder, tmp_path):
    net = shutil.copytree(folder, tmp_path / "net")
    (net / ".model.safetensors.elsewhere.7.part").write_bytes(b"half")
    save_pretrained(config, net)
    assert {path.name for path in net.iterdir()} == FILES | {".model.safetensors.elsewhere.7.part"}
    from_pretrained(net)


def test_the_command_saves_and_lists(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bpilib.pretrained.places.WEIGHTS", tmp_path)
    call(monkeypatch, "list")
    assert capsys.readouterr().out == "none so far\n"
    call(monkeypatch, "save", str(config.run_directory), str(tmp_path / "acted_bpi_joint"), "--license", "mit")
    line = capsys.readouterr().out
    right, clips = (said(tmp_path / "acted_bpi_joint")["expected"][name] for name in ("right", "clips"))
    assert line.startswith("acted_bpi_joint  0.1 MB  top-1 ") and f"{100 * right / clips:.2f} % of {clips}\n" in line
    call(monkeypatch, "list")
    assert capsys.readouterr().out == line
    run = open_run(config)
    logits = predict(from_pretrained(tmp_path / "acted_bpi_joint"), run.feeder("test"), run.config.test_batch_size)
    assert right == (logits.argmax(1) == run.store.labels[run.indices("test")]).sum() and clips == len(logits)
    with pytest.raises(SystemExit, match=r"no run in .*nowhere: expected a config\.yaml"):
        call(monkeypatch, "save", str(tmp_path / "nowhere"), str(tmp_path / "b"))


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["bpilib.pretrained", *words])
    command.main()
