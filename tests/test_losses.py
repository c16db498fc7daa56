"""Cross-entropy and contrastive divergence."""

import math

import pytest
import torch
from noise import in_float64

from bpilib.losses import skeleton_text_loss
from bpilib.model import Output

N, K, P, D = 6, 4, 3, 10
LABELS = torch.tensor([0, 1, 1, 3, 0, 1])


def case(seed=0, labels=LABELS):
    torch.manual_seed(seed)
    n = len(labels)
    out = Output(torch.randn(n, K), torch.randn(n, D), torch.randn(n, P, D), torch.rand(1 + P) * 3 + 1)
    texts = torch.randn(1 + P, n, D)
    return out, texts, labels


def by_loops(out, texts, labels, alpha):
    """The page's formulas in float64, one number at a time."""
    n = len(labels)
    logits, scale = out.logits.double(), out.logit_scale.double()
    entropy = sum(torch.log(torch.exp(logits[i]).sum()) - logits[i, labels[i]] for i in range(n)) / n
    branches = []
    for b in range(texts.shape[0]):
        skeletons = (out.global_embedding if b == 0 else out.part_embeddings[:, b - 1]).double()
        s = [row / row.pow(2).sum().sqrt() for row in skeletons]
        t = [row / row.pow(2).sum().sqrt() for row in texts[b].double()]
        both = 0
        for mine, theirs in ((s, t), (t, s)):
            for i in range(n):
                weights = [math.exp(10.0 * (labels[i] == labels[j]).item()) for j in range(n)]
                row = [scale[b] * (mine[i] * theirs[j]).sum() for j in range(n)]
                total = torch.log(sum(torch.exp(number) for number in row))
                for j in range(n):
                    target = weights[j] / sum(weights)
                    both = both + target * (math.log(target) - (row[j] - total)) / n
        branches.append(both / 2)
    contrastive = torch.stack(branches)
    return entropy + alpha * contrastive.mean(), entropy, contrastive


def test_equals_the_published_loss(golden):
    """In float64, where only the published float32 rounds (by 2e-7); and in float32.

    There each cosine is a sum of 512 products, off by about sqrt(512) roundings, of which a scale of 16 makes 16 times
    as much: 4.5e-5.
    """
    g = {key: torch.from_numpy(value) for key, value in golden("loss").items()}
    embeddings = g["embeddings"].float()
    out = Output(g["logits"], embeddings[0], embeddings[1:].transpose(0, 1), g["scale"])
    loss = skeleton_text_loss(out, g["texts"].float(), g["labels"], alpha=float(g["alpha"]))
    assert loss.contrastive.shape == (4,)
    with in_float64():
        double = Output(*(value.double() for value in out[:4]))
        exact = skeleton_text_loss(double, g["texts"].double(), g["labels"], alpha=float(g["alpha"]))
    for field in ("total", "cross_entropy", "contrastive"):
        torch.testing.assert_close(getattr(exact, field), g[field], rtol=0, atol=4e-7)
        torch.testing.assert_close(getattr(loss, field).double(), g[field], rtol=0, atol=5e-5)
    assert torch.equal(loss.total, skeleton_text_loss(out, g["texts"].float(), g["labels"]).total)  # 0.8: the default


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_values_and_gradients_equal_the_plain_loops(alpha):
    out, texts, labels = case()
    *leaves, texts = (tensor.double().requires_grad_() for tensor in (*out[:4], texts))
    out, leaves = Output(*leaves), [*leaves, texts]
    with in_float64():
        loss = skeleton_text_loss(out, texts, labels, alpha)
    plain = by_loops(out, texts, labels, alpha)
    for ours, theirs in zip(loss, plain):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(loss.total, leaves), torch.autograd.grad(plain[0], leaves)):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_total_is_the_weighted_sum():
    out, texts, labels = case()
    for alpha in (0.0, 0.8, 1.0):
        loss = skeleton_text_loss(out, texts, labels, alpha)
        torch.testing.assert_close(loss.total, loss.cross_entropy + alpha * loss.contrastive.mean())


def test_lengths_of_embeddings_do_not_matter():
    out, texts, labels = case()
    longer = out._replace(global_embedding=7 * out.global_embedding, part_embeddings=0.3 * out.part_embeddings)
    torch.testing.assert_close(
        skeleton_text_loss(longer, 5 * texts, labels).contrastive, skeleton_text_loss(out, texts, labels).contrastive
    )


