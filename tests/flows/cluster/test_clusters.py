"""Extraction by the workers of a Dask cluster: the same store as by one process, whatever happens to the workers."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest
from distributed import Client, Worker

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract import worker as shard_worker
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.remote import RemoteExtraction
from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.reaching import StoreUnavailable
from tests.conftest import REPOSITORY
from tests.flows.test_ends import Terminal, Workplace, type_control_c, wait_for_ledgers
from tests.test_kill import check, published_files, random_moments, wait_until_gone

CLUSTERS = """
clusters:
  two: {{processes: 2}}
  running: {{address: "{address}", resources: {{GPU: 1}}}}
  demanding: {{address: "{address}", resources: {{TPU: 1}}}}
  nobody: {{address: "tcp://127.0.0.1:9"}}
"""

# A scheduler that has no dynaprop.
SCHEDULER = """
import sys
sys.modules.update(pipeline=None, heads=None, flows=None)
from distributed.cli.dask_scheduler import main
main()
"""


@pytest.fixture(scope="module")
def gpus(tmp_path_factory) -> Iterator[str]:
    """Address of two workers of four threads and one GPU each: only the resource keeps a second task out."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    connection = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = [sys.executable, "-c", SCHEDULER, *connection, "--port", "0"]
    worker = [
        sys.executable,
        *["-m", "dask", "worker", *connection, "--nworkers", "2", "--nthreads", "4", "--resources", "GPU=1"],
        *["--local-directory", str(folder)],
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with ExitStack() as stack:
        for command in (scheduler, worker):
            process = subprocess.Popen(command, cwd=folder, env=environment, stderr=(folder / "log").open("a"))
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
        end = time.monotonic() + 120
        while not file.exists() or not file.read_text():
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        with Client(address) as client:
            client.wait_for_workers(2, timeout=120)
        yield address


@pytest.fixture(scope="module")
def place(gpus, data_root, tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("clusters"), data_root, every=5)
    catalog = place.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address=gpus))
    return place


@pytest.fixture
def home(place, request) -> Path:
    """Below the place, which is looked through for what a command leaves."""
    return place.folder / request.node.name


@pytest.fixture
def shared() -> set[Path]:
    """Shared memory before a test."""
    return set(Path("/dev/shm").iterdir())


def extract(place: Workplace, home: Path, cluster: str) -> Terminal:
    """`dynaprop extract` in a terminal, at its beginning."""
    command = [sys.executable, "-m", "dynaprop.flows.cli", "extract", "killed", "--cluster", cluster]
    return Terminal(command, environment={**place.environment, "DYNAPROP_HOME": str(home)}, folder=place.folder)


def executing(dask_worker: Worker) -> int:
    """Tasks that a worker is running."""
    return dask_worker.state.executing_count


def test_two_workers_with_a_gpu_each_make_the_same_store(place, gpus, home, shared):
    terminal = extract(place, home, "running")
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
    check(place.root, home, place.undisturbed)
    place.check_nothing_is_left(terminal, shared)


def test_a_worker_that_is_killed_half_way_changes_nothing(place, gpus, home):
    terminal = extract(place, home, "running")
    wait_for_ledgers(home, terminal, 2)
    with Client(gpus) as client:
        victim = psutil.Process(next(iter(client.run(os.getpid).values())))
    children = victim.children(recursive=True)
    assert children, "its decode children"
    before = published_files(home)
    victim.kill()
    code, shown = terminal.finish()
    assert code == 0, shown
    after = published_files(home)
    assert before.items() <= after.items() and len(before) < len(after)
    check(place.root, home, place.undisturbed)
    # The worker that took its place has semaphores of its own.
    place.check_nothing_is_left(terminal, set(Path("/dev/shm").iterdir()))
    assert psutil.wait_procs(children, timeout=10)[1] == [], "they end with the worker"


