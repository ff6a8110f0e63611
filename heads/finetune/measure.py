"""Fine-tuned backbones back into the cache: their features extracted under keys of their own, the models measured."""

from dataclasses import replace
from functools import partial

from dynaprop.heads.experiments.measure import measure
from dynaprop.heads.experiments.units import branch_cost
from dynaprop.heads.features.loaded import load_features
from dynaprop.heads.finetune.tuned_models import FineTunedModels, fine_tuned_backbones
from dynaprop.heads.finetune.two_stages import Places, Stage
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.rows import Asked, Measured
from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.annotations.splits import Split
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.account import tell_summary
from dynaprop.pipeline.extract.of_workspace import open_extraction
from dynaprop.pipeline.progress import Reporter, reading_again
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.workspace import Workspace


def tuned_backbones(workspace: Workspace, places: Places) -> dict[Stage, BackboneSpec]:
    """The recipe's backbones with their fine-tuned weights, as entries of the catalog.

    Raises:
        DynapropError: the weights are not those that the training left.
    """
    backbones = fine_tuned_backbones(places.done)
    specs: dict[Stage, BackboneSpec] = {"student": workspace.student, "teacher": workspace.teacher}
    return {
        branch: spec.model_copy(
            update={
                "name": f"{spec.name}-finetuned{places.seed}-{places.digest}",
                "weights": str(places.backbone(branch)),
                "mean": tuple(backbones[branch]["mean"]),
                "std": tuple(backbones[branch]["std"]),
            }
        )
        for branch, spec in specs.items()
    }


def measure_finetuned(
    workspace: Workspace,
    annotations: Annotations,
    split: Split,
    models: FineTunedModels,
    *,
    run: RunFolder,
    asked: Asked,
    workers: int | None,
    deadline: float,
) -> None:
    """Extract the dataset with the fine-tuned backbones and measure the models on the test videos, once.

    The rows stand in the run's results under the recipe ``NAME-finetuned``. Their ``feature_key`` names the run: each
    seed has features of its own, whose keys stand in ``finetuned-seed<n>.json``.

    Raises:
        DynapropError: no test video could be used.
    """
    rows = {Measured(split.name, split.fold, models.seed, setting) for setting in asked.settings}
    run.ask(asked)
    if not rows <= run.measured():
        specs = tuned_backbones(workspace, models.places)
        tuned = _with_backbones(workspace, specs)
        with open_extraction(tuned, device=models.device, workers=workers, deadline=deadline, wait=True) as extraction:
            plan = extraction.plan(extraction.changes(hashing=partial(reading_again, workspace.reporter)))
            with workspace.reporter.steps("extract", plan.clips_to_do, "clips") as progress:
                extraction.extract_shards(plan.shards, on_clips=progress.advance)
            tell_summary(extraction.summary(), workspace.reporter)
            keys = {branch: extraction.key_names[spec.name] for branch, spec in specs.items()}
        videos = [annotations.videos[video] for video in split.test]
        loaded = load_features(
            open_store(workspace.dataset, workspace.home, read_only=True),
            videos,
            class_names=annotations.class_names,
            student_key=keys["student"],
            teacher_key=keys["teacher"],
        )
        if not len(loaded.split):
            raise DynapropError(f"split {split.name}: none of its test videos has features")
        recipe = workspace.recipe
        digest = models.places.digest
        key: dict[str, object] = {
            "dataset": workspace.dataset.name,
            "split": split.name,
            "fold": split.fold,
            "experiment": None,
            "recipe": f"{recipe.name}-finetuned",
            "options_digest": digest,
            "feature_key": "+".join(f"{spec.model}-{spec.size}-finetuned-{digest}" for spec in specs.values()),
        }
        tables = measure(
            models,
            loaded.split,
            settings=asked.settings,
            key=key,
            student_cost=branch_cost(workspace.student),
            teacher_cost=branch_cost(workspace.teacher),
            n_missing=len(loaded.missing) + len(split.missing),
            with_frames=models.seed == 0,
        )
        run.write(f"{split.name}-seed{models.seed}", tables)
    run.collect()


def tell_difference(frozen: RunFolder, tuned: RunFolder, row: Measured, reporter: Reporter) -> None:
    """Say what the fine-tuning did for the model that it began with, where both are measured."""
    if row in frozen.measured() & tuned.measured():
        before, after = (run.metrics(row) for run in (frozen, tuned))
        reporter.say(
            f"{row.setting.name}, seed {row.seed}: top-1 {100 * before['top1']:.1f} %, mAP {100 * before['map']:.1f} % "
            f"with the backbones of {frozen.path.name}; "
            f"top-1 {100 * after['top1']:.1f} %, mAP {100 * after['map']:.1f} % fine-tuned"
        )


def _with_backbones(workspace: Workspace, specs: dict[Stage, BackboneSpec]) -> Workspace:
    """The same names with other backbones behind the recipe."""
    recipe = workspace.recipe.model_copy(update={branch: spec.name for branch, spec in specs.items()})
    catalog = replace(
        workspace.catalog, backbones={**workspace.catalog.backbones, **{spec.name: spec for spec in specs.values()}}
    )
    return replace(workspace, catalog=catalog, recipe=recipe)
