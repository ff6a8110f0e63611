"""Dynamic-STE against each baseline, in numbers and in plain sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from heads.metric import Interval, mean_interval
from heads.report.runs import is_full
from heads.summary import PAPER_NAMES, SETTING, paired_difference

Metric = Literal["top1", "map"]

_ENSEMBLES = ("static-avg", "static-weighted", "dynamic-shuffled")
_SINGLES = ("student", "student-kd", "teacher")


@dataclass(frozen=True)
class Comparison:
    """Dynamic-STE minus a baseline."""

    recipe: str
    n_s: int
    n_t: int
    """Frames of the Dynamic-STE."""
    gmacs: float
    """Its measured cost."""
    baseline: str
    """A name in ``heads.setting.MODELS``."""
    how: Literal["same frames", "interpolated", "nearest"]
    points: tuple[tuple[int, float], ...]
    """(frames, cost) of the baseline's measured points that were used; empty for the same frames."""
    difference: Interval
    """Fractions of 1; its bounds are NaN where a single seed gives none."""

    @property
    def verdict(self) -> str:
        """``above``, ``below`` or ``not shown``."""
        if self.difference.low > 0:
            return "above"
        return "below" if self.difference.high < 0 else "not shown"

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        gap = self.difference
        points = 100 * gap.estimate
        shuffled = self.baseline == "dynamic-shuffled"
        name = "itself with the teacher of another video" if shuffled else PAPER_NAMES[self.baseline]
        text = f"At {self.n_s} + {self.n_t} frames Dynamic-STE is "
        text += f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} {name}"
        if self.how == "interpolated":
            text += f" at equal cost ({self.gmacs:.2f} GMACs, {_between(self.points)})"
        elif self.how == "nearest":
            ((frames, cost),) = self.points
            other = "cheaper" if cost < self.gmacs else "dearer"
            text += f" with {frames} frames, its measured point nearest in cost and {other} ({cost:.2f} GMACs against "
            text += f"{self.gmacs:.2f})"
        if np.isnan(gap.low):
            return f"{text}; not shown: a single seed has no interval."
        over = "videos" if self.how == "same frames" else "seeds"
        low, high = (round(100 * bound, 1) + 0.0 for bound in (gap.low, gap.high))  # + 0.0: no minus before zero
        text += f", 95\u00a0% interval over {over} [{low:.1f}, {high:.1f}]"
        return f"{text}: not shown, the interval contains 0." if self.verdict == "not shown" else f"{text}."


def paired(predictions: pd.DataFrame, first: dict[str, Any], second: dict[str, Any], metric: Metric) -> Interval:
    """One line's metric minus another's on the same videos, with a bootstrap interval over videos."""
    keys = [{name: line[name] for name in SETTING} for line in (first, second)]
    return paired_difference(predictions, *keys, metric=metric)


def equal_cost_difference(
    dynamic: pd.DataFrame, baseline: pd.DataFrame, *, metric: Metric
) -> tuple[Interval, Literal["interpolated", "nearest"], tuple[tuple[int, float], ...]] | None:
    """Dynamic-STE minus a baseline at what Dynamic-STE costs, with Student's t interval over seeds.

    Where the baseline's measured points lie on both sides of that cost, its metric is interpolated between the two
    next to it, linearly in multiply-adds and seed by seed; elsewhere its nearest point (in the ratio of the costs)
    stands for it.

    Args:
        dynamic: result rows of Dynamic-STE at one number of frames, all seeds and folds.
        baseline: result rows of the baseline at all its numbers of frames.
        metric: ``top1`` or ``map``.

    Returns:
        The difference; how it was taken; (frames, cost) of the baseline's points that were used. None where the two
        share no seed.
    """
    ours = _by_seed(dynamic, metric)
    curve = {int(n_s + n_t): _by_seed(rows, metric) for (n_s, n_t), rows in baseline.groupby(["n_s", "n_t"], sort=True)}
    costs = {frames: float(points["gmacs_measured"].mean()) for frames, points in curve.items()}
    cost = float(ours["gmacs_measured"].mean())
    below = [frames for frames in curve if costs[frames] <= cost]
    above = [frames for frames in curve if costs[frames] >= cost]
    if below and above:
        how: Literal["interpolated", "nearest"] = "interpolated"
        used = sorted({max(below, key=costs.__getitem__), min(above, key=costs.__getitem__)})
    else:
        how = "nearest"
        used = [min(curve, key=lambda frames: abs(np.log(costs[frames] / cost)))]
    seeds = ours.index
    for frames in used:
        seeds = seeds.intersection(curve[frames].index)
    if not len(seeds):
        return None
    gaps = []
    for seed in seeds:
        points = pd.DataFrame([curve[frames].loc[seed] for frames in used]).sort_values("gmacs_measured")
        at_cost = np.interp(ours.loc[seed, "gmacs_measured"], points["gmacs_measured"], points[metric])
        gaps.append(float(ours.loc[seed, metric] - at_cost))
    return mean_interval(gaps), how, tuple((frames, costs[frames]) for frames in used)


