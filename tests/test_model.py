"""The three networks: equal to the published ones, their outputs' shapes and meaning, their refusals."""

import copy
import functools
import math
import re

import numpy as np
import pytest
import torch
from noise import assert_float32_of, assert_near, exact, fields, in_float64

from bpilib.losses import skeleton_text_loss
from bpilib.model import build_model
from bpilib.reference import load_reference_weights
from bpilib.skeleton import MODALITIES, NTU, SKELETONS, UCLA

CASES = {"bpi_joint_ntu": "bpi", "bpi_joint_ucla": "bpi", "gap_joint_ntu": "gap", "ctrgcn_ntu": "ctrgcn"}
NAMES = pytest.mark.parametrize("name", ["ctrgcn", "gap", "bpi"])
D = 24


def small(name, skeleton=UCLA, num_classes=10, seed=0, **options):
    """A narrow network with alpha, batch norms and their statistics away from their quiet start."""
    torch.manual_seed(seed)
    model = build_model(name, skeleton, num_classes, embed_dim=D, width=8, **options)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.spatial.alpha.fill_(0.5)
            block.spatial.bn.weight.fill_(0.5)
        for norm in norms:
            norm.momentum = 1.0
        model(torch.randn(4, 3, 12, skeleton.num_joints, model.num_persons))
        for norm in norms:
            norm.momentum = 0.1
    return model


def clips(n, skeleton=UCLA, frames=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, frames, skeleton.num_joints, skeleton.persons, generator=generator)


@pytest.fixture(scope="module")
def restored(published):
    """restored(case): the published network and its input, its outputs in float64 and what float32 may be off."""

    @functools.cache
    def build(case):
        meta, state, x, _ = published(case)
        model = build_model(CASES[case], SKELETONS[meta["skeleton"]], meta["num_classes"], num_persons=meta["persons"])
        assert model.k == meta["k"]
        load_reference_weights(model, state)
        return model.eval(), x, *exact(model, lambda network: fields(network(x.double())))

    return build


