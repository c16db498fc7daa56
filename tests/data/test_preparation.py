"""prepare with clips that somebody has prepared: which layout it is, whose classes, what is opened again or refused."""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from making import synthetic_store, write_prompts

from bpilib.config import resolve
from bpilib.data import SkeletonStore, prepare, synthetic
from bpilib.data.formats.npz import export_npz
from bpilib.data.formats.pyskl import export_pickle
from bpilib.errors import MissingInputError
from bpilib.evaluate import evaluate
from bpilib.system import lock
from bpilib.train import fit


def ready(dataset, raw, out, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"{dataset} differs from the published")
        return prepare(dataset, raw=raw, out=out, progress=False, **({"n_jobs": 1} | options))


@pytest.fixture(scope="module")
def ntu60(made, tmp_path_factory):
    """The golden files of NTU60 prepared from raw, which test_ntu compares with the published bytes."""
    return ready("ntu60", made("ntu60"), tmp_path_factory.mktemp("ntu60") / "store")


@pytest.fixture(scope="module")
def acted(tmp_path_factory):
    """A store of 60 synthetic clips."""
    return synthetic_store(tmp_path_factory.mktemp("acted"), subjects=2)


def same(one: SkeletonStore, other: SkeletonStore, *columns: str) -> None:
    """Equal classes, and equal clips in equal order in every split."""
    assert one.classes == other.classes and one.benchmarks == other.benchmarks and len(one) == len(other)
    assert one.poses.shape == other.poses.shape and one.skeleton is other.skeleton
    for benchmark in one.benchmarks:
        for part in ("train", "test"):
            mine, its = one.split(benchmark, part), other.split(benchmark, part)
            assert len(mine) == len(its)
            for i, j in zip(mine, its):
                assert one.sample(i).tobytes() == other.sample(j).tobytes()
            for column in ("labels", "valid_frames", *columns):
                assert getattr(one, column)[mine].tolist() == getattr(other, column)[its].tolist()


# --- the golden NTU60 set, by way of the formats of others


def test_the_published_npz_files_make_the_store_that_the_raw_files_make(ntu60, tmp_path):
    files = [tmp_path / "NTU60_CS.npz", tmp_path / "NTU60_CV.npz"]
    for path, benchmark in zip(files, ("xsub", "xview")):
        export_npz(ntu60, benchmark, path, progress=False)
    same(ready("ntu60", files, tmp_path / "both"), ntu60)
    one = ready("ntu60", files[1], tmp_path / "one")
    assert one.benchmarks == ["xview"] and len(one) == 60
    assert resolve(dataset="ntu60", data=one.path).benchmark == "xview"


def test_the_npz_of_the_published_script_is_read(made, ntu60, golden, tmp_path):
    """Not written by ours: the golden's arrays, padded and one-hot as the published script saves them."""
    expected = golden("ntu/golden_ntu60")
    clips = np.split(expected["data"], expected["offsets"][1:-1])
    arrays = {}
    for part in ("train", "test"):
        indices = expected[f"CS_{part}"]
        arrays[f"x_{part}"] = np.zeros((len(indices), 300, 150), np.float32)
        for row, i in zip(arrays[f"x_{part}"], indices):
            row[: len(clips[i])] = clips[i]
        arrays[f"y_{part}"] = np.eye(60)[expected["label"][indices]]
    np.savez(tmp_path / "NTU60_CS.npz", **arrays)
    store = ready("ntu60", tmp_path / "NTU60_CS.npz", tmp_path / "store")
    for part in ("train", "test"):
        for i, j in zip(store.split("xsub", part), ntu60.split("xsub", part), strict=True):
            assert store.sample(i).tobytes() == ntu60.sample(j).tobytes() and store.labels[i] == ntu60.labels[j]


