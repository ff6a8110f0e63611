"""Shard tasks with fake work, handed out as an extraction on a cluster hands them out.

    python -m bench.shard_tasks 10000 0    # so many tasks of so many seconds by the server of $PREFECT_API_URL, as JSON

A process of its own, so that its memory is that of the tasks: see `bench.scale`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import psutil
from prefect import flow

from bench.machine import seconds_of
from dynaprop.flows.cluster.connection import Cluster
from dynaprop.flows.cluster.start import open_cluster
from dynaprop.flows.extract_features import extract_shard
from dynaprop.flows.terminal.progress import say
from dynaprop.pipeline.catalog.clusters import ClusterSpec
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.side_by_side import run_side_by_side

WORKERS = 2
WARM_UP = 20  # task runs before it is measured


@dataclass(frozen=True)
class TaskTimes:
    """What so many tasks took, and what they left in the memory of the process that hands them out."""

    tasks: int
    work: float
    """Seconds of each."""
    dask: float
    """Seconds of all, handed out without Prefect."""
    prefect: float
    """Seconds of all, each a task run of a flow."""
    median: float
    """Seconds between the ends of two task runs, median: without what else the machine did."""
    tenths: tuple[float, ...]
    """Task runs a second in each tenth of the flow run."""
    mib: float
    """Memory of this process before the flow: interpreter, torch, Prefect, Dask's scheduler and client."""
    mib_grown: float
    """How much more it was after the flow."""

    def overhead(self, seconds: float) -> float:
        """Milliseconds a task of ``dask`` or ``prefect`` beyond its share of the work."""
        return 1e3 * (seconds / self.tasks - self.work / WORKERS)

    def utilisation(self, seconds: float) -> float:
        """The part of the workers' time that was work."""
        return self.tasks * self.work / (WORKERS * seconds)


def fake_shard(shard: int, seconds: float) -> ShardResult:
    """What a worker does: nothing for a while, and the answer of a shard that went well."""
    time.sleep(seconds)
    return ShardResult(shard, videos=64, clips=2048, frames=4096)


def run_tasks(tasks: int, work: float) -> TaskTimes:
    """Run the tasks on a cluster of this machine, by Dask alone, then as task runs of a flow."""
    memory = psutil.Process().memory_info
    ends: list[float] = []
    with open_cluster(ClusterSpec(name="two-processes", processes=WORKERS), on_note=say) as cluster:

        def extract(shard: int) -> ShardResult:
            result = cluster.run(fake_shard, shard, work)
            ends.append(time.perf_counter())
            return result

        @flow(name="fake-extraction", persist_result=False)
        def extraction(count: int) -> None:
            _hand_out(extract_shard, extract, count, cluster)

        extraction(WARM_UP)
        dask = seconds_of(partial(_hand_out, _alone, extract, tasks, cluster))
        before = memory().rss
        ends.clear()
        began = time.perf_counter()
        extraction(tasks)
        prefect = time.perf_counter() - began
        grown = memory().rss - before
    marks = [began, *(ends[tasks * tenth // 10 - 1] for tenth in range(1, 11))]
    return TaskTimes(
        tasks,
        work,
        dask,
        prefect,
        median=statistics.median(after - end for end, after in pairwise(ends)),
        tenths=tuple(round(tasks / 10 / (after - mark), 1) for mark, after in pairwise(marks)),
        mib=before / 2**20,
        mib_grown=grown / 2**20,
    )


def _alone(shard: int, videos: int, extract: Callable[[int], ShardResult]) -> ShardResult:
    return extract(shard)


def _hand_out(
    task: Callable[..., ShardResult], extract: Callable[[int], ShardResult], count: int, cluster: Cluster
) -> None:
    """As flows/cluster/extraction.py does, which has 32 or more at a time; here it is twice the number of workers."""
    jobs = ({"shard": shard, "videos": 64, "extract": extract} for shard in range(count))
    run_side_by_side(task, jobs, workers=2 * cluster.workers, stop=partial(cluster.stop, os.getpid))


def main() -> None:
    print(json.dumps(asdict(run_tasks(int(sys.argv[1]), float(sys.argv[2])))))


if __name__ == "__main__":
    main()
