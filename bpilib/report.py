"""Executed notebooks as a folder of HTML pages with an index: readable offline, in light and dark.

`python -m bpilib.report [outputs]` (or `make report`) writes <outputs>/report/index.html.
"""

import base64
import io
import os
import re
import sys
import textwrap
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from PIL import Image

from bpilib.errors import MissingInputError
from bpilib.system.files import in_project, write_atomically

FOLDER = "report"
THUMBNAIL = (560, 350)  # pixels, at most
LIVE = "application/vnd.jupyter.widget-view+json"
# nbconvert's own page without what it would fetch from the network, and with the dark colours where they are preferred
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}{{ resources.include_css("static/theme-dark.css")
 | replace('<style type="text/css">', '<style media="(prefers-color-scheme: dark)">') }}
<style>.jp-RenderedImage img{border-radius:6px} main{max-width:1400px;margin:auto}
@media (prefers-color-scheme:dark){.bpi-figure,.jp-RenderedImage img{filter:invert(.88) hue-rotate(180deg)}}</style>
{% endblock %}
{% block body_header %}{{ super() }}<p style="margin:12px 90px;font:14px system-ui,sans-serif">
<a href="{{ resources.index }}">← all notebooks</a></p>{% endblock %}"""
INDEX = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Executed notebooks</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{color-scheme:light dark;--ink:#22262b;--soft:#5b6168;--paper:#fff;--card:#f5f6f8;--line:#d5d9de;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#a6adb5;--paper:#15181b;--card:#1f2327;--line:#383e45;
--link:#7db8f0}}
body{margin:0 auto;padding:24px 32px 60px;max-width:1560px;font:16px/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}h1{margin:0}h2{margin:36px 0 12px;font-size:1.1rem;color:var(--soft)}a{color:var(--link)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:20px}
.card{border:1px solid var(--line);border-radius:10px;overflow:hidden;background:var(--card);position:relative}
.card h3{margin:0 0 4px;font-size:1.05rem}.card div{padding:12px 16px 14px}.card h3 a{text-decoration:none}
.card h3 a::after{content:"";position:absolute;inset:0}.card:hover{border-color:var(--link)}
.card img,.none{display:block;width:100%;height:190px;object-fit:contain;background:#fff}
.none{display:grid;place-items:center;color:#5b6168}p{margin:4px 0}.soft{color:var(--soft);font-size:.875rem}
code{font-size:.8125rem;overflow-wrap:anywhere}.bad{color:#c2410c;font-size:.875rem;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.bad{color:#fb923c}.card img,.none{filter:invert(.88) hue-rotate(180deg)}}
</style></head><body><h1>Executed notebooks</h1>"""


@dataclass(frozen=True)
class Page:
    """What the index says of an executed notebook.

    Attributes:
        path: of the notebook, below outputs.
        title: its first heading.
        parameters: that papermill was given.
        date: when it was finished.
        seconds: it took, where papermill wrote that down.
        fault: its first error, or why it can't be read; "" for a good one.
        figure: its first picture as JPEG, or None.
        readable: there is a page of it.
    """

    path: Path
    title: str
    parameters: dict[str, Any]
    date: datetime
    seconds: float | None = None
    fault: str = ""
    figure: bytes | None = None
    readable: bool = True


def write_report(outputs: str | Path) -> Path:
    """Turn every executed notebook below `outputs` into a page of `outputs`/report, and write the index.

    Args:
        outputs: folder to look in; pages of notebooks that are gone are removed.

    Returns:
        The index.

    Raises:
        MissingInputError: no executed notebook there.
    """
    outputs = Path(outputs)
    pages, notebooks = [], {}
    for path in sorted(outputs.rglob("*.ipynb")):
        name, date = path.relative_to(outputs), datetime.fromtimestamp(path.stat().st_mtime)
        if {FOLDER, ".ipynb_checkpoints"} & {*name.parts}:
            continue
        try:
            notebook = nbformat.read(path, 4)
            if any(cell.get("execution_count") for cell in notebook.cells):
                notebooks[name] = notebook
                pages.append(_describe(notebook, name, date))
        except Exception as error:  # nbformat raises many kinds for a damaged file
            fault = f"can't be read ({type(error).__name__}: {str(error)[:80]})"
            pages.append(Page(name, path.stem, {}, date, fault=fault, readable=False))
    if not notebooks:
        raise MissingInputError(
            f"no executed notebook below {outputs}: run make demo, or papermill notebooks/03_evaluate.ipynb "
            f"{outputs}/03_evaluate.ipynb -p dataset ucla"
        )
    folder = outputs / FOLDER
    for old in folder.rglob("*.html"):
        if old.relative_to(folder).with_suffix(".ipynb") not in notebooks:
            old.unlink()
    for name, notebook in notebooks.items():
        write_atomically((folder / name).with_suffix(".html"), _page(notebook, name, [*notebooks]))
    return write_atomically(folder / "index.html", _index(pages))


