"""What runs in the page of somebody else's notebook: players, each alone in its frame, and nothing else."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from lab import FLAGS, chromium
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bpilib.data import synthetic
from bpilib.plots import clips
from bpilib.report import write_report
from bpilib.report.guard import guard
from bpilib.skeleton import UCLA

RUN = "parent.document.title=document.title='RAN'"
HOSTILE = {  # mime type → what it brings
    "text/html": [
        f"<script>{RUN}</script>",
        f'<img src="x" onerror="{RUN}">',
        f'<svg onload="{RUN}"><animate onbegin="{RUN}" attributeName="x"></svg>',
        f'<a id="link" href="java\tscript:{RUN}">a</a><a href="data:text/html,<script>{RUN}</script>">b</a>',
        f'<iframe src="javascript:{RUN}"></iframe><iframe src="https://evil.example/"></iframe>',
        f'<iframe srcdoc="<script>{RUN}</script>" sandbox="allow-scripts allow-same-origin" onload="{RUN}"></iframe>',
        f'<object data="data:text/html,<script>{RUN}</script>"></object><embed src="https://evil.example/x.swf">',
        f'<form action="javascript:{RUN}"><button formaction="javascript:{RUN}">b</button></form>',
        '<meta http-equiv="refresh" content="0;url=https://evil.example/"><base href="https://evil.example/">',
        '<link rel="stylesheet" href="https://evil.example/x.css"><img src="https://evil.example/x.png">',
        f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
        f"<style><!--</style><img src=x onerror={RUN}>--></style>",
        f"<table><td><math><mtext><table><mglyph><style><img src=x onerror={RUN}></style>",
        f"</div></main></body></html><script>{RUN}</script>",
    ],
    "text/markdown": [f"<script>{RUN}</script> [x](javascript:{RUN})", f"<img src=x onerror={RUN}>"],
    "image/svg+xml": [f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>'],
    "application/javascript": [RUN],
    "text/latex": [f"$\\href{{javascript:{RUN}}}{{x}}$"],
}
TABLE = "<style>#t td {color: red}</style><table id='t'><tr><td>kept &lt;b&gt; text</td></tr></table>"


def player():
    return clips.animate(synthetic.perform(1, 1, 0)[:, None], UCLA, "a player").data


def write(folder, *pages):
    """A report of one notebook with these outputs, (mime type, content); the text of its page."""
    cells = [new_markdown_cell(f"# title <script>{RUN}</script>\n<img src=x onerror={RUN}>")]
    outputs = [new_output("display_data", {kind: content, "text/plain": "text"}) for kind, content in pages]
    outputs.append(new_output("error", ename="<b>", evalue="<b>", traceback=[f"<img src=x onerror={RUN}>"]))
    cells.append(new_code_cell("1", execution_count=1, outputs=outputs))
    nbformat.write(new_notebook(cells=cells), folder / "03_evaluate.ipynb")
    return (write_report(folder).parent / "03_evaluate.html").read_text()


def runs(page, nonce):
    """What could run in a page, or in a frame of it, without the nonce; frames that are not sandboxed."""
    found = []
    for tag in BeautifulSoup(page, "html.parser").find_all(True):
        if tag.name == "script" and tag.get("nonce") != nonce:
            found.append(tag)
        if tag.name == "iframe" and (tag.get("sandbox") != ["allow-scripts"] or "src" in tag.attrs):
            found.append(tag)
        for name, value in tag.attrs.items():
            address = re.sub(r"\s", "", str(value))
            if name.startswith("on") or address.startswith(("javascript:", "data:text")):
                found.append((tag.name, name))
    return found


@pytest.mark.parametrize(
    ("kind", "content"), [(kind, content) for kind, contents in HOSTILE.items() for content in contents]
)
def test_nothing_that_an_output_brings_runs(tmp_path, kind, content):
    page = write(tmp_path, (kind, content), ("text/html", TABLE))
    head = re.search(r'<head><meta content="([^"]*)" http-equiv="Content-Security-Policy"/>', page)[1]
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})';", head)[1]
    assert head.startswith("default-src 'none'; ") and "unsafe" not in head.replace("style-src 'unsafe-inline'", "")
    assert runs(page, nonce) == []
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    assert nonce not in outside.replace(head, "")
    assert "evil.example" not in outside
    assert "kept &lt;b&gt; text" in page and "#t td {color: red}" in page


def test_every_page_has_a_nonce_of_its_own():
    pages = [guard("<html><head></head><body></body></html>") for _ in range(2)]
    assert pages[0] != pages[1]


def test_what_is_left_out_is_said():
    page = guard("<html><head></head><body><p>a<script>1</script></p><script type='a/json'>2</script></body></html>")
    assert page.count("(a script or a page from elsewhere, which reports leave out)") == 1


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_in_a_browser_a_player_plays_and_nothing_else_runs(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[test]'")
    hostile = [(kind, content) for kind, contents in HOSTILE.items() for content in contents]
    write(tmp_path, ("text/html", player()), *hostile)
    asked = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report" / "03_evaluate.html").as_uri())
        frame = page.frame_locator("iframe[title='skeleton animation']")
        before = frame.locator("#bar input").input_value()
        frame.locator("button").first.click(force=True)
        page.wait_for_timeout(300)
        frame.locator("canvas").first.wait_for()
        assert frame.locator("figcaption").inner_text() == "a player"
        assert before is not None and frame.locator("body").evaluate("() => origin") == "null"
        page.evaluate("document.querySelectorAll('a').forEach(a => a.id === 'link' && a.click())")
        page.wait_for_timeout(300)
        assert page.title() == "03_evaluate"
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []
