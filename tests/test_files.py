"""Files are whole or not there; relative paths lie in the project."""

import os
import re
from pathlib import Path

import pytest
import yaml

from bpilib import files
from bpilib.files import PROJECT, MissingInputError, in_project, parse_yaml, write_atomically


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


def test_relative_paths_lie_in_the_project_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_project("data/x") == PROJECT / "data/x"
    assert in_project(Path("x")) == PROJECT / "x"
    assert in_project(tmp_path / "x") == tmp_path / "x"
    assert in_project("~/x") == Path.home() / "x"
    assert (PROJECT / "bpilib" / "files.py").is_file()


def test_a_missing_input_can_be_caught_as_either_kind():
    assert issubclass(MissingInputError, FileNotFoundError) and issubclass(MissingInputError, ValueError)
    assert str(MissingInputError("run 01 first")) == "run 01 first"


def test_yaml_is_plain_values():
    text = "a: &shared {b: [1, 2.5, null, yes]}\nc: *shared\nd: {<<: *shared, e: ä}\n"
    assert parse_yaml(text) == parse_yaml(text.encode()) == yaml.safe_load(text)
    assert parse_yaml("") is None and parse_yaml("3") == 3


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 1,000,000 entries once its aliases are followed"),
        ("a: &a [*a]", "more than 1,000,000 entries"),
        ("[" * 5000, "nested too deeply|while parsing"),
        ("!!python/object/apply:os.system ['exit 1']", "could not determine a constructor"),
        (b"\xff\x00", "unacceptable character"),
        ("a: [", "while parsing"),
    ],
)
def test_hostile_yaml_is_refused(text, message):
    with pytest.raises(yaml.YAMLError) as error:
        parse_yaml(text)
    assert re.search(message, str(error.value))
