"""Shards extracted for an extraction that another process holds the lock of, and when a worker has to refuse."""

import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.fit import build_network
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UnfitWorker
from dynaprop.pipeline.extract import worker as shard_worker
from dynaprop.pipeline.extract.batches import ShardFeatures
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.extract.remote import RemoteExtraction
from dynaprop.pipeline.extract.shard import Extractor
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import Ledger
from dynaprop.pipeline.store.names import locate_backbone
from dynaprop.pipeline.store.verify import verify_key
from tests.pipeline.extract.test_dataset import STUDENT, TEACHER, extract, spec, videos
from tests.test_kill import published_files

__all__ = ["videos"]


@pytest.fixture
def extraction(videos, tmp_path) -> Iterator[Extraction]:
    """A planned extraction of six videos in several shards; whatever a test has left at work is ended."""
    dataset = spec(videos)
    with Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=(STUDENT, TEACHER),
        home=tmp_path / "home",
        device="cpu",
        workers=1,
    ) as extraction:
        extraction.plan(extraction.changes())
        yield extraction
        shard_worker.end(extraction.remote(device="cpu", peers=1).owner)


@pytest.fixture
def work(extraction) -> RemoteExtraction:
    return extraction.remote(device="cpu", peers=1)


def shards(extraction: Extraction) -> list[int]:
    return extraction.store.manifest().shards()


def run(extraction: Extraction, work: RemoteExtraction, shard: int) -> ShardResult:
    """As a worker does, when it is told the shard's videos."""
    return shard_worker.extract_shard(work, shard, extraction.store.manifest().shard(shard))


def ledgers(extraction: Extraction) -> int:
    store = FeatureStore.existing(extraction.store.root)
    return sum(len(store.ledger(key).published()) for key in extraction.key_names.values())


def test_the_store_is_the_same_and_what_is_done_is_not_done_again(extraction, work, videos, tmp_path):
    results = [run(extraction, work, shard) for shard in shards(extraction)]
    assert len(results) > 1
    assert sum(result.videos for result in results) == 6
    assert sum(result.frames for result in results) == 2 * sum(result.clips for result in results)
    again = [run(extraction, work, shard) for shard in shards(extraction)]
    assert [(result.videos, result.frames) for result in again] == [(0, 0)] * len(results)
    extract(spec(videos), tmp_path / "inline")
    root = extraction.store.root
    other = FeatureStore.existing(tmp_path / "inline" / root.relative_to(tmp_path / "home"))
    for key in extraction.key_names.values():
        for shard in shards(extraction):
            one, two = (np.array(store.read_shard(key, shard)) for store in (extraction.store, other))
            np.testing.assert_array_equal(one.view(np.uint16), two.view(np.uint16))


def test_backbones_and_decode_children_are_kept(extraction, work):
    first, second, *_ = shards(extraction)
    run(extraction, work, first)
    kept = shard_worker._kept
    run(extraction, work, second)
    assert shard_worker._kept is kept
    shard_worker.end(work.owner)
    assert shard_worker._kept is None


def test_commands_side_by_side_load_their_backbones_once(extraction, work, tmp_path, monkeypatch):
    """Their shards come to a worker in turns; store, lock and decode children are each one's own."""
    copy = tmp_path / "other"
    shutil.copytree(extraction.store.root, copy)
    other = replace(work, store=str(copy))
    loaded: list[str] = []
    load = FrameBackbone.__init__

    def count(self: FrameBackbone, **options: Any) -> None:
        loaded.append(options["key"].name)
        load(self, **options)

    monkeypatch.setattr(FrameBackbone, "__init__", count)
    monkeypatch.setattr(shard_worker, "_loaded", {}, raising=False)
    for shard in shards(extraction)[:2]:
        for each in (work, other):
            assert run(extraction, each, shard).videos
    assert sorted(loaded) == sorted(work.feature_keys)
    for key in work.feature_keys:
        one, two = (
            store.read_shard(key, 1).view(np.uint16) for store in (extraction.store, FeatureStore.existing(copy))
        )
        np.testing.assert_array_equal(one, two)


def test_backbones_of_a_few_recipes_are_kept(monkeypatch):
    monkeypatch.setattr(shard_worker, "_loaded", {})
    recipes = [(("a", "b"), "cpu", 2), (("a",), "cpu", 2), (("a", "b"), "cpu", 1), (("a", "b"), "cuda", 2)]
    first = shard_worker._backbones(*recipes[0])
    for recipe in recipes[1:]:
        assert shard_worker._backbones(*recipe) is not first
        if recipe == recipes[2]:
            assert shard_worker._backbones(*recipes[0]) is first
    assert list(shard_worker._loaded) == [recipes[2], recipes[0], recipes[3]], "the one that was used least lately went"


