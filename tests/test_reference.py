"""Weights under the published names: there and back, and what does not fit."""

import copy
import pickle
import warnings
from collections import OrderedDict

import pytest
import torch
from bomb import Bomb
from making import tiny_config
from noise import assert_float32_of

from bpilib.data import SkeletonStore
from bpilib.errors import MissingInputError
from bpilib.evaluate import evaluate
from bpilib.feeders import Feeder
from bpilib.model import CTRGCNClassifier, build_model
from bpilib.reference import (
    import_weights,
    load_reference_weights,
    look_at,
    recognise_modalities,
    reference_state_dict,
    unwrap_tensors,
)
from bpilib.runs import build, open_run
from bpilib.skeleton import NTU, SKELETONS, UCLA
from bpilib.system import checkpoint

NAMES = pytest.mark.parametrize("name", ["ctrgcn", "gap", "bpi"])
PREFIXES = pytest.mark.parametrize("prefix", ["", "module."])


def small(name, skeleton=UCLA, seed=0, num_classes=5):
    """A narrow network with every number of its state a different one."""
    torch.manual_seed(seed)
    model = build_model(name, skeleton, num_classes, embed_dim=12, width=8)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.dtype == torch.int64:
                tensor.fill_(4)
            else:
                tensor.uniform_(0.1, 1) if key.endswith("running_var") else tensor.normal_()
    return model


def same(model, state):
    return all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


@NAMES
@PREFIXES
@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
def test_round_trip(name, prefix, skeleton):
    model, other = small(name, skeleton, 1), small(name, skeleton, 2)
    state = {prefix + key: tensor for key, tensor in reference_state_dict(model).items()}
    assert not same(other, model.state_dict())
    assert load_reference_weights(other, state) is None
    assert same(other, model.state_dict())


@NAMES
def test_published_names_hold_every_number_of_ours_once(name):
    model = small(name)
    state = reference_state_dict(model)
    ours = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.dtype != torch.int64)
    theirs = sum(tensor.numel() for tensor in state.values() if tensor.dtype != torch.int64)
    assert ours == theirs


@pytest.mark.parametrize("case", ["bpi_joint_ntu", "bpi_joint_ucla", "gap_joint_ntu", "ctrgcn_ntu"])
def test_saved_names_and_shapes_are_the_published_ones(case, published):
    meta, state, _, shapes = published(case)
    name = case.split("_")[0]
    model = build_model(name, SKELETONS[meta["skeleton"]], meta["num_classes"], num_persons=meta["persons"])
    load_reference_weights(model, state)
    saved = reference_state_dict(model)
    assert saved.keys() == shapes.keys()
    for key, tensor in saved.items():
        assert list(tensor.shape) == shapes[key], key
        assert torch.equal(tensor, state[key]), key


def test_what_is_saved_is_a_copy():
    model = small("bpi")
    state = reference_state_dict(model)
    before = copy.deepcopy(model.state_dict())
    for tensor in state.values():
        tensor.zero_()
    assert same(model, before)


@pytest.mark.parametrize("as_text", [True, False])
@PREFIXES
def test_files_are_read(tmp_path, as_text, prefix):
    model, other = small("bpi", seed=1), small("bpi", seed=2)
    file = tmp_path / "runs-110-12345.pt"
    torch.save(OrderedDict((prefix + key, tensor) for key, tensor in reference_state_dict(model).items()), file)
    load_reference_weights(other, str(file) if as_text else file)
    assert same(other, model.state_dict())


def test_half_precision_weights_become_full_precision():
    model, other = small("bpi", seed=1), small("bpi", seed=2)
    state = {key: t.half() if t.is_floating_point() else t for key, t in reference_state_dict(model).items()}
    load_reference_weights(other, state)
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())
    torch.testing.assert_close(other.global_head.weight, model.global_head.weight, rtol=1e-3, atol=1e-3)


