"""Extraction by the workers of a cluster: each shard a task run here that waits for a task there."""

from collections.abc import Callable
from functools import partial

from prefect import Task

from flows.cluster import open_cluster
from flows.progress import say
from flows.side_by_side import run_side_by_side
from pipeline import shard_worker
from pipeline.errors import UsageError
from pipeline.extract import ShardResult
from pipeline.extraction import Extraction, ExtractionPlan
from pipeline.specs import ClusterSpec

_LEAST_AT_ONCE = 32  # shards handed out: a cluster that grows on demand has to see some


def extract_on_cluster(
    task: Task[..., ShardResult],
    extraction: Extraction,
    plan: ExtractionPlan,
    spec: ClusterSpec,
    *,
    device: str,
    on_clips: Callable[[int], None],
    on_shard: Callable[[ShardResult], None],
) -> None:
    """Extract the shards of a saved plan.

    Args:
        task: takes ``shard``, ``videos`` and ``extract``, which it calls with the shard.
        extraction: holds the store's lock.
        plan: what is to do.
        spec: the cluster.
        device: torch device of the workers, or ``auto``.
        on_clips: called with the clips newly done.
        on_shard: called with each shard that is done, from several threads.

    Raises:
        UsageError: the store is in this process's memory.
        DynapropError: see ``open_cluster`` and ``Cluster.run``.
    """
    if str(extraction.store.root).startswith("memory:"):
        raise UsageError(f"{extraction.store.root} is this process's alone; a cluster needs a store that all see")
    with open_cluster(spec, on_note=say) as cluster:
        work = extraction.remote(device=device, peers=cluster.peers)
        shards = f"{len(plan.shards)} shard{'s' * (len(plan.shards) != 1)}"
        say(f"extract: {shards} by {cluster.workers} workers of cluster {spec.name!r}")

        def extract(shard: int) -> ShardResult:
            extraction.check_lock(writes=False)
            result = cluster.run(shard_worker.extract_shard, work, shard, plan.manifest.shard(shard))
            if not result.videos:  # a worker has published it, and its answer was lost with the worker
                result = extraction.published(shard)
            extraction.count(result)
            on_clips(plan.clips_of(shard))
            on_shard(result)
            return result

        jobs = ({"shard": shard, "videos": plan.videos_of(shard), "extract": extract} for shard in plan.shards)
        goodbye = shard_worker.end, work.owner
        at_once = max(_LEAST_AT_ONCE, 2 * cluster.workers)  # where a shard is done, the next one lies ready
        run_side_by_side(task, jobs, workers=at_once, stop=partial(cluster.stop, *goodbye))
        cluster.run_everywhere(*goodbye)
    extraction.remove_strays()  # of workers that were lost
