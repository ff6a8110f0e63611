"""What an operator sees of a sweep in Prefect's UI: the results as tables, and accuracy over cost as a picture."""

from base64 import b64encode

import pandas as pd
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from dynaprop.flows.terminal.table import results_table
from dynaprop.flows.ui.extraction import artifact_key, harmless, table_row, watched
from dynaprop.heads.evaluation.chance import levels_in_words
from dynaprop.heads.evaluation.summary import summarise
from dynaprop.heads.experiments.units import RunReport
from dynaprop.heads.report.compare import Metric
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.pipeline.io.paths import storage_path


def show_results(report: RunReport, *, name: str, metric: Metric) -> None:
    """One table an experiment, and one picture.

    Args:
        report: what was asked for, and where the results are.
        name: of the dataset and recipe.
        metric: the headline.
    """
    if not watched():
        return
    run = RunFolder(storage_path(report.folder))
    for asked in report.asked:
        with harmless():
            results = run.rows_of(asked)
            table = results_table(results, headline=metric)
            about = "; ".join(filter(None, [table.caption, levels_in_words(summarise(results).iloc[0])]))
            create_table_artifact(
                [table_row(table.columns, row) for row in table.rows],
                artifact_key(name, asked.experiment, "results"),
                f"{name}, **{asked.experiment}**, {asked.split}: {about}\n\n`{report.folder}/results.parquet`",
            )
    with harmless():
        _show_curve(pd.concat([run.rows_of(asked) for asked in report.asked]), name=name, metric=metric)


def _show_curve(results: pd.DataFrame, *, name: str, metric: Metric) -> None:
    from dynaprop.heads.report.curve import cost_curve, curve_experiment  # matplotlib takes a second

    experiment = curve_experiment(results)
    chart = cost_curve(
        results[results["experiment"] == experiment],
        dataset=str(results["dataset"].iloc[0]),
        metric=metric,
        name=experiment,
        about=name,
    )
    # Inside Markdown, both of Prefect's UIs show a picture that is its own address. Image artifacts are for addresses
    # that all browsers can reach: they print this one below the picture, 100,000 letters on one line. PNG, since the
    # SVG has no paper of its own: its letters are dark, and so may be the UI.
    picture = f"![{chart.alt}](data:image/png;base64,{b64encode(chart.png).decode()})"
    create_markdown_artifact(
        f"{picture}\n\n{chart.caption}", artifact_key(name, experiment, "accuracy-cost"), f"{chart.title}, {experiment}"
    )
