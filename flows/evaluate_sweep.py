"""Flow `evaluate-sweep`: every model at every number of frames and seed, into parquet."""

from prefect import flow

from flows.units import RunReport, Units
from flows.workspace import open_workspace


@flow(name="evaluate-sweep")
def evaluate_sweep(
    dataset: str,
    recipe: str = "lite",
    sweep: str = "default",
    folds: int = 0,
    seeds: tuple[int, ...] | None = None,
    device: str = "auto",
    catalog: str | None = None,
) -> RunReport:
    """Train and measure the models of a sweep on cached features; what was done before is kept.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog.
        sweep: name in the catalog: which models, numbers of frames and seeds.
        folds: 0 for the given split, else folds by group.
        seeds: instead of the sweep's.
        device: auto, cpu, cuda or cuda:N.
        catalog: path of the catalog file.
    """
    workspace = open_workspace(dataset, recipe, catalog)
    spec = workspace.catalog.sweep(sweep)
    units = Units(workspace, folds=folds, device=device)
    seeds = seeds or spec.seeds
    counts = spec.counts or [(workspace.recipe.n_s, workspace.recipe.n_t)]
    plan = units.plan(counts=counts, seeds=seeds, models=spec.models)
    plan += units.plan(counts=[(n, n) for n in spec.teacher_counts], seeds=seeds, models=("teacher",))
    return units.do(plan)
