"""Flow `reproduce`: the whole way from videos to a page, every step a flow of its own."""

from collections.abc import Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dynaprop.flows.commands.report import report
from dynaprop.flows.commands.run import Way, go
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.evaluate_sweep import evaluate_sweep
from dynaprop.flows.extract_features import extract_features
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.flows.train_heads import train_heads
from dynaprop.pipeline.catalog.clusters import INLINE
from dynaprop.pipeline.workspace import open_workspace


@flow(name="reproduce", persist_result=False)
def reproduce(
    dataset: str,
    recipe: str = "lite",
    sweep: str = "default",
    folds: int = 0,
    seeds: tuple[int, ...] | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    workers: int | None = None,
    deadline: float = 60.0,
    wait: bool = False,
    cluster: str = INLINE,
    catalog: str | None = None,
) -> str:
    """Extract features, train the heads, sweep, print the results and write the report.

    What an earlier run has done is not done again, whether that one failed, was interrupted or came to its end.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog.
        sweep: name in the catalog: an experiment, or ``all``.
        folds: 0 for the given split, else folds by group.
        seeds: of the sweep, instead of its own; checkpoints are kept of its own first one.
        device: auto, cpu, cuda or cuda:N.
        retry_failed: try videos again that failed before.
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        wait: wait while another process extracts this dataset, instead of refusing.
        cluster: name in the catalog of the workers that extract; ``inline`` for this process.
        catalog: path of the catalog file.

    Returns:
        The report's page.
    """
    enter_flow()
    workspace = open_workspace(dataset, recipe, catalog, sweep=sweep, reporter=TERMINAL)
    way = Way(
        extract=lambda: extract_features(
            dataset,
            recipe=recipe,
            device=device,
            retry_failed=retry_failed,
            workers=workers,
            deadline=deadline,
            wait=wait,
            cluster=cluster,
            catalog=catalog,
        ),
        train=lambda first: train_heads(
            dataset, recipe=recipe, seeds=tuple(first), folds=folds, device=device, catalog=catalog
        ),
        sweep=lambda: evaluate_sweep(
            dataset, recipe=recipe, sweep=sweep, folds=folds, seeds=seeds, device=device, catalog=catalog
        ),
        report=lambda runs, command: write_report(runs, catalog=catalog, command=command),
    )
    return go(way, workspace, experiment=sweep, folds=folds, seeds=seeds, catalog=catalog)


@task(name="write-report", task_run_name="write report", cache_policy=NO_CACHE, persist_result=False)
def write_report(runs: Sequence[str], catalog: str | None, command: str) -> str:
    """Write the page of some run folders; returns its file."""
    return str(report(runs, catalog=catalog, command=command))
