"""Films read a frame at a time, what is wrong with them, models, folders of films; no MediaPipe is run here."""

import csv
import shutil
import sys
import zipfile

import numpy as np
import pytest
from invented_landmarks import landmarks, person

from bpilib.data import prepare
from bpilib.data.video import film as film_module
from bpilib.data.video import folder, recording
from bpilib.data.video import landmarks as models
from bpilib.errors import MissingInputError


@pytest.fixture
def cv2():
    pytest.importorskip("cv2", reason='OpenCV is not here: pip install -e ".[video]"')
    return film_module.opencv()  # silent from its first film on


@pytest.fixture
def write(cv2, tmp_path):
    """write("a.mp4", 40, fps=25): a film of that many frames, each of a grey of its own, the left half darker."""

    def make(name, count=40, fps=25.0, codec="mp4v"):
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
        for number in range(count):
            frame = np.full((48, 64, 3), 40 + 3 * number, np.uint8)
            frame[:, :32] //= 2
            writer.write(frame)
        writer.release()
        return path

    return make


def test_frames_come_in_order_with_their_times(write):
    film = film_module.open_film(write("a.mp4"))
    assert (film.width, film.height, film.fps, film.frames) == (64, 48, 25.0, 40)
    found = [(number, second, int(image[20, 50, 0])) for number, second, image in film.read()]
    assert [number for number, _, _ in found] == [*range(40)]
    np.testing.assert_allclose([second for _, second, _ in found], np.arange(40) / 25, atol=1e-3)
    assert all(abs(value - (40 + 3 * number)) < 8 for number, _, value in found)


def test_frames_can_be_passed_over_chosen_and_turned_round(write):
    film = film_module.open_film(write("a.mp4"))
    assert [number for number, _, _ in film.read(every=7)] == [0, 7, 14, 21, 28, 35]
    assert [number for number, _, _ in film.read(wanted={3, 30})] == [3, 30]
    (_, _, plain), (_, _, mirrored) = (next(film.read(mirrored=m)) for m in (False, True))
    np.testing.assert_array_equal(plain[:, ::-1], mirrored)
    assert plain[20, 10, 0] < plain[20, 50, 0] and mirrored[20, 10, 0] > mirrored[20, 50, 0]


def test_a_missing_film_is_an_error(tmp_path):
    with pytest.raises(MissingInputError, match=r"no film at .*gone.mp4: expected a video file \(.mp4, .mov"):
        film_module.open_film(tmp_path / "gone.mp4")


@pytest.mark.parametrize("content", [b"", b"this is no film" * 100], ids=["empty", "text"])
def test_what_is_no_film_is_an_error_and_opencv_prints_nothing(cv2, tmp_path, capfd, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad.mp4 \({len(content):,} bytes\) is no film, or a broken one: expected"):
        film_module.open_film(tmp_path / "bad.mp4")
    assert capfd.readouterr() == ("", "")


def test_a_film_cut_off_is_broken_or_ends_early(write, tmp_path):
    """An .mp4 has its index at the end; an .avi can be read so far as it goes."""
    whole = write("a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b.mp4 .* is no film, or a broken one"):
        film_module.open_film(tmp_path / "b.mp4")
    whole = write("a.avi", codec="MJPG").read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[: len(whole) * 2 // 3])
    film = film_module.open_film(tmp_path / "b.avi")
    assert 5 < len([*film.read()]) < 40


def test_without_opencv_the_error_says_what_to_install_and_what_needs_none(monkeypatch, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[video\]".*aarch64.*Recorded landmarks, \.npy'):
        film_module.open_film(tmp_path / "a.mp4")


def test_without_mediapipe_the_error_says_what_to_install(monkeypatch):
    def lacking(name):
        raise models.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(models.importlib.metadata, "version", lacking)
    with pytest.raises(ValueError, match=r"films need mediapipe, which is not here: pip install .*Recorded landmarks"):
        models.track_films({}, "model")


def task(path, method=zipfile.ZIP_STORED, members=models.MEMBERS):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in members:
            archive.writestr(name, b"\x1c\0\0\0TFL3" + bytes(4000))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no pose model at .*x.task: set download to True to fetch pose_landmarker_full.task"),
        (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(99)), "expected a .task, .* got a bare .tflite"),
        (lambda path: path.write_bytes(b"<html>"), "expected a .task, .* got 6 bytes of something else"),
        (lambda path: task(path, zipfile.ZIP_DEFLATED), "members are stored, got a deflated one.*zip -0"),
        (lambda path: task(path, members=["hand_detector.tflite"]), "expected a pose model.*got hand_detector.tflite"),
    ],
    ids=["missing", "bare", "something else", "deflated", "of hands"],
)
def test_a_model_that_mediapipe_could_not_open_is_an_error(tmp_path, make, message):
    make(tmp_path / "x.task")
    with pytest.raises(ValueError, match=message):
        models.find_model(tmp_path / "x.task")


