"""A store of a made-up dataset of any size, without videos: manifest and ledgers as an extraction leaves them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.extract.arrays import array_attributes
from dynaprop.pipeline.store.checksum import checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import LedgerRow
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.video.probe import Probe


def synthetic_videos(folder: Path, count: int) -> tuple[Video, ...]:
    """Videos that are all one small file below a folder, which is written."""
    path = folder / "video.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not a video")
    return tuple(Video(id=f"{index:07d}.mp4", path=path, labels=(index % 100,)) for index in range(count))


def synthetic_probe(clips: int) -> Probe:
    """Of a video of so many seconds, with one frame a second."""
    return Probe(
        timestamps=np.arange(clips, dtype=np.float64),
        start=0.0,
        duration=float(clips),
        estimated=False,
        width=320,
        height=240,
        codec="h264",
        container="mov",
        decoder="decord",
    )


class ProbesAtOnce:
    """Stands in for the pool of decode children; all videos are alike."""

    def __init__(self, clips: int) -> None:
        self._answer = synthetic_probe(clips)

    def probe(self, paths: Iterable[str], folders: Iterable[object]) -> Iterator[Probe]:
        """An answer for each path."""
        for _ in zip(paths, folders, strict=True):
            yield self._answer


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
        store.ledger(key.name).index()


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
