"""The networks: CTR-GCN, GAP and BPI, from clips to class scores and embeddings."""

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from bpilib.gcn import CTRGCN
from bpilib.interaction import PartInteraction
from bpilib.skeleton import MODALITIES, Skeleton

MODELS = ("ctrgcn", "gap", "bpi")


class Output(NamedTuple):
    """What a network returns; what it does not have is None.

    Attributes:
        logits: (N, K) class scores.
        global_embedding: (N, D), of the whole body.
        part_embeddings: (N, P, D), in the order of `skeleton.parts(modality, model)`.
        logit_scale: (1+P,) scales of the contrastive logits as the loss uses them, the global one first.
        attention: by part, (N, heads, Vq, Vk); BPI only, on request.
        attention_joints: by part, the joint indices of the attention's query and key axes.
    """

    logits: Tensor
    global_embedding: Tensor | None = None
    part_embeddings: Tensor | None = None
    logit_scale: Tensor | None = None
    attention: dict[str, Tensor] | None = None
    attention_joints: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None


def _full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """A context without autocast on the device of x: bones are small differences of large coordinates."""
    if not torch.is_autocast_enabled(x.device.type):  # no context then, which an exported graph would contain
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


class CTRGCNClassifier(nn.Module):
    """CTR-GCN: the backbone and a linear classifier on the feature's mean over frames, joints and persons.

    Attributes:
        config: of a network of `bpilib.reference.from_pretrained`, what is known of it; else None.
        prepare: of such a network, from a raw clip (L, M, V, 3) to its input (1, 3, T, V, M) float32; else None.
    """

    parts: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    prepare: Callable[[np.ndarray], Tensor] | None = None

    def __init__(
        self,
        skeleton: Skeleton,
        num_classes: int,
        num_persons: int,
        width: int,
        k: int | None,
        true_bones: bool = False,
    ):
        super().__init__()
        self.skeleton = skeleton
        self.num_persons = num_persons
        self.num_classes = num_classes
        self.k = k
        self.backbone = CTRGCN(torch.from_numpy(skeleton.adjacency()), num_persons, width)
        self.classifier = nn.Linear(self.backbone.channels, num_classes)
        nn.init.normal_(self.classifier.weight, 0, math.sqrt(2 / num_classes))
        nn.init.zeros_(self.classifier.bias)
        operator = None if k is None else skeleton.bone_operator(k, true_bones)
        if operator is not None and np.array_equal(operator, np.eye(skeleton.num_joints)):
            operator = None
        operator = None if operator is None else torch.from_numpy(operator)
        self.register_buffer("bone_operator", operator, persistent=False)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, T, V, M) to the pooled feature (N, C) and the tokens (N, V, C), means over T and M."""
        v, m = self.skeleton.num_joints, self.num_persons
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[3:] != (v, m):
            raise ValueError(
                f"expected x of shape (N, 3, T, {v}, {m}) for the {self.skeleton.name} skeleton, got {tuple(x.shape)}: "
                "build the model for this skeleton and num_persons, or check the feeder"
            )
        if self.bone_operator is not None:
            with _full_precision(x):
                x = torch.einsum("uv,nctvm->nctum", self.bone_operator, x)
        tokens = self.backbone(x).float().mean((1, 3))  # (N, M, C, T/4, V) to (N, C, V)
        tokens = tokens.transpose(1, 2)  # (N, V, C)
        return tokens.mean(1), tokens

    def forward(self, x: Tensor, return_attention: bool = False) -> Output:
        """Classify clips.

        Args:
            x: (N, 3, T, V, M) float32, any T.
            return_attention: BPI alone has attention; asked of another model, raises.

        Raises:
            ValueError: wrong shape, or attention asked of a model without it.
        """
        if return_attention:
            raise ValueError("only the bpi model has attention: build_model('bpi', ...)")
        return Output(self.classifier(self.features(x)[0]))

    def fuse(self) -> Self:
        """A copy for inference alone: BatchNorm folded into the convolutions, the same numbers in less time.

        Its state dict is another; train, save and load the network itself.
        """
        fused = copy.deepcopy(self).eval().requires_grad_(False)
        for block in fused.backbone.blocks:
            block.fold()
        return fused


def _he_linear(channels_in: int, channels_out: int) -> nn.Linear:
    """A Linear initialised as the published heads are: He over the fan-out."""
    linear = nn.Linear(channels_in, channels_out)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    nn.init.zeros_(linear.bias)
    return linear


def other_joints(parts: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """The joints of all parts but one, in order."""
    return tuple(joint for other, joints in parts.items() if other != name for joint in joints)


class JointIndices(nn.Module):
    """The joints of each part, and those of the others, as tensors on the network's device.

    Indices that are Python lists would be copied to a GPU in every step, which waits for the GPU each time.
    """

    def __init__(self, parts: dict[str, tuple[int, ...]]):
        super().__init__()
        self.parts = tuple(parts)
        for name, joints in parts.items():
            self.register_buffer(f"own_{name}", torch.tensor(joints), persistent=False)
            self.register_buffer(f"others_{name}", torch.tensor(other_joints(parts, name)), persistent=False)

    def forward(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By part: (Vq,) int64 of its own joints, (Vk,) of the others'."""
        own = {name: getattr(self, f"own_{name}") for name in self.parts}
        return own, {name: getattr(self, f"others_{name}") for name in self.parts}


