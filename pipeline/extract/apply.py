"""A store's manifest brought up to date with the files on disk: what is new is probed."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.clips import ClipGrid, clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.changes import Changes
from dynaprop.pipeline.extract.outdated import look_again, other_content, same_places
from dynaprop.pipeline.store.manifest import ABSENT, Manifest, ProbedVideo
from dynaprop.pipeline.store.packing import NO_SHARD
from dynaprop.pipeline.store.recorded import pictures_of
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.frame_folder import picture_numbers
from dynaprop.pipeline.video.identity import NOTHING, FileIdentity, Source, Stamp
from dynaprop.pipeline.video.probe import Probe

_VIDEOS_A_SAVE = 1024  # at least; each save begins a new shard
_GROWTH = 4  # a save for each quarter more: all saves together cost no more than some of the whole
_SECONDS_A_SAVE = 120  # or sooner
_FIRST = (0,)  # the picture that counts of a folder without clips


def apply_changes(
    manifest: Manifest,
    changes: Changes,
    *,
    pool: DecodePool,
    root: Path,
    clip_seconds: float,
    min_clips: int,
    max_clips: int,
    decoders: Mapping[str, frozenset[str]] | None = None,
    on_video: Callable[[], None] | None = None,
) -> Iterator[Manifest]:
    """Probe what is new; yield the manifest as it grows, so that an interrupted run has not probed for nothing.

    Retried videos keep their rows where no other video lies in the shard and the probe says what it said; all others
    move to shards of their own, once: however often a bad video is tried again, the store grows no further. Outdated
    videos keep their rows where today's rules read the same frames, and move where they do not.

    Args:
        manifest: the old manifest.
        changes: from ``compare``.
        pool: decode children, which probe.
        root: folder that the manifest's paths are relative to.
        clip_seconds, min_clips, max_clips: the clip grid, see ``clip_grid``.
        decoders: what read the cached frames of the outdated videos, by id.
        on_video: called after each probed video.
    """
    manifest = _noted(manifest, changes, root)

    def probe_all(videos: Sequence[Video]) -> Iterator[ProbedVideo]:
        grid = partial(clip_grid, clip_seconds=clip_seconds, min_clips=min_clips, max_clips=max_clips)
        return _probe_all(videos, pool=pool, root=root, grid_of=grid, on_video=on_video)

    probed = probe_all(changes.to_probe)
    left = len(changes.to_probe)
    while left > 0:
        size = max(_VIDEOS_A_SAVE, len(manifest.table) // _GROWTH)
        grown = manifest.extended(_in_time(islice(probed, size)))
        left -= len(grown.table) - len(manifest.table)
        manifest = grown
        yield manifest
    if not changes.to_probe:
        yield manifest
    if changes.retried:
        again = list(probe_all(changes.retried))
        staying = _staying(manifest, again)
        moving = [video for video in again if video.video_id not in staying]
        manifest = manifest.refreshed(video for video in again if video.video_id in staying)
        manifest = manifest.without(video.video_id for video in moving).extended(moving)
        yield manifest
    probed = probe_all(changes.outdated)
    left = len(changes.outdated)
    while left > 0:
        size = max(_VIDEOS_A_SAVE, len(manifest.table) // _GROWTH)
        looked = look_again(manifest, _in_time(islice(probed, size)), decoders or {}, pool=pool, root=root)
        left -= looked.videos
        manifest = manifest.refreshed(looked.same)
        manifest = manifest.without(video.video_id for video in looked.other).extended(looked.other)
        yield manifest


def _noted(manifest: Manifest, changes: Changes, root: Path) -> Manifest:
    """A copy that says of what was removed, touched, moved and lost, none of which takes a probe."""
    manifest = manifest.without(changes.removed)
    if changes.touched:
        manifest = manifest.restamped(dict(changes.touched))
    if changes.moved:
        manifest = manifest.moved({video.id: _relative(video.path, root) for video in changes.moved})
    if changes.absent:
        gone = VideoError(ABSENT, "not on disk")
        lost = [(video, _relative(video.path, root)) for video in changes.absent]
        manifest = manifest.extended(
            [ProbedVideo(video.id, path, NOTHING, gone, None, video.frames) for video, path in lost]
        )
    return manifest


def _probe_all(
    videos: Sequence[Video],
    *,
    pool: DecodePool,
    root: Path,
    grid_of: Callable[[np.ndarray, float], ClipGrid],
    on_video: Callable[[], None] | None,
) -> Iterator[ProbedVideo]:
    stamps: deque[Stamp] = deque()

    def paths() -> Iterator[str]:
        for video in videos:  # before the probe: a file that still grows is another one afterwards
            stamps.append(Source(video.path, video.frames, _FIRST).stamp())
            yield str(video.path)

    for video, probe in zip(videos, pool.probe(paths(), (video.frames for video in videos)), strict=True):
        grid = grid_of(probe.timestamps, probe.duration) if isinstance(probe, Probe) else None
        identity = _identity(video, stamps.popleft(), probe, grid)
        if on_video:
            on_video()
        yield ProbedVideo(video.id, _relative(video.path, root), identity, probe, grid, video.frames)


def _in_time(videos: Iterator[ProbedVideo]) -> Iterator[ProbedVideo]:
    """The first one, and what comes before it is time for a save."""
    end = time.monotonic() + _SECONDS_A_SAVE
    for video in videos:
        yield video
        if time.monotonic() >= end:
            return


def _staying(manifest: Manifest, videos: Sequence[ProbedVideo]) -> set[str]:
    """Ids of the videos that can be extracted again into their own rows: nothing else lies in the shard."""
    table = manifest.current()
    table = table[table["shard"] != NO_SHARD]
    shards = table.groupby("shard")["video_id"].agg(set)
    all_again = {video.video_id for video in videos}
    free = set().union(*(ids for ids in shards if ids <= all_again))
    known = {row.video_id: row for row in table[table["video_id"].isin(free)].itertuples()}
    return {
        video.video_id
        for video in videos
        if video.grid is not None
        and isinstance(video.probe, Probe)
        and (row := known.get(video.video_id)) is not None
        and row.rules == READING_RULES  # else another recipe's features may be of other frames
        and not other_content(row, video)
        and same_places(row, video.probe, video.grid)
    }


def _identity(video: Video, stamp: Stamp, probe: Probe | VideoError, grid: ClipGrid | None) -> FileIdentity:
    """What is to be noted of a file that looked like ``stamp`` before it was probed.

    Of one that is no video the times alone count: to probe it once more is quicker than to read it.
    """
    if isinstance(probe, VideoError) or grid is None:
        return FileIdentity(stamp[0], stamp[1], "", stamp[2])
    if video.frames is None:
        return FileIdentity(stamp[0], stamp[1], probe.content, stamp[2])
    identity = Source(video.path, video.frames, pictures_of(NOTHING, grid.frames, probe.n_frames)).identity()
    try:
        pictures = len(picture_numbers(video.path, video.frames))
    except OSError:
        return NOTHING
    there = round(probe.share * probe.n_frames)
    return identity if pictures == there else NOTHING  # else pictures came or went since


def _relative(path: Path, root: Path) -> str:
    return path.as_posix().removeprefix(f"{root.as_posix()}/")
