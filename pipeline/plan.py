"""Plan: bring a store's manifest up to date with the files on disk, and say what extraction has to do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.annotations import Video
from pipeline.clips import clip_grid
from pipeline.decode_pool import DecodePool
from pipeline.files import FileIdentity, file_identity
from pipeline.manifest import Manifest, ProbedVideo
from pipeline.probe import Probe
from pipeline.store import FeatureStore
from pipeline.video import VideoError

_VIDEOS_A_SAVE = 1024  # each save begins a new shard


@dataclass(frozen=True)
class Changes:
    """How the files on disk differ from a manifest."""

    to_probe: tuple[Video, ...]
    """New or changed videos, and failed ones when they are to be retried."""
    removed: tuple[str, ...]
    """Ids whose current row becomes a tombstone."""

    def __bool__(self) -> bool:
        return bool(self.to_probe or self.removed)


def compare(manifest: Manifest, videos: Sequence[Video], *, failed: Iterable[str] = ()) -> Changes:
    """Compare the videos on disk with the manifest; reads a file's bytes only where size or time changed.

    Args:
        manifest: what the store knows.
        videos: what there is.
        failed: ids to probe and extract anew although their files are the same.
    """
    current = {row.video_id: row for row in manifest.current().itertuples()}
    retry = set(failed)
    to_probe, removed, present = [], [], set()
    for video in videos:
        present.add(video.id)
        known = current.get(video.id)
        if known is None:
            to_probe.append(video)
        elif video.id in retry or not _same_file(known, video.path):
            removed.append(video.id)
            to_probe.append(video)
    removed += [video_id for video_id in current if video_id not in present]
    return Changes(tuple(to_probe), tuple(removed))


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
    probed: list[ProbedVideo] = []
    for video, probe in zip(changes.to_probe, pool.probe(str(video.path) for video in changes.to_probe), strict=True):
        grid = None
        if isinstance(probe, Probe):
            grid = clip_grid(
                probe.timestamps, probe.duration, clip_seconds=clip_seconds, min_clips=min_clips, max_clips=max_clips
            )
        probed.append(ProbedVideo(video.id, _relative(video.path, root), _identity(video.path), probe, grid))
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
    """Current videos that could not be probed or extracted, and why, by id.

    Args:
        store: the store.
        keys: names of the feature keys whose ledgers are asked.
    """
    current = store.manifest().current()
    bad = current[current["error_kind"].notna()]
    failures = {row.video_id: VideoError(row.error_kind, row.error_detail) for row in bad.itertuples()}
    places = set(zip(current["video_id"], current["row"], strict=True))
    for key in keys:
        table = store.ledger(key).read()
        for row in table[table["status"] == "failed"].itertuples():
            if (row.video_id, row.row) in places:
                failures[str(row.video_id)] = VideoError(str(row.error_kind), str(row.error_detail))
    return failures


def _same_file(known: object, path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return known.size == -1  # type: ignore[attr-defined]
    if (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns):  # type: ignore[attr-defined]
        return True
    return _content(path) == known.content  # type: ignore[attr-defined]


def _content(path: Path) -> str:
    return _identity(path).content


def _identity(path: Path) -> FileIdentity:
    try:
        return file_identity(path)
    except OSError:  # the probe has said why; an unreadable file has an identity too
        return FileIdentity(-1, -1, "")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
