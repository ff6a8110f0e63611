"""`dynaprop extract`: videos in, frame features of both branches in the store."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from typing import Protocol

from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.pipeline.catalog.clusters import INLINE, ClusterSpec
from dynaprop.pipeline.errors import InfrastructureError
from dynaprop.pipeline.extract.account import tell_labels, tell_summary, tell_touched
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.of_workspace import open_extraction
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.plan import ExtractionPlan
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.main_guard import require_main_guard
from dynaprop.pipeline.progress import Reporter, Steps, reading_again
from dynaprop.pipeline.workspace import Workspace

DELAYS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before a shard is tried again: a minute in all, so long network file systems may remember what was before."""

RunShard = Callable[..., ShardResult]
"""Takes ``shard``, ``videos`` and ``extract``, which it calls with the shard."""


class ShardRuns(Protocol):
    """How shards are run, and where it is shown."""

    def run(self, reporter: Reporter) -> RunShard:
        """What extracts one shard, and tries again where that may help."""

    def until(self, stopped: threading.Event, reporter: Reporter) -> RunShard:
        """The same, which does not try again once all is stopped."""

    def progress(
        self, steps: Steps, plan: ExtractionPlan, sizes: Mapping[int, int], *, name: str
    ) -> AbstractContextManager[Callable[[ShardResult], None]]:
        """Shows how far the body is, which calls what it gets with each finished shard."""

    def show(self, summary: ExtractionSummary, *, name: str) -> None:
        """Shows what failed."""


class PlainRuns:
    """Shards as plain calls; the terminal is all that shows them."""

    def run(self, reporter: Reporter) -> RunShard:
        return self.until(threading.Event(), reporter)

    def until(self, stopped: threading.Event, reporter: Reporter) -> RunShard:
        return partial(_try_again, stopped, reporter)

    def progress(
        self, steps: Steps, plan: ExtractionPlan, sizes: Mapping[int, int], *, name: str
    ) -> AbstractContextManager[Callable[[ShardResult], None]]:
        return nullcontext(lambda _: None)

    def show(self, summary: ExtractionSummary, *, name: str) -> None:
        pass


def _try_again(
    stopped: threading.Event, reporter: Reporter, shard: int, videos: int, extract: Callable[[int], ShardResult]
) -> ShardResult:
    for delay in DELAYS:
        try:
            return extract(shard)
        except InfrastructureError as error:
            if stopped.is_set():
                raise
            reporter.say(f"extract shard {shard:04d} ({videos} videos): {as_shown(error)}; it is tried again")
            if stopped.wait(delay):
                raise
    return extract(shard)


def extract(
    workspace: Workspace,
    *,
    device: str = "auto",
    retry_failed: bool = False,
    workers: int | None = None,
    deadline: float = 60.0,
    wait: bool = False,
    cluster: str = INLINE,
    runs: ShardRuns | None = None,
) -> dict[str, object]:
    """Decode every video once and cache the features of student and teacher.

    Args:
        workspace: dataset and recipe.
        device, retry_failed, workers, deadline, wait, cluster: as of the flow ``extract-features``.
        runs: of shards; plain calls by default.

    Returns:
        Numbers of videos by what came of them, and the feature keys.

    Raises:
        DynapropError: not one video could be used, or the store is in use.
    """
    runs, reporter = runs or PlainRuns(), workspace.reporter
    spec = workspace.catalog.cluster(cluster)
    remote = spec.name != INLINE  # then the device is the workers' own
    if remote and spec.address is None:
        require_main_guard()  # before hours of planning
    with open_extraction(
        workspace, device="auto" if remote else device, workers=workers, deadline=deadline, wait=wait
    ) as extraction:
        plan = _plan(extraction, workspace, retry_failed=retry_failed, require=spec if remote else None)
        name = f"{workspace.dataset.name}-{workspace.recipe.name}"
        sizes = {shard: plan.videos_of(shard) for shard in plan.shards}
        with (
            reporter.steps("extract", plan.clips_to_do, "clips") as progress,
            runs.progress(progress, plan, sizes, name=name) as on_shard,
        ):
            if remote and plan.shards:
                from dynaprop.flows.cluster.extraction import extract_on_cluster  # Dask takes a second

                extract_on_cluster(
                    lambda stopped: runs.until(stopped, reporter),
                    extraction,
                    plan,
                    spec,
                    device=device,
                    on_clips=progress.advance,
                    on_shard=on_shard,
                )
            else:
                extract_here(runs.run(reporter), extraction, plan, on_clips=progress.advance, on_shard=on_shard)
        summary = extraction.summary()
    runs.show(summary, name=name)
    tell_summary(summary, reporter)
    lacking = {name: len(getattr(summary, name)) for name in ("failed", "partial", "absent")}
    return {"usable": summary.usable, **lacking, "decoded": summary.decoded, **summary.keys}


def _plan(
    extraction: Extraction, workspace: Workspace, *, retry_failed: bool, require: ClusterSpec | None
) -> ExtractionPlan:
    """What is to do; of odd things people are told before hours of work."""
    reporter = workspace.reporter
    rows = extraction.store.shard_rows
    if rows != workspace.dataset.shard_rows:
        reporter.say(f"the store keeps its {rows} rows a shard; shard_rows in the catalog is for new stores")
    tell_labels(extraction, reporter)
    changes = extraction.changes(retry_failed=retry_failed, hashing=partial(reading_again, reporter))
    tell_touched(changes, reporter)
    if require is not None and changes.n_probes:
        from dynaprop.flows.cluster.start import require_cluster  # Dask takes a second

        require_cluster(require)
    with reporter.steps("probe", changes.n_probes, "videos") as progress:
        plan = extraction.plan(changes, on_video=progress.advance)
    if changes.outdated:
        reporter.say(
            f"{len(changes.outdated):,} videos were cached by an earlier version; {plan.reread:,} of them are read "
            "otherwise today and extracted again"
        )
    return plan


def expect(
    workspace: Workspace, *, device: str = "auto", retry_failed: bool = False, workers: int | None = None
) -> str:
    """What an extraction would do, in one line; writes nothing but an empty store."""
    reporter = workspace.reporter
    with open_extraction(workspace, device=device, workers=workers, dry_run=True) as extraction:
        tell_labels(extraction, reporter)
        changes = extraction.changes(retry_failed=retry_failed, hashing=partial(reading_again, reporter))
        tell_touched(changes, reporter)
        with reporter.steps("probe", changes.n_probes, "videos") as progress:
            plan = extraction.plan(changes, save=False, on_video=progress.advance)
        seconds = extraction.estimate_seconds(plan)
    otherwise = f", {plan.reread:,} videos read otherwise than by an earlier version" if plan.reread else ""
    return (
        f"{plan.videos} videos, {plan.clips} clips{otherwise}; "
        f"to do: {plan.clips_to_do} clips in {len(plan.shards)} shards, "
        f"{plan.bytes_to_write / 2**20:.0f} MiB, about {timedelta(seconds=round(seconds))} h on {extraction.device}"
    )


def extract_here(
    run: RunShard,
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
        on_shard(run(shard, plan.videos_of(shard), extract))
