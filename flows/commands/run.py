"""`dynaprop run`: the whole way from videos to a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynaprop.flows.commands.extract import extract
from dynaprop.flows.commands.report import report
from dynaprop.flows.commands.sweep import sweep
from dynaprop.flows.commands.train import train
from dynaprop.flows.terminal.table import print_reports
from dynaprop.heads.experiments.units import RunReport
from dynaprop.pipeline.annotations.splits import splits_of
from dynaprop.pipeline.catalog.clusters import INLINE
from dynaprop.pipeline.printable import shell_line
from dynaprop.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Way:
    """The steps of the way."""

    extract: Callable[[], object]
    train: Callable[[Sequence[int]], object]
    """Takes the seeds."""
    sweep: Callable[[], list[RunReport]]
    report: Callable[[Sequence[str], str], str]
    """Takes run folders and the command; returns the page's file."""


def run(
    workspace: Workspace,
    *,
    recipe: str = "lite",
    experiment: str = "default",
    folds: int = 0,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    workers: int | None = None,
    deadline: float = 60.0,
    wait: bool = False,
    cluster: str = INLINE,
    catalog: str | None = None,
) -> str:
    """Extract features, train the heads, sweep, print the results and write the report; as the flow ``reproduce``.

    Returns:
        The report's page.
    """
    way = Way(
        extract=lambda: extract(
            workspace,
            device=device,
            retry_failed=retry_failed,
            workers=workers,
            deadline=deadline,
            wait=wait,
            cluster=cluster,
        ),
        train=lambda first: train(workspace, seeds=first, folds=folds, device=device),
        sweep=lambda: sweep(workspace, recipe=recipe, experiment=experiment, folds=folds, seeds=seeds, device=device),
        report=lambda runs, command: str(report(runs, catalog=catalog, command=command)),
    )
    return go(way, workspace, experiment=experiment, folds=folds, seeds=seeds, catalog=catalog)


def go(
    way: Way,
    workspace: Workspace,
    *,
    experiment: str,
    folds: int,
    seeds: Sequence[int] | None,
    catalog: str | None,
) -> str:
    """Go the way; what an earlier run has done is not done again.

    Args:
        way: its steps.
        workspace: dataset and recipe.
        experiment, folds, seeds: of the sweep; checkpoints are kept of its own first seed.
        catalog: path of the catalog file, for the page.

    Returns:
        The report's page.
    """
    spec = workspace.dataset
    # Refused now, where no split can be made: hours of extraction come first.
    splits_of(workspace.annotations(), folds=folds, seed=spec.split_seed, test_fraction=spec.test_fraction)
    way.extract()
    way.train(workspace.catalog.sweeps_of(experiment)[0].seeds[:1])
    reports = way.sweep()
    print_reports(reports, folds=folds, workspace=workspace)
    seeds = seeds if seeds is not None and tuple(seeds) == tuple(range(len(seeds))) else None  # others have no option
    command = _command(
        workspace.target,
        recipe=workspace.recipe.name,
        experiment=experiment,
        folds=folds,
        seeds=len(seeds or ()),
        catalog=catalog,
    )
    return way.report([one.folder for one in reports], command)


def _command(dataset: str, **options: str | int | None) -> str:
    """What makes the same page, for the page: the options that decide what is on it and are not the default."""
    defaults = {"recipe": "lite", "experiment": "default"}
    words = ["dynaprop", "run", dataset]
    for name, value in options.items():
        if value and value != defaults.get(name):
            words += [f"--{name}", str(value)]
    return shell_line(*words)
