"""Flow `train-heads`: cached features in, checkpoints of all models out."""

from prefect import flow

from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import say
from dynaprop.flows.units import RunReport, Units
from dynaprop.flows.workspace import open_workspace
from dynaprop.heads.model.setting import MODELS, expand


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
    workspace = open_workspace(dataset, recipe, catalog)
    units = Units(workspace, folds=folds, device=device)
    frames = (n_s or workspace.recipe.n_s, n_t or workspace.recipe.n_t)
    report = units.do([units.ask("train", expand(models, [frames]), seeds)], keep=True)
    say(f"checkpoints: {units.run.path / 'checkpoints'}")
    return report
