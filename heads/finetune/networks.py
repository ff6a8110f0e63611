"""Backbones and heads as one network, from pixels to scores, and the losses of its two stages (section 3.3).

stage 1   `VideoClassifier`: the teacher's backbone and `FrameClassifier`, by eq. (4)
stage 2   `EndToEndDynamic`: the student's backbone and `DynamicSTE`, by eq. (5); the whole teacher is frozen
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynaprop.heads.model.ensembles import DynamicScores, DynamicSTE, FrameClassifier, FrameScores
from dynaprop.heads.model.losses import Losses, dynamic_losses, video_loss
from dynaprop.pipeline.backbones.fit import width
from dynaprop.pipeline.errors import UsageError

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class FrameEncoder(nn.Module):
    """A backbone that can be trained: frames in, their features out.

    Args:
        backbone: one of timm's models without classifier, ``[m, 3, size, size]`` to ``[m, d]``.
        mean, std: normalisation of pixels in [0, 1].
        train_batch_norm: whether batch normalisation is trained, too, with each batch's own statistics. Otherwise it
            stays as it is: a batch of a few videos says little about the statistics of all frames.
        checkpointing: compute activations anew in the backward pass, which takes time and saves memory; not with
            ``train_batch_norm``, whose statistics would move twice.
        precision: of the backbone's forward pass, ``fp32``, ``fp16`` or ``bf16``, the latter two by autocast.

    Raises:
        UsageError: the backbone knows no gradient checkpointing, or its batch normalisation is trained, too.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        train_batch_norm: bool = False,
        checkpointing: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.width = width(backbone)
        """d, of the features."""
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self._frozen = [] if train_batch_norm else [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
        self._half = _HALF.get(precision)
        for layer in self._frozen:
            layer.requires_grad_(False)
        if checkpointing and train_batch_norm:
            raise UsageError("gradient checkpointing needs frozen batch normalisation: switch one of both off")
        if checkpointing:
            try:
                backbone.set_grad_checkpointing(True)  # type: ignore[operator]
            except (AttributeError, AssertionError):
                name = type(backbone).__name__
                raise UsageError(f"timm's {name} knows no gradient checkpointing: switch it off") from None

    def train(self, mode: bool = True) -> "FrameEncoder":
        """As of any module, except that frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features of the frames of some videos; padding never passes through the backbone.

        Args:
            frames: RGB ``[m, size, size, 3]`` uint8, those of one video after those of another
            mask: bool ``[b, n]`` with m times True, False at padding

        Returns:
            ``z`` ``[b, n, d]`` float32, zeros at padding
        """
        pixels = frames.permute(0, 3, 1, 2).float()  # [m, 3, size, size], channels_last
        with torch.autocast(frames.device.type, self._half, enabled=self._half is not None):
            features = self.backbone((pixels - self.mean) / self.std)  # [m, d]
        z = features.new_zeros(*mask.shape, features.shape[1], dtype=torch.float32)  # [b, n, d]
        z[mask] = features.float()
        return z


class VideoClassifier(nn.Module):
    """A backbone with the heads of one branch (stage 1: the teacher).

    Args:
        encoder: the backbone
        heads: what classifies its features
    """

    def __init__(self, encoder: FrameEncoder, heads: FrameClassifier) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> FrameScores:
        """Classify videos; arguments as of `FrameEncoder.forward`."""
        return self.heads(self.encoder(frames, mask), mask)


class EndToEndDynamic(nn.Module):
    """Dynamic-STE with both backbones (stage 2).

    The teacher comes trained and is wholly frozen: its backbone here, its heads by `DynamicSTE`.

    Args:
        student: the student's backbone
        teacher: the trained teacher's backbone
        heads: Dynamic-STE around the trained teacher's heads
    """

    def __init__(self, student: FrameEncoder, teacher: FrameEncoder, heads: DynamicSTE) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        self.heads = heads

    def train(self, mode: bool = True) -> "EndToEndDynamic":
        """As of any module, except that the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, frames_s: torch.Tensor, mask_s: torch.Tensor, frames_t: torch.Tensor, mask_t: torch.Tensor
    ) -> DynamicScores:
        """Classify videos from the frames of both branches; arguments as of `FrameEncoder.forward`, for each."""
        with torch.no_grad():
            z_t = self.teacher(frames_t, mask_t)  # [b, n_t, d_t]
        return self.heads(self.student(frames_s, mask_s), mask_s, z_t, mask_t)


def teacher_losses(model: VideoClassifier, frames: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> Losses:
    """Eq. (4) of videos with class indices ``labels`` ``[b]``."""
    logits = model(frames, mask).video_logits  # [b, c]
    video = video_loss(logits, labels)
    return Losses(total=video, video=video, frame=None, cosine=None, video_logits=logits)


def student_losses(
    model: EndToEndDynamic,
    frames_s: torch.Tensor,
    frames_t: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor,
    *,
    lambda_frm: float = 0.5,
    lambda_cos: float = 0.5,
) -> Losses:
    """Eq. (5) of videos with class indices ``labels`` ``[b]``; both branches see the same frames."""
    scores = model(frames_s, mask, frames_t, mask)
    return dynamic_losses(scores, model.heads.teacher, mask, labels, lambda_frm=lambda_frm, lambda_cos=lambda_cos)
