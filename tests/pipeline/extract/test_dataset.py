"""Extraction into the store: right rows, resume, growth, failures, and what readers may trust."""

import errno
import hashlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray

from dynaprop.heads.features.loaded import load_features
from dynaprop.pipeline.annotations import Annotations, Video, read_annotations
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.io.reaching import StoreUnavailable
from dynaprop.pipeline.machine import resolve_device
from dynaprop.pipeline.store import names as cached_module
from dynaprop.pipeline.store.checksum import checksum, has_checksum
from dynaprop.pipeline.store.feature_store import FeatureStore, list_stores
from dynaprop.pipeline.store.ledger import LedgerRow
from dynaprop.pipeline.store.names import cached_key, open_store
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.decoders import resize_frame
from tests.pipeline.corpus import CASES
from tests.pipeline.videos import all_frames, write_video

STUDENT = BackboneSpec(name="s", model="test_efficientnet", size=32, weights="random")
TEACHER = BackboneSpec(name="t", model="test_resnet", size=64, weights="random")
OTHER = BackboneSpec(name="o", model="test_vit", size=160, weights="random")


@pytest.fixture
def videos(tmp_path) -> Path:
    root = tmp_path / "videos"
    for index in range(6):
        write_video(root / "ab"[index % 2] / f"{index}.mp4", frames=20 + 3 * index, seed=index)
    return root


def spec(root: Path, **options) -> DatasetSpec:
    return DatasetSpec(name="tiny", root=root, min_clips=8, max_clips=16, shard_rows=20, **options)


def extract(dataset: DatasetSpec, home: Path, *backbones: BackboneSpec, retry_failed=False) -> ExtractionSummary:
    with Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=backbones or (STUDENT, TEACHER),
        home=home,
        device="cpu",
        workers=2,
        deadline=30,
    ) as work:
        plan = work.plan(work.changes(retry_failed=retry_failed))
        clips = []
        for shard in plan.shards:
            work.extract_shard(shard, on_clips=clips.append)
        assert sum(clips) == plan.clips_to_do
        return work.summary()


def test_every_row_is_the_feature_of_its_frame(videos, tmp_path):
    """Against PyAV reading all frames -> resize -> the model, clip by clip, both branches."""
    dataset = spec(videos)
    summary = extract(dataset, tmp_path)
    assert (summary.videos, summary.usable, summary.decoded) == (6, 6, 6)
    store = open_store(dataset, tmp_path)
    for backbone in (STUDENT, TEACHER):
        key, weights = cached_module.locate_backbone(backbone)
        network = FrameBackbone(key=key, weights=weights)
        table = store.ledger(key.name).read()
        assert len(table) == 6
        for row in table.itertuples():
            frames = all_frames(videos / row.video_id)
            clips = [frames[round(seconds * 10)] for seconds in row.timestamps]
            expected = network.features(np.stack([resize_frame(clip, backbone.size) for clip in clips]))
            first = row.row - row.shard * store.shard_rows
            stored = store.read_shard(key.name, row.shard)[first : first + row.n_clips]
            assert np.abs(stored - expected).max() <= 2e-3 * np.abs(expected).max()
        assert verify_key(store, key.name).problems == ()


def test_the_second_run_decodes_nothing_and_runs_no_backbone(videos, tmp_path):
    first = extract(spec(videos), tmp_path)
    second = extract(spec(videos), tmp_path)
    assert (first.decoded, first.forwarded) == (6, 2 * 48 + 2 * 0)
    assert (second.decoded, second.forwarded) == (0, 0)


def test_a_new_teacher_leaves_the_students_features_alone(videos, tmp_path):
    first = extract(spec(videos), tmp_path)
    second = extract(spec(videos), tmp_path, STUDENT, OTHER)
    assert second.forwarded == first.forwarded // 2
    assert first.keys["s"] == second.keys["s"]


def test_new_changed_and_removed_videos(videos, tmp_path):
    dataset = spec(videos)
    extract(dataset, tmp_path)
    write_video(videos / "a" / "new.mp4", seed=9)
    write_video(videos / "a" / "0.mp4", frames=40, seed=10)
    (videos / "b" / "1.mp4").unlink()
    summary = extract(dataset, tmp_path)
    assert (summary.videos, summary.usable, summary.decoded) == (6, 6, 2)
    assert set(open_store(dataset, tmp_path).manifest().current()["video_id"]) == {
        *(f"a/{name}.mp4" for name in (0, 2, 4, "new")),
        *(f"b/{name}.mp4" for name in (3, 5)),
    }


