"""`dynaprop train`: cached features in, checkpoints of all models out."""

from collections.abc import Sequence

from dynaprop.heads.experiments.units import RunReport, TrainUnit, Units, train_unit
from dynaprop.heads.model.setting import MODELS, expand
from dynaprop.pipeline.workspace import Workspace


def train(
    workspace: Workspace,
    *,
    seeds: Sequence[int] = (0,),
    folds: int = 0,
    n_s: int | None = None,
    n_t: int | None = None,
    models: Sequence[str] = MODELS[:-1],
    device: str = "auto",
    unit: TrainUnit = train_unit,
) -> RunReport:
    """Train fusion, propagation and classifiers on cached features and keep the models.

    Args:
        workspace: dataset and recipe.
        seeds, folds, n_s, n_t, models, device: as of the flow ``train-heads``.
        unit: trains one unit.

    Raises:
        DynapropError: features are not extracted yet, or labels do not allow training.
    """
    units = Units(workspace, folds=folds, device=device)
    frames = (n_s or workspace.recipe.n_s, n_t or workspace.recipe.n_t)
    report = units.do([units.ask("train", expand(models, [frames]), seeds)], keep=True, train=unit)
    workspace.reporter.say(f"checkpoints: {units.run.path / 'checkpoints'}")
    return report