def test_missing_surplus_and_misshaped_tensors_are_named_and_the_model_is_left_alone():
    model = small("bpi")
    before = copy.deepcopy(model.state_dict())
    state = reference_state_dict(small("bpi", seed=1))
    del state["l3.gcn1.convs.1.conv2.weight"]
    state["l11.gcn1.PA"] = torch.zeros(3, 20, 20)
    state["fc.weight"] = torch.zeros(60, 32)
    with pytest.raises(ValueError, match="do not fit this model") as error:
        load_reference_weights(model, state)
    text = str(error.value)
    assert "missing: l3.gcn1.convs.1.conv2.weight" in text
    assert "not in this model: l11.gcn1.PA" in text
    assert "fc.weight" in text
    assert "(60, 32)" in text
    assert "look like a bpi, 60 classes, 20 joints" in text and "start_from" in text  # what to do
    assert same(model, before)


@pytest.mark.parametrize(
    ("key", "shape"), [("linear_head.ViT-B/32.weight", (32, 12)), ("fc.weight", (32, 5)), ("l2.gcn1.PA", (20, 20, 3))]
)
def test_a_tensor_of_another_shape_with_as_many_numbers_is_refused(key, shape):
    model = small("bpi")
    before = copy.deepcopy(model.state_dict())
    state = reference_state_dict(small("bpi", seed=1))
    assert state[key].numel() == torch.Size(shape).numel()
    state[key] = state[key].reshape(shape)
    with pytest.raises(ValueError, match="do not fit this model") as error:
        load_reference_weights(model, state)
    assert key in str(error.value)
    assert same(model, before)


@pytest.mark.parametrize(
    ("source", "target"),
    [(("ctrgcn", UCLA), ("bpi", UCLA)), (("bpi", UCLA), ("ctrgcn", UCLA)), (("gap", UCLA), ("bpi", UCLA))],
)
def test_weights_of_another_model_are_refused(source, target):
    model = small(*target)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="do not fit this model"):
        load_reference_weights(model, reference_state_dict(small(*source, seed=1)))
    assert same(model, before)


@NAMES
def test_weights_of_another_skeleton_are_refused(name):
    model = small(name, UCLA)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"expected 60 numbers|expected \(60,\)|data_bn"):
        load_reference_weights(model, reference_state_dict(small(name, NTU)))
    assert same(model, before)


def lightning(state):
    return {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}, "optimizer_states": []}


WRAPPED = {
    "in an entry": lambda state: {"epoch": 3, "state_dict": state, "best": 0.9},
    "in an entry of an entry": lambda state: {"model": {"state_dict": {f"module.{n}": t for n, t in state.items()}}},
    "of Lightning": lightning,
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "beside numbers": lambda state: {**state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "as arrays": lambda state: {name: value.numpy() for name, value in state.items()},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_wraps_a_state_dict_is_taken_off(how):
    model, other = small("bpi", seed=1), small("bpi", seed=2)
    load_reference_weights(other, WRAPPED[how](reference_state_dict(model)))
    assert same(other, model.state_dict())


def test_no_state_dict_and_a_checkpoint_of_ours_are_told_apart():
    with pytest.raises(ValueError, match=r"expected a state dict .* got no tensors, but epoch, best: is the sta"):
        load_reference_weights(small("ctrgcn"), {"epoch": 3, "best": 0.5})
    ours = {"format": 1, "sha256": "", "content": {}}
    with pytest.raises(ValueError, match=r"got a checkpoint of this workbench: name its run by its parameters"):
        load_reference_weights(small("ctrgcn"), ours)
    assert unwrap_tensors(ours) == {}


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (("gap", UCLA), ("bpi", UCLA), r"like a gap, 5 classes, 20 joints, 1 persons, width 8, embeddings of 12; this "
         r"model is a bpi, 5 .* do: set the parameter model to 'gap'"),
        (("ctrgcn", NTU), ("ctrgcn", UCLA), r"a ctrgcn, 5 classes, 25 joints, 2 persons, .* set dataset and benchmark"),
        (("ctrgcn", UCLA, 0, 60), ("ctrgcn", UCLA), r"a ctrgcn, 60 classes, .* this model is a ctrgcn, 5 classes.* "
         r"give the file to start_from of notebook 02 or 08, which takes what fits"),
    ],
)  # fmt: skip
def test_of_weights_that_do_not_fit_it_is_said_what_they_are_and_what_to_do(source, target, words):
    with pytest.raises(ValueError, match=words):
        load_reference_weights(small(*target), reference_state_dict(small(*source)))


