"""The manifest: which rows of the store belong to which clips of which video.

It is append-only: new or changed videos go to new shards at the end, removed ones leave a tombstone, and no row of the
store is ever given to another video; a video that owns none leaves nothing. Videos that a dataset lists and the disk
lacks have an entry too, of the error kind ``absent``. Labels and splits live elsewhere and may change freely.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from dynaprop.pipeline.clips import ClipGrid
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import writing
from dynaprop.pipeline.io.parquet import publish_parquet, read_parquet
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.packing import NO_SHARD, pack
from dynaprop.pipeline.store.recorded import IDENTITY
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.identity import UNKNOWN, FileIdentity
from dynaprop.pipeline.video.probe import Probe

ABSENT = "absent"  # error kind

# In Arrow's lists, as a million videos' arrays of their own would not fit into memory.
_INTEGERS, _NUMBERS = pd.ArrowDtype(pa.list_(pa.int64())), pd.ArrowDtype(pa.list_(pa.float64()))

COLUMNS = {
    "video_id": "object",
    "path": "object",  # where it was last seen, or where it should be; the id is what counts
    "size": "int64",  # -1: there was nothing to look at
    "mtime_ns": "int64",
    "content": "object",
    "removed": "bool",
    "error_kind": "object",  # None: the video can be decoded
    "error_detail": "object",
    "shard": "int64",
    "row": "int64",
    "n_clips": "int64",
    "frames": _INTEGERS,
    "timestamps": _NUMBERS,
    "n_frames": "int64",
    "duration": "float64",
    "start": "float64",
    "estimated": "bool",
    "width": "int64",
    "height": "int64",
    "codec": "object",
    "container": "object",
    "decoder": "object",
    "share": "float64",  # of what the container announces: how much is in the file
    "stream": "Int64",  # number of the video stream
    "note": "object",  # what decided between several, or which picture of a folder is missing
    "rules": "int64",  # READING_RULES of the version that probed it
    # How the pictures of a frame folder are named and timed; empty for a video file.
    "picture_template": "object",
    "picture_first": "Int64",
    "picture_fps": "float64",
    "picture_n_frames": "Int64",
    "ctime_ns": "int64",  # -1: an earlier version did not note it
}
# Not in the first manifests: what stands there for their videos.
_ADDED = {
    **{"share": 1.0, "stream": None, "note": "", "rules": 0},
    **{"picture_template": None, "picture_first": None, "picture_fps": None, "picture_n_frames": None},
    "ctime_ns": UNKNOWN,
}
_REFRESHED = ("width", "height", "codec", "container", "decoder", "stream", "note", "rules")


@dataclass(frozen=True)
class ProbedVideo:
    """One video as it enters the manifest."""

    video_id: str
    path: str
    identity: FileIdentity
    probe: Probe | VideoError
    grid: ClipGrid | None
    """None when the probe failed."""
    folder: FrameFolder | None = None
    """How the pictures are named where ``path`` is a frame folder."""


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
    def load(cls, path: StoragePath, *, shard_rows: int) -> Self:
        """Read the table, or begin an empty one.

        Raises:
            DynapropError: the file is damaged.
            InfrastructureError: a network disk or an object store is away.
        """
        try:
            read = read_parquet(path, required=[name for name in COLUMNS if name not in _ADDED])
            table = read.to_pandas(types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_list(kind) else None)
            for name, value in _ADDED.items():
                if name not in table:
                    table[name] = pd.Series([value] * len(table), dtype=COLUMNS[name])
                elif value is not None:  # an older version has added rows behind those of a newer one
                    table[name] = table[name].fillna(value)
            table = table.astype(COLUMNS)
            if table.loc[~table["removed"], "video_id"].duplicated().any():
                raise ValueError("a video twice")
        except FileNotFoundError:
            return cls.empty(shard_rows=shard_rows)
        except OSError as error:
            raise DynapropError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError):
            # Without it nobody knows whose the rows are.
            raise DynapropError(f"{path} is damaged; delete the folder {path.parent} and extract again") from None
        return cls(table, shard_rows=shard_rows)

    def save(self, path: StoragePath) -> None:
        """Write the table atomically; raises DynapropError where that cannot be."""
        with writing(path):
            publish_parquet(path, self.table)

    @property
    def n_shards(self) -> int:
        return int(self.table["shard"].max()) + 1 if len(self.table) else 0

    def current(self) -> pd.DataFrame:
        """The rows that are not tombstones, one a video; not to be changed."""
        return self._current

    @cached_property
    def _current(self) -> pd.DataFrame:
        removed = self.table["removed"].to_numpy(bool)
        return self.table[~removed] if removed.any() else self.table

    def absent(self) -> pd.DataFrame:
        """The current videos that are listed but not on disk."""
        table = self.current()
        return table[table["error_kind"] == ABSENT]

    def outdated(self) -> int:
        """Current videos that were probed under earlier rules; absent ones were not."""
        table = self.current()
        return int(((table["rules"] < READING_RULES) & (table["error_kind"] != ABSENT)).sum())

    @cached_property
    def _by_shard(self) -> dict[int, np.ndarray]:
        """Positions in the table of each shard's rows, tombstones among them."""
        indices: dict[int, np.ndarray] = self.table.groupby("shard").indices
        return indices

    def shard(self, shard: int) -> pd.DataFrame:
        """The current videos of one shard, in row order."""
        table = self.table.iloc[self._by_shard.get(shard, [])]
        return table[~table["removed"].astype(bool)].sort_values("row")

    def places(self, shard: int) -> set[tuple[str, int]]:
        """Ids and first rows of all videos that a shard has ever held, tombstones among them."""
        table = self.table.iloc[self._by_shard.get(shard, [])]
        return set(zip(table["video_id"], table["row"], strict=True))

    def shards(self) -> list[int]:
        """Shards that hold at least one current video."""
        numbers = self.current()["shard"]
        return sorted(int(number) for number in numbers[numbers != NO_SHARD].unique())

    def shards_of(self, video_ids: Iterable[str]) -> set[int]:
        """Shards that hold these videos, those of them that are current and own rows."""
        table = self.current()
        numbers = table.loc[table["video_id"].isin(set(video_ids)), "shard"]
        return {int(number) for number in numbers if number != NO_SHARD}

    def without(self, video_ids: Iterable[str]) -> "Manifest":
        """A copy in which these videos are tombstones, or are gone where they own no rows."""
        table = self.table.copy()
        table.loc[table["video_id"].isin(set(video_ids)), "removed"] = True
        table = table[~table["removed"].astype(bool) | (table["shard"] != NO_SHARD)]
        return Manifest(table.reset_index(drop=True), shard_rows=self.shard_rows)

    def moved(self, paths: Mapping[str, str]) -> "Manifest":
        """A copy in which these videos, by id, lie at other paths; their rows stay."""
        table = self.table.copy()
        place = table["video_id"].isin(set(paths)) & ~table["removed"].astype(bool)
        table.loc[place, "path"] = table.loc[place, "video_id"].map(dict(paths))
        return Manifest(table, shard_rows=self.shard_rows)

    def restamped(self, identities: Mapping[str, FileIdentity]) -> "Manifest":
        """A copy that notes of these current videos, by id, what their files are; their rows stay."""
        table = self.table.copy()
        current = self.current()["video_id"]
        places = current[current.isin(set(identities))]
        for name in IDENTITY:
            values = [getattr(identities[video_id], name) for video_id in places]
            table.loc[places.index, name] = pd.Series(values, index=places.index, dtype=COLUMNS[name])
        return Manifest(table, shard_rows=self.shard_rows)

    def identities(self) -> dict[str, FileIdentity]:
        """What each current video was when it was read, by id, as far as all of its bytes are known.

        Of a folder it is that of the pictures that its clips show.
        """
        table = self.current()
        columns = (table[name] for name in ("video_id", *IDENTITY))
        found = {video: FileIdentity(*values) for video, *values in zip(*columns, strict=True)}
        return {video: identity for video, identity in found.items() if identity.is_whole}

    def refreshed(self, videos: Iterable[ProbedVideo]) -> "Manifest":
        """A copy that says of these current videos what is known of them today; their rows and clips stay."""
        current, table = self.current(), self.table.copy()
        places = dict(zip(current["video_id"], current.index, strict=True))
        rows = {places[video.video_id]: _row(video) for video in videos}
        for name in _REFRESHED:
            values = [row[name] for row in rows.values()]
            table.loc[list(rows), name] = pd.Series(values, index=list(rows), dtype=COLUMNS[name])
        return Manifest(table, shard_rows=self.shard_rows)

    def extended(self, videos: Iterable[ProbedVideo]) -> "Manifest":
        """A copy with these videos appended in order, packed into new shards."""
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for video in videos:  # one after the other, as the times of all frames would not fit into memory
            for name, value in _row(video).items():
                columns[name].append(value)
        places = pack(columns["n_clips"], first_shard=self.n_shards, shard_rows=self.shard_rows)
        columns["shard"], columns["row"] = map(list, zip(*places, strict=True)) if places else ([], [])
        added = pd.DataFrame({name: _column(values, COLUMNS[name]) for name, values in columns.items()})
        table = added if self.table.empty else pd.concat([self.table, added], ignore_index=True)
        return Manifest(table.reset_index(drop=True), shard_rows=self.shard_rows)


