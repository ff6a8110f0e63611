"""The same store on a disk and in an object store: bytes, kills, torn writes, readers, and two at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from bench.plan import REQUESTS_A_SHARD
from dynaprop.heads.features.loaded import LoadedFeatures, load_features
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract import worker as shard_worker
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.parquet import parquet_source
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.reaching import StoreUnavailable
from dynaprop.pipeline.store.feature_store import list_stores
from dynaprop.pipeline.store.names import locate_backbone, open_store, store_path
from dynaprop.pipeline.store.repair import find_strays, remove_damaged_metadata
from dynaprop.pipeline.store.verify import verify_key
from tests import extract_process
from tests.conftest import REPOSITORY
from tests.pipeline.extract.test_dataset import STUDENT, TEACHER, extract, spec
from tests.pipeline.stand_ins import CHANNELS, Content, StandInBackbone, StandInPool
from tests.pipeline.videos import write_video

MAY_DIFFER = ["attempts", "seconds"]  # of a ledger's row
# With two branches, as the README says; those of a worker are in `bench.plan`.
REQUESTS_INLINE, CHECKS_A_SHARD, FIRST_OF_A_WORKER = 19, 5, 15


@pytest.fixture(scope="module", autouse=True)
def stand_ins() -> Iterator[None]:
    """Decoding and backbones take no time; a process of its own has real ones."""
    with ExitStack() as patches:
        for target, stand_in in (
            ("dynaprop.pipeline.extract.dataset.DecodePool", lambda **_: StandInPool()),
            ("dynaprop.pipeline.extract.worker.DecodePool", lambda **_: StandInPool()),
            ("dynaprop.pipeline.extract.worker._loaded", {}),
            ("dynaprop.pipeline.backbones.timm_networks.channels", lambda *_: CHANNELS),
            ("dynaprop.pipeline.backbones.backbone.FrameBackbone", StandInBackbone),
            ("dynaprop.pipeline.backbones.timm_networks.gmacs_per_frame", lambda *_: 0.0),
        ):
            patches.enter_context(mock.patch(target, stand_in))
        yield


def make_dataset(folder: Path) -> DatasetSpec:
    """Two videos a shard, three shards."""
    (folder / "videos" / "a").mkdir(parents=True)
    for index in range(6):
        Content(index, 8 + index % 2).write(folder / "videos" / "a" / f"{index}.mp4", time=index)
    return spec(folder / "videos")


@pytest.fixture(scope="module")
def disk(tmp_path_factory, stand_ins) -> Path:
    """A folder with videos, and below it the store that they are extracted into; only to be read."""
    folder = tmp_path_factory.mktemp("disk")
    extract(make_dataset(folder), folder)
    return folder


@pytest.fixture
def dataset(disk) -> DatasetSpec:
    return spec(disk / "videos")


@pytest.fixture
def key_names(disk, dataset) -> dict[str, str]:
    """Name of the feature key by branch."""
    keys = open_store(dataset, disk, read_only=True).keys()
    return {attributes["backbone"]: name for name, attributes in keys.items()}


def assert_same(dataset: DatasetSpec, one: StoragePath, other: StoragePath) -> None:
    """The same keys, descriptions, features byte for byte, manifests and ledgers."""
    stores = [open_store(dataset, home, read_only=True) for home in (one, other)]
    first, second = stores
    key_names = list(first.keys())
    assert first.keys() == second.keys()
    assert len(key_names) == 2
    assert dict(first.group.attrs) == dict(second.group.attrs)
    assert first.manifest().table.equals(second.manifest().table)
    for key in key_names:
        shards = first.ledger(key).published()
        assert shards == second.ledger(key).published() == set(range(first.manifest().n_shards))
        for shard in shards:
            assert first.map_shard(key, shard).tobytes() == second.map_shard(key, shard).tobytes()
        rows = [store.ledger(key).read().drop(columns=MAY_DIFFER) for store in stores]
        pd.testing.assert_frame_equal(*rows)
    assert [verify_key(second, key).problems for key in key_names] == [(), ()]


def load(dataset: DatasetSpec, home: StoragePath, *, key_names: dict[str, str]) -> LoadedFeatures:
    annotations = read_annotations(dataset)
    return load_features(
        open_store(dataset, home, read_only=True),
        annotations.videos,
        class_names=annotations.class_names,
        student_key=key_names["s"],
        teacher_key=key_names["t"],
    )


class TestTheSame:
    def test_in_s3(self, dataset, disk, key_names, s3):
        summary = extract(dataset, s3.home)
        assert (summary.usable, summary.failed, summary.decoded) == (6, {}, 6)
        assert summary.keys == key_names
        puts = [index for index, (method, path) in enumerate(s3.requests) if method == "PUT" and "/ledger/" in path]
        second = s3.requests[puts[1] : puts[3]]  # from the end of the first shard to that of the second
        checks = [path for _, path in second if path.endswith("lock.json")]
        assert len(checks) >= CHECKS_A_SHARD  # and a beat now and then
        assert len(second) - len(checks) == REQUESTS_INLINE - CHECKS_A_SHARD
        assert_same(dataset, disk, s3.home)
        assert len({load(dataset, home, key_names=key_names).digest for home in (disk, s3.home)}) == 1
        again = extract(dataset, s3.home)
        assert (again.decoded, again.forwarded) == (0, 0)

    def test_object_by_object(self, dataset, disk, s3):
        """What lies on the disk, and no more; the lock was given back."""
        extract(dataset, s3.home)
        root = store_path(dataset, disk)
        files = {str(path.relative_to(disk)) for path in root.rglob("*") if path.is_file()}
        lock = f"{root.relative_to(disk)}/lock.json"
        objects = s3.objects()
        assert objects.pop(lock) == b""
        assert objects.keys() == {name for name in files if not name.endswith(".lock.guard")}
        features = {name: data for name, data in objects.items() if "/features.zarr/" in name}
        assert features == {name: (disk / name).read_bytes() for name in features}
        assert [str(path) for path in list_stores(s3.home / "stores")] == [str(store_path(dataset, s3.home))]
        assert find_strays(store_path(dataset, s3.home)) == []

    def test_in_memory(self, dataset, disk, tmp_path):
        home = ObjectPath("memory", (tmp_path.name, "home"))
        extract(dataset, home)
        assert_same(dataset, disk, home)
        assert extract(dataset, home).decoded == 0

    def test_as_it_grows_shrinks_and_is_deleted(self, tmp_path, s3):
        """Arrays that are resized, tombstones, shards that are withdrawn, keys that are removed."""
        dataset = make_dataset(tmp_path)
        for home in (tmp_path, s3.home):
            extract(dataset, home)
        Content(6, 10).write(dataset.root / "a" / "new.mp4", time=6)
        Content(7, 12).write(dataset.root / "a" / "0.mp4", time=7)
        (dataset.root / "a" / "1.mp4").unlink()
        summaries = [extract(dataset, home) for home in (tmp_path, s3.home)]
        assert [summary.decoded for summary in summaries] == [2, 2]
        assert_same(dataset, tmp_path, s3.home)
        store = open_store(dataset, s3.home)
        gone, kept = store.keys()
        store.remove(gone)
        assert list(store.keys()) == [kept]
        assert not [name for name in s3.objects() if gone in name]
        assert verify_key(store, kept).problems == ()


def extract_by_a_worker(
    dataset: DatasetSpec, home: StoragePath, *, on_shard: Callable[[Extraction], None] = lambda _: None
) -> None:
    """As `dynaprop.flows.cluster.extraction` does, with a worker in this process.

    Args:
        dataset: the dataset.
        home: where its store goes.
        on_shard: called before each shard is handed out.
    """
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=(STUDENT, TEACHER), home=home, device="cpu"
    ) as extraction:
        plan = extraction.plan(extraction.changes())
        work = extraction.remote(device="cpu", peers=1)
        try:
            for shard in plan.shards:
                on_shard(extraction)
                extraction.check_lock(writes=False)
                assert shard_worker.extract_shard(work, shard, plan.manifest.shard(shard)).videos == 2
        finally:
            shard_worker.end(work.owner)


class TestWorker:
    def test_takes_as_many_requests_as_planned(self, dataset, disk, s3):
        """And no put of the lock, but for a beat now and then."""
        begins: list[int] = []
        extract_by_a_worker(dataset, s3.home, on_shard=lambda _: begins.append(len(s3.requests)))
        first, second = (
            [(method, path.endswith("lock.json")) for method, path in s3.requests[slice(*span)]]
            for span in pairwise(begins)
        )
        assert second.count(("GET", True)) == CHECKS_A_SHARD
        assert len(second) - second.count(("PUT", True)) == REQUESTS_A_SHARD
        assert len(first) - first.count(("PUT", True)) == REQUESTS_A_SHARD + FIRST_OF_A_WORKER
        assert second.count(("PUT", False)) == 4, "two chunks, two ledgers"
        assert_same(dataset, disk, s3.home)

    def test_reads_the_lock_however_often_it_is_swapped(self, dataset, disk, s3):
        """Before each of a worker's requests for it."""
        beats = []

        def disturb(extraction: Extraction) -> None:
            def beat(method: str, path: str) -> None:
                if method == "GET" and path.endswith("lock.json"):
                    extraction.check_lock()
                    beats.append(path)

            s3.disturb = beat

        extract_by_a_worker(dataset, s3.home, on_shard=disturb)
        assert len(beats) > 3 * CHECKS_A_SHARD
        s3.disturb = lambda _method, _path: None
        assert_same(dataset, disk, s3.home)


