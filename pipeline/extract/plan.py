"""Plan: bring a store's manifest up to date with the files on disk, and say what extraction has to do."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.clips import ClipGrid, clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.changed_files import find_changed, known_videos
from dynaprop.pipeline.extract.outdated import look_again, other_content, same_places
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import ABSENT, Manifest, ProbedVideo
from dynaprop.pipeline.store.packing import NO_SHARD
from dynaprop.pipeline.store.recorded import pictures_of
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.earlier_rules import READING_RULES
from dynaprop.pipeline.video.frame_folder import picture_numbers
from dynaprop.pipeline.video.identity import NOTHING, FileIdentity, Hashing, Source, Stamp
from dynaprop.pipeline.video.probe import Probe

_VIDEOS_A_SAVE = 1024  # at least; each save begins a new shard
_GROWTH = 4  # a save for each quarter more: all saves together cost no more than some of the whole
_SECONDS_A_SAVE = 120  # or sooner
_PLACE = ["shard", "video_id", "row"]
_FIRST = (0,)  # the picture that counts of a folder without clips


@dataclass(frozen=True)
class Changes:
    """How the files on disk differ from a manifest."""

    to_probe: tuple[Video, ...]
    """New or changed videos."""
    removed: tuple[str, ...]
    """Ids whose current row becomes a tombstone."""
    absent: tuple[Video, ...] = ()
    """Listed videos that are not on disk, as far as the manifest does not say so yet."""
    moved: tuple[Video, ...] = ()
    """The same content under another path."""
    retried: tuple[Video, ...] = ()
    """Unchanged videos that are to be probed and extracted again."""
    outdated: tuple[Video, ...] = ()
    """Unchanged videos that an earlier version read by its own rules: to be probed again, and extracted again where
    today's read other frames."""
    touched: tuple[tuple[str, FileIdentity], ...] = ()
    """Ids of videos of other times, but the same bytes, and what is to be noted of their files."""
    in_doubt: tuple[str, ...] = ()
    """Ids of some of those to probe: they may be the same, but an earlier version noted too little to tell."""

    def __bool__(self) -> bool:
        return bool(
            self.to_probe or self.removed or self.absent or self.moved or self.retried or self.outdated or self.touched
        )

    @property
    def n_probes(self) -> int:
        """Videos that have to be probed."""
        return len(self.to_probe) + len(self.retried) + len(self.outdated)

    def only(self, video_ids: Iterable[str]) -> "Changes":
        """Those of the changes that are about these videos."""
        ids = set(video_ids)

        def some(videos: tuple[Video, ...]) -> tuple[Video, ...]:
            return tuple(video for video in videos if video.id in ids)

        return Changes(
            to_probe=some(self.to_probe),
            removed=tuple(video_id for video_id in self.removed if video_id in ids),
            absent=some(self.absent),
            moved=some(self.moved),
            retried=some(self.retried),
            outdated=some(self.outdated),
            touched=tuple(one for one in self.touched if one[0] in ids),
            in_doubt=tuple(video_id for video_id in self.in_doubt if video_id in ids),
        )


def compare(
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    root: Path,
    absent: Sequence[Video] = (),
    retry: Iterable[str] = (),
    hashing: Hashing | None = None,
) -> Changes:
    """Compare the videos on disk with the manifest; reads a file, and all of it, only where size or a time changed.

    Args:
        manifest: what the store knows.
        videos: what there is.
        root: folder that the manifest's paths are relative to.
        absent: what is listed besides, but not on disk.
        retry: ids to probe and extract anew although their files are the same.
        hashing: shows how far the reading is.
    """
    current = known_videos(manifest)
    found = find_changed(manifest, current, videos, hashing=hashing)
    again, below = set(retry), f"{root.as_posix()}/"
    to_probe, removed, moved, retried, outdated, listed = [], [], [], [], [], set()
    for video in videos:
        listed.add(video.id)
        row = current.get(video.id)
        if row is None:
            to_probe.append(video)
        elif video.id in found.other:
            removed.append(video.id)
            to_probe.append(video)
        else:
            if video.id in again:
                retried.append(video)
            elif row.rules < READING_RULES:
                outdated.append(video)
            if row.path != video.path.as_posix().removeprefix(below):
                moved.append(video)
    lost = []
    for video in absent:
        listed.add(video.id)
        row = current.get(video.id)
        if row is None or row.error_kind != ABSENT:
            lost.append(video)
            removed += [video.id] if row else []
    removed += [video_id for video_id in current if video_id not in listed]
    return Changes(
        to_probe=tuple(to_probe),
        removed=tuple(removed),
        absent=tuple(lost),
        moved=tuple(moved),
        retried=tuple(retried),
        outdated=tuple(outdated),
        touched=tuple(found.touched.items()),
        in_doubt=tuple(found.in_doubt),
    )


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

    def probe_all(videos: Sequence[Video]) -> Iterator[ProbedVideo]:
        stamps: deque[Stamp] = deque()

        def paths() -> Iterator[str]:
            for video in videos:  # before the probe: a file that still grows is another one afterwards
                stamps.append(Source(video.path, video.frames, _FIRST).stamp())
                yield str(video.path)

        for video, probe in zip(videos, pool.probe(paths(), (video.frames for video in videos)), strict=True):
            grid = None
            if isinstance(probe, Probe):
                grid = clip_grid(
                    probe.timestamps,
                    probe.duration,
                    clip_seconds=clip_seconds,
                    min_clips=min_clips,
                    max_clips=max_clips,
                )
            identity = _identity(video, stamps.popleft(), probe, grid)
            if on_video:
                on_video()
            yield ProbedVideo(video.id, _relative(video.path, root), identity, probe, grid, video.frames)

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


def _in_time(videos: Iterator[ProbedVideo]) -> Iterator[ProbedVideo]:
    """The first one, and what comes before it is time for a save."""
    end = time.monotonic() + _SECONDS_A_SAVE
    for video in videos:
        yield video
        if time.monotonic() >= end:
            return


def shards_to_do(store: FeatureStore, manifest: Manifest, keys: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Shards with the names of the keys that are not published there, or not with the videos of this manifest."""
    wanted = manifest.current()[_PLACE]
    wanted = wanted[wanted["shard"] != NO_SHARD]
    missing: dict[int, list[str]] = {}
    for key in keys:
        published = wanted.merge(store.ledger(key).outcomes()[_PLACE], how="left", on=_PLACE, indicator="where")
        for shard in published.loc[published["where"] == "left_only", "shard"].unique():
            missing.setdefault(int(shard), []).append(key)
    return {shard: tuple(missing[shard]) for shard in sorted(missing)}


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
    reasons = {}
    for key in keys:
        table = store.ledger(key).outcomes()
        for row in table[table["status"] == status].merge(current[_PLACE], on=_PLACE).itertuples():
            reasons[str(row.video_id)] = VideoError(str(row.error_kind), str(row.error_detail))
    return reasons


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