def test_a_touched_file_is_the_same_video(videos, tmp_path):
    dataset = spec(videos)
    extract(dataset, tmp_path)
    (videos / "a" / "0.mp4").touch()
    assert extract(dataset, tmp_path).decoded == 0
    summary = extract(dataset, tmp_path, OTHER)  # reads it once more
    assert (summary.usable, summary.failed) == (6, {})


def test_resume_redoes_only_the_shards_without_a_ledger(videos, tmp_path):
    """What a kill leaves: features written, ledger not published. The same bytes come out again."""
    dataset = spec(videos)
    summary = extract(dataset, tmp_path)
    store = open_store(dataset, tmp_path)
    before = {key: [store.read_shard(key, shard) for shard in range(3)] for key in summary.keys.values()}
    for key in summary.keys.values():
        store.ledger(key).withdraw(1)
        chunk = store.root / "features.zarr" / key / "c" / "1" / "0"
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    again = extract(dataset, tmp_path)
    assert again.decoded == 2
    for key, shards in before.items():
        for shard, features in enumerate(shards):
            np.testing.assert_array_equal(store.read_shard(key, shard), features)


def test_a_broken_file_among_good_ones_is_named_and_can_be_retried(videos, tmp_path):
    broken = videos / "a" / "broken.mp4"
    broken.write_bytes(b"not a video")
    dataset = spec(videos)
    summary = extract(dataset, tmp_path)
    assert (summary.videos, summary.usable) == (7, 6)
    assert summary.failed["a/broken.mp4"].kind == "unreadable"
    assert extract(dataset, tmp_path, retry_failed=True).failed.keys() == {"a/broken.mp4"}
    write_video(broken)
    summary = extract(dataset, tmp_path)
    assert (summary.usable, summary.failed, summary.decoded) == (7, {}, 1)


def test_an_absent_video_is_neither_failed_nor_retried_and_is_extracted_when_it_comes(videos, tmp_path):
    dataset = spec(videos)
    link = videos / "a" / "late.mp4"
    link.symlink_to(videos / "late")
    for retry_failed in (False, True):
        summary = extract(dataset, tmp_path, retry_failed=retry_failed)
        assert (summary.videos, summary.usable, summary.failed) == (6, 6, {})
        assert summary.absent == ("a/late.mp4",)
    assert len(open_store(dataset, tmp_path).manifest().table) == 7  # the retry has added nothing
    write_video(tmp_path / "late.mp4", seed=9).rename(videos / "late")
    summary = extract(dataset, tmp_path)
    assert (summary.videos, summary.usable, summary.absent, summary.decoded) == (7, 7, (), 1)
    (videos / "late").unlink()
    summary = extract(dataset, tmp_path)
    assert (summary.videos, summary.usable, summary.absent, summary.decoded) == (6, 6, ("a/late.mp4",), 0)


def test_the_next_shard_is_decoded_while_one_is_written(videos, tmp_path, monkeypatch):
    dataset = spec(videos)
    extract(dataset, tmp_path / "apart")
    begun = {}
    write = FeatureStore.write_shard
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=[STUDENT, TEACHER], home=tmp_path, workers=1
    ) as work:
        plan = work.plan(work.changes())
        assert len(plan.shards) == 3
        ends = np.cumsum([len(plan.manifest.shard(shard)) for shard in plan.shards])

        def write_shard(store, key, shard, features):
            if shard not in begun:
                deadline = time.monotonic() + 20
                while work.pool.decoded_videos <= ends[shard] - (shard == 2) and time.monotonic() < deadline:
                    time.sleep(0.01)
                begun[shard] = work.pool.decoded_videos > ends[shard]
            write(store, key, shard, features)

        monkeypatch.setattr(FeatureStore, "write_shard", write_shard)
        results = [work.extract_shard(shard, then=then) for shard, then in ((0, 1), (1, 2), (2, None))]
        assert [result.videos for result in results] == [len(plan.manifest.shard(shard)) for shard in plan.shards]
        store, names = work.store, list(work.key_names.values())
    assert begun == {0: True, 1: True, 2: False}
    apart = open_store(dataset, tmp_path / "apart")
    for name in names:
        for shard in range(3):
            np.testing.assert_array_equal(store.read_shard(name, shard), apart.read_shard(name, shard))


