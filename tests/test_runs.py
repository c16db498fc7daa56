"""What a run is made of: its clips, its feeder, its directory, and what is refused."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from making import tiny_config, write_prompts

from bpilib.data import synthetic
from bpilib.errors import MissingInputError
from bpilib.evaluate import evaluate
from bpilib.reference import reference_state_dict
from bpilib.runs import build, find_other_tags, open_run, saved_config, write_or_check_config
from bpilib.skeleton import MODALITIES, NTU, UCLA
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training.start import start_from

SUBJECTS = 5  # of `place`


@pytest.fixture(scope="module")
def outputs(place):
    """Finished runs of bpi (width 16) and ctrgcn."""
    for changes in ({"model": "bpi", "width": 16, "lr": 0.02}, {"model": "ctrgcn"}):
        fit(tiny_config(place, place / "outputs", epochs=1, batch_size=50, **changes))
    return place / "outputs"


def states(folder: Path):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# --- clips


def test_the_test_view_is_tested_and_the_others_trained_on(place, tmp_path):
    run = build(tiny_config(place, tmp_path))
    assert set(run.store.cameras[run.indices("train")]) == {1, 2} and len(run.indices("train")) == 100
    assert set(run.store.cameras[run.indices("test")]) == {3} and len(run.indices("test")) == 50
    assert len(run.indices("heldout")) == 0


@pytest.mark.parametrize(("share", "count"), [(0.2, 1), (0.4, 2), (0.01, 1), (0.8, 4)])
def test_held_out_subjects_are_never_trained_on(place, tmp_path, share, count):
    run = build(tiny_config(place, tmp_path, select="heldout", heldout=share))
    train, held = run.indices("train"), run.indices("heldout")
    of = run.store.subjects
    assert len(set(of[held])) == count and len(held) == 20 * count
    assert not set(of[train]) & set(of[held]) and not set(train) & set(held)
    assert sorted([*train, *held]) == run.store.split("xview", "train").tolist()
    assert set(run.store.cameras[held]) <= {1, 2}  # held out of the training views: nothing of the test set
    fed = run.feeder("train", train=True)
    assert set(fed.indices.tolist()) == set(train)


@pytest.mark.parametrize(("view", "held_view"), [(None, 2), (1, 1), (2, 2)])
def test_a_held_out_view_is_never_trained_on(place, tmp_path, view, held_view):
    run = build(tiny_config(place, tmp_path, heldout_by="view", heldout_view=view))
    train, held = run.indices("train"), run.indices("heldout")
    assert run.config.select == "last"
    assert set(run.store.cameras[held]) == {held_view} and set(run.store.cameras[train]) == {3 - held_view}
    assert sorted([*train, *held]) == run.store.split("xview", "train").tolist()


def test_copies_are_left_out_of_a_held_out_view(place, tmp_path, make_store):
    clips = [np.random.RandomState(n).standard_normal((20, 1, 20, 3)).cumsum(0) for n in range(9)]
    clips[4], clips[5] = clips[0], clips[8] + 1  # of view 2: a copy of one of view 1, one of a test clip that was moved
    store = make_store(UCLA, clips, [n % 3 for n in range(9)])
    store.cameras = np.repeat([1, 2, 3], 3)
    store._splits = {"xview/train": np.arange(6), "xview/test": np.arange(6, 9)}
    run = build(tiny_config(place, tmp_path, model="ctrgcn", heldout_by="view"))
    run.store = store
    assert run.indices("heldout").tolist() == [3] and run.indices("train").tolist() == [0, 1, 2]


def test_a_view_that_can_not_be_held_out_is_refused(place, tmp_path):
    run = build(tiny_config(place, tmp_path, heldout_by="view", heldout_view=3))
    with pytest.raises(ValueError, match=r"view 3 can't be kept from training, whose views are 1, 2"):
        run.indices("train")
    with pytest.raises(ValueError, match="parameter heldout_view: set heldout_by to view, it is None"):
        tiny_config(place, tmp_path, heldout_view=2)


def test_selecting_on_held_out_clips_holds_out_subjects_unless_told(place, tmp_path):
    assert tiny_config(place, tmp_path).heldout_by is None
    assert tiny_config(place, tmp_path, select="heldout").heldout_by == "subject"
    assert tiny_config(place, tmp_path, select="heldout", heldout_by="view").heldout_by == "view"
    assert len(build(tiny_config(place, tmp_path, heldout_by="subject")).indices("heldout")) == 20


UNSEEN = [synthetic.CLASSES[k] for k in (6, 2)]


def test_clips_of_unseen_classes_are_tested_alone(place, tmp_path):
    run = build(tiny_config(place, tmp_path, select="heldout", heldout=0.4, unseen=UNSEEN))
    all_seen = build(tiny_config(place, tmp_path, select="heldout", heldout=0.4))
    assert run.config.unseen == sorted(UNSEEN) and np.flatnonzero(run.unseen).tolist() == [2, 6]
    for part in ("train", "heldout"):
        before, now = all_seen.indices(part), run.indices(part)
        assert now.tolist() == [i for i in before if run.store.labels[i] not in (2, 6)] and len(now) < len(before)
    assert run.indices("test").tolist() == all_seen.indices("test").tolist()
    fed = run.feeder("train", train=True)
    seen = torch.cat([fed.batch(some)[1] for some in torch.arange(len(fed)).split(16)])
    assert set(seen.tolist()) == set(range(10)) - {2, 6}


@pytest.mark.parametrize(
    ("unseen", "message"),
    [(["Squats"], "is no class of synthetic, did you mean 'squat'"), (synthetic.CLASSES, "all 10 classes")],
)
def test_impossible_unseen_classes_are_refused_before_training(place, tmp_path, unseen, message):
    with pytest.raises(ValueError, match=f"parameter unseen: .*{message}"):
        fit(tiny_config(place, tmp_path, unseen=list(unseen)))


def test_unseen_classes_make_another_run(place, tmp_path):
    write_or_check_config(tiny_config(place, tmp_path, unseen=UNSEEN))
    folder = tiny_config(place, tmp_path).run_directory
    (folder / "last.pt").touch()
    write_or_check_config(tiny_config(place, tmp_path, unseen=UNSEEN[::-1]))
    for other in (None, UNSEEN[:1]):
        with pytest.raises(ValueError, match="unseen: "):
            write_or_check_config(tiny_config(place, tmp_path, unseen=other))


def test_a_run_with_unseen_classes_does_not_start_from_one_that_saw_them(place, outputs, tmp_path):
    source = outputs / "synthetic_xview" / "bpi_joint_seed0"
    run = build(tiny_config(place, tmp_path, width=16, unseen=UNSEEN))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(ValueError, match=f"was trained on {', '.join(sorted(UNSEEN))}, which the parameter unseen"):
        start_from(run, source)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    content = checkpoint.load(source / "best.pt")
    content["config"]["unseen"] = sorted([*UNSEEN, synthetic.CLASSES[0]])
    del content["trained_on"]  # as before it was noted: from the configuration
    checkpoint.save(tmp_path / "blind.pt", content)
    assert "started from" in start_from(run, tmp_path / "blind.pt")
    np.testing.assert_array_equal(run.indices("test"), run.store.split("xview", "test"))


def test_held_out_clips_are_the_same_for_every_seed_model_and_modality(place, tmp_path):
    def held(**changes):
        return build(tiny_config(place, tmp_path, select="heldout", **changes)).indices("heldout").tolist()

    assert held() == held(seed=7) == held(modality="bone_motion") == held(model="ctrgcn")


def test_held_out_subjects_can_not_be_all_of_them(place, tmp_path):
    run = build(tiny_config(place, tmp_path, select="heldout", heldout=0.95))
    with pytest.raises(ValueError, match=r"heldout 0\.95 leaves none of 5 subjects for training"):
        run.indices("train")


@pytest.mark.parametrize("part", ["tset", "val", ""])
def test_an_unknown_part_is_refused_and_not_taken_for_train(place, tmp_path, part):
    with pytest.raises(ValueError, match=r"train.*heldout.*test"):
        build(tiny_config(place, tmp_path)).indices(part)


# --- what is fed


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("model", ["ctrgcn", "gap", "bpi"])
def test_bones_are_made_by_the_feeder_for_ctrgcn_and_by_the_network_for_the_others(place, tmp_path, model, modality):
    run = build(tiny_config(place, tmp_path, model=model, modality=modality))
    wanted = modality if model == "ctrgcn" else {"bone": "joint", "bone_motion": "joint_motion"}.get(modality, modality)
    for part in ("train", "test"):
        assert run.feeder(part).modality == wanted
    expected = None if model == "ctrgcn" else 1 if modality.startswith("bone") else 6
    assert run.model.k == expected
    assert run.model.parts == tuple(run.store.skeleton.parts(modality, model) if model != "ctrgcn" else ())
    out = run.model.eval()(run.feeder("test").batch([0, 1])[0])
    assert out.logits.shape == (2, 10) and torch.isfinite(out.logits).all()


def test_training_passes_repeat_and_test_passes_do_not(place, tmp_path):
    run = build(tiny_config(place, tmp_path, repeats=3, seed=4))
    train, test = run.feeder("train", train=True), run.feeder("test")
    assert len(train) == 300 and train.train and train.seed == 4
    assert len(test) == 50 and not test.train


def test_k_and_width_reach_the_network(place, tmp_path):
    run = build(tiny_config(place, tmp_path, k=2, width=16))
    assert run.model.k == 2 and run.model.backbone.channels == 64
    with pytest.raises(ValueError, match="width must be a positive multiple of 8, not 12"):
        build(tiny_config(place, tmp_path, width=12))


def test_embeddings_are_as_wide_as_the_text_s(place, tmp_path):
    run = build(tiny_config(place, tmp_path))
    assert run.text.dim == 16 and run.model.global_head.out_features == 16 and run.text_digest
    run = build(tiny_config(place, tmp_path, model="ctrgcn"))
    assert run.text is None and run.text_digest == ""


# --- missing and wrong inputs


def test_a_missing_store_names_the_notebook_that_makes_it(place, tmp_path):
    with pytest.raises(MissingInputError, match=r"no prepared data at .*nowhere: run notebooks/01_prepare_data\.ipynb"):
        build(tiny_config(place, tmp_path, data=tmp_path / "nowhere"))


def test_a_store_of_another_data_set_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match="holds the data set synthetic, but the parameter dataset is ucla"):
        build(tiny_config(place, tmp_path, dataset="ucla"))


def test_prompts_that_miss_a_class_are_refused_naming_it(place, tmp_path):
    (tmp_path / "p").mkdir()
    prompts = write_prompts(tmp_path / "p", [name for name in synthetic.CLASSES if name != "kick"] + ["kicking"])
    with pytest.raises(ValueError, match=r"no prompts for 1 of 10 classes: 'kick' \(nearest: 'kicking'"):
        build(tiny_config(place, tmp_path, prompts=prompts))
    build(tiny_config(place, tmp_path, model="ctrgcn", prompts=prompts))  # which needs none


def test_missing_prompts_are_refused(place, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml"):
        build(tiny_config(place, tmp_path, prompts=tmp_path / "nowhere.yaml"))


def test_embeddings_of_other_texts_are_refused(place, tmp_path):
    prompts = write_prompts(tmp_path)
    prompts.write_text(prompts.read_text().replace("act of kick", "act of kicking hard"))
    with pytest.raises(ValueError, match=r"is stale.*act of kicking hard.*python -m bpilib\.text"):
        build(tiny_config(place, tmp_path, prompts=prompts))


def test_prompts_of_more_classes_in_another_order_are_fine(place, tmp_path):
    prompts = write_prompts(tmp_path, ["dance", *reversed(synthetic.CLASSES)])
    run = build(tiny_config(place, tmp_path, prompts=prompts))
    assert run.text.texts[0] == run.store.classes[0] == "wave"


# --- opening a run


def test_a_run_is_opened_by_what_names_it_with_its_own_settings(place, outputs):
    asked = tiny_config(place, outputs, epochs=77, width=64, test_batch_size=7)  # the run had 1, 16
    run = open_run(asked)
    assert (run.config.width, run.config.epochs, run.config.lr, run.epoch) == (16, 1, 0.02, 1)
    assert run.config.test_batch_size == 7  # the machine's, as asked now
    content = checkpoint.load(asked.run_directory / "best.pt")
    assert all(torch.equal(value, content["model"][name]) for name, value in run.model.state_dict().items())
    assert open_run(asked, "last").epoch == 1


def test_a_missing_run_names_the_notebook_and_the_runs_there_are(place, outputs, tmp_path):
    with pytest.raises(
        MissingInputError, match=r"no trained run in .*gap_joint_seed0: run notebooks/02_train\.ipynb"
    ) as e:
        open_run(tiny_config(place, outputs, model="gap"))
    assert "synthetic_xview/bpi_joint_seed0, synthetic_xview/ctrgcn_joint_seed0" in str(e.value)
    with pytest.raises(MissingInputError, match="Runs there are: none"):
        open_run(tiny_config(place, tmp_path))
    with pytest.raises(ValueError, match="which: expected 'best' or 'last', got 'first'"):
        open_run(tiny_config(place, outputs), "first")


def test_a_missing_run_names_one_that_differs_only_in_its_tag(place, outputs, tmp_path):
    there = tiny_config(place, outputs)
    for name in ("bpi_joint_seed0_demo", "bpi_joint_seed0", "bpi_joint_seed03"):
        folder = tmp_path / "synthetic_xview" / name
        folder.mkdir(parents=True)
        shutil.copy(there.run_directory / "best.pt", folder)
    assert find_other_tags(tiny_config(place, tmp_path)) == ["demo"]
    assert find_other_tags(tiny_config(place, tmp_path, tag="demo")) == [""]
    shutil.rmtree(tmp_path / "synthetic_xview" / "bpi_joint_seed0")
    with pytest.raises(MissingInputError, match=r"differs only in its tag: set tag = 'demo'\. Runs"):
        open_run(tiny_config(place, tmp_path))


@pytest.mark.parametrize("other", ["ctrgcn", "bpi"])
def test_a_checkpoint_of_another_model_is_refused(place, outputs, tmp_path, other):
    mine = tiny_config(place, tmp_path, model={"bpi": "ctrgcn", "ctrgcn": "bpi"}[other], epochs=1, batch_size=50)
    write_or_check_config(mine)
    shutil.copy(tiny_config(place, outputs, model=other).run_directory / "best.pt", mine.run_directory)
    with pytest.raises(ValueError, match=rf"another model \(model: '{other}', expected '{mine.model}'"):
        open_run(mine)


@pytest.mark.parametrize("changes", [{"width": 8}, {"k": 2}, {"modality": "bone"}])
def test_a_checkpoint_of_other_settings_is_refused_naming_them(place, outputs, tmp_path, changes):
    mine = tiny_config(place, tmp_path, **({"width": 16} | changes))
    write_or_check_config(mine)
    shutil.copy(tiny_config(place, outputs).run_directory / "best.pt", mine.run_directory)
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"another model.*{name}: .*expected {value!r}"):
        open_run(mine)


def test_a_checkpoint_without_its_config_is_refused(place, outputs, tmp_path):
    mine = tiny_config(place, tmp_path)
    mine.run_directory.mkdir(parents=True)
    shutil.copy(tiny_config(place, outputs).run_directory / "best.pt", mine.run_directory)
    with pytest.raises(MissingInputError, match=r"no trained run in .*bpi_joint_seed0"):
        open_run(mine)


def test_a_damaged_checkpoint_is_refused(place, outputs, tmp_path):
    mine = tiny_config(place, tmp_path, width=16)
    shutil.copytree(tiny_config(place, outputs).run_directory, mine.run_directory)
    for name in ("best.pt", "last.pt"):
        path = mine.run_directory / name
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"best\.pt can't be read"):
        open_run(mine)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def swapped(path):
    """The checkpoint of a run that differs in its seed alone, whole and with a right checksum."""
    content = checkpoint.load(path)
    path.unlink()
    checkpoint.save(path, content | {"config": content["config"] | {"seed": 5}})


def of_another_epoch(path):
    content = checkpoint.load(path)
    path.unlink()
    checkpoint.save(path, content | {"epoch": 7})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "best.pt can't be read"),
        (swapped, r"best.pt is a checkpoint of another run \(seed: 5, expected 0\)"),
        (of_another_epoch, "best.pt holds epoch 7, expected 1"),
    ],
)
def test_the_last_checkpoint_stands_in_for_a_best_one_of_its_epoch(place, outputs, tmp_path, damage, said):
    mine = tiny_config(place, tmp_path, width=16)
    shutil.copytree(tiny_config(place, outputs).run_directory, mine.run_directory)
    expected = open_run(mine).model.state_dict()
    damage(mine.run_directory / "best.pt")
    with pytest.warns(UserWarning, match=rf"{said}.*; going on from last\.pt"):
        found = open_run(mine).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_weights_of_another_epoch_than_the_figures_are_said_and_leave_the_scores(place, outputs, tmp_path):
    mine = tiny_config(place, tmp_path, width=16)
    shutil.copytree(tiny_config(place, outputs).run_directory, mine.run_directory)
    for name in ("best.pt", "last.pt"):
        of_another_epoch(mine.run_directory / name)
    before = (mine.run_directory / "scores.npz").read_bytes()
    with pytest.warns(UserWarning, match=r"weights of epoch 1, .* are lost: these are of epoch 7"):
        assert evaluate(mine).epoch == 7
    assert (mine.run_directory / "scores.npz").read_bytes() == before


@pytest.mark.parametrize("content", ["", "dataset: [", "- 3", "dataset: synthetic"])
def test_a_damaged_config_says_how_to_make_it_again(place, outputs, tmp_path, content):
    mine = tiny_config(place, tmp_path, width=16, lr=0.02, epochs=1, batch_size=50)
    shutil.copytree(tiny_config(place, outputs).run_directory, mine.run_directory)
    path = mine.run_directory / "config.yaml"
    path.write_text(content)
    for use in (open_run, write_or_check_config):
        with pytest.raises(ValueError, match=r"config\.yaml is damaged .*remove it"):
            use(mine)
    path.unlink()
    write_or_check_config(mine)
    assert open_run(mine).epoch == 1


# --- the run directory


def test_the_first_claim_writes_every_setting(place, tmp_path):
    config = tiny_config(place, tmp_path, lr=1e-5)
    write_or_check_config(config)
    written = yaml.safe_load((config.run_directory / "config.yaml").read_text())
    assert written == config.settings() and written["lr"] == 1e-5
    assert saved_config(config) == config


def test_the_same_results_may_be_claimed_again_from_other_places_and_machines(place, tmp_path):
    config = tiny_config(place, tmp_path)
    write_or_check_config(config)
    before = states(tmp_path)
    shutil.copytree(place / "store", tmp_path / "copy")
    before |= states(tmp_path / "copy")
    elsewhere = config.changed(data=str(tmp_path / "copy"), test_batch_size=3, precision="auto", checkpoint_minutes=1.0)
    write_or_check_config(elsewhere)
    assert states(tmp_path) == before


def test_other_settings_in_the_same_directory_are_refused_listing_each(place, outputs):
    before = states(outputs)
    with pytest.raises(ValueError, match="holds a run with other settings") as caught:
        fit(tiny_config(place, outputs, width=16, lr=0.5, epochs=1, batch_size=50, weight_decay=0.0))
    message = str(caught.value)
    assert "(lr: 0.02 there, 0.5 now; weight_decay: 0.0004 there, 0.0 now)" in message
    assert "Nothing was changed" in message and "tag" in message and "outputs" in message
    assert states(outputs) == before


@pytest.mark.parametrize("kept", [("best.pt",), ("summary.json", "scores.npz"), ("last.previous.pt",)])
def test_what_is_left_of_a_run_is_still_that_run(place, outputs, tmp_path, kept):
    """Say, without its large last.pt."""
    asked = tiny_config(place, tmp_path, width=16, lr=0.02, epochs=1, batch_size=50)
    done = tiny_config(place, outputs).run_directory
    asked.run_directory.mkdir(parents=True)
    shutil.copy(done / "config.yaml", asked.run_directory)
    for name in kept:
        shutil.copy(done / name.replace("previous.", ""), asked.run_directory / name)
    before = states(tmp_path)
    write_or_check_config(asked)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(lr: 0\.02 there, 0\.5 now\)"):
        write_or_check_config(asked.changed(lr=0.5))
    assert states(tmp_path) == before


def test_a_tag_starts_another_run_beside_it(place, tmp_path):
    write_or_check_config(tiny_config(place, tmp_path))
    write_or_check_config(tiny_config(place, tmp_path, lr=0.5, tag="b"))
    assert {p.name for p in (tmp_path / "synthetic_xview").iterdir()} == {"bpi_joint_seed0", "bpi_joint_seed0_b"}


@pytest.mark.parametrize(
    "mistake", [{"width": 12}, {"data": "nowhere"}, {"prompts": "nowhere.yaml"}, {"select": "heldout", "heldout": 0.95}]
)
def test_a_start_that_failed_does_not_bind_the_directory(place, tmp_path, mistake):
    with pytest.raises(ValueError, match=r"."):
        fit(tiny_config(place, tmp_path, epochs=1, batch_size=100, lr=0.01, **mistake))
    right = tiny_config(place, tmp_path, epochs=1, batch_size=100, model="bpi")  # put right, and another rate with it
    assert (fit(right) / "summary.json").exists()


def test_ctrgcn_does_not_care_for_the_text_encoder(place, tmp_path):
    """Its default differs between machines with and without a GPU, its results do not."""
    write_or_check_config(tiny_config(place, tmp_path, model="ctrgcn", text="clip"))
    write_or_check_config(tiny_config(place, tmp_path, model="ctrgcn", text="minilm"))


# --- texts


def test_texts_that_changed_since_training_are_said(place, outputs, tmp_path):
    config = tiny_config(place, outputs)
    prompts = tmp_path / "prompts.yaml"
    shutil.copy(config.prompts, prompts)
    shutil.copy(str(config.prompts).replace(".yaml", ".minilm.npz"), tmp_path / "prompts.minilm.npz")
    content = yaml.safe_load(prompts.read_text())
    first = content["prompts"][0]["synonyms"]
    first[:] = first[::-1]
    prompts.write_text(yaml.safe_dump(content))
    with pytest.warns(UserWarning, match="has changed since"):
        open_run(config.changed(prompts=str(prompts)))


def test_clips_that_have_changed_are_named(place, outputs, tmp_path):
    config = tiny_config(place, outputs, model="ctrgcn", epochs=1, batch_size=50)
    data = shutil.copytree(place / "store", tmp_path / "store")
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["checksum"]  # as in a store made before there was one
    manifest["sha256"]["poses.npy"] = "0" * 64
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match=f"{data} has changed since .*: the clips are others"):
        open_run(config.changed(data=str(data)))
    with pytest.raises(ValueError, match=f"was trained with other clips than {data} holds now: put them back, or set"):
        fit(config.changed(data=str(data)))
    shutil.rmtree(data)
    assert fit(config.changed(data=str(data))) == config.run_directory  # clips that are gone do no harm


# --- weights of another run to start from


def test_a_new_run_starts_from_the_weights_that_fit(place, outputs, tmp_path):
    run = build(tiny_config(place, tmp_path, model="ctrgcn", modality="bone"))
    source = outputs / "synthetic_xview" / "ctrgcn_joint_seed0"
    said = start_from(run, source)
    there = checkpoint.load(source / "best.pt")["model"]
    assert all(torch.equal(tensor, there[name]) for name, tensor in run.model.state_dict().items())
    of = "(ctrgcn joint on synthetic, width 8)"
    assert said == f"started from {source / 'best.pt'} {of}: {len(there)} of {len(there)} tensors taken"
    assert start_from(run, source / "last.pt").startswith(f"started from {source / 'last.pt'}")


def test_of_another_data_set_all_but_the_classifier_is_taken(place, outputs, tmp_path):
    run = build(tiny_config(place, tmp_path, model="ctrgcn"))
    classifier = run.model.classifier.weight.detach().clone()
    path = tmp_path / "other.pt"
    content = checkpoint.load(outputs / "synthetic_xview" / "ctrgcn_joint_seed0" / "best.pt")
    content["config"]["dataset"] = "mine"
    checkpoint.save(path, content)
    said = start_from(run, path).splitlines()
    assert said[1:] == [f"  not taken: classifier.{name}, of other classes" for name in ("weight", "bias")]
    assert torch.equal(run.model.classifier.weight, classifier)
    assert torch.equal(run.model.state_dict()["backbone.data_bn.weight"], content["model"]["backbone.data_bn.weight"])


def test_from_another_width_there_is_nothing_to_start_with(place, outputs, tmp_path):
    run = build(tiny_config(place, tmp_path, model="ctrgcn", width=16))
    source = outputs / "synthetic_xview" / "ctrgcn_joint_seed0"
    with pytest.raises(ValueError, match=r"width 8\): only \d+ of \d+ tensors fit a ctrgcn of width 16: choose a run"):
        start_from(run, source)
    with pytest.raises(MissingInputError, match=r"start_from: no checkpoint at .*nowhere.*: name the directory"):
        start_from(run, tmp_path / "nowhere")


def test_from_another_skeleton_all_but_what_belongs_to_joints_is_taken(outputs, tmp_path, make_store):
    store = make_store(NTU, np.random.default_rng(0).standard_normal((2, 9, 2, 25, 3)))
    run = build(tiny_config(tmp_path, tmp_path, model="ctrgcn", dataset="test", benchmark="all", data=store.path))
    said = start_from(run, outputs / "synthetic_xview" / "ctrgcn_joint_seed0").splitlines()
    assert "it has 20 joints, this run 25: what belongs to single joints starts anew" in said[0]
    lost = [line.split()[2] for line in said[1:]]
    assert sum(name.startswith("backbone.data_bn.") for name in lost) == 4
    assert sum(name.endswith(".adjacency") for name in lost) == 10
    assert [name for name in lost if "data_bn" not in name and "adjacency" not in name] == [
        "classifier.weight", "classifier.bias",
    ]  # fmt: skip


def test_training_starts_from_there_once_and_resumes_by_itself(place, outputs, tmp_path, caplog):
    caplog.set_level(logging.INFO, "bpilib")
    source = outputs / "synthetic_xview" / "ctrgcn_joint_seed0"
    changes = {"model": "ctrgcn", "epochs": 1, "batch_size": 50, "start_from": str(source)}
    scratch, tuned = (fit(tiny_config(place, tmp_path / name, **kind)) for name, kind in
                      (("a", changes | {"start_from": None}), ("b", changes)))  # fmt: skip
    assert caplog.text.count("started from") == 1
    losses = [float((folder / "metrics.csv").read_text().splitlines()[1].split(",")[2]) for folder in (scratch, tuned)]
    assert losses[1] < losses[0]
    with pytest.raises(ValueError, match="start_from: "):  # its numbers depend on it
        write_or_check_config(tiny_config(place, tmp_path / "b", **(changes | {"start_from": None})))


def test_a_run_that_was_renamed_is_recognised(place, outputs, tmp_path):
    mine = tiny_config(place, tmp_path, width=16, tag="old")
    shutil.copytree(tiny_config(place, outputs).run_directory, mine.run_directory)
    said = r"_old has been moved or renamed: .* of the run synthetic_xview/bpi_joint_seed0\. Move it"
    for use in (open_run, write_or_check_config):
        with pytest.raises(ValueError, match=said):
            use(mine)
    shutil.copytree(outputs, tmp_path / "moved")  # the whole folder may be anywhere
    assert open_run(tiny_config(place, tmp_path / "moved")).epoch == 1


# --- started from weights of the published code


@pytest.fixture
def published(place, outputs, tmp_path):
    """published(model, wrap): a file of the weights of a trained run, as the published code saves them."""

    def write(model, wrap=lambda state: state, **changes):
        state = reference_state_dict(open_run(tiny_config(place, outputs, model=model)).model)
        torch.save(wrap(state | changes), tmp_path / "published.pt")
        return tmp_path / "published.pt"

    return write


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_published_weights_are_started_from(place, outputs, tmp_path, published, wrap):
    run = build(tiny_config(place, tmp_path, model="ctrgcn"))
    said = start_from(run, published("ctrgcn", wrap))
    expected = open_run(tiny_config(place, outputs, model="ctrgcn")).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in run.model.state_dict().items())
    count = len(reference_state_dict(run.model))
    of = "(published weights of a ctrgcn, 10 classes, 20 joints, 1 persons, width 8)"
    assert said == f"started from {tmp_path / 'published.pt'} {of}: {count} of {count} tensors taken"


def test_published_weights_of_other_classes_are_taken_so_far_as_they_fit(place, tmp_path, published):
    run = build(tiny_config(place, tmp_path, model="ctrgcn"))
    before = run.model.classifier.weight.clone()
    features = before.shape[1]
    path = published("ctrgcn", **{"fc.weight": torch.zeros(60, features), "fc.bias": torch.zeros(60)})
    said = start_from(run, path).splitlines()
    assert said[1:] == [f"  not taken: fc.weight (10, {features}) here, (60, {features}) there",
                        "  not taken: fc.bias (10,) here, (60,) there"]  # fmt: skip
    assert torch.equal(run.model.classifier.weight, before)
    with pytest.raises(ValueError, match="does not say which classes it was trained on"):
        start_from(build(tiny_config(place, tmp_path, model="ctrgcn", unseen=UNSEEN)), path)
    with pytest.raises(ValueError, match=r"60 classes, .* width 8\): only \d+ of \d+ tensors fit a .* width 16"):
        start_from(build(tiny_config(place, tmp_path, model="ctrgcn", width=16)), path)
