"""Flow `evaluate-sweep`: every model at every number of frames and seed, into parquet."""

from prefect import flow

from dynaprop.flows.cached_features import require_features
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import say
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.flows.ui.sweep import show_results
from dynaprop.flows.units import RunReport, Units
from dynaprop.flows.workspace import DEFAULT_RECIPE, Workspace, open_workspace
from dynaprop.heads.model.setting import Setting, expand
from dynaprop.pipeline.catalog.datasets import RecipeSpec, SweepSpec
from dynaprop.pipeline.errors import DynapropError, InfrastructureError


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
    reports = []
    for workspace, sweeps in workspaces(dataset, recipe, sweep, catalog):
        units = Units(workspace, folds=folds, device=device)
        asked = [units.ask(spec.name, settings_of(spec, workspace.recipe), seeds or spec.seeds) for spec in sweeps]
        reports.append(units.do(asked))
        show_results(
            reports[-1], name=f"{workspace.dataset.name}-{workspace.recipe.name}", metric=workspace.dataset.metric
        )
    return reports


def workspaces(
    dataset: str, recipe: str | None, sweep: str, catalog: str | None
) -> list[tuple[Workspace, list[SweepSpec]]]:
    """The recipes that a sweep is run for, each with its experiments; says which lack features.

    Raises:
        DynapropError: the features of no recipe are cached.
    """
    specs = open_workspace(dataset, recipe, catalog, sweep=sweep).catalog.sweeps_of(sweep)
    wanted: dict[str, list[SweepSpec]] = {}
    for spec in specs:
        for name in (recipe,) if recipe else spec.recipes or (DEFAULT_RECIPE,):
            wanted.setdefault(name, []).append(spec)
    found: list[tuple[Workspace, list[SweepSpec]]] = []
    lacking: dict[str, DynapropError] = {}
    for name, experiments in wanted.items():
        workspace = open_workspace(dataset, name, catalog)
        try:
            require_features(workspace)
            found.append((workspace, experiments))
        except InfrastructureError:
            raise
        except DynapropError as error:
            lacking[name] = error
    if not found:
        raise next(iter(lacking.values()))
    for name, reason in lacking.items():
        say(f"left out: {', '.join(spec.name for spec in wanted[name])} with recipe {name}: {as_shown(reason)}")
    return found


def settings_of(sweep: SweepSpec, recipe: RecipeSpec) -> tuple[Setting, ...]:
    """The lines of a sweep's table."""
    own = ((recipe.n_s, recipe.n_t),)
    settings = [
        setting
        for row in sweep.rows
        for setting in expand(row.models, row.frames or own, fusion=row.fusion, losses=row.losses)
    ]
    return tuple(dict.fromkeys(settings))
