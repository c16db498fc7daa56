"""Files are whole or not there; relative paths lie in the project."""

import io
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from killing import killed_at

from bpilib.errors import MissingInputError
from bpilib.system import files
from bpilib.system.files import (
    PROJECT,
    in_project,
    is_leftover,
    open_in_place,
    parse_yaml,
    read_npz,
    remove_leftovers,
    write_atomically,
    write_together,
)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\x00bytes", b"\x00bytes"), ("text, ä\n", "text, ä\n".encode()), (lambda path: path.write_bytes(b"f"), b"f")],
    ids=["bytes", "text", "function"],
)
def test_it_writes_bytes_text_and_by_function_and_makes_the_folder(tmp_path, content, expected):
    path = tmp_path / "not" / "there" / "file.bin"
    assert write_atomically(str(path), content) == path
    assert contents(path.parent) == {"file.bin": expected}


def test_it_replaces_an_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old and longer than the new one")
    write_atomically(path, "new")
    assert contents(tmp_path) == {"file": b"new"}


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")

    def half(part: Path):
        part.write_bytes(b"half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(tmp_path / "file", half)
    assert contents(tmp_path) == {"file": b"old"}


def test_an_interrupt_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")

    def interrupted(part: Path):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupted)
    assert contents(tmp_path) == {"file": b"old"}


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", "new")
    assert contents(tmp_path) == {"file": b"old"}


def test_files_that_belong_together_are_all_written_before_one_is_moved(tmp_path):
    first, second, mark = (tmp_path / "made" / name for name in ("first", "second", "mark"))
    write_together({first: "1", second: lambda path: path.write_bytes(b"2"), mark: b"3"})
    old = contents(first.parent)
    assert old == {"first": b"1", "second": b"2", "mark": b"3"}

    def fails(part: Path):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    for lost in (first, second, mark):
        with pytest.raises(OSError, match="No space left"):
            write_together({path: fails if path == lost else "new" for path in (first, second, mark)})
        assert contents(first.parent) == old


def test_after_a_kill_no_mark_is_beside_files_of_another_writing(tmp_path):
    def write(text):
        write_together({tmp_path / name: text for name in ("first", "second", "mark")})

    seen, point = [], 1
    while True:
        write("old")
        if not killed_at(point, lambda: write("new")):
            break
        left = [path for path in tmp_path.iterdir() if is_leftover(path, ("first", "second", "mark"))]
        remove_leftovers(tmp_path)
        there = contents(tmp_path)
        assert there.keys() <= {"first", "second", "mark"} and not any(path.exists() for path in left)
        seen.append((there.get("mark"), len(left)))
        assert "mark" not in there or set(there.values()) == {there["mark"]}
        write("new")
        assert contents(tmp_path) == dict.fromkeys(("first", "second", "mark"), b"new")
        point += 1
    assert [*dict.fromkeys(seen)] == [(b"old", n) for n in range(4)] + [(None, n) for n in (3, 2, 1)]


def test_what_is_left_over_is_told_from_other_files(tmp_path):
    dead = f".file.txt.{files._HOST}.999999999.part"
    mine, elsewhere = f".file.txt.{files._HOST}.{os.getpid()}.part", ".file.txt.other-host.7.part"
    for name in (dead, mine, elsewhere, ".file.txt.part", "file.txt", ".file.txt.a.b.part"):
        (tmp_path / name).write_text("")
    found = {path.name for path in tmp_path.iterdir() if is_leftover(path, ["file.txt"])}
    assert found == {dead, mine, elsewhere}
    assert not is_leftover(tmp_path / dead, ["other.txt"])
    remove_leftovers(tmp_path)
    assert not (tmp_path / dead).exists() and len(list(tmp_path.iterdir())) == 5


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    path.write_text("old")
    monkeypatch.setattr(files, "sync", lambda part: seen.append((part.read_text(), path.read_text())))
    write_atomically(path, "new")
    assert seen == [("new", "old")] and path.read_text() == "new"


def test_the_unfinished_file_lies_in_the_same_folder_so_that_renaming_is_atomic(tmp_path):
    seen = []
    write_atomically(tmp_path / "file.csv", lambda part: (seen.append(part), part.write_text("x")))
    assert seen[0].parent == tmp_path and seen[0].name.startswith(".") and str(os.getpid()) in seen[0].name


