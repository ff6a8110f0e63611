"""Stores of earlier versions: what today's rules read otherwise is found without decoding, and extracted again."""

import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.copies.dataset import annotations_of_copies, copies_folder
from dynaprop.pipeline.copies.table import TABLE, CopyTable
from dynaprop.pipeline.copies.transcoding import Transcoding, TranscodingSummary
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import InfrastructureError
from dynaprop.pipeline.extract import apply as apply_module
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.outdated import cached_decoders
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.video.container import COPY_MARK, VideoError, VideoFile
from dynaprop.pipeline.video.earlier_rules import READING_RULES, read_alike
from dynaprop.pipeline.video.identity import file_identity
from dynaprop.pipeline.video.probe import probe_video
from dynaprop.pipeline.video.transcode import transcode_video
from tests.pipeline.coded_frames import encode
from tests.pipeline.corpus import CASES, OPEN_GOP

BOTH, PYAV = ("pyav", "decord"), ("pyav",)
BACKBONES = (
    BackboneSpec(name="s", model="test_efficientnet", size=32, weights="random"),
    BackboneSpec(name="t", model="test_resnet", size=64, weights="random"),
)


def remux(source: Path, target: Path, comment: str) -> Path:
    """The same packets in a file with a comment."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        new.metadata["comment"] = comment
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "options", "decoders"),
    [
        ("closed.mp4", {"options": {"g": "12", "bf": "2"}}, BOTH),
        ("closed.mkv", {"options": {"g": "12", "bf": "2"}}, BOTH),
        ("open.mp4", {"options": OPEN_GOP}, PYAV),
        ("open.mkv", {"options": OPEN_GOP}, PYAV),
        ("no-b-frames.avi", {"codec": "mpeg4", "options": {"bf": "0"}}, BOTH),
        ("b-frames.mp4", {"codec": "mpeg4", "options": {"bf": "2"}}, PYAV),
        ("mpeg2.mpg", {"codec": "mpeg2video"}, PYAV),
        ("vp8.webm", {"codec": "libvpx"}, BOTH),
        ("vp9.webm", {"codec": "libvpx-vp9"}, BOTH),
        ("motion.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, BOTH),
        ("turned.mp4", {"rotation": 90}, BOTH),
        ("turned.mov", {"rotation": 180}, BOTH),
    ],
)
def test_what_earlier_versions_read_alike(tmp_path, name, options, decoders):
    path = encode(tmp_path / name, **options)
    assert read_alike(path, stream=0) == decoders


@pytest.mark.parametrize(
    ("name", "decoders"),
    [
        ("open-gop-h264.mkv", PYAV),
        ("h263p.mkv", PYAV),
        ("mpeg2-b-frames.mov", PYAV),
        ("rot180.mkv", PYAV),  # decord knows no roll of Matroska
        ("rot90-inexact-a.mp4", PYAV),
        ("rot270-inexact-b.mp4", PYAV),
        ("vflip.mp4", ()),
        ("transpose.mp4", ()),
        ("sei90.mp4", ()),
        ("thumb-first.mov", ()),
        ("second-default.mkv", ()),
    ],
)
def test_odd_videos_that_earlier_versions_read_alike(data_root, name, decoders):
    path = data_root / "odd-videos" / name
    assert read_alike(path, stream=probe_video(path).stream) == decoders


def test_a_comment_alone_makes_no_copy(tmp_path):
    """Earlier versions entered whatever called itself a copy at flags."""
    encode(tmp_path / "open.mp4", options=OPEN_GOP)
    forged = remux(tmp_path / "open.mp4", tmp_path / "forged.mp4", COPY_MARK + "x")
    assert read_alike(forged, stream=0) == ()
    encode(tmp_path / "a.mp4")
    transcode_video(tmp_path / "a.mp4", tmp_path / "copy.mp4", short_side=32)
    assert read_alike(tmp_path / "copy.mp4", stream=0) == BOTH


def extract(dataset: DatasetSpec, home: Path) -> tuple[int, int]:
    """How many videos are read otherwise today, and how many were decoded."""
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=BACKBONES, home=home, device="cpu", workers=2
    ) as work:
        plan = work.plan(work.changes())
        work.extract_shards(plan.shards)
        return plan.reread, work.summary().decoded


def make_old(store: FeatureStore, *, wrong: set[str]) -> None:
    """What an earlier version would have left: no new columns, frames by decord, and wrong features of some videos."""
    manifest = store.manifest()
    table = manifest.table.drop(columns=["stream", "note", "rules"]).assign(decoder="decord")
    Manifest(table, shard_rows=manifest.shard_rows).save(store.manifest_path)
    for key in store.keys():  # noqa: SIM118
        for shard in store.ledger(key).published():
            features = store.read_shard(key, shard).copy()
            for row in store.ledger(key).read_shard(shard).itertuples():
                if row.video_id in wrong:
                    features[row.row - shard * store.shard_rows :][: row.n_clips] = 7
            store.write_shard(key, shard, features)
            path = store.ledger(key).folder / f"{shard:06d}.parquet"
            pd.read_parquet(path).drop(columns=["width", "height", "note"]).assign(decoder="decord").to_parquet(path)


def features_by_video(store: FeatureStore) -> dict[tuple[str, str], np.ndarray]:
    current = store.manifest().current()
    places = set(zip(current["video_id"], current["row"], strict=True))
    found = {}
    for key in store.keys():  # noqa: SIM118
        for row in store.ledger(key).read().itertuples():
            if (row.video_id, row.row) in places:
                first = row.row - row.shard * store.shard_rows
                found[key, row.video_id] = store.read_shard(key, row.shard)[first : first + row.n_clips]
    return found


def test_what_would_be_read_otherwise_is_extracted_again_and_nothing_else(tmp_path):
    videos = tmp_path / "videos" / "class"
    videos.mkdir(parents=True)
    for number in range(3):
        encode(videos / f"{number}.mp4", frames=30 + number)
    encode(videos / "open.mp4", options=OPEN_GOP)
    CASES["sound-and-two-cameras.mkv"].build(videos / "two.mkv")
    CASES["text.mp4"].build(videos / "text.mp4")
    dataset = DatasetSpec(name="old", root=tmp_path / "videos", min_clips=8, max_clips=16, shard_rows=40)
    assert extract(dataset, tmp_path / "fresh") == (0, 5)
    assert extract(dataset, tmp_path / "home") == (0, 5)
    store = open_store(dataset, tmp_path / "home")
    wrong = {"class/open.mp4", "class/two.mkv"}
    make_old(store, wrong=wrong)
    assert store.manifest().outdated() == 6
    before = store.manifest().current().set_index("video_id")["row"]
    assert extract(dataset, tmp_path / "home") == (2, 2)
    store = open_store(dataset, tmp_path / "home")
    after = store.manifest().current().set_index("video_id")
    assert {video for video, row in before.items() if after.loc[video, "row"] != row} == wrong
    assert set(after["rules"]) == {READING_RULES}
    assert store.manifest().outdated() == 0
    assert extract(dataset, tmp_path / "home") == (0, 0)
    expected = features_by_video(open_store(dataset, tmp_path / "fresh"))
    found = features_by_video(store)
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[one], expected[one], rtol=0, atol=1e-3) for one in expected)


def old_store(tmp_path: Path, *, wrong: frozenset[str] = frozenset(), files: int = 3) -> DatasetSpec:
    """A store as an earlier version would have left it, of some plain videos."""
    videos = tmp_path / "videos" / "class"
    videos.mkdir(parents=True)
    for number in range(files):
        encode(videos / f"{number}.mp4", frames=30 + number)
    dataset = DatasetSpec(name="old", root=tmp_path / "videos", min_clips=8, max_clips=16, shard_rows=40)
    extract(dataset, tmp_path)
    make_old(open_store(dataset, tmp_path), wrong=set(wrong))
    return dataset


def opened(dataset: DatasetSpec, home: Path, *backbones: BackboneSpec) -> Extraction:
    return Extraction(
        dataset=dataset,
        annotations=read_annotations(dataset),
        backbones=backbones or BACKBONES,
        home=home,
        device="cpu",
        workers=2,
    )


def test_a_look_that_is_interrupted_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """The manifest says of each video under which rules it was looked at."""
    dataset = old_store(tmp_path)
    monkeypatch.setattr(apply_module, "_VIDEOS_A_SAVE", 2)
    monkeypatch.setattr(apply_module, "_GROWTH", 10**6)
    with opened(dataset, tmp_path) as work:
        changes = work.changes()
        assert changes.n_probes == 3
        parts = apply_changes(
            work.store.manifest(),
            changes,
            pool=work.pool,
            root=dataset.root,
            clip_seconds=1.0,
            min_clips=8,
            max_clips=16,
            decoders=cached_decoders(work.store),
        )
        next(parts)  # nothing new or changed
        next(parts).save(work.store.manifest_path)
        parts.close()
    with opened(dataset, tmp_path) as work:
        assert work.changes().n_probes == 1
    assert extract(dataset, tmp_path) == (0, 0)
    with opened(dataset, tmp_path) as work:
        assert not work.changes()


def test_a_passing_failure_leaves_what_is_cached_alone(tmp_path, monkeypatch):
    dataset = old_store(tmp_path)
    before = open_store(dataset, tmp_path).manifest().current().set_index("video_id")["row"].to_dict()
    real = DecodePool.probe

    def slow_disk(self, paths, folders=None):
        for _probe in real(self, paths, folders):
            yield VideoError("timeout", "no new frame within 60 s")

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "probe", slow_disk)
        assert extract(dataset, tmp_path) == (0, 0)
    manifest = open_store(dataset, tmp_path).manifest()
    assert manifest.current().set_index("video_id")["row"].to_dict() == before
    assert manifest.outdated() == 3
    assert extract(dataset, tmp_path) == (0, 0)
    assert open_store(dataset, tmp_path).manifest().outdated() == 0


def test_a_disk_that_has_gone_is_no_reason_to_forget_anything(tmp_path):
    dataset = old_store(tmp_path)
    with opened(dataset, tmp_path) as work:
        changes = work.changes()
        dataset.root.rename(tmp_path / "unmounted")
        with pytest.raises(InfrastructureError, match="is its disk still mounted"):
            work.plan(changes)
    (tmp_path / "unmounted").rename(dataset.root)
    assert extract(dataset, tmp_path) == (0, 0)


def test_a_failure_with_decord_is_no_answer(tmp_path):
    """Where decord hung, PyAV was not asked."""
    dataset = old_store(tmp_path)
    store = open_store(dataset, tmp_path)
    for key in store.keys():  # noqa: SIM118
        path = store.ledger(key).folder / "000000.parquet"
        table = pd.read_parquet(path)
        hung = table["video_id"] == "class/1.mp4"
        table.loc[hung, ["status", "error_kind", "error_detail", "checksum"]] = [
            "failed",
            "timeout",
            "no new frame",
            None,
        ]
        table.to_parquet(path)
    assert extract(dataset, tmp_path) == (1, 1)


def test_another_recipes_features_are_looked_at_too_and_its_damage_stops_nobody(tmp_path):
    dataset = old_store(tmp_path)
    other = BackboneSpec(name="o", model="test_resnet", size=32, weights="random")
    store = open_store(dataset, tmp_path)
    (folder,) = (store.ledger(key).folder for key in store.keys() if "resnet" in key)  # noqa: SIM118
    (folder / "000000.parquet").write_bytes(b"no table")
    with opened(dataset, tmp_path, other) as work:
        plan = work.plan(work.changes(retry_failed=True))
        work.extract_shards(plan.shards)
        assert (plan.reread, work.summary().usable) == (0, 3)


def test_a_retried_video_does_not_stay_in_rows_of_earlier_rules(tmp_path):
    """There another recipe's features may be of other frames, and nobody would look at them again."""
    dataset = old_store(tmp_path, files=1)
    rows = []
    for _ in range(3):
        with opened(dataset, tmp_path) as work:
            plan = work.plan(work.changes(retry=["class/0.mp4"]))
            work.extract_shards(plan.shards)
            rows.append(int(plan.manifest.current()["row"].iloc[0]))
    assert rows == [40, 40, 40]  # from 0 to a shard of its own, where it stays


