"""Models against whoever always answers the largest class: a model that is not above it has shown nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynaprop.heads.evaluation.metric import Interval
from dynaprop.heads.evaluation.summary import (
    FEWEST_VIDEOS,
    RESAMPLES,
    SETTING,
    bounds,
    draws,
    selected,
    setting_label,
    verdict,
)

_FEW = 8  # names in one sentence


@dataclass(frozen=True)
class AgainstLargest:
    """A model's top-1 minus the largest class's share, in fractions of 1."""

    model: str
    """As people call it, with its frames."""
    largest_class: float
    over_videos: Interval
    """Bounds are NaN below ``FEWEST_VIDEOS``."""
    over_seeds: Interval
    """Bounds are NaN for a single seed."""

    @property
    def verdict(self) -> str:
        """``above`` or ``below`` where every interval says so, else ``not shown``."""
        return verdict(self.over_videos, self.over_seeds)

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        points = round(100 * self.over_videos.estimate, 1)
        level = f"{abs(points):.1f} points {'above' if points > 0 else 'below'}" if points else "level with"
        text = f"{self.model} is {level} always answering the largest class ({100 * self.largest_class:.1f}\u00a0%)"
        if np.isnan(self.over_videos.low):
            return f"{text}: not shown to be above it, {FEWEST_VIDEOS} videos are the fewest for an interval."
        text += f", 95\u00a0% interval over videos {bounds(self.over_videos)}"
        if not np.isnan(self.over_seeds.low):
            text += f" and over seeds {bounds(self.over_seeds)}"
        return f"{text}." if self.verdict != "not shown" else f"{text}: not shown to be above it."


def against_largest(summary: pd.DataFrame, predictions: pd.DataFrame) -> list[AgainstLargest]:
    """Every line of a summary in top-1, on the same videos.

    Args:
        summary: from ``summarise``.
        predictions: of its rows; without scores.
    """
    lines = summary.to_dict("records")
    settings = [{column: line[column] for column in SETTING} for line in lines]
    differences = pd.concat([_differences(selected(predictions, setting)) for setting in settings], axis=1)  # [v, l]
    found = []
    for line, over_videos in zip(lines, _intervals(differences.to_numpy()), strict=True):
        share = line["top1"] - over_videos.estimate
        over_seeds = Interval(over_videos.estimate, line["top1_low"] - share, line["top1_high"] - share)
        found.append(AgainstLargest(_name(line), share, over_videos, over_seeds))
    return found


def _differences(rows: pd.DataFrame) -> pd.Series:
    """By video: the share of the seeds that are right, minus 1 where its fold's most frequent class is right."""
    constant: dict[Any, int] = {}
    folds = rows["fold"].astype("Int64").fillna(-1).astype(int)
    for fold, labels in rows.drop_duplicates("video_id")["labels"].groupby(folds):
        constant[fold] = int(np.bincount(np.concatenate([np.unique(of_video) for of_video in labels])).argmax())
    difference = [
        int(predicted in labels) - int(constant[fold] in labels)
        for predicted, labels, fold in zip(rows["predicted"], rows["labels"], folds, strict=True)
    ]
    return pd.Series(difference, index=rows["video_id"], dtype="float64").groupby(level=0).mean()


def _intervals(differences: np.ndarray) -> list[Interval]:
    """The mean of each column of ``[v, l]`` with a 95 % bootstrap interval over its videos, those that are not NaN.

    Columns of the same videos share the samples, whose drawing takes most of the time.
    """
    there = ~np.isnan(differences)
    bounds_of = np.full((2, differences.shape[1]), np.nan)
    for pattern in np.unique(there, axis=1).T:
        columns = np.flatnonzero((there == pattern[:, None]).all(axis=0))
        values = differences[pattern][:, columns]
        if len(values) >= FEWEST_VIDEOS:
            means = np.concatenate([counts @ values / len(values) for counts in draws(len(values), RESAMPLES["top1"])])
            bounds_of[:, columns] = np.quantile(means, [0.025, 0.975], axis=0)
    return [
        Interval(float(mean), float(low), float(high))
        for mean, low, high in zip(np.nanmean(differences, axis=0), *bounds_of, strict=True)
    ]


def not_above_in_words(found: Sequence[AgainstLargest]) -> str:
    """Which models are not shown to be better, in a sentence without its full stop; empty where all are."""
    names = [one.model for one in found if one.verdict != "above"]
    if not names:
        return ""
    if len(names) == len(found) > 1:
        return f"NONE of the {len(names)} models is shown to be above always answering the largest class"
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"NOT shown to be above always answering the largest class: {', '.join(names[:_FEW])}{more}"


def _name(line: Mapping[Any, Any]) -> str:
    return f"{setting_label(line)} at {' + '.join(str(n) for n in (line['n_s'], line['n_t']) if n)} frames"