@pytest.mark.parametrize("fused", [False, True], ids=["training layout", "fused"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_network(case, fused, restored, golden):
    """In float64, where nothing but the published float32 rounds; and in float32 within its rounding of that."""
    model, x, outputs, allowed = restored(case)
    expected = golden(case)
    if "logit_scale" in expected:
        np.testing.assert_allclose(model.logit_scale.detach(), expected.pop("logit_scale")[0], rtol=1e-6)
    assert outputs.keys() == expected.keys()
    with torch.no_grad():
        found = fields((model.fuse() if fused else model)(x))
        with in_float64():
            double = copy.deepcopy(model).double()
            found64 = fields((double.fuse() if fused else double)(x.double()))
    for field, theirs in expected.items():
        difference = np.abs(theirs[0] - theirs[1]).max()
        # The published numbers are themselves off by up to 1.2e-5 of what sets the two clips apart, on every machine.
        assert np.abs(found64[field].numpy() - theirs).max() <= 1.5e-5 * difference, field
        assert found[field].shape == theirs.shape and found[field].dtype == torch.float32
        assert_near(found[field], outputs[field], allowed[field], field)


@NAMES
@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
def test_shapes(name, skeleton):
    out = small(name, skeleton, 7)(clips(3, skeleton))
    parts = {"ctrgcn": None, "gap": 4, "bpi": 3}[name]
    assert out.logits.shape == (3, 7)
    if parts is None:
        assert (out.global_embedding, out.part_embeddings, out.logit_scale) == (None, None, None)
    else:
        assert out.global_embedding.shape == (3, D)
        assert out.part_embeddings.shape == (3, parts, D)
        assert out.logit_scale.shape == (1 + parts,)
    assert (out.attention, out.attention_joints) == (None, None)


@pytest.mark.parametrize(
    ("name", "parts"), [("gap", ("head", "hand", "hip", "foot")), ("bpi", ("torso", "arm", "leg"))]
)
def test_parts_are_in_order(name, parts):
    assert small(name).parts == parts
    assert small("ctrgcn").parts == ()


def test_persons_default_to_the_skeletons_and_can_be_chosen():
    assert build_model("bpi", NTU, 3, width=8).num_persons == 2
    assert build_model("bpi", UCLA, 3, width=8).num_persons == 1
    model = build_model("bpi", UCLA, 3, num_persons=3, width=8)
    assert model(torch.randn(2, 3, 8, 20, 3)).logits.shape == (2, 3)


def test_logit_scales_start_at_log_of_one_over_seven_hundredths_and_bpi_takes_the_exponential():
    start = math.log(1 / 0.07)
    torch.testing.assert_close(small("gap").logit_scale, torch.full((5,), start))
    torch.testing.assert_close(small("bpi").logit_scale, torch.full((4,), 1 / 0.07))


@NAMES
def test_the_published_sizes_are_the_default(name):
    model = build_model(name, UCLA, 10)
    assert model.classifier.weight.shape == (10, 256)
    if name != "ctrgcn":
        assert model.global_head.weight.shape == (512, 256)
    if name == "bpi":
        assert all(part.heads == 8 for part in model.part_heads.values())


@NAMES
@pytest.mark.parametrize("frames", [1, 2, 7, 52, 100])
def test_any_number_of_frames(name, frames):
    assert small(name).eval()(clips(2, frames=frames)).logits.isfinite().all()


@NAMES
@pytest.mark.parametrize("training", [True, False])
def test_a_single_clip(name, training):
    out = small(name).train(training)(clips(1))
    assert out.logits.shape == (1, 10)
    assert out.logits.isfinite().all()


@NAMES
def test_clips_of_a_batch_do_not_see_each_other_in_eval_mode(name):
    model, x = small(name).eval(), clips(4)
    assert_float32_of(model, x, fields(model(x)))
    with in_float64():
        together = fields(model.double()(x.double()))
        for i in range(4):
            for field, alone in fields(model(x[i : i + 1].double())).items():
                torch.testing.assert_close(alone[0], together[field][i], rtol=0, atol=1e-10)
    assert (together["logits"][0] - together["logits"][1]).abs().max() > 1e-2


def test_the_classifier_sees_the_mean_over_frames_joints_and_persons():
    model, x = small("gap", NTU).eval().double(), clips(2, NTU).double()
    with in_float64():
        feature = model.backbone(torch.einsum("uv,nctvm->nctum", torch.from_numpy(NTU.bone_operator(8)).double(), x))
        pooled = feature.mean((1, 3, 4))
        out = model(x)
        torch.testing.assert_close(out.logits, model.classifier(pooled))
        torch.testing.assert_close(out.global_embedding, model.global_head(pooled))
        for i, (name, joints) in enumerate(NTU.parts("joint", "gap").items()):
            part = feature[..., list(joints)].mean((1, 3, 4))
            torch.testing.assert_close(out.part_embeddings[:, i], model.part_heads[name](part))


@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_attention_on_request(skeleton, modality):
    model, x = small("bpi", skeleton, modality=modality).eval(), clips(2, skeleton)
    out = model(x, return_attention=True)
    parts = skeleton.parts(modality)
    assert list(out.attention) == list(out.attention_joints) == ["torso", "arm", "leg"]
    others = {"torso": ("arm", "leg"), "arm": ("torso", "leg"), "leg": ("torso", "arm")}
    for name, attention in out.attention.items():
        queries, keys = out.attention_joints[name]
        assert tuple(queries) == parts[name]
        assert tuple(keys) == parts[others[name][0]] + parts[others[name][1]]
        assert attention.shape == (2, 8, len(queries), len(keys))
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 8, len(queries)))
    plain = model(x)
    assert torch.equal(plain.logits, out.logits)
    assert torch.equal(plain.part_embeddings, out.part_embeddings)


