"""Extraction by the workers of a Dask cluster: the same store as by one process, whatever happens to the workers."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster, Worker

from pipeline.extraction import Extraction
from pipeline.object_path import StoreUnavailable
from tests.conftest import REPOSITORY
from tests.flows.test_ends import Terminal, Workplace, type_control_c, wait_for_ledgers
from tests.test_kill import check, published_files, wait_until_gone

CLUSTERS = """
clusters:
  two: {{processes: 2}}
  running: {{address: "{address}", resources: {{GPU: 1}}}}
  demanding: {{address: "{address}", resources: {{TPU: 1}}}}
  nobody: {{address: "tcp://127.0.0.1:9"}}
"""


@pytest.fixture(scope="module")
def gpus(tmp_path_factory) -> Iterator[LocalCluster]:
    """Two workers of four threads and one GPU each: only the resource keeps a second task out."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), path)))
    with LocalCluster(
        n_workers=2,
        threads_per_worker=4,
        resources={"GPU": 1},
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        local_directory=str(tmp_path_factory.mktemp("dask")),
    ) as cluster:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
        yield cluster


@pytest.fixture(scope="module")
def place(gpus, data_root, tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("clusters"), data_root, every=5)
    catalog = place.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address=gpus.scheduler_address))
    return place


def extract(place: Workplace, home: Path, cluster: str) -> Terminal:
    """`dynaprop extract` in a terminal, at its beginning."""
    command = [sys.executable, "-m", "flows.cli", "extract", "killed", "--cluster", cluster]
    return Terminal(command, environment={**place.environment, "DYNAPROP_HOME": str(home)}, folder=place.folder)


def executing(dask_worker: Worker) -> int:
    """Tasks that a worker is running."""
    return dask_worker.state.executing_count


def test_two_workers_with_a_gpu_each_make_the_same_store(place, gpus, tmp_path):
    terminal = extract(place, tmp_path, "running")
    seen: set[tuple[int, ...]] = set()
    with Client(gpus) as client:
        while terminal.process.poll() is None:
            seen.add(tuple(sorted(client.run(executing).values())))
            time.sleep(0.02)
    code, shown = terminal.finish()
    assert code == 0, shown
    assert "by 2 workers of cluster 'running'" in shown
    assert re.search(r"this run decoded (\d+) videos", shown)[1] == str(len(list(place.root.rglob("*.avi"))))
    assert (1, 1) in seen, "both worked at the same time"
    assert max(map(max, seen)) == 1, "one task at a time"
    check(place.root, tmp_path, place.undisturbed)
    place.check_nothing_is_left(terminal, set(Path("/dev/shm").iterdir()))


def test_a_worker_that_is_killed_half_way_changes_nothing(place, gpus, tmp_path):
    terminal = extract(place, tmp_path, "running")
    wait_for_ledgers(tmp_path, terminal, 2)
    with Client(gpus) as client:
        victim = psutil.Process(next(iter(client.run(os.getpid).values())))
    children = victim.children(recursive=True)
    assert children, "its decode children"
    before = published_files(tmp_path)
    victim.kill()
    code, shown = terminal.finish()
    assert code == 0, shown
    after = published_files(tmp_path)
    assert before.items() <= after.items() and len(before) < len(after)
    check(place.root, tmp_path, place.undisturbed)
    place.check_nothing_is_left(terminal, set(Path("/dev/shm").iterdir()))
    assert psutil.wait_procs(children, timeout=10)[1] == [], "they end with the worker"


def test_control_c_ends_the_workers_that_were_started_and_the_same_command_goes_on(place, tmp_path):
    shared = set(Path("/dev/shm").iterdir())
    terminal = extract(place, tmp_path, "two")
    wait_for_ledgers(tmp_path, terminal, 2)
    type_control_c(terminal)
    code, shown = terminal.finish()
    assert code == 130, shown
    assert "Traceback" not in shown and "rror" not in shown
    place.check_nothing_is_left(terminal, shared)
    before = published_files(tmp_path)
    terminal = extract(place, tmp_path, "two")
    code, shown = terminal.finish()
    assert code == 0, shown
    assert before.items() <= published_files(tmp_path).items(), "a published shard was written again"
    check(place.root, tmp_path, place.undisturbed)
    place.check_nothing_is_left(terminal, shared)


def test_a_command_that_is_killed_leaves_no_worker(place, tmp_path):
    terminal = extract(place, tmp_path, "two")
    wait_for_ledgers(tmp_path, terminal, 1)
    terminal.process.kill()
    terminal.finish()
    wait_until_gone(terminal.process.pid)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ("nobody", "error: cluster 'nobody': no Dask scheduler answers at tcp://127.0.0.1:9; start one with"),
        ("demanding", "error: cluster 'demanding': none of its 2 workers has TPU=1; start them with"),
    ],
)
def test_no_such_workers(prefect_server, dynaprop, workplace, gpus, monkeypatch, cluster, expected):
    monkeypatch.setattr("flows.cluster._ANSWER", 0.5)
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address=gpus.scheduler_address))
    done = dynaprop("extract", "tiny", "--cluster", cluster)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(expected)
    assert dynaprop("extract", "tiny").code == 0, "the lock was given back"


def test_a_gpu_cluster_without_its_package(prefect_server, dynaprop, workplace, monkeypatch, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "clusters: {gpus: {cuda: true}}\n")
    done = dynaprop("extract", "tiny", "--cluster", "gpus")
    assert (done.code, "pip install dask-cuda" in done.err) == (2, True)
    assert list(temporary.glob("dynaprop-*")) == []


@pytest.mark.parametrize("cluster", ["inline", "two"])
def test_a_store_that_does_not_answer_is_tried_again_and_a_broken_video_is_not(
    prefect_server, dynaprop, workplace, monkeypatch, cluster
):
    (workplace / "videos" / "a" / "broken.mp4").write_bytes(b"no video")
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address="tcp://127.0.0.1:9"))
    calls = []
    read = Extraction.check_lock

    def flaky(self: Extraction) -> None:
        calls.append(self)
        if len(calls) == 4:
            raise StoreUnavailable("the store is away")
        read(self)

    monkeypatch.setattr(Extraction, "check_lock", flaky)
    done = dynaprop("extract", "tiny", "--cluster", cluster)
    assert done.code == 0, done.err
    assert re.search(r"extract shard 00\d\d \(\d videos\): the store is away; it is tried again", done.err)
    assert "features: 15 of 16 videos; this run decoded 15 videos" in done.err.replace("\n", " ")
