"""From rows of single trainings to a table: means over seeds with intervals, and paired differences between models."""

import numpy as np
import pandas as pd

from heads.metric import Interval, mean_interval
from heads.trained import MODELS

SETTING = ["recipe", "model", "n_s", "n_t"]
"""Columns that name a line of the table."""

_MEANS = ["gflops_paper", "gmacs_measured", "n_s_used", "n_t_used"]


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: mean of top-1 and mAP with a 95 % interval over seeds, and the costs.

    Folds are first joined to one figure a seed, weighted by their test videos; the interval is Student's t over seeds,
    absent (NaN) for a single one.

    Args:
        results: rows of ``results.parquet`` of one dataset and one kind of split.

    Raises:
        ValueError: rows of several kinds of split, whose means would say nothing.
    """
    if results["split"].nunique() > 1:
        raise ValueError(f"results of several splits: {sorted(results['split'].unique())}; select one")
    rows = []
    for setting, group in results.groupby(SETTING, sort=False, dropna=False):
        weights = group["n_videos"]
        row: dict[str, object] = dict(zip(SETTING, setting, strict=True))
        for metric in ("top1", "map"):
            totals = (group[metric] * weights).groupby(group["seed"]).sum()
            interval = mean_interval(list(totals / weights.groupby(group["seed"]).sum()))
            row |= {metric: interval.estimate, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        row |= {name: group[name].astype("float64").mean() for name in _MEANS}
        row |= {"seeds": group["seed"].nunique(), "n_videos": int(weights.groupby(group["seed"]).sum().iloc[0])}
        row |= {"n_missing": int(group["n_missing"].groupby(group["seed"]).sum().iloc[0])}
        rows.append(row)
    table = pd.DataFrame(rows)
    order = table["model"].map(MODELS.index)
    table = table.assign(order=order).sort_values(["recipe", "order", "gmacs_measured"], ascending=[True, True, False])
    return table.drop(columns="order")


def paired_difference(
    predictions: pd.DataFrame, first: dict[str, object], second: dict[str, object], *, resamples: int = 10_000
) -> Interval:
    """Top-1 of one model minus another's on the same videos, with a 95 % bootstrap interval over videos.

    A video counts with its mean correctness over seeds, so that the interval speaks of other videos, not of other
    seeds.

    Args:
        predictions: rows of ``predictions.parquet`` of one dataset and one kind of split.
        first, second: values of key columns that select the two models, e.g. ``{"model": "dynamic", "n_s": 16}``.
        resamples: bootstrap samples.
    """
    a, b = (_correctness(predictions, chosen) for chosen in (first, second))
    a, b = a.align(b, join="inner")
    difference = (a - b).to_numpy()
    rng = np.random.default_rng(0)
    means = difference[rng.integers(len(difference), size=(resamples, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))


def _correctness(predictions: pd.DataFrame, chosen: dict[str, object]) -> pd.Series:
    """Share of seeds in which each video was recognised, by video id."""
    rows = predictions
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    right = [predicted in labels for predicted, labels in zip(rows["predicted"], rows["labels"], strict=True)]
    return pd.Series(right, index=rows["video_id"], dtype="float64").groupby(level=0).mean()


PAPER_NAMES = {
    "student": "Student",
    "student-kd": "Student with KD",
    "teacher": "Teacher",
    "static-avg": "Static-STE Avg",
    "static-weighted": "Static-STE Weighted Avg",
    "dynamic": "Dynamic-STE",
    "dynamic-shuffled": "Dynamic-STE, teacher of another video",
}
