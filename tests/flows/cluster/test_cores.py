"""Which of a cluster's workers share cores."""

import os
from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from dynaprop.flows.cluster.connection import Cluster, fit_workers
from dynaprop.pipeline.machine import usable_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or usable_cores() < 2, reason="needs two cores, and a system that gives them"
)


@pytest.fixture
def client() -> Iterator[Client]:
    """Of two workers."""
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": None}
    with LocalCluster(n_workers=2, memory_limit=0, **options) as workers, Client(workers) as client:
        yield client


def peers(client: Client) -> int:
    return Cluster(client, workers=fit_workers(client, {}), name="two", resources={}, kill=None, on_note=print).peers


def test_workers_with_cores_of_their_own_share_none(client, monkeypatch):
    assert peers(client) == 2, "both may use all"
    cores = sorted(os.sched_getaffinity(0))
    for worker, core in zip(client.scheduler_info()["workers"], cores, strict=False):
        client.run(os.sched_setaffinity, 0, {core}, workers=[worker])
        assert client.submit(usable_cores, workers=[worker], pure=False).result() == 1, "so many children"
    assert peers(client) == 1
    monkeypatch.setattr("dynaprop.flows.cluster.connection.ANSWER", 0.0)
    assert peers(client) == 2, "who does not answer may use all"
