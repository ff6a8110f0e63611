"""What is in a store after an extraction, and what it took."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dynaprop.pipeline.extract.outcomes import ShardResult
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import ABSENT
from dynaprop.pipeline.store.packing import PLACE
from dynaprop.pipeline.video.container import VideoError


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
        for row in table[table["status"] == status].merge(current[PLACE], on=PLACE).itertuples():
            reasons[str(row.video_id)] = VideoError(str(row.error_kind), str(row.error_detail))
    return reasons


@dataclass(frozen=True)
class ExtractionSummary:
    """What an extraction left in the store."""

    videos: int
    """Videos on disk; absent ones are not counted."""
    usable: int
    failed: dict[str, VideoError]
    partial: dict[str, VideoError]
    """Usable videos of which something is missing, and what."""
    absent: tuple[str, ...]
    """Ids of the videos that the dataset lists and the disk lacks."""
    decoded: int
    """Videos that this run decoded, failed ones included."""
    forwarded: int
    """Frames that went through a backbone in this run, all branches together."""
    keys: dict[str, str]
    """Name of the feature key by backbone."""
    store: StoragePath


def summarise(store: FeatureStore, keys: dict[str, str], results: Sequence[ShardResult]) -> ExtractionSummary:
    """What is in the store now, and what a run did for it.

    Args:
        store: the store.
        keys: name of the feature key by backbone.
        results: the run's shards.
    """
    failed = failed_videos(store, list(keys.values()))
    manifest = store.manifest()
    absent = tuple(manifest.absent()["video_id"])
    videos = len(manifest.current()) - len(absent)
    return ExtractionSummary(
        videos=videos,
        usable=videos - len(failed),
        failed=failed,
        partial=partial_videos(store, list(keys.values())),
        absent=absent,
        decoded=sum(result.videos for result in results),
        forwarded=sum(result.frames for result in results),
        keys=keys,
        store=store.root,
    )


def published(store: FeatureStore, keys: Sequence[str], shard: int) -> ShardResult:
    """What the ledgers say of a shard that somebody has extracted; ``keys`` are the names of the feature keys."""
    frames, failed, partial = 0, dict[str, VideoError](), dict[str, VideoError]()
    for key in keys:
        rows = store.ledger(key).read_shard(shard)
        frames += int(rows.loc[rows["status"] != "failed", "n_clips"].sum())
        for status, errors in (("failed", failed), ("partial", partial)):
            for row in rows[rows["status"] == status].itertuples():
                errors[row.video_id] = VideoError(row.error_kind, row.error_detail)
    videos = store.manifest().shard(shard)
    return ShardResult(
        shard,
        videos=len(videos),
        clips=int(videos["n_clips"].sum()),
        frames=frames,
        failed=failed,
        partial={video: lack for video, lack in partial.items() if video not in failed},
    )
