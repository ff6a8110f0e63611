"""The manifest's one promise: a row is given to one video, once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.clips import ClipGrid
from dynaprop.pipeline.store.manifest import Manifest, ProbedVideo
from dynaprop.pipeline.store.packing import NO_SHARD
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.identity import FileIdentity
from dynaprop.pipeline.video.probe import Probe

SHARD_ROWS = 50


def video(name: str, clips: int, content: str = "c") -> ProbedVideo:
    identity = FileIdentity(1, 2, content)
    if clips == 0:
        return ProbedVideo(name, name, identity, VideoError("no_frames", "none"), None)
    times = np.arange(clips, dtype=float)
    probe = Probe(times, 0.0, float(clips), False, 64, 48, "h264", "mov,mp4", "decord")
    return ProbedVideo(name, name, identity, probe, ClipGrid(np.arange(clips), times))


@given(st.lists(st.lists(st.integers(0, SHARD_ROWS), min_size=1, max_size=6), max_size=5))
def test_what_is_appended_never_touches_an_old_shard(batches):
    manifest = Manifest.empty(shard_rows=SHARD_ROWS)
    number = 0
    for counts in batches:
        before, shards = manifest.table.copy(), manifest.n_shards
        manifest = manifest.extended([video(f"v{(number := number + 1)}", count) for count in counts])
        added = manifest.table.iloc[len(before) :]
        assert (added.loc[added["shard"] != NO_SHARD, "shard"] >= shards).all()
        assert manifest.table.iloc[: len(before)][["video_id", "row"]].equals(before[["video_id", "row"]])


def test_round_trip_and_tombstones(tmp_path):
    manifest = Manifest.empty(shard_rows=SHARD_ROWS).extended([video("a", 30), video("b", 30), video("broken", 0)])
    assert manifest.shards() == [0, 1]
    manifest = manifest.without(["a"])
    assert list(manifest.current()["video_id"]) == ["b", "broken"]
    assert manifest.shards() == [1]
    manifest.save(tmp_path / "manifest.parquet")
    loaded = Manifest.load(tmp_path / "manifest.parquet", shard_rows=SHARD_ROWS)
    assert list(loaded.current()["video_id"]) == ["b", "broken"]
    np.testing.assert_array_equal(loaded.table["timestamps"][0], np.arange(30.0))
    assert loaded.table["error_kind"].tolist()[2] == "no_frames"
    assert loaded.extended([video("c", 5)]).table["shard"].tolist() == [0, 1, NO_SHARD, 2]
