"""NTU raw files to a store: the golden, every malformed file, folders and zips, kills, protocols, what is reported."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import yaml

from bpilib.data import SkeletonStore, prepare
from bpilib.data.ntu import build as ntu_build
from bpilib.data.ntu import protocol, raw_files
from bpilib.data.ntu.parser import compile_now
from bpilib.data.ntu.raw_files import BadFileError
from bpilib.errors import MissingInputError

HERE = Path(__file__).parents[1]
GOLDEN = HERE / "goldens" / "ntu" / "golden_ntu60.npz"
CLASSES = [f"class {number}" for number in range(1, 121)]
DIR60, DIR120 = "nturgb+d_skeletons", "nturgb+d_skeletons120"


@pytest.fixture(scope="session")
def class_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "classes.yaml"
    path.write_text(yaml.safe_dump({"classes": CLASSES}))
    return path


@pytest.fixture(autouse=True)
def class_names(monkeypatch, class_file):
    monkeypatch.setattr(protocol, "CLASS_NAMES_FILE", class_file)


@pytest.fixture
def few(made, tmp_path):
    """A copy of 12 raw files of NTU60, to be spoilt."""
    folder = tmp_path / "few" / DIR60
    folder.mkdir(parents=True)
    for path in sorted((made("ntu60") / DIR60).iterdir())[:12]:
        shutil.copy(path, folder)
    return folder


def ready(dataset, raw, out, **options):
    """prepare where the one warning is that it is not the whole data set."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=rf"{dataset} differs from the published")
        return prepare(dataset, raw=raw, out=out, progress=False, **({"n_jobs": 1} | options))


def quietly(dataset, raw, out, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(dataset, raw=raw, out=out, progress=False, **({"n_jobs": 1} | options))


def files(folder, *without):
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name not in without}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def store60(made, class_file, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "CLASS_NAMES_FILE", class_file)
        return ready("ntu60", made("ntu60"), tmp_path_factory.mktemp("golden") / "store")


# --- exact


def test_every_clip_is_the_published_one_to_the_byte(store60, golden):
    assert store60.names.tolist() == [name.decode() for name in golden["names"]]
    assert store60.offsets.tolist() == golden["offsets"].tolist()
    assert store60.problems() == []
    cases = json.loads((HERE / "goldens" / "ntu" / "cases.json").read_text())
    case_of = {name: case for case, entry in cases.items() for name in entry["names"]}
    published = np.split(golden["data"], golden["offsets"][1:-1])
    wrong = {
        case_of[name] for i, name in enumerate(store60.names) if store60.sample(i).tobytes() != published[i].tobytes()
    }
    assert len(cases) == 46 and wrong == set()


def test_labels_and_ids_are_the_names(store60, golden):
    assert store60.labels.tolist() == golden["label"].tolist()
    assert store60.labels.tolist() == [int(name[-3:]) - 1 for name in store60.names]
    assert store60.setups.tolist() == [int(name[1:4]) for name in store60.names]
    assert store60.cameras.tolist() == [int(name[5:8]) for name in store60.names]
    assert store60.subjects.tolist() == [int(name[9:12]) for name in store60.names]
    assert store60.classes == CLASSES[:60] and store60.poses.shape[1:] == (2, 25, 3) and store60.persons == 2
    store60.verify()


@pytest.mark.parametrize("split, benchmark, part", [
    ("CS_train", "xsub", "train"), ("CS_test", "xsub", "test"),
    ("CV_train", "xview", "train"), ("CV_test", "xview", "test"),
])  # fmt: skip
def test_splits_come_in_the_published_order(store60, golden, split, benchmark, part):
    indices = store60.split(benchmark, part)
    assert indices.dtype == np.int64 and indices.tolist() == golden[split].tolist()
    padded = np.zeros(golden[f"{split}_shape"], np.float32)  # as published: every clip as long as the longest
    for row, i in zip(padded, indices):
        row[: store60.lengths[i]] = store60.sample(i).reshape(-1, 150)
    assert hashlib.sha256(padded.tobytes()).hexdigest().encode() == golden[f"{split}_sha256"]


