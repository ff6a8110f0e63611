"""Top-1 and mean average precision of video predictions, and how sure a mean over seeds is.

All rates are fractions of 1. Scores are class probabilities, ``[v, c]``; targets are multi-hot, bool ``[v, c]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from dynaprop.pipeline.errors import DynapropError


def multi_hot(labels: Sequence[Sequence[int]], n_classes: int) -> np.ndarray:
    """Targets from the class indices of each video.

    Every class of the class list has its column, whether or not a video shows it. (AR-Net renumbers the labels that
    are present, which scores a subset that lacks a class wrongly.)

    Raises:
        DynapropError: a video without label, or an index outside the class list
    """
    targets = np.zeros((len(labels), n_classes), dtype=bool)
    for video, classes in enumerate(labels):
        if len(classes) == 0 or min(classes) < 0 or max(classes) >= n_classes:
            raise DynapropError(
                f"video {video} has labels {list(classes)}: it needs at least one, each from 0 to {n_classes - 1}"
            )
        targets[video, list(classes)] = True
    return targets


def top1(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of videos whose best class is among their labels; among equal scores the first class is taken."""
    return float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class, ``[c]``, as AR-Net computes it (``ops/utils.py``, ``cal_map``).

    Videos are ranked by their score of the class, in float64, equal scores in the order of the videos. AP is the sum
    of the precisions at the positives over max(number of positives, 1): not interpolated, 0 for a class without any.
    """
    order = np.argsort(-scores.astype(np.float64), axis=0, kind="stable")  # [v, c]
    truth = np.take_along_axis(targets, order, axis=0)  # [v, c]
    precision = truth.cumsum(axis=0) / np.arange(1, len(truth) + 1)[:, None]  # [v, c]
    return (precision * truth).sum(axis=0) / np.maximum(truth.sum(axis=0), 1)  # [c]


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of `average_precision` over all classes of the list, those without a positive included."""
    return float(average_precision(scores, targets).mean())


class ResampledMap:
    """`mean_average_precision` of resamples of the same videos, ranked once.

    Only the positives' ranks matter, and counting who is drawn ahead of each is a product of matrices: on 4,926 videos
    of 200 classes 80 times faster than walking down every class's list.

    Args:
        scores: ``[v, c]``
        targets: bool ``[v, c]``
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        order = np.argsort(-scores.astype(np.float64), axis=0, kind="stable")  # [v, c]
        self._rank = np.empty_like(order)
        np.put_along_axis(self._rank, order, np.arange(len(order))[:, None], axis=0)  # [v, c]
        self._targets = targets

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """The metric, ``[r]``, where each video stands ``counts`` ``[r, v]`` times; its copies share its rank."""
        drawn = counts.astype(np.float32)  # exact up to 2^24 videos
        total = np.zeros(len(counts))
        for c in np.flatnonzero(self._targets.any(axis=0)):
            positives = np.flatnonzero(self._targets[:, c])  # [p]
            ahead = (self._rank[:, c, None] <= self._rank[positives, c]).astype(np.float32)  # [v, p]
            seen = (drawn @ ahead).astype(np.float64)  # [r, p]
            hits = (drawn[:, positives] @ ahead[positives]).astype(np.float64)  # [r, p]
            weight = counts[:, positives]  # [r, p]
            total += (hits / np.maximum(seen, 1) * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
        return total / self._targets.shape[1]


def per_class(scores: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """A row for each class: ``class_name``, ``n_videos`` (positives), ``average_precision`` and ``recall``.

    Recall is the share of the class's videos for which it is the best class; NaN without any.
    """
    best = scores.argmax(axis=1)  # [v]
    hits = targets & (best[:, None] == np.arange(scores.shape[1]))  # [v, c]
    positives = targets.sum(axis=0)  # [c]
    return pd.DataFrame(
        {
            "class_name": list(class_names),
            "n_videos": positives,
            "average_precision": average_precision(scores, targets),
            "recall": np.where(positives > 0, hits.sum(axis=0) / np.maximum(positives, 1), np.nan),
        }
    )


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; the bounds are NaN where there is nothing to tell them from."""

    estimate: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval; one value has a mean but no bounds."""
    if len(values) == 0:
        raise DynapropError("a mean needs at least one value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.5 + level / 2, df=len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)
