"""Fine-tuned backbones against the frozen ones that they began as, in numbers and in plain sentences."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dynaprop.heads.evaluation.metric import Interval, mean_interval
from dynaprop.heads.evaluation.summary import FEWEST_VIDEOS, PAPER_NAMES, SETTING, bounds, weighted_sum
from dynaprop.heads.report.compare import Metric, by_seed
from dynaprop.heads.report.rows import experiments

_MARK = re.compile(r"-finetuned\d*(-[0-9a-f]{8})?$")  # what the name of a fine-tuned recipe has beyond the frozen one's
_RUN = re.compile(r" \(.+\)$")  # where several runs have a recipe of one name
_SAME = [name for name in SETTING if name != "recipe"]


@dataclass(frozen=True)
class Tuned:
    """A model on fine-tuned backbones minus the same model on frozen ones, in fractions of 1."""

    recipe: str
    frozen: str
    """The recipe of the frozen backbones."""
    model: str
    n_s: int
    n_t: int
    seeds: int
    """That both have."""
    over_videos: Interval
    over_seeds: Interval
    """NaN for a single seed."""
    other_options: bool = False
    """Whether heads on cached features were trained by other hyper-parameters than the frozen ones'."""

    @property
    def verdict(self) -> str:
        """``above`` or ``below`` where every interval says so, else ``not shown``."""
        intervals = [one for one in (self.over_videos, self.over_seeds) if not np.isnan(one.low)]
        if np.isnan(self.over_videos.low):
            return "not shown"
        if all(one.low > 0 for one in intervals):
            return "above"
        return "below" if all(one.high < 0 for one in intervals) else "not shown"

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        frames = " + ".join(str(n) for n in (self.n_s, self.n_t) if n)
        points = round(100 * self.over_videos.estimate, 1)
        level = f"{abs(points):.1f} points {'above' if points > 0 else 'below'}" if points else "level with"
        text = (
            f"{PAPER_NAMES[self.model]} at {frames} frames is {level} itself on the frozen backbones of {self.frozen}"
        )
        text += ", whose heads have other hyper-parameters" * self.other_options
        text += f", {self.seeds} seed{'s' * (self.seeds > 1)}"
        if np.isnan(self.over_videos.low):
            return f"{text}: not shown, {FEWEST_VIDEOS} videos are the fewest for an interval."
        text += f", 95\u00a0% interval over videos {bounds(self.over_videos)}"
        if not np.isnan(self.over_seeds.low):
            text += f" and over seeds {bounds(self.over_seeds)}"
        return f"{text}." if self.verdict != "not shown" else f"{text}: not shown."


def compare_backbones(rows: pd.DataFrame, predictions: Callable[[str], pd.DataFrame], *, metric: Metric) -> list[Tuned]:
    """Every model that was measured on frozen backbones and on what `dynaprop finetune` made of them.

    Recipes belong together by their names: ``lite`` and ``lite-finetuned`` (or ``lite-finetuned0-1a2b3c4d``).

    Args:
        rows: results of one part, of all experiments.
        predictions: gives those of an experiment, with scores where the metric is ``map``.
        metric: ``top1`` or ``map``.
    """
    names = sorted(rows["recipe"].unique())
    by_name = {name: _RUN.sub("", name) for name in names}
    pairs = [
        (tuned, frozen)
        for tuned in names
        for frozen in names
        if _MARK.search(by_name[tuned]) and by_name[frozen] == _MARK.sub("", by_name[tuned])
    ]
    labels = rows[_SAME].astype("string").fillna("").agg("|".join, axis=1)
    found = []
    for recipe, frozen in pairs:
        for label, tuned in rows[rows["recipe"] == recipe].groupby(labels, sort=True):
            same = rows[(rows["recipe"] == frozen) & (labels == label)]
            if same.empty:
                continue
            ours, theirs = (table[table["experiment"] == experiments(table)[0]] for table in (tuned, same))
            if (one := _compare(ours, theirs, predictions, metric)) is not None:
                found.append(one)
    return found


def _compare(
    ours: pd.DataFrame, theirs: pd.DataFrame, predictions: Callable[[str], pd.DataFrame], metric: Metric
) -> Tuned | None:
    """Rows of one model on fine-tuned backbones with those on frozen ones; None where no seed is in both."""
    by_seeds = [by_seed(table, metric)[metric] for table in (ours, theirs)]
    seeds = by_seeds[0].index.intersection(by_seeds[1].index)
    if not len(seeds):
        return None
    line = ours.iloc[0]
    recipe, frozen = line["recipe"], theirs["recipe"].iloc[0]
    setting = {name: line[name] for name in _SAME}
    predicted = [predictions(table["experiment"].iloc[0]) for table in (ours, theirs)]
    terms = [(1.0, setting | {"recipe": recipe}), (-1.0, setting | {"recipe": frozen})]
    return Tuned(
        recipe=recipe,
        frozen=frozen,
        model=line["model"],
        n_s=int(line["n_s"]),
        n_t=int(line["n_t"]),
        seeds=len(seeds),
        over_videos=weighted_sum(pd.concat(predicted, ignore_index=True), terms, metric=metric),
        over_seeds=mean_interval(list(by_seeds[0][seeds] - by_seeds[1][seeds])),
        other_options=line["experiment"] != "finetune" and line["options_digest"] != theirs["options_digest"].iloc[0],
    )


def tuned_table(comparisons: Sequence[Tuned]) -> pd.DataFrame:
    """A row a comparison, with its sentence: differences and bounds in fractions of 1, NaN where there are none."""
    return pd.DataFrame(
        [
            {
                "recipe": one.recipe,
                "frozen": one.frozen,
                "model": one.model,
                "n_s": one.n_s,
                "n_t": one.n_t,
                "seeds": one.seeds,
                "difference": one.over_videos.estimate,
                "videos_low": one.over_videos.low,
                "videos_high": one.over_videos.high,
                "seeds_low": one.over_seeds.low,
                "seeds_high": one.over_seeds.high,
                "verdict": one.verdict,
                "sentence": one.sentence,
            }
            for one in comparisons
        ]
    )
