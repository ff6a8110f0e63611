"""Flow `evaluate-sweep`: every model at every number of frames and seed, into parquet."""

from prefect import flow

from dynaprop.flows.commands.sweep import sweep as run_sweep
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.flows.train_heads import train_task
from dynaprop.flows.ui.sweep import show_results
from dynaprop.heads.experiments.units import RunReport
from dynaprop.pipeline.workspace import Workspace, open_workspace


@flow(name="evaluate-sweep", persist_result=False)
def evaluate_sweep(
    dataset: str,
    recipe: str | None = None,
    sweep: str = "default",
    folds: int = 0,
    seeds: tuple[int, ...] | None = None,
    device: str = "auto",
    catalog: str | None = None,
) -> list[RunReport]:
    """Train and measure the models of a sweep on cached features; what was done before is kept.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog; by default those of the sweep whose features are cached, else ``lite``.
        sweep: name in the catalog: an experiment, or ``all``.
        folds: 0 for the given split, else folds by group.
        seeds: instead of the sweep's.
        device: auto, cpu, cuda or cuda:N.
        catalog: path of the catalog file.

    Returns:
        One report a recipe.

    Raises:
        DynapropError: the features of no recipe are cached.
    """
    enter_flow()
    return run_sweep(
        open_workspace(dataset, recipe, catalog, sweep=sweep, reporter=TERMINAL),
        recipe=recipe,
        experiment=sweep,
        folds=folds,
        seeds=seeds,
        device=device,
        unit=train_task,
        on_report=_show,
    )


def _show(workspace: Workspace, report: RunReport) -> None:
    name = f"{workspace.dataset.name}-{workspace.recipe.name}"
    show_results(report, name=name, metric=workspace.dataset.metric)
