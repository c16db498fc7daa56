"""Checkpoints come back whole, damage is noticed, nothing in them is executed, the one before is kept."""

import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from bomb import Bomb
from torch import nn

from bpilib.errors import MissingInputError
from bpilib.system import checkpoint, files


def same(a, b):
    """Equal values of equal types all the way down; tensors bit for bit."""
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    return type(a) is type(b) and a == b


def trained():
    """A network after some steps of SGD with momentum, and its optimizer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    return network, optimizer


def content(number=1):
    network, optimizer = trained()
    return {
        "model": dict(network.state_dict()),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "progress": {"epoch": number, "sums": [0.1, 2.5e-300], "rows": [{"epoch": 1, "lr": 0.1}, {}], "note": "ä"},
        "config": {"lr": 0.1, "steps": [1, 2], "tag": "", "k": None, "download": False},
        "kinds": [torch.tensor(3), torch.zeros(0, 2), torch.tensor([True, False]), torch.ones(2, 3).bfloat16().t(),
                  torch.tensor([float("nan"), float("inf")])],
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.pt"


def test_nested_content_comes_back_as_it_was(path):
    checkpoint.save(path, content())
    assert same(checkpoint.load(path), content())
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_a_training_goes_on_from_it_as_if_it_had_not_stopped(path):
    def go_on(network, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
        return network.state_dict()

    network, optimizer = trained()
    saved = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    checkpoint.save(path, saved)
    expected = go_on(network, optimizer)
    loaded = checkpoint.load(path)
    network, optimizer = trained()
    go_on(network, optimizer)  # somewhere else
    network.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["random"])
    assert same(dict(go_on(network, optimizer)), dict(expected))


def test_the_one_before_is_kept(path):
    for number in (1, 2, 3):
        checkpoint.save(path, content(number))
    assert checkpoint.load(path)["progress"]["epoch"] == 3
    assert checkpoint.load(path.with_name("last.previous.pt"))["progress"]["epoch"] == 2
    assert {p.name for p in path.parent.iterdir()} == {"last.pt", "last.previous.pt"}


def test_nothing_there(path):
    assert not checkpoint.exists(path)
    with pytest.raises(MissingInputError, match=r"no checkpoint at .*last.pt: run notebooks/02_train.ipynb first"):
        checkpoint.load(path)


# --- damage


def truncated(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path):
    path.write_bytes(b"")


def flipped(path: Path):
    """One bit of a weight."""
    whole = torch.load(path, weights_only=True)
    needle = whole["content"]["model"]["0.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 5] ^= 1
    path.write_bytes(data)


def text(path: Path):
    path.write_text("<html>not found</html>")


def foreign_weights(path: Path):
    torch.save({"model": {"weight": torch.ones(3)}}, path)


def foreign_tensor(path: Path):
    torch.save(torch.ones(3), path)


def other_format(path: Path):
    whole = torch.load(path, weights_only=True)
    torch.save(whole | {"format": 99}, path)


def without_content(path: Path):
    torch.save({"format": checkpoint.FORMAT}, path)


def changed_number(path: Path):
    whole = torch.load(path, weights_only=True)
    whole["content"]["progress"]["epoch"] = 5
    torch.save(whole, path)


def renamed_weight(path: Path):
    whole = torch.load(path, weights_only=True)
    model = whole["content"]["model"]
    whole["content"]["model"] = {name.replace("0.weight", "1.weight_"): value for name, value in model.items()}
    torch.save(whole, path)


def hostile(path: Path):
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": Bomb(path.with_name("executed"))}, path)


def hostile_plain_pickle(path: Path):
    path.write_bytes(pickle.dumps(Bomb(path.with_name("executed")), protocol=2))


def stored_once(path: Path):
    """Eight gigabytes by name, four bytes on the disk."""
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": {"w": torch.zeros(1).expand(1 << 31)}}, path)


def overlapping(path: Path):
    rows = torch.zeros(100_000).as_strided((99_000, 1000), (1, 1))
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": {"w": rows}}, path)


def one_for_many(path: Path):
    tensor = torch.zeros(1000)
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": [tensor[i:] for i in range(500)] * 1000}, path)


def lists_that_share(path: Path):
    nested = [0] * 10
    for _ in range(12):
        nested = [nested] * 10
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": nested}, path)


def deep(path: Path):
    nested = []
    for _ in range(300):
        nested = [nested]
    torch.save({"format": checkpoint.FORMAT, "sha256": "", "content": nested}, path)


def packed(path: Path):
    """As the file is, but deflated: a gigabyte of zeros would be one megabyte."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + (bytes(1 << 22) if name.endswith("data/0") else b""))


DAMAGE = [truncated, emptied, flipped, text, foreign_weights, foreign_tensor, other_format, without_content,
          changed_number, renamed_weight, hostile, hostile_plain_pickle, stored_once, overlapping, one_for_many,
          lists_that_share, deep, packed]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_or_foreign_file_is_refused_by_name_and_not_executed(path, damage):
    checkpoint.save(path, content())
    damage(path)
    with pytest.raises(ValueError, match=r"last\.pt (can't be read|is not a checkpoint|is damaged)"):
        checkpoint.load(path)
    assert not path.with_name("executed").exists()