@pytest.mark.parametrize("ending", ["pkl", "pickle"])
def test_the_pickle_makes_the_store_that_the_raw_files_make(ntu60, tmp_path, ending):
    path = export_pickle(ntu60, tmp_path / f"ntu60_3danno.{ending}", progress=False)
    store = ready("ntu60", path, tmp_path / "store")
    same(store, ntu60, "names", "subjects", "cameras", "setups")
    assert store.names.tolist() == ntu60.names.tolist() and store.poses.tobytes() == ntu60.poses.tobytes()
    for name in ("poses.npy", "index.npz"):
        assert (store.path / name).read_bytes() == (ntu60.path / name).read_bytes()


def test_imports_of_ntu_are_counted_against_the_published_sizes(ntu60, tmp_path):
    path = export_npz(ntu60, "xview", tmp_path / "CV.npz", progress=False)
    with pytest.warns(UserWarning) as caught:
        prepare("ntu60", raw=path, out=tmp_path / "store", progress=False)
    said = str(caught[0].message)
    assert f"xview train: {len(ntu60.split('xview', 'train'))} clips, published 37,646" in said and "xsub" not in said


# --- names and benchmarks


@pytest.mark.parametrize(
    ("file", "given", "benchmark"),
    [("NTU60_CS", None, "xsub"), ("NTU120_CSub", None, "xsub"), ("NTU120_CSet", None, "xset"),
     ("x-view", None, "none"), ("ntu60_xview", "xsub", "xview"), ("data", "xset", "xset"), ("NTU60CV", None, "xview")],
)  # fmt: skip
def test_the_benchmark_of_an_npz_is_in_its_name_or_given(ntu60, tmp_path, file, given, benchmark):
    path = export_npz(ntu60, "xsub", tmp_path / f"{file}.npz", progress=False)
    if benchmark == "none":
        with pytest.raises(ValueError, match=r"x-view.npz does not tell its benchmark: name it as NTU60_CS.npz"):
            ready("ntu60", path, tmp_path / "store", benchmark=given)
    else:
        assert ready("ntu60", path, tmp_path / "store", benchmark=given).benchmarks == [benchmark]


def test_two_files_of_one_benchmark_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"b_CS.npz is of xsub, too"):
        prepare("ntu60", raw=[tmp_path / "a_CS.npz", tmp_path / "b_CS.npz"], out=tmp_path / "store")


@pytest.mark.parametrize("dataset", ["synthetic", "mine"])
def test_clips_of_a_known_data_set_and_of_ones_own(acted, tmp_path, dataset):
    (tmp_path / "classes.txt").write_text("\n".join(synthetic.CLASSES))
    files = {
        "xview": export_npz(acted, "xview", tmp_path / "clips.npz", frames=None, progress=False),
        None: export_pickle(acted, tmp_path / "clips.pkl", progress=False),
    }
    for benchmark, path in files.items():
        same(prepare(dataset, [path], tmp_path / path.suffix[1:], benchmark=benchmark, progress=False), acted)
    if dataset == "mine":
        (tmp_path / "classes.txt").unlink()
        store = prepare(dataset, files[None], tmp_path / "numbered", progress=False)
        assert store.classes == [f"class {number}" for number in range(10)] and store.skeleton.name == "ucla"
        store = prepare(dataset, files["xview"], tmp_path / "unnamed", progress=False)
        assert store.benchmarks == ["split"] and store.classes == [f"class {number}" for number in range(10)]


# --- a folder of one's own, from the files to the scores


def folder_of(store: SkeletonStore, folder: Path) -> Path:
    """The clips of a store as .npy files with a clips.csv."""
    folder.mkdir()
    part = dict.fromkeys(store.split("xview", "train"), "train") | dict.fromkeys(store.split("xview", "test"), "test")
    rows = ["name,label,subject,split"]
    for i, name in enumerate(store.names):
        np.save(folder / f"{name}.npy", store.sample(i))
        rows.append(f"{name},{store.classes[store.labels[i]]},{store.subjects[i]},{part[i]}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.txt").write_text("\n".join(store.classes) + "\n")
    return folder


