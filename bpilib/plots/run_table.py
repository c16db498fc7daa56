"""The live table of a sweep's runs."""

import os
from html import escape
from pathlib import Path

import numpy as np
from IPython.display import HTML, display

from bpilib.plots.style import WRONG
from bpilib.run_keys import RUN_KEYS
from bpilib.system.files import write_atomically

# Sign and colour of each state, the colours readable on light and on dark ground.
STATES = {
    "running": ("▶", "#2F80C8"),
    "failed": ("✗", WRONG),
    "interrupted": ("❚❚", "#B8860B"),
    "finished": ("✓", "#1E9E74"),
    "skipped": ("✓", "#8A9199"),
    "waiting": ("○", "#8A9199"),
}
_ACCURACIES = {"heldout_top1": "held-out top-1", "test_top1": "test top-1"}  # column → heading; a table has one
_CELL = "padding:2px 10px;text-align:left;white-space:nowrap"


class LiveTable:
    """The table of a sweep's runs, drawn anew in its place in a notebook whenever it has changed."""

    def __init__(self):
        self._place, self._html, self._table = display(HTML(""), display_id=True), "", None

    def update(self, table) -> None:
        """Draw a table of states, shortened to what needs attention."""
        self._table = table
        self._draw(state_table(table, os.getcwd()))

    def finish(self, page: Path) -> None:
        """Leave the last table whole, and write it as a page beside the sweep's other results."""
        if self._table is not None:
            self._draw(state_table(self._table, os.getcwd(), rows=None))
            head = f"<!doctype html><meta charset='utf-8'><title>{escape(page.parent.name)}</title>"
            whole = state_table(self._table, page.parent, rows=None)
            write_atomically(page, f"{head}<body style='font:14px system-ui,sans-serif'>{whole}")

    def _draw(self, html: str) -> None:
        if html != self._html:
            self._html = html
            self._place.update(HTML(html))


def state_table(table, base: str | os.PathLike, rows: int | None = 24, log: str = "run.log") -> str:
    """The runs of a sweep as an HTML table: counts, then a row a run with its state, progress and links.

    Args:
        table: a DataFrame of `bpilib.sweeps.sweep.read_states`.
        base: the folder that links start from.
        rows: at most so many, what needs attention first: running, failed, interrupted, finished, waiting; None: all.
        log: name of the log in a run directory, linked where a run failed.

    Returns:
        HTML without scripts.
    """
    counts = table["state"].value_counts()
    head = " &emsp; ".join(
        f'<span style="color:{color}">{sign}</span> {counts[state]} {state}'
        for state, (sign, color) in STATES.items() if state in counts
    )  # fmt: skip
    order = list(STATES)
    shown = table.iloc[np.argsort([order.index(state) for state in table["state"]], kind="stable")[:rows]]
    if rows is None:
        shown = table
    names = [name for name in RUN_KEYS if table[name].nunique() > 1]
    names = names or ["model", "modality", "seed"]
    accuracy = next(name for name in _ACCURACIES if name in table)
    columns = [*names, "state", "epoch", _ACCURACIES[accuracy], "starts", ""]
    cells = [_row(row, names, accuracy, base, log) for row in shown.to_dict("records")]
    body = "".join(f"<tr>{''.join(f'<td style={chr(34)}{_CELL}{chr(34)}>{c}</td>' for c in row)}</tr>" for row in cells)
    top = "".join(f'<th style="{_CELL}">{column}</th>' for column in columns)
    rest = len(table) - len(shown)
    more = f'<div style="opacity:.7;padding:4px 10px">… and {rest} more</div>' if rest else ""
    return (
        f'<div style="padding:4px 10px"><b>{len(table)} runs</b> &emsp; {head}</div><div style="overflow-x:auto">'
        f'<table style="border-collapse:collapse;margin:0"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{more}"
    )


def _row(row: dict, names: list[str], accuracy: str, base: str | os.PathLike, log: str) -> list[str]:
    """The cells of a run; `accuracy` names that of its last evaluation."""
    sign, color = STATES[row["state"]]
    share = 100 * row["epoch"] / row["epochs"]
    bar = (
        f'<div style="width:90px;height:5px;border-radius:3px;background:rgba(128,128,128,.25)"><div style="width:'
        f'{share:.0f}%;height:5px;border-radius:3px;background:{color}"></div></div>'
    )
    top1 = "" if np.isnan(row[accuracy]) else f"{row[accuracy]:.1f} %"
    files = [("notebook", os.path.join(row["folder"], "02_train.ipynb"))]
    files += [("log", os.path.join(row["folder"], log))] if row["state"] == "failed" else []
    links = [
        f'<a href="{escape(os.path.relpath(path, base))}" target="_blank" style="color:#2F80C8">{name}</a>'
        for name, path in files if os.path.exists(path)
    ]  # fmt: skip
    message = str(row["message"])
    if message and row["state"] in ("failed", "interrupted"):
        short = message if len(message) < 90 else message[:88] + "…"
        links.append(f'<span title="{escape(message)}" style="white-space:normal">{escape(short)}</span>')
    return [
        *(escape(str(row[name])) for name in names), f'<span style="color:{color}">{sign} {row["state"]}</span>',
        f"{row['epoch']} of {row['epochs']}{bar}", top1, str(row["starts"] or ""), " · ".join(links),
    ]  # fmt: skip
