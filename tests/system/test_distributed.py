"""What processes of one run do together: shares without repeats or holes, and the loss and gradients of one process."""

import numpy as np
import open_clip
import pytest
import torch
from making import NO_UCLA, tiny_config, ucla_store, ucla_zip
from shares import TINY_CLIP, loss_and_gradients, save_loss_and_gradients
from torch import nn

from bpilib.config import resolve
from bpilib.model import Output
from bpilib.system import distributed
from bpilib.training import data_parallel
from bpilib.training.launch import launch

CLIPS = 20  # of the training split on 1 subject
EVEN, ODD = [3, 17, 8, 0, 11, 5, 19, 2], [4, 9, 12, 1, 7]
CASES = {  # name: changed settings, batch
    "bpi": ({"model": "bpi"}, EVEN),
    "bpi of an odd batch": ({"model": "bpi"}, ODD),
    "gap": ({"model": "gap", "modality": "bone"}, EVEN),
    "ctrgcn": ({"model": "ctrgcn"}, ODD),
    "a trained text tower": ({"model": "bpi", "text": "clip", "clip_model": "tiny"}, EVEN),
    "a frozen text tower": ({"model": "bpi", "text": "clip", "clip_model": "tiny", "clip_trained": False}, EVEN),
}


@pytest.fixture(scope="module")
def place(place):
    """With weights of a small text tower, too."""
    open_clip.factory._MODEL_CONFIGS["tiny"] = TINY_CLIP
    torch.manual_seed(5)
    torch.save(open_clip.create_model("tiny").state_dict(), place / "weights.pt")
    return place


@pytest.fixture(scope="module")
def pairs(place):
    """Two processes have computed all CASES, each its share; name → the configuration and the batch."""
    changes = {"clip_pretrained": str(place / "weights.pt"), "devices": 2}
    cases = {
        name: (tiny_config(place, place / name, **changes, **settings), batch)
        for name, (settings, batch) in CASES.items()
    }
    launch(save_loss_and_gradients, cases["bpi"][0], cases, place)
    return cases


def distance(found: dict, expected: dict, prefix: str) -> float:
    """Norm of the difference of all entries whose name begins with `prefix`, over the norm of the expected ones."""
    names = [name for name in expected if name.startswith(prefix)]
    a, b = (torch.cat([entries[name].flatten() for name in names]) for entries in (found, expected))
    assert a.dtype == b.dtype == torch.float64
    return float((a - b).norm() / b.norm())


def assert_equal_to_one_process(found: dict, expected: dict, title: str) -> None:
    """float64 to 1e-12, as a whole and parameter by parameter; pytest -s shows the distances."""
    assert found.keys() == expected.keys() and torch.equal(found["labels"], expected["labels"])
    assert expected["total"] < 20 and all(value.isfinite().all() for value in expected.values())
    parts = [part for part in ("total", "cross_entropy", "contrastive", "logits", "grad/") if part != "contrastive"
             or len(expected[part])]  # fmt: skip
    apart = {part: distance(found, expected, part) for part in parts}
    print(f"{title}: loss {expected['total']:.4f}; apart", ", ".join(f"{part} {d:.1e}" for part, d in apart.items()))
    assert max(apart.values()) < 1e-12
    scale = 1e-9 * max(value.norm() for name, value in expected.items() if name.startswith("grad/"))
    for name, value in expected.items():
        if name.startswith("grad/") and value.norm() > scale:  # others are zero but for rounding
            assert distance(found, expected, name) < 1e-6, name


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_of_two_processes_are_those_of_one(place, pairs, name):
    expected = loss_and_gradients(*pairs[name])
    texts = [entry for entry in expected if entry.startswith("grad/text/")]
    assert bool(texts) == (name == "a trained text tower")
    for number in range(2):
        assert_equal_to_one_process(torch.load(place / f"{name}.{number}.pt"), expected, name)


def test_a_loss_of_shares_alone_would_be_another(place, pairs):
    """The contrastive loss of half batches is not that of the whole: the test above can fail."""
    config, batch = pairs["bpi"]
    whole = loss_and_gradients(config, batch)
    half = loss_and_gradients(config, batch[: len(batch) // 2])
    assert distance(half, whole, "grad/") > 1e-2


def test_what_two_processes_tell_each_other(place, pairs):
    first, second = (torch.load(place / f"collectives.{number}.pt") for number in range(2))
    assert first["shares"] == [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert second["shares"] == [[1], [2], [4, 5, 6], [4, 5, 6, 7]]
    for found in (first, second):
        assert found["whole"].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert found["aligned"] == (1, 10) and found["sum"] == 3
        assert "differ in prompts (on " in found["disagreement"] and "data" not in found["disagreement"].split(":")[0]
    # twice the gradient, of which DistributedDataParallel takes the mean over two processes
    assert first["gradient"].tolist() == [4, 8, 12, 16] and second["gradient"].tolist() == [20, 24, 28]


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("clips", [8, 9, 200])
def test_shares_are_a_partition_in_order(monkeypatch, processes, clips):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    batch, shares = np.random.default_rng(0).permutation(clips), []
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(data_parallel.shard(batch))
    np.testing.assert_array_equal(np.concatenate(shares), batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_fewer_clips_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(ValueError, match=r"a batch of 3 clips can't be shared by 4 processes: raise batch_size"):
        data_parallel.shard(np.arange(3))


def test_one_process_alone_needs_nobody():
    rows, module, positions = torch.randn(3, 2), nn.BatchNorm1d(3), np.arange(5)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert data_parallel.gather(rows, 3) is rows and distributed.all_reduce_sum(rows) is rows
    assert data_parallel.shard(positions).tolist() == positions.tolist()
    out = Output(rows)
    assert data_parallel.gather_batch(out, None, rows, 3) == (out, None, rows)
    distributed.broadcast_state(module)
    distributed.check_same_inputs({"anything": 1})
    towers = data_parallel.Towers(module, None)
    assert data_parallel.distribute(towers, sync_batchnorm=True) is towers and type(towers.model) is nn.BatchNorm1d


def test_the_bar_says_clips_time_left_and_speed_of_the_new_ones():
    with distributed.progress_bar(100, "run", 40) as bar:
        bar.set_postfix_str("epoch 2 of 3", refresh=False)
        bar.update(20)
        said = bar.format_meter(**(bar.format_dict | {"elapsed": 10, "rate": None}))
    assert said.startswith("run:  60%|")
    assert said.endswith("| 60 of 100 clips, 00:10 gone, 00:20 left,  2.00 clips/s, epoch 2 of 3")


def test_the_first_process_alone_writes(monkeypatch):
    done = []
    write = distributed.rank_zero_only(done.append)
    write(1)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    write(2)
    assert done == [1]


@pytest.mark.slow
@pytest.mark.skipif(ucla_zip() is None, reason=NO_UCLA)
def test_loss_and_gradients_on_nw_ucla(tmp_path):
    """The published network, width and batch, on real clips."""
    settings = {"dataset": "ucla", "model": "bpi", "data": ucla_store(tmp_path), "outputs": tmp_path}
    config = resolve(**settings, text="minilm", device="cpu", precision="fp32", devices=2)
    batch = np.random.default_rng(0).permutation(1020)[: config.batch_size].tolist()
    launch(save_loss_and_gradients, config, {"ucla": (config, batch)}, tmp_path)
    expected = loss_and_gradients(config, batch)
    for number in range(2):
        assert_equal_to_one_process(torch.load(tmp_path / f"ucla.{number}.pt"), expected, "NW-UCLA")