def test_another_width_is_named():
    wide = build_model("ctrgcn", UCLA, 5, width=16)
    assert look_at(reference_state_dict(wide)) == ("ctrgcn", 5, 20, 1, 16, None)
    with pytest.raises(ValueError, match="set the parameter width to 16"):
        load_reference_weights(small("ctrgcn"), reference_state_dict(wide))
    with pytest.raises(ValueError, match=r"they look like no CTR-GCN, GAP or BPI; .* name a file saved by the pub"):
        load_reference_weights(small("ctrgcn"), {"conv1.weight": torch.zeros(3, 3)})


def test_a_long_list_of_problems_is_cut():
    with pytest.raises(ValueError, match=r"and \d+ more") as error:
        load_reference_weights(small("bpi"), {"something": torch.zeros(1)})
    assert len(str(error.value).splitlines()) < 20


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value, 2))])
def test_a_hostile_file_is_refused_and_not_executed(tmp_path, save):
    model, mark, file = small("ctrgcn"), tmp_path / "executed", tmp_path / "weights.pt"
    before = copy.deepcopy(model.state_dict())
    save({**reference_state_dict(small("ctrgcn", seed=1)), "extra": Bomb(mark)}, file)
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        load_reference_weights(model, file)
    assert not mark.exists()
    assert same(model, before)
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # it would have


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3, "state_dict": {"fc.bias": torch.zeros(5)}}])
def test_a_file_that_holds_no_state_dict_is_refused_with_a_value_error(tmp_path, content):
    file = tmp_path / "weights.pt"
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"weights|state dict"):
        load_reference_weights(small("ctrgcn"), file)


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_whose_numbers_are_stored_once_are_refused(tmp_path, legacy):
    """Eight gigabytes by name, four bytes on the disk."""
    model, file = small("ctrgcn"), tmp_path / "weights.pt"
    state = {**reference_state_dict(model), "fc.bias": torch.zeros(1).expand(1 << 31)}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"weights\.pt: a tensor whose numbers are stored once .*2147483648"):
        load_reference_weights(model, file)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_reference_weights(small("ctrgcn"), tmp_path / "nothing.pt")


# --- published weight files as runs


@pytest.fixture(scope="module")
def saved(place):
    """A network, whose file runs-65.pt as the published code saves it lies in `place`."""
    (place / "prompts.yaml").unlink()  # no texts are needed
    torch.manual_seed(3)
    model = build_model("bpi", UCLA, 10, width=8)
    torch.save({"module." + key: tensor for key, tensor in reference_state_dict(model).items()}, place / "runs-65.pt")
    return model


def test_a_published_file_becomes_a_run_that_is_evaluated_like_a_trained_one(place, saved, tmp_path):
    asked = tiny_config(place, tmp_path)
    config = import_weights(asked, place / "runs-65.pt")
    assert config.run_directory == tmp_path / "synthetic_xview" / "bpi_joint_seed0_published"
    assert {path.name for path in config.run_directory.iterdir()} == {"config.yaml", "best.pt"}
    run = open_run(asked.changed(tag="published"))  # as 03, 04 and 05 find it
    assert run.text is None and run.epoch == 0 and run.config.text == "none"
    assert same(run.model, saved.state_dict())
    scores = evaluate(config)
    assert (config.run_directory / "scores.npz").exists()
    feeder = run.feeder("test")
    assert_float32_of(saved, feeder.batch(range(len(feeder)))[0], {"logits": scores.logits})