def test_a_file_is_opened_where_it_stands(tmp_path):
    with open_in_place(tmp_path / "log", "ab", buffering=0) as log:
        log.write(b"one")
        assert os.get_blocking(log.fileno()) and not os.get_inheritable(log.fileno())
    assert (tmp_path / "log").stat().st_mode & 0o111 == 0
    with open_in_place(tmp_path / "log", "a+") as log:
        log.write(" two")
        log.seek(0)
        assert log.read() == "one two"
    with open_in_place(str(tmp_path / "log"), "r+b") as log:
        log.write(b"ONE")
    assert contents(tmp_path) == {"log": b"ONE two"}
    with pytest.raises(FileNotFoundError):
        open_in_place(tmp_path / "none", "r+b")


@pytest.mark.parametrize("mode", ["a", "ab", "a+", "r+b"])
def test_no_link_is_opened_where_it_stands(tmp_path, mode):
    victim, handles = tmp_path / "victim", len(os.listdir("/proc/self/fd"))
    victim.write_text("thesis")
    (tmp_path / "soft").symlink_to(victim)
    (tmp_path / "hard").hardlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("soft", "a symbolic link"), ("hard", "one of 2 names of a file"), ("pipe", "no plain file")):
        with pytest.raises(ValueError, match=f"{name} is {what}.*: remove it"):
            open_in_place(tmp_path / name, mode)
    assert victim.read_text() == "thesis" and len(os.listdir("/proc/self/fd")) == handles
    (tmp_path / "folder").symlink_to(tmp_path)  # outputs may well lie on another disk
    (tmp_path / "hard").unlink()
    open_in_place(tmp_path / "folder" / "victim", mode).close()


def test_all_files_that_are_written_where_they_stand_are_opened_by_it():
    for path in sorted((PROJECT / "bpilib").rglob("*.py")):
        found = re.findall(r"(?<!_)\bopen\([^\n]*[\"'](?:a|r\+)[bt+]*[\"'].*|FileHandler\(.*", path.read_text())
        assert not found, (path, found)


def test_leftovers_go_and_what_a_living_process_writes_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = files._HOST
    old = [f".mine.{host}.{os.getpid()}.part", f".dead.{host}.{dead.pid}.part", ".old.elsewhere.1.part"]
    young = [f".young.{host}.{dead.pid}.part", f".no process.{host}.{10**30}.part", ".new.elsewhere.1.part", "a.part"]
    for name in (*old, *young):
        (tmp_path / name).touch()
    for name in old:  # as after a clock jumped
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(contents(tmp_path)) == sorted([old[0], *young[1:]])


def test_relative_paths_lie_in_the_project_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_project("data/x") == PROJECT / "data/x"
    assert in_project(Path("x")) == PROJECT / "x"
    assert in_project(tmp_path / "x") == tmp_path / "x"
    assert in_project("~/x") == Path.home() / "x"
    assert (PROJECT / "bpilib" / "system" / "files.py").is_file()


def test_a_missing_input_can_be_caught_as_either_kind():
    assert issubclass(MissingInputError, FileNotFoundError) and issubclass(MissingInputError, ValueError)
    assert str(MissingInputError("run 01 first")) == "run 01 first"


