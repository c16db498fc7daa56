"""NTU's and NW-UCLA's raw files where people leave them: in zips below, in zips of zips, with capitals; other files."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from bodies import acted, in_room, skeleton_file
from making import ucla_records

from bpilib.data import prepare
from bpilib.errors import MissingInputError

RECORDS = {name: json.dumps(content).encode() for name, content in ucla_records(subjects=(1,), views=(2, 3)).items()}
NTU_NAMES = ("S001C001P001R001A001", "S001C001P003R001A002")


NTU_FILES = {name: skeleton_file([in_room(clip)]) for name, clip in zip(NTU_NAMES, acted(2))}


def zipped(members):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def put(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def ready(dataset, raw, out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(dataset, raw=raw, out=out, progress=False, n_jobs=1)


PACKED = zipped({f"all_sqe/{n}.json": c for n, c in RECORDS.items()})
UCLA_PLACES = {
    "zip in a zip": {"download.zip": zipped({"all_sqe.zip": PACKED})},
    "zip below": {"downloads/2026/all_sqe.zip": PACKED},
    "capitals": {f"{n.upper()}.JSON": c for n, c in RECORDS.items()},
    "backslashes": {"a.ZIP": zipped({f"all_sqe\\{n}.json": c for n, c in RECORDS.items()})},
    "twice the same": {f"{folder}/{n}.json": c for n, c in RECORDS.items() for folder in "ab"},
}


@pytest.mark.parametrize("place", UCLA_PLACES)
def test_nw_ucla_is_found(tmp_path, place):
    store = ready("ucla", put(tmp_path / "raw", UCLA_PLACES[place]), tmp_path / "store")
    assert store.names.tolist() == sorted(RECORDS) and not store.problems()


@pytest.mark.parametrize("packed", [False, True])
def test_two_clips_of_one_name_that_differ_are_left_out_and_named(tmp_path, packed):
    first, other = list(RECORDS)[:2]
    changed = RECORDS[first].replace(b"1", b"2", 1)
    files = {f"a/{first}.json": RECORDS[first], f"b/{first}.json": changed, f"a/{other}.json": RECORDS[other]}
    raw = put(tmp_path / "raw", {"all.zip": zipped(files)} if packed else files)
    store = ready("ucla", raw, tmp_path / "store")
    (problem,) = store.problems()
    assert store.names.tolist() == [other] and "2 files of this name, that differ: keep one" in problem.what


NTU_PLACES = {
    "zip below": {"a/b/skeletons.zip": zipped({f"nturgb+d_skeletons/{n}.skeleton": c for n, c in NTU_FILES.items()})},
    "capitals": {f"{n}.SKELETON": c for n, c in NTU_FILES.items()},
    "capitals in a zip": {"A.ZIP": zipped({f"x\\{n}.Skeleton": c for n, c in NTU_FILES.items()})},
}


@pytest.mark.parametrize("place", NTU_PLACES)
def test_ntu_is_found(tmp_path, place):
    store = ready("ntu60", put(tmp_path / "raw", NTU_PLACES[place]), tmp_path / "store")
    assert store.names.tolist() == list(NTU_NAMES) and not store.problems()


def test_ntu_s_zips_in_a_zip_are_named(tmp_path):
    inner = zipped({"a.skeleton": b"1"})
    raw = put(tmp_path / "raw", {"all.zip": zipped({"part1.zip": inner}), "x/other.zip": zipped({})})
    said = r"all\.zip holds zips in a zip: part1\.zip: unpack it once, and name"
    with pytest.raises(MissingInputError, match=said) as caught:
        ready("ntu60", raw, tmp_path / "store")
    assert "nturgbd_skeletons" not in str(caught.value)
    raw = put(tmp_path / "folder", {"NTU60_CS.npz": b""})
    with pytest.raises(MissingInputError, match=r"to import .*NTU60_CS\.npz, name it itself"):
        ready("ntu60", raw, tmp_path / "store")


HINTS = {
    "folder/clips.csv": r"clips\.csv is there: name its folder .*folder\b",
    "a/b/c/clips.csv": r"name its folder .*a/b/c\b",
    "CLIPS.CSV": r"CLIPS\.CSV is there: call it clips\.csv",
    "clips.csv.txt": r"call it clips\.csv",
    "clips.tsv": r"call it clips\.csv",
    "list.csv": r"list\.csv is there: is it the list of clips\? Call it clips\.csv",
    "clips.xlsx": r"save it as clips\.csv",
    "wave_01.npy": r"holds \.npy files: list them in a clips\.csv in it",
    "sets/NTU60_CS.npz": r"to import .*NTU60_CS\.npz, name it itself",
    "hrnet.pkl": r"to import .*hrnet\.pkl, name it itself",
    "S001C001P001R001A001.skeleton.gz": r"its name must end with \.skeleton",
    "ntu.tar.gz": r"unpack .*ntu\.tar\.gz, and name the folder",
    "train_data_bone.npy": r"train_data_bone\.npy holds no joints, and they can't be computed from it: get train",
    "val_data_joint_motion.npy": r"val_data_joint_motion\.npy holds no joints",
}


@pytest.mark.parametrize("file", HINTS)
@pytest.mark.parametrize("dataset", ["mine", "ntu60"])
def test_what_is_there_instead_is_named_and_what_to_do_with_it(tmp_path, file, dataset):
    raw = put(tmp_path / "raw", {file: b"", "train_label.pkl": b"", "readme.md": b"", ".clips.csv.swp": b""})
    if file == "CLIPS.CSV" and (raw / "clips.csv").exists():
        pytest.skip("a file system without capitals")
    with pytest.raises(ValueError, match=HINTS[file]) as caught:
        ready(dataset, raw, tmp_path / "store")
    assert "train_label" not in str(caught.value) and "rose1.ntu" not in str(caught.value)


def test_a_zip_beside_raw_files_in_a_zip_is_not_passed_over_in_silence(tmp_path):
    inner = zipped({f"{NTU_NAMES[1]}.skeleton": NTU_FILES[NTU_NAMES[1]]})
    files = {f"{NTU_NAMES[0]}.skeleton": NTU_FILES[NTU_NAMES[0]], "s018_to_s032.zip": inner}
    with pytest.warns(UserWarning, match=r"all\.zip also holds zips, which are not read: s018_to_s032\.zip: unpack it"):
        prepare("ntu60", raw=put(tmp_path / "raw", {"all.zip": zipped(files)}), out=tmp_path / "store", n_jobs=1)


def test_a_zip_of_ones_own_clips_and_an_array_itself_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"mine\.zip: unpack .*mine\.zip, and name the folder"):
        ready("mine", put(tmp_path, {"mine.zip": zipped({"clips.csv": b""})}) / "mine.zip", tmp_path / "store")
    with pytest.raises(ValueError, match=r"holds no joints, and they can't be computed"):
        ready("mine", put(tmp_path, {"x/train_data_bone.npy": b""}) / "x/train_data_bone.npy", tmp_path / "store")


def test_two_files_of_one_name_and_size_that_differ_are_left_out(tmp_path):
    name = NTU_NAMES[0]
    changed = NTU_FILES[name].replace(b"250", b"251", 1)
    files = {f"{folder}/{name}.skeleton": content for folder, content in {"a": NTU_FILES[name], "b": changed}.items()}
    for packed in (False, True):
        raw = put(tmp_path / f"raw{packed}", {"a.zip": zipped(files)} if packed else files)
        put(raw, {f"{NTU_NAMES[1]}.skeleton": NTU_FILES[NTU_NAMES[1]]})
        store = ready("ntu60", raw, tmp_path / f"store{packed}")
        assert [problem.what for problem in store.problems()] == ["2 files of this name, that differ"]


def npy():
    target = io.BytesIO()
    np.save(target, np.zeros(3))
    return target.getvalue()


@pytest.mark.parametrize("dataset", ["ntu60", "ucla"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Rar!\x1a\x07\x01\x00" + bytes(99), "a rar archive: unpack it"), (b"7z\xbc\xaf'\x1c", "a 7z archive"),
        (b"\x1f\x8b\x08" + bytes(99), r"packed with gzip \(.gz, .tar.gz\): unpack"), (npy(), "a NumPy array"),
        (bytes(257) + b"ustar\x0000" + bytes(200), "a tar archive"), (b"MATLAB 5.0 MAT-file", "a .mat file"),
        (b"\x80\x04K\x01.", "a pickle: call it .pkl"), (b"name;label\n", "nor any other file that can be read"),
    ],
)  # fmt: skip
def test_a_whole_file_of_something_else_is_not_called_a_broken_download(tmp_path, dataset, content, said):
    (tmp_path / "raw.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"raw\.bin is not a zip file.*{said}") as caught:
        ready(dataset, tmp_path / "raw.bin", tmp_path / "store")
    assert "broken download" not in str(caught.value)
