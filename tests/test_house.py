"""The structure that the design promises: one-way imports, short modules, stripped notebooks, current README."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bpilib.config import parameter_table, resolve
from bpilib.sweep import load

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "bpilib").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Each module may import from the modules before it in this list, and from none after it.
ORDER = """
files lock jit machine skeleton draws kernels prompts recipes masking config
data.store data.copies data.ntu_files data.ntu_text data.ntu_bodies data.ntu data.ntu_build data.ucla data.acting
data.synthetic data.intake data.npz data.unpickle data.pickles data.mapping data.custom data data.example
refinement gcn interaction model losses packing torchscript text feeders checkpoint directory runs distributed evaluate
reference classify export activation attention schedule journal trainer launch train own language results compare report
headless clusters sweep seeds
""".split()
# Arrays in, figures out: only notebooks import them.
FIGURES = "style bars drawing looks heatmaps evidence plots ranking comparisons maps cards widgets finder board".split()


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "bpilib").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> set[str]:
    """Names of the bpilib modules that a file imports, anywhere in it."""
    found: set[str] = set()
    package = ["bpilib", *path.relative_to(ROOT / "bpilib").parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    known = {f"bpilib.{name_of(p)}": name_of(p) for p in MODULES if name_of(p)}
    return {known[name] for name in found if name in known}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    name = name_of(path)
    imported = imports_of(path) - {name}
    if not name:
        assert not imported
    elif name in FIGURES:
        assert imported <= {"files", "skeleton", *FIGURES[: FIGURES.index(name)]}
    else:
        assert name in ORDER, f"{name} has no place in the order of imports"
        assert imported <= set(ORDER[: ORDER.index(name)]), f"{name} imports what comes after it"


def test_open_clip_is_imported_by_text_alone():
    assert [name_of(p) for p in MODULES if re.search(r"^\s*(import|from) open_clip", p.read_text(), re.M)] == ["text"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short_and_plain(path):
    text = path.read_text()
    assert path.name != "utils.py"
    assert "import *" not in text


@pytest.mark.parametrize("name", [f"bpilib.{name_of(p)}" for p in MODULES if name_of(p)])
def test_every_module_imports_alone(name):
    if name in ("bpilib.widgets", "bpilib.train"):  # the ends of the two chains import all the others
        subprocess.run([sys.executable, "-W", "error::DeprecationWarning:bpilib", "-c", f"import {name}"], check=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_stripped_and_shaped(path):
    notebook = json.loads(path.read_text())
    cells = notebook["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith(f"# {path.stem[:2]} ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    source = "".join(parameters[0]["source"])
    assert source.startswith("# parameters\n")
    for statement in ast.parse(source).body:  # literals only
        ast.literal_eval(statement.value)
    for cell in code:
        text = "".join(cell["source"])
        assert cell["outputs"] == [] and cell["execution_count"] is None
        assert len(text.splitlines()) <= 25
        assert not re.search(r"^class ", text, re.M)


def test_every_notebook_links_to_all_the_others():
    for path in NOTEBOOKS:
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        linked = set(re.findall(r"\]\((\w+)\.ipynb\)", first))
        assert {other.stem for other in NOTEBOOKS} - {path.stem} <= linked


def test_the_demo_runs_every_notebook_and_sweeps_what_it_has_trained():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, re.M)[1]
    run = re.findall(r"\$\(RUN\) notebooks/(\w+)\.ipynb \$\(DEMO\)/(\w+)\.ipynb", recipe)
    assert sorted({name for name, _ in run}) == [path.stem for path in NOTEBOOKS]
    assert all(out.startswith(name) for name, out in run) and len({out for _, out in run}) == len(run)
    short = dict(re.findall(r"-p (\w+) (\w+)", re.search(r"^SHORT := (.*)$", makefile, re.M)[1]))
    given = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    given |= {name: yaml.safe_load(value) for name, value in short.items()}
    swept = {config.run_directory: config.result_settings() for config in load("params/sweep_demo.yaml").configs}
    for modality in ("joint", "bone"):  # equal settings: 06 skips them
        trained = resolve(**given, modality=modality)
        assert swept[trained.run_directory] == trained.result_settings()


def test_readme_parameter_table_is_current():
    assert parameter_table() in (ROOT / "README.md").read_text()


def test_environment_has_one_source_of_truth():
    text = (ROOT / "environment.yml").read_text()
    assert "-c constraints.txt" in text and "-e .[test]" in text and "python=3.11" in text
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text().lower(), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name = re.match(r"[\w.-]+", wanted)[0].lower()
        assert name in pinned or name.replace("_", "-") in pinned or name.replace("-", "_") in pinned, name
