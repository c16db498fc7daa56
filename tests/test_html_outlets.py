"""Hostile names in every place that makes HTML: none of them arrives as a tag, an attribute or a script."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from figures import attention_of, joints_of
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bpilib import widgets
from bpilib.config import resolve
from bpilib.data import synthetic
from bpilib.plots import clips as clip_plots
from bpilib.plots import film_figures, film_player
from bpilib.plots.run_table import state_table
from bpilib.plots.style import Picture
from bpilib.report import write_report
from bpilib.skeleton import UCLA
from bpilib.system.tables import number_table, text_table

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "<img src=x onerror=alert(1)>\"'</script></style><script>alert(2)</script>"
# Where HTML is made: each has its case below. Whatever else wants HTML goes through `bpilib.system.tables`.
OUTLETS = {
    "bpilib/config/resolution.py",
    "bpilib/widgets.py",
    "bpilib/plots/run_table.py",
    "bpilib/plots/player.py",
    "bpilib/plots/style.py",
    "bpilib/plots/film_figures.py",
    "bpilib/plots/film_player.py",
    "bpilib/plots/clips.py",
    "bpilib/system/tables.py",
    "bpilib/report/__init__.py",
}


class LiveTags(HTMLParser):
    """Collects what a browser would run of a page, and of the pages in its frames."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.found, self._script = [], False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self._script = tag == "script"
        for name, value in attributes:
            if name == "srcdoc":
                self.found += LiveTags(value).found
            elif name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.found.append((tag, name, value))
        if tag == "img" and dict(attributes).get("src") == "x":
            self.found.append((tag, attributes))

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        # inside a script the name may stand as text in a string, its "<" written so that it ends no script
        if self._script and ("alert(2)" in data.replace(json.dumps(HOSTILE)[1:-1].replace("<", "\\u003c"), "")):
            self.found.append(("script", data))


def test_the_check_sees_what_runs():
    assert LiveTags(f"<p>{HOSTILE}</p>").found
    assert LiveTags('<iframe srcdoc="&lt;img src=x onerror=alert(1)&gt;">').found
    assert LiveTags(f"<td>{HOSTILE.replace('<', '&lt;')}</td>").found == []


def tables():
    cells = pd.DataFrame({"a": [HOSTILE, "b"], "n": [1.5, np.nan]})
    yield "number_table", number_table(cells)
    yield "number_table heading", number_table(pd.DataFrame({HOSTILE: [1.0]}))
    yield "number_table missing", number_table(pd.DataFrame({"a": [np.nan]}), missing=HOSTILE)
    yield "text_table", text_table(cells)
    yield "text_table index", text_table(pd.DataFrame({"a": ["t"]}, index=[HOSTILE]).rename_axis(HOSTILE))
    yield "text_table heading", text_table(pd.DataFrame({HOSTILE: ["t"]}))
    yield "list in a cell", text_table(pd.DataFrame({"a": [[HOSTILE]]}))
    yield "NumPy text in a cell", number_table(pd.DataFrame({"a": [np.str_(HOSTILE)]}, dtype=object))
    yield "configuration", resolve(dataset="synthetic", unseen=[HOSTILE], raw=HOSTILE, text="minilm")


@pytest.mark.parametrize(("name", "table"), [*tables()], ids=lambda value: value if isinstance(value, str) else "")
def test_tables_escape_heads_and_cells(name, table):
    page = table._repr_html_()
    assert LiveTags(page).found == []
    assert "&lt;img" in page


def test_numbers_keep_their_look_and_missing_ones_are_said():
    page = number_table(pd.DataFrame({"class": ["bow"], "clips": [3], "top1": [66.666], "low": [None]}), 1, "no clips")
    assert re.findall(r"<td[^>]*>([^<]*)</td>", page.to_html()) == ["bow", "3", "66.7", "no clips"]


def test_the_table_of_a_sweep_s_runs(tmp_path):
    row = dict.fromkeys(("dataset", "benchmark", "model", "modality", "tag", "message"), HOSTILE)
    row |= {"seed": 0, "state": "failed", "epoch": 0, "epochs": 2, "test_top1": np.nan, "starts": 1}
    folder = tmp_path / "a'\"<img src=x onerror=alert(1)>"
    folder.mkdir()
    for name in ("02_train.ipynb", "run.log"):
        (folder / name).touch()
    page = state_table(pd.DataFrame([row | {"folder": str(folder)}]), tmp_path)
    assert page.count("<a ") == 2 and LiveTags(page).found == []


