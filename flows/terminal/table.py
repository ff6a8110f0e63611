"""Results tables on the terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table

from dynaprop.flows.terminal.printing import answer, print_table
from dynaprop.flows.terminal.progress import say
from dynaprop.heads.evaluation.chance import level_lines
from dynaprop.heads.evaluation.constant_answer import against_largest, not_above_in_words
from dynaprop.heads.evaluation.metric import Interval
from dynaprop.heads.evaluation.summary import dynamic_minus, setting_label, summarise
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.leaks import how_looked_for, in_words, read_leaks
from dynaprop.heads.runs.rows import Asked, settings_in
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.paths import storage_path

if TYPE_CHECKING:
    from dynaprop.heads.experiments.units import RunReport
    from dynaprop.pipeline.io.paths import StoragePath
    from dynaprop.pipeline.workspace import Workspace

_PREDICTED = ("video_id", "labels", "predicted")  # columns of the predictions that tell top-1


def print_reports(reports: "Sequence[RunReport]", *, folds: int, workspace: "Workspace") -> None:
    """Print a table an experiment of what a flow was asked for, and where the results are.

    Args:
        reports: of one dataset, one a recipe.
        folds: 0 for one split.
        workspace: of that dataset.
    """
    split = f"{folds} folds" if folds else "one split"
    metric = workspace.dataset.metric
    notes: dict[str, None] = {}
    for report in reports:
        run = RunFolder(storage_path(report.folder))
        for asked in report.asked:
            results = run.rows_of(asked)
            _require_rows(asked, results, place=report.folder)
            predictions = run.rows_of(asked, "predictions", columns=_PREDICTED)
            title = f"{workspace.dataset.name}, {results['recipe'].iloc[0]}, {asked.experiment}, {split}"
            print_results(results, title, headline=metric, predictions=predictions)
            notes |= dict.fromkeys(run.notes(asked.split))
        for name in dict.fromkeys(asked.split for asked in report.asked):
            _say_leaks(run.path, name, workspace)
        answer(f"results: {report.folder}/results.parquet")
    answer("         predictions.parquet, per_class.parquet and others lie beside it")
    for note in notes:
        answer(f"note: {note}")


def _say_leaks(run: "StoragePath", split: str, workspace: "Workspace") -> None:
    """Say in one line what duplicates lie on both sides of a run's split, if there are any."""
    leaks = read_leaks(run, split)
    if leaks is None:
        return
    if leaks.count:
        say(
            f"{in_words(leaks)} {'lies' if leaks.count == 1 else 'lie'} on both sides of the split: "
            f"`dynaprop datasets --duplicates {workspace.quoted}` lists them"
        )
    if leaks.found.n_near is None:
        say(how_looked_for(leaks.found))


def _require_rows(asked: Asked, results: pd.DataFrame, *, place: str) -> None:
    """Refuse a table that lacks lines, since another command has asked its experiment for others meanwhile."""
    there = set(zip(settings_in(results), results["seed"], strict=True))
    lacking = [setting for setting in asked.settings for seed in asked.seeds if (setting, seed) not in there]
    if lacking:
        raise DynapropError(
            f"{place}: another command has asked for other models or frames as {asked.experiment!r} meanwhile, so its "
            f"tables lack {lacking[0].name}, which is measured and kept; the same command joins it"
        )


@dataclass(frozen=True)
class ResultsTable:
    """Models with their frames, top-1 and mAP (mean and 95 % interval over seeds) and costs, as texts."""

    columns: tuple[str, ...]
    """The first is the model, and its texts are no numbers."""
    rows: tuple[tuple[str, ...], ...]
    levels: tuple[tuple[str, ...], ...]
    """What guessing and a constant answer get, as rows; none where the results do not say."""
    caption: str
    """Videos, seeds, what the signs mean, and which models are not shown to be above a constant answer."""


