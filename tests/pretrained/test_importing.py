"""Pretrained networks as runs: evaluated, looked into, added up and trained on; the figures that they must give."""

import json
import shutil

import numpy as np
import pytest
import torch
from making import tiny_config, write_prompts

from bpilib.analysis.outputs import collect_outputs
from bpilib.config import resolve
from bpilib.errors import MissingInputError
from bpilib.evaluate import Scores, evaluate, predict
from bpilib.pretrained import describe_stated, from_pretrained, import_pretrained, import_streams, save_pretrained
from bpilib.pretrained.figures import compare, count_undecided, state_figures
from bpilib.runs import build, open_run, saved_config
from bpilib.system import checkpoint, files
from bpilib.training.start import start_from


def test_a_run_is_made_that_gives_what_is_stated(place, config, folder, tmp_path):
    asked = tiny_config(place, tmp_path, model="ctrgcn", modality="bone", seed=4, pretrained=str(folder))
    mine = import_pretrained(asked)
    assert mine.run_directory == tmp_path / "synthetic_xview" / "bpi_joint_seed0_pretrained"
    scores = evaluate(mine)
    assert (mine.run_directory / "scores.npz").exists() and scores.epoch == 3
    network, run = from_pretrained(folder), open_run(mine)
    assert np.array_equal(scores.logits, predict(network, run.feeder("test"), 20))
    stated = network.config["expected"]
    said = describe_stated(mine, scores)
    assert f"all clips: stated {stated['top1']:.2f} %, found {stated['top1']:.2f} % ({stated['right']} and" in said
    views = collect_outputs(run)
    assert set(views.maps) == {"torso", "arm", "leg"} and np.array_equal(views.logits.argmax(1), scores.predictions)
    settings, theirs = saved_config(mine).result_settings(), config.result_settings()
    assert {name for name in settings if settings[name] != theirs[name]} == {"tag", "embed_dim"}
    assert run.text is not None and run.text.dim == 16  # its texts are here
    before = (mine.run_directory / "best.pt").stat().st_mtime_ns
    assert import_pretrained(asked).run_directory == mine.run_directory
    assert (mine.run_directory / "best.pt").stat().st_mtime_ns == before


def test_without_its_texts_a_network_is_a_run_without_text(place, folder, tmp_path):
    write_prompts(tmp_path, seed=1)
    other = (tmp_path / "prompts.yaml").read_text().replace("act of", "a kind of")
    (tmp_path / "prompts.yaml").write_text(other)
    mine = import_pretrained(tiny_config(place, tmp_path, prompts=tmp_path / "prompts.yaml"), folder)
    run = open_run(mine)
    assert run.config.text == "none" and run.text is None and run.model.global_head.out_features == 16
    describe_stated(mine, evaluate(mine))


@pytest.mark.parametrize("model", ["gap", "ctrgcn"])
def test_other_models_become_runs(place, make_run, tmp_path, model):
    net = save_pretrained(make_run(tmp_path, model=model, modality="bone_motion"), tmp_path / "net", half=False)
    mine = import_pretrained(tiny_config(place, tmp_path, tag="theirs"), net)
    assert mine.run_directory.name == f"{model}_bone_motion_seed0_theirs"
    theirs = evaluate(tiny_config(place, tmp_path, model=model, modality="bone_motion"))
    assert np.array_equal(evaluate(mine).logits, theirs.logits)


