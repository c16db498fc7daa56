"""Skeletons: joint names, bones, body parts, adjacency and bone operators of NTU RGB+D and NW-UCLA.

Joints are numbered from 0 here; the sensors' manuals and the published code count from 1.
"""

from dataclasses import dataclass, field

import numpy as np

MODALITIES = ("joint", "bone", "joint_motion", "bone_motion")


def _parse_links(text: str) -> tuple[tuple[int, int], ...]:
    """"1>2 2>21" (child>parent, counted from 1) to ((0, 1), (1, 20))."""
    return tuple((int(c) - 1, int(p) - 1) for c, p in (link.split(">") for link in text.split()))


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


def _parse_numbers(text: str) -> tuple[int, ...]:
    """"0 4-7" to (0, 4, 5, 6, 7)."""
    out: list[int] = []
    for word in text.split():
        first, _, last = word.partition("-")
        out += range(int(first), int(last or first) + 1)
    return tuple(out)


@dataclass(frozen=True)
class Skeleton:
    """A joint set with its tree of bones and its parts.

    Attributes:
        name: "ntu" or "ucla".
        joints: V joint names, in the sensor's order.
        bones: V-1 pairs (child, parent), in the published edge order.
        root: the joint no bone starts from.
        persons: M, the persons of a sample.
        window: T, the frames that networks take.
        joint_k: the exponent k of `bone_operator` of the published joint streams.
        operator_reversed: the published bone operator has the opposite direction (NW-UCLA).
        operator_flips: links whose direction the published bone operator reverses against the graph
            (NTU: upper spine -> middle of spine, which makes the middle of the spine the root).
        part_lists: joint indices by (model, stream, part); read them through `parts`.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    root: int
    persons: int
    window: int
    joint_k: int
    operator_reversed: bool
    operator_flips: tuple[tuple[int, int], ...]
    part_lists: dict[str, dict[str, dict[str, tuple[int, ...]]]] = field(repr=False, hash=False)

    @property
    def num_joints(self) -> int:
        """V."""
        return len(self.joints)

    @property
    def parents(self) -> np.ndarray:
        """(V,) int64, each joint's parent; the root is its own."""
        out = np.arange(self.num_joints)
        for child, parent in self.bones:
            out[child] = parent
        return out

    def parts(self, modality: str = "joint", model: str = "bpi") -> dict[str, tuple[int, ...]]:
        """The joints of each body part, as published, in the published order.

        Args:
            modality: one of joint, bone, joint_motion, bone_motion. The bone lists index the published edge list, not
                the joints; published weights depend on this.
            model: "bpi" (torso, arm, leg) or "gap" (head, hand, hip, foot).

        Raises:
            ValueError: unknown modality, or a model without parts.
        """
        if modality not in MODALITIES:
            raise ValueError(f"unknown modality {modality!r}: expected one of {', '.join(MODALITIES)}")
        if model not in self.part_lists:
            raise ValueError(f"model {model!r} has no body parts: expected one of {', '.join(self.part_lists)}")
        return self.part_lists[model]["bone" if modality.startswith("bone") else "joint"]

    def adjacency(self) -> np.ndarray:
        """(3, V, V) float32: self links, inward [parent, child], outward [child, parent].

        The columns of the last two are normalised to sum 1 (columns without a link stay 0).
        Source: CTR-GCN (Chen et al., ICCV 2021), spatial partition.
        """
        inward = np.zeros((self.num_joints, self.num_joints))
        for child, parent in self.bones:
            inward[parent, child] = 1
        stack = [np.eye(self.num_joints)]
        for graph in (inward, inward.T):
            degree = graph.sum(0, keepdims=True)
            stack.append(graph / np.where(degree > 0, degree, 1))
        return np.stack(stack).astype(np.float32)

    def bone_operator(self, k: int, true_bones: bool = False) -> np.ndarray:
        """(V, V) float32, I - B^k; multiplied by the joints it gives the input of a stream.

        Args:
            k: 1 for the bone streams; 8 (NTU) and 6 (NW-UCLA) for the joint streams, where B^k vanishes
                (on NW-UCLA in all rows but one). At least 1.
            true_bones: use B[child, parent] = 1 (k=1: child minus parent) on NW-UCLA too, where the published
                operator has the opposite direction (k=1: parent minus the sum of its children).

        Source: the published BPI and GAP code.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}: 1 gives bones, {self.joint_k} the joint stream")
        b = np.zeros((self.num_joints, self.num_joints))
        for link in self.bones:
            child, parent = link[::-1] if link in self.operator_flips else link
            b[child, parent] = 1
        if self.operator_reversed and not true_bones:
            b = b.T
        return (np.eye(self.num_joints) - np.linalg.matrix_power(b, k)).astype(np.float32)

    def default_k(self, modality: str) -> int:
        """The published exponent of a modality: 1 for bone streams, `joint_k` for joint streams."""
        return 1 if modality.startswith("bone") else self.joint_k


def _parse_parts(**lists: str) -> dict[str, tuple[int, ...]]:
    return {name: _parse_numbers(text) for name, text in lists.items()}


NTU = Skeleton(
    name="ntu",
    joints=_parse_names(
        "base of spine|middle of spine|neck|head|left shoulder|left elbow|left wrist|left hand|right shoulder|"
        "right elbow|right wrist|right hand|left hip|left knee|left ankle|left foot|right hip|right knee|right ankle|"
        "right foot|upper spine|left hand tip|left thumb|right hand tip|right thumb"
    ),
    bones=_parse_links(
        "1>2 2>21 3>21 4>3 5>21 6>5 7>6 8>7 9>21 10>9 11>10 12>11 13>1 14>13 15>14 16>15 17>1 18>17 19>18 20>19 "
        "22>23 23>8 24>25 25>12"
    ),
    root=20,
    persons=2,
    window=64,
    joint_k=8,
    operator_reversed=False,
    operator_flips=_parse_links("2>21"),
    part_lists={
        "bpi": {
            "joint": _parse_parts(torso="0-4 8 12 16 20", arm="4-11 21-24", leg="12-19"),
            "bone": _parse_parts(torso="0-4 8 12 16", arm="4-11 20 22-24", leg="12-19"),
        },
        "gap": {
            "joint": _parse_parts(head="2 3 20", hand="4-11 21-24", hip="0 1 2 12 16", foot="12-19"),
            "bone": _parse_parts(head="2 3", hand="4-11 20 22-24", hip="0 1 12 16", foot="12-19"),
        },
    },
)

UCLA = Skeleton(
    name="ucla",
    joints=_parse_names(
        "hip centre|spine|shoulder centre|head|left shoulder|left elbow|left wrist|left hand|right shoulder|"
        "right elbow|right wrist|right hand|left hip|left knee|left ankle|left foot|right hip|right knee|right ankle|"
        "right foot"
    ),
    bones=_parse_links(
        "1>2 2>3 4>3 5>3 6>5 7>6 8>7 9>3 10>9 11>10 12>11 13>1 14>13 15>14 16>15 17>1 18>17 19>18 20>19"
    ),
    root=2,
    persons=1,
    window=52,
    joint_k=6,
    operator_reversed=True,
    operator_flips=(),
    part_lists={
        "bpi": {
            "joint": _parse_parts(torso="2 3 0 1 4 8 12 16", arm="10 11 6-9 4 5", leg="16-19 12-15"),
            "bone": _parse_parts(torso="2 0 1 7 3 11 15", arm="7-10 3-6", leg="11-18"),
        },
        "gap": {
            "joint": _parse_parts(head="2 3", hand="10 11 6-9 4 5", hip="0 1 12 16", foot="16-19 12-15"),
            "bone": _parse_parts(head="2", hand="7-10 3-6", hip="0 1 11 15", foot="11-18"),
        },
    },
)

SKELETONS = {skeleton.name: skeleton for skeleton in (NTU, UCLA)}