def test_an_idle_worker_gives_everything_back(extraction, work, monkeypatch):
    """Nobody says goodbye for a command that was killed."""
    first, second, *_ = shards(extraction)
    monkeypatch.setattr(shard_worker, "_loaded", {}, raising=False)
    monkeypatch.setattr(shard_worker, "_IDLE", 0.5, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    emptied = threading.Event()
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied.set)
    run(extraction, work, first)
    backbones = [weakref.ref(backbone) for backbone in shard_worker._kept.extractor._loaded.values()]
    child = psutil.Process(shard_worker._kept.pool._all[0].pid)
    assert emptied.wait(30)
    assert shard_worker._kept is None
    assert not any(backbone() for backbone in backbones), "their memory is free"
    assert not child.is_running()
    assert run(extraction, work, second).videos


def test_a_timer_that_rings_during_a_shard_disturbs_nothing(extraction, work, monkeypatch):
    """Neither that shard nor the next one has to load anything again."""
    monkeypatch.setattr(shard_worker, "_IDLE", 0.05)
    rung = threading.Event()
    give_back = shard_worker._give_back

    def ring() -> None:
        rung.set()
        give_back()

    monkeypatch.setattr(shard_worker, "_give_back", ring)
    with shard_worker._at_work:
        shard_worker._wait_idly()
        assert rung.wait(10), "and waits for the shard"
        timer = shard_worker._idle
        monkeypatch.setattr(shard_worker, "_IDLE", 300)
        kept = shard_worker._kept = shard_worker._Worker(work)
        shard_worker._wait_idly()
    timer.join(10)
    assert shard_worker._kept is kept
    assert run(extraction, work, shards(extraction)[0]).videos
    assert shard_worker._kept is kept


def test_a_worker_needs_no_manifest(extraction, work):
    """With a million videos it would take minutes and gigabytes, in each of them."""
    shard = shards(extraction)[0]
    told = extraction.store.manifest().shard(shard)
    away = extraction.store.manifest_path.with_suffix(".away")
    extraction.store.manifest_path.rename(away)
    assert shard_worker.extract_shard(work, shard, told).videos == len(told)
    away.rename(extraction.store.manifest_path)
    assert ledgers(extraction) == 2, "both branches"


def test_failures_come_back_by_video(extraction, work, videos):
    (videos / "a" / "0.mp4").write_bytes(b"gone since it was probed")
    results = [run(extraction, work, shard) for shard in shards(extraction)]
    failed = {video: error.kind for result in results for video, error in result.failed.items()}
    assert failed == {"a/0.mp4": "changed"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"root": "/nowhere/videos"}, "sees no folder /nowhere/videos: mount the videos there"),
        ({"feature_keys": ("other-1", "other-2")}, "has other weights, or another version of dynaprop"),
        ({"rules": 0}, "has another version of dynaprop, which may read other frames"),
        ({"device": "nonsense"}, "nonsense"),
        ({"store": "/nowhere/store"}, "sees no store /nowhere/store: it has to be on a shared disk"),
    ],
)
def test_a_worker_that_sees_something_else_refuses(extraction, work, changes, expected):
    with pytest.raises(UnfitWorker, match=expected):
        run(extraction, replace(work, **changes), 0)
    assert ledgers(extraction) == 0
    assert not Path("/nowhere").exists()


@pytest.mark.parametrize("when", ["before", "half-way"])
def test_a_disk_that_goes_away_makes_no_video_fail(extraction, work, videos, monkeypatch, when):
    """An unmounted disk leaves an empty folder: nothing is published, and nothing has failed."""
    away = videos.with_name("away")

    def unmount() -> None:
        videos.rename(away)
        videos.mkdir()

    shard = shards(extraction)[0]
    if when == "before":
        unmount()
    else:
        monkeypatch.setattr(Extractor, "_require_videos", _after(unmount, Extractor._require_videos))
    with pytest.raises(InfrastructureError, match="is their disk still mounted"):
        run(extraction, work, shard)
    assert ledgers(extraction) == 0
    monkeypatch.undo()
    videos.rmdir()
    away.rename(videos)
    assert run(extraction, work, shard).failed == {}