def seen_in_training(model, store, modality):
    """The model's state dict after its first layer has seen clips of a modality, as training leaves it."""
    fed = modality if type(model) is CTRGCNClassifier else modality.replace("bone", "joint")
    feeder = Feeder(store, store.split("xview", "train"), fed, train=True, seed=0)
    backbone = model.backbone
    with torch.no_grad():
        for step in range(40):
            clips = [(16 * step + i) % len(feeder) for i in range(16)]
            x, _ = feeder.batch(clips)
            backbone.data_bn.num_batches_tracked += 1
            if model.bone_operator is not None:
                x = torch.einsum("uv,nctvm->nctum", model.bone_operator, x)
            n, c, t, v, m = x.shape
            backbone.data_bn.train()(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
    return reference_state_dict(model)


@pytest.mark.parametrize("modality", ["joint", "bone", "joint_motion", "bone_motion"])
@pytest.mark.parametrize("name", ["ctrgcn", "bpi"])
def test_the_first_layer_tells_the_modality(place, name, modality):
    store = SkeletonStore.open(place / "store")
    model = build_model(name, UCLA, 10, modality, width=8)
    assert recognise_modalities(reference_state_dict(model)) == ()  # untrained
    seen = recognise_modalities(seen_in_training(model, store, modality))
    assert seen == (("joint_motion", "bone_motion") if name == "bpi" and "motion" in modality else (modality,))


def test_a_run_of_another_modality_than_the_file_was_trained_on_is_warned_of(place, tmp_path):
    store, model = SkeletonStore.open(place / "store"), build_model("ctrgcn", UCLA, 10, width=8)
    torch.save(seen_in_training(model, store, "bone"), tmp_path / "runs.pt")
    config = tiny_config(place, tmp_path, model="ctrgcn")
    with pytest.warns(UserWarning, match=r"looks like bone, not like joint: .* near chance\. Set modality to bone"):
        import_weights(config, tmp_path / "runs.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_weights(config.changed(modality="bone"), tmp_path / "runs.pt")


def test_the_same_file_again_changes_nothing_and_another_is_refused(place, saved, tmp_path):
    config = import_weights(tiny_config(place, tmp_path, tag="theirs"), place / "runs-65.pt")
    before = (config.run_directory / "best.pt").stat().st_mtime_ns
    assert import_weights(tiny_config(place, tmp_path, tag="theirs"), place / "runs-65.pt") == config
    assert (config.run_directory / "best.pt").stat().st_mtime_ns == before
    with torch.no_grad():
        saved.classifier.bias += 1
    torch.save(reference_state_dict(saved), tmp_path / "other.pt")
    with torch.no_grad():
        saved.classifier.bias -= 1
    with pytest.raises(ValueError, match=r"holds the weights of runs-65\.pt, not of .*other\.pt: set the par"):
        import_weights(tiny_config(place, tmp_path, tag="theirs"), tmp_path / "other.pt")
    assert (config.run_directory / "best.pt").stat().st_mtime_ns == before


def test_a_trained_run_is_not_overwritten_and_a_bad_file_leaves_nothing(place, saved, tmp_path):
    config = tiny_config(place, tmp_path, model="ctrgcn")
    trained = build(config.changed(tag="mine"))
    checkpoint.save(trained.config.run_directory / "best.pt", trained.content())
    with pytest.raises(ValueError, match=r"holds a trained run, not of .*runs-65\.pt: set the parameter tag"):
        import_weights(config.changed(tag="mine"), place / "runs-65.pt")
    with pytest.raises(ValueError, match="not in this model: cross_part"):
        import_weights(config, place / "runs-65.pt")
    with pytest.raises(MissingInputError, match=r"no weight file at .*set weights_file"):
        import_weights(config, place / "none.pt")
    assert not config.changed(tag="published").run_directory.exists()
