"""Flow `extract-features`: videos in, frame features of both branches in the store."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from dynaprop.flows.entry import enter_flow
from dynaprop.flows.extraction import open_extraction
from dynaprop.flows.terminal.progress import reading_again, say, steps
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.flows.ui.extraction import log_shard, progress_artifact, show_failures
from dynaprop.flows.workspace import open_workspace
from dynaprop.pipeline.annotations.label_notes import expected_notes
from dynaprop.pipeline.catalog.datasets import INLINE
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.extract.dataset import Extraction, ExtractionPlan, ExtractionSummary
from dynaprop.pipeline.extract.plan import Changes
from dynaprop.pipeline.extract.shard import ShardResult
from dynaprop.pipeline.main_guard import require_main_guard


@flow(name="extract-features", persist_result=False)
def extract_features(
    dataset: str,
    recipe: str = "lite",
    device: str = "auto",
    retry_failed: bool = False,
    workers: int | None = None,
    deadline: float = 60.0,
    catalog: str | None = None,
    wait: bool = False,
    cluster: str = INLINE,
) -> dict[str, object]:
    """Decode every video once and cache the features of student and teacher.

    Args:
        dataset: name in the catalog, or a folder of videos.
        recipe: name in the catalog.
        device: auto, cpu, cuda or cuda:N.
        retry_failed: try videos again that failed before.
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
        catalog: path of the catalog file.
        wait: wait while another process extracts this dataset, instead of refusing.
        cluster: name in the catalog of the workers that do it; ``inline`` for this process.
    """
    enter_flow()
    workspace = open_workspace(dataset, recipe, catalog)
    spec = workspace.catalog.cluster(cluster)
    remote = spec.name != INLINE  # then the device is the workers' own
    if remote and spec.address is None:
        require_main_guard()  # before hours of planning
    with open_extraction(
        workspace, device="auto" if remote else device, workers=workers, deadline=deadline, wait=wait
    ) as extraction:
        rows = extraction.store.shard_rows
        if rows != workspace.dataset.shard_rows:
            say(f"the store keeps its {rows} rows a shard; shard_rows in the catalog is for new stores")
        tell_notes(extraction)
        changes = extraction.changes(retry_failed=retry_failed, hashing=reading_again)
        _tell_touched(changes)
        if remote and changes.n_probes:
            from dynaprop.flows.cluster.start import require_cluster  # Dask takes a second

            require_cluster(spec)
        with steps("probe", changes.n_probes, "videos") as progress:
            plan = extraction.plan(changes, on_video=progress.advance)
        if changes.outdated:
            say(
                f"{len(changes.outdated):,} videos were cached by an earlier version; {plan.reread:,} of them are read "
                "otherwise today and extracted again"
            )
        name = f"{workspace.dataset.name}-{workspace.recipe.name}"
        sizes = {shard: plan.videos_of(shard) for shard in plan.shards}
        with (
            steps("extract", plan.clips_to_do, "clips") as progress,
            progress_artifact(progress, plan, sizes, name=name) as on_shard,
        ):
            if remote and plan.shards:
                from dynaprop.flows.cluster.extraction import extract_on_cluster  # Dask takes a second

                extract_on_cluster(
                    extract_shard, extraction, plan, spec, device=device, on_clips=progress.advance, on_shard=on_shard
                )
            else:
                extract_here(extraction, plan, on_clips=progress.advance, on_shard=on_shard)
        summary = extraction.summary()
    show_failures(summary, name=name)
    tell(summary)
    lacking = {name: len(getattr(summary, name)) for name in ("failed", "partial", "absent")}
    return {"usable": summary.usable, **lacking, "decoded": summary.decoded, **summary.keys}


def expect(
    dataset: str,
    recipe: str = "lite",
    device: str = "auto",
    retry_failed: bool = False,
    workers: int | None = None,
    catalog: str | None = None,
) -> str:
    """What an extraction would do, in one line; writes nothing but an empty store."""
    workspace = open_workspace(dataset, recipe, catalog)
    with open_extraction(workspace, device=device, workers=workers, dry_run=True) as extraction:
        tell_notes(extraction)
        changes = extraction.changes(retry_failed=retry_failed, hashing=reading_again)
        _tell_touched(changes)
        with steps("probe", changes.n_probes, "videos") as progress:
            plan = extraction.plan(changes, save=False, on_video=progress.advance)
        seconds = extraction.estimate_seconds(plan)
    otherwise = f", {plan.reread:,} videos read otherwise than by an earlier version" if plan.reread else ""
    return (
        f"{plan.videos} videos, {plan.clips} clips{otherwise}; "
        f"to do: {plan.clips_to_do} clips in {len(plan.shards)} shards, "
        f"{plan.bytes_to_write / 2**20:.0f} MiB, about {timedelta(seconds=round(seconds))} h on {extraction.device}"
    )


def extract_here(
    extraction: Extraction,
    plan: ExtractionPlan,
    *,
    on_clips: Callable[[int], None],
    on_shard: Callable[[ShardResult], None],
) -> None:
    """Extract all shards of a plan in this process, each decoded while the one before is written."""
    shards = list(plan.shards)
    for shard, then in zip_longest(shards, shards[1:]):
        extract = partial(extraction.extract_shard, then=then, on_clips=on_clips)
        on_shard(extract_shard(shard, plan.videos_of(shard), extract))


def _tell_touched(changes: Changes) -> None:
    """Say what came of videos that have other times than were noted of them."""
    if changes.touched:
        say(f"{len(changes.touched):,} videos have other times and the same bytes: nothing is done for them")
    if changes.in_doubt:
        say(
            f"{len(changes.in_doubt):,} videos, {changes.in_doubt[0]} first, have other times than an earlier version "
            "noted, which noted too little to tell whether they have changed: they are extracted again"
        )


def _may_help(task: Task[..., ShardResult], run: TaskRun, state: State[Any]) -> bool:
    """Whether the failure of a shard is worth another try."""
    error = state.data
    if not isinstance(error, InfrastructureError):
        return False
    say(f"{run.name}: {as_shown(error)}; it is tried again")
    return True


@task(
    name="extract-shard",
    task_run_name="extract shard {shard:04d} ({videos} videos)",
    retries=5,  # in a minute: so long network file systems may remember what was before
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def extract_shard(shard: int, videos: int, extract: Callable[[int], ShardResult]) -> ShardResult:
    """Extract one shard, here or elsewhere; nothing is done when the ledger has it."""
    result = extract(shard)
    log_shard(result)
    return result


def tell_notes(extraction: Extraction) -> None:
    """Say what looks odd about the labels, while they can still be mended."""
    dataset = extraction.dataset
    for note in expected_notes(extraction.annotations, seed=dataset.split_seed, test_fraction=dataset.test_fraction):
        say(f"note: {note}")


def tell(summary: ExtractionSummary) -> None:
    """Say what was done, what failed and what is absent.

    Raises:
        DynapropError: not one video could be used.
    """
    for video, error in list(summary.failed.items())[:5]:
        say(f"failed: {video}: {error}")
    if len(summary.failed) > 5:
        say(f"... and {len(summary.failed) - 5} more failed videos; `dynaprop datasets --failed` names them")
    if summary.partial:
        video, lack = next(iter(summary.partial.items()))
        say(f"partial: {len(summary.partial):,} videos are used as far as possible, {video} first: {lack.detail}")
    if summary.absent:
        say(
            f"absent: {len(summary.absent):,} listed videos are not on disk, {summary.absent[0]} first; "
            f"their ids: {summary.store / 'manifest.parquet'}, error_kind absent"
        )
    say(
        f"features: {summary.usable} of {summary.videos} videos; this run decoded {summary.decoded} videos and ran "
        f"{summary.forwarded} frames through backbones -> {summary.store}"
    )
    if not summary.usable:
        raise DynapropError(f"none of the {summary.videos} videos could be used; the reasons are above")
