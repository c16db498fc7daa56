"""Saved networks are found, read whatever they hold, and take raw clips."""

import hashlib
import json
import os
import re
import resource
import shutil
import struct

import numpy as np
import pytest
import torch
from noise import assert_probabilities_of
from safetensors.torch import load_file, save_file

from bpilib.classify import Classifier, classify
from bpilib.data.clip_file import read_clip
from bpilib.errors import MissingInputError
from bpilib.model import build_model
from bpilib.pretrained import from_pretrained, list_shipped
from bpilib.reference import from_pretrained as of_reference
from bpilib.runs import open_run
from bpilib.skeleton import UCLA


@pytest.fixture
def net(folder, tmp_path):
    """A copy of the saved network, to be spoiled."""
    return shutil.copytree(folder, tmp_path / "net")


def change(net, **changes):
    """Change entries of config.json; None removes one."""
    about = json.loads((net / "config.json").read_text())
    about = {key: value for key, value in (about | changes).items() if key not in changes or value is not ...}
    (net / "config.json").write_text(json.dumps(about))


def replace(net, content):
    """Another model.safetensors, of whose checksum config.json knows."""
    (net / "model.safetensors").write_bytes(content)
    change(net, weights={"sha256": hashlib.sha256(content).hexdigest()})


def replace_tensors(net, changes):
    state = load_file(net / "model.safetensors") | changes
    save_file({name: value for name, value in state.items() if value is not None}, net / "other.safetensors")
    replace(net, (net / "other.safetensors").read_bytes())


def test_a_raw_clip_goes_in(config, folder):
    run, network = open_run(config), from_pretrained(folder)
    first = int(run.indices("test")[0])
    poses = run.store.sample(first)
    x = network.prepare(poses)
    assert x.dtype == torch.float32 and torch.equal(x, run.feeder("test").batch([0])[0])
    found = classify(network, poses)
    assert list(found.sort_index().index) == sorted(network.config["id2label"].values())
    assert_probabilities_of(network, x, found[run.store.classes].to_numpy()[None])
    np.save(folder.parent / "clip.npy", poses)
    assert np.array_equal(read_clip(folder.parent / "clip.npy", Classifier.of(network).about), poses)
    with pytest.raises(ValueError, match=r"expected poses \(L, M, 20, 3\)"):
        network.prepare(np.ones((9, 1, 25, 3), np.float32))


def test_attention_is_there_and_the_network_can_be_copied_and_trained_on(folder):
    network = from_pretrained(folder)
    x = torch.randn(1, 3, 52, 20, 1)
    assert set(network(x, return_attention=True).attention) == {"torso", "arm", "leg"}
    assert network.fuse().config == network.config
    network.train()(x.repeat(2, 1, 1, 1, 1)).logits.sum().backward()
    assert network.classifier.weight.grad is not None


def test_a_network_of_which_nothing_is_known_classifies_no_raw_clip():
    with pytest.raises(ValueError, match="a network without its config"):
        Classifier.of(build_model("ctrgcn", UCLA, 3, width=8))


def test_draws_of_the_session_go_on_undisturbed(folder):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    from_pretrained(folder)
    assert torch.equal(torch.rand(3), want)