def test_a_folder_of_ones_own_is_prepared_trained_and_evaluated(acted, tmp_path):
    folder = folder_of(acted, tmp_path / "clips")
    store = prepare("mine", folder, tmp_path / "store", benchmark="views", progress=False)
    assert store.benchmarks == ["views"] and store.names.tolist() == acted.names.tolist()
    assert store.poses.tobytes() == acted.poses.tobytes()
    places = {"data": store.path, "outputs": tmp_path / "outputs", "prompts": write_prompts(tmp_path)}
    small = {"epochs": 1, "width": 8, "batch_size": 10, "device": "cpu", "precision": "fp32", "text": "minilm"}
    for model in ("bpi", "ctrgcn"):
        run = fit(resolve(dataset="mine", model=model, **places, **small))
        assert run == tmp_path / "outputs" / "mine_views" / f"{model}_joint_seed0"
        scores = evaluate(resolve(dataset="mine", model=model, **places))
        assert len(scores.labels) == len(acted.split("xview", "test")) and scores.classes == acted.classes


def test_the_store_that_is_there_is_opened_again_if_it_is_of_the_same_clips(acted, tmp_path):
    folder, out = folder_of(acted, tmp_path / "clips"), tmp_path / "store"
    prepare("mine", folder, out, progress=False)
    before = (out / "manifest.json").stat().st_mtime_ns
    prepare("mine", folder, out, progress=False)
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"holds the data set mine, not yours"):
        prepare("yours", folder, out, progress=False)
    text = (folder / "clips.csv").read_text()
    (folder / "clips.csv").write_text(text.replace(",train", ",test ", 1))  # as long as before
    with pytest.raises(ValueError, match="was made from other files"):
        prepare("mine", folder, out, progress=False)
    prepare("mine", folder, out, progress=False, overwrite=True)
    shutil.rmtree(folder)
    assert len(prepare("mine", [folder], out, progress=False)) == 60  # the clips are gone, which is fine
    export = export_pickle(acted, tmp_path / "clips.pkl", progress=False)
    prepare("mine", export, tmp_path / "other", progress=False)
    export.write_bytes(export.read_bytes() + b" ")
    with pytest.raises(ValueError, match="was made from other files"):
        prepare("mine", export, tmp_path / "other", progress=False)


# --- refusals