def test_control_c_ends_the_workers_that_were_started_and_the_same_command_goes_on(place, home, shared):
    terminal = extract(place, home, "two")
    wait_for_ledgers(home, terminal, 2)
    type_control_c(terminal)
    code, shown = terminal.finish()
    assert code == 130, shown
    assert "Traceback" not in shown and "rror" not in shown
    place.check_nothing_is_left(terminal, shared)
    before = published_files(home)
    terminal = extract(place, home, "two")
    code, shown = terminal.finish()
    assert code == 0, shown
    assert before.items() <= published_files(home).items(), "a published shard was written again"
    check(place.root, home, place.undisturbed)
    place.check_nothing_is_left(terminal, shared)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_control_c_while_the_workers_start_leaves_nothing(place, home, shared):
    chance = random_moments()
    for attempt in range(8):
        terminal = extract(place, home / str(attempt), "two")
        while not list((place.folder / "temporary").glob("dynaprop-dask-*")):
            assert terminal.process.poll() is None, terminal.finish()
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 2) if attempt else 0)
        type_control_c(terminal)
        code, shown = terminal.finish()
        assert code == 130, shown
        assert "Traceback" not in shown and "rror" not in shown
        place.check_nothing_is_left(terminal, shared)


def write_without_end(work: RemoteExtraction, shard: int, videos: pd.DataFrame, *, fails: bool = False) -> None:
    """In a worker: the first writes a file for ever; the others do so, too, or fail beside it."""
    folder = Path(work.store, "written")
    try:
        folder.mkdir()
    except FileExistsError:
        while not list(folder.glob(".*.partial")):
            time.sleep(0.05)
        if fails:
            raise DynapropError("the disk is full") from None
    with published(folder / "file"):
        time.sleep(100)


def test_control_c_while_a_worker_writes_leaves_no_half_written_file(place, home, shared):
    program = (
        "from dynaprop.pipeline.extract import worker as shard_worker\n"
        "from tests.flows.cluster.test_clusters import write_without_end\n"
        "shard_worker.extract_shard = write_without_end\n"
        "from dynaprop.flows import cli\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", program, "extract", "killed", "--cluster", "two"]
    terminal = Terminal(command, environment={**place.environment, "DYNAPROP_HOME": str(home)}, folder=place.folder)
    end = time.monotonic() + 120
    while not list(home.rglob("written/*.partial")):
        assert time.monotonic() < end and terminal.process.poll() is None, terminal.shown
        time.sleep(0.05)
    began = time.monotonic()
    type_control_c(terminal)
    code, shown = terminal.finish()
    assert code == 130, shown
    print(f"ended after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 10, "about a second on a machine that is not busy"
    place.check_nothing_is_left(terminal, shared)


def test_a_failure_while_a_worker_writes_leaves_no_half_written_file(prefect_server, dynaprop, workplace, monkeypatch):
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address="tcp://127.0.0.1:9"))
    monkeypatch.setattr(
        "dynaprop.flows.cluster.extraction.shard_worker.extract_shard", partial(write_without_end, fails=True)
    )
    done = dynaprop("extract", "tiny", "--cluster", "two")
    assert (done.code, done.err.splitlines()[-1]) == (1, "error: the disk is full")
    assert list(workplace.rglob("written")) and list(workplace.rglob("*.partial")) == []
    assert list(workplace.rglob("lock.json")) == []


def test_a_command_that_is_killed_leaves_no_worker(place, home):
    terminal = extract(place, home, "two")
    wait_for_ledgers(home, terminal, 1)
    terminal.process.kill()
    terminal.finish()
    wait_until_gone(terminal.process.pid)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ("nobody", "error: cluster 'nobody': no Dask scheduler answers at tcp://127.0.0.1:9; start one with"),
        ("demanding", "error: cluster 'demanding': no worker with TPU=1 has come in 1 s; start some with"),
    ],
)
def test_no_such_workers(prefect_server, dynaprop, workplace, gpus, monkeypatch, cluster, expected):
    monkeypatch.setattr("dynaprop.flows.cluster.start.ANSWER", 0.5)
    monkeypatch.setattr("dynaprop.flows.cluster.start.FIRST_WORKER", 1)
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address=gpus))
    done = dynaprop("extract", "tiny", "--cluster", cluster)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(expected)
    assert ("probe: " in done.err) == (cluster != "nobody"), "a scheduler is asked before videos are looked at"
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