def test_a_good_model_is_found_and_nothing_is_fetched_unasked(tmp_path, monkeypatch):
    assert models.find_model(task(tmp_path / "x.task")) == tmp_path / "x.task"
    monkeypatch.setattr(models, "in_project", lambda place: tmp_path / "none.task")
    with pytest.raises(MissingInputError, match="set download to True"):
        models.find_model()


def test_a_model_is_fetched_with_its_checksum(tmp_path, monkeypatch):
    import pooch

    asked = []

    def retrieve(url, known_hash, fname, path, progressbar):
        asked.append((url, known_hash))
        task(path / fname)

    monkeypatch.setattr(models, "in_project", lambda place: tmp_path / models.NAME)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert models.find_model(download=True) == tmp_path / models.NAME
    assert asked == [(models.URL, f"sha256:{models.SHA256}")]
    (tmp_path / models.NAME).unlink()
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: (_ for _ in ()).throw(ValueError("SHA256 hash differs")))
    with pytest.raises(ValueError, match=r"could not be fetched \(SHA256 hash differs\): get it by hand"):
        models.find_model(download=True)


def test_landmarks_are_kept_for_the_same_key_alone(tmp_path):
    kept = landmarks(person())
    path = kept.save(tmp_path / "deep" / "a.npz", "key")
    again = models.Landmarks.load(path, "key")
    for name, value in vars(kept).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert models.Landmarks.load(path, "other") is None and models.Landmarks.load(tmp_path / "none.npz", "key") is None
    path.write_bytes(path.read_bytes()[:500])
    assert models.Landmarks.load(path, "key") is None


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """A folder of five "films" whose landmarks are invented, as `track_films` would return them."""
    place = tmp_path / "films"
    place.mkdir()
    found = {
        "wave_1": landmarks(person(1, 1)),
        "wave_2.mp4": landmarks(person(1, 2)),
        "clap_1": landmarks(person(2, 1, frames=90, missing=range(40, 55))),
        "clap_2": landmarks(person(2, 2)),
        "empty": landmarks(person(missing=range(60))),
        "bad": ValueError("bad.mp4 (3 bytes) is no film"),
    }
    rows = [("name", "label", "subject", "split")]
    for name in found:
        (place / name).with_suffix(".mp4").write_bytes(b"x")
        rows.append((name, name.split("_")[0], "2" if "2" in name else "1", "test" if "2" in name else "train"))
    with (place / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    monkeypatch.setattr(folder, "track_films", lambda wanted, *_: {name: found[name] for name in wanted})
    return place


def test_a_folder_of_films_becomes_clips_that_prepare_takes(labelled, tmp_path):
    assert folder.has_films(labelled)
    report = folder.write_clips(labelled, tmp_path / "clips", "model").set_index("film")
    assert report["clips"].to_dict() == {
        "wave_1.mp4": 1, "wave_2.mp4": 1, "clap_1.mp4": 2, "clap_2.mp4": 1, "empty.mp4": 0, "bad.mp4": 0,
    }  # fmt: skip
    assert "frames 40–56: nobody for 0.53 s: the clip is cut" in report.loc["clap_1.mp4", "notes"]
    assert "none was found" in report.loc["empty.mp4", "notes"] and "no film" in report.loc["bad.mp4", "notes"]
    assert not folder.has_films(tmp_path / "clips")
    store = prepare("mine", tmp_path / "clips", tmp_path / "store", tracker="mediapipe", progress=False)
    assert store.names.tolist() == ["wave_1", "wave_2", "clap_1_1", "clap_1_2", "clap_2"]
    assert store.classes == ["clap", "wave"] and store.skeleton.name == "ntu"
    assert store.names[store.split("split", "test")].tolist() == ["wave_2", "clap_2"]
    assert (tmp_path / "clips" / "events.csv").read_text().splitlines()[1].startswith("clap_1.mp4,40,56,nobody")


def test_a_film_that_is_named_and_not_there_is_said(labelled, tmp_path):
    with (labelled / "clips.csv").open("a") as file:
        file.write("gone.mp4,wave,3,train\n")
    report = folder.write_clips(labelled, tmp_path / "clips", "model").set_index("film")
    assert report.loc["gone.mp4", "clips"] == 0 and "no film gone.mp4 in" in report.loc["gone.mp4", "notes"]
    assert "gone" not in (tmp_path / "clips" / "clips.csv").read_text()
    with pytest.raises(ValueError, match=r"no film gone\.mp4"):
        (labelled / "clips.csv").write_text("name,label,subject,split\ngone.mp4,wave,1,train\n")
        folder.write_clips(labelled, tmp_path / "clips", "model", on_error="raise")


def test_films_again_are_the_same_bytes_and_clips_of_films_that_are_gone_go(labelled, tmp_path):
    out = tmp_path / "clips"
    folder.write_clips(labelled, out, "model")
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    folder.write_clips(labelled, out, "model")
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
    rows = (labelled / "clips.csv").read_text().splitlines()
    (labelled / "clips.csv").write_text("\n".join(row for row in rows if not row.startswith("clap_1")))
    folder.write_clips(labelled, out, "model")
    assert {*before} - {path.name for path in out.glob("*.*")} == {"clap_1_1.npy", "clap_1_2.npy"}


def test_a_bad_film_raises_where_that_is_asked_for_and_none_that_is_good_always_does(labelled, tmp_path):
    with pytest.raises(ValueError, match="on_error: expected 'skip' or 'raise', got 'ignore'"):
        folder.write_clips(labelled, tmp_path / "clips", "model", on_error="ignore")
    with pytest.raises(ValueError, match="empty: expected a person"):
        folder.write_clips(labelled, tmp_path / "clips", "model", on_error="raise")
    (labelled / "clips.csv").write_text("name,label,subject,split\nempty,wave,1,train\n")
    with pytest.raises(ValueError, match="expected films that can be followed, got none of 1; the first: empty"):
        folder.write_clips(labelled, tmp_path / "clips", "model")
    (labelled / "clips.csv").write_text("name,label,subject,split\nwave_1,wave,1,train\nwave_1,wave,1,train\n")
    with pytest.raises(ValueError, match="1 names come a second time"):
        folder.write_clips(labelled, tmp_path / "clips", "model")
    (labelled / "wave_1.avi").write_bytes(b"x")
    (labelled / "clips.csv").write_text("name,label,subject,split\nwave_1,wave,1,train\n")
    with pytest.raises(ValueError, match=r"name 'wave_1': expected one film, got wave_1.avi, wave_1.mp4"):
        folder.write_clips(labelled, tmp_path / "clips", "model")


def test_recorded_landmarks_beside_films_are_taken_over(labelled, tmp_path):
    np.save(labelled / "recorded.npy", person()[0])
    with (labelled / "clips.csv").open("a") as file:
        file.write("recorded,wave,3,train\n")
    folder.write_clips(labelled, tmp_path / "clips", "model")
    np.testing.assert_array_equal(np.load(tmp_path / "clips" / "recorded.npy"), person()[0])


def test_a_film_is_found_by_its_name_with_its_ending_or_without(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.MP4", "deep/b.mov", "c.txt", "d.npy"):
        (tmp_path / name).write_bytes(b"x")
    found = {name: film_module.find_film(tmp_path, name) for name in ("a", "a.MP4", "deep/b", "c", "d", "none.mp4")}
    assert {name: path and path.name for name, path in found.items()} == {
        "a": "a.MP4", "a.MP4": "a.MP4", "deep/b": "b.mov", "c": None, "d": None, "none.mp4": None,
    }  # fmt: skip


def test_names_do_not_lead_out_of_the_folder(labelled, tmp_path):
    shutil.copy(labelled / "wave_1.mp4", tmp_path / "outside.mp4")
    (labelled / "clips.csv").write_text("name,label,subject,split\n../outside,wave,1,train\n")
    assert not folder.has_films(labelled)
    with pytest.raises(ValueError, match=r"\.\./outside"):
        folder.write_clips(labelled, tmp_path / "clips", "model")


def test_a_recording_reads_the_frames_it_shows_once(write, tmp_path):
    film = film_module.open_film(write("a.mp4", 60, 30.0))
    seen = recording.from_landmarks(landmarks(person(), size=(64, 48)), film, 1)
    windows = seen.windows(3.0)
    shown = seen.shown(windows, lambda image: f"{image.shape} {image[20, 50, 0]}")
    assert [one["number"] for one in shown] == [*range(0, 60, 3)]
    assert all(one["jpeg"].startswith("(48, 64, 3)") and one["over"].shape == (1, 25, 2) for one in shown)