def test_a_table_to_which_an_older_version_has_added_is_read(tmp_path):
    dataset = old_store(tmp_path)
    extract(dataset, tmp_path)
    path = open_store(dataset, tmp_path).manifest_path
    table = pd.read_parquet(path)
    table.loc[1, ["rules", "note", "stream", "share"]] = None
    table.to_parquet(path)
    manifest = open_store(dataset, tmp_path).manifest()
    assert manifest.table["rules"].tolist() == [READING_RULES, 0, READING_RULES]
    assert extract(dataset, tmp_path) == (0, 0)


def test_copies_of_earlier_versions_are_kept_where_they_are_right(tmp_path, data_root):
    videos = tmp_path / "videos" / "class"
    videos.mkdir(parents=True)
    encode(videos / "plain.mp4")
    shutil.copy(data_root / "odd-videos" / "vflip.mp4", videos)
    dataset = DatasetSpec(name="old", root=tmp_path / "videos")

    def transcode() -> TranscodingSummary:
        annotations = read_annotations(dataset)
        with Transcoding(dataset=dataset, annotations=annotations, home=tmp_path, short_side=32, workers=1) as work:
            work.run(work.to_do())
            return work.summary()

    assert transcode().made == 2
    folder = copies_folder(dataset, 32, tmp_path)
    for path in folder.rglob("*.mp4"):
        with VideoFile(path) as video:
            comment = video.container.metadata["comment"]
        path.write_bytes(remux(path, tmp_path / "old.mp4", comment.partition(", reading")[0]).read_bytes())
    table = pd.read_parquet(folder / TABLE).drop(columns="rules")
    for row in table.index:
        identity = file_identity(folder / table.loc[row, "path"])
        table.loc[row, ["copy_size", "copy_mtime_ns", "copy_content"]] = [
            identity.size,
            identity.mtime_ns,
            identity.content,
        ]
    table.to_parquet(folder / TABLE)
    used = annotations_of_copies(read_annotations(dataset), CopyTable.load(folder), target="old", short_side=32)
    assert len(used.videos) == 2  # until somebody asks for better ones
    summary = transcode()
    assert (summary.found, summary.made) == (1, 1)  # the mirrored one is made anew
    assert (transcode().found, transcode().made) == (0, 0)
