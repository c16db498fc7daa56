"""Joints, bones, parts, graphs and bone operators: equal to the published ones, and sane."""

import numpy as np
import pytest

from bpilib.skeleton import MODALITIES, NTU, SKELETONS, UCLA

BOTH = pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)


@pytest.fixture(scope="module")
def graphs(golden):
    return golden("graphs")


def test_sizes():
    assert (NTU.num_joints, NTU.persons, NTU.window, NTU.root) == (25, 2, 64, 20)
    assert (UCLA.num_joints, UCLA.persons, UCLA.window, UCLA.root) == (20, 1, 52, 2)
    assert SKELETONS == {"ntu": NTU, "ucla": UCLA}


@BOTH
def test_joint_names_are_distinct_and_the_bones_are_one_tree(skeleton):
    assert len(set(skeleton.joints)) == skeleton.num_joints
    children = [child for child, _ in skeleton.bones]
    assert sorted([*children, skeleton.root]) == list(range(skeleton.num_joints))
    parents = skeleton.parents
    assert parents[skeleton.root] == skeleton.root
    for joint in range(skeleton.num_joints):
        for _ in range(skeleton.num_joints):
            joint = parents[joint]
        assert joint == skeleton.root


def test_joint_names_meet_where_the_sensors_place_them():
    for skeleton, pairs in (
        (NTU, {"head": "neck", "left elbow": "left shoulder", "right foot": "right ankle", "left hand": "left wrist"}),
        (UCLA, {"head": "shoulder centre", "right knee": "right hip", "left hand": "left wrist"}),
    ):
        names = {skeleton.joints[child]: skeleton.joints[parent] for child, parent in skeleton.bones}
        assert pairs.items() <= names.items()


@BOTH
def test_adjacency_equals_the_published_one(skeleton, graphs):
    adjacency = skeleton.adjacency()
    assert adjacency.shape == (3, skeleton.num_joints, skeleton.num_joints)
    assert adjacency.dtype == np.float32
    np.testing.assert_allclose(adjacency, graphs[f"{skeleton.name}_adjacency"], rtol=0, atol=1e-6)


@BOTH
def test_adjacency_columns_sum_to_one_where_they_have_a_link(skeleton):
    selves, inward, outward = skeleton.adjacency()
    np.testing.assert_array_equal(selves, np.eye(skeleton.num_joints))
    is_child = np.arange(skeleton.num_joints) != skeleton.root
    is_parent = np.isin(np.arange(skeleton.num_joints), [parent for _, parent in skeleton.bones])
    np.testing.assert_allclose(inward.sum(0), is_child, atol=1e-6)
    np.testing.assert_allclose(outward.sum(0), is_parent, atol=1e-6)
    for child, parent in skeleton.bones:
        assert inward[parent, child] == 1
        assert outward[child, parent] > 0
    assert (inward > 0).sum() == (outward > 0).sum() == len(skeleton.bones)


@pytest.mark.parametrize("key", ["ntu_k1", "ntu_k2", "ntu_k8", "ucla_k1", "ucla_k2", "ucla_k6"])
def test_bone_operator_equals_the_published_one(key, graphs):
    name, k = key.split("_k")
    operator = SKELETONS[name].bone_operator(int(k))
    assert operator.dtype == np.float32
    np.testing.assert_array_equal(operator, graphs[key])


def test_the_joint_streams_operator_is_the_identity_but_for_one_row_of_ucla():
    np.testing.assert_array_equal(NTU.bone_operator(NTU.joint_k), np.eye(25))
    changed = UCLA.bone_operator(UCLA.joint_k) - np.eye(20)
    assert np.flatnonzero(changed.any(1)).tolist() == [UCLA.root]
    assert np.flatnonzero(changed[UCLA.root]).tolist() == [15, 19]  # the feet, five links from the root and one off


@BOTH
def test_true_bones_are_child_minus_parent(skeleton):
    poses = np.random.RandomState(0).standard_normal((skeleton.num_joints, 3))
    bones = skeleton.bone_operator(1, true_bones=True) @ poses
    # The published NTU operator hangs its tree from the middle of the spine, so that bone is turned round.
    links = [link[::-1] if link in skeleton.operator_flips else link for link in skeleton.bones]
    for child, parent in links:
        np.testing.assert_allclose(bones[child], poses[child] - poses[parent], atol=1e-6)
    (top,) = set(range(skeleton.num_joints)) - {child for child, _ in links}
    np.testing.assert_allclose(bones[top], poses[top], atol=1e-6)


