"""Loads weights saved by the published CTR-GCN, GAP and BPI code, and saves ours under the published names."""

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bpilib.config import Config
from bpilib.errors import MissingInputError
from bpilib.model import BPIClassifier, CTRGCNClassifier, GAPClassifier
from bpilib.ops.topology_refinement import SUBSETS
from bpilib.pretrained import from_pretrained as from_pretrained
from bpilib.pretrained.importing import import_once
from bpilib.runs import Run, build
from bpilib.skeleton import SKELETONS
from bpilib.system import checkpoint

CLIP_NAME = "ViT-B/32"  # part of the published names of the global head
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
OURS = {"format", "sha256", "content"}  # keys of a checkpoint of this workbench
FIRST = "data_bn.weight"  # in every published state dict; what stands before it, stands before all names
RESTING = 0.3  # standard deviations from 0 that the mean of a motion has at most; of real ones 0.03, of poses 2.5 up
SHORT = 0.85  # of what is above it, by which a hand or foot is a bone; of real bones 0.3, of joints 1.1
STILL = 1e-6  # of the typical square, by which a bone is that of the root
Place = tuple[str, str, Any]  # published name, our name, index into our tensor


def _place_batch_norm(published: str, ours: str, index: Any = slice(None)) -> list[Place]:
    places: list[Place] = [(f"{published}.{leaf}", f"{ours}.{leaf}", index) for leaf in BATCH_NORM]
    return [*places, (f"{published}.num_batches_tracked", f"{ours}.num_batches_tracked", ())]


def _place_linear(published: str, ours: str, index: Any = slice(None)) -> list[Place]:
    return [(f"{published}.{leaf}", f"{ours}.{leaf}", index) for leaf in ("weight", "bias")]


def _place_block(number: int, model: CTRGCNClassifier) -> list[Place]:
    block = model.backbone.blocks[number]
    published, ours = f"l{number + 1}", f"backbone.blocks.{number}"
    gcn, spatial = f"{published}.gcn1", f"{ours}.spatial"
    tcn, temporal = f"{published}.tcn1.branches", f"{ours}.temporal"
    r = block.spatial.rank
    q = block.spatial.channels // 4
    places: list[Place] = [
        (f"{gcn}.PA", f"{spatial}.adjacency", slice(None)),
        (f"{gcn}.alpha", f"{spatial}.alpha", slice(None)),
        *_place_batch_norm(f"{gcn}.bn", f"{spatial}.bn"),
    ]
    for s in range(SUBSETS):
        conv = f"{gcn}.convs.{s}"
        places += _place_linear(f"{conv}.conv1", f"{spatial}.relate", slice(s * r, (s + 1) * r))
        places += _place_linear(f"{conv}.conv2", f"{spatial}.relate", slice((SUBSETS + s) * r, (SUBSETS + s + 1) * r))
        places += _place_linear(f"{conv}.conv3", f"{spatial}.transform", slice(s, None, SUBSETS))
        places += [(f"{conv}.conv4.weight", f"{spatial}.expand_weight", (s, ..., None, None))]  # (C, R, 1, 1)
        places += [(f"{conv}.conv4.bias", f"{spatial}.expand_bias", s)]
    if block.spatial.down is not None:
        places += _place_linear(f"{gcn}.down.0", f"{spatial}.down.0")
        places += _place_batch_norm(f"{gcn}.down.1", f"{spatial}.down.1")
    for b in range(3):
        places += _place_linear(f"{tcn}.{b}.0", f"{temporal}.reduce", slice(b * q, (b + 1) * q))
        places += _place_batch_norm(f"{tcn}.{b}.1", f"{temporal}.reduce_bn", slice(b * q, (b + 1) * q))
    for b in range(2):
        conv = f"{tcn}.{b}.3.conv"
        places.append((f"{conv}.weight", f"{temporal}.convs.{b}.weight", (..., 0, slice(None), None)))  # (q, q, 5, 1)
        places.append((f"{conv}.bias", f"{temporal}.convs.{b}.bias", slice(None)))
    places += _place_linear(f"{tcn}.3.0", f"{temporal}.skip")
    for b, name in enumerate(("0.3.bn", "1.3.bn", "2.4", "3.1")):
        places += _place_batch_norm(f"{tcn}.{name}", f"{temporal}.bn", slice(b * q, (b + 1) * q))
    if block.shortcut is not None:
        places += _place_linear(f"{published}.residual.conv", f"{ours}.shortcut.0")
        places += _place_batch_norm(f"{published}.residual.bn", f"{ours}.shortcut.1")
    return places