def _column(values: list[Any], dtype: Any) -> pd.Series:
    if not isinstance(dtype, pd.ArrowDtype):
        return pd.Series(values, dtype=dtype)
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.concatenate(values) if values else np.array([])
    lists = pa.ListArray.from_arrays(ends, pa.array(flat, dtype.pyarrow_dtype.value_type))
    return pd.Series(pd.arrays.ArrowExtensionArray(lists))


def _row(video: ProbedVideo) -> dict[str, Any]:
    failed = video.probe if isinstance(video.probe, VideoError) else None
    common = {
        "video_id": video.video_id,
        "path": video.path,
        "size": video.identity.size,
        "mtime_ns": video.identity.mtime_ns,
        "content": video.identity.content,
        "ctime_ns": video.identity.ctime_ns,
        "removed": False,
        "rules": READING_RULES,
        "error_kind": failed.kind if failed else None,
        "error_detail": failed.detail if failed else None,
        "picture_template": video.folder.template if video.folder else None,
        "picture_first": video.folder.first if video.folder else None,
        "picture_fps": video.folder.fps if video.folder else None,
        "picture_n_frames": video.folder.n_frames if video.folder else None,
    }
    if isinstance(video.probe, VideoError) or video.grid is None:
        empty = {"frames": np.array([], np.int64), "timestamps": np.array([], np.float64)}
        return common | empty | {"n_clips": 0, "n_frames": 0, "duration": 0.0, "start": 0.0, "estimated": False} | {
            "width": 0, "height": 0, "codec": "", "container": "", "decoder": "", "share": 1.0,
            "stream": None, "note": "",
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
        "share": probe.share,
        "stream": probe.stream,
        "note": probe.note,
    }
