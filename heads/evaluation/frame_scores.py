"""Class probabilities of single frames: what Figure 5 draws, and which moments a model is sure of."""

import numpy as np
import pandas as pd
import torch

from dynaprop.heads.evaluation.predict import inference_rows
from dynaprop.heads.features.batch import gather_frames
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier

TOP = 5
"""Classes listed for a frame."""


def frame_scores(
    model: FrameClassifier | DynamicSTE, split: FeatureSplit, *, n_s: int, n_t: int, batch_size: int = 64
) -> pd.DataFrame:
    """Score every frame that the model sees of every video, at inference's frames.

    A student's frame of Dynamic-STE is scored after propagation (eq. 2), a teacher's frame by the teacher's classifier.

    Args:
        model: a trained model, where its parameters lie
        split: the videos
        n_s, n_t: frames of student and teacher; one of them 0 for a model of one branch
        batch_size: videos in a batch

    Returns:
        A row a frame: ``video_id``, ``timestamp`` (seconds since the video's first frame), ``branch`` (whose frame it
        is), ``true_class`` (the video's first label), ``true_probability`` (float32), and ``top5`` (class names) with
        ``top5_probabilities``, most probable first.
    """
    rows_s, rows_t = inference_rows(split, n_s=n_s, n_t=n_t)
    tables = []
    for first in range(0, len(split), batch_size):
        batch = range(first, min(first + batch_size, len(split)))
        for branch, logits in _logits(model, split, [rows_s[v] for v in batch], [rows_t[v] for v in batch]).items():
            rows = rows_s if branch == "student" else rows_t
            tables += [
                _rows(split, video, branch, rows[video], of_video)
                for video, of_video in zip(batch, logits.double().softmax(dim=2).cpu().numpy(), strict=True)
            ]
    return pd.concat(tables, ignore_index=True)


@torch.inference_mode()
def _logits(
    model: FrameClassifier | DynamicSTE, split: FeatureSplit, rows_s: list[np.ndarray], rows_t: list[np.ndarray]
) -> dict[str, torch.Tensor]:
    """Frame logits ``[b, n, c]`` of each branch."""
    device = next(model.parameters()).device
    if isinstance(model, FrameClassifier):
        student = bool(len(rows_s[0]))
        features, rows = (split.student, rows_s) if student else (split.teacher, rows_t)
        return {"student" if student else "teacher": model(*gather_frames(features, rows, device=device)).frame_logits}
    scores = model(
        *gather_frames(split.student, rows_s, device=device), *gather_frames(split.teacher, rows_t, device=device)
    )
    return {"student": scores.frame_logits, "teacher": model.teacher.classifier(scores.teacher_features)}


def _rows(split: FeatureSplit, video: int, branch: str, rows: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The frames of one video: ``rows`` ``[n]`` of the split, ``probabilities`` ``[>= n, c]``, padding behind."""
    p = probabilities[: len(rows)].astype(np.float32)  # [n, c]
    best = np.argsort(-p, axis=1, kind="stable")[:, :TOP]  # [n, 5]
    names = np.array(split.class_names, dtype=object)
    true = split.labels[video][0]
    return pd.DataFrame(
        {
            "video_id": split.video_ids[video],
            "timestamp": split.timestamps[rows],
            "branch": branch,
            "true_class": split.class_names[true],
            "true_probability": p[:, true],
            "top5": list(names[best]),
            "top5_probabilities": list(np.take_along_axis(p, best, axis=1)),
        }
    )