def _list_places(model: CTRGCNClassifier) -> list[Place]:
    """List where each tensor of the published state dict is in ours."""
    places = _place_batch_norm("data_bn", "backbone.data_bn") + _place_linear("fc", "classifier")
    for number in range(len(model.backbone.blocks)):
        places += _place_block(number, model)
    if isinstance(model, GAPClassifier):
        places.append(("logit_scale", "stored_scale", None))  # (1, 1+P)
        places += _place_linear(f"linear_head.{CLIP_NAME}", "global_head")
    if isinstance(model, BPIClassifier):
        leaves = {"wq": "query", "wk": "key", "wv": "value", "layer_norm": "norm", "proj": "project"}
        for number, part in enumerate(("torso", "arm", "leg"), 1):
            for theirs, mine in leaves.items():
                places += _place_linear(f"cross_part.CA{number}.{theirs}", f"part_heads.{part}.{mine}")
    elif isinstance(model, GAPClassifier):
        for number, part in enumerate(("head", "hand", "foot", "hip")):
            places += _place_linear(f"part_list.{number}", f"part_heads.{part}")
    return places


def is_same_shape(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ at most in axes of length 1, as the published layout and ours do."""
    return [length for length in one.shape if length != 1] == [length for length in other.shape if length != 1]


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read the state dict in a weight file without running any code in it.

    Raises:
        ValueError: it is damaged, or holds anything but weights.
    """
    try:
        checkpoint.check_pickles(Path(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint.check_size(state, Path(path).stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} does not hold weights only: it is damaged, or holds objects that could run code when read. "
            "Ask its author for a state dict"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"expected a state dict, name to tensor, got {type(state).__name__} in {path}")
    return state


def unwrap_tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a published state dict under their published names, without what wraps them.

    Args:
        content: of a weight file: a state dict, or one in an entry of it; names may stand under "module." and the like.

    Returns:
        name to tensor; {}: none is in it, or it is a checkpoint of this workbench.
    """
    if content.keys() >= OURS:
        return {}
    for _ in WRAPPERS:  # one in another at most
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    tensors = {str(name): torch.as_tensor(value) for name, value in content.items()
               if isinstance(value, Tensor | np.ndarray)}  # fmt: skip
    before = next((name.removesuffix(FIRST) for name in tensors if name.endswith(FIRST)), "module.")
    return {name.removeprefix(before): tensor for name, tensor in tensors.items()}


class Seen(NamedTuple):
    """What the shapes of published weights tell; None where they don't.

    Attributes:
        model: "ctrgcn", "gap" or "bpi".
        classes, joints, persons, width, embed_dim: numbers.
    """

    model: str | None
    classes: int | None
    joints: int | None
    persons: int | None
    width: int | None
    embed_dim: int | None

    def __str__(self) -> str:
        name = f"a {self.model}" if self.model else "no CTR-GCN, GAP or BPI"
        told = ("classes", "joints", "persons", "width", "embed_dim")
        units = {"width": "width {}", "embed_dim": "embeddings of {}"}
        facts = [units.get(key, f"{{}} {key}").format(getattr(self, key)) for key in told if getattr(self, key)]
        return ", ".join([name, *facts])


def look_at(state: dict[str, Tensor]) -> Seen:
    """Read what published weights are of from their shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def length(name: str, axis: int) -> int | None:
        shape = shapes.get(name, ())
        return shape[axis] if -len(shape) <= axis < len(shape) else None

    parts = {"bpi": "cross_part.", "gap": "part_list.", "ctrgcn": "l1.gcn1."}
    model = next((model for model, start in parts.items() if any(name.startswith(start) for name in shapes)), None)
    joints, numbers = length("l1.gcn1.PA", -1), length(FIRST, 0)
    persons = numbers // (3 * joints) if numbers and joints else None
    features, embed_dim = length("fc.weight", 1), length(f"linear_head.{CLIP_NAME}.weight", 0)
    return Seen(model, length("fc.weight", 0), joints, persons, features // 4 if features else None, embed_dim)


def _advise(seen: Seen, here: Seen) -> str:
    """Of weights that do not fit: the parameter to change."""
    if seen.model is None:
        return "name a file saved by the published code, with its state dict"
    if seen.model != here.model:
        return f"set the parameter model to {seen.model!r}"
    joints = {skeleton.num_joints for skeleton in SKELETONS.values()}
    if seen.joints not in joints:
        return f"these joints are of no skeleton here ({' or '.join(map(str, sorted(joints)))} joints)"
    if (seen.classes, seen.joints, seen.persons) != (here.classes, here.joints, here.persons):
        return (
            "set dataset and benchmark to what they were trained on; or, to train them on with your own classes, give "
            "the file to start_from of notebook 02 or 08, which takes what fits"
        )
    if seen.width != here.width:
        return f"set the parameter width to {seen.width}"
    return "build the model they were trained for: name, skeleton, num_classes, num_persons, embed_dim"


def recognise_modalities(state: dict[str, Tensor]) -> tuple[str, ...]:
    """The modalities that published weights may have been trained on, by what their first BatchNorm saw.

    Motion is 0 on average. Of bones the root's is 0 throughout where CTR-GCN is fed them, and hands and feet are short,
    while joints are the farther from the middle the farther out they are.

    Returns:
        of `MODALITIES`; empty: it saw nothing, or the joints are of no skeleton here.
    """
    seen = look_at(state)
    skeleton = next((skeleton for skeleton in SKELETONS.values() if skeleton.num_joints == seen.joints), None)
    mean, var, batches = (state.get(f"data_bn.{leaf}") for leaf in BATCH_NORM[2:] + ("num_batches_tracked",))
    left = 1.0 if batches is None else 0.9 ** int(batches)  # of the mean 0 and the variance 1 that it starts with
    if skeleton is None or not seen.persons or mean is None or var is None or mean.shape != var.shape or left == 1:
        return ()
    mean, var = (each.double().view(seen.persons, -1, 3)[0] for each in (mean, var - left))  # (M,V,3) -> (V,3)
    mean, var = mean / (1 - left), (var / (1 - left)).clamp(min=0)
    motion = bool((mean.abs() < RESTING * var.sqrt() + 1e-12).all())
    squares = (var + mean**2).sum(1)
    at = {name: i for i, name in enumerate(skeleton.joints)}
    limbs = [[squares[at[f"{side} {joint}"]].sqrt().item() for joint in limb] for side in ("left", "right")
             for limb in (("elbow", "wrist", "hand"), ("knee", "ankle", "foot"))]  # fmt: skip
    short = float(np.median([min(outer) / (inner or 1) for inner, *outer in limbs])) < SHORT
    if seen.model == "ctrgcn":
        bones = bool((squares < STILL * squares.median()).any())
        return (("bone" if bones else "joint") + ("_motion" if motion else ""),)
    if motion and not short:  # noise of hands and feet moves as much as they do
        return "joint_motion", "bone_motion"
    return (("bone" if short else "joint") + ("_motion" if motion else ""),)


def load_reference_weights(model: CTRGCNClassifier, source: str | Path | dict[str, Tensor]) -> None:
    """Load a published state dict into a model of ours, in place.

    Args:
        model: from `build_model`, with the skeleton, classes and persons the weights were trained with.
        source: a file saved by the published code (read with weights_only=True), or its content; see
            `unwrap_tensors`.

    Raises:
        ValueError: names or shapes that do not match, each listed; the model is then unchanged.
    """
    content = source if isinstance(source, dict) else read_weights(source)
    state = unwrap_tensors(content)
    if not state:
        listed = ", ".join(map(str, [*content][:8])) or "nothing"
        what = f"no tensors, but {listed}: is the state dict in one of these entries? Save that alone"
        if content.keys() >= OURS:
            what = "a checkpoint of this workbench: name its run by its parameters, it needs no weights_file"
        raise ValueError(f"expected a state dict of the published code, name to tensor; got {what}")
    places = _list_places(model)
    own = model.state_dict()
    expected = {published for published, _, _ in places}
    problems = [f"missing: {name}" for name in sorted(expected - state.keys())]
    problems += [f"not in this model: {name}" for name in sorted(state.keys() - expected)]
    for published, ours, index in places:
        want, got = own[ours][index], state.get(published)
        if got is not None and not is_same_shape(got, want):
            problems.append(f"{published}: expected shape {tuple(want.shape)} of {ours}, got {tuple(got.shape)}")
    if problems:
        seen, here = look_at(state), look_at(reference_state_dict(model))
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(
            f"these weights do not fit this model: they look like {seen}; this model is {here}. What to do: "
            f"{_advise(seen, here)}\n  " + "\n  ".join(problems[:12]) + more
        )
    with torch.no_grad():
        for published, ours, index in places:
            own[ours][index] = state[published].reshape(own[ours][index].shape).to(own[ours].dtype)


def reference_state_dict(model: CTRGCNClassifier) -> dict[str, Tensor]:
    """Copy the weights of a model from `build_model`, under the published names and in the published shapes."""
    own = model.state_dict()
    return {published: own[ours][index].clone() for published, ours, index in _list_places(model)}


def import_weights(config: Config, file: str | Path) -> Config:
    """Make a run directory from a published weight file, so that notebooks 03, 04 and 05 treat it as a trained run.

    Nothing is trained. The file does not say what it was trained on: dataset, benchmark, model and modality (and k, if
    it is not the published one) have to be right, or accuracy is near chance.

    Args:
        config: of the run; its tag is "published" if it has none.
        file: saved by the published code; see `load_reference_weights`.

    Returns:
        The configuration of that run, for `evaluate` and the like. Its `text` is "none": published files hold no text
        encoder.

    Raises:
        MissingInputError: no prepared data, or no such file.
        ValueError: weights that do not match, each difference listed; the directory holds a run of other weights.
    """
    config = config.changed(tag=config.tag or "published", text="none")
    file = Path(file)
    if not file.is_file():
        raise MissingInputError(f"no weight file at {file}: set weights_file to one saved by the published code")

    def load() -> tuple[Run, dict[str, Any]]:
        run = build(config)
        load_reference_weights(run.model, file)
        seen = recognise_modalities(reference_state_dict(run.model))
        if seen and config.modality not in seen:
            seem = " or ".join(seen)
            warnings.warn(
                f"{file}: what its first layer saw in training looks like {seem}, not like {config.modality}: "
                f"with another modality accuracy is near chance. Set modality to {seem}, tag to another name",
                stacklevel=4,
            )
        return run, {"file": file.name}

    import_once(config, file, hashlib.sha256(file.read_bytes()).hexdigest(), load)
    return config