def test_the_published_ucla_operator_is_parent_minus_its_children():
    poses = np.random.RandomState(1).standard_normal((20, 3))
    bones = UCLA.bone_operator(1) @ poses
    for joint in range(20):
        children = [child for child, parent in UCLA.bones if parent == joint]
        np.testing.assert_allclose(bones[joint], poses[joint] - poses[children].sum(0), atol=1e-6)


def test_true_bones_change_nothing_on_ntu():
    for k in (1, 2, 8):
        np.testing.assert_array_equal(NTU.bone_operator(k, true_bones=True), NTU.bone_operator(k))


@BOTH
def test_operators_of_high_exponent_are_the_identity(skeleton):
    np.testing.assert_array_equal(skeleton.bone_operator(skeleton.num_joints), np.eye(skeleton.num_joints))


@BOTH
@pytest.mark.parametrize("k", [0, -1])
def test_exponents_below_one_are_refused(skeleton, k):
    with pytest.raises(ValueError, match=rf"at least 1, not {k}.*{skeleton.joint_k}"):
        skeleton.bone_operator(k)


@BOTH
@pytest.mark.parametrize("modality", MODALITIES)
def test_parts_equal_the_published_ones(skeleton, modality, graphs):
    parts = skeleton.parts(modality)
    assert list(parts) == ["torso", "arm", "leg"]
    for name, joints in parts.items():
        assert list(joints) == graphs[f"{skeleton.name}_{modality.split('_')[0]}_{name}"].tolist()


def test_gap_parts_are_the_published_ones():
    hand, leg = {*range(4, 12), 21, 22, 23, 24}, set(range(12, 20))
    expected = {"head": {2, 3, 20}, "hand": hand, "hip": {0, 1, 2, 12, 16}, "foot": leg}
    parts = NTU.parts("joint", "gap")
    assert list(parts) == ["head", "hand", "hip", "foot"]
    assert {name: set(joints) for name, joints in parts.items()} == expected
    expected = {"head": {2, 3}, "hand": set(range(4, 12)), "hip": {0, 1, 12, 16}, "foot": leg}
    assert {name: set(joints) for name, joints in UCLA.parts("joint", "gap").items()} == expected
    expected = {"head": {2}, "hand": set(range(3, 11)), "hip": {0, 1, 11, 15}, "foot": set(range(11, 19))}
    assert {name: set(joints) for name, joints in UCLA.parts("bone_motion", "gap").items()} == expected
    bone = NTU.parts("bone", "gap")
    assert set(bone["head"]) == {2, 3}
    assert set(bone["hip"]) == {0, 1, 12, 16}
    assert bone["hand"] == NTU.parts("bone", "bpi")["arm"]


@BOTH
@pytest.mark.parametrize("model", ["bpi", "gap"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_parts_hold_no_joint_twice_and_only_joints_there_are(skeleton, model, modality):
    for joints in skeleton.parts(modality, model).values():
        assert len(set(joints)) == len(joints)
        assert set(joints) <= set(range(skeleton.num_joints))


@BOTH
def test_every_joint_is_in_a_part_of_bpi(skeleton):
    joints = [joint for part in skeleton.parts("joint").values() for joint in part]
    assert set(joints) == set(range(skeleton.num_joints))


def test_motion_streams_have_the_parts_of_their_stream():
    for skeleton in (NTU, UCLA):
        for model in ("bpi", "gap"):
            assert skeleton.parts("joint_motion", model) == skeleton.parts("joint", model)
            assert skeleton.parts("bone_motion", model) == skeleton.parts("bone", model)


def test_unknown_modalities_and_models_without_parts_are_refused():
    with pytest.raises(ValueError, match=r"'bones'.*joint, bone, joint_motion, bone_motion"):
        NTU.parts("bones")
    with pytest.raises(ValueError, match=r"'ctrgcn' has no body parts.*bpi, gap"):
        NTU.parts("joint", "ctrgcn")


def test_default_exponents():
    assert [NTU.default_k(modality) for modality in MODALITIES] == [8, 1, 8, 1]
    assert [UCLA.default_k(modality) for modality in MODALITIES] == [6, 1, 6, 1]
