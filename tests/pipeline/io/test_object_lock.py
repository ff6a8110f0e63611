"""The lock's record in object stores: swapped like the local one, by whatever the store offers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io import object_lock as object_lock_record
from dynaprop.pipeline.io.local_lock import LocalLockRecord, LockRecord, lock_record
from dynaprop.pipeline.io.lock import LockOwner, StoreLock
from dynaprop.pipeline.io.object_lock import S3LockRecord, UnconditionalLockRecord
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.reaching import StoreUnavailable

CONTENDERS, ROUNDS = 4, 5


@pytest.fixture(params=["disk", "s3", "s3 without conditions", "memory"])
def folder(request, tmp_path, monkeypatch) -> StoragePath:
    """Where a store's lock may lie."""
    monkeypatch.setattr(object_lock_record, "_PAUSE", 0.05)
    if request.param == "disk":
        return tmp_path
    if request.param == "memory":
        return ObjectPath("memory", (tmp_path.name, "store"))
    s3 = request.getfixturevalue("s3")
    s3.heeds_conditions = request.param == "s3"
    return s3.home


def lock(record: LockRecord, **options) -> StoreLock:
    return StoreLock(record, **{"name": "stores/x", "beat_every": 1e6, **options})


def test_which_record_for_which_place(tmp_path):
    assert isinstance(lock_record(tmp_path), LocalLockRecord)
    assert isinstance(lock_record(ObjectPath("s3", ("b",))), S3LockRecord)
    assert isinstance(lock_record(ObjectPath("gs", ("b",))), UnconditionalLockRecord)


class TestSwap:
    def test_takes_only_what_is_as_expected(self, folder):
        record, other = lock_record(folder), lock_record(folder)
        assert record.read() == (None, "")
        first = record.swap(b"one", "")
        assert first is not None
        assert record.read()[0] == other.read()[0] == b"one"
        assert other.swap(b"two", "") is None
        assert other.swap(b"two", "another version") is None
        assert record.read()[0] == b"one"
        second = record.swap(b"three", first)
        assert second not in (None, first)
        assert other.swap(b"two", first) is None
        assert other.read()[0] == b"three"

    def test_what_was_taken_away_can_be_taken(self, folder):
        record, other = lock_record(folder), lock_record(folder)
        version = record.swap(b"one", "")
        assert record.swap(None, version) is not None
        content, free = other.read()
        assert content is None
        assert other.swap(b"two", free) is not None
        assert record.swap(b"three", free) is None
        assert record.read()[0] == b"two"

    def test_who_only_looks_sees_what_is_there(self, folder):
        record, other = lock_record(folder), lock_record(folder)
        assert other.content() is None
        version = record.swap(b"one", "")
        assert other.content() == b"one"
        assert record.swap(None, version) is not None
        assert other.content() is None

    def test_one_of_many_gets_it(self, folder, request):
        """Conditions decide at once; without them several may think so, and all but one find out at the next beat."""
        for number in range(ROUNDS):
            free = lock_record(folder).read()[1]
            barrier = threading.Barrier(CONTENDERS)

            def contend(who: int, *, free=free, barrier=barrier) -> tuple[LockRecord, str | None]:
                mine = lock_record(folder)
                barrier.wait()
                return mine, mine.swap(f"{who} since {free}".encode(), free)

            with ThreadPoolExecutor(CONTENDERS) as threads:
                won = [(record, version) for record, version in threads.map(contend, range(CONTENDERS)) if version]
            if "without conditions" not in request.node.name:
                assert len(won) == 1
            beats = [(record, record.swap(f"{number} beat".encode(), version)) for record, version in won]
            ((record, version),) = [(record, version) for record, version in beats if version]
            assert record.read()[0] == f"{number} beat".encode()
            assert record.swap(None, version) is not None


class TestLock:
    def test_the_second_is_refused_until_it_is_given_back(self, folder):
        with lock(lock_record(folder)) as held:
            with pytest.raises(DynapropError, match=r"stores/x is in use by process \d+ on .* give wait=True"):
                lock(lock_record(folder)).__enter__()
            held.check()
        with lock(lock_record(folder)) as again:
            assert not again.taken_over

    def test_who_lost_it_notices(self, folder):
        with lock(lock_record(folder)) as held:
            record = lock_record(folder)
            thief = replace(LockOwner.this_process(), pid=1, host="far", place="another boot")
            assert record.swap(thief.to_bytes(), record.read()[1]) is not None
            with pytest.raises(DynapropError, match="has lost its lock"):
                held.check()
        assert LockOwner.parse(lock_record(folder).read()[0]) == thief  # and takes nothing back from the other one

    def test_a_dead_owner_is_replaced(self, folder):
        record = lock_record(folder)
        dead = replace(LockOwner.this_process(), started="long ago")
        assert record.swap(dead.to_bytes(), "") is not None
        notes: list[str] = []
        with lock(lock_record(folder), on_note=notes.append) as held:
            assert held.taken_over
        assert any("took over from process" in note for note in notes)

    def test_where_the_store_puts_without_conditions_somebody_is_told(self, folder, request):
        notes: list[str] = []
        with lock(lock_record(folder), on_note=notes.append):
            pass
        unconditional = "without conditions" in request.node.name
        assert ["the lock cannot be sure here" in note for note in notes] == ([True] if unconditional else [])


def test_looking_takes_one_request_however_often_others_swap(s3):
    record = lock_record(s3.home)
    version = record.swap(b"0", "")
    beats = []

    def swap(method: str, _: str) -> None:
        nonlocal version
        if method == "GET":  # between any two requests of a reader
            beats.append(str(len(beats)).encode())
            version = record.swap(beats[-1], version)

    s3.requests.clear()
    s3.disturb = swap
    for _ in range(5):
        assert lock_record(s3.home).content() == beats[-1]
    assert [method for method, _ in s3.requests].count("GET") == 5 == len(beats)


class TestLostAnswers:
    @pytest.fixture
    def once(self, s3):
        """Lose the answer to so many of the next puts."""

        def lose(times: int) -> None:
            left = iter(["lose"] * times)
            s3.disturb = lambda method, _: next(left, None) if method == "PUT" else None

        return lose

    def test_a_put_that_the_client_repeats_is_ours(self, s3, once):
        record = lock_record(s3.home)
        once(1)
        version = record.swap(b"one", "")
        assert version is not None
        once(1)
        assert record.swap(b"two", version) is not None
        assert lock_record(s3.home).read()[0] == b"two"

    def test_a_put_that_seemed_to_fail_is_not_taken_for_anothers(self, s3, once):
        record = lock_record(s3.home)
        version = record.swap(b"one", "")
        once(100)
        with pytest.raises(StoreUnavailable):
            record.swap(b"two", version)
        once(0)
        assert lock_record(s3.home).read()[0] == b"two"
        assert record.swap(b"three", version) is not None  # the next beat, which knows no later version
        assert lock_record(s3.home).read()[0] == b"three"

    def test_but_what_another_wrote_since_is(self, s3, once):
        record = lock_record(s3.home)
        version = record.swap(b"one", "")
        once(100)
        with pytest.raises(StoreUnavailable):
            record.swap(b"two", version)
        once(0)
        other = lock_record(s3.home)
        assert other.swap(b"other", other.read()[1]) is not None
        assert record.swap(b"three", version) is None
        assert other.read()[0] == b"other"


def test_a_place_that_is_not_there(s3):
    with pytest.raises(DynapropError, match=r"nobucket/lock.json cannot be written: .*bucket does not exist"):
        lock(lock_record(ObjectPath("s3", ("nobucket",)))).__enter__()
