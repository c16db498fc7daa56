"""The notebooks in JupyterLab, in a real browser: run, looked at, clicked, interrupted.

With a folder in the environment variable BPI_SCREENSHOTS, the slow tests leave pictures of every notebook there.
"""

import json
import os
import shutil
import time
from pathlib import Path

import papermill
import pytest
from executed import NOTEBOOKS, SMALL, small_sweep
from lab import BEYOND, FLAGS, PATIENCE, READY, chromium, plain, serve

from bpilib.analysis import attention
from bpilib.plots import attention_skeleton

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[test]'")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium"),
]
# What the widgets show; whether it has become something else than before.
STATE = "() => [...document.querySelectorAll('.widget-image, .widget-html-content')].map(e => e.src || e.innerHTML) + 0"
CHANGED = f"before => {{ const now = ({STATE})(); return now !== before && !now.includes('takes a while') }}"


@pytest.fixture(scope="module")
def lab(places, trained, tmp_path_factory):
    """A JupyterLab, and parameters that lead to copies of the runs: the other tests find theirs as they were."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(places[0] / "outputs", folder / "outputs")
    with serve(folder) as server:
        yield server, places[1] | {"outputs": str(folder / "outputs")}


@pytest.fixture(scope="module")
def browser(lab):
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@pytest.fixture
def opened(lab, browser):
    """opened("04_attention", "Dark", 1280, {"clips": 1}): the notebook with these parameters, in a page of its own."""
    pages = []

    def open_notebook(name, theme, width, parameters):
        server, path = lab[0], NOTEBOOKS / f"{name}.ipynb"
        papermill.execute_notebook(
            path, server.root / path.name, parameters=parameters, prepare_only=True, progress_bar=False
        )
        server.set_theme(theme)
        pages.append(server.open(browser, path.name, width))
        return pages[-1]

    yield open_notebook
    for each in pages:
        each.close()


def check(notebook):
    """No cell has failed, and the page had nothing to complain of."""
    assert not [plain("\n".join(o["traceback"])) for o in notebook.outputs() if o["output_type"] == "error"]
    assert notebook.problems == []


def printed(notebook):
    return "".join("".join(o["text"]) for o in notebook.outputs() if o["output_type"] == "stream")


@pytest.mark.slow
def test_04_answers_to_every_control(lab, opened):
    notebook = opened("04_attention", "Dark", 1280, lab[1] | {"clips": 1})
    notebook.start()
    notebook.wait()
    check(notebook)
    page = notebook.page
    figure = page.locator("img.bpi-figure").first
    assert figure.evaluate("e => getComputedStyle(e).filter") == "invert(0.88) hue-rotate(180deg)"
    notebook.show("browser = widgets.attention_browser")
    widgets = page.locator(".jupyter-widgets")
    page.wait_for_function(STATE)
    moves = {
        "head": lambda: widgets.get_by_label("head", exact=True).select_option("head 3"),
        "part": lambda: widgets.get_by_role("button", name="leg", exact=True).click(),
        "class": lambda: widgets.get_by_label("class", exact=True).select_option("kick"),
        "clip": lambda: widgets.get_by_label("clip", exact=True).select_option(index=3),
        "wrong": lambda: widgets.get_by_role("button", name="wrong", exact=True).click(),
        "all": lambda: widgets.get_by_role("button", name="all", exact=True).click(),
        "true class": lambda: widgets.get_by_role("button", name="true class", exact=True).click(),
        "run": lambda: widgets.get_by_label("run", exact=True).select_option("bpi_bone_seed0"),
    }
    for name, move in moves.items():
        before, start = page.evaluate(STATE), time.monotonic()
        move()
        page.wait_for_function(CHANGED, arg=before, timeout=PATIENCE)
        print(f"{name}: {time.monotonic() - start:.2f} s")
    assert "kick" in page.evaluate(STATE)
    check(notebook)


@pytest.mark.slow
def test_02_interrupted_says_so_and_goes_on_after_a_restart(lab, opened):
    notebook = opened("02_train", "Light", 1280, lab[1] | SMALL | {"epochs": 6, "tag": "stopped"})
    folder = Path(lab[1]["outputs"]) / "synthetic_xview/bpi_joint_seed0_stopped"
    notebook.start()
    while not (folder / "metrics.csv").exists():  # the first epoch
        assert not notebook.page.evaluate("window.ended"), notebook.outputs()[-1]
        time.sleep(0.1)
    notebook.page.get_by_role("button", name="Interrupt the kernel").click()
    notebook.wait()
    (error,) = [o for o in notebook.outputs() if o["output_type"] == "error"]
    assert error["ename"] == "KeyboardInterrupt" and error["evalue"].endswith("run the same again to go on")
    assert "saving now, then stopping after this step" in printed(notebook)
    assert not (folder / "summary.json").exists()
    notebook.start("notebook:restart-run-all")
    notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
    notebook.wait()
    check(notebook)
    assert f"resuming {folder} after epoch" in printed(notebook)
    assert json.loads((folder / "summary.json").read_text())["resumed"] == 1


@pytest.mark.slow
def test_a_function_of_bpilib_explains_itself(opened):
    """In the tooltip of Shift+Tab, and in Help → Show Contextual Help as the cursor moves."""
    notebook = opened("04_attention", "Light", 1280, {})
    page = notebook.page
    notebook.put_cursor_after("import numpy")  # the cell of imports alone
    notebook.start("notebook:run-cell")
    notebook.wait()
    check(notebook)
    notebook.put_cursor_after("attention.compute_flows")
    page.keyboard.press("Shift+Tab")
    first, second = (f.__doc__.splitlines()[0] for f in (attention.compute_flows, attention_skeleton.part_flow))
    page.locator(".jp-Tooltip").filter(has_text=first).wait_for(timeout=PATIENCE)
    picture(page, "tooltip")
    page.keyboard.press("Escape")
    page.get_by_role("menuitem", name="Help", exact=True).click()
    page.get_by_role("menuitem", name="Show Contextual Help").click()
    page.locator(".lm-DockPanel-tabBar").get_by_text("04_attention.ipynb").click()
    page.wait_for_function(READY)
    notebook.put_cursor_after("part_flow")
    page.locator(".jp-Inspector").filter(has_text=second).wait_for(timeout=PATIENCE)
    picture(page, "inspector")
    assert notebook.problems == []


def picture(page, name):
    """A screenshot, where they are wanted."""
    if folder := os.environ.get("BPI_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"))


def parameters_of(name, there, theme):
    """What makes a notebook quick."""
    folder = Path(there["outputs"]).parent / theme
    own = {"raw": str(folder / "clips"), "data": str(folder / "store"), "outputs": str(folder / "outputs")}
    return {
        "01_prepare_data": there | {"raw": str(Path(there["data"]).with_name("raw"))},
        "02_train": there | SMALL | {"tag": theme},
        "06_sweep": {"sweep": str(small_sweep(there, folder)), "workers": 2, "cores": 1, "outputs": own["outputs"]},
        "07_compare": {"outputs": there["outputs"]},
        "08_your_data": own | {"epochs": 2, "repeats": 1, "width": 8},
        "10_video": there | {"dataset": "synthetic", "raw": None},
    }.get(name, there)


@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("Light", 1280), ("Dark", 1920)])
@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_every_notebook_runs_and_fits(name, theme, width, lab, opened):
    notebook = opened(name, theme, width, parameters_of(name, lab[1], theme))
    notebook.start()
    notebook.wait()
    beyond = []
    for number in notebook.walk():
        beyond += notebook.page.evaluate(BEYOND)
        picture(notebook.page, f"{name}_{theme}_{width}_{number:02d}")
    assert beyond == []
    check(notebook)