class GAPClassifier(CTRGCNClassifier):
    """GAP: a global and four part embeddings, each a linear map of the feature's mean over the part's joints.

    Source: Xiang et al., "Generative Action Description Prompts for Skeleton-based Action Recognition", ICCV 2023.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        num_classes: int,
        num_persons: int,
        width: int,
        k: int | None,
        parts: dict[str, tuple[int, ...]],
        embed_dim: int,
        true_bones: bool = False,
        attention: str = "learned",
    ):
        super().__init__(skeleton, num_classes, num_persons, width, k, true_bones)
        self.even_attention = attention == "even"
        self.part_joints = parts
        self.parts = tuple(parts)
        self.joint_indices = JointIndices(parts)
        self.global_head = _he_linear(self.backbone.channels, embed_dim)
        self.part_heads = nn.ModuleDict({name: self._part_head(embed_dim) for name in parts})
        self.stored_scale = nn.Parameter(torch.full((1 + len(parts),), math.log(1 / 0.07)))

    def _part_head(self, embed_dim: int) -> nn.Module:
        return _he_linear(self.backbone.channels, embed_dim)

    @property
    def logit_scale(self) -> Tensor:
        """(1+P,), used as stored."""
        return self.stored_scale

    def _part_embeddings(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (N, V, C) to (N, P, D) and attention by part (none)."""
        own, _ = self.joint_indices()
        heads = [head(tokens[:, own[name]].mean(1)) for name, head in self.part_heads.items()]
        return torch.stack(heads, 1), {}

    def forward(self, x: Tensor, return_attention: bool = False) -> Output:
        """As `CTRGCNClassifier.forward`, with the embeddings and, on request, the attention."""
        if return_attention and not isinstance(self, BPIClassifier):
            return super().forward(x, return_attention)
        pooled, tokens = self.features(x)
        embeddings, attention = self._part_embeddings(tokens)
        return Output(
            self.classifier(pooled),
            self.global_head(pooled),
            embeddings,
            self.logit_scale,
            attention if return_attention else None,
            self.attention_joints if return_attention else None,
        )


class BPIClassifier(GAPClassifier):
    """BPI: the part embeddings come from cross-attention between torso, arm and leg.

    Source: "Modeling Body Part Interactions for Skeleton-Text Contrastive Learning in Action Recognition".
    """

    def _part_head(self, embed_dim: int) -> nn.Module:
        return PartInteraction(self.backbone.channels, embed_dim, even=self.even_attention)

    @property
    def logit_scale(self) -> Tensor:
        """(1+P,), the exponential of what is stored."""
        return self.stored_scale.exp()

    @property
    def attention_joints(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """By part: its own joints (queries) and those of the other parts in order (keys)."""
        return {name: (joints, other_joints(self.part_joints, name)) for name, joints in self.part_joints.items()}

    def _part_embeddings(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        own, others = self.joint_indices()
        seen = {name: head(tokens[:, own[name]], tokens[:, others[name]]) for name, head in self.part_heads.items()}
        embeddings = torch.stack([embedding for embedding, _ in seen.values()], 1)
        return embeddings, {name: attention for name, (_, attention) in seen.items()}


def build_model(
    name: str,
    skeleton: Skeleton,
    num_classes: int,
    modality: str = "joint",
    num_persons: int | None = None,
    embed_dim: int = 512,
    k: int | None = None,
    width: int = 64,
    attention: str = "learned",
    true_bones: bool = False,
) -> CTRGCNClassifier:
    """Build a network.

    Args:
        name: "ctrgcn", "gap" or "bpi".
        skeleton: NTU or UCLA of `bpilib.skeleton`.
        num_classes: K.
        modality: "joint", "bone", "joint_motion" or "bone_motion"; chooses part lists and k. GAP and BPI are fed
            joint or joint_motion and make the bones themselves; CTR-GCN is fed the modality.
        num_persons: M; the skeleton's own where None.
        embed_dim: D, the text encoder's (512 for CLIP ViT-B/32).
        k: exponent of the bone operator; None for the published one. CTR-GCN has none.
        width: channels of the first blocks; 64 as published.
        attention: of BPI; "learned", or "even" for the same share of every joint (`PartInteraction`).
        true_bones: of GAP and BPI; see `Skeleton.bone_operator`.

    Raises:
        ValueError: unknown name, modality or attention, k given to CTR-GCN, impossible width.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    if attention not in ("learned", "even"):
        raise ValueError(f"unknown attention {attention!r}: expected learned or even")
    if name == "ctrgcn" and k is not None:
        raise ValueError(f"ctrgcn has no bone operator, but k={k} was given: leave k at None")
    persons = skeleton.persons if num_persons is None else num_persons
    if name == "ctrgcn":
        return CTRGCNClassifier(skeleton, num_classes, persons, width, None)
    network = {"gap": GAPClassifier, "bpi": BPIClassifier}[name]
    k = skeleton.default_k(modality) if k is None else k
    parts = skeleton.parts(modality, name)
    return network(skeleton, num_classes, persons, width, k, parts, embed_dim, true_bones, attention)