def test_ntu120_copies_the_second_person_where_there_is_one_actor(made, tmp_path, store60):
    store = ready("ntu120", made("ntu60"), tmp_path / "same_files")
    copied = set()
    for i, name in enumerate(store.names):
        clip, single = store.sample(i), store60.sample(i)
        assert clip[:, 0].tobytes() == single[:, 0].tobytes()
        if clip.tobytes() != single.tobytes():
            assert clip[:, 1].tobytes() == clip[:, 0].tobytes() and not single[:, 1].any()
            copied.add(name)
    cases = json.loads((HERE / "goldens" / "ntu" / "cases.json").read_text())
    assert copied >= {*cases["one_body"]["names"], *cases["short_11"]["names"], *cases["mutual_one_left"]["names"]}
    assert not copied & {*cases["two_bodies"]["names"], *cases["id_change"]["names"], *cases["short_12"]["names"]}
    assert store.manifest["options"] == {"second_person": "a copy of the first"}
    assert store60.manifest["options"] == {"second_person": "zeros"}


def test_ntu120_takes_both_folders_and_splits_by_subject_and_setup(made, tmp_path):
    store = ready("ntu120", made("ntu120", 60, 8), tmp_path / "store")
    assert len(store) == 60 and store.setups.max() == 32 and store.classes == CLASSES
    assert store.benchmarks == ["xsub", "xset"]
    for benchmark, key in (("xsub", store.subjects), ("xset", store.setups)):
        train, test = store.split(benchmark, "train"), store.split(benchmark, "test")
        assert sorted([*train, *test]) == list(range(60))
        for part in (train, test):
            assert part.tolist() == sorted(part.tolist(), key=lambda i: (key[i], store.names[i]))
    assert set(store.setups[store.split("xset", "train")] % 2) == {0}
    assert set(store.subjects[store.split("xsub", "train")]) <= set(protocol.TRAIN_SUBJECTS)
    assert not set(store.subjects[store.split("xsub", "test")]) & set(protocol.TRAIN_SUBJECTS)


def test_ntu60_leaves_the_setups_of_ntu120_alone(made, tmp_path):
    store = quietly("ntu60", made("ntu120", 60, 8), tmp_path / "store")
    counts, others = store.manifest["counts"], len(list((made("ntu120", 60, 8) / DIR120).iterdir()))
    assert counts["other_setups"] == others > 0
    wrong = [problem for problem in store.problems() if "action" not in problem.what]  # made with NTU120's actions
    assert wrong == [] and len(store) + len(store.problems()) == 60 - others


def test_the_published_train_subjects():
    assert len(protocol.TRAIN_SUBJECTS) == len(set(protocol.TRAIN_SUBJECTS)) == 53
    assert [s for s in protocol.TRAIN_SUBJECTS if s <= 40] == [
        1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,
    ]  # fmt: skip
    assert sum(protocol.TRAIN_SUBJECTS) == 2795 and max(protocol.TRAIN_SUBJECTS) == 103
    for dataset, total in (("ntu60", 56_578), ("ntu120", 113_945)):
        assert {sum(sizes) for sizes in protocol.PUBLISHED_SIZES[dataset].values()} == {total}


# --- bad files