def test_another_shard_than_the_one_that_was_to_follow_is_refused(videos, tmp_path):
    dataset = spec(videos)
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=[STUDENT], home=tmp_path, workers=1
    ) as work:
        work.plan(work.changes())
        work.extract_shard(0, then=1)
        with pytest.raises(ValueError, match="shard 1 was to follow, not 2"):
            work.extract_shard(2)


def test_a_moved_file_is_decoded_where_it_lies_now(videos, tmp_path):
    """An id that is not the path: the new backbone needs the video, the old features stay."""
    dataset = spec(videos)

    def extract_as(path: Path, backbone: BackboneSpec) -> ExtractionSummary:
        annotations = Annotations(videos=(Video(id="x", path=path),), class_names=())
        with Extraction(
            dataset=dataset, annotations=annotations, backbones=[backbone], home=tmp_path, device="cpu", workers=1
        ) as work:
            for shard in work.plan(work.changes()).shards:
                work.extract_shard(shard)
            return work.summary()

    first, second = videos / "a" / "0.mp4", videos / "moved.mp4"
    assert extract_as(first, STUDENT).usable == 1
    first.rename(second)
    assert extract_as(second, STUDENT).decoded == 0
    summary = extract_as(second, TEACHER)
    assert (summary.usable, summary.failed, summary.decoded) == (1, {}, 1)


def test_a_file_that_is_replaced_or_away_after_the_probe_is_looked_at_again(videos, tmp_path):
    """Days may lie between probe and decoding; what comes out then is not filed under the old identity."""
    dataset = spec(videos)
    replaced, away = videos / "a" / "2.mp4", videos / "b" / "3.mp4"
    elsewhere = tmp_path / "away.mp4"
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=[STUDENT], home=tmp_path, device="cpu"
    ) as work:
        plan = work.plan(work.changes())
        write_video(replaced, frames=44, seed=77)
        away.rename(elsewhere)
        for shard in plan.shards:
            work.extract_shard(shard)
        summary = work.summary()
    assert {video: error.kind for video, error in summary.failed.items()} == {
        "a/2.mp4": "changed",
        "b/3.mp4": "changed",
    }
    elsewhere.rename(away)
    again = extract(dataset, tmp_path, STUDENT)  # without --retry-failed
    assert (again.usable, again.failed) == (6, {})
    assert extract(dataset, tmp_path, STUDENT).decoded == 0


def test_annotations_are_read_once_the_lock_is_held(videos, tmp_path):
    dataset = spec(videos)
    states = []

    def read() -> Annotations:
        states.append((cached_module.store_path(dataset, tmp_path) / "lock.json").exists())
        return read_annotations(dataset)

    with Extraction(dataset=dataset, annotations=read, backbones=[STUDENT], home=tmp_path, device="cpu") as work:
        assert len(work.changes().to_probe) == 6
    assert states == [True]


