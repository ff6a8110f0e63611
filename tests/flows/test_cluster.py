"""The workers of a Dask cluster: what is asked of them, and what the loss of some means for the others' tasks."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows import cluster as module
from flows.cluster import Cluster, open_cluster
from pipeline.specs import ClusterSpec

WORKERS = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Workers of which a task takes a resource, as on GPUs: Dask hands all tasks to them at once."""
    spec = ClusterSpec(name="gpus", processes=WORKERS, resources={"GPU": 1})
    with open_cluster(spec, on_note=print) as cluster:
        yield cluster


def wait_for(gate: Path) -> bool:
    """A task that ends when a file appears."""
    (gate.parent / f"began-{time.monotonic_ns()}").touch()
    while not gate.exists():
        time.sleep(0.05)
    return True


@pytest.fixture
def looks(monkeypatch) -> list[float]:
    """Times at which the scheduler was asked for its workers."""
    times: list[float] = []
    look = module.fit_workers

    def counted(*arguments: Any) -> dict[str, Any]:
        times.append(time.monotonic())
        return look(*arguments)

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
    answers = iter([{}, {"tcp://10.0.0.1:1": {"host": "10.0.0.1"}}])
    monkeypatch.setattr(module, "fit_workers", lambda *_: next(answers, {}))
    notes: list[str] = []
    with open_cluster(ClusterSpec(name="one", processes=1), on_note=notes.append) as cluster:
        assert (cluster.workers, cluster.peers) == (1, 1)
    assert [note.split(" worker")[0] for note in notes] == ["cluster 'one': waiting for a"]
