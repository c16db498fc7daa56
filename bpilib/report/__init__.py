"""Executed notebooks as a folder of HTML pages with an index: readable offline, in light and dark.

`python -m bpilib.report [outputs]` (or `make report`) writes <outputs>/report/index.html; with a notebook and a page
(`make tour`) that page alone. `page.html.j2` and `index.html.j2` are the templates of a page and of the index. Secrets
are masked, and what could run in a page is left out (`bpilib.report.guard`).
"""

import base64
import hashlib
import io
import json
import os
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import jinja2
import nbformat
from nbconvert import HTMLExporter
from PIL import Image

from bpilib.errors import MissingInputError
from bpilib.report.guard import guard
from bpilib.system.files import PROJECT, mask_notebook, mask_secrets, write_atomically

FOLDER = "report"
WRITTEN = ".written.json"  # in the folder: what this module wrote there
THUMBNAIL = (560, 350)  # pixels, at most
WIDGET = "application/vnd.jupyter.widget-view+json"
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Page:
    """What the index says of an executed notebook.

    Attributes:
        path: of the notebook, below outputs.
        title: its first heading.
        parameters: what papermill was given.
        date: when it was finished.
        seconds: execution time, where papermill recorded it.
        fault: its first error, or why it can't be read or shown; "" without one.
        figure: its first picture as JPEG, or None.
        readable: whether it has a page.
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
        outputs: folder to look in. Pages that an earlier report made of notebooks that are gone are removed; other
            files in the folder `report` are left alone. A notebook that can't be read or shown has no page; the index
            says why.

    Returns:
        The index.

    Raises:
        MissingInputError: no executed notebook there, nor one that can't be read.
        FileExistsError: a file that no report has written stands where a page has to go; nothing is changed then.
    """
    outputs = Path(outputs)
    pages, texts = _read_notebooks(outputs)
    if not pages:
        raise MissingInputError(
            f"no executed notebook below {outputs}: run make demo, or papermill notebooks/03_evaluate.ipynb "
            f"{outputs}/03_evaluate.ipynb -p dataset ucla"
        )
    files = WrittenFiles(outputs / FOLDER)
    names = {path: path.with_suffix(".html") for path in texts}
    files.check([*names.values(), Path("index.html")])
    files.remove_others(names.values())
    for path, text in texts.items():
        linked = _link_pages(text, path, [*texts])
        files.write(names[path], _link_docs(linked, (files.folder / path).parent))
    return files.write(Path("index.html"), _render_index(pages))


def write_page(notebook: str | Path, page: str | Path) -> Path:
    """Turn one executed notebook into a page of its own, whose links lead to the notebooks of this project.

    Args:
        notebook: executed, an .ipynb.
        page: the .html to write; one that is there is replaced.

    Returns:
        The page.

    Raises:
        MissingInputError: no such notebook, or it has not been executed.
    """
    notebook, page = Path(notebook), Path(page)
    cells = nbformat.read(notebook, 4).cells if notebook.is_file() else []
    if not any(cell.get("execution_count") for cell in cells):
        raise MissingInputError(f"no executed notebook at {notebook}: execute it with papermill, or run make demo")
    there = os.path.relpath(PROJECT, page.resolve().parent)
    text = _to_html(nbformat.read(notebook, 4), notebook.stem, _link(f"{there}/README.md"))
    text = re.sub(r'href="(\d\d_\w+\.ipynb)"', rf'href="{_link(there)}/notebooks/\1"', text)
    return write_atomically(page, _link_docs(text, page.parent))


class WrittenFiles:
    """The files of a folder that were written through it, known by their hashes: no other is replaced or removed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._hashes: dict[str, list[str]] = {}  # of a file: the one before a write and the one after it
        try:
            record = json.loads((folder / WRITTEN).read_text())
            self._hashes = {str(name): [str(entry) for entry in hashes] for name, hashes in record.items()}
        except (OSError, ValueError, AttributeError, TypeError):  # no record, or a damaged one: nothing is ours
            self._hashes = {}

    def _is_ours(self, name: str) -> bool:
        path = self.folder / name
        known = self._hashes.get(name, ())
        return path.is_file() and not path.is_symlink() and _hash(path.read_bytes()) in known

    def check(self, names: Iterable[Path]) -> None:
        """Raise FileExistsError if a file of someone else has one of these names."""
        for name in names:
            path = self.folder / name
            if (path.exists() or path.is_symlink()) and not self._is_ours(name.as_posix()):
                raise FileExistsError(
                    f"{path} was not written by this report, or has been changed since, and is not overwritten: move "
                    f"it out of {self.folder}"
                )

    def remove_others(self, names: Iterable[Path]) -> None:
        """Remove our pages that have none of these names; the index stays."""
        keep = {name.as_posix() for name in names} | {"index.html"}
        for name in [name for name in self._hashes if name not in keep]:
            inside = not PurePath(name).is_absolute() and ".." not in PurePath(name).parts
            if inside and self._is_ours(name):
                (self.folder / name).unlink()
            del self._hashes[name]
        self._save()

    def write(self, name: Path, content: str) -> Path:
        """Write one file, recorded before it is there, so that a kill in between leaves none that is not known."""
        data = content.encode()
        before = self._hashes.get(name.as_posix(), [])
        self._hashes[name.as_posix()] = list(dict.fromkeys([*before[-1:], _hash(data)]))
        self._save()
        return write_atomically(self.folder / name, data)

    def _save(self) -> None:
        write_atomically(self.folder / WRITTEN, json.dumps(self._hashes, indent=1) + "\n")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_notebooks(outputs: Path) -> tuple[list[Page], dict[Path, str]]:
    """What the index says of each executed notebook below `outputs`, and their pages by the notebooks' paths there."""
    pages: list[Page] = []
    texts: dict[Path, str] = {}
    for path in sorted(outputs.rglob("*.ipynb")):
        name = path.relative_to(outputs)
        if name.parts[0] == FOLDER or ".ipynb_checkpoints" in name.parts:
            continue
        page, failed = Page(name, path.stem, {}, datetime.now().astimezone()), "can't be read"
        try:
            page = replace(page, date=datetime.fromtimestamp(path.stat().st_mtime).astimezone())
            notebook = nbformat.read(path, 4)
            mask_notebook(notebook)
            if not any(cell.get("execution_count") for cell in notebook.cells):
                continue
            page, failed = _describe(notebook, name, page.date), "can't be shown"
            text = _to_html(notebook, path.stem, _link_index(name))
            text.encode()  # a cell may hold half a character, which no file can
            texts[name] = text
        except Exception as error:  # nbformat and nbconvert raise many kinds for a damaged file
            fault = f"{failed} ({type(error).__name__}: {str(error)[:80]})"
            page = replace(page, fault=fault, readable=False)
        pages.append(page)
    return pages, texts