def test_a_video_that_fails_while_decoding_leaves_no_features(videos, tmp_path):
    """Its packets are all there, so the probe counts them; the data of most frames are gone."""
    path = write_video(videos / "a" / "hurt.mp4", frames=200, size=(160, 120), seed=3)
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat")
    data[begin + 2000 : begin + (len(data) - begin) * 3 // 4] = bytes((len(data) - begin) * 3 // 4 - 2000)
    path.write_bytes(data)
    dataset = spec(videos)
    summary = extract(dataset, tmp_path)
    assert summary.failed.keys() == {"a/hurt.mp4"}
    store = open_store(dataset, tmp_path)
    for key in summary.keys.values():
        table = store.ledger(key).read().set_index("video_id")
        assert table.loc["a/hurt.mp4", "status"] == "failed"
        assert verify_key(store, key).problems == ()


def test_branches_that_hold_different_clips_share_what_both_hold(videos, tmp_path):
    """As after a change of decoder between the extractions of two teachers."""
    dataset = spec(videos)
    keys = extract(dataset, tmp_path).keys
    store = open_store(dataset, tmp_path)
    ledger = store.ledger(keys["t"])
    table, features = ledger.read_shard(0), store.read_shard(keys["t"], 0)
    video, n_clips = table.loc[0, "video_id"], int(table.loc[0, "n_clips"])
    kept = np.setdiff1d(np.arange(n_clips), [1, 4])
    features[: len(kept)], features[len(kept) : n_clips] = features[kept], np.nan
    store.write_shard(keys["t"], 0, features)
    rows = [LedgerRow(**row) for row in table.to_dict("records")]
    rows[0] = replace(
        rows[0],
        status="partial",
        n_clips=len(kept),
        n_missing=2,
        timestamps=rows[0].timestamps[kept],
        checksum=checksum(features[: len(kept)]),
    )
    ledger.publish(0, rows)
    assert verify_key(store, keys["t"]).problems == ()
    split = load_features(
        store,
        [entry for entry in read_annotations(dataset).videos if entry.id == video],
        class_names=("a", "b"),
        student_key=keys["s"],
        teacher_key=keys["t"],
    ).split
    assert split.n_clips.tolist() == [len(kept)]
    np.testing.assert_array_equal(split.timestamps, rows[0].timestamps)
    np.testing.assert_array_equal(split.student.numpy(), store.read_shard(keys["s"], 0)[kept])
    np.testing.assert_array_equal(split.teacher.numpy(), features[: len(kept)])


def test_ledgers_and_manifests_from_before_partial_videos_are_read(videos, tmp_path):
    dataset = spec(videos)
    keys = extract(dataset, tmp_path).keys
    store = open_store(dataset, tmp_path)
    pd.read_parquet(store.manifest_path).drop(columns="share").to_parquet(store.manifest_path)
    for path in store.root.glob("ledger/*/*.parquet"):
        pd.read_parquet(path).drop(columns="n_missing").to_parquet(path)
    assert store.manifest().table["share"].tolist() == [1.0] * 6
    assert store.ledger(keys["s"]).read()["n_missing"].tolist() == [0] * 6
    assert verify_key(store, keys["s"]).problems == ()
    write_video(videos / "a" / "new.mp4", seed=9)
    summary = extract(dataset, tmp_path)
    assert (summary.usable, summary.partial, summary.decoded) == (7, {}, 1)


def test_xarray_opens_the_store(videos, tmp_path):
    dataset = spec(videos)
    summary = extract(dataset, tmp_path)
    store = open_store(dataset, tmp_path)
    opened = xarray.open_zarr(store.root / "features.zarr", consolidated=False)
    for key in summary.keys.values():
        assert opened[key].dims[0] == "row"
        np.testing.assert_array_equal(opened[key][:20].values, store.read_shard(key, 0))


def test_xarray_opens_a_store_whose_keys_were_extracted_at_different_times(videos, tmp_path):
    dataset = spec(videos)
    extract(dataset, tmp_path)
    write_video(videos / "a" / "new.mp4", seed=9)
    summary = extract(dataset, tmp_path, OTHER)
    opened = xarray.open_zarr(open_store(dataset, tmp_path).root / "features.zarr", consolidated=False)
    assert len(opened) == 3
    assert opened[summary.keys["o"]].shape[0] == opened.sizes["row"] == 4 * 20


def test_a_store_whose_creation_was_cut_short_is_created_anew(videos, tmp_path):
    dataset = spec(videos)
    (cached_module.store_path(dataset, tmp_path) / "features.zarr").mkdir(parents=True)
    assert list_stores(tmp_path / "stores") == []
    assert extract(dataset, tmp_path).usable == 6


def test_removing_a_key_takes_what_a_kill_left_with_it(videos, tmp_path):
    dataset = spec(videos)
    key = extract(dataset, tmp_path).keys["s"]
    store = open_store(dataset, tmp_path)
    (store.ledger(key).folder / ".000001.parquet.x.partial").touch()
    store.remove(key)
    assert key not in list(store.keys())
    assert not store.ledger(key).folder.exists()


def test_a_lost_shard_is_not_read_as_features(videos, tmp_path):
    dataset = spec(videos)
    keys = extract(dataset, tmp_path).keys
    store = open_store(dataset, tmp_path)
    shutil.rmtree(store.root / "features.zarr" / keys["s"] / "c" / "1")
    with pytest.raises(DynapropError, match=r"shard 1 of .* is damaged .*; verify and repair the dataset"):
        load_features(
            store,
            read_annotations(dataset).videos,
            class_names=("a", "b"),
            student_key=keys["s"],
            teacher_key=keys["t"],
        )
    check = verify_key(store, keys["s"])
    assert len(check.problems) == 1
    for shard in check.bad_shards:
        store.ledger(keys["s"]).withdraw(shard)
    assert extract(dataset, tmp_path).decoded == 2
    assert verify_key(store, keys["s"]).problems == ()


def test_the_chunk_file_is_the_raw_rows(videos, tmp_path):
    dataset = spec(videos)
    key = extract(dataset, tmp_path).keys["s"]
    store = open_store(dataset, tmp_path)
    raw = np.fromfile(store.root / "features.zarr" / key / "c" / "0" / "0", np.float16)
    np.testing.assert_array_equal(raw.reshape(20, -1), store.read_shard(key, 0))
    np.testing.assert_array_equal(store.map_shard(key, 0), store.read_shard(key, 0))


def test_checksums_tell_rows_apart_and_old_ones_still_do():
    rows = np.arange(12, dtype=np.float16).reshape(3, 4)
    others = rows.copy()
    others[2, 3] += 1
    old = hashlib.sha256(rows.tobytes()).hexdigest()[:32]
    for expected in (checksum(rows), old):
        assert has_checksum(rows, expected)
        assert not has_checksum(others, expected)
        assert not has_checksum(rows[:2], expected)


def test_verify_finds_what_is_wrong(videos, tmp_path):
    dataset = spec(videos)
    key = extract(dataset, tmp_path).keys["s"]
    store = open_store(dataset, tmp_path)
    chunks = store.root / "features.zarr" / key / "c"
    data = bytearray((chunks / "0" / "0").read_bytes())
    data[10] ^= 1
    (chunks / "0" / "0").write_bytes(data)
    shutil.rmtree(chunks / "1")
    problems = verify_key(store, key).problems
    assert len(problems) == 2
    assert "checksum" in problems[0]
    assert "gone" in problems[1]


def test_no_room_is_said_before_anything_is_decoded(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DynapropError, match="make room or set DYNAPROP_HOME"):
        extract(spec(videos), tmp_path)
    assert not list((tmp_path / "stores").rglob("ledger"))


def test_a_full_disk_half_way_leaves_nothing_that_is_trusted(videos, tmp_path, monkeypatch):
    dataset = spec(videos)
    written = FeatureStore.write_shard

    def full(self, key, shard, features):
        if shard == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, key, shard, features)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write_shard", full)
        with pytest.raises(OSError, match="No space left"):
            extract(dataset, tmp_path)
    summary = extract(dataset, tmp_path)
    assert (summary.usable, summary.decoded) == (6, 4)


