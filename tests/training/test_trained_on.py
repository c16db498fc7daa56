"""A run that starts from weights is not tested or selected on clips that they were trained on."""

import json

import numpy as np
import pytest
import torch
from making import tiny_config
from small_runs import assert_same

from bpilib.analysis.results import find_results
from bpilib.data.copies import hash_clips
from bpilib.data.store import Clip, StoreWriter
from bpilib.reference import import_weights, reference_state_dict
from bpilib.runs import build, write_or_check_config
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training.start import start_from
from bpilib.training.trained_on import note_training

SUBJECTS = 2  # of `place`


def write_store(folder, dataset, skeleton, clips, splits):
    """folder/store of clips: (name, poses, label, subject, camera)."""
    with StoreWriter(folder / "store", dataset, skeleton, [f"class {k}" for k in range(10)], 1) as writer:
        for clip in clips:
            writer.add(Clip(*clip))
        return writer.finish(splits, {})


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    """The clips of `place` as a data set "mine": what benchmark "first" trains on, "second" tests, and vice versa."""
    folder, store = tmp_path_factory.mktemp("two"), build(tiny_config(place, place, model="ctrgcn")).store
    even, odd = np.arange(0, len(store), 2), np.arange(1, len(store), 2)
    splits = {"first": {"train": even, "test": odd}, "second": {"train": odd, "test": even}}
    columns = (store.names.tolist(), map(store.sample, range(len(store))), store.labels, store.subjects, store.cameras)
    write_store(folder, "mine", store.skeleton, zip(*columns), splits)
    return folder


def small(folder, outputs, benchmark=None, **changes):
    """A configuration on one of the stores; "mine" where a benchmark is named."""
    mine = {"dataset": "mine", "benchmark": benchmark} if benchmark else {}
    return tiny_config(folder, outputs, **({"model": "ctrgcn", "epochs": 1, "batch_size": 50} | mine | changes))


def began(config):
    """The run of a configuration before its first step."""
    run = build(config)
    if config.start_from is not None:
        start_from(run, config.start_from)
    note_training(run)
    return run


def save(config, **changes):
    """The directory of a run that is saved before its first step, its checkpoint's content changed."""
    content = began(config).content() | changes
    write_or_check_config(config)
    checkpoint.save(config.run_directory / "best.pt", content)
    return str(config.run_directory)


def test_a_training_notes_its_clips_and_its_weights_are_not_tested_on_them(two, tmp_path):
    source = fit(small(two, tmp_path, "first"))
    run = build(small(two, tmp_path, "first"))
    clips = np.unique(hash_clips(run.store, run.indices("train")))
    assert len(clips) == 30
    for name in ("best.pt", "last.pt"):
        noted = checkpoint.load(source / name)["trained_on"]
        (one,) = noted["runs"]
        assert noted["start_from_clips"] is None and one["run"] == "mine_first/ctrgcn_joint_seed0"
        np.testing.assert_array_equal(one["clips"], clips)
        with pytest.raises(ValueError, match=r"_first/ctrgcn_joint_seed0 was trained on 30 of the 30 test clips of .* "
                                             "start from a run of the same benchmark"):  # fmt: skip
            fit(small(two, tmp_path, "second", start_from=str(source / name)))
    tuned = fit(small(two, tmp_path, "first", start_from=str(source), tag="tuned"))
    assert json.loads((tuned / "summary.json").read_text())["start_from_clips"] == "known"
    assert [result.honest for result in find_results(tmp_path)[0]] == [True, True]


def test_a_run_that_goes_on_still_knows(two, tmp_path, at_step):
    source = save(small(two, tmp_path, "first"))
    config = small(two, tmp_path, "first", start_from=source, epochs=2, tag="b")

    def end():
        raise RuntimeError("ended")

    at_step(1, end)
    with pytest.raises(RuntimeError, match="ended"):
        fit(config)
    before = checkpoint.load(config.run_directory / "last.pt")
    assert json.loads((fit(config) / "summary.json").read_text())["start_from_clips"] == "known"
    after = checkpoint.load(config.run_directory / "best.pt")
    assert (before["epoch"], after["epoch"]) == (1, 2)
    assert_same(before["trained_on"], after["trained_on"])


@pytest.mark.parametrize("held", [{"heldout_by": "view"}, {"select": "heldout", "heldout": 0.5}])
def test_held_out_clips_must_not_have_been_trained_on(place, tmp_path, held):
    source = save(small(place, tmp_path))
    with pytest.raises(ValueError, match="was trained on 20 of the 20 held-out clips of this run"):
        began(small(place, tmp_path, tag="b", start_from=source, **held))
    same = save(small(place, tmp_path, tag="held", **held))
    run = began(small(place, tmp_path, tag="b", start_from=same, **held))
    assert run.trained_on["start_from_clips"] == "known" and len(run.trained_on["runs"]) == 1


