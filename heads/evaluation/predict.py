"""Predictions of a trained model for all videos of a split."""

from dataclasses import dataclass

import numpy as np
import torch

from dynaprop.heads.features.batch import gather_frames
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier, StaticSTE
from dynaprop.heads.model.prediction import video_probabilities
from dynaprop.pipeline.errors import DynapropError, UsageError

Model = FrameClassifier | DynamicSTE | StaticSTE


@dataclass(frozen=True)
class Prediction:
    """Class scores of the videos of a split, and how many frames they cost."""

    video_ids: tuple[str, ...]
    probabilities: np.ndarray
    """float64 ``[v, c]``"""
    n_s_used: np.ndarray
    """int64 ``[v]``, student frames of each video: fewer than asked for if the video is short"""
    n_t_used: np.ndarray
    """int64 ``[v]``, teacher frames of each video"""


def predict(
    model: Model,
    split: FeatureSplit,
    *,
    n_s: int,
    n_t: int,
    skip_overlap: bool = False,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Prediction:
    """Predict every video of ``split`` from the clips that inference sampling gives (`inference_clips`).

    Args:
        model: a trained model; it is moved to ``device``
        split: the videos
        n_s: student frames of each video; 0 for a classifier of the teacher's branch
        n_t: teacher frames of each video; 0 for a classifier of the student's branch
        skip_overlap: see `inference_clips`
        batch_size: videos in a batch
        device: where to predict

    Raises:
        UsageError: the counts or the features do not fit the model
        DynapropError: a video's scores are not finite
    """
    check_counts(model, n_s, n_t)
    _check_widths(model, split, n_s)
    model.to(device).eval()
    rows_s, rows_t = inference_rows(split, n_s=n_s, n_t=n_t, skip_overlap=skip_overlap)
    probabilities = np.empty((len(split), len(split.class_names)))
    with torch.inference_mode():
        for first in range(0, len(split), batch_size):
            batch = slice(first, first + batch_size)
            student = gather_frames(split.student, rows_s[batch], device=device) if n_s else None
            teacher = gather_frames(split.teacher, rows_t[batch], device=device) if n_t else None
            probabilities[batch] = _scores(model, student, teacher).cpu().numpy()
    _check_finite(probabilities, split)
    return Prediction(
        video_ids=split.video_ids,
        probabilities=probabilities,
        n_s_used=np.array([len(rows) for rows in rows_s], dtype=np.int64),
        n_t_used=np.array([len(rows) for rows in rows_t], dtype=np.int64),
    )


def inference_rows(
    split: FeatureSplit, *, n_s: int, n_t: int, skip_overlap: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of the student's and of the teacher's frames of every video, see `inference_clips`."""
    clips = [inference_clips(int(t), n_s=n_s, n_t=n_t, skip_overlap=skip_overlap) for t in split.n_clips]
    rows_s = [start + student for start, (student, _) in zip(split.starts, clips, strict=True)]
    rows_t = [start + teacher for start, (_, teacher) in zip(split.starts, clips, strict=True)]
    return rows_s, rows_t


Frames = tuple[torch.Tensor, torch.Tensor]  # features [b, n, d] and mask [b, n]


def _scores(model: Model, student: Frames | None, teacher: Frames | None) -> torch.Tensor:
    """Class probabilities ``[b, c]``, float64."""
    if isinstance(model, FrameClassifier):
        z, mask = student or teacher  # type: ignore[misc]
        return video_probabilities(model(z, mask).video_logits)
    assert student is not None and teacher is not None  # by check_counts
    if isinstance(model, StaticSTE):
        return model(*student, *teacher)
    return video_probabilities(model(*student, *teacher).video_logits)


def check_counts(model: Model, n_s: int, n_t: int) -> None:
    """Raises UsageError where these numbers of frames are not for a model of this kind."""
    single = isinstance(model, FrameClassifier)
    if single and (n_s == 0) == (n_t == 0):
        raise UsageError(
            f"a model of one branch needs one of n_s and n_t, got n_s={n_s}, n_t={n_t}: set the other to 0"
        )
    if not single and (n_s == 0 or n_t == 0):
        raise UsageError(f"an ensemble needs frames for both branches, got n_s={n_s}, n_t={n_t}")


def branch_widths(model: Model, *, n_s: int) -> dict[str, int]:
    """Width of the features that each branch of a model takes; a classifier is the student's where ``n_s`` is not 0."""
    if isinstance(model, FrameClassifier):
        return {"student" if n_s else "teacher": model.branch.dim}
    student = model.student if isinstance(model, DynamicSTE) else model.student.branch
    return {"student": student.dim, "teacher": model.teacher.branch.dim}


def _check_widths(model: Model, split: FeatureSplit, n_s: int) -> None:
    expected = branch_widths(model, n_s=n_s)
    found = {"student": split.student.shape[1], "teacher": split.teacher.shape[1]}
    for branch, width in expected.items():
        if found[branch] != width:
            raise UsageError(
                f"the model was trained on {branch} features of {width} channels, these have {found[branch]}: "
                "use features of the same backbone"
            )
    if model.n_classes != len(split.class_names):
        raise UsageError(
            f"the model knows {model.n_classes} classes, the data have {len(split.class_names)}: "
            "use the class list that it was trained with"
        )


def _check_finite(probabilities: np.ndarray, split: FeatureSplit) -> None:
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(bad):
        raise DynapropError(
            f"scores of {len(bad)} of {len(split)} videos are not finite, {split.video_ids[bad[0]]!r} first: "
            "extract their features again"
        )
