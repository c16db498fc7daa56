"""NW-UCLA's raw files to a store: the real set, every kind of bad file, zips of ill will, the download."""

import functools
import hashlib
import http.server
import importlib.util
import json
import re
import shutil
import socket
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from making import NO_UCLA, record, ucla_records, ucla_zip, write_folder

from bpilib.data import SkeletonStore, prepare, ucla
from bpilib.errors import MissingInputError

GOOD = ucla_records()  # 10 classes, 2 subjects, 3 views
FIRST = "a01_s01_e00_v01"
VICTIM = "a02_s01_e00_v02"


@functools.cache
def good_json():
    return {name: json.dumps(content).encode() for name, content in GOOD.items()}


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def good_zip(path: Path, **others: bytes) -> Path:
    members = {f"all_sqe/{name}.json": content for name, content in good_json().items()}
    return make_zip(path, members | others)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "raw", good_json())


def ready(raw, out, **options):
    """prepare where the one warning is that there are fewer clips than NW-UCLA has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ clips, but ucla has 1484")
        return prepare("ucla", raw=raw, out=out, progress=False, **options)


def ready_with_problems(raw, out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare("ucla", raw=raw, out=out, progress=False)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_files(store):
    """All but the manifest, which names the source."""
    return {name: content for name, content in files(store.path).items() if name != "manifest.json"}


# --- the real one


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if ucla_zip() is None:
        pytest.skip(NO_UCLA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to complain of
        return prepare("ucla", raw=ucla_zip(), out=tmp_path_factory.mktemp("real") / "store", progress=False)


def test_the_real_set_has_the_published_clips(real):
    assert len(real) == 1484 and real.problems() == []
    train, test = real.split("xview", "train"), real.split("xview", "test")
    assert (len(train), len(test)) == (1020, 464)
    assert set(real.cameras[train]) == {1, 2} and set(real.cameras[test]) == {3}
    assert sorted([*train, *test]) == list(range(1484)) and (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    assert (real.lengths.min(), real.lengths.max()) == (1, 201)
    assert real.poses.shape[1:] == (1, 20, 3) and np.isfinite(real.poses).all()
    real.verify()


@pytest.mark.parametrize("name", ["", "clip", "a01_s01_e00", "a01_s01_e00_v01.json"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(ValueError, match="its name is not like a01_s01_e00_v01"):
        ucla.parse(name, b"{}")


def test_the_real_set_s_labels_go_with_the_file_names(real):
    order = ["a01", "a02", "a03", "a04", "a05", "a06", "a08", "a09", "a11", "a12"]
    assert [order.index(name[:3]) for name in real.names] == real.labels.tolist()
    assert [int(name[5:7]) for name in real.names] == real.subjects.tolist()
    assert real.names.tolist() == sorted(real.names) and len(set(real.names)) == 1484
    assert np.bincount(real.labels).tolist() == [150, 152, 141, 173, 148, 149, 142, 142, 145, 142]
    assert real.classes[0] == "pick up with one hand" and real.classes[9] == "carry" and len(real.classes) == 10


def test_the_real_set_holds_the_files_numbers(real):
    with zipfile.ZipFile(ucla_zip()) as archive:
        for i in (0, 700, 1483):
            content = json.loads(archive.read(f"all_sqe/{real.names[i]}.json"))
            np.testing.assert_array_equal(real.sample(i)[:, 0], np.float32(content["skeletons"]))


# --- the way there


def test_raw_files_become_a_store(folder, tmp_path):
    store = ready(folder, tmp_path / "store")
    assert len(store) == 60 and store.problems() == [] and store.dataset == "ucla"
    assert store.names.tolist() == sorted(GOOD)
    assert store.labels.tolist() == [ucla.ACTIONS.index(int(name[1:3])) for name in sorted(GOOD)]
    assert store.split("xview", "train").tolist() == np.flatnonzero(store.cameras < 3).tolist()
    assert store.split("xview", "test").tolist() == np.flatnonzero(store.cameras == 3).tolist()
    assert len(store.split("xview", "test")) == 20
    assert store.lengths[0] == 1  # a clip of one frame
    for i, name in enumerate(store.names):
        np.testing.assert_array_equal(store.sample(i)[:, 0], np.float32(GOOD[name]["skeletons"]))


def test_folder_nested_folder_folder_with_zip_and_zip_give_the_same_store(folder, tmp_path):
    nested = tmp_path / "nested"
    shutil.copytree(folder, nested / "all_sqe" / "deep")
    (nested / "readme.txt").write_text("hello")
    zipped = good_zip(tmp_path / "zipped" / "all_sqe.zip")
    deep = make_zip(tmp_path / "deep.zip", {f"a/b/c/{name}.json": content for name, content in good_json().items()})
    flat = make_zip(tmp_path / "flat.zip", {f"{name}.json": content for name, content in good_json().items()})
    expected = data_files(ready(folder, tmp_path / "out" / "folder"))
    for i, raw in enumerate((nested, zipped.parent, zipped, deep, flat, str(zipped))):
        assert data_files(ready(raw, tmp_path / "out" / str(i))) == expected


def test_other_files_beside_the_clips_are_passed_over(folder, tmp_path):
    expected = data_files(ready(folder, tmp_path / "expected"))
    (folder / "package.json").write_text("{}")
    (folder / f".{FIRST}.json").write_text("{}")
    (folder / "notes.txt").write_text("x")
    assert data_files(ready(folder, tmp_path / "store")) == expected
    zipped = good_zip(tmp_path / "z.zip", **{f"__MACOSX/all_sqe/._{FIRST}.json": b"\x00\x05", "all_sqe/": b""})
    assert data_files(ready(zipped, tmp_path / "zipped")) == expected


def test_the_store_is_the_same_to_the_byte(folder, tmp_path):
    one = ready(folder, tmp_path / "one")
    again = tmp_path / "elsewhere" / "raw"
    write_folder(again, dict(reversed(good_json().items())))  # other order on the disk
    assert files(ready(again, tmp_path / "two").path) == files(one.path)


def test_fewer_clips_than_published_are_said_loudly(folder, tmp_path):
    with pytest.warns(UserWarning, match="60 clips, but ucla has 1484: accuracies will not compare"):
        prepare("ucla", raw=folder, out=tmp_path / "store", progress=False)


# --- nothing, or something else


def test_missing_raw_data_say_where_to_get_them(tmp_path):
    with pytest.raises(
        MissingInputError, match=r"no raw data at .*nowhere.*download all_sqe.zip \(https://.*download=T"
    ):
        ready(tmp_path / "nowhere", tmp_path / "store")
    with pytest.raises(ValueError, match="raw: name the folder or zip"):
        ready(None, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(MissingInputError, match=r"no clip named like a01_s01_e00_v01.json and no single zip below"):
        ready(tmp_path / "raw", tmp_path / "store")


def test_a_zip_of_something_else(tmp_path):
    raw = make_zip(tmp_path / "photos.zip", {"cat.jpg": b"x", "data/labels.json": b"{}"})
    with pytest.raises(ValueError, match=r"zip of something else \(first members: cat.jpg, data/labels.json\)"):
        ready(raw, tmp_path / "store")
    with pytest.raises(ValueError, match=r"zip of something else \(first members: none\)"):
        ready(make_zip(tmp_path / "empty.zip", {}), tmp_path / "store")
    assert not (tmp_path / "store").exists() and not (tmp_path / "store.partial").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>", b"PK\x03\x04 but no more"])
def test_a_file_that_is_no_zip(tmp_path, content):
    (tmp_path / "all_sqe.zip").write_bytes(content)
    for raw in (tmp_path / "all_sqe.zip", tmp_path):
        with pytest.raises(ValueError, match=r"all_sqe.zip is not a zip file .*a broken download"):
            ready(raw, tmp_path / "store")


def test_a_zip_that_was_cut_short(tmp_path):
    raw = good_zip(tmp_path / "all_sqe.zip")
    raw.write_bytes(raw.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="is not a zip file"):
        ready(raw, tmp_path / "store")


# --- bad files: left out, counted, named


def skeletons(value=0.5, frames=3, joints=20, axes=3):
    return [[[value] * axes for _ in range(joints)] for _ in range(frames)]


def changed(**changes):
    return json.dumps(GOOD[VICTIM] | changes).encode()


def one_coordinate(text: str) -> bytes:
    """The victim with its first coordinate replaced by a text."""
    marked = skeletons()
    marked[0][0][0] = "HERE"
    return changed(skeletons=marked).replace(b'"HERE"', text.encode())


RAGGED = skeletons()
RAGGED[1] = RAGGED[1][:7]
BAD = {
    "corrupt JSON": (good_json()[VICTIM][:-40], "not a clip's JSON"),
    "no JSON": (b"\x00\xff\xfebinary", "not a clip's JSON"),
    "empty file": (b"", "not a clip's JSON"),
    "a list": (b"[1, 2]", "not a clip's JSON"),
    "a number": (b"3", "not a clip's JSON"),
    "null": (b"null", "not a clip's JSON"),
    "nested without end": (b"[" * 200_000, "not a clip's JSON"),
    "no skeletons": (json.dumps({"file_name": VICTIM, "label": 2}).encode(), "skeletons"),
    "no label": (json.dumps({"file_name": VICTIM, "skeletons": skeletons()}).encode(), "label"),
    "25 joints": (changed(skeletons=skeletons(joints=25)), r"\(L, 20, 3\).*got \(3, 25, 3\)"),
    "2 axes": (changed(skeletons=skeletons(axes=2)), r"got \(3, 20, 2\)"),
    "a joint missing": (changed(skeletons=RAGGED), r"not \(L, 20, 3\) numbers"),
    "flat": (changed(skeletons=[1.0, 2.0]), r"got \(2,\)"),
    "no frame": (changed(skeletons=[]), "L of at least 1"),
    "skeletons null": (changed(skeletons=None), r"\(L, 20, 3\)"),
    "words": (changed(skeletons=skeletons("left")), "numbers"),
    "NaN": (one_coordinate("NaN"), "not finite.*frame 0"),
    "null coordinate": (one_coordinate("null"), "not finite"),
    "infinite": (one_coordinate("-Infinity"), "not finite"),
    "beyond float64": (one_coordinate("1e999"), "not finite"),
    "beyond float32": (one_coordinate("1e39"), "not finite"),
    "a number of 400 digits": (one_coordinate("1" * 400), "numbers|finite"),
    "another label": (changed(label=3), "label 3, but action a02 has label 2"),
    "label from 0": (changed(label=0), "label 0, but"),
    "label as text": (changed(label="2"), "label '2', but"),
    "another file_name": (changed(file_name=FIRST), f"the file says it is '{FIRST}'"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_left_out_counted_and_named_with_the_reason(tmp_path, kind, packed):
    content, reason = BAD[kind]
    raw = write_folder(tmp_path / "raw", {FIRST: good_json()[FIRST], VICTIM: content})
    if packed:
        raw = make_zip(tmp_path / "raw.zip", {f"x/{path.name}": path.read_bytes() for path in raw.iterdir()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = prepare("ucla", raw=raw, out=tmp_path / "store", progress=False)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2 and "1 clips, but ucla has 1484" in said[1]
    assert "1 problem, 1 left out" in said[0] and "problems.csv" in said[0]
    assert f"{VICTIM}.json: " in said[0]
    (problem,) = store.problems()
    assert problem.file == f"{VICTIM}.json" and problem.what in said[0] and problem.done == "left out"
    assert re.search(reason, problem.what)
    assert store.names.tolist() == [FIRST] and store.manifest["counts"]["problems"] == 1
    store.verify()
    with pytest.raises(ValueError, match=f"{VICTIM}.json: .*({reason})"):
        ready(raw, tmp_path / "strict", on_error="raise")
    assert not (tmp_path / "strict").exists() and not (tmp_path / "strict.partial").exists()


@pytest.mark.parametrize("action", ["a07", "a10", "a13", "a00", "a99"])
def test_an_unknown_action_number_is_left_out_by_name(tmp_path, action):
    name = f"{action}_s01_e00_v01"
    raw = write_folder(tmp_path / "raw", {FIRST: good_json()[FIRST], name: record(name, skeletons(), 7)})
    with pytest.warns(UserWarning, match=f"{name}.json: action {action} is not one of a01, a02, .*, a12"):
        store = ready(raw, tmp_path / "store")
    assert [problem.file for problem in store.problems()] == [f"{name}.json"]


@pytest.mark.parametrize("view", ["v00", "v04", "v13"])
def test_an_unknown_view_is_left_out_by_name_and_not_trained_on(tmp_path, view):
    name = f"a01_s01_e00_{view}"
    raw = write_folder(tmp_path / "raw", {FIRST: good_json()[FIRST], name: record(name, skeletons(), 1)})
    store = ready_with_problems(raw, tmp_path / "store")
    assert [problem.file for problem in store.problems()] == [f"{name}.json"]


def test_many_bad_files_are_counted_and_the_first_ten_shown(tmp_path):
    raw = write_folder(tmp_path / "raw", good_json() | dict.fromkeys(sorted(GOOD)[:13], b"{"))
    with pytest.warns(UserWarning, match="13 problems, 13 left out") as caught:
        store = ready(raw, tmp_path / "store")
    message = str(caught[0].message)
    assert message.count(".json: ") == 10 and "and 3 more" in message
    assert len(store) == 47 and len(store.problems()) == 13
    assert len((store.path / "problems.csv").read_text().splitlines()) == 14


def test_all_files_bad_is_an_error_with_reasons_and_leaves_nothing(tmp_path):
    raw = write_folder(tmp_path / "raw", dict.fromkeys(GOOD, b"{"))
    with pytest.raises(ValueError, match=r"no usable clip.*not a clip's JSON"):
        ready(raw, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_file_that_can_not_be_read_is_left_out(tmp_path):
    raw = write_folder(tmp_path / "raw", {FIRST: good_json()[FIRST]})
    (raw / f"{VICTIM}.json").mkdir()
    store = ready_with_problems(raw, tmp_path / "store")
    assert [problem.file for problem in store.problems()] == [f"{VICTIM}.json"]


# --- zips of ill will


def test_zip_members_that_climb_out_land_nowhere(tmp_path):
    climbing = {
        "../../evil.json": b"{}", f"../../{VICTIM}.json": good_json()[VICTIM], "/tmp/evil.json": b"{}",
        f"all_sqe/{FIRST}.json": good_json()[FIRST],
    }  # fmt: skip
    raw = make_zip(tmp_path / "a" / "b" / "raw.zip", climbing)
    store = ready(raw, tmp_path / "a" / "b" / "store")
    assert store.names.tolist() == [FIRST, VICTIM]
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a/b/raw.zip", *(f"a/b/store/{name}" for name in files(store.path))}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_an_oversized_file_is_refused_by_its_size(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(ucla, "MAX_FILE_BYTES", 100_000)
    assert all(len(content) < ucla.MAX_FILE_BYTES for content in good_json().values())
    huge = good_json()[VICTIM] + b" " * 5_000_000  # packs to next to nothing, and would be good JSON
    raw = write_folder(tmp_path / "raw", good_json() | {VICTIM: huge})
    if packed:
        raw = good_zip(tmp_path / "raw.zip", **{f"all_sqe/{VICTIM}.json": huge})
        assert raw.stat().st_size < 500_000
    store = ready_with_problems(raw, tmp_path / "store")
    (problem,) = store.problems()
    assert problem.file == f"{VICTIM}.json" and "more than the 100000" in problem.what and len(store) == 59


def test_a_zip_bomb_is_not_unpacked_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(ucla, "MAX_FILE_BYTES", 1000)
    asked = []
    read = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: asked.append(n) or read(self, n))
    raw = make_zip(tmp_path / "raw.zip", {f"{VICTIM}.json": b" " * 10_000_000})
    with pytest.raises(ValueError, match=r"no usable clip.*more than the 1000 bytes"):
        ready(raw, tmp_path / "store")
    assert asked and all(0 < n <= 1001 for n in asked)


def damaged_member(path: Path, change) -> Path:
    """A zip of two clips, the packed bytes of VICTIM changed."""
    make_zip(path, {f"x/{name}.json": good_json()[name] for name in (FIRST, VICTIM)})
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"x/{VICTIM}.json")
    data = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    change(data, start, info.compress_size)
    path.write_bytes(data)
    return path


def crc(data, start, size):
    """Decompresses to something else."""
    data[start + size - 3] ^= 0x10


def stream(data, start, size):
    """Does not decompress: a block type that does not exist."""
    data[start] |= 0b111


def header(data, start, size):
    data[start - 30 - len(f"x/{VICTIM}.json")] ^= 0xFF


@pytest.mark.parametrize("change", [crc, stream, header], ids=lambda f: f.__name__)
def test_a_damaged_zip_member_is_left_out(tmp_path, change):
    store = ready_with_problems(damaged_member(tmp_path / "raw.zip", change), tmp_path / "store")
    assert store.names.tolist() == [FIRST]
    assert [problem.file for problem in store.problems()] == [f"{VICTIM}.json"] and store.problems()[0].what


def test_a_member_with_a_password_is_left_out(tmp_path):
    def encrypted(data, start, size):
        data[start - len(f"x/{VICTIM}.json") - 30 + 6] |= 1
        central = data.rindex(b"PK\x01\x02")
        data[central + 8] |= 1

    store = ready_with_problems(damaged_member(tmp_path / "raw.zip", encrypted), tmp_path / "store")
    assert store.names.tolist() == [FIRST]
    assert "password" in store.problems()[0].what


# --- again


def test_preparing_twice_opens_the_store_that_is_there(folder, tmp_path):
    store = ready(folder, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in store.path.iterdir()}
    again = ready(folder, tmp_path / "store")
    assert {path: path.stat().st_mtime_ns for path in store.path.iterdir()} == before
    assert again.names.tolist() == store.names.tolist()
    shutil.rmtree(folder)  # nor are the raw files needed any more
    assert len(ready(folder, tmp_path / "store")) == 60


def test_other_raw_files_at_the_same_out_are_refused(folder, tmp_path):
    store = ready(folder, tmp_path / "store")
    before = files(store.path)
    other = write_folder(tmp_path / "other", dict(list(good_json().items())[:30]))
    with pytest.raises(ValueError, match=r"was made from other files.*choose another folder, or pass overwrite=True"):
        ready(other, tmp_path / "store")
    (folder / f"{FIRST}.json").write_bytes(good_json()[FIRST] + b" ")
    with pytest.raises(ValueError, match="was made from other files"):
        ready(folder, tmp_path / "store")
    assert files(store.path) == before
    assert len(ready(other, tmp_path / "store", overwrite=True)) == 30
    assert len(SkeletonStore.open(tmp_path / "store")) == 30


def test_another_data_set_at_the_same_out_is_refused(folder, tmp_path):
    ready(folder, tmp_path / "store")
    with pytest.raises(ValueError, match="holds the data set ucla, not synthetic: choose another folder"):
        prepare("synthetic", raw=tmp_path / "s", out=tmp_path / "store", progress=False, subjects=1, episodes=1)


def test_overwriting_with_bad_files_keeps_the_old_store(folder, tmp_path):
    store = ready(folder, tmp_path / "store")
    before = files(store.path)
    broken = write_folder(tmp_path / "broken", {FIRST: b"{"})
    with pytest.raises(ValueError, match="no usable clip"):
        ready(broken, tmp_path / "store", overwrite=True)
    assert files(store.path) == before and not (tmp_path / "store.partial").exists()


# --- what prepare is asked


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'nwucla': expected ucla"):
        prepare("nwucla", raw=tmp_path, out=tmp_path / "store")


def test_wrong_arguments_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="on_error: expected 'skip' or 'raise', got 'ignore'"):
        ready(folder, tmp_path / "store", on_error="ignore")
    with pytest.raises(ValueError, match="subjects: options of the synthetic data set only"):
        ready(folder, tmp_path / "store", subjects=3)
    with pytest.raises(ValueError, match=r"out: name the folder of the store, e\.g\. data/prepared/ucla"):
        ready(folder, None)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_the_synthetic_set_goes_the_same_way(tmp_path):
    store = prepare("synthetic", out=tmp_path / "store", progress=False, subjects=2, episodes=1)
    assert len(store) == 60 and store.dataset == "synthetic" and store.classes[0] == "wave"
    assert (tmp_path / "store_raw" / "a01_s01_e00_v01.json").is_file()
    assert np.bincount(store.labels).tolist() == [6] * 10
    assert (len(store.split("xview", "train")), len(store.split("xview", "test"))) == (40, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = prepare("synthetic", out=tmp_path / "store", progress=False, subjects=2, episodes=1)
    assert files(again.path) == files(store.path)


# --- download


class Quiet(http.server.SimpleHTTPRequestHandler):
    served: list[str]

    def do_GET(self):
        self.served.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """(folder that is served, its address, what was asked for)."""
    served: list[str] = []
    place = tmp_path / "served"
    place.mkdir()
    handler = type("Handler", (Quiet,), {"served": served})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=place)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield place, f"http://127.0.0.1:{running.server_port}", served
        running.shutdown()
        thread.join()


def content_hash(path: Path) -> str:
    """Of names, sizes and CRCs in name order, as `ucla.CONTENT` is."""
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.filename)
    return hashlib.sha256("".join(f"{m.filename} {m.file_size} {m.CRC:08x}\n" for m in members).encode()).hexdigest()


def test_the_expected_content_is_that_of_the_real_zip():
    if ucla_zip() is None:
        pytest.skip(NO_UCLA)
    assert content_hash(ucla_zip()) == ucla.CONTENT


def test_a_download_lands_in_its_place_and_can_be_prepared(server, tmp_path):
    place, address, served = server
    good = good_zip(place / "all_sqe.zip")
    path = ucla.download(tmp_path / "data" / "NW-UCLA", f"{address}/all_sqe.zip?dl=1", content_hash(good))
    assert path == tmp_path / "data" / "NW-UCLA" / "all_sqe.zip" and path.read_bytes() == good.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["all_sqe.zip"] and served == ["/all_sqe.zip?dl=1"]
    assert len(ready(path.parent, tmp_path / "store")) == 60
    # a second call does not ask again
    assert ucla.download(path.parent, f"{address}/all_sqe.zip?dl=1", content_hash(good)) == path
    assert len(served) == 1


def test_the_same_clips_packed_otherwise_are_accepted(server, tmp_path):
    place, address, _ = server
    content = content_hash(good_zip(place / "first.zip"))
    with zipfile.ZipFile(place / "second.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, data in reversed(good_json().items()):
            archive.writestr(f"all_sqe/{name}.json", data)
    assert ucla.download(tmp_path / "data", f"{address}/second.zip", content).is_file()


@pytest.mark.parametrize("what", ["other zip", "page", "one clip changed", "empty"])
def test_wrong_content_is_refused_and_nothing_is_left(server, tmp_path, what):
    place, address, _ = server
    expected = content_hash(good_zip(place / "good.zip"))
    wrong = place / "all_sqe.zip"
    if what == "other zip":
        make_zip(wrong, {"cat.jpg": b"x"})
    elif what == "one clip changed":
        good_zip(wrong, **{f"all_sqe/{VICTIM}.json": changed(label=3)})
    else:
        wrong.write_bytes(b"<html>sign in</html>" if what == "page" else b"")
    with pytest.raises(ValueError, match=r"could not get all_sqe.zip from http.*download it by hand to .*all_sqe.zip"):
        ucla.download(tmp_path / "data", f"{address}/all_sqe.zip", expected)
    assert not list((tmp_path / "data").iterdir())
    good_zip(wrong)  # put right, the next try succeeds
    assert ucla.download(tmp_path / "data", f"{address}/all_sqe.zip", expected).is_file()


@pytest.mark.parametrize("change", [crc, stream, header], ids=lambda f: f.__name__)
def test_a_zip_damaged_on_the_way_is_refused_and_nothing_is_left(server, tmp_path, change):
    place, address, _ = server
    expected = content_hash(damaged_member(place / "good.zip", lambda *_: None))
    damaged_member(place / "all_sqe.zip", change)
    assert content_hash(place / "all_sqe.zip") == expected  # its table of contents is still good
    with pytest.raises(ValueError, match=r"could not get all_sqe.zip from"):
        ucla.download(tmp_path / "data", f"{address}/all_sqe.zip", expected)
    assert not list((tmp_path / "data").iterdir())


def test_an_address_that_can_not_be_reached_is_a_clear_error(server, tmp_path):
    _, address, _ = server
    with pytest.raises(ValueError, match=r"could not get all_sqe.zip from .*/nowhere.zip \(.*404.*by hand"):
        ucla.download(tmp_path / "data", f"{address}/nowhere.zip", "")
    with socket.socket() as deaf:  # bound, so that nobody listens there
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/x.zip"
        with pytest.raises(ValueError, match=rf"could not get all_sqe.zip from {address} .*by hand to"):
            ucla.download(tmp_path / "data", address, "")
    assert not list((tmp_path / "data").iterdir())


def test_without_pooch_all_but_a_download_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)  # importing it raises now
    spec = importlib.util.spec_from_file_location("ucla_without_pooch", ucla.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