def test_what_is_no_data_set_of_ones_own(tmp_path):
    (tmp_path / "empty").mkdir()
    for raw in (tmp_path / "empty", None):
        with pytest.raises(ValueError, match=r"unknown data set 'mine': expected ucla, .* or a folder with clips.csv"):
            prepare("mine", raw=raw, out=tmp_path / "store")
    for raw in ("none", "none.npz", "none.pkl"):
        with pytest.raises(MissingInputError, match=f"{raw}"):
            prepare("mine", raw=tmp_path / raw, out=tmp_path / "store")
    for dataset, raw in (("ucla", ["a", "b"]), ("mine", ["a.pkl", "b.pkl"]), ("synthetic", ["a", "b.npz"])):
        with pytest.raises(ValueError, match=rf"raw: expected one folder, zip or file for {dataset}, got a"):
            prepare(dataset, raw=raw, out=tmp_path / "store")
    with pytest.raises(ValueError, match="options of the synthetic data set only"):
        prepare("synthetic", raw=tmp_path / "a.npz", out=tmp_path / "store", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_clips_of_another_data_set_are_refused(acted, ntu60, tmp_path):
    npz = export_npz(acted, "xview", tmp_path / "CS.npz", frames=None, progress=False)
    with pytest.raises(ValueError, match=r"CS.npz: x_train: expected \(n, T, 150\) floats, got \(40, \d+, 60\)"):
        prepare("ntu60", npz, tmp_path / "store", progress=False)
    with pytest.raises(ValueError, match=r"keypoint: expected \(M, total_frames, V, C\) = \(M, \d+, 25, 3\), got"):
        prepare("ntu60", export_pickle(acted, tmp_path / "a.pkl", progress=False), tmp_path / "store", on_error="raise")
    npz = export_npz(ntu60, "xsub", tmp_path / "NTU60_CS.npz", progress=False)
    with pytest.raises(ValueError, match=r"y_train: expected \(31, 120\), one-hot"):
        prepare("ntu120", npz, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


def test_joints_that_belong_to_no_skeleton_are_refused(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((3, 17, 3)))
    (folder / "clips.csv").write_text("name,label,subject,split\na,wave,1,train\n")
    with pytest.raises(ValueError, match=r"can be read; a: expected \(L, 25/20, 3\) .*17, 3\): set tracker to coco"):
        prepare("mine", folder, tmp_path / "store")
    annotation = {"frame_dir": "a", "label": 1 << 40, "total_frames": 3, "keypoint": np.ones((1, 3, 17, 3), np.float32)}
    content = {"split": {"train": ["a"]}, "annotations": [annotation]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"first annotation: expected 25 joints \(ntu\) or 20 joints \(ucla\), got 17"):
        prepare("mine", tmp_path / "a.pkl", tmp_path / "store")
    x, y = np.ones((2, 3, 51), np.float32), np.eye(2)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(ValueError, match=r"expected \(n, T, M·V·3\) with 150 \(ntu\) or 60 \(ucla\) columns, got 51"):
        prepare("mine", tmp_path / "a.npz", tmp_path / "store")


def test_changed_clips_and_another_tracker_are_noticed(tmp_path):
    folder, clip = tmp_path / "clips", synthetic.perform(1, 1, 0)
    folder.mkdir()
    (folder / "clips.csv").write_text("name,label,subject,split\na,wave,1,train\n")
    np.save(folder / "a.npy", clip)

    def store(**options):
        return prepare("mine", folder, tmp_path / "store", progress=False, **options)

    before = store(tracker="kinect_v1").sample(0)
    np.testing.assert_array_equal(store(tracker="kinect_v1").sample(0), before)  # the same again
    with pytest.raises(ValueError, match=r"made from other files .*tracker: kinect_v1 then, None now.* overwrite=True"):
        store()
    np.save(folder / "a.npy", clip * (1, -1, 1))  # as many bytes
    with pytest.raises(ValueError, match=r"was made from other files .* pass overwrite=True"):
        store(tracker="kinect_v1")
    assert not np.array_equal(store(tracker="kinect_v1", overwrite=True).sample(0), before)


def test_only_a_folder_has_another_tracker_s_joints(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=0)
    with pytest.raises(MissingInputError, match=r"no raw data at .*nowhere"):
        prepare("mine", raw=tmp_path / "nowhere", out=tmp_path / "store", tracker="coco")
    with pytest.raises(ValueError, match=r"only clips of a clips\.csv .*a\.npz: set tracker to None"):
        prepare("mine", tmp_path / "a.npz", tmp_path / "store", tracker="coco")


# --- two preparations of one store at the same time

PREPARE = """
import os, signal, sys
from bpilib.data import prepare
from bpilib.data.store import StoreWriter
add = StoreWriter.add
def stopped_once(self, clip):
    StoreWriter.add = add
    os.kill(os.getpid(), signal.SIGSTOP)
    add(self, clip)
raw, out, stops = sys.argv[1:]
if stops == "True":
    StoreWriter.add = stopped_once
prepare("synthetic", raw=raw, out=out, progress=False, subjects=2, episodes=1, overwrite=True)
"""


@pytest.fixture
def other(acted, tmp_path):
    """other(raw): a process that prepares `acted` again in tmp_path/store; without raw it stops itself on its way."""
    started = []

    def start(raw=None):
        made = acted.path.with_name("raw")
        command = [sys.executable, "-c", PREPARE, raw or made, tmp_path / "store", str(raw is None)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def again(acted, tmp_path, **options):
    return prepare("synthetic", raw=acted.path.with_name("raw"), out=tmp_path / "store", progress=False, subjects=2,
                   episodes=1, **options)  # fmt: skip


def stopped_in_the_middle(process, folder):
    """Wait until it has begun to write the store and stopped itself, so that it stays where it is."""
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert (folder / "store.partial").exists()
    assert (folder / "store.lock").exists() and not (folder / "store").exists()


def test_who_comes_second_is_told_who_is_at_work_and_touches_nothing(acted, other, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    process = other()
    stopped_in_the_middle(process, tmp_path)
    said = rf"store is in use by process {process.pid} on {re.escape(os.uname().nodename)} since 20.*parameter data"
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=said):
            again(acted, tmp_path, overwrite=overwrite)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    same(again(acted, tmp_path), acted, "names")
    assert os.listdir(tmp_path) == ["store"]


def test_who_comes_second_a_moment_before_the_end_takes_the_store_of_the_first(acted, other, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 600.0)
    process = other()
    stopped_in_the_middle(process, tmp_path)
    real = time.sleep
    monkeypatch.setattr(lock.time, "sleep", lambda s: (real(s), process.send_signal(signal.SIGCONT)))
    store = again(acted, tmp_path)
    made = store.path.stat().st_ino
    assert process.wait() == 0 and (tmp_path / "store").stat().st_ino == made
    same(store, acted, "names")


def test_a_killed_preparation_does_not_keep_others_out(acted, other, tmp_path):
    for _ in range(2):
        process = other()
        stopped_in_the_middle(process, tmp_path)
        process.kill()
        process.wait()
    assert (tmp_path / "store.lock").exists()
    same(again(acted, tmp_path), acted, "names")
    assert os.listdir(tmp_path) == ["store"]


def test_several_at_once_leave_one_whole_store(acted, other, tmp_path):
    """All of them write the raw files, too; those that did not get the lock say so."""
    for process in [other(tmp_path / "raw") for _ in range(3)]:
        _, errors = process.communicate()
        assert process.returncode == 0 or "is in use by process" in errors
    same(SkeletonStore.open(tmp_path / "store"), acted, "names")
    assert sorted(os.listdir(tmp_path)) == ["raw", "store"]


def test_raw_files_that_another_process_is_writing(acted, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    said = r"raw is in use by .*parameter raw to"
    with lock.lock_store(tmp_path / "raw", "raw"), pytest.raises(ValueError, match=said):
        prepare("synthetic", raw=tmp_path / "raw", out=tmp_path / "store", subjects=2, episodes=1)
    with lock.lock_store(acted.path.with_name("raw"), "raw"):  # complete, so that nothing is written
        same(again(acted, tmp_path), acted)


KILLED_AT_A_RENAME = """
import os, signal, sys
from pathlib import Path
from bpilib.data import prepare
rename, left = Path.rename, int(sys.argv[3])
def counted(self, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(self, target)
    if left == 1 and self.suffix == ".partial":
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = counted
prepare("synthetic", raw=sys.argv[1], out=sys.argv[2], progress=False, subjects=2, episodes=1, overwrite=True)
"""


@pytest.mark.parametrize(("rename", "there"), [(1, True), (2, False), (3, True)])
def test_a_kill_around_the_renames_of_an_overwrite_is_put_right_by_the_next_call(acted, tmp_path, rename, there):
    """Before the old store is renamed, between the two renames, and while what was replaced is removed."""
    again(acted, tmp_path)
    raw = acted.path.with_name("raw")
    command = [sys.executable, "-c", KILLED_AT_A_RENAME, raw, tmp_path / "store", str(rename)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert (tmp_path / "store").exists() == there and len(os.listdir(tmp_path)) == 3  # the lock, and two folders
    store = again(acted, tmp_path)
    store.verify()
    same(store, acted, "names")
    assert os.listdir(tmp_path) == ["store"]


def test_an_open_store_needs_no_folder_that_can_be_written(acted, tmp_path, monkeypatch):
    again(acted, tmp_path)
    monkeypatch.setattr("bpilib.data.preparation.lock_store", None)
    same(again(acted, tmp_path), acted)
