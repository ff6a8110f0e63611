"""What the report shows of one part: one dataset and one kind of split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynaprop.heads.evaluation.chance import levels_in_words
from dynaprop.heads.evaluation.constant_answer import AgainstLargest, against_largest
from dynaprop.heads.evaluation.summary import summarise
from dynaprop.heads.report.backbones import Tuned, compare_backbones
from dynaprop.heads.report.chart import Chart, file_stem
from dynaprop.heads.report.class_charts import (
    MANY,
    class_chart,
    class_gains,
    confused_pairs,
    confusion,
    confusion_chart,
    confusion_table,
)
from dynaprop.heads.report.compare import Comparison, Metric, compare, comparison_table, in_short
from dynaprop.heads.report.curve import cost_curve, curve_experiment
from dynaprop.heads.report.leaks import LeakList, leak_lists
from dynaprop.heads.report.rows import Part, Runs, experiments, is_full, lean_dynamic, main_experiment
from dynaprop.heads.report.tables import METRIC_NAMES, ReportTable, report_table
from dynaprop.heads.report.timeline import Picture, Timeline, telling_videos, timeline

Pictures = Callable[[str, Sequence[str]], Mapping[str, Sequence[Picture]]]
"""(dataset, video ids) -> (seconds, JPEG) of the videos whose files are there."""

_NO_SCORES = "No scores frame by frame: they are kept of Student, Teacher and Dynamic-STE for a sweep's first seed."


@dataclass(frozen=True)
class Section:
    """A part of the report, ready for the page."""

    anchor: str
    part: Part
    metric: str
    evaluated: str
    notes: list[str]
    """What to know of labels and split before believing a number."""
    levels: str
    """Chance and the largest class's share."""
    against_largest: list[AgainstLargest]
    """Models of the compared experiment that are not shown to be above the latter."""
    in_short: str
    compared: str
    """The experiment that the comparisons and curves are made of."""
    comparisons: list[tuple[str, list[Comparison]]]
    """By recipe and frames of Dynamic-STE."""
    tuned: list[Tuned]
    """Fine-tuned backbones against frozen ones."""
    leaks: list[LeakList]
    """Videos on both sides of the split that show the same, a list a run."""
    curves: list[Chart]
    tables: list[ReportTable]
    classes: list[Chart]
    confused: list[tuple[str, str, list[dict[Any, Any]], pd.DataFrame]]
    """Where there are too many classes for a matrix: (stem of the file, the setting, worst pairs, all pairs)."""
    timelines: list[Timeline]
    no_timelines: str
    """Why there are none."""

    @property
    def compared_table(self) -> pd.DataFrame:
        """The comparisons as a table."""
        return comparison_table([one for _, group in self.comparisons for one in group])

    @property
    def charts(self) -> list[Chart]:
        """All charts in their order."""
        return [*self.curves, *self.classes, *(one.chart for one in self.timelines)]


def make_section(
    runs: Runs,
    part: Part,
    *,
    metric: Metric,
    videos: Sequence[str],
    pictures: Pictures,
    on_table: Callable[[], None],
) -> Section:
    """Compute and draw one part.

    Args:
        runs: the results.
        part: which of them.
        metric: the headline, ``top1`` or ``map``.
        videos: ids to show frame by frame; empty for the telling ones.
        pictures: gives thumbnails.
        on_table: called after each experiment.
    """
    rows = runs.rows(part)
    stem = file_stem(f"{part.dataset}-{part.split}")
    several = f"-{stem}" if len(runs.parts()) > 1 else ""
    curve = curve_experiment(rows)
    tables, comparisons, against, levels = [], [], [], ""
    for experiment in experiments(rows):
        chosen = rows[rows["experiment"] == experiment]
        predictions = runs.predictions(part, experiment, scores=metric == "map")
        name = file_stem(experiment) + several
        tables.append(report_table(chosen, predictions, experiment=experiment, metric=metric, name=f"table-{name}"))
        if experiment == curve:
            comparisons = compare(chosen, predictions, metric=metric)
            summary = summarise(chosen)
            levels = levels_in_words(summary.iloc[0])
            against = [one for one in against_largest(summary, predictions) if one.verdict != "above"]
        on_table()
    recipes = sorted(rows["recipe"].unique())
    curves = []
    for recipe in recipes:
        chosen = rows[(rows["experiment"] == curve) & (rows["recipe"] == recipe)]
        if len(chosen):
            name = f"accuracy-cost-{file_stem(recipe)}{several}"
            where = f"{part.dataset}, {part.title}"
            curves.append(cost_curve(chosen, dataset=part.dataset, metric=metric, name=name, about=where))
    classes: list[Chart] = []
    confused = []
    for recipe in recipes:
        found = _classes(runs, part, rows[rows["recipe"] == recipe], recipe, len(recipes) > 1, several)
        classes += found[0]
        confused += found[1]
    timelines, reason = _timelines(runs, part, rows, videos, pictures, several)
    return Section(
        anchor=stem,
        part=part,
        metric=METRIC_NAMES[metric],
        evaluated=_evaluated(rows) + (" Seeds that lack a fold are left out." if runs.unfinished else ""),
        notes=runs.notes(part),
        levels=levels,
        against_largest=against,
        in_short=in_short(comparisons),
        compared=curve,
        comparisons=_grouped(comparisons, len(recipes) > 1),
        tuned=compare_backbones(
            rows, lambda experiment: runs.predictions(part, experiment, scores=metric == "map"), metric=metric
        ),
        leaks=leak_lists(runs, part, several=several),
        curves=curves,
        tables=tables,
        classes=classes,
        confused=confused,
        timelines=timelines,
        no_timelines=reason,
    )