@pytest.mark.parametrize("what", ["videos", "store", "weights"])
def test_a_disk_that_a_worker_has_seen_may_come_back(extraction, work, videos, tmp_path, what):
    """Unmounted above the folder, it takes the folder with it; the worker stays fit, however often it is asked."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if what == "videos":
        shutil.copytree(videos, disk / "videos")
        work = replace(work, root=str(disk / "videos"))
    elif what == "store":  # a copy, as the lock's beat would make the folder anew
        shutil.copytree(extraction.store.root, disk / "store")
        work = replace(work, store=str(disk / "store"))
    else:
        save_file(build_network(STUDENT.model).state_dict(), disk / "s.safetensors")
        student = STUDENT.model_copy(update={"weights": str(disk / "s.safetensors")})
        work = replace(work, backbones=(student,), feature_keys=(locate_backbone(student)[0].name,))
    first, second, *_ = shards(extraction)
    run(extraction, work, first)
    shard_worker._drop()  # as another extraction's shard does
    away = disk.rename(disk.with_name("away"))
    for _ in range(2):
        with pytest.raises(InfrastructureError) as caught:
            run(extraction, work, second)
        assert not isinstance(caught.value, UnfitWorker), caught.value
    away.rename(disk)
    assert run(extraction, work, second).failed == {}


def _after(first, then):
    def both(*arguments):
        first()
        return then(*arguments)

    return both


def test_what_another_worker_has_published_meanwhile_stays(extraction, work, monkeypatch):
    """A worker that seemed lost comes late: its shard was given to another one, and published."""
    shard = shards(extraction)[0]
    late = shard_worker._Worker(work)
    late.videos[shard] = extraction.store.manifest().shard(shard)
    write = Extractor._require_videos

    def overtaken(self: Extractor, records: list[dict[str, object]]) -> None:
        write(self, records)
        if self is late.extractor:
            assert run(extraction, work, shard).videos
            written.extend(published_files(extraction.store.root.parents[2]).items())

    written: list[object] = []
    monkeypatch.setattr(Extractor, "_require_videos", overtaken)
    late.extractor.extract_shard(shard)
    late.pool.close()
    assert len(written) == 4, "two ledgers and two chunks"
    assert list(published_files(extraction.store.root.parents[2]).items()) == written


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (FeatureStore, "write_shard"),
        (FeatureStore, "read_shard"),
        (Ledger, "publish"),
    ],
)
def test_two_workers_on_one_shard_leave_features_and_ledger_of_one(extraction, work, monkeypatch, owner, step):
    """One that seems lost is overtaken just before a step, by a worker whose processor rounds differently."""
    shard = shards(extraction)[0]
    late = shard_worker._Worker(work)
    late.videos[shard] = extraction.store.manifest().shard(shard)
    finish, take_step = ShardFeatures.finish, getattr(owner, step)
    overtaken: list[str] = []

    def finish_differently(self: ShardFeatures) -> None:
        finish(self)
        if not overtaken:
            self.features *= np.float16(1.01)

    def overtake(self: FeatureStore | Ledger, *arguments: Any) -> Any:
        if not overtaken:
            overtaken.append("by another")
            assert run(extraction, work, shard).videos
        return take_step(self, *arguments)

    monkeypatch.setattr(ShardFeatures, "finish", finish_differently)
    monkeypatch.setattr(owner, step, overtake)
    try:
        late.extractor.extract_shard(shard)
    except InfrastructureError as error:
        assert step == "read_shard" and "reads back differently" in str(error)
    late.pool.close()
    for key in work.feature_keys:
        assert verify_key(extraction.store, key).problems == ()
    assert ledgers(extraction) == 2


def test_nothing_is_written_after_the_lock_has_changed_hands(extraction, work):
    first, second, *_ = shards(extraction)
    run(extraction, work, first)
    record = LocalLockRecord(extraction.store.root)
    content, _ = record.read()
    record.path.write_bytes(content.replace(work.owner.encode(), b"0" * len(work.owner)))
    with pytest.raises(InfrastructureError, match="does not see the lock"):
        run(extraction, work, second)
    record.path.write_bytes(content)
    assert ledgers(extraction) == 2, "both branches of the first shard"
    run(extraction, work, second)  # a refusal leaves nothing in the way


def test_an_extraction_that_ends_meanwhile_is_ended(extraction, work, monkeypatch):
    """`end` comes from another thread while a shard is decoded."""
    first, second, *_ = shards(extraction)
    run(extraction, work, first)
    extractor = shard_worker._kept.extractor
    begun = threading.Event()
    begin = extractor._begin

    def slow(shard: int) -> object:
        in_work = begin(shard)
        begun.set()
        ended.wait(10)
        return in_work

    monkeypatch.setattr(extractor, "_begin", slow)
    ended = threading.Event()
    errors: list[BaseException] = []

    def work_on() -> None:
        try:
            run(extraction, work, second)
        except DynapropError as error:
            errors.append(error)

    thread = threading.Thread(target=work_on)
    thread.start()
    assert begun.wait(30)
    threading.Timer(0.2, ended.set).start()
    shard_worker.end(work.owner)
    thread.join(30)
    assert errors and ledgers(extraction) == 2
    with pytest.raises(DynapropError, match="is over"):
        run(extraction, work, second)
