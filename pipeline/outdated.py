"""Outdated videos: cached by an earlier version, under other rules of which frame is read; are they still right?"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clips import ClipGrid
from pipeline.decode_pool import DecodePool
from pipeline.manifest import Manifest, ProbedVideo
from pipeline.probe import Probe
from pipeline.store import FeatureStore
from pipeline.video import VideoError

_PLACE = ["shard", "video_id", "row"]


def cached_decoders(store: FeatureStore) -> dict[str, frozenset[str]]:
    """What read the cached frames of each current video, by id, whatever backbones they went through."""
    current = store.manifest().current()[_PLACE]
    found: dict[str, set[str]] = {}
    for key in list(store.keys()):
        rows = store.ledger(key).read(["decoder"]).merge(current, on=_PLACE)
        for video_id, decoder in zip(rows["video_id"], rows["decoder"], strict=True):
            found.setdefault(video_id, set()).add(decoder)
    return {video_id: frozenset(decoders) for video_id, decoders in found.items()}


def read_as_today(
    manifest: Manifest,
    videos: Sequence[ProbedVideo],
    decoders: Mapping[str, frozenset[str]],
    *,
    pool: DecodePool,
    root: Path,
) -> set[str]:
    """Ids of the videos of which an earlier version has cached the frames that are read today."""
    table = manifest.current()
    ids = {video.video_id for video in videos}
    known = {row.video_id: row for row in table[table["video_id"].isin(ids)].itertuples()}
    alike = {video.video_id for video in videos if _same_failure(known[video.video_id], video.probe)}
    candidates = [
        (video.video_id, str(root / video.path), video.probe)
        for video in videos
        if isinstance(video.probe, Probe)
        and video.grid is not None
        and same_places(known[video.video_id], video.probe, video.grid)
    ]
    found = pool.read_alike((path, probe) for _, path, probe in candidates)
    for (video_id, _, _), names in zip(candidates, found, strict=True):
        if decoders.get(video_id, frozenset()) <= set(names):
            alike.add(video_id)
    return alike


def _same_failure(row: Any, probe: Probe | VideoError) -> bool:
    return isinstance(probe, VideoError) and row.error_kind == probe.kind


def same_places(row: Any, probe: Probe, grid: ClipGrid) -> bool:
    """Whether a row of the manifest has the clips of a grid at the same frames and times."""
    return bool(
        np.array_equal(row.frames, grid.frames)
        and np.array_equal(row.timestamps, grid.timestamps)
        and (row.n_frames, row.estimated) == (probe.n_frames, probe.estimated)
    )


def count_moved(video_ids: Iterable[str], before: Manifest, after: Manifest) -> int:
    """How many of these videos have other rows in one manifest than in the other."""
    old, new = (
        dict(zip(table["video_id"], table["row"], strict=True)) for table in (before.current(), after.current())
    )
    return sum(old[video] != new[video] for video in video_ids)
