"""The structure that the design promises: imports go down, notebooks are stripped, the package is whole."""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bpilib.config import resolve
from bpilib.sweeps.sweep import load_sweep

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bpilib"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# From the ground up: a file or folder at the top of the package imports from lower levels, and from its own folder.
LEVELS = (
    {"errors", "skeleton", "interaction", "metrics", "ops", "run_keys"},
    {"system", "gcn"},
    {"model", "text", "recipes", "plots", "report"},
    {"config", "data", "losses", "widgets"},
    {"feeders"},
    {"runs"},
    {"evaluate", "classify", "rounding", "finished"},
    {"pretrained"},
    {"reference"},
    {"training", "analysis", "sweeps", "export"},
    {"train"},
)
LEVEL = {place: number for number, places in enumerate(LEVELS, 1) for place in places}
# Arrays in, figures out; of runs they know what the columns that name them are called.
FIGURES_MAY_IMPORT = {"skeleton", "run_keys", "system.files", "plots"}


def place_of(path: Path) -> str:
    """The file or folder at the top of the package that a module is in: "runs", "data"."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """What a module imports from the package, anywhere in it, without "bpilib.": {"system.files", "runs"}."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write from bpilib... import, not a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inside if module_at(name)} or {node.module}
    return {name.removeprefix("bpilib.") for name in found if name.startswith("bpilib.")}


def module_at(name: str) -> bool:
    """Whether "bpilib.system.files" is a module of the package."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_every_place_has_a_level():
    assert {place_of(path) for path in MODULES} - {"__init__"} == set(LEVEL)


def test_contributing_lists_the_levels():
    listed = re.findall(r"^ +\d+\. (`.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert [set(re.findall(r"`(\w+)`", line)) for line in listed] == list(LEVELS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    place = place_of(path)
    if place == "__init__":
        assert not imports_of(path)
        return
    upward = [name for name in imports_of(path) if name.split(".")[0] != place
              and LEVEL[name.split(".")[0]] >= LEVEL[place]]  # fmt: skip
    assert not upward, f"{place} (level {LEVEL[place]}) imports {', '.join(upward)}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_figures_know_nothing_of_runs_and_nothing_knows_of_figures(path):
    place = place_of(path)
    if place == "plots":
        assert {name if name in FIGURES_MAY_IMPORT else name.split(".")[0] for name in imports_of(path)} <= (
            FIGURES_MAY_IMPORT
        )
    elif place != "widgets":
        assert not {name.split(".")[0] for name in imports_of(path)} & {"plots", "widgets"}


def test_open_clip_has_one_importer():
    wanted = re.compile(r"^\s*(import|from) open_clip", re.M)
    importers = [path for path in MODULES if wanted.search(path.read_text(encoding="utf-8"))]
    assert importers == [PACKAGE / "text" / "clip.py"]


def test_no_star_imports_and_no_place_for_this_and_that():
    for path in MODULES:
        assert "import *" not in path.read_text(encoding="utf-8"), path
        assert path.stem not in ("utils", "helpers", "misc", "common"), path


STRICT = r"""
import sys, warnings
warnings.filterwarnings("error", category=DeprecationWarning, module=r"bpilib(\.|$)")
import bpilib
bpilib.__path__ += sys.argv[2:]
__import__(sys.argv[1])
"""


@pytest.mark.parametrize("name", ["bpilib.widgets", "bpilib.train"])  # the ends of the two chains import all the others
def test_imports_run_without_deprecations(name):
    subprocess.run([sys.executable, "-c", STRICT, name], check=True)


def test_a_deprecation_in_any_module_would_be_noticed(tmp_path):
    (tmp_path / "planted.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\n")
    command = [sys.executable, "-c", STRICT, "bpilib.planted", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode and "DeprecationWarning: old" in found.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_shaped(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith(f"# {path.stem[:2]} ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    source = "".join(parameters[0]["source"])
    assert source.startswith("# parameters\n")
    assert 'figure_style = "screen"' in source
    assert "use_style(config.figure_style)" in "\n".join("".join(cell["source"]) for cell in code)
    for statement in ast.parse(source).body:  # literals only
        ast.literal_eval(statement.value)
    for cell in code:
        text = "".join(cell["source"])
        assert cell["outputs"] == [] and cell["execution_count"] is None
        assert len(text.splitlines()) <= 25
        assert not re.search(r"^class ", text, re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_heading_of_a_notebook_stands_above_its_cells(path):
    """A section that is prose alone is followed by the next in the same cell: else a cell was put between the two."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for one, other in itertools.pairwise(cells[1:]):
        if one["cell_type"] == other["cell_type"] == "markdown" and "".join(other["source"]).startswith("## "):
            assert not any(line.startswith("## ") for line in one["source"]), other["source"][0]


def test_every_notebook_links_to_all_the_others():
    for path in NOTEBOOKS:
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        linked = set(re.findall(r"\]\((\w+)\.ipynb\)", first))
        assert {other.stem for other in NOTEBOOKS} - {path.stem} <= linked


def test_the_demo_runs_every_notebook_and_sweeps_what_it_has_trained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = "".join(re.findall(r"^demo[\w-]*:.*\n((?:\t.*\n)+)", makefile, re.M))
    run = re.findall(r"\$\(RUN\) notebooks/(\w+)\.ipynb \$\(DEMO\)/(\w+)\.ipynb", recipe)
    assert sorted({name for name, _ in run}) == [path.stem for path in NOTEBOOKS]
    assert all(out.startswith(name) for name, out in run) and len({out for _, out in run}) == len(run)
    short = dict(re.findall(r"-p (\w+) (\w+)", re.search(r"^SHORT := (.*)$", makefile, re.M)[1]))
    given = yaml.safe_load((ROOT / "params/demo.yaml").read_text(encoding="utf-8"))
    given |= {name: yaml.safe_load(value) for name, value in short.items()}
    swept = {config.run_directory: config.result_settings() for config in load_sweep("params/sweep_demo.yaml").configs}
    for modality in ("joint", "bone"):  # equal settings: 06 skips them
        trained = resolve(**given, modality=modality)
        assert swept[trained.run_directory] == trained.result_settings()


def test_environment_has_one_source_of_truth():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "-c constraints.txt" in text and "-e .[test]" in text and "python=3.11" in text
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name = re.match(r"[\w.-]+", wanted)[0].lower()
        assert name in pinned or name.replace("_", "-") in pinned or name.replace("-", "_") in pinned, name


def test_the_package_is_whole_when_it_is_built():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in MODULES}
    assert all((folder / "__init__.py").is_file() for folder in folders)
    packages = {str(folder.relative_to(ROOT)).replace("/", ".") for folder in folders}
    assert sorted(listed) == sorted(packages | {"bpilib.notebooks", "bpilib.params"}), "not all is in the wheel"
