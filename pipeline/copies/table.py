"""Transcoded copies of a dataset's videos: where they lie, the table that says which there are, and how they are used.

The copies of one short side lie in one folder, `$DYNAPROP_HOME/transcoded/<dataset>/<short side>p`. Readers trust only
`copies.parquet` in it: of what original a copy was made, and which file the copy was then.

They are used as a dataset of its own, ``NAME.256p``: its ids, labels, splits and groups are those of the original, its
paths those of the copies. So the manifest of its store, which has path, size, time and content of every video that was
decoded, records the copies as the source of the features.
"""

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.atomic import publish_parquet, read_parquet, writing
from dynaprop.pipeline.io.local_lock import LocalLockRecord
from dynaprop.pipeline.io.lock import StoreLock
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

_LONGEST = 180  # bytes of a name, of the 255 that file systems take: some are for what is put around it
_SIGNS = " .,+=@()[]'!-"  # of names, besides letters and digits
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


def copies_folder(dataset: DatasetSpec, short_side: int, home: Path) -> Path:
    """Folder of a dataset's copies."""
    return home / "transcoded" / dataset.name / f"{short_side}p"


def locate_copies(dataset: DatasetSpec, home: Path) -> DatasetSpec:
    """The same dataset; of transcoded copies (``Catalog.dataset_or_folder``) with the folder where they are as root."""
    if dataset.short_side is None:
        return dataset
    root = copies_folder(dataset.original(), dataset.short_side, home)
    return dataset.model_copy(update={"root": root, "generate": None})


def load_copies(folder: Path, *, target: str, short_side: int) -> CopyTable:
    """Read the table of copies that are to be used.

    Args:
        folder: of the copies.
        target: the dataset of the originals as the user named it, for messages.
        short_side: of the copies, for messages.

    Raises:
        DynapropError: there are none, or the table is damaged; with the command that makes it.
    """
    if not (folder / TABLE).exists():
        raise _lack_of_copies(f"no video of {target} has a copy of short side {short_side} yet;", target, short_side)
    try:
        return CopyTable.load(folder)
    except ValueError as error:
        raise _lack_of_copies(f"{error}; to verify all copies again,", target, short_side) from None


def copy_path(video_id: str) -> str:
    """Path of a video's copy relative to the folder of copies: below it, and another one for every id.

    It is the id with `.mp4` behind it, as far as names of files may hold what stands in ids; the rest is written as in
    URLs. Folders have no dot, so that none takes the name of a copy, of the table or of the lock.
    """
    *folders, name = video_id.split("/")
    return "/".join([_safe(folder, _SIGNS.replace(".", "")) or "%" for folder in folders] + [f"{_safe(name)}.mp4"])


def annotations_of_copies(
    annotations: Annotations, table: CopyTable, *, target: str, short_side: int, hashing: Hashing | None = None
) -> Annotations:
    """The same videos by the paths of their copies; those that no copy could be made of become absent.

    Args:
        annotations: of the originals.
        table: the copies.
        target: the dataset as the user named it, for messages.
        short_side: of the copies, for messages.
        hashing: shows how far it is where videos, or their copies, have to be read.

    Raises:
        UsageError: the videos are folders of pictures.
        DynapropError: videos were never tried, or have changed since, or their copies have; or all have failed.
    """
    require_files(annotations, target)
    videos: list[Video] = []
    failed: list[Video] = []
    lacking: list[Video] = []
    current = table.current(annotations.videos, hashing=hashing)
    if table.touched:
        table.remember()
    for video in annotations.videos:
        copy = current.get(video.id)
        if copy is None:
            lacking.append(video)
        else:
            there = replace(video, path=table.folder / copy.path)
            (videos if copy.error_kind is None else failed).append(there)
    if lacking:
        raise _lack_of_copies(
            f"{len(lacking):,} of {len(annotations.videos):,} videos have no copy of short side {short_side} yet, "
            f"{lacking[0].id} first;",
            target,
            short_side,
        )
    if not videos:
        problem = f"none of the {len(failed):,} videos of {target} could be copied; to see why,"
        raise _lack_of_copies(problem, target, short_side)
    lost = [replace(video, path=table.folder / copy_path(video.id)) for video in annotations.absent]
    absent = tuple(sorted([*lost, *failed], key=lambda video: video.id))
    return replace(annotations, videos=tuple(videos), absent=absent)


def _lack_of_copies(problem: str, target: str, short_side: int) -> DynapropError:
    return DynapropError(problem, remedy="transcode", target=target, options={"short_side": short_side})


def require_files(annotations: Annotations, target: str) -> None:
    """Check that a dataset's videos are files.

    Raises:
        UsageError: one of them is a folder of pictures.
    """
    for video in annotations.videos:
        if video.frames is not None:
            raise UsageError(
                f"{target}: {video.id} is a folder of pictures, which need no transcoding: they are read one by one"
            )


def _safe(name: str, signs: str = _SIGNS) -> str:
    """A name of letters, digits and these signs; what is too long for a file system ends in a digest."""
    safe = re.sub(rf"[^\w{re.escape(signs)}]", lambda sign: "".join(f"%{byte:02X}" for byte in _encoded(sign[0])), name)
    if len(_encoded(safe)) > _LONGEST:
        digest = hashlib.sha256(_encoded(name)).hexdigest()[:32]
        safe = f"{_encoded(safe)[: _LONGEST - 33].decode(errors='ignore')}%{digest}"
    return safe


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


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
