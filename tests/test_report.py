"""Pages that need no network, an index that says what each notebook is, and nothing that a bad notebook can break."""

import base64
import io
import os
import re
from datetime import datetime

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from bpilib import report
from bpilib.errors import MissingInputError
from bpilib.plots.style import Picture
from bpilib.report import write_page, write_report
from bpilib.system.files import PROJECT


def png():
    return base64.b64encode(Picture(figsize=(9, 3), facecolor="#ff0000").png()).decode()


def executed(path, *outputs, title="03 Evaluate <now>", source="x = 1", **papermill):
    cells = [new_markdown_cell(f"# {title}\n\n[02 train](02_train.ipynb) → [09 none](09_none.ipynb)")]
    cells.append(new_code_cell(source, execution_count=1, outputs=[*outputs]))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"papermill": papermill} if papermill else {}), path)


def shown(mime, content):
    return new_output("display_data", {mime: content, "text/plain": "text of it"})


def test_the_index_shows_title_figure_parameters_and_date(tmp_path):
    given = {"parameters": {"dataset": "ucla", "seed": 3}, "end_time": "2026-11-23T10:20:30+00:00", "duration": 12.4}
    executed(tmp_path / "demo" / "03_evaluate.ipynb", shown("image/png", png()), **given)
    index = write_report(tmp_path)
    text = index.read_text()
    assert index == tmp_path / "report" / "index.html"
    assert '<a href="demo/03_evaluate.html">03 Evaluate &lt;now&gt;</a>' in text
    assert "dataset=&#39;ucla&#39; seed=3" in text and ", 12 s" in text
    assert f"{datetime.fromisoformat(given['end_time']).astimezone():%Y-%m-%d %H:%M}" in text
    (jpeg,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))))
    assert pixels.shape == (187, 560, 3) and pixels[90, 280, 0] > 240 > 15 > pixels[90, 280, 1]


