"""Fine-tuning a recipe on a dataset: names resolved, videos found, stages run, what comes of it told.

Every process of a training (`torchrun`) runs this; the first one alone has a flow run, says things and writes.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynaprop.heads.experiments.units import RunReport
from dynaprop.heads.features.sampling import training_clips
from dynaprop.heads.finetune.measure import measure_finetuned, tell_difference, tuned_backbones
from dynaprop.heads.finetune.processes import ProcessGroup, process_group
from dynaprop.heads.finetune.state import remove_states
from dynaprop.heads.finetune.tuned_models import FineTunedModels
from dynaprop.heads.finetune.two_stages import Places, Stage, TwoStages, starting_heads
from dynaprop.heads.model.ensembles import DynamicSTE
from dynaprop.heads.model.setting import Setting, expand
from dynaprop.heads.runs.checkpoint import load_checkpoint
from dynaprop.heads.runs.folder import RunFolder
from dynaprop.heads.runs.names import is_run
from dynaprop.heads.runs.rows import Asked, Measured
from dynaprop.pipeline.annotations import Annotations, Video, require_labels
from dynaprop.pipeline.annotations.label_notes import label_notes
from dynaprop.pipeline.annotations.splits import Split, given_or_stratified
from dynaprop.pipeline.backbones.timm_networks import check_backbones
from dynaprop.pipeline.catalog.recipes import FinetuneSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.frames.training_videos import TrainingVideo, probe_videos
from dynaprop.pipeline.io.local_lock import lock_record
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.io.paths import storage_path
from dynaprop.pipeline.machine import is_first, resolve_device, usable_cores
from dynaprop.pipeline.progress import Reporter
from dynaprop.pipeline.store.names import clip_rule, locate_backbone, store_path
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.workspace import Workspace, home, open_workspace

Do = Callable[[str, Callable[[], None]], object]
"""Runs a stage, which is named; in a flow as a task of its own."""


def run_finetuning(
    target: str,
    *,
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
    reporter: Reporter | None = None,
    do: Do = lambda _stage, train: train(),
) -> RunReport:
    """Fine-tune in this process, which may be one of several.

    Args:
        target, recipe, init, epochs, seed, n_s, n_t, device, workers, deadline, catalog: as of the flow ``finetune``.
        reporter: is told; by default nobody.
        do: runs a stage.
    """
    workspace = open_workspace(target, recipe, catalog, reporter=reporter)
    reporter = workspace.reporter
    device = resolve_device(device)
    annotations = workspace.annotations()
    require_labels(annotations)
    spec = workspace.dataset
    split = given_or_stratified(annotations, seed=spec.split_seed, test_fraction=spec.test_fraction)
    notes = label_notes(annotations, (split,))
    for note in notes if is_first() else ():
        reporter.say_once(f"note: {note}")
    options = workspace.recipe.finetune
    if epochs is not None:  # a teacher that the recipe leaves as it is stays so
        stages = {"teacher_epochs": epochs if options.teacher_epochs else 0, "student_epochs": epochs}
        options = options.model_copy(update=stages)
    frames = (n_s or workspace.recipe.n_s, n_t or workspace.recipe.n_t)
    clips = options.clips or frames[0]
    origin = None if init is None else _run_named(init)
    begun = None if origin is None else _init(workspace, annotations, origin, split, seed, frames)
    if begun is None and options.teacher_epochs == 0:
        raise UsageError("a teacher of 0 epochs needs heads to begin with", remedy="begin with heads")
    # With frozen batch normalisation these two change time and memory alone.
    exclude = {"micro_batch", "checkpointing"} if options.batch_norm == "frozen" else set()
    identity = _identity(workspace, annotations, split) | {
        "finetune": options.model_dump(mode="json", exclude=exclude),
        "init": origin and origin.path.name,
        "frames": frames,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    run = RunFolder(
        workspace.home / "runs" / f"{spec.name}-{workspace.recipe.name}-finetune-{digest}", on_note=reporter.say
    )
    settings = {
        setting: run.checkpoint(Measured(split.name, split.fold, seed, setting))
        for setting in (_setting("teacher", 0, clips), _setting("dynamic", *frames))
    }
    teacher, dynamic = settings.values()
    places = Places(run=run.path, seed=seed, teacher=teacher, dynamic=dynamic)
    if not places.done.exists():
        _fine_tune(
            workspace,
            annotations,
            split,
            options,
            places,
            run=run,
            frames=frames,
            clips=clips,
            init=begun,
            device=device,
            workers=workers,
            deadline=deadline,
            do=do,
        )
    elif is_first():
        reporter.say(f"fine-tuned already: {run.path}")
        remove_states(places.state)  # a kill may have come before
    asked = Asked("finetune", split.name, (seed,), tuple(settings))
    if is_first():
        run.note(split.name, notes)
        for line in _as_backbones(workspace, places, frames):
            reporter.say(line)
        models = FineTunedModels(places, settings, resolve_device(device))
        models.check()
        measure_finetuned(
            workspace, annotations, split, models, run=run, asked=asked, workers=workers, deadline=deadline
        )
        if origin is not None:
            tell_difference(
                origin, run, Measured(split.name, split.fold, seed, _setting("dynamic", *frames)), workspace.reporter
            )
    return RunReport(str(run.path), (asked,))


def _fine_tune(
    workspace: Workspace,
    annotations: Annotations,
    split: Split,
    options: FinetuneSpec,
    places: Places,
    *,
    run: RunFolder,
    frames: tuple[int, int],
    clips: int,
    init: DynamicSTE | None,
    device: str,
    workers: int | None,
    deadline: float,
    do: Do,
) -> None:
    """Train both stages, as far as they are not."""
    recipe, reporter = workspace.recipe, workspace.reporter
    with ExitStack() as stack:
        group, device = stack.enter_context(process_group(device))
        if group.size > options.batch_size:
            raise UsageError(f"{group.size} processes for batches of {options.batch_size} videos: raise batch_size")
        lock = None
        if group.rank == 0:
            place = run.path / "locks" / f"seed{places.seed}"
            lock = stack.enter_context(
                StoreLock(
                    lock_record(place), name=f"{run.path.name}, seed {places.seed}", wait=None, on_note=reporter.say
                )
            )
        if group.gather(places.done.exists())[0]:
            return  # by somebody who had the lock until now
        if group.rank == 0:
            run.describe(
                {
                    "dataset": workspace.dataset.name,
                    "recipe": recipe.model_dump(mode="json") | {"n_s": frames[0], "n_t": frames[1]},
                    "finetune": options.model_dump(mode="json"),
                    "store": str(store_path(workspace.dataset, workspace.home)),
                    "grid": clip_rule(workspace.dataset),
                    "classes": list(annotations.class_names),
                    "missing": list(annotations.missing),
                }
            )
        backbones = [locate_backbone(workspace.student), locate_backbone(workspace.teacher)]
        check_backbones(backbones)
        workers = workers or max(1, usable_cores() // group.local_size)
        pool = stack.enter_context(DecodePool(workers=workers, deadline=deadline))
        wanted = [annotations.videos[video] for video in split.train]
        videos = _probe(workspace, wanted, pool, group)
        labels = {video.id: video.labels[0] for video in wanted}
        source = partial(
            _source,
            videos,
            pool=pool,
            clips=clips,
            group=group,
            batch_size=options.batch_size,
            seed=places.seed,
            jitter=options.jitter,
            scale=options.scale,
            ratio=options.ratio,
            flip=options.flip,
            min_share=workspace.dataset.min_share,
        )
        stages = TwoStages(
            places,
            student=backbones[0],
            teacher=backbones[1],
            labels=[labels[video.id] for video in videos],
            class_names=annotations.class_names,
            frames=source,
            clips=clips,
            n_s=frames[0],
            n_t=frames[1],
            init=init,
            teacher_epochs=options.teacher_epochs,
            student_epochs=options.student_epochs,
            gamma=recipe.gamma,
            key_dim=recipe.key_dim,
            lambda_frm=recipe.lambda_frm,
            lambda_cos=recipe.lambda_cos,
            train_batch_norm=options.batch_norm == "trained",
            checkpointing=options.checkpointing,
            precision=options.precision,
            training={
                "lr": options.lr,
                "backbone_lr": options.backbone_lr,
                "weight_decay": options.weight_decay,
                "warmup": options.warmup,
                "milestones": options.milestones,
                "micro_batch": options.micro_batch,
            },
            device=device,
            group=group,
            check=None if lock is None else lock.check,
            on_failure=lambda video, error: reporter.say(f"left out: {video}: {error}"),
        )
        stage: Stage
        for stage in ("teacher", "student"):
            do(stage, partial(_run_stage, stages, stage, len(videos), group, reporter))
        stages.finish()
    if is_first():
        reporter.say(f"fine-tuned: {run.path}, loss curve: {places.epochs}")


def _run_stage(stages: TwoStages, stage: Stage, n_videos: int, group: ProcessGroup, reporter: Reporter) -> None:
    left = stages.epochs[stage] - stages.epochs_done(stage)
    if group.rank > 0:
        stages.run(stage)
        return
    if left < stages.epochs[stage]:
        reporter.say(
            f"fine-tune {stage}: {stages.epochs_done(stage)} of {stages.epochs[stage]} epochs are there already"
        )
    with reporter.steps(f"fine-tune {stage}", left * n_videos, "videos") as progress:
        stages.on_videos = progress.advance
        stages.run(stage)


def _source(
    videos: list[TrainingVideo], sizes: list[int], *, clips: int, group: ProcessGroup, **options: Any
) -> TrainingFrames:
    def choose(n_clips: int, rng: np.random.Generator | None) -> np.ndarray:
        return training_clips(n_clips, clips, rng)

    return TrainingFrames(videos, sizes=sizes, choose=choose, rank=group.rank, ranks=group.size, **options)


def _probe(workspace: Workspace, videos: list[Video], pool: DecodePool, group: ProcessGroup) -> list[TrainingVideo]:
    """The training videos that can be decoded; each process looks at its part of them, and all have the same list."""
    dataset = workspace.dataset
    part = videos[group.rank :: group.size]
    ask = partial(
        probe_videos,
        part,
        pool=pool,
        clip_seconds=dataset.clip_seconds,
        min_clips=dataset.min_clips,
        max_clips=dataset.max_clips,
        min_share=dataset.min_share,
    )
    if group.rank > 0:
        own = ask()
    else:
        with workspace.reporter.steps("probe", len(part), "videos") as progress:
            own = ask(on_video=progress.advance)
    found: dict[str, TrainingVideo] = {}
    failed: dict[str, VideoError] = {}
    for usable, unusable in group.gather(own):
        found |= {video.id: video for video in usable}
        failed |= unusable
    if failed and group.rank == 0:
        first = next(video.id for video in videos if video.id in failed)
        workspace.reporter.say(
            f"left out: {len(failed)} of {len(videos)} training videos, {first} first: {failed[first]}"
        )
    if not found:
        raise DynapropError(f"none of the {len(videos)} training videos can be decoded")
    return [found[video.id] for video in videos if video.id in found]


def _run_named(name: str) -> RunFolder:
    folder = home() / "runs"
    for place in (folder / name, storage_path(name)) if name else ():
        if is_run(place):
            return RunFolder(place.resolve() if isinstance(place, Path) else place)
    raise UsageError(f"no run {name!r}: name a run in {folder}, or a run's folder; `dynaprop train` makes one")


def _init(
    workspace: Workspace,
    annotations: Annotations,
    run: RunFolder,
    split: Split,
    seed: int,
    frames: tuple[int, int],
) -> DynamicSTE:
    """Dynamic-STE of a run, trained on the same split at the same seed."""
    path = run.checkpoint(Measured(split.name, split.fold, seed, _setting("dynamic", *frames)))
    try:
        checkpoint = load_checkpoint(path)
    except UsageError:
        raise UsageError(
            f"{str(run.path)!r} has no Dynamic-STE of {frames[0]} + {frames[1]} frames and seed {seed} on this split "
            f"({path.name})",
            remedy="train heads",
            target=workspace.target,
            options={
                "recipe": workspace.recipe.name,
                "seeds": range(seed + 1),
                "n_s": frames[0],
                "n_t": frames[1],
            },
        ) from None
    return starting_heads(
        checkpoint,
        student=locate_backbone(workspace.student)[0],
        teacher=locate_backbone(workspace.teacher)[0],
        class_names=annotations.class_names,
    )


def _setting(model: str, n_s: int, n_t: int) -> Setting:
    (setting,) = expand([model], [(n_s, n_t)])
    return setting


def _identity(workspace: Workspace, annotations: Annotations, split: Split) -> dict[str, object]:
    """What decides the outcome, apart from the hyper-parameters of the fine-tuning."""
    dataset, recipe = workspace.dataset, workspace.recipe
    return {
        "backbones": [locate_backbone(each)[0].name for each in (workspace.student, workspace.teacher)],
        "heads": [recipe.gamma, recipe.key_dim, recipe.lambda_frm, recipe.lambda_cos],
        "grid": clip_rule(dataset),
        "classes": annotations.class_names,
        **{
            part: [(annotations.videos[video].id, annotations.videos[video].labels) for video in videos]
            for part, videos in (("train", split.train), ("test", split.test))
        },
    }


def _as_backbones(workspace: Workspace, places: Places, frames: tuple[int, int]) -> list[str]:
    """What the catalog needs to extract, train and sweep with the fine-tuned backbones, by the recipe's heads."""
    lines: list[str] = []
    names: dict[str, str] = {}
    for branch, spec in tuned_backbones(workspace, places).items():
        names[branch] = spec.name
        values = spec.model_dump(mode="json", exclude={"name"}, exclude_none=True, exclude_defaults=True)
        lines.append(f"  {spec.name}: {json.dumps(values)}")
    n_s, n_t = frames
    recipe = workspace.recipe.model_copy(update={**names, "n_s": n_s, "n_t": n_t})
    values = recipe.model_dump(mode="json", exclude={"name", "finetune"}, exclude_defaults=True)
    return [
        "to train other models on the fine-tuned backbones, add these entries to those of a catalog "
        f"(here {workspace.catalog.path}):",
        "backbones:",
        *lines,
        "recipes:",
        f"  {recipe.name}-finetuned{places.seed}-{places.digest}: {json.dumps(values)}",
    ]
