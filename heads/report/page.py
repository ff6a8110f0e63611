"""The report as a whole: one HTML page, and the files beside it."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dynaprop.heads.evaluation.published import PAPER
from dynaprop.heads.report.backbones import tuned_table
from dynaprop.heads.report.chart import DARK, LIGHT, Chart
from dynaprop.heads.report.compare import Metric
from dynaprop.heads.report.rows import Runs, experiments
from dynaprop.heads.report.sections import Pictures, make_section
from dynaprop.heads.report.timeline import LEFT, LEFT_NARROW, RIGHT
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.parquet import publish_parquet
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.printable import printable

_KEPT = "\n\t\u00a0"  # of our own texts
_MISSING_SHOWN = 50

COSTS = (
    "The two costs differ because “GFLOPs (paper)” multiplies the frames asked for by the published figures a frame, "
    "which are multiply-adds and, for EfficientNet-B3, those of 300-pixel frames, while “GMACs (measured)” counts the "
    "multiply-adds of the networks at the resolution they really see, heads included, for the frames really used."
)


@dataclass(frozen=True)
class Report:
    """A page and what is written beside it."""

    html: str
    charts: list[Chart]
    tables: dict[str, pd.DataFrame]
    """Data of the tables, by stem of the file."""


def make_report(
    folders: Sequence[StoragePath],
    *,
    metrics: Mapping[str, Metric],
    pictures: Pictures,
    videos: Sequence[str] = (),
    command: str,
    written: datetime,
    on_table: Callable[[int], None] = lambda _total: None,
) -> Report:
    """Make the page of one or several runs.

    Args:
        folders: run folders.
        metrics: headline (``top1`` or ``map``) by dataset; ``top1`` where it says nothing.
        pictures: gives the thumbnails of videos.
        videos: ids to show frame by frame; by default the most telling ones of each part.
        command, written: stand on the page.
        on_table: called after each table with how many there will be: resampling thousands of videos takes minutes.

    Raises:
        DynapropError: a folder without results, damaged files, or runs that cannot stand side by side.
        UsageError: a video that no run scored frame by frame.
    """
    runs = Runs(folders)
    _check_videos(runs, videos)
    total = sum(len(experiments(runs.rows(part))) for part in runs.parts())
    sections = [
        make_section(
            runs,
            part,
            metric=metrics.get(part.dataset, "top1"),
            videos=videos,
            pictures=pictures,
            on_table=lambda: on_table(total),
        )
        for part in runs.parts()
    ]
    datasets = list(dict.fromkeys(section.part.dataset for section in sections))
    notes = dict.fromkeys(note for section in sections for table in section.tables for note in table.notes)
    missing = {dataset: ids for dataset in datasets if (ids := runs.missing(dataset))}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value, kept=_KEPT) if type(value) is str else value,  # not HTML
    )
    html = environment.get_template("page.html").render(
        datasets=datasets,
        runs=[folder.name for folder in runs.folders],
        sections=sections,
        missing={dataset: (ids[:_MISSING_SHOWN], len(ids)) for dataset, ids in missing.items()},
        notes=list(notes),
        costs=COSTS,
        paper=PAPER,
        command=command,
        written=written,
        light=LIGHT,
        dark=DARK,
        left=100 * LEFT,
        left_narrow=100 * LEFT_NARROW,
        right=100 * (1 - RIGHT),
        jpeg=lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode(),
    )
    tables = {table.name: table.data for section in sections for table in section.tables}
    tables |= {name: pairs for section in sections for name, _, _, pairs in section.confused}
    tables |= {f"comparisons-{section.anchor}": table for section in sections if len(table := section.compared_table)}
    tables |= {one.name: one.table for section in sections for one in section.leaks if len(one.table)}
    tables |= {f"fine-tuned-{one.anchor}": tuned_table(one.tuned) for one in sections if one.tuned}
    return Report(html, [chart for section in sections for chart in section.charts], tables)


def write_report(report: Report, output: StoragePath) -> StoragePath:
    """Write the page, and beside it ``figures/``: each chart as PNG, the data of charts and tables as parquet.

    Args:
        report: the report.
        output: the page's file, or a folder that gets a ``report.html``.

    Returns:
        The page's file.

    Raises:
        DynapropError: it cannot be written.
    """
    page = output if output.suffix.lower() in (".html", ".htm") else output / "report.html"
    figures = page.parent / "figures"
    try:
        with published(page) as temporary:
            temporary.write_text(report.html, encoding="utf-8")
        for chart in report.charts:
            with published(figures / f"{chart.name}.png") as temporary:
                temporary.write_bytes(chart.png)
            publish_parquet(figures / f"{chart.name}.parquet", chart.data)
        for name, table in report.tables.items():
            publish_parquet(figures / f"{name}.parquet", table)
    except DynapropError as error:
        raise type(error)(str(error), remedy="report elsewhere") from None
    return page


def _check_videos(runs: Runs, videos: Sequence[str]) -> None:
    if not videos:
        return
    known = {str(video) for part in runs.parts() for video in runs.frame_scores(part).get("video_id", ())}
    if not known:
        raise DynapropError(f"{runs.folders[0]}: no scores frame by frame", remedy="leave out videos")
    for video in videos:
        if video not in known:
            close = get_close_matches(video, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"such as {min(known)!r}"
            raise UsageError(f"video {video!r} was not scored frame by frame; name one that was ({hint})")
