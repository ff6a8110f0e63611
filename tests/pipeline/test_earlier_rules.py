"""Stores of earlier versions: what today's rules read otherwise is found without decoding, and extracted again."""

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from pipeline.annotations import read_annotations
from pipeline.cached import open_store
from pipeline.earlier_rules import READING_RULES, read_alike
from pipeline.extraction import Extraction
from pipeline.manifest import Manifest
from pipeline.probe import probe_video
from pipeline.specs import BackboneSpec, DatasetSpec
from pipeline.store import FeatureStore
from pipeline.transcode import transcode_video
from pipeline.video import COPY_MARK
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


def test_an_interrupted_look_goes_on_where_it_stopped(tmp_path):
    """The manifest says of each video under which rules it was looked at."""
    videos = tmp_path / "videos" / "class"
    videos.mkdir(parents=True)
    encode(videos / "a.mp4")
    dataset = DatasetSpec(name="old", root=tmp_path / "videos", min_clips=8, max_clips=16, shard_rows=40)
    extract(dataset, tmp_path)
    make_old(open_store(dataset, tmp_path), wrong=set())
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=BACKBONES, home=tmp_path, dry_run=True
    ) as work:
        assert [video.id for video in work.changes().outdated] == ["class/a.mp4"]
    assert extract(dataset, tmp_path) == (0, 0)
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=BACKBONES, home=tmp_path, dry_run=True
    ) as work:
        assert not work.changes()