def test_a_run_is_asked_about_those_that_it_started_from(place, two, tmp_path):
    skeleton = build(small(place, tmp_path)).store.skeleton
    noise = np.random.default_rng(0).standard_normal((4, 9, 1, 20, 3))
    write_store(tmp_path, "other", skeleton, [(f"clip{i}", noise[i], i) for i in range(4)],
                {"split": {"train": np.arange(2), "test": np.arange(2, 4)}})  # fmt: skip
    first = save(small(two, tmp_path, "first"))
    between = save(small(tmp_path, tmp_path, dataset="other", benchmark="split", start_from=first))
    runs = checkpoint.load(f"{between}/best.pt")["trained_on"]["runs"]
    assert [one["run"].split("/")[0] for one in runs] == ["mine_first", "other_split"]
    with pytest.raises(ValueError, match=r"other_split.*: mine_first/.* was trained on 30 of the 30 test clips"):
        began(small(two, tmp_path, "second", start_from=between))
    assert began(small(two, tmp_path, "first", start_from=between, tag="b")).trained_on["start_from_clips"] == "known"
    blind = small(two, tmp_path, "first", start_from=between, unseen=["class 3"], tag="c")
    with pytest.raises(ValueError, match=r"mine_first/.* was trained on 3 of the 3 clips of unseen classes"):
        began(blind)


def test_clips_are_recognised_in_another_store(place, two, tmp_path):
    source = save(small(place, tmp_path))
    tested = build(small(two, tmp_path, "first"))
    views = tested.store.cameras[tested.indices("test")]
    with pytest.raises(ValueError, match=f"was trained on {(views != 3).sum()} of the 30 test clips of this run"):
        began(small(two, tmp_path, "first", start_from=source))


def test_copies_of_clips_that_the_run_trains_on_itself_are_no_reason(two, tmp_path):
    store = build(small(two, tmp_path, "first")).store
    clips = [(f"clip{i}", store.sample(i % 4), i % 4) for i in range(6)]  # the last two are copies of the first two
    write_store(tmp_path, "mine", store.skeleton, clips, {"first": {"train": np.arange(4), "test": np.arange(4, 6)}})
    source = save(small(tmp_path, tmp_path, "first"))
    assert began(small(tmp_path, tmp_path, "first", start_from=source)).trained_on["start_from_clips"] == "known"


def test_of_an_older_checkpoint_the_clips_are_looked_up_where_the_store_is_the_same(place, two, tmp_path):
    older = save(small(two, tmp_path, "first"), trained_on={})
    with pytest.raises(ValueError, match="was trained on 30 of the 30 test clips"):
        began(small(two, tmp_path, "second", start_from=older))
    assert began(small(two, tmp_path, "first", start_from=older, tag="b")).trained_on["start_from_clips"] == "known"
    elsewhere = save(small(two, tmp_path / "b", "first"), trained_on={}, data={})
    with pytest.warns(UserWarning, match=r"not known on which clips of mine .*b.mine_first.* does not count as honest"):
        run = began(small(two, tmp_path, "second", start_from=elsewhere))
    assert run.trained_on["start_from_clips"] == "unknown"
    assert began(small(place, tmp_path, start_from=elsewhere)).trained_on["start_from_clips"] == "other data set"
    tuned = save(small(two, tmp_path / "c", "first", start_from=older), trained_on={})
    with pytest.warns(UserWarning, match=f"not known on which clips of mine {older} was trained"):
        began(small(two, tmp_path, "first", start_from=tuned))


def test_a_data_set_made_anew_is_not_known_to_be_another(two, tmp_path):
    store = build(small(two, tmp_path, "first")).store
    clips = [(str(store.names[i]), store.sample(i) + np.float32(0.5), i % 4) for i in range(6)]
    write_store(tmp_path, "mine", store.skeleton, clips, {"first": {"train": np.arange(4), "test": np.arange(4, 6)}})
    source = save(small(two, tmp_path, "first"))
    with pytest.warns(UserWarning, match="was trained on clips of mine that are not among those of"):
        run = began(small(tmp_path, tmp_path, "first", start_from=source))
    assert run.trained_on["start_from_clips"] == "unknown"


def test_weights_that_were_selected_on_the_test_clips_are_said_to_be(place, tmp_path):
    source = save(small(place, tmp_path, select="test"))
    with pytest.warns(UserWarning, match="seed0 was selected on test clips of synthetic, so the accuracy of this run"):
        run = began(small(place, tmp_path, start_from=source, tag="b"))
    assert run.trained_on["start_from_clips"] == "test-selected"
    assert [one["select"] for one in run.trained_on["runs"]] == ["test", "last"]


def test_a_weight_file_is_of_the_published_data_set_of_its_shape(place, tmp_path):
    state = reference_state_dict(build(small(place, tmp_path)).model)
    torch.save(state, tmp_path / "published.pt")  # of 10 classes and 20 joints, as NW-UCLA
    run = build(small(place, tmp_path))
    start_from(run, tmp_path / "published.pt")
    assert run.trained_on["start_from_clips"] == "other data set"
    run.store.dataset, run.config = "ucla", run.config.changed(dataset="ucla")
    with pytest.warns(UserWarning, match=r"not known on which clips of ucla \S+published.pt was trained"):
        start_from(run, tmp_path / "published.pt")
    stated = import_weights(small(place, tmp_path), tmp_path / "published.pt")  # its data set is what was stated
    with pytest.warns(UserWarning, match="not known on which clips of synthetic"):
        began(small(place, tmp_path, start_from=str(stated.run_directory), tag="b"))


def test_where_its_start_was_not_looked_at_a_run_that_goes_on_does_not_know(place, tmp_path):
    run = build(small(place, tmp_path, start_from="outputs/synthetic_xview/a"))
    note_training(run)
    assert run.trained_on["start_from_clips"] == "unknown"
    assert [one["clips"] is None for one in run.trained_on["runs"]] == [True, False]