def test_the_bomb_is_a_real_one(path):
    hostile_plain_pickle(path)
    pickle.loads(path.read_bytes())
    assert path.with_name("executed").exists()


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_the_one_before_is_used_with_a_warning(path, damage):
    checkpoint.save(path, content(1))
    checkpoint.save(path, content(2))
    damage(path)
    with pytest.warns(UserWarning, match=r"last\.pt .*going on from last\.previous\.pt"):
        loaded = checkpoint.load(path)
    assert loaded["progress"]["epoch"] == 1
    assert not path.with_name("executed").exists()


def test_both_damaged_is_an_error_about_the_first(path):
    checkpoint.save(path, content(1))
    checkpoint.save(path, content(2))
    truncated(path)
    flipped(path.with_name("last.previous.pt"))
    with pytest.raises(ValueError, match=r"last\.pt can't be read"):
        checkpoint.load(path)


def test_what_claims_more_than_the_file_holds_takes_no_memory(path):
    """A process that may take two gigabytes more than it has refuses one of eight."""
    stored_once(path)
    code = f"""
import os, resource
from bpilib.system import checkpoint, files
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + (2 << 30),) * 2)
try:
    checkpoint.load({str(path)!r})
except ValueError as error:
    assert "a tensor whose numbers are stored once" in str(error), error
else:
    raise SystemExit("loaded")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tensors_may_share_what_they_are_views_of(path):
    whole = torch.arange(1000.0)
    given = {
        "whole": whole,
        "first": whole[:500],
        "rows": whole.view(10, 100).t(),
        "steps": (steps := [1, 2]),
        "s": steps,
    }
    checkpoint.save(path, given)
    assert same(checkpoint.load(path), given)


# --- a kill while saving


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_kill_between_the_renames_loses_nothing(path, monkeypatch, survived):
    """The renames of a save are: written → .new, old → previous, .new → path."""
    checkpoint.save(path, content(1))
    checkpoint.save(path, content(2))
    rename, left = Path.replace, [survived]

    def killed(self, target):
        if not left[0]:
            raise SystemExit("killed")
        left[0] -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemExit):
        checkpoint.save(path, content(3))
    monkeypatch.setattr(Path, "replace", rename)
    assert checkpoint.exists(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert checkpoint.load(path)["progress"]["epoch"] == 2
    assert len(caught) == (survived == 2)
    checkpoint.save(path, content(4))  # and it goes on
    assert checkpoint.load(path)["progress"]["epoch"] == 4


def test_a_write_that_fails_leaves_both_as_they_were(path, monkeypatch):
    checkpoint.save(path, content(1))
    checkpoint.save(path, content(2))
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}

    def full(whole, part):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, content(3))
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


# --- what fits of another network


def head(classes, seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict({"body": nn.Linear(4, 8), "classifier": nn.Linear(8, classes)})


def test_what_fits_is_taken_and_the_rest_stays_and_is_named():
    there, here = head(3), head(5, seed=1)
    before = {name: tensor.clone() for name, tensor in here.state_dict().items()}
    taken, left = checkpoint.take_fitting(here, there.state_dict())
    assert taken == 2
    assert left == ["classifier.weight (5, 8) here, (3, 8) there", "classifier.bias (5,) here, (3,) there"]
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, (there.state_dict() if name.startswith("body") else before)[name])


def test_a_classifier_of_other_classes_is_left_out_even_where_its_shape_fits():
    there, here = head(3), head(3, seed=1)
    before = here["classifier"].weight.detach().clone()
    taken, left = checkpoint.take_fitting(here, there.state_dict(), "classifier")
    assert taken == 2 and left == ["classifier.weight, of other classes", "classifier.bias, of other classes"]
    assert torch.equal(here["classifier"].weight, before)
    assert checkpoint.take_fitting(here, there.state_dict()) == (4, [])
    assert torch.equal(here["classifier"].weight, there["classifier"].weight)


def test_what_the_other_lacks_is_said():
    taken, left = checkpoint.take_fitting(head(3), {})
    assert taken == 0 and left[0] == "body.weight (8, 4) here, none there"


@pytest.mark.parametrize(
    ("there", "expected"),
    [([], "best"), (["last"], "last"), (["last.previous"], "last"), (["best", "last"], "best"),
     (["best.previous", "last"], "best"), (["best"], "best")],
)  # fmt: skip
def test_last_pt_stands_in_until_there_is_a_best_pt(tmp_path, there, expected):
    for name in there:
        checkpoint.save(tmp_path / f"{name}.pt", {})
    assert checkpoint.find_weights(tmp_path) == tmp_path / f"{expected}.pt"


def test_what_is_urgent_is_in_its_place_before_the_disk_is_waited_for(tmp_path, monkeypatch):
    path, seen = tmp_path / "last.pt", []

    def slow(place):
        seen.append((place.name, checkpoint.load(path)["step"]))

    checkpoint.save(path, {"step": 1})
    monkeypatch.setattr(checkpoint, "sync", slow)
    monkeypatch.setattr(files, "sync", slow)
    checkpoint.save(path, {"step": 2}, urgent=True)
    checkpoint.save(path, {"step": 3})
    assert seen[0] == ("last.pt", 2)  # already there
    assert len(seen) == 2 and seen[1][0].endswith(".part") and seen[1][1] == 2  # not there yet
    assert checkpoint.load(path)["step"] == 3
