"""The lock of a store: one owner, whatever dies, sleeps or comes back; against a clock that the tests turn."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from dynaprop.pipeline.annotations import Annotations, read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.io import lock as lock_module
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import STALE_AFTER, LockOwner, StoreLock
from dynaprop.pipeline.store.names import open_store, store_path
from tests.conftest import REPOSITORY
from tests.pipeline.extract.test_dataset import STUDENT, TEACHER, extract, spec
from tests.pipeline.videos import write_video

NOTHING = Annotations(videos=(), class_names=())
NEVER = 1e6  # seconds between beats: the test gives them itself


class Clock:
    """A monotonic clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lock_module, "time", clock)
    return clock


@pytest.fixture
def dataset(tmp_path) -> DatasetSpec:
    for index in range(3):
        write_video(tmp_path / "videos" / "a" / f"{index}.mp4", seed=index)
    return spec(tmp_path / "videos")


@pytest.fixture
def record(tmp_path) -> LocalLockRecord:
    return LocalLockRecord(tmp_path / "store")


def lock(record: LocalLockRecord, **options) -> StoreLock:
    return StoreLock(record, **{"name": "stores/x", "beat_every": NEVER, **options})


def hold_elsewhere(record: LocalLockRecord, **fields) -> LockOwner:
    """Write the record of an owner on another machine."""
    owner = replace(LockOwner.this_process(), **{"host": "far", "place": "another boot", "pid": 1, **fields})
    assert record.swap(owner.to_bytes(), record.read()[1]) is not None
    return owner


