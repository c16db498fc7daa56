"""Is a finished run the one that is asked for: by its settings, prompts, clips; and what is left of a run's files."""

import json
import shutil

import pytest
import yaml
from making import synthetic_store, tiny_config, write_prompts

from bpilib.config import Config
from bpilib.finished import read_finished
from bpilib.pretrained import import_pretrained, save_pretrained
from bpilib.runs import open_run
from bpilib.system import checkpoint
from bpilib.train import fit
from bpilib.training.trainer import Trainer

CHECKPOINTS = ("last.pt", "last.previous.pt", "best.pt", "best.previous.pt")


@pytest.fixture(scope="module")
def whole(place):
    """The configuration of a finished run."""
    config = tiny_config(place, place / "whole", epochs=2, batch_size=20)
    fit(config)
    return config


@pytest.fixture
def done(whole, tmp_path):
    """The configuration of a copy of it."""
    config = whole.changed(outputs=str(tmp_path / "outputs"))
    shutil.copytree(whole.run_directory, config.run_directory)
    return config


def states(config):
    return {path: path.read_bytes() for path in config.run_directory.rglob("*") if path.is_file()}


def test_the_same_run_is_done_wherever_its_inputs_are_now(done, place, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_step", None)
    for name in ("store", "prompts.yaml"):
        asked = done.changed(**{"data" if name == "store" else "prompts": str(tmp_path / "nowhere")})
        assert fit(asked) == done.run_directory and read_finished(asked)["settings"] == done.result_settings()


def test_other_prompts_are_refused(done, tmp_path):
    path = write_prompts(tmp_path)
    path.write_text(path.read_text().replace("act of", "a kind of"))
    before = states(done)
    with pytest.raises(ValueError, match=rf"bpi_joint_seed0 was trained with other prompts than {path} holds now"):
        fit(done.changed(prompts=str(path)))
    assert states(done) == before


def test_other_clips_are_refused(done, tmp_path):
    synthetic_store(tmp_path, subjects=2)
    with pytest.raises(ValueError, match="was trained with other clips than"):
        read_finished(done.changed(data=str(tmp_path / "store")))


@pytest.mark.parametrize("lost", [(), CHECKPOINTS, ("summary.json",)])
def test_a_lost_config_is_compared_with_what_is_left_and_made_again(done, lost):
    for name in ("config.yaml", *lost):
        (done.run_directory / name).unlink(missing_ok=True)
    before = states(done)
    with pytest.raises(ValueError, match=r"other settings \(lr: 0\.05 there, 0\.5 now; weight_decay"):
        fit(done.changed(lr=0.5, weight_decay=0.1))
    assert states(done) == before
    fit(done)
    assert Config.saved(yaml.safe_load((done.run_directory / "config.yaml").read_text())) == done


def test_a_run_of_unknown_settings_is_none_that_is_asked_for(done):
    """One of an older version, without checkpoints."""
    for name in ("config.yaml", *CHECKPOINTS):
        (done.run_directory / name).unlink(missing_ok=True)
    path = done.run_directory / "summary.json"
    summary = json.loads(path.read_text())
    del summary["settings"]
    path.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"without its config\.yaml, and nothing else there tells its settings"):
        fit(done)
    assert not (done.run_directory / "config.yaml").exists()


def test_what_an_older_version_has_not_recorded_is_not_compared(done):
    path = done.run_directory / "summary.json"
    summary = json.loads(path.read_text())
    for name in ("settings", "data", "environment"):
        del summary[name]
    path.write_text(json.dumps(summary))
    assert read_finished(done) == summary


@pytest.mark.parametrize("content", [None, "", "\0\0\n1,2\n", "epoch,test_top1\n1,50.0\n", "cut"])
def test_metrics_are_made_again_from_the_last_checkpoint(done, content):
    path = done.run_directory / "metrics.csv"
    whole, seen = path.read_text(), []
    path.unlink()
    if content is not None:
        path.write_text(whole[:-3] if content == "cut" else content)
    with pytest.warns(UserWarning, match=r"metrics\.csv is made again from last\.pt: .*metrics\.csv"):
        fit(done, watch=seen.append)
    assert path.read_text() == whole and len(seen[0]) == 2
    path.unlink()
    for name in ("last.pt", "last.previous.pt"):
        (done.run_directory / name).unlink()
    with pytest.raises(ValueError, match=r"metrics\.csv is lost or damaged, and there is no whole last\.pt"):
        fit(done)


@pytest.mark.parametrize("where", ["config.yaml", "last.pt"])
def test_a_run_with_settings_of_a_newer_version_is_read_and_not_trained_on(done, where):
    path, last = done.run_directory / "config.yaml", done.run_directory / "last.pt"
    said = r"settings that this version of bpilib does not know \(mixup: 0\.4\)"
    if where == "config.yaml":
        path.write_text(path.read_text() + "mixup: 0.4\n")
        for use in (open_run, fit):
            with pytest.warns(UserWarning, match=rf"bpi_joint_seed0 has {said}"):
                use(done)
    else:  # and config.yaml is lost
        path.unlink()
        content = checkpoint.load(last)
        for _ in range(2):  # the one before, too
            checkpoint.save(last, content | {"config": content["config"] | {"mixup": 0.4}})
    (done.run_directory / "summary.json").unlink()
    with pytest.raises(ValueError, match=rf"{where} is of a run with {said}"):
        fit(done)


def test_weights_of_another_training_are_not_replaced(whole, done, place, tmp_path):
    net = save_pretrained(whole, tmp_path / "net", license="apache-2.0")
    mine = import_pretrained(tiny_config(place, tmp_path, pretrained=str(net)))
    before = states(mine)
    with pytest.raises(ValueError, match=r"which were imported, and there is no last\.pt .* start_from="):
        fit(mine)
    assert states(mine).items() >= before.items()
    for name in ("last.pt", "last.previous.pt", "summary.json"):
        (done.run_directory / name).unlink()
    with pytest.raises(ValueError, match=r"weights of epoch 2, and there is no last\.pt"):
        fit(done)