def test_a_dry_run_writes_no_manifest_and_gives_an_estimate(videos, tmp_path):
    dataset = spec(videos)
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=[STUDENT], home=tmp_path, workers=1
    ) as work:
        plan = work.plan(work.changes(), save=False)
        assert (plan.videos, plan.clips, plan.clips_to_do, list(plan.shards)) == (6, 48, 48, [0, 1, 2])
        assert plan.bytes_to_write == 3 * 20 * 256 * 2
        assert work.estimate_seconds(plan) > 0
    assert not open_store(dataset, tmp_path).manifest_path.exists()


def test_an_unknown_device_is_refused(videos, tmp_path):
    with pytest.raises(UsageError, match="device 'gpu'"):
        resolve_device("gpu")


def test_a_store_of_a_newer_version_is_refused(videos, tmp_path):
    store = open_store(spec(videos), tmp_path)
    store.group.attrs["schema"] = 99
    with pytest.raises(DynapropError, match="made by a newer dynaprop"):
        open_store(spec(videos), tmp_path)


def test_cached_features_are_found_without_the_weights_that_made_them(videos, tmp_path, monkeypatch):
    """Nothing is looked for where nothing is cached, and timm's weights may be gone from this machine."""
    dataset = spec(videos)
    extract(dataset, tmp_path, STUDENT)
    store = open_store(dataset, tmp_path)
    located = cached_module.locate_backbone(STUDENT)[0].name
    assert cached_key(STUDENT, store) == located

    def offline(backbone: BackboneSpec):
        raise DynapropError(f"the weights of {backbone.name} are not here")

    monkeypatch.setattr(cached_module, "locate_backbone", offline)
    assert cached_key(TEACHER, store) is None
    assert cached_key(STUDENT.model_copy(update={"weights": "timm"}), store) == located
    with pytest.raises(DynapropError, match="not here"):  # a file that is gone may have been another
        cached_key(STUDENT, store)
    store.group[located].attrs["version"] = 1  # made by code that made other features
    assert cached_key(STUDENT.model_copy(update={"weights": "timm"}), store) is None