def test_players_and_browsers():
    clip = synthetic.perform(1, 1, 0)[:, None]
    browser = widgets.clip_browser([clip], [0], [HOSTILE], UCLA, [HOSTILE])
    for page in (
        clip_plots.animate(clip, UCLA, HOSTILE).data,
        clip_plots.animate_grid([clip], [HOSTILE], UCLA).data,
        browser.message.value,
        browser.view.value,
    ):
        assert page and [tag for tag in LiveTags(page).found if "alert" in str(tag)] == []


def test_the_player_of_a_film():
    maps = {"maps": attention_of(UCLA), "activation": np.ones((1, 2, 20)), "frames": np.array([0, 4])}
    window = {"probabilities": np.array([0.7, 0.3]), **maps}
    frame = {"pose": np.random.default_rng(0).normal(size=(1, 20, 3)), "number": 0, "second": 0.0, "window": 0,
             "clip_frame": 0}  # fmt: skip
    shown = film_player.play_film([frame], [window], joints_of(UCLA), [HOSTILE, "b"], UCLA, title=HOSTILE)
    page = shown._repr_html_()
    assert shown.payload["title"] == HOSTILE and shown.payload["windows"][0]["top"][0][0] == HOSTILE
    assert page.count("alert(2)") == 2 and LiveTags(page).found == []
    made = re.findall(r"\.innerHTML = .*|insertAdjacentHTML\(.*|document\.write.*", film_player.PAGE.read_text())
    assert [line for line in made if "title" in line or "top" in line] == []  # names become text, never HTML


def test_what_a_figure_says_in_words():
    figure = Picture(figsize=(9, 2))
    figure.subplots().set_title("<img src=x onerror=alert(1)>")
    bundle = figure._repr_mimebundle_()
    page = (bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"]
    assert "alert(1)" in page and LiveTags(page).found == []


def test_what_a_photograph_says_in_words():
    image, points = np.zeros((48, 64, 3), np.uint8), np.full((1, 20, 2), 9.0)
    page = film_figures.skeleton_on_film([image], [points], UCLA, [HOSTILE], HOSTILE)._repr_mimebundle_()["text/html"]
    assert "alert(2)" in page and LiveTags(page).found == []


def test_the_report_s_index_and_the_head_of_a_page(tmp_path):
    cells = [new_markdown_cell(f"# {HOSTILE}"), new_code_cell("1", execution_count=1)]
    cells[1].outputs = [
        new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE]),
        new_output("stream", text=HOSTILE),
    ]
    papermill = {"papermill": {"parameters": {HOSTILE: HOSTILE}}}
    name = "a\"'<img src=x onerror=alert(1)>"
    nbformat.write(new_notebook(cells=cells[1:], metadata=papermill), tmp_path / f"{name}.ipynb")
    nbformat.write(new_notebook(cells=cells, metadata=papermill), tmp_path / "x.ipynb")
    (tmp_path / f"{name} cut.ipynb").write_text("{")
    index = write_report(tmp_path).read_text()
    assert index.count("alert(2)") >= 4 and LiveTags(index).found == []
    page = (tmp_path / "report" / f"{name}.html").read_text()
    assert [tag for tag in LiveTags(page).found if "alert" in str(tag) or tag[0] == "img"] == []


def test_html_is_made_nowhere_else():
    makes = re.compile(r"\.style\b(?!\.use)|to_html\(|\bHTML\(|_repr_html_|_repr_mimebundle_|\.format\(escape")
    modules = (ROOT / "bpilib").rglob("*.py")
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in modules}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        sources[path.relative_to(ROOT).as_posix()] = "\n".join("".join(source) for source in code)
    code_only = {name: re.sub(r"(?m)^\s*(from|import) .*$|#.*$", "", text) for name, text in sources.items()}
    assert {name for name, text in code_only.items() if makes.search(text)} <= OUTLETS
