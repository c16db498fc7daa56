"""LaTeX that compiles whatever the names are; numbers as a paper has them. HTML: tests/test_html_outlets.py."""

import math

import numpy as np
import pandas as pd

from bpilib.system.tables import escape_latex, interval, plus_minus, write_latex


def test_a_latex_table_has_booktabs_rules_and_escaped_cells(tmp_path):
    table = pd.DataFrame({"Model & streams": ["bpi_joint", "50 % $x$"], "Seeds": [3, 1], "Top-1 (%)": [71.256, np.nan]})
    assert write_latex(table, tmp_path / "t" / "table.tex").read_text() == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "Model \\& streams & Seeds & Top-1 (\\%) \\\\\n"
        "\\midrule\n"
        "bpi\\_joint & 3 & 71.26 \\\\\n"
        "50 \\% \\$x\\$ & 1 & -- \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_no_name_is_read_as_a_command():
    hostile = "\\input{/etc/passwd}\n% ^^5cinput ~ # {a} _b_ & \x07"
    found = escape_latex(hostile)
    assert "\n" not in found and "\x07" not in found
    rest = found
    for harmless in (
        r"\textbackslash{}",
        r"\textasciicircum{}",
        r"\textasciitilde{}",
        r"\%",
        r"\#",
        r"\{",
        r"\}",
        r"\_",
        r"\&",
    ):
        rest = rest.replace(harmless, "")
    assert not set(rest) & set("\\%#{}_&~^")
    assert escape_latex("bow → kick, 1–2 ± 3") == r"bow $\rightarrow$ kick, 1--2 $\pm$ 3"


def test_numbers_of_a_paper():
    assert plus_minus(71.2549, 0.4) == "71.25 ± 0.40"
    assert plus_minus(71.2549, math.nan, 1) == "71.3" and plus_minus(math.nan, 1.0) == "–"
    assert interval(68.14, 74.26) == "68.1–74.3" and interval(math.nan, 1.0) == "–"
