"""JupyterLab as a user sees it: a server of its own, and notebooks opened in chromium. For the tests."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BROWSERS = ("chromium", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--disable-background-networking",
)  # fmt: skip
PATIENCE = 300_000  # ms, for what takes seconds on a machine with nothing else to do
NOTEBOOK = "window.jupyterapp?.shell.currentWidget"
READY = f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle' && {NOTEBOOK}.context.isReady"
# Figures and controls that reach beyond the right edge of the notebook (tables and lines of text can be scrolled).
BEYOND = """() => {
    const edge = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect().right + 1
    return [...document.querySelectorAll('.jp-OutputArea-output :is(img, iframe, button, select, input)')]
        .filter(e => e.getBoundingClientRect().right > edge).map(e => e.outerHTML.slice(0, 200))
}"""

CURSOR = f"""async source => {{
    const notebook = {NOTEBOOK}.content, code = cell => cell.model.sharedModel.getSource()
    const n = notebook.widgets.findIndex(cell => cell.model.type === 'code' && code(cell).includes(source))
    notebook.activeCellIndex = n
    await notebook.scrollToItem(n, 'center')
    notebook.mode = 'edit'
    const before = code(notebook.activeCell).split(source)[0].split('\\n'), line = before.length - 1
    notebook.activeCell.editor.setCursorPosition({{line, column: before[line].length + source.length}})
    notebook.activeCell.editor.focus()
}}"""


def chromium() -> str | None:
    """The browser's path, if this machine has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator["Lab"]:
    """A JupyterLab whose files, settings and kernels are in `folder` alone."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own = {"CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"}
    env = os.environ | {f"JUPYTER_{name}": str(folder / name.lower()) for name in own}
    env |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    env |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_TOKEN": secrets.token_hex(16)}
    root = folder / "notebooks"
    root.mkdir()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=localhost", f"--port={port}",
        "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True", root,
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as server:
        try:
            lab = Lab(f"http://localhost:{port}", env["JUPYTER_TOKEN"], folder)
            lab.wait(server, log)
            yield lab
        finally:
            server.terminate()  # and the kernels with it


class Lab:
    """A running server; `open` shows a notebook of its root folder in a page."""

    def __init__(self, address: str, token: str, folder: Path):
        self._address, self._token = address, token
        self.root, self._settings = folder / "notebooks", folder / "settings"

    def wait(self, server: subprocess.Popen, log: Path) -> None:
        """Until the server answers."""
        for _ in range(PATIENCE // 100):
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{self._address}/api?token={self._token}").close()
            if server.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab does not start:\n{log.read_text()[-3000:]}")

    def set_theme(self, theme: str) -> None:
        """For pages opened from now on: "Light" or "Dark"; no questions on news."""
        folder = self._settings / "@jupyterlab/apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        chosen = {"themes": {"theme": f"JupyterLab {theme}"}, "notification": {"fetchNews": "false"}}
        for name, values in chosen.items():
            (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))

    def open(self, browser, name: str, width: int = 1280, height: int = 1000) -> "Opened":
        """A notebook in a page of its own, its kernel ready."""
        still = "reduce"  # players wait for their button
        page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion=still)
        opened = Opened(page)
        page.goto(f"{self._address}/lab/tree/{name}?token={self._token}&reset", timeout=PATIENCE)
        page.wait_for_function(READY, timeout=PATIENCE)
        return opened


class Opened:
    """A notebook open in a page; `.problems` is what the page's console called an error."""

    def __init__(self, page):
        self.page, self.problems = page, []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.problems.append(said.text))

    def start(self, command: str = "notebook:run-all-cells") -> None:
        """Run all cells, or another command of JupyterLab, without waiting for its end."""
        then = "finally(() => { window.ended = true })"
        self.page.evaluate(f"() => {{ window.ended = false; jupyterapp.commands.execute('{command}').{then} }}")

    def wait(self) -> None:
        """Until the command has ended: all cells are executed, or one has failed."""
        self.page.wait_for_function("window.ended", timeout=4 * PATIENCE, polling=200)

    def close(self) -> None:
        """End the kernel and close the page."""
        self.page.evaluate(f"() => {NOTEBOOK}.sessionContext.shutdown()")
        self.page.close()

    def outputs(self) -> list[dict]:
        """All outputs, in nbformat."""
        cells = self.page.evaluate(f"() => {NOTEBOOK}.content.model.toJSON().cells")
        return [output for cell in cells for output in cell.get("outputs", [])]

    def put_cursor_after(self, source: str) -> None:
        """Into the first line of code with this in it, ready to type."""
        self.page.evaluate(CURSOR, source)

    def show(self, source: str) -> None:
        """Scroll to the end of the cell with this in its source."""
        cells = self.page.evaluate(f"() => {NOTEBOOK}.content.model.toJSON().cells.map(c => c.source)")
        number = next(n for n, text in enumerate(cells) if source in "".join(text))
        self.page.evaluate(f"n => {NOTEBOOK}.content.scrollToItem(n, 'end')", number)

    def walk(self) -> Iterator[int]:
        """Scroll through the notebook, a page at a time."""
        outer, top, number = self.page.locator(".jp-WindowedPanel-outer").first, 0, 0
        while True:
            outer.evaluate("(e, top) => { e.scrollTop = top }", top)
            time.sleep(1)  # cells are drawn when they come into sight
            yield number
            height, step = outer.evaluate("e => [e.scrollHeight, e.clientHeight]")
            top, number = top + step - 60, number + 1
            if top + 60 >= height:
                return


def plain(text: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)
