"""Outdated videos: cached by an earlier version, under other rules of which frame is read; are they still right?"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.clips import ClipGrid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest, ProbedVideo
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.identity import is_whole
from dynaprop.pipeline.video.probe import Probe

_PLACE = ["shard", "video_id", "row"]
_HOPELESS = "failed with decord"  # without a try by PyAV, where decord hung
_PASSING = frozenset({"timeout", "crash", "memory", "unreadable"})  # kinds of errors that may not come again


@dataclass(frozen=True)
class LookedAgain:
    """What came of looking at outdated videos."""

    videos: int
    """How many there were; those that cannot be read at the moment stay as they are."""
    same: tuple[ProbedVideo, ...]
    """Read today as then. The times of their frames are left out."""
    other: tuple[ProbedVideo, ...]


def cached_decoders(store: FeatureStore) -> dict[str, frozenset[str]]:
    """What read the cached frames of each current video, by id, whatever backbones they went through.

    A shard whose ledger cannot be read counts for nothing: whoever repairs it extracts it by today's rules.
    """
    current = store.manifest().current()[_PLACE]
    found: dict[str, frozenset[str]] = {}
    for key in list(store.keys()):
        ledger = store.ledger(key)
        for shard in sorted(ledger.published()):
            with suppress(DynapropError):
                rows = ledger.read_shard(shard)[[*_PLACE, "decoder", "status"]].merge(current, on=_PLACE)
                for row in rows.itertuples():
                    decoder = _HOPELESS if (row.status, row.decoder) == ("failed", "decord") else row.decoder
                    found[row.video_id] = found.get(row.video_id, frozenset()) | {sys.intern(decoder)}
    return found


def look_again(
    manifest: Manifest,
    videos: Iterable[ProbedVideo],
    decoders: Mapping[str, frozenset[str]],
    *,
    pool: DecodePool,
    root: Path,
) -> LookedAgain:
    """Tell the videos of which the frames that are read today are cached from the others.

    Args:
        manifest: as an earlier version left it.
        videos: current ones, probed anew.
        decoders: from ``cached_decoders``.
        pool: decode children.
        root: folder that the manifest's paths are relative to.

    Raises:
        InfrastructureError: the folder has gone.
    """
    table = manifest.current()
    places = {video_id: place for place, video_id in enumerate(table["video_id"])}
    count = 0
    same: list[ProbedVideo] = []
    other: list[ProbedVideo] = []
    asked: deque[ProbedVideo] = deque()

    def in_doubt() -> Iterator[tuple[str, Probe]]:
        nonlocal count
        for video in videos:
            count += 1
            row = table.iloc[places[video.video_id]]
            known_error = None if pd.isna(row.error_kind) else row.error_kind
            if isinstance(video.probe, VideoError):
                if known_error is None and video.probe.kind in _PASSING:
                    if not root.exists():
                        raise InfrastructureError(f"{root} has gone; is its disk still mounted?")
                    continue
                (same if known_error == video.probe.kind else other).append(video)
            elif (
                known_error
                or video.grid is None
                or other_content(row, video)
                or not same_places(row, video.probe, video.grid)
            ):
                other.append(video)
            elif video.folder is not None:
                same.append(_without_times(video))
            else:
                asked.append(video)
                yield str(root / video.path), video.probe

    for names in pool.read_alike(in_doubt()):
        video = asked.popleft()
        if decoders.get(video.video_id, frozenset()) <= set(names):
            same.append(_without_times(video))
        else:
            other.append(video)
    return LookedAgain(count, tuple(same), tuple(other))


def _without_times(video: ProbedVideo) -> ProbedVideo:
    """Without what a million videos have no room for in memory."""
    assert isinstance(video.probe, Probe)
    return replace(video, probe=replace(video.probe, timestamps=video.probe.timestamps[:0]))


def other_content(row: Any, video: ProbedVideo) -> bool:
    """Whether a row of the manifest is known to be of other bytes than were probed, whatever size and times say."""
    return is_whole(row.content) and row.content != video.identity.content


def same_places(row: Any, probe: Probe, grid: ClipGrid) -> bool:
    """Whether a row of the manifest has the clips of a grid at the same frames and times."""
    return bool(
        np.array_equal(row.frames, grid.frames)
        and np.array_equal(row.timestamps, grid.timestamps)
        and (row.n_frames, row.estimated, row.start, row.share)
        == (probe.n_frames, probe.estimated, probe.start, probe.share)
    )


def count_moved(videos: Iterable[Video], before: Manifest, after: Manifest) -> int:
    """How many of these videos have other rows in one manifest than in the other."""
    ids = {video.id for video in videos}
    old, new = (
        {row.video_id: row.row for row in table[table["video_id"].isin(ids)][["video_id", "row"]].itertuples()}
        for table in (before.current(), after.current())
    )
    return sum(old[video_id] != new[video_id] for video_id in ids)
