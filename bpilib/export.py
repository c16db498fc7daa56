"""Exports a trained classifier to files that can be used without this package.

export/classifier.onnx, classifier.pt2   x float32 (N, 3, T, V, M) → logits float32 (N, K), any N
export/classifier.json                   their metadata, and the result of comparing them with PyTorch
export/published.pt                      the weights under the published names
"""

import functools
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpilib.classify import OPENERS, Logits, Network, describe
from bpilib.errors import did_you_mean
from bpilib.reference import reference_state_dict
from bpilib.rounding import Sample, sample_clips
from bpilib.runs import Run
from bpilib.system.files import write_atomically

FILES = {"onnx": "classifier.onnx", "pt2": "classifier.pt2", "published": "published.pt"}


def export_run(run: Run, what: str = "all") -> dict[str, Path]:
    """Write a run's classifier to the folder `export` of its run directory.

    Before they are written, the files are loaded and run on test clips, one alone and several at once: their logits
    must equal those of the trained network up to 1e-4 of the largest difference between two clips, or more, up to
    1e-2, in a network that amplifies float32's roundings (`bpilib.rounding`).

    Args:
        run: from `open_run`.
        what: "onnx", "pt2" (torch.export), "published" (a state dict for the published code, which expects embeddings
            of CLIP's width in gap and bpi), or "all".

    Returns:
        what → its file.

    Raises:
        ValueError: unknown `what`; logits that differ (nothing is written then).
    """
    if what not in (*FILES, "all"):
        hint = did_you_mean(what, [*FILES, "all"])
        raise ValueError(f"export: expected {', '.join(FILES)} or all, got {what!r}{hint}")
    wanted = [name for name in FILES if what in (name, "all")]
    about = describe(run)
    contents: dict[str, bytes] = {}
    found: dict[str, float] = {}  # file → its largest difference from PyTorch
    if {"onnx", "pt2"} & {*wanted}:
        clips = sample_clips(run)
        program = _export_program(run, clips.x)
    for name in wanted:
        if name == "published":
            state = {key: tensor.cpu() for key, tensor in reference_state_dict(run.model).items()}
            contents[name] = _save_to_bytes(functools.partial(torch.save, state))
            continue
        contents[name] = _save_onnx(program, about) if name == "onnx" else _save_pt2(program, about)
        network, _ = OPENERS[f".{name}"](contents[name])
        found[name] = _measure_difference(FILES[name], network, clips)
    folder = run.config.run_directory / "export"
    paths = {name: write_atomically(folder / FILES[name], content) for name, content in contents.items()}
    if found:
        unit = "the largest difference between two clips' logits"
        check = {"unit": unit, "clips": len(clips.x), "at most": clips.noise, **found}
        sheet = about | {"difference from PyTorch": check, "torch": torch.__version__}
        write_atomically(folder / "classifier.json", json.dumps(sheet, indent=1) + "\n")
    return paths


def _export_program(run: Run, x: Tensor) -> torch.export.ExportedProgram:
    """Export the network as a program for any number of clips."""
    module = Logits(run.model).cpu()
    program = torch.export.export(module, (x,), dynamic_shapes={"x": {0: torch.export.Dim("N", min=1)}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of this machine
    return program


def _save_to_bytes(save: Callable[[io.BytesIO], object]) -> bytes:
    """The bytes that a function writes to a file."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _save_pt2(program: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    extra = {"classifier.json": json.dumps(about)}
    return _save_to_bytes(lambda file: torch.export.save(program, file, extra_files=extra))


def _save_onnx(program: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about the exporter itself
        made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["x"], output_names=["logits"])
    proto = made.model_proto
    graph = proto.graph
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        entry.ClearField("metadata_props")  # the exporter's notes
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return proto.SerializeToString()


def _measure_difference(file: str, network: Network, clips: Sample) -> float:
    """The largest difference of a file's logits from the network's, relative to that between two clips.

    Raises:
        ValueError: it exceeds what roundings may do.
    """
    got = np.concatenate([network(clips.x[:1].numpy()), network(clips.x[1:].numpy())])
    difference = float(np.abs(got - clips.logits).max()) / clips.scale
    if not difference <= clips.noise:
        raise ValueError(
            f"{file}: its logits differ from PyTorch's by {difference:.1e} of the difference between clips, "
            f"at most {clips.noise:.1e} expected; nothing was written. Another version of torch, onnx or onnxruntime "
            "may do better"
        )
    return difference