def test_the_order_of_the_batch_does_not_matter():
    out, texts, labels = case()
    order = torch.randperm(N)
    permuted = Output(out.logits[order], out.global_embedding[order], out.part_embeddings[order], out.logit_scale)
    ours, theirs = skeleton_text_loss(permuted, texts[:, order], labels[order]), skeleton_text_loss(out, texts, labels)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_one_class_alone_has_no_divergence_where_all_embeddings_are_the_same():
    labels = torch.full((N,), 2)
    out, texts, _ = case(labels=labels)
    same = out._replace(
        global_embedding=out.global_embedding[:1].expand(N, D), part_embeddings=out.part_embeddings[:1].expand(N, P, D)
    )
    texts = texts[:, :1].expand(1 + P, N, D)
    contrastive = skeleton_text_loss(same, texts, labels).contrastive
    torch.testing.assert_close(contrastive, torch.zeros(1 + P), rtol=0, atol=1e-6)
    assert (skeleton_text_loss(out, texts, labels).contrastive > 0.01).all()


def test_clips_of_one_class_share_the_target():
    # Two classes, two clips each, embeddings equal to their class's text: every row is softmax(scale * [1, 1, 0, 0]).
    labels = torch.tensor([0, 0, 1, 1])
    text = torch.eye(2)[labels]  # (N, 2)
    scale = torch.tensor([10.0])
    out = Output(torch.zeros(4, 2), text, text.new_zeros(4, 0, 2), scale)
    loss = skeleton_text_loss(out, text[None], labels)
    torch.testing.assert_close(loss.contrastive, torch.zeros(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(loss.cross_entropy, torch.tensor(math.log(2)))
    wrong = skeleton_text_loss(out, text[None].flip(1), labels)
    assert wrong.contrastive.item() == pytest.approx(10, rel=1e-2)


def test_a_batch_of_one_has_cross_entropy_alone():
    out, texts, labels = case(labels=torch.tensor([1]))
    loss = skeleton_text_loss(out, texts, labels)
    torch.testing.assert_close(loss.contrastive, torch.zeros(1 + P))
    torch.testing.assert_close(loss.total, loss.cross_entropy)


def test_without_texts_the_loss_is_cross_entropy():
    out, texts, labels = case()
    for output in (out, Output(out.logits)):
        loss = skeleton_text_loss(output, None, labels)
        expected = torch.nn.functional.cross_entropy(out.logits, labels)
        torch.testing.assert_close(loss.total, expected)
        torch.testing.assert_close(loss.cross_entropy, expected)
        assert loss.contrastive.shape == (0,)
    assert skeleton_text_loss(out, texts, labels).total > loss.total


def test_half_precision_outputs_are_taken_in_full_precision():
    out, texts, labels = case()
    half = Output(*(tensor.bfloat16() for tensor in out[:4]))
    loss = skeleton_text_loss(half, texts.bfloat16(), labels)
    exact = skeleton_text_loss(Output(*(tensor.float() for tensor in half[:4])), texts.bfloat16().float(), labels)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, exact.total)


def test_texts_of_another_shape_are_refused_with_both_shapes():
    out, texts, labels = case()
    for wrong in (texts[:-1], texts[:, :-1], texts[..., :-1], texts[0]):
        with pytest.raises(ValueError, match=r"\(4, 6, 10\), got \(" + ", ".join(map(str, wrong.shape))):
            skeleton_text_loss(out, wrong, labels)


def test_texts_for_a_model_without_embeddings_are_refused():
    out, texts, labels = case()
    with pytest.raises(ValueError, match="texts=None for ctrgcn"):
        skeleton_text_loss(Output(out.logits), texts, labels)


def test_label_smoothing_spreads_the_target_over_all_classes():
    logits = torch.randn(5, 7, dtype=torch.float64)
    labels = torch.tensor([0, 3, 3, 6, 1])
    target = 0.9 * torch.eye(7, dtype=torch.float64)[labels] + 0.1 / 7
    wanted = -(target * logits.float().double().log_softmax(1)).sum(1).mean()
    got = skeleton_text_loss(Output(logits), None, labels, label_smoothing=0.1)
    torch.testing.assert_close(got.total.double(), wanted, rtol=1e-6, atol=0)
    assert got.total > skeleton_text_loss(Output(logits), None, logits.argmax(1)).total