def _describe(notebook: nbformat.NotebookNode, path: Path, date: datetime) -> Page:
    papermill = notebook.metadata.get("papermill", {})
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^# (.+)$", "\n".join(texts), re.M)
    outs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    errors = [f"{out.ename}: {out.evalue}" for out in outs if out.output_type == "error"]
    pictures = [out.data["image/png"] for out in outs if "image/png" in out.get("data", {})]
    if papermill.get("end_time"):
        date = datetime.fromisoformat(papermill["end_time"])
    return Page(
        path=path,
        title=headings[0] if headings else path.stem,
        parameters=dict(papermill.get("parameters", {})),
        date=date.astimezone(),
        seconds=papermill.get("duration"),
        fault=textwrap.shorten(mask_secrets(errors[0]), 160, placeholder=" …") if errors else "",
        figure=_thumbnail(pictures[0]) if pictures else None,
    )


def _thumbnail(png: str) -> bytes:
    """A base64 PNG as a small JPEG on white."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    image.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    out = io.BytesIO()
    on_white.save(out, "JPEG", quality=88)
    return out.getvalue()


def _link_index(path: Path) -> str:
    return _link(os.path.relpath("index.html", path.parent))


def _link_pages(text: str, path: Path, others: list[Path]) -> str:
    """A notebook's page, its links to other notebooks led to their pages, the nearest first, or to the index."""
    index = _link_index(path)

    def link_page(match: re.Match[str]) -> str:
        fits = [other for other in others if other.stem.startswith(match[1])]
        fits.sort(key=lambda other: (other.parent != path.parent, other))
        return f'href="{_link(os.path.relpath(fits[0].with_suffix(".html"), path.parent)) if fits else index}"'

    return re.sub(r'href="(\d\d_\w+)\.ipynb"', link_page, text)


def _to_html(notebook: nbformat.NotebookNode, name: str, index: str) -> str:
    """A notebook as HTML without secrets and scripts, its links as they are; `index` is where "all notebooks" leads."""
    mask_notebook(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept for out in cell.outputs if (kept := _without_kernel(out))]
    template = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    # With embed_images nbconvert closes every tag of a cell's HTML on the spot: an answer to be folded out is then
    # outside of its <details>, and a subscript outside of its <sub>. Images of outputs and attachments are in any case.
    exporter = HTMLExporter(raw_template=template, embed_images=False, anchor_link_text="")
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}, "index": index})
    return guard(text)


def _link_docs(text: str, folder: Path) -> str:
    """A page in that folder, its notebook's links to ../docs led to the project's."""
    docs = os.path.relpath(PROJECT / "docs", folder.resolve())
    return text.replace('href="../docs/', f'href="{_link(docs)}/')


def _link(path: str) -> str:
    """A relative path as a URL: names may hold #, ? and %, and bytes that are no text."""
    return quote(os.fsencode(Path(path).as_posix()))


def _without_kernel(out: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as it is shown without a kernel: a progress bar is left out, another widget is replaced by a note."""
    if WIDGET not in out.get("data", {}):
        return out
    if "%|" in out.data.get("text/plain", ""):
        return None
    note = "<p><em>Interactive: run the notebook in JupyterLab to use what is here.</em></p>"
    return nbformat.v4.new_output("display_data", {"text/html": note})


def _render_index(pages: list[Page]) -> str:
    """The index: a card a notebook, by folder; the template escapes whatever is put into it."""
    folders = []
    for folder in dict.fromkeys(page.path.parent for page in pages):
        cards = [_describe_card(page) for page in pages if page.path.parent == folder]
        folders.append(("outputs" if folder == Path() else folder.as_posix(), cards))
    template = TEMPLATES.get_template("index.html.j2")
    text = template.render(count=len(pages), now=f"{datetime.now():%Y-%m-%d %H:%M}", folders=folders)
    return text.encode(errors="backslashreplace").decode()  # names and titles may hold half a character


def _describe_card(page: Page) -> dict[str, str]:
    took = ""
    if page.seconds is not None:
        took = f", {page.seconds:.0f} s" if page.seconds < 90 else f", {page.seconds / 60:.0f} min"
    given = " ".join(f"{name}={value!r}" for name, value in mask_secrets(page.parameters).items())
    return {
        "title": page.title,
        "link": _link(page.path.with_suffix(".html").as_posix()) if page.readable else "",
        "figure": base64.b64encode(page.figure).decode() if page.figure else "",
        "made": f"{page.path.name} · {page.date:%Y-%m-%d %H:%M}{took}",
        "parameters": given or "parameters as the notebook has them",
        "fault": page.fault,
    }
