"""Flow `train-heads`: cached features in, checkpoints of all models out."""

from collections.abc import Callable

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dynaprop.flows.commands.train import train
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.heads.experiments.units import RunReport, Unit, Units, train_unit
from dynaprop.heads.model.setting import MODELS
from dynaprop.pipeline.workspace import open_workspace


@flow(name="train-heads", persist_result=False)
def train_heads(
    dataset: str,
    recipe: str = "lite",
    seeds: tuple[int, ...] = (0,),
    folds: int = 0,
    n_s: int | None = None,
    n_t: int | None = None,
    models: tuple[str, ...] = MODELS[:-1],
    device: str = "auto",
    catalog: str | None = None,
) -> RunReport:
    """Train fusion, propagation and classifiers on cached features and keep the models.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog.
        seeds: one training each.
        folds: 0 for the given split, else folds by group.
        n_s: student frames; the recipe's by default.
        n_t: teacher frames; the recipe's by default.
        models: of student, student-kd, teacher, static-avg, static-weighted, dynamic and dynamic-shuffled.
        device: auto, cpu, cuda or cuda:N.
        catalog: path of the catalog file.
    """
    enter_flow()
    workspace = open_workspace(dataset, recipe, catalog, reporter=TERMINAL)
    return train(workspace, seeds=seeds, folds=folds, n_s=n_s, n_t=n_t, models=models, device=device, unit=train_task)


@task(name="train-heads", task_run_name="train {unit.name}", cache_policy=NO_CACHE, persist_result=False)
def train_task(units: Units, unit: Unit, keep: bool, on_frames: Callable[[int], None]) -> str:
    """Train and measure one unit; returns its name."""
    return train_unit(units, unit, keep, on_frames)
