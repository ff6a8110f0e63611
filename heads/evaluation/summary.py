"""From rows of single trainings to a table: means over seeds with intervals, and paired differences between models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from dynaprop.heads.evaluation.chance import LEVELS
from dynaprop.heads.evaluation.metric import Interval, ResampledMap, mean_interval, multi_hot
from dynaprop.heads.model.setting import MODELS
from dynaprop.pipeline.errors import DynapropError

SETTING = ["recipe", "model", "fusion_s", "fusion_t", "losses", "n_s", "n_t"]
"""Columns that name a line of the table."""

FEWEST_VIDEOS = 10
"""for an interval over videos"""

RESAMPLES = {"top1": 10_000, "map": 500}
"""Bootstrap samples of an interval over videos."""

_MEANS = ["gflops_paper", "gmacs_measured", "n_s_used", "n_t_used"]


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: mean of top-1 and mAP with a 95 % interval over seeds, their levels, and the costs.

    Folds are first joined to one figure a seed, weighted by their test videos; the interval is Student's t over seeds,
    absent (NaN) for a single one.

    Args:
        results: rows of ``results.parquet`` of one dataset and one kind of split; a row that stands there for several
            experiments counts once.

    Raises:
        DynapropError: a recipe's rows are of several datasets, kinds of split, hyper-parameters or features.
    """
    results = results.drop_duplicates([*SETTING, "options_digest", "feature_key", "split", "fold", "seed"])
    for column in ("dataset", "split", "options_digest", "feature_key"):
        if results.groupby("recipe")[column].nunique().max() > 1:
            raise DynapropError(f"results of several values of {column}, whose means would say nothing: select one")
    rows = []
    for setting, group in results.groupby(SETTING, sort=False, dropna=False):
        weights = group["n_videos"]
        row: dict[str, object] = dict(zip(SETTING, setting, strict=True))
        for metric in ("top1", "map"):
            interval = mean_interval(list(_by_seed(group, metric)))
            row |= {metric: interval.estimate, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        row |= {level: _by_seed(group, level).mean() if level in group else float("nan") for level in LEVELS}
        row |= {name: group[name].astype("float64").mean() for name in _MEANS}
        row |= {"seeds": group["seed"].nunique(), "n_videos": int(weights.groupby(group["seed"]).sum().iloc[0])}
        row |= {"n_missing": int(group["n_missing"].groupby(group["seed"]).sum().iloc[0])}
        rows.append(row)
    table = pd.DataFrame(rows)
    order = table["model"].map(MODELS.index)
    table = table.assign(order=order).sort_values(["recipe", "order", "gmacs_measured"], ascending=[True, True, False])
    return table.drop(columns="order")


def _by_seed(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Of each seed the mean over its test videos, whatever their fold."""
    weights = rows["n_videos"]
    sums = (rows[metric] * weights).groupby(rows["seed"]).agg(lambda fold: fold.sum(skipna=False))  # unknown is not 0
    return sums / weights.groupby(rows["seed"]).sum()


def whole_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without the seeds of a setting that lack a fold, as a sweep leaves them that was interrupted.

    Args:
        rows: of any table of a run; splits are called ``5-fold`` where there are five.
    """
    folds = rows["split"].str.extract(r"^(\d+)-fold$", expand=False).astype("Int64").fillna(0)
    found = rows.groupby([*SETTING, "split", "seed"], dropna=False)["fold"].transform("nunique")
    return rows[(found == folds).astype(bool)]


def paired_difference(
    predictions: pd.DataFrame,
    first: dict[str, Any],
    second: dict[str, Any],
    *,
    metric: Literal["top1", "map"] = "top1",
    resamples: int | None = None,
) -> Interval:
    """A metric of one model minus another's on the same videos, with a 95 % bootstrap interval over videos.

    The metric is its mean over seeds, for every resample anew, so that the interval speaks of other videos, not of
    other seeds.

    Args:
        predictions: rows of ``predictions.parquet`` of one dataset and one kind of split.
        first, second: values of key columns that select the two models, e.g. ``{"model": "dynamic", "n_s": 16}``.
        metric: ``top1``, or ``map`` as `mean_average_precision` has it.
        resamples: bootstrap samples; 10,000 of top-1 and 500 of mAP, which is slow to compute, by default.

    Raises:
        ValueError: no video was predicted by both.
    """
    return weighted_sum(predictions, [(1, first), (-1, second)], metric=metric, resamples=resamples)


def weighted_sum(
    predictions: pd.DataFrame,
    terms: Sequence[tuple[float, dict[str, Any]]],
    *,
    metric: Literal["top1", "map"] = "top1",
    resamples: int | None = None,
) -> Interval:
    """The weighted sum of the metrics of several models, as `paired_difference` is one with the weights 1 and -1.

    Where the models have seeds in common, only these count. Below `FEWEST_VIDEOS` there is no interval: resampling a
    handful of videos would promise what it cannot keep.

    Args:
        predictions: rows of ``predictions.parquet`` of one dataset and one kind of split.
        terms: weights, and values of key columns that select each model.
        metric, resamples: as for `paired_difference`.

    Raises:
        ValueError: no video was predicted by all of them.
    """
    tables = [selected(predictions, chosen) for _, chosen in terms]
    if common := set.intersection(*(set(table["seed"]) for table in tables)):
        tables = [table[table["seed"].isin(common)] for table in tables]
    videos = sorted(set.intersection(*(set(table["video_id"]) for table in tables)))
    if not videos:
        raise ValueError(f"no video was predicted by all of {[chosen for _, chosen in terms]}")
    resamples = resamples or RESAMPLES[metric]
    measures = [_MEASURES[metric](rows, videos) for rows in tables]

    def total(counts: np.ndarray) -> np.ndarray:
        """From how often each video is drawn, ``[r, v]``."""
        return sum(
            (weight * measure(counts) for (weight, _), measure in zip(terms, measures, strict=True)),
            start=np.zeros(len(counts)),
        )

    (estimate,) = total(np.ones((1, len(videos))))
    if len(videos) < FEWEST_VIDEOS:
        return Interval(float(estimate), float("nan"), float("nan"))
    resampled = np.concatenate([total(counts) for counts in draws(len(videos), resamples)])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(estimate), float(low), float(high))


def draws(n_videos: int, resamples: int) -> Iterator[np.ndarray]:
    """Bootstrap samples, the same ones every time: how often each video is drawn, ``[r, v]``, some samples at once."""
    rng = np.random.default_rng(0)
    share = np.full(n_videos, 1 / n_videos)
    for start in range(0, resamples, _AT_ONCE):
        yield rng.multinomial(n_videos, share, size=min(_AT_ONCE, resamples - start)).astype(float)


def dynamic_minus(
    summary: pd.DataFrame, predictions: pd.DataFrame, *, metric: Literal["top1", "map"] = "top1"
) -> list[Interval | None]:
    """The whole Dynamic-STE minus each line of a summary, at the line's own numbers of frames.

    None for Dynamic-STE itself, and where none was measured at these numbers: a student's n_s, either of them as a
    teacher's n_t, both for an ensemble.
    """
    lines = summary.to_dict("records")
    whole = [line for line in lines if setting_label(line) == PAPER_NAMES["dynamic"]]
    differences: list[Interval | None] = []
    for line in lines:
        fitting = [
            dynamic
            for dynamic in whole
            if line["recipe"] == dynamic["recipe"]
            and line["n_s"] in (0, dynamic["n_s"])
            and (line["n_t"] in (0, dynamic["n_t"]) or (line["n_s"] == 0 and line["n_t"] == dynamic["n_s"]))
        ]
        if line in whole or not fitting:
            differences.append(None)
        else:
            first, second = ({column: one[column] for column in SETTING} for one in (fitting[0], line))
            differences.append(paired_difference(predictions, first, second, metric=metric))
    return differences


def verdict(over_videos: Interval, *others: Interval) -> str:
    """``above`` or ``below`` where every interval says so, else ``not shown``; others without bounds do not count."""
    intervals = [over_videos, *(one for one in others if not np.isnan(one.low))]
    if all(one.low > 0 for one in intervals):
        return "above"
    return "below" if all(one.high < 0 for one in intervals) else "not shown"


def bounds(interval: Interval) -> str:
    """An interval in points, as sentences have it."""
    return f"[{_points(interval.low)}, {_points(interval.high)}]"


def _points(bound: float) -> str:
    """Points with one digit, or with two where one would hide on which side of zero they are."""
    points = 100 * bound
    digits = 1 if abs(points) >= 0.05 or points == 0 else 2
    return f"{round(points, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before zero


def selected(predictions: pd.DataFrame, chosen: dict[str, Any]) -> pd.DataFrame:
    """The rows with these values of key columns, each video once a seed and fold."""
    rows = predictions
    for column, value in chosen.items():
        rows = rows[rows[column].isna() if pd.isna(value) else (rows[column] == value).fillna(False)]
    return rows.drop_duplicates(["seed", "fold", "video_id"])


Measure = Callable[[np.ndarray], np.ndarray]
"""From how often each video is drawn, ``[r, v]``, to a metric, ``[r]``."""


def _top1_measure(rows: pd.DataFrame, videos: list[str]) -> Measure:
    right = [predicted in labels for predicted, labels in zip(rows["predicted"], rows["labels"], strict=True)]
    share = pd.Series(right, index=rows["video_id"], dtype="float64").groupby(level=0).mean()  # of the seeds
    share_of = share.loc[videos].to_numpy()  # [v]
    return lambda counts: counts @ share_of / counts.sum(axis=1)


def _map_measure(rows: pd.DataFrame, videos: list[str]) -> Measure:
    """Folds are joined by their number of videos, as in `summarise`, and seeds averaged."""
    place = {video: position for position, video in enumerate(videos)}
    rows = rows[rows["video_id"].isin(place)]
    parts = []
    for _, part in rows.groupby(["seed", "fold"], dropna=False):
        scores = np.stack(part["scores"].to_list()).astype(np.float64)  # [w, c]
        targets = multi_hot(part["labels"].to_list(), scores.shape[1])  # [w, c]
        parts.append((part["video_id"].map(place).to_numpy(), ResampledMap(scores, targets)))
    seeds = rows["seed"].nunique()

    def measure(counts: np.ndarray) -> np.ndarray:
        of_parts = [metric(counts[:, position]) * counts[:, position].sum(axis=1) for position, metric in parts]
        return np.sum(of_parts, axis=0) / seeds / counts.sum(axis=1)

    return measure


_MEASURES = {"top1": _top1_measure, "map": _map_measure}
_AT_ONCE = 250  # resamples held in memory together


PAPER_NAMES = {
    "student": "Student",
    "student-kd": "Student with KD",
    "teacher": "Teacher",
    "static-avg": "Static-STE Avg",
    "static-weighted": "Static-STE Weighted Avg",
    "dynamic": "Dynamic-STE",
    "dynamic-shuffled": "Dynamic-STE, teacher of another video",
}


def setting_label(row: Mapping[Any, Any]) -> str:
    """Name a line as the paper does, with its parts where they are not the whole (Tables 4 and 5)."""
    label = PAPER_NAMES[row["model"]]
    branches = [(name, row[column]) for name, column in (("student", "fusion_s"), ("teacher", "fusion_t"))]
    present = [(name, bool(on)) for name, on in branches if not pd.isna(on)]
    if not all(on for _, on in present):
        fused = [name for name, on in present if on]
        label += f", fusion of the {fused[0]} only" if fused else ", without fusion"
    if row["model"].startswith("dynamic") and row["losses"] != "vid+frm+cos":
        label += f", losses {row['losses'].replace('+', ' + ')}"
    return label
