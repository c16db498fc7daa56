"""A CLIP from a folder or the Hub: read if its towers are open_clip's own, and nothing that lies there is run."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import open_clip
import pytest
import torch
import yaml
from making import tiny_config
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file

from bpilib.runs import build, open_run, write_or_check_config
from bpilib.system import checkpoint
from bpilib.text import build_text
from bpilib.text.foreign import ALLOWED, read_foreign
from bpilib.text.prompts import load_prompts

FOLDER = Path(__file__).parents[2] / "params" / "prompts"
VISION = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
TEXT = {"context_length": 64, "width": 16, "heads": 2, "layers": 1}
MODEL = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
DANGEROUS = [
    ("text_cfg", {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}),
    ("text_cfg", {"hf_tokenizer_name": "evil/repo"}),
    ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}),
    ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}),
    ("text_cfg", {"tokenizer_kwargs": {"reduction_mask": "syntax"}}),
    ("text_cfg", {"tokenizer_mode": "clips"}),
    ("text_cfg", {"hf_model_name": "evil/repo", "hf_model_pretrained": True}),
    ("text_cfg", {"hf_model_pretrained": True}),
    ("text_cfg", {"hf_proj_type": "mlp"}),
    ("text_cfg", {"hf_pooler_type": "mean_pooler"}),
    ("text_cfg", {"timm_model_name": "hf-hub:evil/repo"}),
    ("text_cfg", {"act_kwargs": {}}),
    ("text_cfg", {"norm_kwargs": {"device": "meta"}}),
    ("text_cfg", {"something_new": 1}),
    ("text_cfg", {"proj_type": {"a": 1}}),
    ("text_cfg", {"pool_type": ["argmax"]}),
    ("vision_cfg", {"timm_model_name": "hf-hub:evil/repo", "timm_model_pretrained": True}),
    ("vision_cfg", {"timm_model_name": "local-dir:/evil"}),
    ("vision_cfg", {"timm_model_pretrained": True}),
    ("vision_cfg", {"timm_pool": "avg"}),
    ("vision_cfg", {"hf_model_name": "evil/repo"}),
    ("vision_cfg", {"act_kwargs": {}}),
    ("vision_cfg", {"norm_kwargs": {}}),
    ("vision_cfg", {"something_new": 1}),
    ("vision_cfg", {"layers": [1, {"a": 1}]}),
    ("model_cfg", {"multimodal_cfg": {"hf_tokenizer_name": "x"}}),
    ("model_cfg", {"custom_text": True, "multimodal_cfg": {}}),
    ("model_cfg", {"hf_model_name": "evil/repo"}),
    ("model_cfg", {"timm_model_name": "hf-hub:evil/repo"}),
    ("model_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}),
    ("model_cfg", {"cast_dtype": "x"}),
    ("model_cfg", {"output_dict": True}),
    ("model_cfg", {"text_cfg": "x"}),
    ("model_cfg", {"vision_cfg": None}),
]


@pytest.fixture(scope="module")
def prompts():
    return load_prompts(FOLDER / "ucla.yaml")


def put(folder, model=MODEL, kind=CLIP):
    """A folder as open_clip writes it, with the weights of a network that is returned."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    network = kind(16, VISION, TEXT)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    return network


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder with code in it, and a transformers that runs such code as the real one does when it is asked to."""
    folder, marker = tmp_path / "evil", tmp_path / "ran"
    put(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    auto = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": ["tok.Tok", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(auto))
    (folder / "tok.py").write_text(f"open({str(marker)!r}, 'w').write('it ran')\n")

    def from_pretrained(name, *, trust_remote_code=False, **options):
        if trust_remote_code:
            exec((Path(name) / "tok.py").read_text(), {})
        return lambda texts, **options: None

    auto = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=auto))
    yield folder
    assert not marker.exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """asked, [(file, revision)]: what is downloaded of owner/name, which is the folder `evil` in its cache."""
    asked = []

    def download(repo_id=None, filename=None, *more, revision=None, **options):
        asked.append((filename, revision))
        if repo_id != "owner/name" or not (tmp_path / "evil" / filename).is_file():
            raise OSError(f"404: no {filename}")
        return str(shutil.copytree(tmp_path / "evil", tmp_path / "0123abcd", dirs_exist_ok=True) / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", download)
    return asked


def changed(part, more):
    return MODEL | more if part == "model_cfg" else MODEL | {part: MODEL[part] | more}


@pytest.mark.parametrize(("part", "more"), DANGEROUS, ids=[f"{part} {json.dumps(more)}" for part, more in DANGEROUS])
def test_what_can_lead_to_code_is_refused(prompts, evil, hub, part, more):
    put(evil, changed(part, more))
    for name in (f"local-dir:{evil}", "hf-hub:owner/name"):
        with pytest.raises(ValueError, match=r"open_clip_config\.json to describe a CLIP of open_clip's own.*clip_model"
                                             ) as refused:  # fmt: skip
            build_text("clip", "bpi", prompts, clip_model=name)
        assert any(key in str(refused.value) for key in more)


def test_a_run_directory_from_elsewhere_runs_nothing(place, evil, tmp_path):
    put(evil, changed("text_cfg", {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}))
    config = tiny_config(place, tmp_path / "outputs")
    run = build(config)
    write_or_check_config(config)
    checkpoint.save(config.run_directory / "best.pt", run.content())
    path = config.run_directory / "config.yaml"
    said = yaml.safe_load(path.read_text()) | {"text": "clip", "clip_model": f"local-dir:{evil}"}
    path.write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match=r"got 'hf_tokenizer_name', 'tokenizer_kwargs' in text_cfg, where only"):
        open_run(config)


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_a_tower_of_open_clips_own_is_read_with_its_weights_and_context(prompts, evil, hub, kind):
    model = MODEL | {"custom_text": kind is CustomTextCLIP, "quick_gelu": False}
    network = put(evil, model, kind)
    want = network.encode_text(open_clip.SimpleTokenizer(context_length=64)(["throw", "carry"])).detach()
    for name in (f"local-dir:{evil}", "hf-hub:owner/name"):
        encoder = build_text("clip", "bpi", prompts, clip_model=name, trained=False)
        assert encoder._tokens.shape[1] == 64
        assert torch.allclose(encoder.embed(["throw", "carry"]), want, rtol=0, atol=2e-5 * float(want.norm()))
    assert hub == [("open_clip_config.json", None), ("open_clip_model.safetensors", "0123abcd")]  # of one commit
    drawn = build_text("clip", "bpi", prompts, clip_model="hf-hub:owner/name", fetch=False)
    tower = network.text if kind is CustomTextCLIP else network
    assert len(hub) == 3 and not torch.equal(drawn.tower.token_embedding.weight, tower.token_embedding.weight)


def test_every_built_in_config_of_towers_of_open_clips_own_would_be_read(tmp_path):
    read = 0
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        keys = {*config["text_cfg"], *config["vision_cfg"]}
        if any(key.startswith(("hf_", "timm_")) for key in keys) or "multimodal_cfg" in config:
            continue
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        assert read_foreign(f"local-dir:{tmp_path}", fetch=False) == (config, None)
        read += 1
    assert read > 30


def test_what_is_allowed_are_fields_of_open_clips_own_classes():
    for part, kind in (("text_cfg", open_clip.CLIPTextCfg), ("vision_cfg", open_clip.CLIPVisionCfg)):
        known = kind.__dataclass_fields__
        assert not [key for key in known if key.startswith(("hf_", "timm_", "tokenizer_")) and key in ALLOWED[part]]
        assert not [key for key in known if key.endswith("_kwargs") and key in ALLOWED[part]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("[1]", "no object model_cfg"),
        ("[" * 100_000, "recursion|nested|Expecting"),
        (json.dumps(MODEL), "no object model_cfg"),
        (" " * (1 << 20) + "{}", "more than the 1048576 bytes"),
    ],
    ids=["missing", "empty", "list", "deep", "without model_cfg", "long"],
)
def test_a_damaged_config_is_refused(prompts, tmp_path, content, message):
    put(tmp_path)
    path = tmp_path / "open_clip_config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=rf"(?s)open_clip_config\.json to describe.*({message})"):
        build_text("clip", "bpi", prompts, clip_model=f"local-dir:{tmp_path}")


def test_missing_unfit_and_unreachable_files_are_told(prompts, evil, hub):
    def build(message, name=f"local-dir:{evil}"):
        with pytest.raises(ValueError, match=message):
            build_text("clip", "bpi", prompts, clip_model=name)

    build("of other/name could not be fetched from the Hub .*404.*local-dir:/path", "hf-hub:other/name")
    put(evil, MODEL | {"embed_dim": 8})
    build(r"(?s)open_clip_model\.safetensors is not of one .*size mismatch")
    put(evil, changed("text_cfg", {"width": "wide"}))
    build(r"local-dir:.* to be a CLIP with its weights")
    put(evil)
    (evil / "open_clip_model.safetensors").unlink()
    build(r"expected a weight file .*beside .*open_clip_config\.json, got none")
    build(r"open_clip_model\.safetensors or open_clip_pytorch_model\.bin of owner/name could not", "hf-hub:owner/name")


class Calls:
    """What a pickle calls when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.pth", "w.npz", "w.npy", "w.safetensors", "w"])
