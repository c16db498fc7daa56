"""Raw files that were changed after a store was made of them are noticed, in every format and under the same names."""

import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
from bodies import acted, in_room, skeleton_file
from making import ucla_records, write_folder

from bpilib.data import prepare
from bpilib.data.source import Source
from bpilib.errors import MissingInputError

CHANGED = "was made from other files than those at .* pass overwrite=True"


def clips(scale=1.0):
    return [(scale * clip).astype(np.float32) for clip in acted(8)]


def write_pickle(path, labels, scale=1.0):
    annotations = [
        {"frame_dir": f"c{i}", "label": label, "total_frames": len(clip), "keypoint": clip[None]}
        for i, (label, clip) in enumerate(zip(labels, clips(scale)))
    ]
    split = {"train": [f"c{i}" for i in range(4)], "val": [f"c{i}" for i in range(4, 8)]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))


def write_npz(path, labels, scale=1.0):
    x = np.zeros((8, 300, 150), np.float32)
    for row, clip in zip(x, clips(scale)):
        row[: len(clip), :75] = clip.reshape(len(clip), 75)
    y = np.array(labels)
    np.savez(path, x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])


def write_arrays(folder, labels, scale=1.0):
    folder.mkdir(exist_ok=True)
    for part, rows in (("train", slice(4)), ("val", slice(4, 8))):
        x = np.zeros((4, 3, 300, 25, 2), np.float32)
        for row, clip in zip(x, clips(scale)[rows]):
            row[:, : len(clip), :, 0] = clip.transpose(2, 0, 1)
        np.save(folder / f"{part}_data_joint.npy", x)
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps((list("abcd"), labels[rows])))


def write_listed(folder, labels, scale=1.0):
    folder.mkdir(exist_ok=True)
    rows = [f"c{i},{label},1,{'train' if i < 4 else 'test'}" for i, label in enumerate(labels)]
    (folder / "clips.csv").write_text("\n".join(["name,label,subject,split", *rows]) + "\n")
    for i, clip in enumerate(clips(scale)):
        np.save(folder / f"c{i}.npy", clip)


FORMATS = {"c.pkl": write_pickle, "c.npz": write_npz, "arrays": write_arrays, "listed": write_listed}
LABELS, OTHERS = [0, 1, 2, 3] * 2, [3, 2, 1, 0] * 2


def load(raw, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare("mine", raw, raw.parent / "store", progress=False, **options)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("labels", "scale"), [(OTHERS, 1.0), (LABELS, 0.9)], ids=["labels", "poses"])
def test_other_content_of_the_same_size_is_noticed(tmp_path, name, labels, scale):
    raw = tmp_path / name
    FORMATS[name](raw, LABELS)
    first = load(raw).labels.tolist()
    FORMATS[name](raw, LABELS)  # written again, with the same content
    assert load(raw).labels.tolist() == first
    before = Source([raw]).describe()["bytes"] if raw.is_file() else None
    FORMATS[name](raw, labels, scale)
    assert before is None or raw.stat().st_size == before
    with pytest.raises(ValueError, match=CHANGED):
        load(raw)
    assert load(raw, overwrite=True).labels.tolist() == [labels[i] for i in range(8)]


@pytest.mark.parametrize("name", ["c.pkl", "c.npz", "arrays", "listed"])
def test_other_class_names_are_noticed(tmp_path, name):
    raw = tmp_path / name
    FORMATS[name](raw, LABELS)
    names = (raw if raw.is_dir() else tmp_path) / "classes.txt"
    names.write_text("a\nb\nc\nd\n")
    assert load(raw).classes == list("abcd")
    names.write_text("a\nb\nd\nc\n")
    with pytest.raises(ValueError, match=CHANGED):
        load(raw)


def test_clips_behind_a_link_are_read_too(tmp_path):
    write_listed(tmp_path / "disk", LABELS)
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "day").symlink_to(tmp_path / "disk")
    rows = (tmp_path / "disk" / "clips.csv").read_text().replace("\nc", "\nday/c")
    (raw / "clips.csv").write_text(rows)
    assert load(raw).manifest["source"]["files"] == 9
    write_listed(tmp_path / "disk", LABELS, 0.9)
    with pytest.raises(ValueError, match=CHANGED):
        load(raw)


def test_a_store_in_its_raw_folder_and_files_that_are_not_listed_do_not_count(tmp_path):
    raw = tmp_path / "raw"
    write_listed(raw, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare("mine", raw, raw / "store", progress=False)
        with (raw / "features.npy").open("wb") as file:
            file.truncate(40 << 30)  # sparse: whoever reads it whole has no memory left
        assert len(prepare("mine", raw, raw / "store", progress=False)) == 8


def test_json_clips_with_other_numbers_are_noticed(tmp_path):
    raw = write_folder(tmp_path / "raw", ucla_records())
    load = lambda: prepare("ucla", raw, tmp_path / "store", progress=False)  # noqa: E731
    with pytest.warns(UserWarning, match="accuracies will not compare"):
        load()
    load()
    first = min(path for path in raw.rglob("*.json"))
    text = json.loads(first.read_bytes())
    text["skeletons"][0][0][0] = -text["skeletons"][0][0][0]
    size = first.stat().st_size
    first.write_text(json.dumps(text).ljust(size))
    with pytest.raises(ValueError, match=CHANGED):
        load()


def test_a_raw_ntu_file_of_the_same_size_that_was_written_later_is_warned_of(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, clip in enumerate(acted(3), 1):
        path = raw / f"S001C00{number}P001R001A001.skeleton"
        path.write_bytes(skeleton_file([in_room(clip)]))
        os.utime(path, ns=(10**18, 10**18))
    with pytest.warns(UserWarning, match="differs from the published splits"):
        store = prepare("ntu60", raw, tmp_path / "store", n_jobs=1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare("ntu60", raw, store.path)
        shutil.copytree(raw, tmp_path / "copy")  # as they are, with their times
        prepare("ntu60", tmp_path / "copy", store.path)
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    with pytest.warns(UserWarning, match=r"were written after this store was made .* pass overwrite=True"):
        prepare("ntu60", raw, store.path)


def test_what_an_older_manifest_does_not_have_is_not_compared(tmp_path):
    write_pickle(tmp_path / "c.pkl", LABELS)
    source = Source([tmp_path / "c.pkl"])
    assert not source.differs(source.describe()) and not source.differs({"name": "x", "files": 1})
    assert "bytes: 1 then" in source.differs({"bytes": 1})
    assert "content" in source.differs({"sha256": "0" * 64}) and "tracker: coco" in source.differs({"tracker": "coco"})
    with pytest.raises(MissingInputError, match="no raw data at"):
        Source([tmp_path / "none"])
