"""Extraction by the workers of a cluster: each shard a call here that waits for a task there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dynaprop.flows.cluster.start import open_cluster
from dynaprop.flows.terminal.progress import say
from dynaprop.pipeline.catalog.clusters import ClusterSpec
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.extract import worker as shard_worker
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.plan import ExtractionPlan
from dynaprop.pipeline.side_by_side import run_side_by_side

_LEAST_AT_ONCE = 32  # shards handed out: a cluster that grows on demand has to see some


def extract_on_cluster(
    until: Callable[[threading.Event], Callable[..., ShardResult]],
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
        until: gives what runs a shard and tries it again until the event is set; that takes ``shard``, ``videos`` and
            ``extract``, which it calls with the shard.
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
    with _no_strays(extraction), open_cluster(spec, on_note=say) as cluster:
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
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            cluster.stop(*goodbye)

        run_side_by_side(until(stopped), jobs, workers=at_once, stop=stop)
        cluster.run_everywhere(*goodbye)


@contextmanager
def _no_strays(extraction: Extraction) -> Iterator[None]:
    """Delete what workers that were lost or killed have half written, however the body ends.

    A worker of somebody else's cluster may still write: without its file it fails, for an extraction that is over.
    """
    try:
        yield
    except BaseException:
        with suppress(DynapropError, OSError):  # it would hide why the body ended
            extraction.remove_strays()
        raise
    extraction.remove_strays()
