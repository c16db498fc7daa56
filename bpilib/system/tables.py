"""Tables as people read them: HTML in notebooks and LaTeX for papers. Every heading and cell is escaped here."""

import html
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from bpilib.system.files import write_atomically

_LATEX_SIGNS = {"±": r"$\pm$", "–": "--", "−": "$-$", "→": r"$\rightarrow$", "×": r"$\times$", "·": r"$\cdot$"}


def number_table(table: pd.DataFrame, precision: int = 2, missing: str = "–") -> Styler:
    """A table of names and numbers for a notebook, without its index.

    Args:
        table: names and numbers; other objects are shown as text.
        precision: decimals of the numbers.
        missing: shown for NaN and None.
    """
    style = _escaped(table.reset_index(drop=True))
    return style.format(precision=precision, na_rep=html.escape(missing)).hide(axis="index")


def text_table(table: pd.DataFrame) -> Styler:
    """A table of texts for a notebook, left-aligned; rows have a heading if the index has a name."""
    left = [{"selector": "th, td", "props": [("text-align", "left")]}]
    name = table.index.name
    if name is None:
        return _escaped(table.reset_index(drop=True)).set_table_styles(left).hide(axis="index")
    named = table.rename_axis(index=None, columns=html.escape(str(name)))
    return _escaped(named).set_table_styles(left)


def _escaped(table: pd.DataFrame) -> Styler:
    """The style of a copy whose index, headings and cells are HTML-escaped texts; numbers stay numbers."""
    safe = table.map(_escape_cell)
    safe.index = pd.Index([html.escape(str(label)) for label in table.index], name=table.index.name)
    safe.columns = pd.Index([html.escape(str(label)) for label in table.columns], name=table.columns.name)
    return safe.style


def _escape_cell(value: Any) -> Any:
    number = isinstance(value, int | float | np.number | np.bool_)
    return value if number or value is None else html.escape(str(value))


def write_latex(table: pd.DataFrame, path: str | Path, precision: int = 2) -> Path:
    r"""Write a table for `\input` in a paper: a tabular with booktabs rules, escaped; numbers are right-aligned.

    Args:
        table: headings, texts and numbers; its index is left out.
        path: of the .tex file, written atomically.
        precision: decimals of the numbers.

    Returns:
        The path.
    """
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numeric)}}}",
        r"\toprule",
        " & ".join(escape_latex(name) for name in table) + r" \\",
        r"\midrule",
    ]
    for row in table.itertuples(index=False, name=None):
        lines.append(" & ".join(_latex_cell(value, precision) for value in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return write_atomically(path, "\n".join(lines) + "\n")


def _latex_cell(value: Any, precision: int) -> str:
    if value is None or value != value:  # NaN
        return "--"
    return escape_latex(f"{value:.{precision}f}" if isinstance(value, float) else str(value))


def escape_latex(text: Any) -> str:
    """A text in one line with LaTeX's special characters escaped, so that none of it is read as a command."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"}
    line = " ".join(str(text).split())
    return "".join(special.get(sign) or _LATEX_SIGNS.get(sign) or sign for sign in line if sign.isprintable())


def plus_minus(mean: float, deviation: float, precision: int = 2) -> str:
    """ "71.25 ± 0.40"; the mean alone where the deviation is NaN; "–" without a mean."""
    if mean != mean:
        return "–"
    return f"{mean:.{precision}f}" + ("" if deviation != deviation else f" ± {deviation:.{precision}f}")


def interval(low: float, high: float, precision: int = 1) -> str:
    """ "68.1–74.2"; "–" for NaN."""
    return "–" if low != low else f"{low:.{precision}f}–{high:.{precision}f}"
