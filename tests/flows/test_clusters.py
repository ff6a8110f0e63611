"""Extraction by the workers of a Dask cluster: the same store as by one process, whatever happens to the workers."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster, Worker

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
        dashboard_address=None,
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
    check_resumes(place, tmp_path)


def check_resumes(place: Workplace, home: Path) -> None:
    """A killed extraction goes on, in one process."""
    before = published_files(home)
    code, shown = extract(place, home, "inline").finish()
    assert code == 0, shown
    assert before.items() <= published_files(home).items(), "a published shard was written again"
    check(place.root, home, place.undisturbed)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ("nobody", "error: cluster 'nobody': no Dask scheduler answers at tcp://127.0.0.1:9; start one with"),
        ("demanding", "error: cluster 'demanding': none of its 2 workers has TPU=1; start them with"),
    ],
)
def test_no_such_workers(place, tmp_path, cluster, expected):
    code, shown = extract(place, tmp_path, cluster).finish()
    assert code == 1, shown
    assert expected in " ".join(shown.split())
    assert "Traceback" not in shown