def hold_in_a_process(record: LocalLockRecord) -> subprocess.Popen[str]:
    """A process that takes the lock and keeps it for as long as it lives."""
    code = (
        "import sys, time; from pathlib import Path; from dynaprop.pipeline.io.lock import StoreLock\n"
        "from dynaprop.pipeline.io.local_lock import LocalLockRecord\n"
        "with StoreLock(LocalLockRecord(Path(sys.argv[1])), name='x'): print('held', flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(record.path.parent)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


class TestOneOwner:
    def test_the_second_is_refused_and_told_by_whom(self, record):
        with lock(record):
            held = json.loads(record.path.read_text())
            assert (held["pid"], held["beat"]) == (os.getpid(), 0)
            with pytest.raises(
                DynapropError, match=rf"stores/x is in use by process {os.getpid()} on .* wait=True"
            ) as no:
                lock(record).__enter__()
            assert held["host"] in str(no.value) and held["since"] in str(no.value) and held["beat_at"] in str(no.value)
        assert not record.path.exists()
        with lock(record) as again:
            assert not again.taken_over

    @pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_it_is_given_back_on_every_way_out(self, record, end):
        with pytest.raises(end), lock(record):
            raise end
        assert not record.path.exists()

    def test_an_interrupt_just_after_it_was_taken_gives_it_back(self, record, monkeypatch):
        swap = record.swap

        def interrupted(new, expected):
            swap(new, expected)
            raise KeyboardInterrupt

        monkeypatch.setattr(record, "swap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock(record).__enter__()
        assert not record.path.exists()

    def test_who_waits_is_told_for_whom_and_goes_on(self, record, clock):
        notes: list[str] = []
        first = lock(record).__enter__()
        clock.on_sleep = first.__exit__
        with lock(record, wait=True, on_note=notes.append) as second:
            second.check()
            assert not second.taken_over
        (note,) = notes
        assert note.startswith(f"stores/x: waiting for process {os.getpid()} on ")

    def test_handing_out_swaps_no_more_often_than_the_heart(self, record, clock):
        """Workers read the record before each write: who swaps for every shard keeps them from it."""

        def beat() -> int:
            return json.loads(record.path.read_text())["beat"]

        with lock(record, beat_every=5) as held:
            held.check()
            assert beat() == 1, "before a write of its own"
            for _ in range(50):
                held.check(writes=False)
            assert beat() == 1
            clock.now += 5
            held.check(writes=False)
            held.check(writes=False)
            assert beat() == 2
            hold_elsewhere(record)
            clock.now += 5
            for _ in range(2):
                with pytest.raises(DynapropError, match="has lost its lock"):
                    held.check(writes=False)

    def test_of_many_swaps_at_once_none_is_lost(self, record):
        """A counter under compare-and-swap; every lost update would lower it."""

        def count() -> None:
            for _ in range(25):
                while True:
                    content, version = record.read()
                    if record.swap(str(int(content or 0) + 1).encode(), version) is not None:
                        break

        threads = [threading.Thread(target=count) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert record.read()[0] == b"150"

    def test_a_process_that_dies_in_the_middle_of_a_swap_leaves_the_old_record(self, record):
        version = record.swap(b"old", "")
        code = (
            "import os, sys; from pathlib import Path; from dynaprop.pipeline.io.local_lock import *\n"
            "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
            "LocalLockRecord(Path(sys.argv[1])).swap(b'new', sys.argv[2])"
        )
        command = [sys.executable, "-c", code, str(record.path.parent), version]
        assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}).returncode == -signal.SIGKILL
        assert record.read() == (b"old", version)
        newer = record.swap(b"newer", version)
        assert record.swap(None, newer) == ""
        assert [path.name for path in record.path.parent.iterdir()] == [".lock.guard"]


class TestTakingOver:
    def test_a_killed_owner_of_this_machine_is_replaced_at_once(self, record, clock):
        process = hold_in_a_process(record)
        with pytest.raises(DynapropError, match=f"process {process.pid} "):
            lock(record).__enter__()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie still
        notes: list[str] = []
        with lock(record, on_note=notes.append) as taken:
            assert taken.taken_over
        assert f"took over from process {process.pid}" in notes[0]
        assert clock.now == 1000  # nobody has waited
        process.communicate()

    def test_another_process_of_the_same_id_is_not_the_owner(self, record):
        owner = LockOwner.this_process()
        record.swap(replace(owner, started=str(int(owner.started) - 1)).to_bytes(), "")
        with lock(record) as taken:
            assert taken.taken_over

    def test_of_another_machine_only_its_silence_counts(self, record, clock):
        """Its process id means nothing here, nor does its clock."""
        for wait in (False, True):
            began = clock.now
            hold_elsewhere(record, pid=2**22 + 1, beat_at="1970-01-01 00:00:00 UTC")
            with lock(record, wait=wait) as taken:
                assert taken.taken_over
            assert STALE_AFTER <= clock.now - began <= STALE_AFTER + 2

    def test_an_owner_on_another_machine_that_beats_is_not_disturbed(self, record, clock):
        owner = hold_elsewhere(record)
        notes: list[str] = []
        clock.on_sleep = lambda: record.swap(replace(owner, beat=owner.beat + 1).to_bytes(), record.read()[1])
        with pytest.raises(DynapropError, match="in use by process 1 on far since"):
            lock(record, on_note=notes.append).__enter__()
        assert clock.now - 1000 <= 2
        (note,) = notes
        assert "looking up to 30 s for a sign of life of process 1 on far" in note

    def test_an_owner_that_beats_is_waited_for(self, record, clock):
        owner = hold_elsewhere(record)
        slept = 0

        def beat_for_an_hour() -> None:
            nonlocal slept
            slept += 1
            if slept % 20 == 0:
                record.swap(replace(owner, beat=slept).to_bytes(), record.read()[1])
            if slept == 3600:
                record.swap(None, record.read()[1])

        clock.on_sleep = beat_for_an_hour
        with lock(record, wait=True) as waited:
            assert not waited.taken_over
        assert clock.now - 1000 >= 3600

    def test_a_damaged_record_is_nobodys_after_a_while(self, record, clock):
        for content in (b"", b"noise", b"[]", b"{}", b'{"pid": 1}'):
            record.swap(content, record.read()[1])
            began = clock.now
            with lock(record) as taken:
                assert taken.taken_over
            assert clock.now - began >= STALE_AFTER

    def test_who_was_suspended_finds_the_lock_lost_and_leaves_the_new_owner_alone(self, record, clock, monkeypatch):
        with lock(record) as first:
            first.check()
            with lock(record, wait=True) as second:  # alive, but silent
                assert second.taken_over
                with pytest.raises(DynapropError, match="has lost its lock"):
                    first.check()
                with pytest.raises(DynapropError, match="has lost its lock"):
                    first.check()
                first.__exit__()
                second.check()
        assert not record.path.exists()

    def test_the_heart_goes_on_when_a_network_disk_does(self, record, monkeypatch):
        """Its flock fails like any other call."""
        refused = threading.Event()

        def away(*_) -> None:
            refused.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with lock(record, beat_every=0.001) as held:
            with monkeypatch.context() as patch:
                patch.setattr("fcntl.flock", away)
                assert refused.wait(10)
                with pytest.raises(InfrastructureError, match="Input/output error"):
                    held.check()
            before = json.loads(record.path.read_text())["beat"]
            while json.loads(record.path.read_text())["beat"] < before + 2:
                assert held._heart.is_alive()

    def test_the_heart_beats_by_itself(self, record):
        with lock(record, beat_every=0.001):
            while json.loads(record.path.read_text())["beat"] < 3:
                pass


class TestExtraction:
    def test_a_second_extraction_is_refused_before_it_reads_anything(self, dataset, tmp_path, monkeypatch):
        with StoreLock(LocalLockRecord(store_path(dataset, tmp_path)), name="x"):
            monkeypatch.setattr(
                "dynaprop.pipeline.decoding.pool.DecodePool.__init__", lambda *_, **__: pytest.fail("a probe")
            )
            with pytest.raises(DynapropError, match="is in use by process"):
                extract(dataset, tmp_path)
        assert not open_store(dataset, tmp_path).manifest_path.exists()

    def test_a_dry_run_and_readers_need_no_lock(self, dataset, tmp_path):
        with (
            StoreLock(LocalLockRecord(store_path(dataset, tmp_path)), name="x"),
            Extraction(
                dataset=dataset, annotations=NOTHING, backbones=[STUDENT], home=tmp_path, workers=1, dry_run=True
            ) as work,
        ):
            with pytest.raises(RuntimeError, match="does not write"):
                work.check_lock()
            assert open_store(dataset, tmp_path).manifest().shards() == []

    def test_who_lost_the_lock_saves_no_manifest_and_publishes_no_shard(self, dataset, tmp_path):
        record = LocalLockRecord(store_path(dataset, tmp_path))

        def rob(*_) -> None:
            hold_elsewhere(record)

        def work() -> Extraction:
            return Extraction(
                dataset=dataset,
                annotations=read_annotations(dataset),
                backbones=[STUDENT, TEACHER],
                home=tmp_path,
                device="cpu",
                workers=1,
            )

        store = open_store(dataset, tmp_path)
        with work() as robbed, pytest.raises(DynapropError, match="has lost its lock"):
            robbed.plan(robbed.changes(), on_video=rob)
        assert not store.manifest_path.exists()
        record.swap(None, record.read()[1])
        with work() as robbed:
            plan = robbed.plan(robbed.changes())
            with pytest.raises(DynapropError, match="has lost its lock"):
                robbed.extract_shard(next(iter(plan.shards)), on_clips=rob)
        assert not list(store.root.rglob("ledger/*/*"))
        assert not list(store.root.rglob("c/*/0"))
        assert LockOwner.parse(record.path.read_bytes()).host == "far"  # the robber's lock is left alone
        record.swap(None, record.read()[1])
        assert extract(dataset, tmp_path).usable == 3