def test_a_shard_that_is_tried_again_counts_once(videos, tmp_path, monkeypatch):
    """The store is away when the second branch is written: its clips, and the first branch, are not counted twice."""
    dataset = spec(videos)
    write, writes = FeatureStore.write_shard, []

    def flaky(self: FeatureStore, key: str, shard: int, features: np.ndarray) -> None:
        writes.append(key)
        if len(writes) == 2:
            raise StoreUnavailable("the store is away")
        write(self, key, shard, features)

    monkeypatch.setattr(FeatureStore, "write_shard", flaky)
    clips: list[int] = []
    with Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=(STUDENT, TEACHER),
        home=tmp_path,
        device="cpu",
        workers=2,
    ) as work:
        plan = work.plan(work.changes())
        first, *others = plan.shards
        with pytest.raises(StoreUnavailable):
            work.extract_shard(first, then=others[0], on_clips=clips.append)
        assert sum(clips) == 0
        work.extract_shards(plan.shards, on_clips=clips.append)
        assert sum(clips) == plan.clips_to_do
        summary = work.summary()
    assert (summary.usable, summary.decoded) == (6, 6)
    assert len(writes) == 2 * len(plan.shards) + 1, "the branch that was written before is not written again"


def test_an_answer_that_was_lost_is_read_from_the_ledgers(videos, tmp_path):
    (videos / "a" / "0.mp4").write_bytes((videos / "a" / "0.mp4").read_bytes()[:1500])
    dataset = spec(videos)
    with Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=(STUDENT, TEACHER),
        home=tmp_path,
        device="cpu",
        workers=2,
    ) as work:
        plan = work.plan(work.changes())
        results = work.extract_shards(plan.shards)
        found = [work.published(result.shard) for result in results]
    assert [(one.videos, one.clips, one.failed.keys(), one.partial.keys()) for one in found] == [
        (one.videos, one.clips, one.failed.keys(), one.partial.keys()) for one in results
    ]
    assert sum(one.frames for one in found) == sum(one.frames for one in results)


def test_decord_is_a_choice_and_its_frames_are_those_of_pyav(videos, tmp_path):
    CASES["open-gop.mp4"].build(videos / "a" / "open.mp4")
    by_pyav, by_decord = spec(videos), spec(videos, decoder="decord")
    keys = extract(by_pyav, tmp_path / "pyav").keys
    assert extract(by_decord, tmp_path / "decord").usable == 7
    one, other = open_store(by_pyav, tmp_path / "pyav"), open_store(by_decord, tmp_path / "decord")
    for key in keys.values():
        assert set(one.ledger(key).read()["decoder"]) == {"pyav"}
        decoders = other.ledger(key).read().set_index("video_id")["decoder"].to_dict()
        assert decoders.pop("a/open.mp4") == "pyav"  # decord's frames were others
        assert set(decoders.values()) == {"decord"}
        for shard in one.ledger(key).published():
            np.testing.assert_array_equal(one.read_shard(key, shard), other.read_shard(key, shard))


def test_the_ledger_says_what_was_shown(videos, tmp_path):
    """Width and height of the frame as it is shown, and which of two streams it is of."""
    CASES["rotation-90-odd-size.mov"].build(videos / "a" / "turned.mov")
    CASES["sound-and-two-cameras.mkv"].build(videos / "a" / "two.mkv")
    keys = extract(spec(videos), tmp_path).keys
    rows = open_store(spec(videos), tmp_path).ledger(keys["s"]).read().set_index("video_id")
    assert tuple(rows.loc["a/turned.mov", ["width", "height"]]) == (63, 47)
    assert pd.isna(rows.loc["a/turned.mov", "note"])
    assert rows.loc["a/two.mkv", "note"].startswith("stream 1 of the video streams 1, 2: ")
