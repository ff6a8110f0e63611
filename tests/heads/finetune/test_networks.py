"""Backbones and heads as one network: what is trained, and what must not move."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynaprop.heads.finetune.networks import FrameEncoder, student_losses, teacher_losses
from dynaprop.heads.finetune.stage import finetune_stage, measure_frames_std
from dynaprop.heads.finetune.state import TrainingState
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import UsageError
from tests.heads.end_to_end import (
    PLAIN,
    SIZES,
    STUDENT,
    TEACHER,
    dynamic_model,
    encoder,
    frames_of,
    predicted,
    probed,
    teacher_model,
    train,
    write_videos,
)

MASK = torch.tensor([[True, True, True], [True, True, False]])
LABELS = torch.tensor([2, 0])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    with DecodePool(workers=1) as pool:
        yield probed(write_videos(tmp_path_factory.mktemp("videos")), pool), pool


def random_frames(size: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (int(MASK.sum()), size, size, 3), np.uint8))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def test_padding_and_neighbours_change_no_video():
    frames = random_frames(TEACHER)
    model = teacher_model().eval()
    with torch.no_grad():
        together = model(frames, MASK).video_logits
        alone = [
            model(frames[:3], torch.ones(1, 3, dtype=torch.bool)).video_logits,
            model(frames[3:], torch.ones(1, 2, dtype=torch.bool)).video_logits,
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_features_are_those_that_extraction_caches():
    frames = random_frames(STUDENT)
    key, weights = feature_key(
        backbone="s", model="test_efficientnet", size=STUDENT, weights="random", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    cached = FrameBackbone(key=key, weights=weights).features(frames.numpy())
    with torch.no_grad():
        z = encoder().eval()(frames, MASK)
    torch.testing.assert_close(z[MASK], torch.from_numpy(cached), rtol=1e-3, atol=1e-3)
    assert (z[~MASK] == 0).all()


def test_stage_2_gives_the_teacher_no_gradient_and_all_else_one():
    model = dynamic_model().train()
    losses = student_losses(model, random_frames(STUDENT), random_frames(TEACHER, 1), MASK, LABELS)
    losses.total.backward()
    teacher = {*model.teacher.parameters(), *model.heads.teacher.parameters()}
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher)
    batch_norm = [m for m in model.student.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    frozen = {parameter for layer in batch_norm for parameter in layer.parameters()}
    assert frozen and all(parameter.grad is None for parameter in frozen)
    rest = [(name, p) for name, p in model.named_parameters() if p not in teacher and p not in frozen]
    # A key's bias moves all scores of a query alike, which the softmax takes away: its gradient is zero but for errors.
    assert not [name for name, p in rest if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not [name for name, p in rest if not p.grad.any() and not name.endswith("key.bias")]


def test_stage_2_is_by_all_three_losses():
    model = dynamic_model().train()
    frames = random_frames(STUDENT), random_frames(TEACHER, 1)
    whole = student_losses(model, *frames, MASK, LABELS, lambda_frm=0.3, lambda_cos=0.2)
    expected = whole.video + 0.3 * whole.frame + 0.2 * whole.cosine
    torch.testing.assert_close(whole.total, expected)
    video_alone = student_losses(model, *frames, MASK, LABELS, lambda_frm=0, lambda_cos=0)
    assert video_alone.frame is None and video_alone.cosine is None
    assert torch.equal(video_alone.total, whole.video)


@pytest.mark.parametrize("trained", [False, True])
def test_training_stage_2_leaves_the_teacher_bitwise_as_it_was(videos, tmp_path, trained):
    """Its statistics, too, where batch normalisation is trained."""
    model = dynamic_model(teacher_model(train_batch_norm=trained), train_batch_norm=trained)
    teacher, fused, whole = state(model.teacher), state(model.heads.teacher), state(model)
    train(model, frames_of(*videos), tmp_path, epochs=2)
    assert not changed(teacher, model.teacher)
    assert not changed(fused, model.heads.teacher)
    moved = changed(whole, model)
    assert any(name.startswith("student.backbone") for name in moved)
    assert any(name.startswith("heads.student") for name in moved)
    assert any(name.startswith("heads.propagation") for name in moved)


@pytest.mark.parametrize("trained", [False, True])
def test_batch_norm_is_frozen_unless_asked_for(videos, tmp_path, trained):
    model = teacher_model(train_batch_norm=trained)
    layers = {name: state(layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    train(model, frames_of(*videos), tmp_path, epochs=1)
    moved = [changed(before, model.get_submodule(name)) for name, before in layers.items()]
    if trained:
        assert all({"running_mean", "running_var", "weight", "bias"} <= names for names in moved)
    else:
        assert not any(moved)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = teacher_model(checkpointing=checkpointing).train()
        teacher_losses(model, random_frames(TEACHER), MASK, LABELS).total.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_checkpointing_would_move_trained_statistics_twice():
    with pytest.raises(UsageError, match="frozen batch normalisation"):
        encoder(checkpointing=True, train_batch_norm=True)


def test_gradient_checkpointing_that_a_network_lacks_is_refused():
    backbone = torch.nn.Flatten()
    backbone.num_features = 3
    with pytest.raises(UsageError, match="knows no gradient checkpointing"):
        FrameEncoder(backbone, mean=(0.5,) * 3, std=(0.5,) * 3, checkpointing=True)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_in_single_precision_heads(videos, tmp_path, precision):
    model = teacher_model(precision=precision)
    (first, *_, last) = train(model, frames_of(*videos), tmp_path, epochs=6, precision=precision)
    assert last.loss < first.loss
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    scaler = TrainingState(tmp_path, "stage").progress().scaler
    assert ("scale" in scaler) == (precision == "fp16")


def test_half_precision_goes_on_with_its_gradient_scale(videos, tmp_path):
    steady = {"precision": "fp16", "milestones": ()}  # the same learning rate however many epochs are asked for
    whole, first, again = (teacher_model(precision="fp16") for _ in range(3))
    train(whole, frames_of(*videos), tmp_path / "whole", epochs=4, **steady)
    train(first, frames_of(*videos), tmp_path / "parts", epochs=2, **steady)
    log = train(again, frames_of(*videos), tmp_path / "parts", epochs=4, **steady)
    assert len(log) == 4 and not changed(state(whole), again) and changed(state(first), again)
    scales = [TrainingState(tmp_path / name, "stage").progress().scaler for name in ("whole", "parts")]
    assert scales[0] == scales[1]


def test_twelve_real_clips_are_learnt_by_heart_end_to_end(data_root: Path, tmp_path):
    root = data_root / "weizmann"
    paths, labels = [], []
    for label, folder in enumerate(sorted(root.iterdir())[:6]):
        chosen = sorted(folder.glob("*.avi"))[:2]
        paths += chosen
        labels += [label] * len(chosen)
    assert len(paths) == 12 and len(set(labels)) == 6
    with DecodePool() as pool:
        videos = probed(paths, pool)
        source = frames_of(videos, pool, batch_size=3, **PLAIN)
        teacher = teacher_model(n_classes=6, model="test_efficientnet")
        std = measure_frames_std(teacher.encoder, source, size=TEACHER)
        teacher.heads.branch.feature_std.fill_(std)
        learn = {"epochs": 20, "lr": 3e-3, "backbone_lr": 0.3, "labels": labels}
        learnt(teacher, source, tmp_path / "teacher", **learn)
        student = encoder()
        dynamic = dynamic_model(teacher, feature_std=measure_frames_std(student, source, size=STUDENT))
        learnt(dynamic, source, tmp_path / "student", **learn)


def learnt(model, source, folder, *, labels, **options) -> None:
    finetune_stage(model, source, labels, state=TrainingState(folder, "stage"), **SIZES, **options)
    assert predicted(model, source) == labels