def test_names_are_those_shipped(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("bpilib.pretrained.places.WEIGHTS", tmp_path)
    with pytest.raises(MissingInputError, match=r"no pretrained network 'acted_bpi_joint': .* \(none so far\), a"):
        from_pretrained("acted_bpi_joint")
    shutil.copytree(folder, tmp_path / "acted_bpi_joint")
    assert list(list_shipped()) == ["acted_bpi_joint"]
    assert of_reference("acted_bpi_joint").config["model"] == "bpi"
    with pytest.raises(MissingInputError, match="'acted_bpi_bone', did you mean 'acted_bpi_joint'"):
        from_pretrained("acted_bpi_bone")
    for name in ("../acted_bpi_joint/..", "", ".", "/", "a/b/c", "\0"):
        with pytest.raises(ValueError, match=r"no pretrained network|null"):
            from_pretrained(name)


def test_a_store_of_other_classes_is_refused(config, folder, net, make_store):
    from_pretrained(folder, open_run(config).store)
    with pytest.raises(ValueError, match=r"is of other data than .*data set: synthetic, the store's test.*start_from"):
        from_pretrained(folder, make_store(UCLA, [np.ones((4, 20, 3))]))
    labels = json.loads((net / "config.json").read_text())["id2label"]
    change(net, id2label=labels | {"1": "applaud"})
    with pytest.raises(ValueError, match="class 1: 'applaud', the store's 'clap'"):
        from_pretrained(net, open_run(config).store)


DAMAGED = {
    "no JSON": (b"{", "is not the config.json"),
    "a list": (b"[]", "expected an object, got list"),
    "nested deeply": (b"[" * 100_000, "is not the config.json"),
    "no text": (b"\xff\xfe\x00", "is not the config.json"),
    "a number that is none": (b'{"epoch": NaN}', "NaN is no number"),
    "too large": (b" " * ((1 << 20) + 1), "more than the 1048576 bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_config_that_is_none_is_refused(net, what):
    content, message = DAMAGED[what]
    (net / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(net)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format: expected one of 1, got 2"),
        ({"format": True}, "format: expected one of 1, got True"),
        ({"model_type": "../bpi"}, "model_type: expected one of ctrgcn, gap, bpi"),
        ({"skeleton": ["ucla"]}, "skeleton: expected one of"),
        ({"true_bones": 0}, "true_bones: expected one of False, True, got 0"),
        ({"width": 1 << 40}, "width: expected a whole number from 4 to 1024"),
        ({"width": True}, "width: expected a whole number"),
        ({"window": 52.0}, "window: expected a whole number from 1 to 100"),
        ({"k": ...}, "k: expected a whole number"),
        ({"k": None}, "k: ctrgcn has none, gap and bpi have one, got None"),
        ({"persons": -1}, "persons: expected a whole number"),
        ({"dataset": "../../etc"}, r"dataset: expected letters"),
        ({"benchmark": ".."}, r"benchmark: expected letters"),
        ({"id2label": {}}, "id2label: expected 1 to 10000 classes"),
        ({"id2label": {"0": "a", "2": "b"}}, 'id2label: expected a name for each of "0" to "1"'),
        ({"joints": ["nose"]}, "joints: expected those of the ucla skeleton"),
        ({"weights": {}}, "weights: expected an object with sha256"),
        ({"data": {"sha256": "x"}}, "data: expected sha256 to be an object"),
        ({"training": None}, "training: expected an object"),
        ({"expected": {"clips": "all"}}, "expected: expected whole numbers clips, right, undecided"),
        ({"tracker": 3}, "tracker: expected a name or null"),
    ],
)
def test_a_config_that_says_something_impossible_is_refused(net, changes, message):
    change(net, **changes)
    with pytest.raises(ValueError, match=message):
        from_pretrained(net)


def test_a_bit_that_flipped_is_noticed(net):
    content = bytearray((net / "model.safetensors").read_bytes())
    content[-1000] ^= 1
    (net / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or not the file that config\.json is of"):
        from_pretrained(net)
    (net / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors can't be read"):
        from_pretrained(net)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "empty": b"",
    "a header as large as the address space": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "a header longer than the file": struct.pack("<Q", 5000) + b"{}",
    "a header of many names": header({f"x{i}": entry([0], 0, 0, "U8") for i in range(30_000)}),
    "a header of junk": struct.pack("<Q", 4) + b"junk" + bytes(8),
    "a shape without its numbers": header({"a": entry([1 << 40], 0, 4)}, bytes(4)),
    "a shape beyond all numbers": header({"a": entry([1 << 62, 1 << 62], 0, 4)}, bytes(4)),
    "tensors that overlap": header({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "numbers outside the file": header({"a": entry([2], 1 << 50, (1 << 50) + 8)}),
    "a pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_safetensors_is_refused(net, what):
    replace(net, HOSTILE[what])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or no \.safetensors"):
        from_pretrained(net)


def test_tensors_that_are_not_the_network_s_are_named(net):
    bias = torch.zeros(10)
    replace_tensors(net, {"../../evil": bias, "classifier.bias": None, "backbone.data_bn.weight": bias.clone(),
                          "global_head.bias": torch.full((16,), torch.nan),
                          "stored_scale": torch.zeros(4, dtype=torch.int32)})  # fmt: skip
    with pytest.raises(ValueError, match=r"does not fit the network of its config\.json") as error:
        from_pretrained(net)
    for line in ("missing: classifier.bias", "not in this network: '../../evil'",
                 "backbone.data_bn.weight: expected shape (60,), got (10,)",
                 "global_head.bias: numbers that are not finite",
                 "stored_scale: expected torch.float32, got torch.int32"):  # fmt: skip
        assert line in str(error.value)


def test_a_small_file_that_claims_a_large_network_takes_no_memory(net):
    change(net, width=1024, embed_dim=1 << 14)  # 2.6 GB of weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"(?s)expected shape .*\.\.\. and \d+ more") as error:
        from_pretrained(net)
    assert len(str(error.value).splitlines()) < 16
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB (bytes on macOS)


def test_other_precisions_of_a_float_are_read(config, net):
    weight = open_run(config).model.classifier.weight.detach()
    replace_tensors(net, {"classifier.weight": weight.bfloat16()})
    assert torch.equal(from_pretrained(net).classifier.weight, weight.bfloat16().float())
    replace_tensors(net, {"classifier.weight": weight.double()})
    with pytest.raises(ValueError, match=r"classifier\.weight: expected torch\.float32, got torch\.float64"):
        from_pretrained(net)


def test_nothing_is_written_and_no_network_is_asked(folder, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    from_pretrained(os.fspath(folder))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert re.fullmatch(r"[0-9a-f]{64}", from_pretrained(folder).config["weights"]["sha256"])