def test_pages_ask_nothing_of_the_network_and_know_the_dark(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb", shown("image/png", png()), shown("text/html", "<b>kept</b>"))
    text = (write_report(tmp_path).parent / "03_evaluate.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", text)
    assert "cdnjs" not in text and "jsdelivr" not in text and "unpkg" not in text
    assert '<style media="(prefers-color-scheme: dark)">' in text and "<b>kept</b>" in text
    assert "prefers-color-scheme: dark" in (tmp_path / "report" / "index.html").read_text()


def test_links_lead_to_the_page_nearest_or_to_the_index(tmp_path):
    for name in ("a/03_evaluate", "a/02_train_joint", "02_train"):
        executed(tmp_path / f"{name}.ipynb")
    folder = write_report(tmp_path).parent
    text = (folder / "a" / "03_evaluate.html").read_text(encoding="utf-8")
    assert 'href="02_train_joint.html"' in text and 'href="../index.html">← all notebooks' in text
    assert '<a href="../index.html">09 none</a>' in text


def test_a_page_of_one_notebook_links_to_the_notebooks_themselves(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb", title="03 [words](../docs/glossary.md#top)")
    text = write_page(tmp_path / "03_evaluate.ipynb", tmp_path / "page" / "tour.html").read_text()
    links = [(tmp_path / "page" / link).resolve() for link in re.findall(r'href="(\.\.[^"#]+)', text)]
    names = ("README.md", "docs/glossary.md", "notebooks/02_train.ipynb", "notebooks/09_none.ipynb")
    assert links == [PROJECT / name for name in names]
    (tmp_path / "never.ipynb").write_text((PROJECT / "notebooks" / "02_train.ipynb").read_text())
    for name in ("never", "none"):
        with pytest.raises(MissingInputError, match="no executed notebook"):
            write_page(tmp_path / f"{name}.ipynb", tmp_path / "page.html")


def test_html_of_a_cell_stays_around_what_it_holds(tmp_path):
    answer = "<details><summary>Answer</summary>\n\nNo, since a<sub>uv</sub> is **0**.\n</details>\n\nOn."
    executed(tmp_path / "03_evaluate.ipynb", title=f"03\n\n{answer}")
    page = BeautifulSoup(write_page(tmp_path / "03_evaluate.ipynb", tmp_path / "page.html").read_text(), "html.parser")
    assert page.details.get_text().split() == ["Answer", "No,", "since", "auv", "is", "0."]
    assert page.details.find("sub").get_text() == "uv" and page.details.find("strong").get_text() == "0"


def test_the_page_of_the_tour_folds_its_answers():
    page = BeautifulSoup((PROJECT / "docs" / "tour.html").read_text(), "html.parser")
    assert [len(answer.get_text()) > 100 for answer in page.find_all("details")][-3:] == [True] * 3
    assert "" not in [index.get_text() for index in page.find_all("sub")]


def test_links_to_docs_lead_to_the_project_s(tmp_path):
    executed(tmp_path / "a" / "03_evaluate.ipynb", title="03 [words](../docs/glossary.md)")
    text = (write_report(tmp_path).parent / "a" / "03_evaluate.html").read_text()
    link = re.search(r'href="([^"]+)/glossary.md"', text)[1]
    assert (tmp_path / "report" / "a" / link).resolve() == PROJECT / "docs"


def test_widgets_are_named_and_progress_bars_left_out(tmp_path):
    live = "application/vnd.jupyter.widget-view+json"
    bar = new_output("display_data", {live: {"model_id": "a"}, "text/plain": "train:  0%|     | 0/9 [00:00<?]"})
    browser = new_output("display_data", {live: {"model_id": "b"}, "text/plain": "VBox(children=(Dropdown()))"})
    executed(tmp_path / "03_evaluate.ipynb", bar, browser)
    text = (write_report(tmp_path).parent / "03_evaluate.html").read_text()
    assert "0%|" not in text and "VBox(" not in text
    assert text.count("Interactive: run the notebook in JupyterLab") == 1


def test_failed_and_unreadable_notebooks_are_said_so(tmp_path):
    executed(tmp_path / "02_train.ipynb", new_output("error", ename="ValueError", evalue="no <data>", traceback=["x"]))
    (tmp_path / "05_cut.ipynb").write_text('{"cells": [')
    (tmp_path / "06_gone.ipynb").symlink_to(tmp_path / "nowhere.ipynb")
    text = write_report(tmp_path).read_text()
    assert '<p class="bad">ValueError: no &lt;data&gt;</p>' in text
    assert "can&#39;t be read (" in text and "05_cut.html" not in text
    assert text.count('class="card"') == 3


def test_notebooks_that_can_not_be_shown_stop_no_other(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb", title="03\n\n[half](07_half.ipynb)")
    executed(tmp_path / "05_attached.ipynb", title="05\n\n![p](attachment:a.png)")
    executed(tmp_path / "06_half.ipynb", source="'HALF'")
    half = tmp_path / "06_half.ipynb"
    half.write_text(half.read_text().replace("HALF", "\\ud800"))
    executed(tmp_path / "07_half.ipynb", title="07 HALF")
    half = tmp_path / "07_half.ipynb"
    half.write_text(half.read_text().replace("HALF", "\\ud800"))
    executed(tmp_path / os.fsdecode(b"08_\xff.ipynb"))
    index = write_report(tmp_path)
    text = index.read_text()
    assert text.count('class="card"') == 5 and text.count("can&#39;t be shown (") == 4
    assert "can&#39;t be shown (InvalidNotebook: " in text and "can&#39;t be shown (UnicodeEncodeError: " in text
    assert [path.name for path in index.parent.glob("*.html") if path != index] == ["03_evaluate.html"]
    assert '<a href="index.html">half</a>' in (index.parent / "03_evaluate.html").read_text()


def test_where_no_notebook_can_be_shown_the_index_says_so(tmp_path):
    executed(tmp_path / "05_attached.ipynb", title="05\n\n![p](attachment:a.png)")
    assert "can&#39;t be shown (InvalidNotebook: " in write_report(tmp_path).read_text()


def test_notebooks_that_never_ran_and_copies_are_no_part_of_it(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb")
    executed(tmp_path / ".ipynb_checkpoints" / "03_evaluate-checkpoint.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "04_attention.ipynb")
    text = write_report(tmp_path).read_text()
    assert text.count('class="card"') == 1


def test_pages_of_notebooks_that_are_gone_go_too(tmp_path):
    for name in ("02_train", "03_evaluate"):
        executed(tmp_path / f"{name}.ipynb")
    folder = write_report(tmp_path).parent
    (tmp_path / "02_train.ipynb").unlink()
    write_report(tmp_path)
    assert {path.name for path in folder.glob("*.html")} == {"index.html", "03_evaluate.html"}


def test_files_of_others_are_neither_removed_nor_replaced(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb")
    own = tmp_path / "report" / "thesis" / "chapter1.html"
    own.parent.mkdir(parents=True)
    own.write_text("my work")
    (tmp_path / "report" / "notes.html").write_text("mine")
    folder = write_report(tmp_path).parent
    copy = folder / "thesis" / "03_evaluate.html"
    copy.write_bytes((folder / "03_evaluate.html").read_bytes())
    edited = folder / "03_evaluate.html"
    edited.write_text(edited.read_text() + "<!-- my remark -->")
    with pytest.raises(FileExistsError, match=r"03_evaluate\.html was not written by this report, or has been changed"):
        write_report(tmp_path)
    (tmp_path / "03_evaluate.ipynb").unlink()
    executed(tmp_path / "02_train.ipynb")
    write_report(tmp_path)  # the edited page is of a notebook that is gone, and stays as well
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    assert kept == {
        "index.html",
        "02_train.html",
        "03_evaluate.html",
        "notes.html",
        "thesis/chapter1.html",
        "thesis/03_evaluate.html",
    }
    assert own.read_text() == "my work"


def test_a_file_in_the_way_is_named_and_nothing_is_changed(tmp_path):
    executed(tmp_path / "03_evaluate.ipynb")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("mine")
    with pytest.raises(FileExistsError, match=r"index\.html was not written by this report.*move it out"):
        write_report(tmp_path)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


@pytest.mark.parametrize("record", ["[1]", '{"index.html": 3}', "{", '{"../03_evaluate.ipynb": ["x"]}'])
def test_a_damaged_record_of_files_removes_nothing(tmp_path, record):
    executed(tmp_path / "03_evaluate.ipynb")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / ".written.json").write_text(record)
    (tmp_path / "report" / "notes.html").write_text("mine")
    write_report(tmp_path)
    assert (tmp_path / "report" / "notes.html").exists() and (tmp_path / "03_evaluate.ipynb").exists()


def test_a_killed_report_is_made_again(tmp_path, monkeypatch):
    executed(tmp_path / "03_evaluate.ipynb")
    folder = write_report(tmp_path).parent
    executed(tmp_path / "03_evaluate.ipynb", title="another")
    written = report.write_atomically

    def killed(path, content):
        written(path, content)
        if path.suffix == ".html":
            raise SystemExit

    monkeypatch.setattr(report, "write_atomically", killed)
    with pytest.raises(SystemExit):
        write_report(tmp_path)
    monkeypatch.undo()
    assert "another" in (folder / "03_evaluate.html").read_text()
    assert "another" in write_report(tmp_path).read_text()


def test_secrets_do_not_reach_the_index(tmp_path):
    error = new_output("error", ename="ValueError", evalue="https://me:PW123@host", traceback=["x"])
    executed(tmp_path / "03_evaluate.ipynb", error, parameters={"raw": "https://me:PW123@host/x"})
    text = write_report(tmp_path).read_text()
    assert "raw=" in text and "PW123" not in text


def test_links_survive_signs_that_urls_use(tmp_path):
    executed(tmp_path / "a #1?" / "03 100%.ipynb")
    text = write_report(tmp_path).read_text()
    assert 'href="a%20%231%3F/03%20100%25.html"' in text


def test_nothing_executed_says_what_to_run(tmp_path):
    with pytest.raises(MissingInputError, match=r"no executed notebook below .*make demo"):
        write_report(tmp_path)