def test_the_store_at_the_usual_place_is_that_of_the_network_s_data_set(place, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT", tmp_path)  # not the checkout, whose demo may have prepared this data set
    asked = resolve(dataset="ucla", outputs=tmp_path, device="cpu", pretrained=str(folder))
    with pytest.raises(MissingInputError, match=r"data/prepared/synthetic"):
        describe_stated(mine := import_pretrained(asked), evaluate(mine))
    mine = import_pretrained(asked.changed(data=str(place / "store"), tag="b"))
    assert mine.dataset == "synthetic" and mine.data == str(place / "store")


def test_no_network_asked_for_changes_nothing(config):
    assert import_pretrained(config) is config and import_streams(config) is config
    assert describe_stated(config, None) == ""


def test_other_runs_are_not_overwritten_and_a_bad_network_leaves_nothing(place, config, folder, make_run, tmp_path):
    mine = tiny_config(place, tmp_path)
    other = save_pretrained(make_run(tmp_path / "other", lr=0.1), tmp_path / "net", half=False)
    import_pretrained(mine, folder)
    with pytest.raises(ValueError, match=r"holds the weights of acted_bpi_joint, not of net: set the parameter tag"):
        import_pretrained(mine, other)
    make_run(tmp_path, tag="trained")
    with pytest.raises(ValueError, match=r"holds a trained run, not of net: set the parameter tag"):
        import_pretrained(mine.changed(tag="trained"), other)
    begun = mine.changed(tag="trained").run_directory
    (begun / "best.pt").rename(begun / "last.pt")  # as until the end of a training
    with pytest.raises(ValueError, match=r"holds a trained run, not of net: set the parameter tag"):
        import_pretrained(mine.changed(tag="trained"), other)
    with pytest.raises(MissingInputError, match="no pretrained network"):
        import_pretrained(mine.changed(tag="none"), "nothing_like_it")
    with pytest.raises(ValueError, match="expected one network, got 2"):
        import_pretrained(mine.changed(tag="two", pretrained=["a", "b"]))
    (other / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        import_pretrained(mine.changed(tag="bad"), other)
    assert {path.name for path in (tmp_path / "synthetic_xview").iterdir()} == {
        "bpi_joint_seed0_pretrained", "bpi_joint_seed0_trained"
    }  # fmt: skip


def test_a_store_of_other_classes_is_refused_and_leaves_nothing(place, folder, tmp_path):
    net = shutil.copytree(folder, tmp_path / "net")
    about = json.loads((net / "config.json").read_text())
    about["id2label"]["3"] = "juggle"
    (net / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="class 3: 'juggle', the store's 'put on a hat'"):
        import_pretrained(tiny_config(place, tmp_path), net)
    about["id2label"]["3"] = "put on a hat"
    (net / "config.json").write_text(json.dumps(about | {"training": {"epochs": "many"}}))
    with pytest.raises(ValueError, match=r"net, its config\.json: parameter epochs: expected int"):
        import_pretrained(tiny_config(place, tmp_path), net)
    assert not list(tmp_path.glob("synthetic_xview/*"))


def test_another_figure_than_stated_is_an_error_and_on_other_clips_a_warning(place, folder, tmp_path):
    mine = import_pretrained(tiny_config(place, tmp_path), folder)
    scores = evaluate(mine)
    right = int((scores.predictions == scores.labels).sum())
    path = mine.run_directory / "best.pt"
    content = checkpoint.load(path)
    content["imported"]["stated"] |= {"right": right + 3, "undecided": 2}
    checkpoint.save(path, content)
    with pytest.raises(ValueError, match=rf"\({right + 3} and {right} of .*\n?.*this is no float noise"):
        describe_stated(mine, scores)
    content["imported"]["stated"]["undecided"] = 3
    checkpoint.save(path, content)
    assert "float noise could change 3" in describe_stated(mine, scores)
    content["imported"] |= {"data": {"poses.npy": "other", "index.npz": "other"}}
    content["imported"]["stated"]["clips"] += 1
    checkpoint.save(path, content)
    with pytest.warns(UserWarning, match="are others than those of the stated figures"):
        assert "found" in describe_stated(mine, scores)


def scores_of(margins, copies=None):
    """Clips of class 0 of three whose logit is that much above the best other one; the largest difference is 100."""
    logits = np.zeros((len(margins) + 1, 3), np.float32)
    logits[:-1, 0] = margins
    logits[-1] = 100, 0, 0
    labels = np.zeros(len(logits), np.int64)
    return Scores(logits, labels, np.arange(len(logits)).astype(str), list("abc"), copies=copies)


def test_clips_that_float_noise_could_change_are_those_within_two_noises():
    noise = 1e-4 * 100
    assert count_undecided(scores_of([50, 2.1 * noise, -2.1 * noise])) == 0
    assert count_undecided(scores_of([1.9 * noise, -1.9 * noise, 0])) == 3


def test_figures_are_compared_clip_count_by_clip_count():
    stated = state_figures(scores_of([1, 1, 1, -1], np.array([True, False, False, False, False])))
    assert (stated["right"], stated["clips"], stated["top1"]) == (4, 5, 80)
    assert (stated["without_copies"]["right"], stated["without_copies"]["clips"]) == (3, 4)
    text, same = compare(stated, scores_of([1, 1, 1, -1], np.array([True, False, False, False, False])))
    assert same and text.splitlines()[1].startswith("without copies: stated 75.00 %, found 75.00 %")
    text, same = compare(stated, scores_of([-1, 1, 1, -1], np.array([True, False, False, False, False])))
    assert not same and "stated 80.00 %, found 60.00 % (4 and 3 of 5 right" in text
    assert not compare(stated, scores_of([1, 1, 1, -1]))[1]  # copies that are not marked
    assert not compare(stated, scores_of([1, 1, 1]))[1]  # other clips


def test_streams_become_runs_with_scores_to_add_up(place, folder, make_run, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    shutil.copytree(folder, weights / "acted_bpi_joint")
    save_pretrained(make_run(tmp_path / "a", modality="bone"), weights / "acted_bpi_bone")
    other = save_pretrained(make_run(tmp_path / "b", modality="joint", seed=1), tmp_path / "seed1")
    monkeypatch.setattr("bpilib.pretrained.places.WEIGHTS", weights)
    found = import_streams(tiny_config(place, tmp_path, pretrained="acted_bpi"))
    for modality in ("joint", "bone"):
        scores = Scores.load(found.changed(modality=modality).run_directory / "scores.npz")
        assert scores.top(1) == pytest.approx(from_pretrained(f"acted_bpi_{modality}").config["expected"]["top1"])
    import_streams(tiny_config(place, tmp_path, pretrained=["acted_bpi_bone"]))
    for names in (["acted_bpi_bone", "acted_bpi_bone"], ["acted_bpi_bone", str(other)]):
        with pytest.raises(ValueError, match="is no further stream of acted_bpi_bone: expected the same data set"):
            import_streams(tiny_config(place, tmp_path, pretrained=names))


def test_a_training_starts_from_a_pretrained_network(place, folder, tmp_path):
    run = build(tiny_config(place, tmp_path))
    said = start_from(run, folder)
    assert said == "started from acted_bpi_joint (bpi joint on synthetic, width 8): 385 of 385 tensors taken"
    want = from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in run.model.state_dict().items())
    run.store.dataset, run.config = "other", run.config.changed(dataset="other")
    assert "not taken: classifier.weight, of other classes" in start_from(run, folder)
    with pytest.raises(ValueError, match="was trained on clap, which the parameter unseen keeps"):
        start_from(build(tiny_config(place, tmp_path, unseen=["clap"])), folder)


def test_the_training_clips_of_a_pretrained_network_are_looked_up(place, folder, tmp_path):
    source = import_pretrained(tiny_config(place, tmp_path, pretrained=str(folder))).run_directory
    for network in (folder, source):
        run = build(tiny_config(place, tmp_path, tag="tuned"))
        start_from(run, network)
        assert run.trained_on["start_from_clips"] == "known"
        held = build(tiny_config(place, tmp_path, heldout_by="view"))
        with pytest.raises(ValueError, match="was trained on 10 of the 10 held-out clips of this run"):
            start_from(held, network)
        run.store.manifest = run.store.manifest | {"sha256": dict.fromkeys(("poses.npy", "index.npz"), "")}
        with pytest.warns(UserWarning, match="it is not known on which clips of synthetic .* was trained, so the acc"):
            start_from(run, network)
        assert run.trained_on["start_from_clips"] == "unknown"
