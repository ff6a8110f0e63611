"""The manifest: which rows of the store belong to which clips of which video.

It is append-only: new or changed videos go to new shards at the end, removed ones leave a tombstone, and no row is ever
given to another video. Labels and splits live elsewhere and may change freely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.clips import ClipGrid
from pipeline.errors import DynapropError
from pipeline.files import FileIdentity, publish_parquet
from pipeline.probe import Probe
from pipeline.video import VideoError

NO_SHARD = -1

COLUMNS = {
    "video_id": "object",
    "path": "object",  # as it was when probed; the id is what counts
    "size": "int64",
    "mtime_ns": "int64",
    "content": "object",
    "removed": "bool",
    "error_kind": "object",  # None: the video can be decoded
    "error_detail": "object",
    "shard": "int64",
    "row": "int64",
    "n_clips": "int64",
    "frames": "object",
    "timestamps": "object",
    "n_frames": "int64",
    "duration": "float64",
    "start": "float64",
    "estimated": "bool",
    "width": "int64",
    "height": "int64",
    "codec": "object",
    "container": "object",
    "decoder": "object",
}


@dataclass(frozen=True)
class ProbedVideo:
    """One video as it enters the manifest."""

    video_id: str
    path: str
    identity: FileIdentity
    probe: Probe | VideoError
    grid: ClipGrid | None
    """None when the probe failed."""


class Manifest:
    """The table of all videos that a store has known.

    Args:
        table: one row a video and version, columns as in ``COLUMNS``.
        shard_rows: rows of a shard; no video straddles two shards.
    """

    def __init__(self, table: pd.DataFrame, *, shard_rows: int) -> None:
        self.table = table
        self.shard_rows = shard_rows

    @classmethod
    def empty(cls, *, shard_rows: int) -> Self:
        table = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in COLUMNS.items()})
        return cls(table, shard_rows=shard_rows)

    @classmethod
    def load(cls, path: Path, *, shard_rows: int) -> Self:
        """Read the table, or begin an empty one.

        Raises:
            DynapropError: the file is damaged.
        """
        if not path.exists():
            return cls.empty(shard_rows=shard_rows)
        try:
            return cls(pd.read_parquet(path), shard_rows=shard_rows)
        except (pa.ArrowException, OSError, ValueError):
            # Without it nobody knows whose the rows are.
            raise DynapropError(f"{path} is damaged; delete the folder {path.parent} and extract again") from None

    def save(self, path: Path) -> None:
        """Write the table atomically."""
        publish_parquet(path, self.table)

    @property
    def n_shards(self) -> int:
        return int(self.table["shard"].max()) + 1 if len(self.table) else 0

    def current(self) -> pd.DataFrame:
        """The rows that are not tombstones, one a video."""
        return self.table[~self.table["removed"].astype(bool)]

    def shard(self, shard: int) -> pd.DataFrame:
        """The current videos of one shard, in row order."""
        table = self.current()
        return table[table["shard"] == shard].sort_values("row")

    def shards(self) -> list[int]:
        """Shards that hold at least one current video."""
        numbers = self.current()["shard"]
        return sorted(int(number) for number in numbers[numbers != NO_SHARD].unique())

    def without(self, video_ids: Iterable[str]) -> "Manifest":
        """A copy in which these videos are tombstones."""
        table = self.table.copy()
        table.loc[table["video_id"].isin(set(video_ids)), "removed"] = True
        return Manifest(table, shard_rows=self.shard_rows)

    def extended(self, videos: list[ProbedVideo]) -> "Manifest":
        """A copy with these videos appended in order, packed into new shards."""
        counts = [0 if video.grid is None else len(video.grid) for video in videos]
        places = pack(counts, first_shard=self.n_shards, shard_rows=self.shard_rows)
        rows = [_row(video, shard, row) for video, (shard, row) in zip(videos, places, strict=True)]
        added = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
        table = added if self.table.empty else pd.concat([self.table, added], ignore_index=True)
        return Manifest(table.reset_index(drop=True), shard_rows=self.shard_rows)


def pack(counts: list[int], *, first_shard: int, shard_rows: int) -> list[tuple[int, int]]:
    """Place videos one after another into shards, none across a border.

    Args:
        counts: clips of each video; a video without clips gets no place (``NO_SHARD``).
        first_shard: number of the first new shard.
        shard_rows: rows of a shard, at least ``max(counts)``.

    Returns:
        ``(shard, row)`` of each video; rows count through all shards.
    """
    places: list[tuple[int, int]] = []
    shard, used = first_shard, 0
    for count in counts:
        if count == 0:
            places.append((NO_SHARD, NO_SHARD))
            continue
        if count > shard_rows:
            raise ValueError(f"a video of {count} clips does not fit a shard of {shard_rows} rows")
        if used + count > shard_rows:
            shard, used = shard + 1, 0
        places.append((shard, shard * shard_rows + used))
        used += count
    return places


def _row(video: ProbedVideo, shard: int, row: int) -> dict[str, object]:
    failed = video.probe if isinstance(video.probe, VideoError) else None
    common = {
        "video_id": video.video_id,
        "path": video.path,
        "size": video.identity.size,
        "mtime_ns": video.identity.mtime_ns,
        "content": video.identity.content,
        "removed": False,
        "error_kind": failed.kind if failed else None,
        "error_detail": failed.detail if failed else None,
        "shard": shard,
        "row": row,
    }
    if isinstance(video.probe, VideoError) or video.grid is None:
        empty = {"frames": np.array([], np.int64), "timestamps": np.array([], np.float64)}
        return common | empty | {"n_clips": 0, "n_frames": 0, "duration": 0.0, "start": 0.0, "estimated": False} | {
            "width": 0, "height": 0, "codec": "", "container": "", "decoder": "",
        }  # fmt: skip
    probe = video.probe
    return common | {
        "n_clips": len(video.grid),
        "frames": video.grid.frames,
        "timestamps": video.grid.timestamps,
        "n_frames": probe.n_frames,
        "duration": probe.duration,
        "start": probe.start,
        "estimated": probe.estimated,
        "width": probe.width,
        "height": probe.height,
        "codec": probe.codec,
        "container": probe.container,
        "decoder": probe.decoder,
    }