def _grouped(comparisons: Sequence[Comparison], several: bool) -> list[tuple[str, list[Comparison]]]:
    groups: dict[str, list[Comparison]] = {}
    for one in comparisons:
        heading = f"{one.n_s} + {one.n_t} frames, {one.gmacs:.2f} GMACs"
        groups.setdefault(f"{one.recipe}, {heading}" if several else heading, []).append(one)
    return list(groups.items())


def _evaluated(rows: pd.DataFrame) -> str:
    one = rows.drop_duplicates(["recipe", "fold"]).groupby("recipe")[["n_videos", "n_missing"]].sum().max()
    videos, missing = int(one["n_videos"]), int(one["n_missing"])
    seeds = rows["seed"].nunique()
    text = f"{videos:,} of {videos + missing:,} test videos evaluated, "
    return text + (f"{seeds} seeds." if seeds > 1 else "one seed: means have no intervals.")


def _classes(
    runs: Runs, part: Part, rows: pd.DataFrame, recipe: str, named: bool, several: str
) -> tuple[list[Chart], list[tuple[str, str, list[dict[Any, Any]], pd.DataFrame]]]:
    """Average precision by class and the confusion of one recipe's Dynamic-STE; nothing where it was not measured."""
    experiment = main_experiment(rows)
    frames = lean_dynamic(rows[rows["experiment"] == experiment])
    if frames is None:
        return [], []
    suffix = (f"-{file_stem(recipe)}" if named else "") + several
    of_recipe = f", {recipe}" if named else ""
    per_class = runs.per_class(part, experiment)
    chosen, about = _pair_of_models(per_class[per_class["recipe"] == recipe], frames)
    charts = []
    if chosen["model"].nunique() == 2:
        title = f"Average precision by class{of_recipe}"
        charts.append(class_chart(class_gains(chosen), name=f"per-class{suffix}", title=title, about=about))
    predictions = runs.predictions(part, experiment, scores=False)
    predictions = predictions[(predictions["recipe"] == recipe) & is_full(predictions)]
    predictions = predictions[(predictions["n_s"] == frames["n_s"]) & (predictions["n_t"] == frames["n_t"])]
    names = runs.classes(part)
    counts = confusion(predictions, names)
    setting = f"Dynamic-STE at {frames['n_s']} + {frames['n_t']} frames{of_recipe}."
    if len(names) <= MANY:
        title = f"What Dynamic-STE takes for what{of_recipe}"
        charts.append(confusion_chart(counts, names, name=f"confusion{suffix}", title=title, about=setting))
        return charts, []
    table = confusion_table(counts, names)
    return charts, [(f"confusion{suffix}", setting, confused_pairs(table), table)]


def _pair_of_models(rows: pd.DataFrame, frames: dict[str, Any]) -> tuple[pd.DataFrame, str]:
    """Rows of the Dynamic-STE at these frames and of the Student nearest in student frames, and both in words."""
    dynamic = rows[is_full(rows) & (rows["n_s"] == frames["n_s"]) & (rows["n_t"] == frames["n_t"])]
    student = rows[(rows["model"] == "student") & rows["fusion_s"].fillna(True)]
    about = f"Dynamic-STE at {frames['n_s']} + {frames['n_t']} frames"
    if student.empty:
        return dynamic, f"{about}."
    n_s = min(student["n_s"].unique(), key=lambda n: abs(n - frames["n_s"]))
    return pd.concat([student[student["n_s"] == n_s], dynamic]), f"{about}, Student at {n_s}."


def _timelines(
    runs: Runs, part: Part, rows: pd.DataFrame, videos: Sequence[str], pictures: Pictures, several: str
) -> tuple[list[Timeline], str]:
    """The chosen videos frame by frame, or why there are none."""
    scores = runs.frame_scores(part)
    full = scores[is_full(scores)] if len(scores) else scores
    if full.empty:
        return [], _NO_SCORES
    recipe, seed = sorted(full["recipe"].unique())[0], full["seed"].min()
    measured = rows[(rows["experiment"] == main_experiment(rows)) & (rows["recipe"] == recipe)]
    frames = lean_dynamic(measured.merge(full[["n_s", "n_t"]].drop_duplicates(), on=["n_s", "n_t"]))
    if frames is None:
        return [], _NO_SCORES

    def of_setting(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        return _pair_of_models(table[(table["recipe"] == recipe) & (table["seed"] == seed)], frames)

    chosen, about = of_setting(scores)
    known = set(chosen["video_id"])
    shown = [video for video in videos if video in known] if videos else telling_videos(chosen)
    if not shown:
        return [], "No chosen video belongs to this split." if videos else "No video was scored by both models."
    thumbnails = pictures(part.dataset, shown)
    detailed, _ = of_setting(runs.frames_of(part, shown))
    about = f"{about[:-1]}, recipe {recipe}, seed {seed}."
    return [
        timeline(
            detailed,
            video,
            pictures=thumbnails.get(video, ()),
            name=f"frames-{number}-{file_stem(video)}{several}",
            about=about,
        )
        for number, video in enumerate(shown, start=1)
    ], ""
