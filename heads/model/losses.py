"""The training losses, eqs. (4) to (8).

    eq. (4)   L_t = L_vid                                               the teacher's, and the plain Student's
    eq. (5)   L_s = L_vid + lambda_frm L_frm + lambda_cos L_cos         stage 2

Each loss is a mean over a video's own frames first and over the videos of the batch second, so that neither padding
nor a longer neighbour changes what a video contributes.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from dynaprop.heads.model.ensembles import DynamicScores, FrameClassifier


def video_loss(video_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Eq. (6): cross-entropy of video logits ``[b, c]`` with the class index of each video ``[b]``."""
    return functional.cross_entropy(video_logits, labels)


def frame_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. (7): cross-entropy of the student's frame predictions with the teacher's softmax as soft targets.

    Args:
        student_logits: ``[b, n, c]``
        teacher_logits: ``[b, n, c]``, of the same frames; pass them without gradient
        mask: bool ``[b, n]``, False at padding
    """
    targets = teacher_logits.softmax(dim=2)  # [b, n, c]
    cross_entropy = -(targets * student_logits.log_softmax(dim=2)).sum(dim=2)  # [b, n]
    return _mean_of_videos(cross_entropy, mask)


def cosine_loss(queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. (8): minus the cosine between the student's query and the teacher's key of the same frame.

    Args:
        queries: ``[b, n, d_k]``
        keys: ``[b, n, d_k]``, of the same frames (at training both branches see the same clips)
        mask: bool ``[b, n]``, False at padding
    """
    return _mean_of_videos(-functional.cosine_similarity(queries, keys, dim=2), mask)


def student_loss(
    video: torch.Tensor,
    frame: torch.Tensor | None,
    cosine: torch.Tensor | None,
    *,
    lambda_frm: float,
    lambda_cos: float,
) -> torch.Tensor:
    """Eq. (5). A part that is None is left out, as in Table 5's loss sets and in Student with KD."""
    loss = video
    if frame is not None:
        loss = loss + lambda_frm * frame
    if cosine is not None:
        loss = loss + lambda_cos * cosine
    return loss


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, means over its videos."""

    total: torch.Tensor
    """What is minimised."""
    video: torch.Tensor
    """L_vid"""
    frame: torch.Tensor | None
    """L_frm; None where it is left out"""
    cosine: torch.Tensor | None
    """L_cos; None where it is left out"""
    video_logits: torch.Tensor
    """``[b, c]``"""


def dynamic_losses(
    scores: DynamicScores,
    teacher: FrameClassifier,
    mask: torch.Tensor,
    labels: torch.Tensor,
    *,
    lambda_frm: float = 0.5,
    lambda_cos: float = 0.5,
) -> Losses:
    """Eq. (5) of Dynamic-STE, of which both branches have seen the same frames.

    A lambda of 0 leaves its loss out (Table 5).

    Args:
        scores: of a batch
        teacher: the frozen one, whose classifier gives eq. (7) its targets
        mask: bool ``[b, n]``, False at padding
        labels: class index of each video ``[b]``
        lambda_frm, lambda_cos: weights of eqs. (7) and (8)
    """
    video = video_loss(scores.video_logits, labels)
    frame = cosine = None
    if lambda_frm > 0:
        frame = frame_loss(scores.frame_logits, teacher.classifier(scores.teacher_features), mask)
    if lambda_cos > 0:
        cosine = cosine_loss(scores.queries, scores.keys, mask)
    total = student_loss(video, frame, cosine, lambda_frm=lambda_frm, lambda_cos=lambda_cos)
    return Losses(total=total, video=video, frame=frame, cosine=cosine, video_logits=scores.video_logits)


def _mean_of_videos(per_frame: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over each video's own frames, then over the videos; ``[b, n]`` and bool ``[b, n]`` to a scalar."""
    per_video = per_frame.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)  # [b]
    return per_video.mean()
