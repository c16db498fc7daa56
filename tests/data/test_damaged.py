"""A damaged file is a line in problems.csv or a clear error, whatever is wrong with it: no foreign traceback."""

import contextlib
import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
from bodies import acted, in_room, skeleton_file
from making import ucla_records

from bpilib.data import prepare
from bpilib.data.formats.openpose import read_folder
from bpilib.system.files import map_array


def load(dataset, raw, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(dataset, raw, raw.parent / "store", progress=False, overwrite=True, **options)


def listed(folder, count=4):
    """A folder of clips with a clips.csv."""
    folder.mkdir(exist_ok=True)
    rows = [f"c{i},{'ab'[i % 2]},1,train" for i in range(count)]
    (folder / "clips.csv").write_text("\n".join(["name,label,subject,split", *rows]) + "\n")
    for i, clip in enumerate(acted(count)):
        np.save(folder / f"c{i}.npy", clip)
    return folder


def arrays(folder):
    """A folder of 2s-AGCN's arrays."""
    folder.mkdir()
    x = np.zeros((4, 3, 300, 25, 2), np.float32)
    for row, clip in zip(x, acted(4)):
        row[:, : len(clip), :, 0] = clip.transpose(2, 0, 1)
    np.save(folder / "train_data_joint.npy", x)
    (folder / "train_label.pkl").write_bytes(pickle.dumps((list("abcd"), [0, 1, 0, 1])))
    return folder


def flips(content, count, end):
    """The content with one bit flipped, in `count` places below `end`."""
    draw = np.random.default_rng(0)
    for place in draw.integers(0, end, count):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        yield bytes(damaged)


def test_a_flipped_bit_in_the_header_of_one_clip_leaves_that_clip_out(tmp_path):
    folder = listed(tmp_path / "raw")
    whole = (folder / "c1.npy").read_bytes()
    left_out = 0
    for damaged in flips(whole, 60, 128):
        (folder / "c1.npy").write_bytes(damaged)
        store = load("mine", folder)
        left_out += len(store) == 3
        assert len(store) in (3, 4) and {0, 2, 3} <= {int(name[1]) for name in store.names}
    assert left_out > 30


@pytest.mark.parametrize("shape", ["(-1, 25, 3)", f"({10**30}, 25, 3)", "(True, 25, 3)", "(2**70,)", "(" * 3000])
def test_headers_that_numpy_stumbles_over(tmp_path, shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(4200).encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + bytes(600))
    with pytest.raises(ValueError):
        map_array(tmp_path / "a.npy")


def test_a_flipped_bit_in_the_header_of_an_array_of_clips_is_an_error_that_names_it(tmp_path):
    folder = arrays(tmp_path / "raw")
    path = folder / "train_data_joint.npy"
    whole = path.read_bytes()
    refused = 0
    for damaged in flips(whole, 40, 128):
        path.write_bytes(damaged)
        try:
            load("mine", folder)
        except ValueError:
            refused += 1
    assert refused > 20


def test_a_flipped_bit_in_an_npz(tmp_path):
    x = np.zeros((4, 300, 150), np.float32)
    for row, clip in zip(x, acted(4)):
        row[: len(clip), :75] = clip.reshape(len(clip), 75)
    y = np.array([0, 1, 0, 1])
    path = tmp_path / "c.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    whole = path.read_bytes()
    header = whole.index(b"\x93NUMPY")
    ends = [whole[:-400] + end for end in flips(whole[-400:], 40, 400)]
    for damaged in [*flips(whole, 20, header + 128), *ends]:
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            load("mine", path)


@pytest.mark.parametrize("dataset", ["ucla", "ntu60"])
def test_a_flipped_bit_in_a_zip_s_list_of_files(tmp_path, dataset):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if dataset == "ucla":
            for name, record in list(ucla_records().items())[:6]:
                archive.writestr(f"all_sqe/{name}.json", json.dumps(record))
        else:
            for number, clip in enumerate(acted(3), 1):
                archive.writestr(f"S001C00{number}P001R001A001.skeleton", skeleton_file([in_room(clip)]))
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02")
    options = {"n_jobs": 1} if dataset == "ntu60" else {}
    for damaged in flips(whole[start:], 60, len(whole) - start):
        path.write_bytes(whole[:start] + damaged)
        with contextlib.suppress(ValueError):
            load(dataset, path, **options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_clip_that_may_not_be_read_is_left_out(tmp_path):
    folder = listed(tmp_path / "raw")
    (folder / "c1.npy").chmod(0)
    assert len(load("mine", folder)) == 3


def test_a_clip_that_can_t_be_read_is_left_out(tmp_path, monkeypatch):
    folder = listed(tmp_path / "raw")
    opened = type(folder).open

    def fails(path, *given, **options):
        if path.name == "c1.npy":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **options)

    monkeypatch.setattr(type(folder), "open", fails)
    assert len(load("mine", folder)) == 3


def frame(number, people=1, x=100.0):
    points = [value for k in range(25) for value in (x + 5 * k + number, 100 + 10 * k, 0.9)]
    return json.dumps({"people": [{"pose_keypoints_2d": points}] * people})


def openpose(folder, prefixes, text=frame):
    folder.mkdir()
    for prefix in prefixes:
        for number in range(4):
            (folder / f"{prefix}_{number:012}_keypoints.json").write_text(text(number))
    return folder


def test_openpose_s_recordings_are_not_mixed(tmp_path):
    assert read_folder(openpose(tmp_path / "one", ["camA"])).shape == (4, 1, 25, 3)
    with pytest.raises(ValueError, match=r"two, 8 frames of OpenPose: several recordings \(camA_, camB_\)"):
        read_folder(openpose(tmp_path / "two", ["camA", "camB"]))
    (tmp_path / "one" / "camA_3_keypoints.json").write_text(frame(3))
    with pytest.raises(ValueError, match="a frame's number twice"):
        read_folder(tmp_path / "one")


@pytest.mark.parametrize("number", ["NaN", "1e999", "1" + 400 * "0", "null", '"a"', "[1]"])
def test_openpose_s_numbers_are_numbers(tmp_path, number):
    folder = openpose(tmp_path / "a", ["cam"], lambda n: frame(n).replace("102.0", number, 1) if n == 2 else frame(n))
    with pytest.raises(ValueError, match=r"_000000000002_keypoints\.json"):
        read_folder(folder)


def test_names_that_are_not_utf_8_are_listed(tmp_path):
    folder = listed(tmp_path / "raw")
    try:
        with open(os.fsencode(folder) + b"/\xfcbung.npy", "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    store = load("mine", folder)
    assert len(store) == 4 and any("bung.npy" in problem.file for problem in store.problems())
    raw = tmp_path / "ntu" / "raw"
    raw.mkdir(parents=True)
    (raw / "S001C001P001R001A001.skeleton").write_bytes(skeleton_file([in_room(acted(1)[0])]))
    with open(os.fsencode(raw) + b"/Kopie \xfc S001C003P001R001A001.skeleton", "wb") as file:
        file.write(b"x")
    store = load("ntu60", raw, n_jobs=1)
    assert len(store) == 1 and any("Kopie" in problem.file for problem in store.problems())
