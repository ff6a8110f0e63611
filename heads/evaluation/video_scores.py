"""All that a model says about videos: their scores, its view of every frame, and who attended to whom."""

from dataclasses import dataclass

import torch

from dynaprop.heads.evaluation.predict import Frames, Model
from dynaprop.heads.model.attention import attention_weights
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier
from dynaprop.heads.model.prediction import video_probabilities


@dataclass(frozen=True)
class VideoScores:
    """Scores of a batch of videos; what stands at padding says nothing."""

    probabilities: torch.Tensor
    """``[b, c]`` float64, those of `dynaprop.heads.evaluation.predict.predict`"""
    student: torch.Tensor | None
    """class probabilities of the student's frames, ``[b, n_s, c]`` float64; in Dynamic-STE after propagation (eq. 2)"""
    teacher: torch.Tensor | None
    """class probabilities of the teacher's frames by its own classifier, ``[b, n_t, c]`` float64"""
    attention: torch.Tensor | None
    """the softmax of eq. (1), ``[b, n_s, n_t]``: how much each student frame took from each teacher frame; of
    Dynamic-STE alone"""

    def cpu(self) -> "VideoScores":
        """The same on the CPU."""
        student, teacher, attention = (
            None if part is None else part.cpu() for part in (self.student, self.teacher, self.attention)
        )
        return VideoScores(self.probabilities.cpu(), student, teacher, attention)


def score_videos(model: Model, student: Frames | None, teacher: Frames | None) -> VideoScores:
    """Score videos from the features and masks of the branches that the model has; None for one that it lacks."""
    if isinstance(model, FrameClassifier):
        scores = model(*(student or teacher))  # type: ignore[misc]
        video, frames = video_probabilities(scores.video_logits), _softmax(scores.frame_logits)
        return VideoScores(video, frames if student else None, None if student else frames, None)
    assert student is not None and teacher is not None  # the model has both
    if isinstance(model, DynamicSTE):
        dynamic = model(*student, *teacher)
        return VideoScores(
            video_probabilities(dynamic.video_logits),
            _softmax(dynamic.frame_logits),
            _softmax(model.teacher.classifier(dynamic.teacher_features)),
            attention_weights(dynamic.queries, dynamic.keys, teacher[1]),
        )
    of_student, of_teacher = model.student(*student), model.teacher(*teacher)
    return VideoScores(
        model.average(video_probabilities(of_student.video_logits), video_probabilities(of_teacher.video_logits)),
        _softmax(of_student.frame_logits),
        _softmax(of_teacher.frame_logits),
        None,
    )


def _softmax(frame_logits: torch.Tensor) -> torch.Tensor:
    return frame_logits.double().softmax(dim=2)