def test_a_worker_that_sees_no_videos_is_left_out(prefect_server, dynaprop, workplace, monkeypatch, tmp_path_factory):
    """Of two, one is in a place of its own, where the videos' folder is another one's name."""
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address="tcp://127.0.0.1:9"))
    mark = tmp_path_factory.mktemp("unfit") / "mark"
    monkeypatch.setattr("dynaprop.flows.cluster.extraction.shard_worker.extract_shard", partial(refuse_once, mark))
    done = dynaprop("extract", "tiny", "--cluster", "two")
    assert done.code == 0, done.err
    assert "cluster 'two': a worker is left out: worker" in done.err
    assert "sees no folder" in done.err
    assert "features: 15 of 15 videos; this run decoded 15 videos" in done.err.replace("\n", " ")


def refuse_once(mark: Path, work: RemoteExtraction, shard: int, videos: pd.DataFrame) -> ShardResult:
    """In a worker: the first that comes here sees no videos, now and whenever it is asked."""
    with suppress(FileExistsError), mark.open("x") as file:
        file.write(str(os.getpid()))
    if mark.read_text() in ("", str(os.getpid())):
        work = replace(work, root="/nowhere")
    return shard_worker.extract_shard(work, shard, videos)


@pytest.mark.parametrize("cluster", ["inline", "two"])
def test_a_store_that_does_not_answer_is_tried_again_and_a_broken_video_is_not(
    prefect_server, dynaprop, workplace, monkeypatch, cluster
):
    (workplace / "videos" / "a" / "broken.mp4").write_bytes(b"no video")
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address="tcp://127.0.0.1:9"))
    calls = []
    read = Extraction.check_lock

    def flaky(self: Extraction, *, writes: bool = True) -> None:
        calls.append(writes)
        if len(calls) == 4:
            raise StoreUnavailable("the store is away")
        read(self, writes=writes)

    monkeypatch.setattr(Extraction, "check_lock", flaky)
    done = dynaprop("extract", "tiny", "--cluster", cluster)
    assert done.code == 0, done.err
    assert re.search(r"extract shard 00\d\d \(\d videos\): the store is away; it is tried again", done.err)
    assert (False in calls) == (cluster == "two"), "who hands out a shard writes nothing"
    assert "features: 15 of 16 videos; this run decoded 15 videos" in done.err.replace("\n", " ")


def test_a_failure_does_not_wait_for_the_tries_of_other_shards(prefect_server, dynaprop, workplace, monkeypatch):
    catalog = workplace / "catalog.yaml"
    catalog.write_text(catalog.read_text() + CLUSTERS.format(address="tcp://127.0.0.1:9"))
    monkeypatch.setattr("dynaprop.flows.extract_features.extract_shard.retry_delay_seconds", [0.5, 30.0, 0.0, 0.0, 0.0])
    tries: list[int] = []
    failed: list[float] = []
    read = Extraction.check_lock

    def flaky(self: Extraction, *, writes: bool = True) -> None:
        if threading.current_thread() is threading.main_thread():  # not of a shard
            return read(self, writes=writes)
        if not tries or tries[0] == threading.get_ident():
            tries.append(threading.get_ident())
            raise StoreUnavailable("the store is away")
        while len(tries) < 2:
            time.sleep(0.05)
        time.sleep(1)  # now it waits for its third try
        failed.append(time.monotonic())
        raise DynapropError("the disk is full")

    monkeypatch.setattr(Extraction, "check_lock", flaky)
    done = dynaprop("extract", "tiny", "--cluster", "two")
    assert time.monotonic() - failed[0] < 10, "about a second on a machine that is not busy"
    assert (done.code, done.err.splitlines()[-1]) == (1, "error: the disk is full")
    assert done.err.count("the store is away; it is tried again") == 2
    assert len(tries) == 2