def _describe(notebook: nbformat.NotebookNode, path: Path, date: datetime) -> Page:
    ran = notebook.metadata.get("papermill", {})
    headings = re.findall(r"^# (.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    outs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    errors = [f"{out.ename}: {out.evalue}" for out in outs if out.output_type == "error"]
    pictures = [out.data["image/png"] for out in outs if "image/png" in out.get("data", {})]
    if ran.get("end_time"):
        date = datetime.fromisoformat(ran["end_time"])
    fault = textwrap.shorten(errors[0], 160, placeholder=" …") if errors else ""
    return Page(
        path, headings[0] if headings else path.stem, dict(ran.get("parameters", {})), date.astimezone(),
        ran.get("duration"), fault, _thumbnail(pictures[0]) if pictures else None,
    )  # fmt: skip


def _thumbnail(png: str) -> bytes:
    """A base64 PNG as a small JPEG on white."""
    image, out = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"), io.BytesIO()
    image.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").save(out, "JPEG", quality=88)
    return out.getvalue()


def _page(notebook: nbformat.NotebookNode, path: Path, others: list[Path]) -> str:
    """A notebook as HTML; its links to other notebooks lead to their pages, the nearest first, or to the index."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [still for out in cell.outputs if (still := _still(out))]
    exporter = HTMLExporter(raw_template=PAGE, embed_images=True, anchor_link_text="")
    index = os.path.relpath("index.html", path.parent)
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}, "index": index})

    def there(match: re.Match) -> str:
        fits = [other for other in others if other.stem.startswith(match[1])]
        fits.sort(key=lambda other: (other.parent != path.parent, other))
        return f'href="{os.path.relpath(fits[0].with_suffix(".html"), path.parent) if fits else index}"'

    return re.sub(r'href="(\d\d_\w+)\.ipynb"', there, text)


def _still(out: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as it shows without a kernel: a progress bar goes, another widget is named."""
    if LIVE not in out.get("data", {}):
        return out
    if "%|" in out.data.get("text/plain", ""):
        return None
    note = "<p><em>Interactive: run the notebook in JupyterLab to use what is here.</em></p>"
    return nbformat.v4.new_output("display_data", {"text/html": note})


def _index(pages: list[Page]) -> str:
    """The index: a card a notebook, by folder."""
    parts = [INDEX, f'<p class="soft">{len(pages)} notebooks, {datetime.now():%Y-%m-%d %H:%M}</p>']
    for folder in dict.fromkeys(page.path.parent for page in pages):
        parts.append(f'<h2>{escape("outputs" if folder == Path() else folder.as_posix())}</h2><div class="grid">')
        parts += [_card(page) for page in pages if page.path.parent == folder]
        parts.append("</div>")
    return "\n".join([*parts, "</body></html>\n"])


def _card(page: Page) -> str:
    picture = '<span class="none">no figure</span>'
    if page.figure:
        picture = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(page.figure).decode()}">'
    title = escape(page.title)
    heading = f'<a href="{escape(page.path.with_suffix(".html").as_posix())}">{title}</a>' if page.readable else title
    took = ""
    if page.seconds is not None:
        took = f", {page.seconds:.0f} s" if page.seconds < 90 else f", {page.seconds / 60:.0f} min"
    lines = [f'<p class="soft">{escape(page.path.name)} · {page.date:%Y-%m-%d %H:%M}{took}</p>']
    if page.readable:
        given = " ".join(f"{name}={value!r}" for name, value in page.parameters.items())
        lines.append(f"<p><code>{escape(given or 'parameters as the notebook has them')}</code></p>")
    if page.fault:
        lines.append(f'<p class="bad">{escape(page.fault)}</p>')
    return f'<article class="card">{picture}<div><h3>{heading}</h3>{"".join(lines)}</div></article>'


if __name__ == "__main__":
    try:
        print(write_report(in_project(sys.argv[1] if len(sys.argv) > 1 else "outputs")))
    except MissingInputError as missing:
        raise SystemExit(str(missing)) from None
