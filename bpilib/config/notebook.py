"""Reads what a notebook's parameters cell sets."""

import ast
from typing import Any

from bpilib.config.resolution import Config, resolve


def from_notebook(namespace: dict[str, Any]) -> Config:
    """`resolve` with what a notebook's parameters cell and papermill's injected cell set.

    Papermill only warns of a mistyped name; here it raises. The names are read from the cells' source, so that
    other variables of a session, and cells run twice, do no harm.

    Args:
        namespace: the notebook's `globals()`.
    """
    sources = namespace.get("In", [])
    names: dict[str, None] = {}
    for heading in ("# parameters", "# Parameters"):  # the notebook's own cell, papermill's
        last = next((source for source in reversed(sources) if source.lstrip().startswith(heading)), "")
        for statement in ast.parse(last).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
            names |= {target.id: None for target in targets if isinstance(target, ast.Name)}
    if not names:
        raise ValueError("no parameters found: run the cell that begins with '# parameters' before this one")
    return resolve(**{name: namespace[name] for name in names})
