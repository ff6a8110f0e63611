"""Flow `finetune`: backbones and heads trained end to end, teacher first, then the student around it."""

from collections.abc import Callable

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.heads.experiments.units import RunReport
from dynaprop.heads.finetune.run import run_finetuning


@flow(name="finetune", persist_result=False)
def finetune(
    dataset: str,
    recipe: str = "lite",
    init: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    n_s: int | None = None,
    n_t: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
) -> RunReport:
    """Train the recipe's backbones and Dynamic-STE end to end; goes on after the last finished epoch.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog; its key `finetune` has the hyper-parameters.
        init: run (name or folder) whose Dynamic-STE of this seed it begins with; new heads by default.
        epochs: of each stage that the recipe trains; the recipe's by default.
        seed: of everything random.
        n_s: student frames; the recipe's by default.
        n_t: teacher frames; the recipe's by default.
        device: auto, cpu, cuda or cuda:N.
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        catalog: path of the catalog file.

    Afterwards the features of the fine-tuned backbones are cached, and the models measured on the test videos.
    """
    enter_flow()
    return run_finetuning(
        dataset,
        recipe=recipe,
        init=init,
        epochs=epochs,
        seed=seed,
        n_s=n_s,
        n_t=n_t,
        device=device,
        workers=workers,
        deadline=deadline,
        catalog=catalog,
        reporter=TERMINAL,
        do=finetune_stage,
    )


@task(name="finetune-stage", task_run_name="fine-tune {stage}", cache_policy=NO_CACHE, persist_result=False)
def finetune_stage(stage: str, train: Callable[[], None]) -> str:
    """Fine-tune one stage; returns its name."""
    train()
    return stage
