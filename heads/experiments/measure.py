"""Measure trained models on test videos: the rows of results, predictions and per-class tables."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from dynaprop.heads.evaluation.chance import levels
from dynaprop.heads.evaluation.frame_scores import frame_scores
from dynaprop.heads.evaluation.metric import mean_average_precision, multi_hot, per_class, top1
from dynaprop.heads.evaluation.predict import Model, Prediction, predict
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.model.cost import gflops_paper, gmacs_backbones, gmacs_heads
from dynaprop.heads.model.ensembles import StaticSTE
from dynaprop.heads.model.setting import Setting
from dynaprop.heads.runs.rows import UnitTables

FRAME_MODELS = ("student", "teacher", "dynamic")
"""The models whose frames are scored one by one (Figure 5)."""


@dataclass(frozen=True)
class BranchCost:
    """Cost of one frame of one branch."""

    gmacs: float
    """Counted multiply-adds, in units of 1e9."""
    gflops_paper: float | None
    """Published; None for a backbone that the paper lacks."""


class Models(Protocol):
    """Trained models, such as `TrainedModels`."""

    @property
    def seed(self) -> int: ...

    @property
    def device(self) -> str: ...

    def model(self, setting: Setting) -> Model:
        """The trained model of a setting."""

    def seconds(self, setting: Setting) -> float:
        """What its training took."""


def measure(
    trained: Models,
    test: FeatureSplit,
    *,
    settings: Sequence[Setting],
    key: dict[str, object],
    student_cost: BranchCost,
    teacher_cost: BranchCost,
    n_missing: int = 0,
    with_frames: bool = False,
) -> UnitTables:
    """Train the models of the settings, as far as they are not yet, and measure each on the test videos.

    Args:
        trained: the models.
        test: the test videos.
        settings: what to measure, a row each.
        key: the columns of ``results.KEY`` that all rows share.
        student_cost, teacher_cost: cost of a frame.
        n_missing: test videos that have no features.
        with_frames: also score every frame, of the models in ``FRAME_MODELS`` without their ablations.
    """
    results, predictions, classes, frames = [], [], [], []
    targets = multi_hot(test.labels, len(test.class_names))
    firsts = multi_hot([labels[:1] for labels in test.labels], len(test.class_names))
    for setting in settings:
        model = trained.model(setting)
        began = time.monotonic()
        videos = shuffled_teacher(test, trained.seed) if setting.model == "dynamic-shuffled" else test
        prediction = predict(model, videos, n_s=setting.n_s, n_t=setting.n_t, device=trained.device)
        seconds = trained.seconds(setting) + time.monotonic() - began
        row = key | asdict(setting) | {"seed": trained.seed}
        scores = prediction.probabilities
        results.append(
            row
            | {"top1": top1(scores, targets), "top1_first_label": top1(scores, firsts)}
            | {"map": mean_average_precision(scores, targets)}
            | levels(targets.sum(axis=0), len(test))
            | _cost(model, prediction, setting, student_cost, teacher_cost)
            | {"n_videos": len(test), "n_missing": n_missing, "seconds": seconds}
            | _static_weights(model)
        )
        predictions.append(_prediction_rows(test, prediction).assign(**row))
        classes.append(per_class(scores, targets, test.class_names).assign(**row))
        if with_frames and setting.model in FRAME_MODELS and setting.is_whole:
            assert not isinstance(model, StaticSTE)
            frames.append(frame_scores(model, test, n_s=setting.n_s, n_t=setting.n_t).assign(**row))
    return UnitTables(
        results=pd.DataFrame(results),
        predictions=pd.concat(predictions, ignore_index=True),
        per_class=pd.concat(classes, ignore_index=True),
        frame_scores=pd.concat(frames, ignore_index=True) if frames else None,
    )


def shuffled_teacher(split: FeatureSplit, seed: int) -> FeatureSplit:
    """The same videos, each with another one's teacher features, stretched to its own number of clips."""
    order = np.random.default_rng(seed).permutation(len(split))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # one cycle: of several videos, none keeps its own
    n_clips = split.n_clips
    rows = [split.starts[other[video]] + np.arange(n) * n_clips[other[video]] // n for video, n in enumerate(n_clips)]
    return replace(
        split,
        starts=np.cumsum(n_clips) - n_clips,
        student=split.student[torch.from_numpy(split.rows)],
        teacher=split.teacher[torch.from_numpy(np.concatenate(rows))],
        timestamps=split.timestamps[split.rows],
    )


def _cost(
    model: Model, prediction: Prediction, setting: Setting, student: BranchCost, teacher: BranchCost
) -> dict[str, float | None]:
    backbones = gmacs_backbones(n_s=prediction.n_s_used, n_t=prediction.n_t_used, b_s=student.gmacs, b_t=teacher.gmacs)
    n_s, n_t = (round(used.mean()) for used in (prediction.n_s_used, prediction.n_t_used))  # a video of mean length
    published = {"b_s": student.gflops_paper, "b_t": teacher.gflops_paper}
    return {
        "gflops_paper": gflops_paper(n_s=setting.n_s, n_t=setting.n_t, **published),
        "gmacs_measured": backbones + gmacs_heads(model, n_s=n_s, n_t=n_t),
        "n_s_used": float(prediction.n_s_used.mean()),
        "n_t_used": float(prediction.n_t_used.mean()),
    }


def _static_weights(model: Model) -> dict[str, float | None]:
    """The weights that Static-STE Weighted Avg learnt; null for every other model."""
    weights = model.weights if isinstance(model, StaticSTE) else None
    return {"weight_s": weights[0] if weights else None, "weight_t": weights[1] if weights else None}


def _prediction_rows(test: FeatureSplit, prediction: Prediction) -> pd.DataFrame:
    scores = prediction.probabilities.astype(np.float32)
    return pd.DataFrame(
        {
            "video_id": test.video_ids,
            "labels": [list(labels) for labels in test.labels],
            "predicted": scores.argmax(axis=1),
            "scores": list(scores),
        }
    )