def test_attention_lies_at_the_joints_it_names():
    model, x = small("bpi").eval().double(), clips(2).double()
    with in_float64():
        out = model(x, return_attention=True)
        tokens = model.features(x)[1]  # (N, V, C)
        for name, attention in out.attention.items():
            unit = model.part_heads[name]
            queries, keys = out.attention_joints[name]
            q, k = unit.query(tokens), unit.key(tokens)  # (N, V, C)
            size = q.shape[-1] // 8
            for head in (0, 7):
                channels = slice(head * size, (head + 1) * size)
                for row, joint in enumerate(queries):
                    scores = (q[:, None, joint, channels] * k[:, list(keys), channels]).sum(-1) / math.sqrt(size)
                    torch.testing.assert_close(attention[:, head, row], scores.softmax(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ctrgcn", "gap"])
def test_attention_of_a_model_without_it_is_refused(name):
    with pytest.raises(ValueError, match="only the bpi model has attention"):
        small(name)(clips(1), return_attention=True)


@pytest.mark.parametrize("name", ["gap", "bpi"])
@pytest.mark.parametrize("skeleton", [NTU, UCLA], ids=lambda s: s.name)
def test_the_bone_stream_is_the_operator_before_the_same_network(name, skeleton):
    model = small(name, skeleton, modality="bone").eval()
    assert model.k == 1
    identity = 25  # any exponent beyond the tree's depth
    plain = small(name, skeleton, modality="bone", k=identity).eval()
    plain.load_state_dict(model.state_dict())
    for network in (model, plain):
        network.double()
    with in_float64():
        x = clips(2, skeleton).double()
        operated = torch.einsum("uv,nctvm->nctum", torch.from_numpy(skeleton.bone_operator(1)).double(), x)
        torch.testing.assert_close(model(x).logits, plain(operated).logits, rtol=0, atol=1e-10)
        assert (model(x).logits - plain(x).logits).abs().max() > 1e-3


def test_every_modality_has_its_exponent_and_parts():
    for skeleton, joint_k in ((NTU, 8), (UCLA, 6)):
        for modality in MODALITIES:
            model = small("bpi", skeleton, modality=modality)
            assert model.k == (1 if modality.startswith("bone") else joint_k)
            assert model.part_joints == skeleton.parts(modality)
            assert small("ctrgcn", skeleton, modality=modality).k is None


@NAMES
@pytest.mark.parametrize(
    "shape", [(2, 3, 12, 25, 1), (2, 3, 12, 20, 2), (2, 2, 12, 20, 1), (3, 12, 20, 1), (2, 12, 20, 1, 3)], ids=str
)
def test_wrong_shapes_are_refused_with_both_shapes(name, shape):
    with pytest.raises(ValueError, match=re.escape("(N, 3, T, 20, 1) for the ucla skeleton, got " + str(shape))):
        small(name)(torch.zeros(shape))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown model 'ctr-gcn'.*ctrgcn, gap, bpi"):
        build_model("ctr-gcn", UCLA, 10)
    with pytest.raises(ValueError, match=r"unknown modality 'motion'.*joint, bone, joint_motion, bone_motion"):
        build_model("bpi", UCLA, 10, modality="motion")
    with pytest.raises(ValueError, match="multiple of 8, not 9"):
        build_model("bpi", UCLA, 10, width=9)


def test_an_exponent_for_ctrgcn_and_one_below_one_are_refused():
    with pytest.raises(ValueError, match=r"ctrgcn has no bone operator.*k=1"):
        build_model("ctrgcn", UCLA, 10, k=1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        build_model("bpi", UCLA, 10, k=0)


@NAMES
def test_state_dict_round_trip(name, tmp_path):
    model, other = small(name, seed=1), small(name, seed=2)
    model.train()(clips(4))  # statistics move
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = clips(2, seed=3)
    ours, theirs = model.eval()(x), other.eval()(x)
    assert torch.equal(ours.logits, theirs.logits)
    if name != "ctrgcn":
        assert torch.equal(ours.part_embeddings, theirs.part_embeddings)
        assert torch.equal(ours.logit_scale, theirs.logit_scale)


def test_the_operator_is_not_among_the_weights():
    model = small("bpi", modality="bone")
    assert model.bone_operator is not None
    assert not any("bone_operator" in key for key in model.state_dict())


def test_the_same_seed_starts_the_same_network():
    for name in ("ctrgcn", "gap", "bpi"):
        states = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            states.append(build_model(name, UCLA, 10, width=8).state_dict())
        first, again, other = states
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize("name", ["gap", "bpi"])
def test_every_parameter_has_a_gradient_of_the_whole_loss(name):
    model = small(name).eval()
    out, labels = model(clips(6)), torch.tensor([0, 1, 2, 0, 1, 2])
    texts = torch.randn(1 + len(model.parts), 6, D, generator=torch.Generator().manual_seed(0))
    skeleton_text_loss(out, texts, labels).total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if not parameter_name.endswith("key.bias"):  # softmax cancels it
            assert parameter.grad.abs().max() > 1e-12, parameter_name


@NAMES
def test_two_clips_are_overfitted(name):
    torch.manual_seed(0)
    model, x, labels = build_model(name, UCLA, 10, embed_dim=D, width=8), clips(2), torch.tensor([3, 8])
    texts = None if name == "ctrgcn" else torch.randn(1 + len(model.parts), 2, D)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = skeleton_text_loss(model(x), texts, labels)
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    assert losses[-1].cross_entropy < 0.05 < losses[0].cross_entropy
    if texts is not None:
        assert losses[-1].contrastive.max() < 0.2 * losses[0].contrastive.max()


@NAMES
def test_sixteen_bit_autocast_stays_near(name):
    model, x = small(name).eval(), clips(3)
    exact = model(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        near = model(x).logits
    assert (near.float() - exact).abs().max() < 0.1 * exact.abs().max()


@NAMES
def test_the_fused_copy_gives_the_same_and_leaves_the_network_alone(name):
    model = small(name, NTU)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = clips(3, NTU)
    fused = model.fuse()
    assert model.training
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with torch.no_grad():
        assert_float32_of(model, x, fields(fused(x)))
    double = copy.deepcopy(model).double()
    with torch.no_grad(), in_float64():
        ours, theirs = fields(double.fuse()(x.double())), fields(double.eval()(x.double()))
    assert ours.keys() == theirs.keys()
    for field, a in ours.items():
        torch.testing.assert_close(a, theirs[field], rtol=0, atol=1e-10)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_bones_are_made_in_float32_under_autocast():
    model = build_model("bpi", NTU, 5, embed_dim=8, width=8).eval()
    x = 3 + 0.1 * torch.randn(1, 3, 8, 25, 2)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
        with torch.autocast("cpu", torch.bfloat16):
            model(x)
    assert seen[1].dtype == torch.float32 and torch.equal(*seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("bpi", {}),
        ("bpi", {"attention": "even"}),
        ("bpi", {"modality": "bone_motion", "true_bones": True}),
        ("gap", {}),
        ("gap", {"modality": "bone"}),
        ("gap", {"modality": "joint_motion", "k": 1}),
        ("ctrgcn", {}),
    ],
)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_the_whole_network_is_one_graph_in_training_and_inference(name, how, half):
    torch.manual_seed(0)
    model = build_model(name, UCLA, 5, embed_dim=8, width=8, **how).train()
    x = torch.randn(2, 3, 8, 20, 1)
    for network in (model, model.fuse()):
        torch._dynamo.reset()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = torch.compile(network, backend="aot_eager", fullgraph=True)(x)
            expected = network(x)
        if network is model:
            out.logits.float().sum().backward()
        assert (out.logits - expected.logits).norm() < (5e-2 if half else 1e-3) * expected.logits.norm()


def test_true_bones_and_even_attention_reach_the_network():
    model = build_model("bpi", UCLA, 10, "bone", width=8, embed_dim=8, attention="even", true_bones=True)
    np.testing.assert_array_equal(model.bone_operator, UCLA.bone_operator(1, true_bones=True))
    assert (UCLA.bone_operator(1, true_bones=True) != UCLA.bone_operator(1)).any()
    attention = model(torch.randn(1, 3, 8, 20, 1), return_attention=True).attention
    assert all(torch.equal(a, torch.full_like(a, 1 / a.shape[-1])) for a in attention.values())
    with pytest.raises(ValueError, match="unknown attention 'evne'"):
        build_model("bpi", UCLA, 10, attention="evne")
