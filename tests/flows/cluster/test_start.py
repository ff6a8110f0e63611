"""The workers of a Dask cluster: what is asked of them, and what the loss of some means for the others' tasks."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dynaprop.flows.cluster import connection as module
from dynaprop.flows.cluster.connection import Cluster, fit_workers
from dynaprop.flows.cluster.start import open_cluster
from dynaprop.pipeline.catalog.clusters import ClusterSpec
from dynaprop.pipeline.errors import DynapropError

WORKERS = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Workers of which a task takes a resource, as on GPUs: Dask hands all tasks to them at once."""
    spec = ClusterSpec(name="gpus", processes=WORKERS, resources={"GPU": 1})
    with open_cluster(spec, on_note=print) as cluster:
        yield cluster


def wait_for(gate: Path) -> bool:
    """A task that ends when a file appears."""
    while not gate.exists():
        time.sleep(0.05)
    return True


def die(log: Path) -> None:
    """A task that its worker does not survive."""
    with log.open("a") as file:
        file.write("begun\n")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def looks(monkeypatch) -> list[float]:
    """Times at which the scheduler was asked for its workers."""
    times: list[float] = []

    def counted(*arguments: Any) -> dict[str, Any]:
        times.append(time.monotonic())
        return fit_workers(*arguments)

    monkeypatch.setattr(module, "fit_workers", counted)
    return times


def test_all_who_wait_share_a_look_at_the_workers(cluster, tmp_path, looks, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.2)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(20) as threads:
        began = time.monotonic()
        answers = [threads.submit(cluster.run, wait_for, gate) for _ in range(20)]
        time.sleep(2)
        gate.touch()
        assert all(answer.result() for answer in answers)
    assert 2 <= len(looks) <= (time.monotonic() - began) / 0.2 + 1, "one by one they would be 20 times as many"


def test_a_worker_that_leaves_when_it_has_just_come_is_waited_for(monkeypatch):
    looks: list[dict[str, Any]] = []

    def seldom(*arguments: Any) -> dict[str, Any]:
        looks.append(fit_workers(*arguments) if len(looks) == 1 else {})
        return looks[-1]

    monkeypatch.setattr("dynaprop.flows.cluster.start.fit_workers", seldom)
    notes: list[str] = []
    with open_cluster(ClusterSpec(name="one", processes=1), on_note=notes.append) as cluster:
        assert (cluster.workers, cluster.peers) == (1, 1)
    assert [note.split(" worker")[0] for note in notes] == ["cluster 'one': waiting for a"]


def test_tasks_that_waited_at_lost_workers_are_not_to_blame(cluster, tmp_path):
    gate = tmp_path / "gate"
    client = cluster._client
    with ThreadPoolExecutor(2 * WORKERS) as threads:
        answers = [threads.submit(cluster.run, wait_for, gate) for _ in range(2 * WORKERS)]
        try:
            victims: set[str] = set()
            waiting = ""
            while len(victims) < 4:  # as many as Dask lets go by before it gives up
                tasks = client.processing()
                waiting = waiting or next((keys[-1] for keys in tasks.values() if len(keys) > 1), "")
                holder = next((worker for worker, keys in tasks.items() if waiting in keys), "")
                if holder and holder not in victims:
                    victims.add(holder)
                    pid = client.run(os.getpid, workers=[holder])[holder]
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            time.sleep(0.5)
        finally:
            gate.touch()
        assert all(answer.result() for answer in answers)
    assert cluster._begun == {}


def test_a_task_that_kills_its_workers_ends_the_command(cluster, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DynapropError, match="cluster 'gpus': 4 workers were lost with the same task; is their memory"):
        cluster.run(die, log)
    assert log.read_text() == "begun\n" * 4
