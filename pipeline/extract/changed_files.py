"""Changed files: which of the videos that a manifest knows are no longer what was read."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.store.manifest import ABSENT, Manifest
from dynaprop.pipeline.store.recorded import frame_folder, identity_of, pictures_of
from dynaprop.pipeline.video.identity import (
    UNKNOWN,
    FileIdentity,
    Hashing,
    Source,
    Stamp,
    could_be,
    identify_all,
    is_whole,
)

_KNOWN = [
    *("video_id", "path", "size", "mtime_ns", "content", "ctime_ns", "error_kind", "n_frames"),
    *("picture_template", "picture_first", "picture_fps", "picture_n_frames", "rules"),
]  # what tells whether a video is the same


@dataclass(frozen=True)
class ChangedFiles:
    """What lies where known videos lay, by id; what is not named is the same."""

    other: set[str]
    touched: dict[str, FileIdentity]
    """The same bytes at other times."""
    in_doubt: list[str]
    """Some of the others: see ``Changes``."""


def find_changed(
    manifest: Manifest, known: Mapping[str, Any], videos: Iterable[Video], *, hashing: Hashing | None = None
) -> ChangedFiles:
    """Tell the videos that have changed from those that were touched: by size and times, then by their bytes.

    Args:
        manifest: what the store knows.
        known: its ``known_videos``.
        videos: what there is; new ones are passed over.
        hashing: shows how far the reading is.
    """
    folders = manifest.current()
    folders = folders[folders["picture_template"].notna()]
    clips = dict(zip(folders["video_id"], folders["frames"], strict=True))
    found = ChangedFiles(set(), {}, [])
    asked: list[tuple[str, str, Source, Stamp]] = []
    for video in videos:
        row = known.get(video.id)
        if row is None or (video.frames is None and _is_untouched(row, video.path)):
            continue
        folder = frame_folder(row._asdict())
        if row.error_kind == ABSENT or folder != video.frames:
            found.other.add(video.id)
            continue
        then = identity_of(row)
        source = Source(video.path, folder, () if folder is None else pictures_of(then, clips[video.id], row.n_frames))
        stamp = source.stamp()
        if then.is_of(stamp):
            continue
        if could_be(then, stamp):
            asked.append((video.id, then.content, source, stamp))
            continue
        found.other.add(video.id)
        if then.content and not then.is_whole and then.size == stamp[0] and not isinstance(row.error_kind, str):
            found.in_doubt.append(video.id)
    identities = identify_all([(source, stamp) for *_, source, stamp in asked], hashing=hashing)
    for (video_id, content, *_), now in zip(asked, identities, strict=True):
        if now.content == content:
            found.touched[video_id] = now
        else:
            found.other.add(video_id)
    return found


def _is_untouched(row: Any, path: Path) -> bool:
    """Whether a file looks as a row says: what nearly all do, so it is to be quick."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    return bool(
        row.mtime_ns == status.st_mtime_ns
        and row.size == status.st_size
        and (row.ctime_ns == status.st_ctime_ns or (row.ctime_ns == UNKNOWN and not is_whole(row.content)))
        and not isinstance(row.picture_template, str)
    )


def known_videos(manifest: Manifest) -> dict[str, Any]:
    """The current rows of a manifest by id, as named tuples of what tells whether a video is the same."""
    return {row.video_id: row for row in manifest.current()[_KNOWN].itertuples(index=False)}
