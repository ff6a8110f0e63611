"""Plan: bring a store's manifest up to date with the files on disk, and say what extraction has to do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.annotations import Video
from pipeline.clips import clip_grid
from pipeline.decode_pool import DecodePool
from pipeline.files import FileIdentity, file_identity, folder_identity, folder_stamp
from pipeline.manifest import ABSENT, Manifest, ProbedVideo, frame_folder
from pipeline.probe import Probe
from pipeline.store import FeatureStore
from pipeline.video import VideoError

_VIDEOS_A_SAVE = 1024  # each save begins a new shard
_NOTHING = FileIdentity(-1, -1, "")  # of a file that cannot be read


@dataclass(frozen=True)
class Changes:
    """How the files on disk differ from a manifest."""

    to_probe: tuple[Video, ...]
    """New or changed videos, and failed ones when they are to be retried."""
    removed: tuple[str, ...]
    """Ids whose current row becomes a tombstone."""
    absent: tuple[Video, ...] = ()
    """Listed videos that are not on disk, as far as the manifest does not say so yet."""
    moved: tuple[Video, ...] = ()
    """The same content under another path."""

    def __bool__(self) -> bool:
        return bool(self.to_probe or self.removed or self.absent or self.moved)


def compare(
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    root: Path,
    absent: Sequence[Video] = (),
    failed: Iterable[str] = (),
) -> Changes:
    """Compare the videos on disk with the manifest; reads a file's bytes only where size or time changed.

    Args:
        manifest: what the store knows.
        videos: what there is.
        root: folder that the manifest's paths are relative to.
        absent: what is listed besides, but not on disk.
        failed: ids to probe and extract anew although their files are the same.
    """
    current = {row.video_id: row for row in manifest.current().itertuples()}
    retry = set(failed)
    to_probe, removed, moved, listed = [], [], [], set()
    for video in videos:
        listed.add(video.id)
        known = current.get(video.id)
        if known is None:
            to_probe.append(video)
        elif video.id in retry or known.error_kind == ABSENT or not _same_video(known, video):
            removed.append(video.id)
            to_probe.append(video)
        elif known.path != _relative(video.path, root):
            moved.append(video)
    lost = []
    for video in absent:
        listed.add(video.id)
        known = current.get(video.id)
        if known is None or known.error_kind != ABSENT:
            lost.append(video)
            removed += [video.id] if known else []
    removed += [video_id for video_id in current if video_id not in listed]
    return Changes(tuple(to_probe), tuple(removed), tuple(lost), tuple(moved))


def apply_changes(
    manifest: Manifest,
    changes: Changes,
    *,
    pool: DecodePool,
    root: Path,
    clip_seconds: float,
    min_clips: int,
    max_clips: int,
    on_video: Callable[[], None] | None = None,
) -> Iterator[Manifest]:
    """Probe what is new; yield the manifest as it grows, so that an interrupted run has not probed for nothing.

    Args:
        manifest: the old manifest.
        changes: from ``compare``.
        pool: decode children, which probe.
        root: folder that the manifest's paths are relative to.
        clip_seconds, min_clips, max_clips: the clip grid, see ``clip_grid``.
        on_video: called after each probed video.
    """
    manifest = manifest.without(changes.removed)
    if changes.moved:
        manifest = manifest.moved({video.id: _relative(video.path, root) for video in changes.moved})
    if changes.absent:
        gone = VideoError(ABSENT, "not on disk")
        lost = [(video, _relative(video.path, root)) for video in changes.absent]
        manifest = manifest.extended(
            [ProbedVideo(video.id, path, _NOTHING, gone, None, video.frames) for video, path in lost]
        )
    probed: list[ProbedVideo] = []
    probes = pool.probe((str(video.path) for video in changes.to_probe), (video.frames for video in changes.to_probe))
    for video, probe in zip(changes.to_probe, probes, strict=True):
        grid = None
        if isinstance(probe, Probe):
            grid = clip_grid(
                probe.timestamps, probe.duration, clip_seconds=clip_seconds, min_clips=min_clips, max_clips=max_clips
            )
        path = _relative(video.path, root)
        probed.append(ProbedVideo(video.id, path, _identity(video), probe, grid, video.frames))
        if on_video:
            on_video()
        if len(probed) == _VIDEOS_A_SAVE:
            manifest, probed = manifest.extended(probed), []
            yield manifest
    yield manifest.extended(probed)


def shards_to_do(store: FeatureStore, manifest: Manifest, keys: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Shards with the names of the keys that are not published there."""
    published = {key: store.ledger(key).published() for key in keys}
    missing = {shard: tuple(key for key in keys if shard not in published[key]) for shard in manifest.shards()}
    return {shard: absent for shard, absent in missing.items() if absent}


def failed_videos(store: FeatureStore, keys: Sequence[str]) -> dict[str, VideoError]:
    """Current videos that could not be probed or extracted, and why, by id; absent ones have not failed.

    Args:
        store: the store.
        keys: names of the feature keys whose ledgers are asked.
    """
    current = store.manifest().current()
    bad = current[current["error_kind"].notna() & (current["error_kind"] != ABSENT)]
    failures = {row.video_id: VideoError(row.error_kind, row.error_detail) for row in bad.itertuples()}
    return failures | _with_status("failed", store, current, keys)


def partial_videos(store: FeatureStore, keys: Sequence[str]) -> dict[str, VideoError]:
    """Current videos that are used although something is missing, and what, by id; arguments as ``failed_videos``."""
    return _with_status("partial", store, store.manifest().current(), keys)


def _with_status(status: str, store: FeatureStore, current: pd.DataFrame, keys: Sequence[str]) -> dict[str, VideoError]:
    places = set(zip(current["video_id"], current["row"], strict=True))
    reasons = {}
    for key in keys:
        table = store.ledger(key).read()
        for row in table[table["status"] == status].itertuples():
            if (row.video_id, row.row) in places:
                reasons[str(row.video_id)] = VideoError(str(row.error_kind), str(row.error_detail))
    return reasons


def _same_video(known: Any, video: Video) -> bool:
    """Whether a row of the manifest (a named tuple) is about what now lies at the video's path."""
    if frame_folder(known._asdict()) != video.frames:
        return False
    try:
        if _stamp(known, video) == (known.size, known.mtime_ns):
            return True
    except OSError:
        return bool(known.size == _NOTHING.size)
    return _identity(video).content == known.content


def _stamp(known: Any, video: Video) -> tuple[int, int]:
    """Size and time of the file; for a frame folder of the pictures that the row has used."""
    if video.frames is None:
        status = video.path.stat()
        return status.st_size, status.st_mtime_ns
    used = [video.frames.name(video.frames.first + index) for index in (0, known.n_frames - 1) if known.n_frames]
    return folder_stamp(video.path, used)


def _identity(video: Video) -> FileIdentity:
    try:
        return folder_identity(video.path, video.frames) if video.frames else file_identity(video.path)
    except OSError:  # the probe has said why; an unreadable file has an identity too
        return _NOTHING


def _relative(path: Path, root: Path) -> str:
    return path.as_posix().removeprefix(f"{root.as_posix()}/")