def results_table(
    results: pd.DataFrame, *, headline: str = "top1", predictions: pd.DataFrame | None = None
) -> ResultsTable:
    """A line a setting.

    Args:
        results: rows of ``results.parquet`` of one dataset and one kind of split.
        headline: ``top1`` or ``map``, the metric that comes first.
        predictions: of the same rows; then each line's top-1 is compared with the largest class's share, and, where
            the headline is top-1, with the whole Dynamic-STE's in a last column.
    """
    metrics = {"top1": "top-1 %", "map": "mAP %"} if headline == "top1" else {"map": "mAP %", "top1": "top-1 %"}
    summary = summarise(results)
    published = bool(summary["gflops_paper"].notna().any())
    costs = ["GFLOPs (paper)"] * published + ["GMACs (measured)"]
    columns = ["model", "n_s", "n_t", *metrics.values(), *costs]
    gaps: list[Interval | None] = [None] * len(summary)
    not_above = ""
    if predictions is not None:
        not_above = not_above_in_words(against_largest(summary, predictions))
        if headline == "top1":  # resampling mAP takes minutes on a large dataset: that is the report's
            gaps = dynamic_minus(summary, predictions)
    if any(gaps):
        columns.append("Dynamic-STE minus it")
    rows = tuple(
        (
            setting_label(row),
            _frames(row["n_s"], row["n_s_used"]),
            _frames(row["n_t"], row["n_t_used"]),
            *(_percent(row, metric) for metric in metrics),
            *(["-" if math.isnan(row["gflops_paper"]) else f"{row['gflops_paper']:.1f}"] if published else []),
            f"{row['gmacs_measured']:.2f}",
            *([_gap(gap)] if any(gaps) else []),
        )
        for row, gap in zip(summary.to_dict("records"), gaps, strict=True)
    )
    levels = tuple(_level(name, made, columns, metrics) for name, made in level_lines(summary.iloc[0]).items())
    caption = "\n".join(filter(None, [_caption(summary, compared=any(gaps)), not_above]))
    return ResultsTable(tuple(columns), rows, levels, caption)


def print_results(
    results: pd.DataFrame, title: str, *, headline: str = "top1", predictions: pd.DataFrame | None = None
) -> None:
    """Print a ``results_table`` under a title."""
    made = results_table(results, headline=headline, predictions=predictions)
    table = Table(title=title, title_justify="left", caption=made.caption, caption_justify="left")
    for column in made.columns:
        table.add_column(column, justify="left" if column == made.columns[0] else "right")
    for number, row in enumerate(made.rows, start=1):
        table.add_row(*row, end_section=number == len(made.rows))
    for row in made.levels:
        table.add_row(*row, style="dim")
    print_table(table)


def _caption(summary: pd.DataFrame, *, compared: bool) -> str:
    videos, missing = int(summary["n_videos"].max()), int(summary["n_missing"].max())
    evaluated = f"{videos} of {videos + missing} test videos evaluated" if missing else f"{videos} test videos"
    fewest, most = int(summary["seeds"].min()), int(summary["seeds"].max())
    seeds = f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"
    notes = ["± is half a 95 % interval over seeds"] if most > 1 else []
    notes += ["[] is a 95 % interval of top-1 points over videos"] if compared else []
    return "; ".join([evaluated, seeds, *notes])


def _level(
    name: str, values: Mapping[str, float], columns: Sequence[str], metrics: Mapping[str, str]
) -> tuple[str, ...]:
    """A row of what a metric is to be compared with, empty where a column says nothing of it."""
    cells = {metrics[metric]: f"{100 * value:.1f}" for metric, value in values.items()}
    return name, *(cells.get(column, "") for column in columns[1:])


def _frames(asked: int, used: float) -> str:
    """Frames asked for, and the mean really used where short videos had fewer."""
    if not asked:
        return "-"
    return str(asked) if math.isclose(asked, used) else f"{asked} ({used:.1f} used)"


def _percent(row: dict[Any, Any], metric: str) -> str:
    half = row[metric] - row[f"{metric}_low"]
    spread = "" if math.isnan(half) else f" ± {100 * half:.1f}"
    return f"{100 * row[metric]:.1f}{spread}"


def _gap(gap: Interval | None) -> str:
    if gap is None:
        return ""
    interval = "" if math.isnan(gap.low) else f" [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    return f"{100 * gap.estimate:+.1f}{interval}"