class TestKilled:
    def test_an_extraction_goes_on_and_a_second_one_is_refused(self, tmp_path, s3):
        """SIGKILL after a chunk was put and before its ledger; then somebody else in between. With real networks."""
        for index in range(15):
            write_video(tmp_path / "videos" / "a" / f"{index:02}.mp4", frames=30, seed=index)
        dataset = extract_process.dataset(tmp_path / "videos")
        assert self.run(tmp_path, tmp_path, s3) == 0
        student, teacher = (locate_backbone(backbone)[0].name for backbone in extract_process.BACKBONES)
        assert self.run(tmp_path, s3.home, s3, kill_at=f"{teacher}/000001.parquet") == -signal.SIGKILL
        store = open_store(dataset, s3.home, read_only=True)
        assert [store.ledger(key).published() for key in (student, teacher)] == [{0, 1}, {0}]
        assert [verify_key(store, key).problems for key in (student, teacher)] == [(), ()]
        assert json.loads((store.root / "lock.json").read_text())["beat"] > 0
        stopped, go_on = threading.Event(), threading.Event()

        def stop(method: str, path: str) -> None:
            if method == "PUT" and path.endswith("/c/2/0") and not stopped.is_set():
                stopped.set()
                go_on.wait(100)

        s3.disturb = stop
        with ThreadPoolExecutor(1) as threads:
            try:
                third = threads.submit(self.run, tmp_path, s3.home, s3)
                assert stopped.wait(100)
                with pytest.raises(DynapropError, match=r"is in use by process \d+ on .* give wait=True"):
                    extract(dataset, s3.home)
            finally:
                go_on.set()
            assert third.result() == 0
        assert_same(dataset, tmp_path, s3.home)

    @staticmethod
    def run(folder: Path, home: StoragePath, s3, *, kill_at: str | None = None) -> int:
        """Extract in a process of its own; it is killed when it puts an object of such an end, which is lost."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.extract_process", str(folder / "videos"), str(home)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            if kill_at is not None:

                def kill(method: str, path: str) -> str | None:
                    if method == "PUT" and path.endswith(kill_at):
                        os.killpg(process.pid, signal.SIGKILL)
                        return "refuse"
                    return None

                s3.disturb = kill
            return process.wait(timeout=100)
        finally:
            if kill_at is not None:
                s3.disturb = lambda _method, _path: None
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class TestTorn:
    @pytest.mark.parametrize(
        ("how", "end"),
        [
            ("refuse", "features.zarr/zarr.json"),
            ("refuse", "manifest.parquet"),
            ("refuse", "/c/1/0"),
            ("refuse", "/000001.parquet"),
            ("lose", "/000001.parquet"),
        ],
    )
    def test_a_put_that_fails_leaves_nothing_that_is_trusted(self, dataset, disk, s3, how, end):
        """A lost answer is a put that was carried out: then its shard may count, and is whole."""
        s3.disturb = lambda method, path: how if method == "PUT" and path.endswith(end) else None
        with pytest.raises(StoreUnavailable, match=r"^s3://features/home/stores/tiny/.*(refuses|does not answer)"):
            extract(dataset, s3.home)
        s3.disturb = lambda _method, _path: None
        if "zarr.json" not in end:
            store = open_store(dataset, s3.home)
            for key in list(store.keys()):
                assert store.ledger(key).published() <= {0, 1}
                assert verify_key(store, key).problems == ()
        assert extract(dataset, s3.home).usable == 6
        assert_same(dataset, disk, s3.home)

    def test_what_reads_back_differently_is_not_published(self, dataset, s3):
        def change(method: str, path: str) -> None:
            if method == "GET" and path.endswith("/c/0/0"):
                name = path.removeprefix("/features/home/")
                s3.disturb = lambda _method, _path: None
                s3.put(name, bytes(len(s3.objects()[name])))

        s3.disturb = change
        with pytest.raises(DynapropError, match="reads back differently from what was written"):
            extract(dataset, s3.home)
        assert not [name for name in s3.objects() if "/ledger/" in name]

    def test_a_store_that_is_away_is_not_damaged(self, dataset, key_names, s3):
        """Nothing is reported as a problem, and so nothing is repaired away."""
        extract(dataset, s3.home)
        for away in ("/ledger/", "/c/", "zarr.json"):
            s3.disturb = lambda _method, path, away=away: "refuse" if away in path else None
            with pytest.raises(StoreUnavailable):
                verify_key(open_store(dataset, s3.home), key_names["s"])
            with pytest.raises(StoreUnavailable):
                load(dataset, s3.home, key_names=key_names)
        with pytest.raises(StoreUnavailable):  # where the descriptions are what cannot be read
            remove_damaged_metadata(store_path(dataset, s3.home))


class TestReading:
    def test_chunks_are_read_side_by_side(self, dataset, key_names, s3):
        """The server answers none of a branch's three before all are asked for."""
        extract(dataset, s3.home)
        together = threading.Barrier(3)

        def wait(method: str, path: str) -> None:
            if method == "GET" and "/c/" in path:
                together.wait(20)

        s3.disturb = wait
        assert len(load(dataset, s3.home, key_names=key_names).split) == 6

    def test_the_index_is_one_object_and_follows_the_ledger(self, dataset, key_names, s3):
        extract(dataset, s3.home)
        store = open_store(dataset, s3.home, read_only=True)
        folder = store.ledger(key_names["s"]).folder
        rows = store.ledger(key_names["s"]).read()
        s3.requests.clear()
        pd.testing.assert_frame_equal(store.ledger(key_names["s"]).read(), rows)
        assert [path.rpartition("/")[2] for _, path in s3.requests] == ["features", f"{folder.name}.parquet"]
        changed = pd.read_parquet(parquet_source(folder / "000001.parquet")).assign(decoder="other")
        with published(folder / "000001.parquet") as temporary:
            changed.to_parquet(temporary, index=False)
        assert set(store.ledger(key_names["s"]).read()["decoder"]) > {"other"}

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (lambda data: data[:-2], "its features take"),
            (lambda data: b"\1\1" + data[2:], "the features' checksum differs"),
            (lambda data: None, "its features are gone"),
        ],
    )
    def test_a_chunk_that_is_not_what_was_written_is_no_feature(self, dataset, key_names, s3, change, wrong):
        extract(dataset, s3.home)
        name = next(name for name in s3.objects() if key_names["t"] in name and name.endswith("/c/1/0"))
        data = change(s3.objects()[name])
        if data is None:
            (s3.home / name).unlink()
        else:
            s3.put(name, data)
        check = verify_key(open_store(dataset, s3.home, read_only=True), key_names["t"])
        assert check.bad_shards == (1,)
        assert all(wrong in problem for problem in check.problems)
        with pytest.raises(DynapropError, match=f"shard 1 of {key_names['t']} is damaged"):
            load(dataset, s3.home, key_names=key_names)
