"""Folders of one's own clips: every layout that is allowed, and each thing that can be wrong with one."""

import io
import json
import os
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from bodies import acted, in_room, rotation, seen_by

from bpilib.data import SkeletonStore, prepare, synthetic
from bpilib.data.formats.clip_folder import import_folder
from bpilib.data.trackers import to_ntu
from bpilib.errors import MissingInputError
from bpilib.skeleton import NTU, UCLA

HEADER = "name,label,subject,split"


def poses(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(folder, rows, clips, header=HEADER, classes=None):
    """clips.csv of rows, and name → array (or bytes) to files."""
    folder.mkdir(exist_ok=True)
    (folder / "clips.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for name, clip in clips.items():
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip) if isinstance(clip, bytes) else np.save(path, clip)
    if classes is not None:
        (folder / "classes.txt").write_text("\n".join(classes) + "\n\n", encoding="utf-8")
    return folder


def load(folder, skeleton=NTU, **options):
    return import_folder(folder, folder.parent / "store", "own", skeleton, **({"progress": False} | options))


def test_a_folder_of_clips(tmp_path):
    clips = {
        "a": poses(5, 25, 3),
        "day 1/b": poses(1, 1, 25, 3),
        "c": poses(7, 2, 25, 3).astype(np.float64),
        "d": np.arange(150).reshape(2, 25, 3),
    }
    rows = ["a,wave,1,train", "day 1/b,clap,2,test", "c.npy,wave,,", "d,'kick',30,train"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*no body")  # noise
        store = load(write(tmp_path / "raw", rows, clips))
    assert store.names.tolist() == ["a", "day 1/b", "c", "d"]
    assert store.classes == ["'kick'", "clap", "wave"] and store.labels.tolist() == [2, 1, 2, 0]
    assert store.subjects.tolist() == [1, 2, 0, 30]
    assert store.split("split", "train").tolist() == [0, 3] and store.split("split", "test").tolist() == [1]
    for i, clip in enumerate(clips.values()):
        expected = np.zeros((len(clip), 2, 25, 3), np.float32)
        expected[:, : clip.shape[1] if clip.ndim == 4 else 1] = clip if clip.ndim == 4 else clip[:, None]
        np.testing.assert_array_equal(store.sample(i), expected)
    assert store.manifest["source"]["files"] == 5 and store.manifest["source"]["name"].startswith("clips.csv")
    store.verify()


def test_joints_of_a_tracker_become_those_of_ntu(tmp_path):
    clip = synthetic.perform(1, 1, 0)
    clips = {"a": clip, "b": clip[:9, None].astype(np.float64), "mm": 1000 * clip, "other": poses(5, 25, 3)}
    folder = write(tmp_path / "raw", [f"{name},wave,1,train" for name in clips], clips)
    with pytest.warns(UserWarning, match="2 problems, 2 left out"):
        store = load(folder, None, tracker="kinect_v1")
    assert store.names.tolist() == ["a", "b"] and store.skeleton is NTU
    for i, name in enumerate(store.names):
        np.testing.assert_array_equal(store.sample(i)[:, :1], to_ntu(clips[name], "kinect_v1"))
        assert not store.sample(i)[:, 1].any()
    first, second = store.problems()
    assert first.file == "mm.npy" and "expected metres" in first.what
    assert second.file == "other.npy" and "got float32 (5, 1, 25, 3): set tracker to kinect_v2" in second.what
    with pytest.raises(ValueError, match=r"no usable clip .* numbers \(L, 33, 3\) .*: set tracker to kinect_v1"):
        load(folder, None, tracker="mediapipe", overwrite=True)
    with pytest.raises(ValueError, match="tracker kinect_v1 gives NTU's joints, own has 20: set it to None"):
        load(folder, UCLA, tracker="kinect_v1", overwrite=True)


def test_class_names_and_numbers(tmp_path):
    clips = {"a": poses(5, 20, 3), "b": poses(5, 20, 3)}
    folder = write(tmp_path / "raw", ["a,1,1,train", "b,0,2,test"], clips)
    assert load(folder, UCLA).classes == ["class 0", "class 1"]
    store = load(folder, UCLA, overwrite=True, classes=["x", "y", "z"], benchmark="xsub")
    assert store.classes == ["x", "y", "z"] and store.labels.tolist() == [1, 0] and store.benchmarks == ["xsub"]
    write(folder, ["a,clap,1,train", "b,0,2,test"], {}, classes=["wave", " clap "])
    store = load(folder, UCLA, overwrite=True)
    assert store.classes == ["wave", "clap"] and store.labels.tolist() == [1, 0]


def test_a_wide_list_is_refused_before_its_rows_are_read(tmp_path):
    """Each of its short rows would become an entry for every column."""
    wide = HEADER + "," + ",".join(f"c{i}" for i in range(30_000))
    folder = write(tmp_path / "raw", ["a,0,0,train"] * 400, {"a": poses(5, 25, 3)}, header=wide)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"clips\.csv: 30004 columns, more than the 100 it may have"):
        load(folder)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    write(folder, ["a,0,0,train" + "," * 96], {}, header=HEADER + "".join(f",c{i}" for i in range(96)))
    assert len(load(folder)) == 1


def skip_unless_named(*names):
    """Skip where a locale lacks characters that files are to be called by."""
    try:
        for name in names:
            os.fsencode(name)
    except UnicodeEncodeError:
        pytest.skip(f"files have names in {sys.getfilesystemencoding()} here")


def test_what_spreadsheets_write(tmp_path):
    skip_unless_named("ü")
    folder = write(tmp_path / "raw", [], {"ü": poses(5, 25, 3)})
    text = '\ufeffsplit,camera,name,comment,label,setup\r\ntrain,3,"ü","a, b",wave,\r\n\r\n'
    (folder / "clips.csv").write_bytes(text.encode())
    store = load(folder)
    assert store.names.tolist() == ["ü"] and store.cameras.tolist() == [3] and store.subjects.tolist() == [0]


def test_names_are_found_in_either_form_of_their_accents(tmp_path):
    """A list has "ä" as one character, files copied from a Mac have two, or the other way round."""
    one, two = "w\u00e4ve", "wa\u0308ve"
    skip_unless_named(one, two)
    folder = write(tmp_path / "raw", [f"{one}_1,wave,1,train", f"{two}_2,wave,2,test"], {})
    for name in (f"{two}_1", f"{one}_2"):
        np.save(folder / f"{name}.npy", poses(5, 25, 3))
    store = load(folder)
    assert store.names.tolist() == [f"{one}_1", f"{two}_2"] and store.problems() == []


def test_a_file_that_is_not_found_for_its_capitals_is_named(tmp_path):
    folder = write(tmp_path / "raw", ["good,wave,1,train", "bad,wave,1,test"], {"good": poses(5, 25, 3)})
    (folder / "bad.NPY").write_bytes(npy(poses(5, 25, 3)))
    with pytest.warns(UserWarning, match=r"bad\.npy: no such file, but bad\.NPY: .* \.npy in small letters"):
        load(folder)


def test_a_clip_in_another_format_is_named(tmp_path):
    folder = write(tmp_path / "raw", ["good,wave,1,train", "bad,wave,1,test"], {"good": poses(5, 25, 3)})
    (folder / "bad.csv").write_text("0.1,0.2,0.3")
    with pytest.warns(UserWarning, match=r"bad\.npy: no such file, but bad\.csv: expected a \.npy file, which"):
        load(folder)


def test_an_unknown_tracker_is_named_with_those_there_are(tmp_path):
    folder = write(tmp_path / "raw", ["good,wave,1,train"], {"good": poses(5, 33, 3)})
    with pytest.raises(ValueError, match="unknown tracker 'mediapip': expected one of mediapipe, kinect_v1"):
        load(folder, tracker="mediapip")


BAD_ROWS = {  # row → (what is said of it, in which file)
    "bad,wave,1,train": ("no such file", "bad.npy"),
    "moore,wave,1,train": ("no such file, but more.npy: one name for both the file and its row", "moore.npy"),
    "../outside,wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    "/etc/outside,wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    "good/../../outside,wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    "..\\outside,wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    "c:outside,wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    ",wave,1,train": ("expected that of a .npy file in the folder", "clips.csv"),
    "good,wave,1,train": ("name good comes a second time", "clips.csv"),
    "more,walk,1,train": ("expected the name of one of the 2 classes or its number, got 'walk'", "clips.csv"),
    "more,,1,train": ("expected the name of a class or its number, got nothing", "clips.csv"),
    "more,2,1,train": ("label 2 outside 0...1", "more.npy"),
    "more,wave,anna,train": ("subject: expected a whole number or nothing, got 'anna'", "clips.csv"),
    "more,wave,-1,train": ("subject: expected a whole number", "clips.csv"),
    "more,wave,1,val": ("split: expected train, test or nothing, got 'val'", "clips.csv"),
    "more,wave,1": ("more or fewer cells", "clips.csv"),
    "more": ("more or fewer cells", "clips.csv"),
    "more,wave,1,train,": ("more or fewer cells", "clips.csv"),
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_rows_are_left_out_and_listed(tmp_path, row):
    np.save(tmp_path / "outside.npy", poses(5, 25, 3))
    clips = {"good": poses(5, 25, 3), "more": poses(6, 25, 3)}
    folder = write(tmp_path / "raw", ["good,clap,1,train", row], clips, classes=["wave", "clap"])
    with pytest.warns(UserWarning, match="problems"):
        store = load(folder)
    assert store.names.tolist() == ["good"] and store.split("split", "train").tolist() == [0]
    what, file = BAD_ROWS[row]
    problem = store.problems()[0]
    assert what in problem.what and problem.file == file and problem.line == (3 if file == "clips.csv" else 0)
    unnamed = [p for p in store.problems() if p.what == "not named in clips.csv"]
    assert [p.file for p in unnamed] == ([] if row.startswith("more") else ["more.npy"])
    with pytest.raises(ValueError):
        load(folder, overwrite=True, on_error="raise")
    assert len(SkeletonStore.open(tmp_path / "store")) == 1  # the one before is still there


@pytest.mark.parametrize("name", ["wa\x07ve", "w" * 201, "\u202eevaw"])
def test_a_class_name_that_can_not_be_shown_leaves_its_clips_out(tmp_path, name):
    clips = {"good": poses(5, 25, 3), "more": poses(6, 25, 3)}
    folder = write(tmp_path / "raw", ["good,clap,1,train", f"more,{name},1,test"], clips)
    with pytest.warns(UserWarning, match="1 problem, 1 left out"):
        store = load(folder)
    assert store.classes == ["clap"] and store.names.tolist() == ["good"]
    assert "label: expected the name of one of the 1 classes" in store.problems()[0].what
    write(folder, ["good,clap,1,train"], {}, classes=["clap", name])
    with pytest.raises(ValueError, match=r"classes\.txt: expected names of 1 to 200 printable characters"):
        load(folder, overwrite=True)
    assert len(SkeletonStore.open(tmp_path / "store")) == 1


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(array):
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


NAN = poses(5, 25, 3)
NAN[3, 2, 1] = np.nan
BAD_FILES = {
    "joints": (poses(5, 20, 3), "expected (L, 25, 3) or (L, M, 25, 3)"),
    "flat": (poses(5, 75), "got (5, 75); if a row holds the joints of a frame: reshape(len(clip), joints, 3)"),
    "empty": (poses(0, 25, 3), "(L, 25, 3)|empty"),
    "nobody": (poses(5, 0, 25, 3), "(L, 25, 3)|empty"),
    "nan": (NAN, "not finite"),
    "huge": (np.full((2, 25, 3), 1e300), "not finite"),
    "complex": (np.zeros((2, 25, 3), complex), "expected a .npy file of numbers, got complex128"),
    "words": (np.full((2, 25, 3), "a"), "expected a .npy file of numbers, got <U1"),
    "objects": (npy(np.full((2, 25, 3), None), allow_pickle=True), "save one array, all frames with the same"),
    "text": (b"hello", "not a .npy file of numbers (it begins with b'hello'): numpy.save writes such files"),
    "nothing": (b"", "not a .npy file of numbers (it is empty)"),
    "npz": (npz(poses(5, 25, 3)), "got an npz"),
    "truncated": (npy(poses(5, 25, 3))[:-4], "it ends too early; copy it again"),
    "lying": (
        npy(poses(5, 25, 3)).replace(b"(5, 25, 3), }      ", b"(5000000, 25, 3), }"),
        "not a .npy file of numbers",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_left_out_and_listed(tmp_path, name):
    content, what = BAD_FILES[name]
    clips = {"good": poses(5, 25, 3), name: content}
    folder = write(tmp_path / "raw", ["good,wave,1,train", f"{name},wave,1,test"], clips)
    with pytest.warns(UserWarning, match=rf"1 problem, .*\n  {name}\.npy: "):
        store = load(folder)
    assert store.names.tolist() == ["good"] and not len(store.split("split", "test"))
    (problem,) = store.problems()
    assert problem.file == f"{name}.npy" and any(part in problem.what for part in what.split("|"))
    with pytest.raises(ValueError, match=rf"{name}\.npy: "):
        import_folder(folder, tmp_path / "other", "own", NTU, on_error="raise", progress=False)
    assert not (tmp_path / "other").exists() and not (tmp_path / "other.partial").exists()


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("bpilib.data.formats.clip_folder.MAX_CLIP_BYTES", 2000)
    folder = write(tmp_path / "raw", ["a,wave,1,train", "b,wave,1,train"], {"a": poses(5, 25, 3), "b": poses(9, 25, 3)})
    with pytest.warns(UserWarning, match="2828 bytes, more than the 2000"):
        assert load(folder).names.tolist() == ["a"]


def test_more_persons_than_the_skeleton_has(tmp_path):
    crowd = poses(6, 4, 25, 3) * np.array([1, 3, 0.5, 2], np.float32)[:, None, None]
    still = np.zeros((6, 3, 25, 3), np.float32)
    still[:, 2] = 1
    folder = write(tmp_path / "raw", ["crowd,wave,1,train", "still,wave,1,train"], {"crowd": crowd, "still": still})
    with pytest.warns(UserWarning, match="4 persons, 2 expected"):
        store = load(folder)
    np.testing.assert_array_equal(store.sample(0), crowd[:, [1, 3]])
    np.testing.assert_array_equal(store.sample(1)[:, 0], still[:, 2])
    assert not store.sample(1)[:, 1].any()
    assert [p.done for p in store.problems()] == ["kept those that move most"]


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(MissingInputError, match=r"no clips\.csv in"):
        load(tmp_path / "raw")
    folder = write(tmp_path / "raw", ["a,wave"], {"a": poses(5, 25, 3)}, header="name,class")
    with pytest.raises(ValueError, match=r"clips\.csv: no column label, split in .*; expected clips\.csv with"):
        load(folder)
    for content in (b"", b"\xff\xfe\x00n", b'name,label,split\n"' + b"a" * 200_000):
        (folder / "clips.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"clips\.csv"):
            load(folder)
    write(folder, ["a,99999,1,train"], {})
    with pytest.raises(ValueError, match="expected 1 to 10000 different class names"):
        load(folder)
    write(folder, ["a,wave,1,train"], {}, classes=["wave", "wave"])
    with pytest.raises(ValueError, match=r"got 2, 1 of them different; write them into classes\.txt"):
        load(folder)
    write(folder, [], {})
    (folder / "classes.txt").unlink()
    with pytest.raises(ValueError, match="no usable clip"):
        load(folder)
    assert not (tmp_path / "store").exists() and not (tmp_path / "store.partial").exists()


# --- what people bring: bodies in a room, lists from a spreadsheet, other axes, labels from 1

PEOPLE = acted(8)


def with_score(points):
    return np.pad(points, ((0, 0), (0, 0), (0, 1)), constant_values=0.9)


def people(folder, make=lambda clip, i: clip, rows=None, **options):
    """A folder of eight clips, i % 4 their class, of which two are of another person, who tests."""
    names = [f"c{i}" for i in range(8)]
    rows = rows or [f"{n},{'wave clap kick bow'.split()[i % 4]},{1 + i // 6},{'test' if i > 5 else 'train'}"
                    for i, n in enumerate(names)]  # fmt: skip
    clips = {name: make(PEOPLE[i], i).astype(np.float32) for i, name in enumerate(names)}
    return write(folder, rows, clips, **options)


def test_camera_coordinates_are_moved_and_said(tmp_path):
    still = load(people(tmp_path / "still"))
    with pytest.warns(UserWarning, match=r"recognised coordinates of a camera .* in 8 of 8 clips \(first spine 3\.0"):
        moved = load(people(tmp_path / "moved", lambda clip, i: in_room(clip)), overwrite=True)
    np.testing.assert_allclose(moved.poses, still.poses, atol=1e-5)
    assert "subtracted the spine" in moved.manifest["options"]["conventions"][0]
    assert moved.manifest["plausibility"]["origin"] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda clip, i: 1000 * clip, "no usable clip.*millimetres. divide by 1000"),
        (lambda clip, i: clip * (-1, -1, 1), "can't be what they are taken for.*[Uu]pside down: 8 of 8 clips"),
        (lambda clip, i: clip[:, ::-1], "Joints in another order, or of another tracker: bones in torsos"),
        (lambda clip, i: with_score(seen_by("openpose_25", clip)),
         r"they look like those of openpose_25 \(x, y in an image\): set tracker to it"),
        (lambda clip, i: with_score(seen_by("openpose_25", clip) / (1280, 720)), "look like those of openpose_25"),
        (lambda clip, i: with_score(seen_by("openpose_25", clip) / 1280),
         "got x and y from 0 to 1, shares of an image.*look like those of openpose_25"),
        (lambda clip, i: seen_by("human36m", clip), r"17, 3\); they look like those of human36m"),
        (lambda clip, i: seen_by("azure_kinect", clip), r"32, 3\); they look like those of azure_kinect \(x, y, z in"),
    ],
    ids=["mm", "y down", "order", "pixels", "shares", "all shares", "human36m", "azure"],
)  # fmt: skip
def test_what_is_no_body_in_metres_on_ntu_s_joints_is_refused(tmp_path, make, message):
    folder = people(tmp_path / "raw", make)
    with pytest.raises(ValueError, match=message):
        load(folder, None)
    assert not (tmp_path / "store").exists() and not (tmp_path / "store.partial").exists()


def test_joints_of_human36m_are_not_taken_for_coco_s(tmp_path):
    folder = people(tmp_path / "raw", lambda clip, i: seen_by("human36m", in_room(clip, (0, 0, 5))))  # all z above 0
    with pytest.raises(ValueError, match=r"they look like those of human36m \(x, y, z in metres\): set tracker to it"):
        load(folder, None, tracker="coco")
    assert len(load(folder, None, tracker="human36m")) == 8


def test_axes_that_may_be_people_who_lie_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"look at the clips \(01 and 08 draw them\)\. All heads point along \+z"):
        assert len(load(people(tmp_path / "raw", lambda clip, i: clip @ rotation("x", 90)))) == 8


def test_persons_before_frames_are_turned_and_said(tmp_path):
    still = load(people(tmp_path / "still"))
    with pytest.warns(UserWarning, match=r"8 of 8 clips, the first c0: read as \(persons, frames, joints, numbers\)"):
        turned = load(people(tmp_path / "turned", lambda clip, i: clip[None]), overwrite=True)
    assert np.array_equal(turned.poses, still.poses) and not turned.problems()


def numbered(first):
    return [f"c{i},{first + i % 4},1,{'test' if i > 5 else 'train'}" for i in range(8)]


def test_labels_from_one_are_counted_from_one_where_only_that_fits(tmp_path):
    names = ["wave", "clap", "kick", "bow"]
    with pytest.warns(UserWarning, match="labels run from 1 to 4, as many as class names: counted from 1, 'wave' is 1"):
        store = load(people(tmp_path / "one", rows=numbered(1), classes=names))
    assert store.labels.tolist() == [0, 1, 2, 3] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = load(people(tmp_path / "zero", rows=numbered(0), classes=names), overwrite=True)
    assert store.labels.tolist() == [0, 1, 2, 3] * 2
    with pytest.warns(UserWarning, match="labels run from 1 to 4 of 5 class names: counted from 0, so that no"):
        store = load(people(tmp_path / "five", rows=numbered(1), classes=[*names, "fall"]), overwrite=True)
    assert store.labels.tolist() == [1, 2, 3, 4] * 2
    with pytest.warns(UserWarning, match="labels run from 1 to 4 of 5 class names: .* no clip is 'class 0'"):
        store = load(people(tmp_path / "unnamed", rows=numbered(1)), overwrite=True)
    assert store.labels.tolist() == [1, 2, 3, 4] * 2


@pytest.mark.parametrize("odd", ["14", "unknown", "", "clap"])
def test_an_odd_row_among_labels_from_one_changes_no_other(tmp_path, odd):
    names, rows = ["wave", "clap", "kick", "bow"], numbered(1)[:-1]
    with pytest.warns(UserWarning, match="labels run from 1 to 4, as many as class names: counted from 1, 'wave' is 1"):
        store = load(people(tmp_path / "one", rows=[*rows, f"c7,{odd},2,test"], classes=names))
    assert store.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, *([1] if odd == "clap" else [])]
    assert [p.done for p in store.problems()] == ["left out"] * (odd != "clap")
    assert odd != "14" or store.problems()[0].what == "label 14 outside 1...4"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        store = load(people(tmp_path / "five", rows=[*rows, f"c7,{odd},2,test"], classes=[*names, "e"]), overwrite=True)
    said = " ".join(str(warning.message) for warning in said)
    told = "labels run from 1 to 4 of 5 class names: counted from 0, so that no clip is 'wave'" in said
    assert told == (odd != "clap") and store.labels.tolist()[:7] == [1, 2, 3, 4, 1, 2, 3]


