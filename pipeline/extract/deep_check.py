"""Deep check: do a few videos, decoded and run through the backbones once more, give the features that are stored?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.extract.changes import compare
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.recorded import identity_of
from dynaprop.pipeline.video.identity import FileIdentity

MIN_COSINE = 0.999  # other machines, thread counts and neighbours in a batch give other last bits, and not more
_FAILED = "failed"


@dataclass(frozen=True)
class SampledVideos:
    """What became of the files of some videos since they were extracted."""

    unchanged: tuple[Video, ...]
    gone: tuple[str, ...]
    """Ids of those that are no longer on disk, or no longer of the dataset."""
    changed: tuple[str, ...]


@dataclass(frozen=True)
class DeepCheck:
    """How the stored features of some videos compare with those of a second extraction."""

    videos: int
    clips: int
    """Clips that were compared, those of all feature keys together."""
    identical: int
    """Videos whose features are the same in every bit, or which have failed both times."""
    cosine: float
    """The smallest between a stored feature and its second; 1 if there are none."""
    problems: dict[str, str]
    """What is wrong, by video."""
    other_outcome: tuple[str, ...]
    """Those of them that have another status, number of clips or file now."""
    learnt: dict[str, FileIdentity]
    """What the files are whose features are right, by video, as far as an earlier version noted less."""


def sample_videos(
    store: FeatureStore, keys: Sequence[str], *, count: int, seed: int, bad_shards: Collection[int] = ()
) -> list[str]:
    """Ids of at most ``count`` random videos whose shards are published under all of the keys and not bad, sorted."""
    published = set.intersection(*(store.ledger(key).published() for key in keys)) - set(bad_shards)
    table = store.manifest().current()
    ids = sorted(table.loc[table["shard"].isin(published), "video_id"])
    chosen = np.random.default_rng(seed).permutation(len(ids))[:count]
    return sorted(ids[index] for index in chosen)


def sort_out(video_ids: Sequence[str], *, store: FeatureStore, annotations: Annotations, root: Path) -> SampledVideos:
    """Tell the videos whose files are what was extracted from those that are gone or have changed."""
    wanted = set(video_ids)
    there = [video for video in annotations.videos if video.id in wanted]
    manifest = store.manifest()
    table = manifest.table[manifest.table["video_id"].isin(wanted)]
    probe = {video.id for video in compare(Manifest(table, shard_rows=store.shard_rows), there, root=root).to_probe}
    return SampledVideos(
        unchanged=tuple(video for video in there if video.id not in probe),
        gone=tuple(sorted(wanted - {video.id for video in there})),
        changed=tuple(sorted(probe)),
    )


def compare_features(
    video_ids: Sequence[str], *, stored: FeatureStore, second: FeatureStore, keys: Sequence[str]
) -> DeepCheck:
    """Compare two stores' features of some videos, clip by clip.

    Args:
        video_ids: current videos of both stores.
        stored: the store to check.
        second: a store that the videos were extracted into once more.
        keys: names of the feature keys.
    """
    clips, cosine = 0, 1.0
    problems: dict[str, str] = {}
    different: set[str] = set()
    other_outcome: set[str] = set()
    known, found = (_identities(store, video_ids) for store in (stored, second))
    for video in video_ids:
        if not (video in known and known[video].is_whole and found[video].is_whole):
            continue  # unknown then, or not to be read now, which the outcomes below say
        if found[video].content != known[video].content:
            problems[video] = "its file has other bytes than were extracted, at the same size and times"
            other_outcome.add(video)
    for key in keys:
        first_rows, second_rows = _rows(stored, key, video_ids), _rows(second, key, video_ids)
        for video in video_ids:
            before, now = _outcome(first_rows.get(video)), _outcome(second_rows.get(video))
            if before != now:
                problems.setdefault(video, f"{key}: {before} is stored, {now} came out")
                other_outcome.add(video)
                continue
            if before == _FAILED:
                continue
            old, new = _features(stored, key, first_rows[video]), _features(second, key, second_rows[video])
            clips += len(old)
            if old.tobytes() == new.tobytes():
                continue
            different.add(video)
            cosines = _cosines(old, new)
            cosine = min(cosine, float(cosines.min()))
            if not cosines.min() >= MIN_COSINE:
                clip = int(cosines.argmin())
                problems.setdefault(video, f"{key}: clip {clip} has a cosine of {cosines[clip]:.4f} with its second")
    identical = len(set(video_ids) - different - other_outcome)
    proven = _of_no_other_key(stored, keys, set(video_ids) - problems.keys())
    learnt = {
        video: found[video]
        for video in sorted(proven & known.keys())
        if found[video].is_whole and not known[video].is_whole
    }
    return DeepCheck(len(video_ids), clips, identical, cosine, problems, tuple(sorted(other_outcome)), learnt)


def _identities(store: FeatureStore, video_ids: Sequence[str]) -> dict[str, FileIdentity]:
    """What the manifest says of the files of these videos, by id."""
    table = store.manifest().current()
    return {row.video_id: identity_of(row) for row in table[table["video_id"].isin(set(video_ids))].itertuples()}


def _of_no_other_key(store: FeatureStore, keys: Sequence[str], video_ids: set[str]) -> set[str]:
    """Those of the videos that have no features under other keys, which may be of an earlier file."""
    others = store.keys().keys() - set(keys)
    published = set().union(*(store.ledger(key).published() for key in others))
    table = store.manifest().current()
    return video_ids - set(table.loc[table["shard"].isin(published), "video_id"])


def _outcome(row: Any) -> str:
    """Status and clips of a ledger's row; a video that no probe could read is in no ledger."""
    return _FAILED if row is None or row.status == "failed" else f"{row.status} with {row.n_clips} clips"


def _rows(store: FeatureStore, key: str, video_ids: Sequence[str]) -> dict[str, Any]:
    """The ledger's rows of these videos, by id."""
    manifest = store.manifest()
    current = manifest.current()
    current = current[current["video_id"].isin(set(video_ids))]
    places = set(zip(current["video_id"], current["row"], strict=True))
    ledger = store.ledger(key)
    rows = (row for shard in sorted(manifest.shards_of(video_ids)) for row in ledger.read_shard(shard).itertuples())
    return {row.video_id: row for row in rows if (row.video_id, row.row) in places}


def _features(store: FeatureStore, key: str, row: Any) -> np.ndarray:
    first = row.row - row.shard * store.shard_rows
    return store.read_shard(key, row.shard)[first : first + row.n_clips]


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows of ``[n, channels]``; 0 where a feature is not finite, 1 between two zeros."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = np.where(same, 1.0, (one * other).sum(axis=1) / lengths)
    return np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0)
