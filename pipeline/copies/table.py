"""The table of transcoded copies, `copies.parquet` in their folder: which there are, of what original each was made,
and which file it was then. Readers trust nothing else.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.copies.names import copy_path
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.atomic import writing
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
from dynaprop.pipeline.io.parquet import publish_parquet, read_parquet
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.identity import (
    NOTHING,
    UNKNOWN,
    FileIdentity,
    Hashing,
    Source,
    Stamp,
    could_be,
    identify_all,
)

TABLE = "copies.parquet"
_COLUMNS = {
    "video_id": "object",
    "status": "object",  # ok or failed
    "error_kind": "object",
    "error_detail": "object",
    "original_size": "int64",  # -1: there was nothing to look at
    "original_mtime_ns": "int64",
    "original_content": "object",
    "path": "object",  # of the copy, below the folder
    "copy_size": "int64",  # -1: there is none
    "copy_mtime_ns": "int64",
    "copy_content": "object",
    "n_frames": "int64",
    "duration": "float64",
    "width": "int64",
    "height": "int64",
    "seconds": "float64",
    "rules": "int64",
    "original_ctime_ns": "int64",  # -1: an earlier version did not note it
    "copy_ctime_ns": "int64",
}
# Not in the first tables: what stands there for their copies.
_ADDED = {"rules": 0, "original_ctime_ns": UNKNOWN, "copy_ctime_ns": UNKNOWN}


@dataclass(frozen=True)
class Copy:
    """What became of one video."""

    video_id: str
    original: FileIdentity
    """The file as it was when its copy was begun."""
    path: str
    """Of the copy, relative to the folder of copies."""
    copy: FileIdentity = NOTHING
    n_frames: int = 0
    duration: float = 0.0
    """Of the video, seconds."""
    width: int = 0
    """Of the copy, as height."""
    height: int = 0
    seconds: float = 0.0
    """Wall time that the copy took."""
    error_kind: str | None = None
    """None: there is a copy."""
    error_detail: str | None = None
    rules: int = READING_RULES
    """Under which it was made, or was found to be right."""


class CopyTable:
    """The table of one folder of copies, by video id.

    Args:
        folder: the folder; it need not exist.
        copies: what is known.
    """

    def __init__(self, folder: Path, copies: Iterable[Copy] = ()) -> None:
        self.folder = folder
        self.copies = {copy.video_id: copy for copy in copies}
        self._touched: dict[str, tuple[Copy, Copy]] = {}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the table, or begin an empty one.

        Raises:
            ValueError: it is damaged, or another version's.
        """
        path = folder / TABLE
        if not path.exists():
            return cls(folder)
        try:
            required = [name for name in _COLUMNS if name not in _ADDED]
            table = read_parquet(path, required=required).to_pandas()
            table = table.assign(**{name: value for name, value in _ADDED.items() if name not in table})
            table = table[list(_COLUMNS)].astype(_COLUMNS)
            copies = list(map(_copy, table.astype(object).where(table.notna(), None).to_dict("records")))
            if strange := [copy.path for copy in copies if copy.path != copy_path(copy.video_id)]:
                raise ValueError(f"a copy lies elsewhere: {strange[0]}")
        except (OSError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(folder, copies)

    def save(self) -> None:
        """Write the table atomically; raises DynapropError where that cannot be."""
        rows = [_row(self.copies[video_id]) for video_id in sorted(self.copies)]
        path = self.folder / TABLE
        with writing(path):
            publish_parquet(path, pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS))

    def put(self, copy: Copy) -> None:
        """Add what became of a video, or replace it."""
        self.copies[copy.video_id] = copy

    @property
    def touched(self) -> bool:
        """Whether files had other times, and the same bytes, than the table on disk says."""
        return bool(self._touched)

    def current(self, videos: Iterable[Video], *, hashing: Hashing | None = None) -> dict[str, Copy]:
        """What became of videos as they are on disk, by id; without those never tried or changed, or whose copy has.

        A file is read, and all of it, only where its size or a time has changed; what times it has is noted then.

        Args:
            videos: files.
            hashing: shows how far the reading is.
        """
        found: dict[str, Copy] = {}
        asked: list[tuple[str, str, FileIdentity, Source, Stamp]] = []
        for video in videos:
            copy = self.copies.get(video.id)
            if copy is None:
                continue
            read = self._to_read(copy, video)
            if read is not None:
                found[video.id] = copy
                asked += read
        identities = identify_all([(source, stamp) for *_, source, stamp in asked], hashing=hashing)
        for (video_id, name, known, *_), identity in zip(asked, identities, strict=True):
            if identity.content != known.content:
                found.pop(video_id, None)
            elif video_id in found:
                found[video_id] = replace(found[video_id], **{name: identity})  # type: ignore[arg-type]
        for video_id, copy in found.items():
            if copy != self.copies[video_id]:
                self._touched[video_id] = self.copies[video_id], copy
                self.copies[video_id] = copy
        return found

    def _to_read(self, copy: Copy, video: Video) -> list[tuple[str, str, FileIdentity, Source, Stamp]] | None:
        """The files of a copy whose bytes have to tell whether they are the same; None where one has changed."""
        read = []
        for name, path, known in (
            ("original", video.path, copy.original),
            *([("copy", self.folder / copy.path, copy.copy)] if copy.error_kind is None else []),
        ):
            source = Source(path)
            stamp = source.stamp()
            noted = known.is_whole or known.ctime_ns != UNKNOWN  # else a copy was known by its size alone
            if known.is_of(stamp) or (name == "copy" and not noted and known.size == stamp[0]):
                continue
            if not could_be(known, stamp):
                return None
            read.append((copy.video_id, name, known, source, stamp))
        return read

    def remember(self) -> None:
        """Note on disk what was touched. Where that cannot be, whoever comes next reads it again."""
        with (
            suppress(DynapropError, ValueError),
            StoreLock(LocalLockRecord(self.folder), name=str(self.folder)) as lock,
        ):
            table = CopyTable.load(self.folder)  # as whoever held the lock has left it
            for before, after in self._touched.values():
                if table.copies.get(before.video_id) == before:
                    table.put(after)
            lock.check()
            table.save()
            self._touched.clear()


def _row(copy: Copy) -> dict[str, object]:
    row = asdict(copy)
    for name in ("original", "copy"):
        row |= {f"{name}_{key}": value for key, value in row.pop(name).items()}
    return row | {"status": "ok" if copy.error_kind is None else "failed"}


def _copy(row: dict[str, object]) -> Copy:
    def identity(name: str) -> FileIdentity:
        keys = ("size", "mtime_ns", "content", "ctime_ns")
        return FileIdentity(**{key: row.pop(f"{name}_{key}") for key in keys})  # type: ignore[arg-type]

    del row["status"]
    return Copy(original=identity("original"), copy=identity("copy"), **row)  # type: ignore[arg-type]
