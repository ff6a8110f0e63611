"""`dynaprop sweep`: every model at every number of frames and seed, into parquet."""

from collections.abc import Callable, Sequence

from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.heads.experiments.units import RunReport, TrainUnit, Units, train_unit
from dynaprop.heads.model.setting import Setting, expand
from dynaprop.pipeline.catalog.recipes import RecipeSpec
from dynaprop.pipeline.catalog.sweeps import SweepSpec
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.extract.required import require_features
from dynaprop.pipeline.workspace import DEFAULT_RECIPE, Workspace


def sweep(
    workspace: Workspace,
    *,
    recipe: str | None = None,
    experiment: str = "default",
    folds: int = 0,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    unit: TrainUnit = train_unit,
    on_report: Callable[[Workspace, RunReport], None] = lambda *_: None,
) -> list[RunReport]:
    """Train and measure the models of a sweep on cached features; what was done before is kept.

    Args:
        workspace: the dataset.
        recipe: the only one; by default those of the sweep whose features are cached.
        experiment: name of the sweep.
        folds, seeds, device: as of the flow ``evaluate-sweep``.
        unit: trains one unit.
        on_report: called with each recipe's workspace and report.

    Returns:
        One report a recipe.

    Raises:
        DynapropError: the features of no recipe are cached.
    """
    reports = []
    for found, specs in _workspaces(workspace, recipe, experiment):
        units = Units(found, folds=folds, device=device)
        asked = [units.ask(spec.name, settings_of(spec, found.recipe), seeds or spec.seeds) for spec in specs]
        reports.append(units.do(asked, train=unit))
        on_report(found, reports[-1])
    return reports


def _workspaces(first: Workspace, recipe: str | None, sweep: str) -> list[tuple[Workspace, list[SweepSpec]]]:
    """The recipes that a sweep is run for, each with its experiments; says which lack features.

    Raises:
        DynapropError: the features of no recipe are cached.
    """
    wanted: dict[str, list[SweepSpec]] = {}
    for spec in first.catalog.sweeps_of(sweep):
        for name in (recipe,) if recipe else spec.recipes or (DEFAULT_RECIPE,):
            wanted.setdefault(name, []).append(spec)
    found: list[tuple[Workspace, list[SweepSpec]]] = []
    lacking: dict[str, DynapropError] = {}
    for name, experiments in wanted.items():
        workspace = first.with_recipe(name)
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
        first.reporter.say(
            f"left out: {', '.join(spec.name for spec in wanted[name])} with recipe {name}: {as_shown(reason)}"
        )
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