def test_a_zero_among_labels_that_rather_count_from_one_is_said(tmp_path):
    rows = [*numbered(1)[:-1], "c7,0,2,test"]
    rows[2] = rows[2].replace(",3,", ",4,")
    with pytest.warns(UserWarning, match=r"labels run from 0 to 4, one more than class names: .* \(1 to 2\)"):
        store = load(people(tmp_path / "raw", rows=rows, classes=["wave", "clap", "kick", "bow"]))
    assert store.labels.tolist() == [1, 2, 1, 2, 3, 0]
    rows[0] = rows[0].replace(",1,1", ",0,1")
    with pytest.warns(UserWarning) as said:
        load(people(tmp_path / "two", rows=rows, classes=["wave", "clap", "kick", "bow"]), overwrite=True)
    assert not any("labels run" in str(warning.message) for warning in said)


def test_one_number_beside_names_tells_nothing(tmp_path):
    rows = [f"c{i},{'clap' if i else '1'},1,train" for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(people(tmp_path / "raw", rows=rows, classes=["wave", "clap"])).labels.tolist() == [1] * 8


def test_labels_of_a_published_data_set_that_count_from_one(tmp_path):
    """Names of one's own leave it to the numbers; NTU's tell it."""
    names = [f"k{i}" for i in range(60)]
    rows = [f"c{i},{label},1,train" for i, label in enumerate([1, 2, 3, 4, 5, 6, 59, 60])]
    with pytest.warns(UserWarning, match="labels run from 1 to 60, as many as class names: counted from 1, 'k0' is 1"):
        store = import_folder(people(tmp_path / "own", rows=rows), tmp_path / "one", "ntu60", None, names)
    assert store.labels.tolist() == [0, 1, 2, 3, 4, 5, 58, 59]
    clips = dict(zip((f"S001C001P001R001A{i:03}" for i in (2, 3, 4, 5, 6, 7, 8, 61)), PEOPLE))
    rows = [f"{name},{int(name[-3:]) - 1},1,train" for name in clips]
    with pytest.warns(UserWarning) as said:
        store = import_folder(write(tmp_path / "ntu", rows, clips), tmp_path / "zero", "ntu60", None, names)
    assert store.labels.tolist() == [1, 2, 3, 4, 5, 6, 7] and not any("labels run" in str(w.message) for w in said)


def test_a_column_that_comes_twice_is_refused(tmp_path):
    rows = [f"c{i},wave,clap,1,train,," for i in range(8)]
    folder = people(tmp_path / "raw", rows=rows, header="name,label, Label ,subject,split,,")
    with pytest.raises(ValueError, match=r"clips\.csv: column label twice in its first line, 'name,label, Label ,subj"):
        load(folder)
    write(folder, rows, {}, header="name,label,other,subject,split,,")
    assert load(folder).classes == ["wave"]


@pytest.mark.parametrize("named", [True, False])
def test_classes_that_differ_in_the_form_of_their_accents_are_one(tmp_path, named):
    """A Mac writes an "ü" as two characters, Windows as one."""
    one, two = "gr\u00fc\u00dfen", "gru\u0308\u00dfen"
    rows = [f"c{i},{two if i % 2 else one},1,train" for i in range(8)]
    store = load(people(tmp_path / "raw", rows=rows, classes=[two, "clap"] if named else None))
    assert store.classes == [one, "clap"][: 1 + named] and store.labels.tolist() == [0] * 8 and not store.problems()
    assert load(tmp_path / "raw", classes=[two, "clap"], overwrite=True).labels.tolist() == [0] * 8
    if named:
        (tmp_path / "raw/classes.txt").write_text(f"{one}\n{two.upper()}", encoding="utf-8")
        with pytest.raises(ValueError, match="'gr\u00fc\u00dfen', 'GR\u00dcSSEN' would be different classes"):
            load(tmp_path / "raw", overwrite=True)


def test_numbers_of_a_table_with_empty_cells_are_whole(tmp_path):
    rows = [f"c{i},{i % 4}.0,{'' if i == 3 else f'{1 + i}.0'},train" for i in range(8)]
    store = load(people(tmp_path / "raw", rows=rows))
    assert store.labels.tolist() == [0, 1, 2, 3] * 2 and store.subjects.tolist() == [1, 2, 3, 0, 5, 6, 7, 8]
    with pytest.raises(ValueError, match=r"no usable clip .* subject: expected a whole number or nothing, got '1\.5'"):
        load(people(tmp_path / "half", rows=["c0,wave,1.5,train"]), overwrite=True)


def test_another_encoding_is_read_and_said_with_what_came_of_it(tmp_path):
    folder = people(tmp_path / "raw")
    text = (folder / "clips.csv").read_text(encoding="utf-8").replace("wave", "しゃがむ")
    (folder / "clips.csv").write_bytes(text.encode("shift-jis"))
    with pytest.warns(UserWarning, match=r"clips\.csv is not in UTF-8, read in Windows' western encoding: .*odd, "):
        assert len(load(folder)) == 8


def test_a_list_without_the_columns_is_said_with_its_first_line(tmp_path):
    folder = people(tmp_path / "raw")
    (folder / "clips.csv").write_text("\n".join((folder / "clips.csv").read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match=r"no column label, name, split in its first line, 'c0,"):
        load(folder)


def test_classes_that_differ_in_capitals_are_one_or_refused(tmp_path):
    rows = [f"c{i},{'Wave' if i % 2 else 'wave'},1,train" for i in range(8)]
    with pytest.raises(ValueError, match="'Wave', 'wave' would be different classes: write them alike"):
        load(people(tmp_path / "raw", rows=rows))
    assert load(people(tmp_path / "raw", rows=rows, classes=["wave", "clap"])).labels.tolist() == [0] * 8
    with pytest.raises(ValueError, match="'put on', 'Put_on' would be different"):
        load(people(tmp_path / "raw", rows=rows, classes=["put on", "Put_on"]), overwrite=True)


FORMS = {  # as spreadsheets save a table
    "semicolon": lambda t: t.replace(",", ";").encode("utf-8-sig"),
    "hint": lambda t: ("sep=;\n" + t.replace(",", ";")).encode(),
    "unicode text": lambda t: t.replace(",", "\t").encode("utf-16"),
    "without mark": lambda t: t.encode("utf-16-le"),
    "western": lambda t: t.encode("cp1252"),
    "capitals": lambda t: t.replace("name,label,subject,split", "Name,Label,SUBJECT,Split").encode(),
    "blanks": lambda t: t.replace(",", ", ").replace("\n", " \r\n").encode(),
    "quotes": lambda t: "\r\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in t.splitlines()).encode(),
    "empty rows": lambda t: (t + ",,,\n\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_list_that_a_spreadsheet_saves_is_read(tmp_path, form):
    folder = people(tmp_path / "raw")
    text = (folder / "clips.csv").read_text(encoding="utf-8").replace("wave", "lever à droite")
    (folder / "clips.csv").write_bytes(FORMS[form](text))
    (folder / "classes.txt").write_bytes("clap\r\nlever à droite\r\nkick\r\nbow".encode("cp1252"))
    store = load(folder)
    assert store.classes == ["clap", "lever à droite", "kick", "bow"] and store.labels.tolist() == [1, 0, 2, 3] * 2
    assert len(store.split("split", "test")) == 2 and not store.problems()


def test_clips_csv_itself_names_its_folder(tmp_path):
    folder = people(tmp_path / "raw")
    assert len(prepare("mine", folder / "clips.csv", tmp_path / "store", progress=False)) == 8


# --- OpenPose's JSON files


def write_openpose(folder, persons, frames=12):
    """One JSON file a frame; persons in another order in every second frame, as OpenPose does not follow them."""
    folder.mkdir(parents=True)
    for frame in range(frames):
        people = [{"pose_keypoints_2d": person[frame].ravel().tolist()} for person in persons if person[frame].any()]
        people = people[:: -1 if frame % 2 else 1]
        (folder / f"video_{frame:012}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))


def test_openpose_s_files_become_clips_and_people_are_followed(tmp_path):
    folder = people(tmp_path / "raw", rows=["a,wave,1,train", "b,wave,2,test"])
    for path in folder.glob("*.npy"):
        path.unlink()
    scored = [with_score(seen_by("openpose_25", clip))[:12] for clip in PEOPLE[:2]]
    beside = scored[1] + (400, 0, 0)
    beside[:4] = 0  # comes later
    hidden = scored[0].copy()
    hidden[5:7, 7] = 0
    write_openpose(folder / "a", [scored[0], beside])
    write_openpose(folder / "b", [hidden])
    store = load(folder, None, tracker="openpose_25")
    expected = to_ntu(np.stack([scored[0], beside], 1), "openpose_25")
    np.testing.assert_allclose(store.sample(0), expected, atol=1e-5)
    assert store.sample(1)[:, 0].any((1, 2)).all() and not store.sample(1)[:, 1].any()
    assert np.abs(np.diff(store.sample(1), axis=0)).max() < 0.5 and store.manifest["source"]["files"] == 25
    with pytest.raises(ValueError, match="they look like those of openpose_25"):
        load(folder, None, overwrite=True)
    (folder / "b" / "video_000000000003_keypoints.json").write_text('{"people": [{}]}')
    with pytest.warns(UserWarning, match=r"b: video_000000000003_keypoints\.json is no frame of OpenPose"):
        assert load(folder, None, tracker="openpose_25", overwrite=True).names.tolist() == ["a"]


def test_a_clip_that_lies_in_folders_is_asked_for_by_its_folder(tmp_path):
    clips = {f"{place}/{name}": PEOPLE[0] for place in "ab" for name in "xy"}
    folder = write(tmp_path / "raw", ["x,wave,1,train", "a/y,clap,1,train"], clips)
    with pytest.warns(UserWarning, match=r"line 2: no such file, but a/x\.npy, b/x\.npy: add the folder to the name"):
        assert load(folder).names.tolist() == ["a/y"]


def test_labels_of_ntu_s_recordings_go_with_their_names(tmp_path):
    folder = write(tmp_path / "raw", ["S001C001P001R001A002,2,1,train", "S001C001P002R001A002,1,1,train"],
                   dict.fromkeys(("S001C001P001R001A002", "S001C001P002R001A002"), PEOPLE[0]))  # fmt: skip
    with pytest.warns(UserWarning, match=r"line 2: label 2, but its name says that it is class 1"):
        names = [f"class {i}" for i in range(60)]
        store = import_folder(folder, tmp_path / "store", "ntu60", NTU, names, progress=False)
    assert store.labels.tolist() == [1]
