"""The models of Table 3, built from branches.

| Table 3               | here                                                              |
| --------------------- | ----------------------------------------------------------------- |
| Teacher, Student      | `FrameClassifier`                                                 |
| Student with KD       | `FrameClassifier`, trained with a teacher                         |
| Static-STE Avg        | `StaticSTE` of a Teacher and a Student with KD                    |
| Static-STE Weighted   | the same with ``weights``                                         |
| Dynamic-STE           | `DynamicSTE`                                                      |
"""

from dataclasses import dataclass

import torch
from torch import nn

from dynaprop.heads.model.branch import Branch
from dynaprop.heads.model.prediction import video_logits, video_probabilities
from dynaprop.heads.model.propagation import KnowledgePropagation

FUSION_EPS = 1e-4
"""epsilon of EfficientDet's fast normalised fusion (Tan et al., CVPR 2020, section 3.3)"""


@dataclass(frozen=True)
class FrameScores:
    """What a classifier gives for a batch of videos."""

    frame_logits: torch.Tensor
    """``[b, n, c]``"""
    video_logits: torch.Tensor
    """``[b, c]``"""


class FrameClassifier(nn.Module):
    """A model of one branch: scale, fuse, classify every frame, average the top k.

    Args:
        dim: width d of the frame features
        n_classes: number of classes c
        key_dim: width d_k of the fusion's queries and keys
        gamma: of eq. (3), at least 1
        fusion: whether there is temporal fusion
        feature_std: see `Branch`
    """

    def __init__(
        self,
        *,
        dim: int,
        n_classes: int,
        key_dim: int = 256,
        gamma: float = 4,
        fusion: bool = True,
        feature_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.gamma = gamma
        self.branch = Branch(dim=dim, key_dim=key_dim, fusion=fusion, feature_std=feature_std)
        self.classifier = nn.Linear(dim, n_classes)

    def forward(self, z: torch.Tensor, mask: torch.Tensor) -> FrameScores:
        """Classify videos of features ``z`` ``[b, n, d]``; ``mask`` is bool ``[b, n]``, False at padding."""
        s = self.branch(z, mask, head=self.classifier)  # [b, n, c]
        return FrameScores(frame_logits=s, video_logits=video_logits(s, mask, gamma=self.gamma))


@dataclass(frozen=True)
class DynamicScores:
    """What `DynamicSTE` gives for a batch of videos: the scores, and what the losses of stage 2 need."""

    frame_logits: torch.Tensor
    """of the student's frames, after propagation, ``[b, n_s, c]``"""
    video_logits: torch.Tensor
    """``[b, c]``"""
    queries: torch.Tensor
    """q_s of eq. (1), ``[b, n_s, d_k]``"""
    keys: torch.Tensor
    """k_t of eq. (1), ``[b, n_t, d_k]``"""
    teacher_features: torch.Tensor
    """h_t, the frozen teacher's fused features, ``[b, n_t, d_t]``"""


class DynamicSTE(nn.Module):
    """Dynamic student-teacher ensemble (Figure 2).

    The teacher comes trained (stage 1). It is shared, not copied, and wholly frozen from here on: its fused features
    are what the student attends to, and its classifier gives eq. (7) its targets.

    Args:
        student_dim: width d_s of the student's frame features
        teacher: the trained teacher
        key_dim: width d_k, of the student's fusion and of the propagation
        gamma: of eq. (3), at least 1
        fusion: whether the student has temporal fusion (whether the teacher has is the teacher's affair)
        feature_std: of the student's features, see `Branch`
    """

    def __init__(
        self,
        *,
        student_dim: int,
        teacher: FrameClassifier,
        key_dim: int = 256,
        gamma: float = 4,
        fusion: bool = True,
        feature_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_classes = teacher.n_classes
        self.gamma = gamma
        self.teacher = teacher.requires_grad_(False).eval()
        self.student = Branch(dim=student_dim, key_dim=key_dim, fusion=fusion, feature_std=feature_std)
        self.propagation = KnowledgePropagation(
            student_dim=student_dim, teacher_dim=teacher.branch.dim, key_dim=key_dim
        )
        self.classifier = nn.Linear(student_dim, teacher.n_classes)

    def train(self, mode: bool = True) -> "DynamicSTE":
        """As of any module, except that the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, z_s: torch.Tensor, mask_s: torch.Tensor, z_t: torch.Tensor, mask_t: torch.Tensor
    ) -> DynamicScores:
        """Classify videos from the features of both branches.

        Args:
            z_s: the student's frame features ``[b, n_s, d_s]``
            mask_s: bool ``[b, n_s]``, False at padding
            z_t: the teacher's frame features ``[b, n_t, d_t]``
            mask_t: bool ``[b, n_t]``, False at padding
        """
        h_s = self.student(z_s, mask_s)  # [b, n_s, d_s]
        h_t = self.teacher.branch(z_t, mask_t)  # [b, n_t, d_t]
        propagated = self.propagation(h_s, h_t, mask_t)
        s = self.classifier(propagated.features)  # [b, n_s, c]
        return DynamicScores(
            frame_logits=s,
            video_logits=video_logits(s, mask_s, gamma=self.gamma),
            queries=propagated.queries,
            keys=propagated.keys,
            teacher_features=h_t,
        )


class StaticSTE(nn.Module):
    """Static student-teacher ensemble (section 4.4): the two video-level predictions, averaged.

    Args:
        student: the trained student (with KD, in the paper); shared, not copied
        teacher: the trained teacher; shared, not copied
        weights: (student's, teacher's) for the weighted average, combined by `normalised_weights`; None for the mean
    """

    def __init__(
        self, *, student: FrameClassifier, teacher: FrameClassifier, weights: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.n_classes = teacher.n_classes
        self.student = student
        self.teacher = teacher
        self.weights = weights

    def forward(self, z_s: torch.Tensor, mask_s: torch.Tensor, z_t: torch.Tensor, mask_t: torch.Tensor) -> torch.Tensor:
        """Class scores ``[b, c]`` in float64, from the same arguments as `DynamicSTE.forward`."""
        p_s = video_probabilities(self.student(z_s, mask_s).video_logits)  # [b, c]
        p_t = video_probabilities(self.teacher(z_t, mask_t).video_logits)  # [b, c]
        return self.average(p_s, p_t)

    def average(self, p_s: torch.Tensor, p_t: torch.Tensor) -> torch.Tensor:
        """The two branches' video probabilities ``[b, c]`` as one."""
        w_s, w_t = (0.5, 0.5) if self.weights is None else normalised_weights(self.weights)
        return w_s * p_s + w_t * p_t  # [b, c]


def normalised_weights(weights: tuple[float, float]) -> tuple[float, float]:
    """EfficientDet's fast normalised fusion: relu(w_i) / (epsilon + sum_j relu(w_j)); sums to just below 1."""
    first, second = (max(w, 0.0) for w in weights)
    total = FUSION_EPS + first + second
    return first / total, second / total
