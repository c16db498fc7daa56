"""What a trainer saves and refuses to save, and the form of its optimizer."""

import copy
import math

import pytest
import torch
from making import tiny_config
from shares import know_tiny_clip
from torch.nn.parallel import DistributedDataParallel

from bpilib.config import resolve
from bpilib.model import build_model
from bpilib.runs import build
from bpilib.skeleton import UCLA
from bpilib.system.device import DelayedValues
from bpilib.training.data_parallel import Towers
from bpilib.training.optimizer import build_sgd
from bpilib.training.progress import UnreadStep
from bpilib.training.trainer import Trainer


@pytest.fixture
def trainer(place, tmp_path):
    know_tiny_clip()
    made = Trainer(tiny_config(place, tmp_path, text="clip", clip_model="tiny", clip_pretrained=""))
    yield made
    made.close()


def unread(loss, batch):
    return UnreadStep(2, batch, 0.1, 4, DelayedValues(torch.tensor([loss, 1.0, 1.0, 0.5])))


def test_a_checkpoint_counts_every_step_that_it_holds(trainer):
    trainer._unread.extend([unread(3.0, 0), unread(5.0, 1)])
    trainer._read_losses(keep=1)
    assert list(trainer.progress.sums) == [4.0, 12.0, 4.0, 4.0, 2.0]
    trainer._save()
    assert list(trainer.progress.sums) == [8.0, 32.0, 8.0, 8.0, 4.0] and (trainer.folder / "last.pt").exists()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_bad_loss_that_was_not_read_yet_never_reaches_a_checkpoint(trainer, loss):
    trainer._unread.extend([unread(3.0, 6), unread(loss, 7)])
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch 3, step 8: lower lr \(now 0\.1\)"):
        trainer._save()
    assert not (trainer.folder / "last.pt").exists()


def test_weights_of_the_text_tower_are_checked_too(trainer):
    with torch.no_grad():
        next(trainer.run.text.parameters()).view(-1)[0] = math.nan
    with pytest.raises(ValueError, match="or the text encoder's, are not finite"):
        trainer._save()


def test_a_trained_tower_is_not_fetched_where_a_checkpoint_follows(place, tmp_path, monkeypatch):
    import open_clip

    know_tiny_clip()
    asked, create = [], open_clip.create_model

    def recorded(name, pretrained=None, **options):
        asked.append(pretrained)
        return create(name, None, **options)

    monkeypatch.setattr(open_clip, "create_model", recorded)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"quick_gelu": True})
    config = tiny_config(place, tmp_path, text="clip", clip_model="tiny", clip_pretrained="openai")
    build(config)
    build(config, pretrained=False)
    build(config.changed(clip_trained=False), pretrained=False)
    assert asked == ["openai", None, "openai"]


@pytest.mark.parametrize(("saved", "here"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_optimizer_has_the_form_of_its_own_device(saved, here):
    parameter = torch.nn.Parameter(torch.ones(2))
    config = resolve(device="cpu")
    state = copy.deepcopy(build_sgd([parameter], config, torch.device(saved)).state_dict())
    optimizer = build_sgd([parameter], config, torch.device(here))
    optimizer.load_state_dict(state)
    assert bool(optimizer.param_groups[0]["fused"]) == (here == "cuda")


def test_without_texts_several_processes_wait_for_no_embedding(tmp_path):
    torch.manual_seed(0)
    towers = Towers(build_model("gap", UCLA, 3, embed_dim=4, width=8).train(), None)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(towers, find_unused_parameters=True, broadcast_buffers=False)
        for _ in range(2):
            out, texts = wrapped(torch.randn(2, 3, 8, 20, 1))
            assert texts is None and out.global_embedding is None
            out.logits.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert towers.model.global_head.weight.grad is None and towers.model.classifier.weight.grad is not None


def test_a_first_step_that_overflows_leaves_no_trace(place, tmp_path):
    """With the fused form's own kernel, which PyTorch has for CPUs, too."""
    config = tiny_config(place, tmp_path)
    made = [torch.nn.Parameter(torch.linspace(-1, 1, 1000)) for _ in range(2)]
    fused, plain = (build_sgd([p], config, torch.device(name)) for p, name in zip(made, ("cuda", "cpu")))
    assert fused.param_groups[0]["fused"]
    fused.grad_scale, fused.found_inf = torch.tensor(8.0), torch.tensor(1.0)  # as GradScaler tells the fused form
    made[0].grad = torch.full((1000,), math.inf)
    fused.step()
    assert torch.equal(made[0], made[1])
    fused.found_inf = torch.tensor(0.0)
    for step in range(3):
        gradient = torch.cos(torch.arange(1000.0) + step)
        made[0].grad, made[1].grad = 8 * gradient, gradient
        fused.step()
        plain.step()
        torch.testing.assert_close(made[0], made[1], rtol=1e-6, atol=1e-7)
