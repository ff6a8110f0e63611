"""Dynamic-STE against each baseline, in numbers and in plain sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from dynaprop.heads.evaluation.metric import Interval, mean_interval
from dynaprop.heads.evaluation.summary import FEWEST_VIDEOS, PAPER_NAMES, SETTING, bounds, verdict, weighted_sum
from dynaprop.heads.report.rows import is_full

Metric = Literal["top1", "map"]

_ENSEMBLES = ("static-avg", "static-weighted", "dynamic-shuffled")
_SINGLES = ("student", "student-kd", "teacher")


@dataclass(frozen=True)
class EqualCost:
    """A baseline's measured points that stand for it at Dynamic-STE's cost, and the difference to it over seeds."""

    over_seeds: Interval
    points: tuple[tuple[int, float, float], ...]
    """(frames, cost, weight): two points around the cost, or the single one at it or nearest to it."""
    nearest: bool
    """Whether the point is only the nearest one, because the curve does not reach the cost."""


@dataclass(frozen=True)
class Comparison:
    """Dynamic-STE minus a baseline, in fractions of 1."""

    recipe: str
    n_s: int
    n_t: int
    """Frames of the Dynamic-STE."""
    gmacs: float
    """Its measured cost."""
    baseline: str
    """A name in ``dynaprop.heads.model.setting.MODELS``."""
    over_videos: Interval
    equal_cost: EqualCost | None = None
    """None for a baseline on the same frames."""

    @property
    def verdict(self) -> str:
        """``above`` or ``below`` where every interval says so, else ``not shown``."""
        return verdict(self.over_videos, *([self.equal_cost.over_seeds] if self.equal_cost else []))

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        points = round(100 * self.over_videos.estimate, 1)
        shuffled = self.baseline == "dynamic-shuffled"
        name = "itself with the teacher of another video" if shuffled else PAPER_NAMES[self.baseline]
        text = f"At {self.n_s} + {self.n_t} frames Dynamic-STE is "
        text += f"{abs(points):.1f} points {'above' if points > 0 else 'below'} " if points else "level with "
        text += name
        over_seeds = ""
        if self.equal_cost:
            text += self._cost_in_words(self.equal_cost)
            if not np.isnan(self.equal_cost.over_seeds.low):
                over_seeds = f" and over seeds {bounds(self.equal_cost.over_seeds)}"
        if np.isnan(self.over_videos.low):
            return f"{text}: not shown, {FEWEST_VIDEOS} videos are the fewest for an interval."
        text += f", 95\u00a0% interval over videos {bounds(self.over_videos)}{over_seeds}"
        if self.verdict != "not shown":
            return f"{text}."
        if over_seeds and not self.over_videos.low <= 0 <= self.over_videos.high:
            return f"{text}: not shown, the intervals disagree."
        return f"{text}: not shown, {'an' if over_seeds else 'the'} interval contains 0."

    def _cost_in_words(self, equal_cost: EqualCost) -> str:
        first, *rest = equal_cost.points
        if equal_cost.nearest:
            other = "cheaper" if first[1] < self.gmacs else "dearer"
            return (
                f" with {first[0]} frames, its measured point nearest in cost and {other} "
                f"({first[1]:.2f} GMACs against {self.gmacs:.2f})"
            )
        frames = f"between its {first[0]} and {rest[0][0]} frames" if rest else f"its {first[0]} frames"
        return f" at equal cost ({self.gmacs:.2f} GMACs, {frames})"


def equal_cost(dynamic: pd.DataFrame, baseline: pd.DataFrame, *, metric: Metric) -> EqualCost | None:
    """Dynamic-STE against a baseline at what Dynamic-STE costs, with Student's t interval over seeds.

    Where the baseline's measured points lie on both sides of that cost, its metric is interpolated between the two
    next to it, linearly in multiply-adds and seed by seed; elsewhere its nearest point (in the ratio of the costs)
    stands for it.

    Args:
        dynamic: result rows of Dynamic-STE at one number of frames, all seeds and folds.
        baseline: result rows of the baseline at all its numbers of frames.
        metric: ``top1`` or ``map``.

    Returns:
        None where the two share no seed.
    """
    ours = by_seed(dynamic, metric)
    curve = {int(n_s + n_t): by_seed(rows, metric) for (n_s, n_t), rows in baseline.groupby(["n_s", "n_t"], sort=True)}
    costs = {frames: float(points["gmacs_measured"].mean()) for frames, points in curve.items()}
    cost = float(ours["gmacs_measured"].mean())
    below = [frames for frames in curve if costs[frames] <= cost]
    above = [frames for frames in curve if costs[frames] >= cost]
    nearest = not (below and above)
    if nearest:
        weights = {min(curve, key=lambda frames: abs(np.log(costs[frames] / cost))): 1.0}
    else:
        low, high = max(below, key=costs.__getitem__), min(above, key=costs.__getitem__)
        share = (cost - costs[low]) / (costs[high] - costs[low]) if low != high else 0.0
        weights = {high: share, low: 1 - share}  # of one and the same point the second entry stays: 1
    seeds = ours.index
    for frames in weights:
        seeds = seeds.intersection(curve[frames].index)
    if not len(seeds):
        return None
    there = sum((weight * curve[frames].loc[seeds, metric] for frames, weight in weights.items()), start=0.0)
    return EqualCost(
        over_seeds=mean_interval(list(ours.loc[seeds, metric] - there)),
        points=tuple((frames, costs[frames], weights[frames]) for frames in sorted(weights)),
        nearest=nearest,
    )


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
        line = rows.iloc[0]
        common: dict[str, Any] = {"recipe": recipe, "n_s": int(n_s), "n_t": int(n_t)}
        common["gmacs"] = float(by_seed(rows, metric)["gmacs_measured"].mean())
        for model in _ENSEMBLES:
            same = others[(others["model"] == model) & (others["n_s"] == n_s) & (others["n_t"] == n_t)]
            if len(same):
                terms = [(1.0, line), (-1.0, same.iloc[0])]
                found.append(Comparison(**common, baseline=model, over_videos=_over_videos(predictions, terms, metric)))
        for model in _SINGLES:
            curve = others[others["model"] == model]
            if len(curve) and (at_cost := equal_cost(rows, curve, metric=metric)):
                of = {frames: curve[curve["n_s"] + curve["n_t"] == frames].iloc[0] for frames, _, _ in at_cost.points}
                terms = [(1.0, line), *((-weight, of[frames]) for frames, _, weight in at_cost.points)]
                over_videos = _over_videos(predictions, terms, metric)
                found.append(Comparison(**common, baseline=model, over_videos=over_videos, equal_cost=at_cost))
    return found


def comparison_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a comparison, with its sentence: differences and bounds in fractions of 1, NaN where there are none."""
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    rows = []
    for one in comparisons:
        seeds = one.equal_cost.over_seeds if one.equal_cost else nothing
        rows.append(
            {
                "recipe": one.recipe,
                "n_s": one.n_s,
                "n_t": one.n_t,
                "gmacs_measured": one.gmacs,
                "baseline": one.baseline,
                "points": [list(point) for point in one.equal_cost.points] if one.equal_cost else None,
                "difference": one.over_videos.estimate,
                "videos_low": one.over_videos.low,
                "videos_high": one.over_videos.high,
                "seeds_low": seeds.low,
                "seeds_high": seeds.high,
                "verdict": one.verdict,
                "sentence": one.sentence,
            }
        )
    return pd.DataFrame(rows)


def _over_videos(predictions: pd.DataFrame, terms: Sequence[tuple[float, pd.Series]], metric: Metric) -> Interval:
    return weighted_sum(
        predictions, [(weight, {name: row[name] for name in SETTING}) for weight, row in terms], metric=metric
    )


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


def by_seed(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Metric and cost of each seed, folds weighted by their test videos."""
    weights = rows["n_videos"]
    sums = rows[[metric, "gmacs_measured"]].mul(weights, axis=0).groupby(rows["seed"]).sum()
    return sums.div(weights.groupby(rows["seed"]).sum(), axis=0)