def test_every_malformed_file_is_listed_with_its_reason_or_harmless(made, tmp_path):
    raw = made("bad", 0, 10)
    with pytest.warns(UserWarning) as caught:
        store = prepare("ntu60", raw=raw, out=tmp_path / "store", progress=False, n_jobs=1)
    assert "56 problems, 56 left out (all of them in" in str(caught[0].message)
    listed = json.loads((raw / "manifest.json").read_text())["files"]
    cases = {entry["name"] + ".skeleton": entry["case"] for entry in listed}
    with (store.path / "problems.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {cases[row["file"]]: (row["what"], int(row["line"])) for row in rows}
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert {row["done"] for row in rows} == {"left out"}
    reasons = {
        ("empty_file", "blank_file"): ("empty file", 0),
        ("header_only", "header_too_large", "truncated_between_frames", "truncated_between_lines"):
            ("truncated: it ends before", None),
        ("truncated_in_line", "truncated_last_line_after_colour"):
            ("truncated: expected a joint line of 12 fields", None),
        ("zero_frames", "negative_frames", "header_not_a_number", "header_float"):
            ("frame count: expected a whole number", 1),
        ("all_frames_empty",): ("no body in any of its 45 frames", 0),
        ("header_too_small", "trailing_garbage"): ("content after the last of its", None),
        ("coordinate_not_a_number", "coordinate_decimal_comma", "coordinate_msvc_nan"): ("is not a number", 289),
        ("coordinate_nan", "coordinate_inf", "coordinate_overflow"): ("coordinate y of joint 5 is not finite", 289),
        ("coordinate_nan_origin",): ("coordinate x of joint 2 is not finite", 6),
        ("coordinate_nan_two_bodies",): ("coordinate y of joint 5 is not finite", 559),
        ("joints_24_declared", "joints_26_declared"): ("expected the joint count 25, got '2", 4),
        ("joints_24_undeclared",): ("expected a joint line of 12 fields, got 1", 309),
        ("joints_26_undeclared",): ("expected a body count, got '-", 310),
        ("joint_line_3_fields", "joint_line_6_fields", "joint_line_7_fields", "joint_line_15_fields"):
            ("expected a joint line of 12 fields, got", 289),
        ("negative_bodies", "blank_line"): ("expected a body count, got '", 282),
        ("body_count_too_large",): ("expected a body line of 10 fields, got 1: '1'", 310),
        ("body_count_too_small",): ("expected a body count, got '72057", 580),
        ("body_line_empty", "body_line_id_only"): ("expected a body line of 10 fields, got", 283),
        ("not_utf8", "nul_bytes"): ("a byte that is no text", 31),
        ("same_id_twice_in_frames", "same_id_twice_fits"): ("twice in a frame", None),
        ("two_ids_both_short", "three_ids_all_short"): ("bodies has 12 frames or more", 0),
        ("one_body_all_zero", "two_bodies_all_zero", "two_bodies_first_kept_zero"): ("all coordinates of its first", 0),
        ("name_action_61",): ("action 61 is outside the protocol of ntu60 (1 to 60)", 0),
        ("name_action_0",): ("action 0 is outside", 0),
        ("name_subject_41",): ("subject 41 is outside the protocol of ntu60 (1 to 40)", 0),
        ("name_camera_4",): ("camera 4 is outside the protocol of ntu60 (1 to 3)", 0),
        ("name_setup_33",): ("setup 33 is outside", 0),
        ("name_no_action", "name_lower_case", "name_suffix_two_bodies", "name_short_fields", "name_rgb"):
            ("its name is not like S001C002P003R002A013", 0),
    }  # fmt: skip
    expected = {case: reason for names, reason in reasons.items() for case in names}
    assert set(found) == set(expected) and len(found) == 56
    for case, (what, line) in expected.items():
        assert what in found[case][0] and (line is None or found[case][1] == line), (case, found[case])
    harmless = {
        "unused_field_not_a_number", "colour_not_a_number", "colour_nan", "trailing_blank_lines", "indented",
        "byte_order_mark",
    }  # fmt: skip
    assert {cases[f"{name}.skeleton"] for name in store.names} == harmless
    assert np.isfinite(store.poses).all() and store.manifest["counts"]["problems"] == 56


def test_bad_files_can_stop_the_preparation(few, tmp_path):
    victim = sorted(few.iterdir())[3]
    victim.write_bytes(victim.read_bytes().replace(b"\r\n25\r\n", b"\r\n24\r\n", 1))
    with pytest.raises(ValueError, match=rf"{victim.name}, line 4: expected the joint count 25, got '24'"):
        ready("ntu60", few, tmp_path / "store", on_error="raise")
    assert not (tmp_path / "store").exists()
    victim.rename(victim.with_name("clip.skeleton"))
    with pytest.raises(ValueError, match=r"clip.skeleton: its name is not like"):
        ready("ntu60", few, tmp_path / "store", on_error="raise")
    store = quietly("ntu60", few, tmp_path / "store")
    assert len(store) == 11 and [problem.file for problem in store.problems()] == ["clip.skeleton"]


def test_oversize_and_unreadable_files_are_listed(few, tmp_path, monkeypatch):
    paths = sorted(few.iterdir())
    monkeypatch.setattr(raw_files, "MAX_FILE_BYTES", max(path.stat().st_size for path in paths))
    with paths[0].open("ab") as file:
        file.write(b"\r\n" * raw_files.MAX_FILE_BYTES)
    paths[1].unlink()
    paths[1].symlink_to(tmp_path / "nowhere")
    store = quietly("ntu60", few, tmp_path / "store")
    assert len(store) == 10
    too_large, unreadable = store.problems()
    assert re.match(r"\d+ bytes, more than the \d+ a file may have", too_large.what)
    assert unreadable.what.startswith("can't be read: ")


def test_two_files_of_one_name_are_one_if_equal_and_a_problem_if_not(few, tmp_path):
    expected = files(ready("ntu60", few, tmp_path / "once").path, "manifest.json")
    shutil.copytree(few, few.parent / "again")
    assert files(ready("ntu60", few.parent, tmp_path / "twice").path, "manifest.json") == expected
    victim = min((few.parent / "again").iterdir())
    victim.write_bytes(victim.read_bytes()[:-40])
    store = quietly("ntu60", few.parent, tmp_path / "differ")
    assert len(store) == 11 and store.problems()[0].what == "2 files of this name, of different sizes"


# --- the official list, and what is said of counts


def test_the_official_list_is_left_out_by_name_and_counted_apart(few, tmp_path):
    names = protocol.read_missing()
    assert len(names) == 535 and sum(int(name[1:4]) <= 17 for name in names) == 302
    assert all(protocol.parse_ids(name, "ntu120") for name in names)
    paths = sorted(few.iterdir())
    paths[0].rename(few / "S001C002P005R002A008.skeleton")
    (few / "S001C002P006R001A008.skeleton").write_bytes(b"")  # whatever they hold
    store = ready("ntu60", few, tmp_path / "store")
    assert len(store) == 11 and store.problems() == [] and store.manifest["counts"]["missing"] == 2


def test_differences_from_the_published_sizes_are_said(few, tmp_path, monkeypatch):
    victim = sorted(few.iterdir())[3]
    victim.write_bytes(b"3")
    with pytest.warns(UserWarning) as caught:
        store = prepare("ntu60", raw=few, out=tmp_path / "store", progress=False, n_jobs=1)
    assert len(caught) == 2 and f"{victim.name}, line 1: truncated" in str(caught[0].message)
    train = len(store.split("xsub", "train"))
    said = str(caught[1].message)
    assert f"xsub train: {train} clips, published 40,091 (-{40_091 - train:,})" in said
    assert f"left out as bad: 1 files ({victim.name})" in said
    assert "the raw files are 12 of 56,578" in said
    # a nearly whole set: the files that are not there are named
    listed = protocol.list_raw_files("ntu60", few)
    counts = {name: tuple(len(store.split(name, part)) for part in ("train", "test")) for name in ("xsub", "xview")}
    train, test = counts["xsub"]
    monkeypatch.setitem(protocol.PUBLISHED_SIZES, "ntu60", counts | {"xsub": (train, test + 1)})
    said = protocol.compare_with_published(store, listed)
    assert "xsub train" not in said and f"xsub test: {test} clips, published {test + 1} (-1)" in said
    absent = listed.absent()
    assert f"not among the raw files: {len(absent):,} files ({', '.join(absent[:20])}, ... and" in said
    monkeypatch.setitem(protocol.PUBLISHED_SIZES, "ntu60", counts)
    assert protocol.compare_with_published(store, listed) == ""


def test_absent_files_are_those_that_the_recordings_lack():
    names = [f"S002C{c:03}P003R{r:03}A{a:03}" for c in (1, 2, 3) for r in (1, 2) for a in range(1, 61)]
    gone = ["S002C002P003R001A017", "S002C003P003R002A060"]
    listed = protocol.Listing([raw_files.RawFile(name, "", 0, 0) for name in names if name not in gone])
    assert set(listed.absent()) == set(gone) - protocol.read_missing()
    listed = protocol.Listing([raw_files.RawFile(f"S020C001P050R001A{a:03}", "", 0, 0) for a in range(61, 120)])
    every = {f"S020C{c:03}P050R{r:03}A{a:03}" for c in (1, 2, 3) for r in (1, 2) for a in range(61, 121)}
    assert set(listed.absent()) == every - {file.name for file in listed.files} - protocol.read_missing()


@pytest.mark.parametrize("name, what", [
    ("S001C001P001R003A001", "replication 3 is outside"), ("S000C001P001R001A001", "setup 0 is outside"),
    ("S001C001P001R001A0010", "its name is not like"), ("S001C001P001R001A00１", "its name is not like"),
])  # fmt: skip
def test_names_outside_the_protocol(name, what):
    with pytest.raises(BadFileError, match=what):
        protocol.parse_ids(name, "ntu120")


def test_class_names_come_from_the_prompts_file(tmp_path, monkeypatch, class_file):
    assert protocol.read_classes("ntu120") == CLASSES and protocol.read_classes("ntu60") == CLASSES[:60]
    class_file.with_name("short.yaml").write_text("classes: [a, b]")
    monkeypatch.setattr(protocol, "CLASS_NAMES_FILE", class_file.with_name("short.yaml"))
    with pytest.raises(ValueError, match="expected 120 classes, got 2"):
        protocol.read_classes("ntu60")
    monkeypatch.setattr(protocol, "CLASS_NAMES_FILE", tmp_path / "none.yaml")
    with pytest.raises(MissingInputError, match=r"no class names at .*none.yaml: restore"):
        protocol.read_classes("ntu60")


# --- where the raw files lie


def zipped(paths, target, method=zipfile.ZIP_DEFLATED, prefix="nturgb+d_skeletons/"):
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("readme.txt", "hello")
        for path in reversed(list(paths)):
            archive.write(path, prefix + path.name)
        archive.writestr(f"__MACOSX/{prefix}._{path.name}", b"\0\5")
    return target


def test_zips_and_folders_give_the_same_store(made, tmp_path):
    raw = made("ntu120", 60, 8)
    expected = files(ready("ntu120", raw, tmp_path / "folders").path, "manifest.json")
    zips = tmp_path / "zips"
    zips.mkdir()
    one = zipped(sorted((raw / DIR60).iterdir()), zips / "nturgbd_skeletons_s001_to_s017.zip")
    two = zipped(sorted((raw / DIR120).iterdir()), zips / "nturgbd_skeletons_s018_to_s032.zip", zipfile.ZIP_STORED, "")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a").symlink_to(raw / DIR60)
    (linked / "b").symlink_to(raw / DIR120)
    (linked / "loop").symlink_to(linked)
    for i, place in enumerate((zips, [one, two], [raw / DIR60, two], linked)):
        store = ready("ntu120", place, tmp_path / f"store{i}")
        assert files(store.path, "manifest.json") == expected
    half = ready("ntu120", one, tmp_path / "half")
    assert half.setups.max() == 17 and len(half) == len(list((raw / DIR60).iterdir()))


@pytest.mark.parametrize("spoil, what", [
    (lambda data, at: data[: at + 200] + b"\xff\xff\xff" + data[at + 203 :], r"can't be read|damaged in its zip"),
    (lambda data, at: data[:at] + b"XXXX" + data[at + 4 :], "packed in its zip in a way that is not supported"),
])  # fmt: skip
def test_a_damaged_member_of_a_zip_is_a_problem_of_that_file(few, tmp_path, spoil, what):
    raw = zipped(sorted(few.iterdir()), tmp_path / "raw.zip")
    with zipfile.ZipFile(raw) as archive:
        member = archive.infolist()[4]
    raw.write_bytes(spoil(raw.read_bytes(), member.header_offset))
    store = quietly("ntu60", raw, tmp_path / "store")
    assert len(store) == 11
    (problem,) = store.problems()
    assert problem.file == Path(member.filename).name and re.search(what, problem.what)


def test_nothing_there_or_something_else(tmp_path):
    with pytest.raises(MissingInputError, match=r"no raw data at .*nowhere: get nturgbd_skeletons_s001_to_s017.zip"):
        ready("ntu60", tmp_path / "nowhere", tmp_path / "store")
    with pytest.raises(ValueError, match="raw: name the folder or zip of the raw files; get nturgbd_skeletons"):
        ready("ntu60", None, tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"no .skeleton file and no zip of them in .*empty"):
        ready("ntu60", tmp_path / "empty", tmp_path / "store")
    (tmp_path / "empty" / "x.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"x.zip is not a zip file"):
        ready("ntu60", tmp_path / "empty", tmp_path / "store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "S018C001P050R001A061.skeleton").write_bytes(b"1")
    with pytest.raises(ValueError, match="none of the 1 raw files is to be read for ntu60"):
        ready("ntu60", tmp_path / "other", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_that_is_there_is_opened_if_it_is_the_same(few, tmp_path):
    store = ready("ntu60", few, tmp_path / "store")
    assert store.manifest["source"]["files"] == 12 and len(store.manifest["source"]["fingerprint"]) == 64
    raw = zipped(sorted(few.iterdir()), tmp_path / "raw.zip")
    for place in (few, raw):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(prepare("ntu60", raw=place, out=store.path)) == 12
    with pytest.raises(ValueError, match="holds the data set ntu60, not ntu120"):
        ready("ntu120", few, store.path)
    victim = min(few.iterdir())
    victim.rename(victim.with_name("S017C003P040R002A060.skeleton"))
    with pytest.raises(ValueError, match="was made from other files"):
        ready("ntu60", few, store.path)
    shutil.rmtree(few)
    assert len(ready("ntu60", few, store.path)) == 12  # the raw files may be gone


# --- in parallel, in order, in bounded memory


def test_processes_and_threads_give_the_same_store(made, store60, tmp_path, monkeypatch):
    monkeypatch.setattr(ntu_build, "CHUNK", 8)
    monkeypatch.setattr(ntu_build, "FEW", 2)
    two = ready("ntu60", made("ntu60"), tmp_path / "two", n_jobs=2)
    assert files(two.path) == files(store60.path)
    with joblib.parallel_config(backend="threading"):
        threads = ready("ntu60", made("ntu60"), tmp_path / "threads", n_jobs=3)
    assert files(threads.path) == files(store60.path)


def test_one_part_is_held_at_a_time(made, tmp_path, monkeypatch):
    monkeypatch.setattr(ntu_build, "CHUNK", 8)
    events = []
    make, take = ntu_build._make_part, ntu_build._read_part
    monkeypatch.setattr(ntu_build, "_make_part", lambda *a: (events.append("make"), make(*a))[1])
    monkeypatch.setattr(ntu_build, "_read_part", lambda *a: (events.append("take"), take(*a))[1])
    ready("ntu60", made("ntu60"), tmp_path / "store")
    assert events == ["make", "take"] * 8


# --- killed and started again

STUCK = """
import sys, time, warnings
from pathlib import Path
from bpilib.data import prepare
from bpilib.data.ntu import build as ntu_build, protocol as ntu
warnings.simplefilter("ignore")
ntu.CLASS_NAMES_FILE, ntu_build.CHUNK, ntu_build.FEW = Path(sys.argv[3]), 4, 2
make = ntu_build._make_part
def get_stuck(path, files, dataset, first=int(sys.argv[5])):
    if int(Path(path).stem) >= first:
        time.sleep(3600)
    make(path, files, dataset)
ntu_build._make_part = get_stuck
prepare("ntu60", raw=sys.argv[1], out=sys.argv[2], progress=False, n_jobs=int(sys.argv[4]))
"""


def killed(raw, out, class_file, jobs, parts=4):
    """Start a preparation in another process that makes so many parts and no more, and kill it there."""
    command = [sys.executable, "-c", STUCK, *map(str, (raw, out, class_file, jobs, parts))]
    with subprocess.Popen(command, start_new_session=True, cwd=HERE.parent) as process:
        limit = time.monotonic() + 600
        try:
            while len(list(out.parent.glob(f"{out.name}.partial/parts/*.npz"))) < parts:
                assert process.poll() is None and time.monotonic() < limit
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert not out.exists()
    return sorted((out.parent / f"{out.name}.partial" / "parts").glob("*.npz"))


@pytest.fixture
def counted(monkeypatch):
    """Numbers of the parts that are made from here on."""
    done, make = [], ntu_build._make_part
    monkeypatch.setattr(ntu_build, "CHUNK", 4)
    monkeypatch.setattr(ntu_build, "_make_part", lambda path, *a: (done.append(int(Path(path).stem)), make(path, *a)))
    return done


def test_a_killed_preparation_continues_to_the_same_store(made, store60, class_file, tmp_path, counted):
    out = tmp_path / "store"
    parts = killed(made("ntu60"), out, class_file, jobs=1)
    assert len(parts) == 4
    parts[1].write_bytes(parts[1].read_bytes()[:-100])  # the power failed as well
    spoilt = bytearray(parts[2].read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    parts[2].write_bytes(spoilt)
    store = ready("ntu60", made("ntu60"), out)
    assert counted == [1, 2, *range(4, 15)]
    assert files(store.path) == files(store60.path)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_parts_of_other_raw_files_are_not_taken(few, class_file, tmp_path, counted):
    out = tmp_path / "store"
    killed(few, out, class_file, jobs=1, parts=2)
    os.utime(min(few.iterdir()), (1, 1))  # changed since
    store = ready("ntu60", few, out)
    assert counted == [0, 1, 2] and len(store) == 12


def test_an_error_leaves_the_parts_for_the_next_try(few, tmp_path, counted):
    victim = max(few.iterdir())
    victim.write_bytes(b"")
    with pytest.raises(ValueError, match="empty file"):
        ready("ntu60", few, tmp_path / "store", on_error="raise")
    store = quietly("ntu60", few, tmp_path / "store")
    assert counted == [0, 1, 2] and len(store) == 11 and not (tmp_path / "store.partial").exists()
    assert isinstance(SkeletonStore.open(store.path), SkeletonStore)


@pytest.mark.slow
def test_killed_with_workers_at_work(made, store60, class_file, tmp_path, counted):
    parts = killed(made("ntu60"), tmp_path / "store", class_file, jobs=2)
    store = ready("ntu60", made("ntu60"), tmp_path / "store")
    assert len(parts) == 4 and counted == [*range(4, 15)]
    assert files(store.path) == files(store60.path)


@pytest.mark.slow
def test_memory_stays_flat(made, tmp_path):
    code = """
    import resource, sys, warnings
    from bpilib.data import prepare
    warnings.simplefilter("ignore")
    prepare("ntu60", raw=sys.argv[1], out=sys.argv[2], progress=False, n_jobs=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    compile_now()  # which takes memory of its own, unless its result is on the disk
    peaks, sizes = [], []
    for count in (100, 800):
        raw, out = made("bulk60", count, 9), tmp_path / str(count)
        command = [sys.executable, "-c", textwrap.dedent(code), str(raw), str(out)]
        found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent).stdout
        peaks.append(int(found.split()[-1]) * 1024)
        sizes.append((out / "poses.npy").stat().st_size)
    assert peaks[1] < 1.5e9 and peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 2  # bytes
