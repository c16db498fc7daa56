"""Notebooks executed headless, with parameters that make a training a matter of seconds."""

import json
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SMALL = {"epochs": 2, "repeats": 1, "width": 8, "batch_size": 32, "select": "heldout"}


def run(name: str, folder: Path, **parameters) -> nbformat.NotebookNode:
    """A notebook executed by papermill; the executed copy stays in `folder`, which is its working directory."""
    out = folder / f"{name}_{len(list(folder.glob('*.ipynb')))}.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", out, parameters=parameters, progress_bar=False, cwd=str(folder)
    )
    notebook = nbformat.read(out, 4)
    assert all(o.output_type != "error" for cell in notebook.cells for o in cell.get("outputs", []))
    return notebook


def small_sweep(there: dict[str, str], folder: Path, **parameters) -> Path:
    """A table of two runs of one epoch, for 06; `parameters` of both are set too."""
    common = {"dataset": "synthetic", "data": there["data"], "text": "minilm", "tag": "sweep", "device": "cpu"}
    common |= {"epochs": 1, "repeats": 1, "width": 8} | parameters
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.yaml"
    table.write_text(json.dumps({"defaults": common, "grid": {"modality": ["joint", "bone"]}}))
    return table