def test_weights_that_would_call_something_are_refused(prompts, tmp_path, monkeypatch, name, protocol):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", MODEL)
    path, ran = tmp_path / name, tmp_path / "ran"
    put(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    content = {"token_embedding.weight": torch.zeros(2), "code": Calls(ran)}
    writers = [lambda: path.write_bytes(pickle.dumps(content, protocol))]
    writers += [lambda zipped=zipped: torch.save(content, path, pickle_protocol=protocol,
                                                 _use_new_zipfile_serialization=zipped)
                for zipped in (True, False)]  # fmt: skip
    for write in writers:
        write()
        with pytest.raises(ValueError, match="does not hold those of tiny"):
            build_text("clip", "bpi", prompts, clip_model="tiny", clip_pretrained=str(path))
        if path.suffix in (".bin", ".pth", ".safetensors"):
            with pytest.raises(ValueError, match=rf"{name} is not of one"):
                build_text("clip", "bpi", prompts, clip_model=f"local-dir:{tmp_path}")
        assert not ran.exists()
    path.unlink()


def test_weights_of_keys_that_collide_are_refused(prompts, tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", MODEL)
    torch.save({(1 << 61) + i: 0 for i in range(400)}, tmp_path / "w.bin")
    with pytest.raises(ValueError, match="more than 256 keys"):
        build_text("clip", "bpi", prompts, clip_model="tiny", clip_pretrained=str(tmp_path / "w.bin"))
