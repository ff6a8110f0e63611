"""Flow `extract-features`: videos in, frame features of both branches in the store."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from dynaprop.flows.commands.extract import DELAYS, RunShard, extract
from dynaprop.flows.entry import enter_flow
from dynaprop.flows.terminal.progress import TERMINAL, say
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.flows.ui.extraction import log_shard, progress_artifact, show_failures
from dynaprop.pipeline.catalog.clusters import INLINE
from dynaprop.pipeline.errors import InfrastructureError
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.plan import ExtractionPlan
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.progress import Reporter, Steps
from dynaprop.pipeline.workspace import open_workspace


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
    workspace = open_workspace(dataset, recipe, catalog, reporter=TERMINAL)
    return extract(
        workspace,
        device=device,
        retry_failed=retry_failed,
        workers=workers,
        deadline=deadline,
        wait=wait,
        cluster=cluster,
        runs=_TaskRuns(),
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
    retries=len(DELAYS),
    retry_delay_seconds=list(DELAYS),
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def extract_shard(shard: int, videos: int, extract: Callable[[int], ShardResult]) -> ShardResult:
    """Extract one shard, here or elsewhere; nothing is done when the ledger has it."""
    result = extract(shard)
    log_shard(result)
    return result


class _TaskRuns:
    """Shards as task runs, artifacts and lines of the log."""

    def run(self, reporter: Reporter) -> RunShard:
        return extract_shard

    def until(self, stopped: threading.Event, reporter: Reporter) -> RunShard:
        """Prefect sleeps through a delay, come what may: the condition waits instead."""

        def try_again(task: Task[..., ShardResult], run: TaskRun, state: State[Any]) -> bool:
            may = not stopped.is_set() and _may_help(task, run, state)
            return may and not stopped.wait(DELAYS[run.run_count - 1])

        return extract_shard.with_options(retry_delay_seconds=0, retry_condition_fn=try_again)

    def progress(
        self, steps: Steps, plan: ExtractionPlan, sizes: Mapping[int, int], *, name: str
    ) -> AbstractContextManager[Callable[[ShardResult], None]]:
        return progress_artifact(steps, plan, sizes, name=name)

    def show(self, summary: ExtractionSummary, *, name: str) -> None:
        show_failures(summary, name=name)
