"""Whether values can be those of parameters; errors name the parameter and the nearest thing that is known."""

import math
import types
import typing
from pathlib import Path
from typing import Any

from bpilib.config.parameters import FIELDS
from bpilib.errors import did_you_mean
from bpilib.system.device import pick_device


def check_value(name: str, value: Any) -> Any:
    """`value` as parameter `name` holds it, or ValueError."""
    if name not in FIELDS:
        raise ValueError(f"unknown parameter {name!r}{did_you_mean(name, FIELDS)} (known: {', '.join(FIELDS)})")
    field = FIELDS[name]
    if name == "compile" and isinstance(value, bool):  # as files have it that were written when it was yes or no
        value = "default" if value else "none"
    kinds = list(typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,))
    if field.metadata["optional"]:
        kinds.append(types.NoneType)
    plain = [typing.get_origin(kind) or kind for kind in kinds]
    if isinstance(value, Path) and str in plain:
        value = str(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in plain:
        value = float(value)
    fits = type(value) in plain
    if fits and isinstance(value, list):
        item = typing.get_args(next(kind for kind in kinds if typing.get_origin(kind) is list))[0]
        fits = all(type(entry) is item for entry in value)
    if not fits:
        wanted = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in plain)
        raise ValueError(
            f"parameter {name}: expected {wanted}, got {type(value).__name__} {value!r}{_papermill_hint(plain, value)}"
        )
    choices = field.metadata["choices"]
    if choices and value is not None and value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"parameter {name}: unknown {value!r}{did_you_mean(value, choices)} (expected one of {known})")
    return value


def _papermill_hint(wanted: list[type], value: Any) -> str:
    """How papermill's command line passes a value of the wanted types, if it may have passed this one as another."""
    if isinstance(value, str) and float in wanted:
        return ": in YAML write 1.0e-4, since 1e-4 arrives as text"
    if isinstance(value, str) and list in wanted:
        return ": papermill's -p passes a list as text; pass it with -y, such as -y 'steps: [90, 100]'"
    if isinstance(value, int | float) and str in wanted:
        return ": papermill's -p passes what looks like a number as a number; pass text with -r, such as -r tag 2"
    return ""


def check_values(values: dict[str, Any]) -> None:
    """ValueError where a number is outside its limits, a name unfit for a path, or one value rules out another."""
    for name, field in FIELDS.items():
        value, facts = values[name], field.metadata
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_limits(name, value, facts["at_least"], facts["above"], facts["below"])
    check_names(values)
    if values["model"] == "ctrgcn" and values["k"] is not None:
        raise ValueError("parameter k: ctrgcn has no bone operator; leave k at None")
    if values["kernel"] == "triton" and (values["compile"] != "none" or pick_device(values["device"]).type != "cuda"):
        raise ValueError(
            "parameter kernel: triton runs on NVIDIA GPUs, and not together with the parameter compile; "
            f"device is {pick_device(values['device'])}, compile {values['compile']}: leave kernel at plain"
        )
    if values["test_yaw"] is not None and not values["test_yaw"]:
        raise ValueError("parameter test_yaw: expected at least one angle, or None for clips as they are")
    if values["heldout_view"] is not None and values["heldout_by"] != "view":
        raise ValueError(f"parameter heldout_view: set heldout_by to view, it is {values['heldout_by']}")


def check_names(values: dict[str, Any]) -> None:
    """ValueError where what becomes part of a path has other than plain characters."""
    for name, field in FIELDS.items():
        fits, value = field.metadata["fits"], values[name]
        if fits is not None and value is not None and not fits.fullmatch(value):
            raise ValueError(f"parameter {name}: expected letters, digits, '.', '_' or '-', got {value!r}")


def _check_limits(name: str, value: float, at_least: float, above: float, below: float) -> None:
    """ValueError where a number is outside its limits, infinite, or not a number."""
    if math.isfinite(value) and at_least <= value < below and value > above:
        return
    limits = [f"at least {at_least:g}"] if math.isfinite(at_least) else []
    limits += [f"more than {above:g}"] if math.isfinite(above) else []
    limits += [f"less than {below:g}" if below < 1 << 20 else f"less than {below:,}"] if math.isfinite(below) else []
    raise ValueError(f"parameter {name}: expected {' and '.join(limits) or 'a finite number'}, got {value}")
