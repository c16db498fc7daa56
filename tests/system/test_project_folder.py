"""An installed package: what comes along in the wheel, and notebooks that run in a folder of their own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bpilib.system import files
from bpilib.system.files import NOTEBOOKS, PACKAGE, PARAMS, PROJECT, find_project, find_shipped
from bpilib.system.project_folder import copy_notebooks, main

SOURCES = ("bpilib", "notebooks", "params", "pyproject.toml", "README.md", "LICENSE")  # what a wheel is built of


def tracked(folder: Path) -> set[str]:
    """Files of a folder of the checkout, without those that running left there."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    inside = (path.relative_to(folder) for path in paths)
    return {path.as_posix() for path in inside if not any(p.startswith((".", "__pycache__")) for p in path.parts)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(command: list, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints."""
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout, built offline with what is installed here."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:  # building leaves folders beside its sources
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, folder / "source" / name)
        else:
            shutil.copy(PROJECT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "."]
    run([*command, "./source"], folder, {**os.environ, "PIP_CONFIG_FILE": os.devnull})
    return next(folder.glob("*.whl"))


def test_a_checkout_is_the_project_wherever_one_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_project(PACKAGE) == PROJECT == PACKAGE.parent
    assert PARAMS == PROJECT / "params" and NOTEBOOKS == PROJECT / "notebooks"


def test_an_installed_package_works_in_the_folder_of_copied_params_or_the_working_directory(tmp_path, monkeypatch):
    package, mine = tmp_path / "site-packages" / "bpilib", tmp_path / "mine"
    for folder in (package, mine / "notebooks" / "deeper", tmp_path / "elsewhere" / "params"):
        folder.mkdir(parents=True)
    copy_notebooks(mine)
    for folder in (mine, mine / "notebooks", mine / "notebooks" / "deeper"):
        monkeypatch.chdir(folder)
        assert find_project(package) == mine
    assert find_shipped(package, mine, files.MARK) == mine / "params"
    monkeypatch.chdir(tmp_path / "elsewhere")  # which has a folder params of its own
    assert find_project(package) == tmp_path / "elsewhere"
    assert find_shipped(package, tmp_path / "elsewhere", files.MARK) == package / "params"


def test_notebooks_and_params_are_copied_as_they_are(tmp_path, capsys):
    main(["notebooks", str(tmp_path / "new" / "mine")])
    for name in ("notebooks", "params"):
        copied = contents(tmp_path / "new" / "mine" / name)
        assert copied == {path: (PROJECT / name / path).read_bytes() for path in tracked(PROJECT / name)}
    assert sorted(path.name for path in (tmp_path / "new" / "mine").iterdir()) == ["notebooks", "params"]
    printed = capsys.readouterr().out
    assert " files copied, 0 were there already" in printed and "next: cd " in printed
    main(["notebooks", str(tmp_path / "new" / "mine")])
    assert ": 0 files copied" in capsys.readouterr().out


def test_nothing_is_overwritten_unasked_and_all_that_is_replaced_is_named(tmp_path):
    copy_notebooks(tmp_path)
    changed, missing = tmp_path / "notebooks" / "02_train.ipynb", tmp_path / "params" / "ucla.yaml"
    changed.write_text("mine")
    (tmp_path / "params" / "own.yaml").write_text("mine")
    missing.unlink()
    with pytest.raises(ValueError, match=r"nothing copied, since 1 files are there with other content:\n .*02_train"):
        copy_notebooks(tmp_path)
    assert changed.read_text() == "mine" and not missing.exists()
    done = copy_notebooks(tmp_path, overwrite=True)
    assert "1 files copied" in done[0] and done[1:] == [f"replaced {changed}"]
    assert changed.read_bytes() == (PROJECT / "notebooks" / "02_train.ipynb").read_bytes() and missing.exists()
    assert (tmp_path / "params" / "own.yaml").read_text() == "mine"


def test_a_file_is_no_folder_and_no_command_is_no_guess(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"bpilib: .*file is a file: name a folder"):
        main(["notebooks", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as ended:
        main(["notebook", str(tmp_path)])
    assert ended.value.code == 2


@pytest.mark.slow
def test_the_wheel_holds_the_package_notebooks_and_params(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        scripts = archive.read(next(name for name in archive.namelist() if name.endswith("entry_points.txt"))).decode()
    expected = {f"bpilib/{name}" for name in tracked(PACKAGE)}
    expected |= {f"bpilib/{kind}/{name}" for kind in ("notebooks", "params") for name in tracked(PROJECT / kind)}
    assert held == expected
    assert "bpilib = bpilib.system.project_folder:main" in scripts


@pytest.mark.slow
def test_an_installed_wheel_runs_in_a_folder_of_ones_own(wheel, tmp_path):
    """01 and a small 02 with papermill, outside of the checkout, in an environment that has the wheel."""
    venv, mine = tmp_path / "venv", tmp_path / "mine"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "JUPYTER_PATH": str(tmp_path / "share")}
    run([sys.executable, "-m", "venv", "--without-pip", venv], tmp_path, environment)
    site = Path(run([venv / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                    tmp_path, environment).strip())  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel]
    run(pip, tmp_path, environment)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # torch and the like
    kernel = tmp_path / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = f'["{venv}/bin/python", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "Python 3", "language": "python"}}')
    before = contents(site / "bpilib")
    assert str(mine) in run([venv / "bin/bpilib", "notebooks", mine], tmp_path, environment)
    papermill = [venv / "bin/python", "-m", "papermill", "--no-progress-bar"]
    train = ["-p", "dataset", "synthetic", "-p", "text", "minilm", "-p", "epochs", "1", "-p", "width", "8"]
    run([*papermill, "notebooks/01_prepare_data.ipynb", "01.ipynb", "-p", "dataset", "synthetic"], mine, environment)
    run([*papermill, "02_train.ipynb", "../02.ipynb", *train], mine / "notebooks", environment)  # as JupyterLab does
    there = ["01.ipynb", "02.ipynb", "data", "notebooks", "outputs", "params"]
    assert sorted(path.name for path in mine.iterdir()) == there
    assert (mine / "data/prepared/synthetic/manifest.json").is_file()
    assert (mine / "outputs/synthetic_xview/bpi_joint_seed0/summary.json").is_file()
    after = contents(site / "bpilib")
    made = {name for name in after.keys() - before.keys() if "__pycache__" not in name}  # numba's
    assert not made and all(after[name] == content for name, content in before.items())
    where = run([venv / "bin/python", "-c", "import bpilib; print(bpilib.__file__)"], mine, environment)
    assert Path(where.strip()).is_relative_to(site)
