"""A store of a made-up dataset of any size, without videos: manifest and ledgers as an extraction leaves them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.annotations import Video
from pipeline.backbone import FeatureKey
from pipeline.checksum import checksum
from pipeline.clips import ClipGrid
from pipeline.extract import array_attributes
from pipeline.files import FileIdentity
from pipeline.ledger import LedgerRow
from pipeline.manifest import Manifest, ProbedVideo
from pipeline.probe import Probe
from pipeline.store import FeatureStore


def synthetic_videos(root: Path, count: int) -> tuple[Video, ...]:
    """Videos of 100 classes that need not exist."""
    return tuple(
        Video(id=f"class{index % 100:02d}/{index:07d}.mp4", path=root / f"class{index % 100:02d}/{index:07d}.mp4")
        for index in range(count)
    )


def probed(video: Video, clips: int) -> ProbedVideo:
    """A video of so many seconds and clips."""
    times = np.arange(clips, dtype=np.float64)
    probe = Probe(
        timestamps=times,
        start=0.0,
        duration=float(clips),
        estimated=False,
        width=320,
        height=240,
        codec="h264",
        container="mov",
        decoder="decord",
    )
    return ProbedVideo(
        video_id=video.id,
        path=video.id,
        identity=FileIdentity(size=0, mtime_ns=0, content="0" * 16),
        probe=probe,
        grid=ClipGrid(frames=np.arange(clips, dtype=np.int64), timestamps=times),
    )


def fill_store(
    store: FeatureStore,
    keys: Sequence[FeatureKey],
    manifest: Manifest,
    *,
    channels: int,
    rows: np.ndarray | None = None,
) -> None:
    """Save a manifest and publish all its shards.

    Args:
        store: an empty one.
        keys: feature keys.
        manifest: of synthetic videos.
        channels: of every key.
        rows: features of every shard, ``[shard_rows, channels]``; None: ledgers alone.
    """
    manifest.save(store.manifest_path)
    for key in keys:
        store.ensure_array(key, channels=channels, n_shards=manifest.n_shards, attributes=array_attributes(key))
        for shard, table in manifest.current().groupby("shard"):
            if rows is not None:
                store.write_shard(key.name, shard, rows)
            published = [_ledger_row(record, rows, store.shard_rows) for record in table.to_dict("records")]
            store.ledger(key.name).publish(shard, published)


def _ledger_row(record: dict[Any, Any], rows: np.ndarray | None, shard_rows: int) -> LedgerRow:
    n_clips, first = record["n_clips"], record["row"] % shard_rows
    return LedgerRow(
        **{name: record[name] for name in ("video_id", "size", "mtime_ns", "content", "shard", "row")},
        status="ok",
        error_kind=None,
        error_detail=None,
        n_clips=n_clips,
        n_missing=0,
        timestamps=np.asarray(record["timestamps"]),
        timestamps_source="measured",
        checksum="" if rows is None else checksum(rows[first : first + n_clips]),
        decoder="decord",
        attempts=1,
        seconds=0.0,
    )