def test_yaml_is_plain_values():
    text = "a: &shared {b: [1, 2.5, null, yes]}\nc: *shared\nd: {<<: *shared, e: ä}\n"
    assert parse_yaml(text) == parse_yaml(text.encode()) == yaml.safe_load(text)
    assert parse_yaml("") is None and parse_yaml("3") == 3


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
COLLIDING = [i * ((1 << 61) - 1) for i in range(1, 301)]  # all of the same hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 300,000 entries once its aliases are followed"),
        ("a: &a [*a]", "more than 300,000 entries"),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)),
         "more than 300,000 entries"),
        ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000)), "more than 300,000|nested"),
        ("[" * 200_000, "nested too deeply"),  # the parser in C would overflow its stack
        ("- " * 200_000 + "x", "nested too deeply"),
        ("{a: " * 200 + "1" + "}" * 200, "nested too deeply"),
        ("# " + "x" * (16 << 20), "characters, more than the 16,777,216"),
        ("{" + ", ".join(f"{i}: 0" for i in COLLIDING) + "}", "more than 256 keys that are not text"),
        ("[" + ", ".join(f"{{{i}: 0}}" for i in range(300)) + "]", "more than 256 keys"),
        ("{" + ", ".join(f"{i}.5: 0" for i in range(300)) + "}", "more than 256 keys"),
        ("? !!set {" + ", ".join(map(str, COLLIDING)) + "}\n", "more than 256 keys"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' comes a second time"),
        ("b:\n- {1: a, 2: b, 1: c}\n", "line 2: the key '1' comes a second time"),
        ("a: " + "9" * 101, "line 1: a number of 101 characters"),
        ("a: 1" + ":59" * 100_000, "a number of 300,001 characters"),
        ("!!int ''", "a value is not what its tag or look says"),
        ("!!bool maybe", "a value is not what its tag or look says"),
        ("!!timestamp today", "a value is not what its tag or look says"),
        ("2026-99-99", "a value is not what its tag or look says"),
        ("{[a]: b}", "unhashable key"),
        ("!!python/object/apply:os.system ['exit 1']", "could not determine a constructor"),
        ("!!python/name:os.system", "could not determine a constructor"),
        (b"\xff\x00", "unacceptable character|invalid leading|invalid"),
        ("a: [", "while parsing"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "bytes",
)  # fmt: skip
def test_hostile_yaml_is_refused(text, message):
    tracemalloc.start()
    with pytest.raises(yaml.YAMLError) as error:
        parse_yaml(text)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
    assert re.search(message, str(error.value))


def test_long_yaml_is_refused_before_anything_is_made_of_it(monkeypatch):
    monkeypatch.setattr(files, "MAX_YAML_ENTRIES", 1000)
    with pytest.raises(yaml.YAMLError, match="more than 1,000 entries"):
        parse_yaml("[" + "0," * 3000 + "0]")


def test_yaml_within_its_bounds_is_read():
    assert len(parse_yaml("[" + "0," * 5000 + "0]")) == 5001
    assert parse_yaml("{" + ", ".join(f"{i}: 0" for i in range(256)) + "}") == dict.fromkeys(range(256), 0)
    assert parse_yaml("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b}\n")["c"] == {"x": 1, "y": 2}
    assert parse_yaml("[" * 100 + "]" * 100) is not None


def test_all_yaml_is_read_by_the_one_reader():
    """files.py aside, no module has the means to."""
    for path in sorted((PROJECT / "bpilib").rglob("*.py")):
        text = path.read_text()
        assert "from yaml" not in text and "ruamel" not in text, path
        used = set(re.findall(r"\byaml\.(\w+)\(|\byaml\.(\w*[lL]oad\w*|compose\w*|parse|scan)\b", text))
        names = {name for pair in used for name in pair} - {""}
        assert path.name == "files.py" or names <= {"safe_dump", "dump"}, (path, names)


# --- npz


def header(shape, descr="<f8"):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_an_npz_comes_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(["ä", "bc"]), "c": np.array(3), "d": np.zeros((0, 4))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 31,), (1 << 28,), (1 << 20, 1 << 20), (), (12,), (1 << 62, 4)])
def test_an_npz_whose_shape_lies_is_refused_before_it_takes_memory(tmp_path, shape):
    path = archive(tmp_path / "a.npz", good=header((1,)) + bytes(8), bad=header(shape) + bytes(104))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bad\.npy: .* float64 needs \d+ bytes, got \d+"):
        read_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_npz_bombs_and_objects_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="needs"):
        read_npz(archive(tmp_path / "a.npz", a=header((1,), "|O") + bytes(8)))
    with pytest.raises(ValueError, match="magic"):
        read_npz(archive(tmp_path / "a.npz", a=b"no array"))
    with pytest.raises(ValueError, match="none that holds plain numbers"):
        read_npz(archive(tmp_path / "a.npz", a=b"\x93NUMPY\x07\x00" + bytes(100)))
    monkeypatch.setattr(files, "MAX_NPZ_BYTES", 1 << 20)
    bomb = archive(tmp_path / "a.npz", a=header((1 << 18,)) + bytes(1 << 21))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(ValueError, match="bytes once unpacked, more than the 1048576"):
        read_npz(bomb)
