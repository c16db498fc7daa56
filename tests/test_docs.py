"""README, CONTRIBUTING and docs name only what exists: links, commands, parameters, modules, files, tests."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from bpilib.config import Config, parameter_table

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
# Made by the user or a run: not there in a fresh clone.
MADE = ("data/", "outputs/")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """The text of each inline code span."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands(page: Path) -> list[list[str]]:
    """The words of each command line: those of fenced blocks without a language, and the inline spans."""
    lines = [line for language, block in blocks(page) if not language for line in block.splitlines()]
    found = []
    for line in (*lines, *spans(page)):
        try:
            found.append(shlex.split(line, comments=True))
        except ValueError:  # a quote that is none: not a command
            continue
    return [words for words in found if words]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def followed(words: list[str], option: str) -> list[str]:
    """What follows each `option` of a command."""
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]


def value_of(name: str) -> object:
    """What "bpilib.model.build_model" names; raises ImportError or AttributeError where there is no such thing."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the module imports is missing
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_readme_has_at_most_200_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_readme_leads_to_every_page():
    linked = re.findall(r"\]\((?:docs/)?([\w-]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {page.name for page in PAGES} - {"README.md"} <= set(linked)


@EVERY_PAGE
def test_links_and_images_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8")))
    assert page.name == "CONTRIBUTING.md" or links
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


def test_the_parameter_table_is_current():
    assert parameter_table() in (ROOT / "docs/parameters.md").read_text(encoding="utf-8")


@EVERY_PAGE
def test_commands_name_parameters_files_modules_and_targets_that_exist(page):
    for words in commands(page):
        line = f"{page.name}: {' '.join(words)}"
        assert set(followed(words, "make")) <= TARGETS, line
        if "papermill" in words or words[0].startswith("-"):
            for name in followed(words, "-p"):
                assert name in Config.__dataclass_fields__ or words == ["-p", "name", "value"], line
            for text in followed(words, "-y"):
                assert re.match(r"\w+", text)[0] in Config.__dataclass_fields__, line
            for file in followed(words, "-f"):
                assert (ROOT / file).is_file(), line
        for notebook in followed(words, "papermill"):
            assert (ROOT / notebook).is_file() or (ROOT / "notebooks" / notebook).is_file(), line
        for module in followed(words, "-m"):
            if module.startswith("bpilib"):
                importlib.import_module(module)
                path = ROOT / module.replace(".", "/")
                path = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
                assert '__name__ == "__main__"' in path.read_text(encoding="utf-8"), line


@EVERY_PAGE
def test_names_of_the_package_can_be_imported(page):
    for name in (span for span in spans(page) if re.match(r"bpilib\.\w", span)):
        value_of(re.match(r"[\w.]+\w", name)[0])
    for language, block in blocks(page):
        for node in ast.walk(ast.parse(block)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "bpilib":
                for alias in node.names:
                    value_of(f"{node.module}.{alias.name}")


@EVERY_PAGE
def test_files_and_tests_that_are_named_exist(page):
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for words in commands(page):
        for word in words:
            path, _, test = word.partition("::")
            inside = path.split("/")[0] in folders and "/" in path
            if not inside or path.startswith(MADE) or re.search(r"[<>*:{}]", path):
                continue
            assert (ROOT / path).exists(), f"{page.name}: {word}"
            there = not test or re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)
            assert there, f"{page.name}: {word}"


@pytest.mark.parametrize("path", sorted((ROOT / "params").rglob("*.yaml")), ids=lambda path: path.stem)
def test_comments_of_parameter_files_name_what_exists(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    text = " ".join(line.partition("#")[2].strip() for line in lines if "#" in line)
    for name in re.findall(r"(?:params|notebooks|tests|bpilib|docs)/[\w/]+\.\w+", text):
        assert (ROOT / name).exists(), f"{path.name}: {name}"
    for module in re.findall(r"python -m ([\w.]+)", text):
        importlib.import_module(module)
    assert set(re.findall(r" -p (\w+)", text)) <= set(Config.__dataclass_fields__), path.name
    assert set(re.findall(r"`make (\w+)`", text)) <= TARGETS, path.name


def test_what_does_not_exist_is_noticed():
    for name in ("bpilib.nothing", "bpilib.model.build_nothing", "bpilib.data.nothing.prepare"):
        with pytest.raises((ImportError, AttributeError)):
            value_of(name)
    assert value_of("bpilib.data.prepare").__name__ == "prepare"