def compare(results: pd.DataFrame, predictions: pd.DataFrame, *, metric: Metric) -> list[Comparison]:
    """Every full Dynamic-STE against the ensembles on the same frames and against the single networks at equal cost.

    Args:
        results: rows of one part and experiment.
        predictions: its predictions, with scores where the metric is ``map``.
        metric: ``top1`` or ``map``.
    """
    found = []
    full = results[is_full(results)]
    plain = results[_whole(results)]
    for (recipe, n_s, n_t), rows in full.groupby(["recipe", "n_s", "n_t"], sort=True):
        others = plain[plain["recipe"] == recipe]
        line = rows.iloc[0].to_dict()
        common: dict[str, Any] = {"recipe": recipe, "n_s": int(n_s), "n_t": int(n_t)}
        common["gmacs"] = float(_by_seed(rows, metric)["gmacs_measured"].mean())
        for model in _ENSEMBLES:
            same = others[(others["model"] == model) & (others["n_s"] == n_s) & (others["n_t"] == n_t)]
            if len(same):
                gap = paired(predictions, line, same.iloc[0].to_dict(), metric)
                found.append(Comparison(**common, baseline=model, how="same frames", points=(), difference=gap))
        for model in _SINGLES:
            curve = others[others["model"] == model]
            if len(curve) and (at_cost := equal_cost_difference(rows, curve, metric=metric)):
                gap, how, points = at_cost
                found.append(Comparison(**common, baseline=model, how=how, points=points, difference=gap))
    return found


def in_short(comparisons: Sequence[Comparison]) -> str:
    """How many of the comparisons with a baseline came out which way, and with which one."""
    counted = [one for one in comparisons if one.baseline != "dynamic-shuffled"]

    def outcome(verdict: str) -> str:
        names = Counter(PAPER_NAMES[one.baseline] for one in counted if one.verdict == verdict)
        several = [name if count == 1 else f"{name} at {count} points" for name, count in names.items()]
        return f"{names.total()} ({', '.join(several)})" if names else "none"

    return (
        f"Of {len(counted)} comparisons with a baseline, Dynamic-STE is above in {outcome('above')} and below in "
        f"{outcome('below')}. Not shown either way: {outcome('not shown')}."
    )


def _whole(rows: pd.DataFrame) -> pd.Series:
    """Rows of models as they are meant to be: no fusion switched off."""
    return rows["fusion_s"].fillna(True) & rows["fusion_t"].fillna(True)


def _by_seed(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Metric and cost of each seed, folds weighted by their test videos."""
    weights = rows["n_videos"]
    sums = rows[[metric, "gmacs_measured"]].mul(weights, axis=0).groupby(rows["seed"]).sum()
    return sums.div(weights.groupby(rows["seed"]).sum(), axis=0)


def _between(points: Sequence[tuple[int, float]]) -> str:
    if len(points) == 1:
        return f"its {points[0][0]} frames"
    return f"between its {points[0][0]} and {points[1][0]} frames"
