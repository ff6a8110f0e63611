"""Models on ragged batches, the frozen teacher, and the variants of Table 4."""

import numpy as np
import pytest
import torch

from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.heads.model.losses import cosine_loss, frame_loss, student_loss, video_loss
from dynaprop.heads.model.prediction import top_k

D_S, D_T, C = 5, 7, 4
COUNTS_S, COUNTS_T = [1, 3, 8, 5, 13], [2, 1, 4, 1, 6]  # k = 1, 1, 2, 1, 3
LABELS = torch.tensor([0, 3, 1, 1, 2])


def models() -> tuple[FrameClassifier, FrameClassifier, DynamicSTE]:
    torch.manual_seed(3)
    student = FrameClassifier(dim=D_S, n_classes=C, key_dim=6).double()
    teacher = FrameClassifier(dim=D_T, n_classes=C, key_dim=6).double()
    return student, teacher, DynamicSTE(student_dim=D_S, teacher=teacher, key_dim=6).double()


def ragged(counts: list[int], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Videos of these lengths, with junk rather than zeros at padding: nothing may depend on it."""
    torch.manual_seed(dim)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    z = torch.randn(len(counts), max(counts), dim, dtype=torch.float64)
    return torch.where(mask[:, :, None], z, 100 * z), mask


def alone(batch: tuple[torch.Tensor, torch.Tensor], video: int) -> tuple[torch.Tensor, torch.Tensor]:
    z, mask = batch
    n = int(mask[video].sum())
    return z[video : video + 1, :n], mask[video : video + 1, :n]


def stage_2_loss(model: DynamicSTE, student, teacher, labels: torch.Tensor) -> torch.Tensor:
    mask = student[1]
    scores = model(*student, *teacher)
    return student_loss(
        video_loss(scores.video_logits, labels),
        frame_loss(scores.frame_logits, model.teacher.classifier(scores.teacher_features), mask),
        cosine_loss(scores.queries, scores.keys, mask),
        lambda_frm=0.5,
        lambda_cos=0.5,
    )


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[np.ndarray]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [g.numpy() for g in torch.autograd.grad(loss, parameters)]


def test_the_counts_of_this_file_have_different_k():
    assert top_k(torch.tensor(COUNTS_S), gamma=4).tolist() == [1, 1, 2, 1, 3]


def test_padding_changes_no_videos_scores():
    student, teacher, dynamic = models()
    static = StaticSTE(student=student, teacher=teacher)
    batch_s, batch_t = ragged(COUNTS_S, D_S), ragged(COUNTS_T, D_T)
    together = {
        "student": student(*batch_s).video_logits,
        "dynamic": dynamic(*batch_s, *batch_t).video_logits,
        "static": static(*batch_s, *batch_t),
    }
    for video in range(len(COUNTS_S)):
        one_s, one_t = alone(batch_s, video), alone(batch_t, video)
        expected = {
            "student": student(*one_s).video_logits,
            "dynamic": dynamic(*one_s, *one_t).video_logits,
            "static": static(*one_s, *one_t),
        }
        for name, scores in together.items():
            torch.testing.assert_close(scores[video], expected[name][0], rtol=1e-6, atol=1e-9)


def test_padding_changes_no_videos_loss_and_gradients():
    _, _, model = models()
    batch_s, batch_t = ragged(COUNTS_S, D_S), ragged(COUNTS_S, D_T)  # training: the same clips for both
    singles = [
        stage_2_loss(model, alone(batch_s, v), alone(batch_t, v), LABELS[v : v + 1]) for v in range(len(COUNTS_S))
    ]
    loss = stage_2_loss(model, batch_s, batch_t, LABELS)
    torch.testing.assert_close(loss, torch.stack(singles).mean(), rtol=1e-6, atol=1e-9)
    of_singles = [gradients(single, model) for single in singles]
    for i, gradient in enumerate(gradients(loss, model)):
        np.testing.assert_allclose(gradient, np.mean([g[i] for g in of_singles], axis=0), rtol=1e-6, atol=1e-9)


def test_padding_changes_no_videos_loss_and_gradients_in_stage_1():
    student, _, _ = models()
    batch = ragged(COUNTS_S, D_S)
    singles = [video_loss(student(*alone(batch, v)).video_logits, LABELS[v : v + 1]) for v in range(len(COUNTS_S))]
    of_singles = [gradients(single, student) for single in singles]
    for i, gradient in enumerate(gradients(video_loss(student(*batch).video_logits, LABELS), student)):
        np.testing.assert_allclose(gradient, np.mean([g[i] for g in of_singles], axis=0), rtol=1e-6, atol=1e-9)


def test_the_teacher_of_dynamic_ste_is_shared_frozen_and_stays_in_evaluation_mode():
    _, teacher, dynamic = models()
    assert dynamic.teacher is teacher
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for name, p in dynamic.named_parameters() if not name.startswith("teacher."))
    dynamic.train()
    assert dynamic.student.training and not teacher.training


@pytest.mark.parametrize("fusion_t", [True, False])
@pytest.mark.parametrize("fusion_s", [True, False])
def test_table_4_switches_fusion_of_each_branch(fusion_s, fusion_t):
    teacher = FrameClassifier(dim=D_T, n_classes=C, key_dim=6, fusion=fusion_t)
    names = {name for name, _ in DynamicSTE(student_dim=D_S, teacher=teacher, fusion=fusion_s).named_parameters()}
    assert ("student.fusion.value.weight" in names) is fusion_s
    assert ("teacher.branch.fusion.value.weight" in names) is fusion_t
