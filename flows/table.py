"""Results tables on the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from flows.duplicates import say_leaks
from heads.metric import Interval
from heads.results import RunFolder
from heads.summary import dynamic_minus, setting_label, summarise
from pipeline.object_path import storage_path

if TYPE_CHECKING:
    from flows.units import RunReport
    from flows.workspace import Workspace

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
    for report in reports:
        run = RunFolder(storage_path(report.folder))
        for asked in report.asked:
            results = run.rows_of(asked)
            # Resampling mAP takes minutes on a large dataset: that is the report's.
            predictions = run.rows_of(asked, "predictions", columns=_PREDICTED) if metric == "top1" else None
            title = f"{workspace.dataset.name}, {results['recipe'].iloc[0]}, {asked.experiment}, {split}"
            print_results(results, title, headline=metric, predictions=predictions)
        for name in dict.fromkeys(asked.split for asked in report.asked):
            say_leaks(run.path, name, workspace)
        typer.echo(f"results: {report.folder}/results.parquet")
    typer.echo("         predictions.parquet, per_class.parquet and others lie beside it")


@dataclass(frozen=True)
class ResultsTable:
    """Models with their frames, top-1 and mAP (mean and 95 % interval over seeds) and costs, as texts."""

    columns: tuple[str, ...]
    """The first is the model, and its texts are no numbers."""
    rows: tuple[tuple[str, ...], ...]
    caption: str
    """Videos, seeds, and what the signs mean."""


def results_table(
    results: pd.DataFrame, *, headline: str = "top1", predictions: pd.DataFrame | None = None
) -> ResultsTable:
    """A line a setting.

    Args:
        results: rows of ``results.parquet`` of one dataset and one kind of split.
        headline: ``top1`` or ``map``, the metric that comes first.
        predictions: of the same rows; then a last column compares the whole Dynamic-STE's top-1 with each line.
    """
    metrics = {"top1": "top-1 %", "map": "mAP %"} if headline == "top1" else {"map": "mAP %", "top1": "top-1 %"}
    summary = summarise(results)
    published = bool(summary["gflops_paper"].notna().any())
    costs = ["GFLOPs (paper)"] * published + ["GMACs (measured)"]
    columns = ["model", "n_s", "n_t", *metrics.values(), *costs]
    gaps = dynamic_minus(summary, predictions) if predictions is not None else [None] * len(summary)
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
    return ResultsTable(tuple(columns), rows, _caption(summary, compared=any(gaps)))


def print_results(
    results: pd.DataFrame, title: str, *, headline: str = "top1", predictions: pd.DataFrame | None = None
) -> None:
    """Print a ``results_table`` under a title."""
    made = results_table(results, headline=headline, predictions=predictions)
    table = Table(title=title, title_justify="left", caption=made.caption, caption_justify="left")
    for column in made.columns:
        table.add_column(column, justify="left" if column == made.columns[0] else "right")
    for row in made.rows:
        table.add_row(*row)
    print_table(table)


def _caption(summary: pd.DataFrame, *, compared: bool) -> str:
    videos, missing = int(summary["n_videos"].max()), int(summary["n_missing"].max())
    evaluated = f"{videos} of {videos + missing} test videos evaluated" if missing else f"{videos} test videos"
    fewest, most = int(summary["seeds"].min()), int(summary["seeds"].max())
    seeds = f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"
    notes = ["± is half a 95 % interval over seeds"] if most > 1 else []
    notes += ["[] is a 95 % interval of top-1 points over videos"] if compared else []
    return "; ".join([evaluated, seeds, *notes])


def print_table(table: Table) -> None:
    """Print to stdout; a file or a pipe has no width to fit in."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


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
