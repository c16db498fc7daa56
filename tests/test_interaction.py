"""The cross-attention of body parts."""

import pytest
import torch
import torch.nn.functional as F

from bpilib.interaction import PartInteraction

N, VQ, VK, C, D, HEADS = 3, 5, 7, 16, 12, 8


@pytest.fixture
def case():
    torch.manual_seed(0)
    unit = PartInteraction(C, D, HEADS).double()
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.normal_(0, 0.5)
    part, others = torch.randn(N, VQ, C, dtype=torch.float64), torch.randn(N, VK, C, dtype=torch.float64)
    return unit, part.requires_grad_(), others.requires_grad_()


def by_torch(unit, part, others):
    """The same with torch's own attention, head by head."""

    def heads(x):  # (N, V, C) to (N, heads, V, C/heads): head h holds channels h*C/heads and on
        return torch.stack(x.split(C // HEADS, -1), 1)

    q = heads(part @ unit.query.weight.T + unit.query.bias)
    k = heads(others @ unit.key.weight.T + unit.key.bias)
    v = heads(others @ unit.value.weight.T + unit.value.bias)
    seen = torch.cat(F.scaled_dot_product_attention(q, k, v).unbind(1), -1)
    tokens = part + seen
    centred = tokens - tokens.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * unit.norm.weight + unit.norm.bias
    return normed.mean(1) @ unit.project.weight.T + unit.project.bias


def test_equals_torchs_attention_in_values_and_gradients(case):
    unit, part, others = case
    leaves = [*unit.parameters(), part, others]
    weight = torch.randn(N, D, dtype=torch.float64)
    ours, theirs = unit(part, others)[0], by_torch(*case)
    assert ours.shape == (N, D)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    ours = torch.autograd.grad((ours * weight).sum(), leaves)
    theirs = torch.autograd.grad((theirs * weight).sum(), leaves)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_attention_rows_are_distributions(case):
    unit, part, others = case
    attention = unit(part, others)[1]
    assert attention.shape == (N, HEADS, VQ, VK)
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(N, HEADS, VQ, dtype=torch.float64))
    assert attention.std() > 0.01  # not just uniform


def test_without_queries_every_key_is_seen_alike(case):
    unit, part, others = case
    with torch.no_grad():
        unit.query.weight.zero_()
        unit.query.bias.zero_()
    attention = unit(part, others)[1]
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / VK))


def test_permuting_keys_permutes_the_attention_and_leaves_the_embedding(case):
    unit, part, others = case
    order = torch.randperm(VK)
    embedding, attention = unit(part, others)
    permuted_embedding, permuted = unit(part, others[:, order])
    torch.testing.assert_close(permuted, attention[..., order])
    torch.testing.assert_close(permuted_embedding, embedding)


def test_permuting_queries_permutes_the_rows_and_leaves_the_embedding(case):
    unit, part, others = case
    order = torch.randperm(VQ)
    embedding, attention = unit(part, others)
    permuted_embedding, permuted = unit(part[:, order], others)
    torch.testing.assert_close(permuted, attention[:, :, order])
    torch.testing.assert_close(permuted_embedding, embedding)


def test_samples_do_not_see_each_other(case):
    unit, part, others = case
    embedding, attention = unit(part, others)
    for i in range(N):
        alone, seen = unit(part[i : i + 1], others[i : i + 1])
        torch.testing.assert_close(alone[0], embedding[i])
        torch.testing.assert_close(seen[0], attention[i])


def test_every_parameter_has_a_gradient_but_the_keys_bias_which_softmax_cancels(case):
    unit, part, others = case
    (unit(part, others)[0] * torch.randn(N, D, dtype=torch.float64)).sum().backward()
    for name, parameter in unit.named_parameters():
        largest = parameter.grad.abs().max()
        assert largest < 1e-12 if name == "key.bias" else largest > 1e-6, name


def test_even_attention_gives_every_joint_the_same_share():
    torch.manual_seed(3)
    learned = PartInteraction(C, D, HEADS)
    torch.manual_seed(3)
    even = PartInteraction(C, D, HEADS, even=True)
    assert all(torch.equal(a, b) for a, b in zip(learned.state_dict().values(), even.state_dict().values()))
    part, others = torch.randn(N, VQ, C), torch.randn(N, VK, C)
    embedding, attention = even(part, others)
    assert attention.shape == (N, HEADS, VQ, VK)
    assert torch.equal(attention, torch.full_like(attention, 1 / VK))
    mean = even.value(others).mean(1, keepdim=True)
    torch.testing.assert_close(embedding, even.project(even.norm(part + mean).mean(1)))
    with torch.no_grad():  # the same where learned attention happens to be even
        learned.query.weight.zero_()
        learned.query.bias.zero_()
    torch.testing.assert_close(learned(part, others)[0], embedding)
    embedding.sum().backward()
    trained = {name for name, parameter in even.named_parameters() if parameter.grad is not None}
    assert trained == {f"{layer}.{kind}" for layer in ("value", "norm", "project") for kind in ("weight", "bias")}
