"""Verify: is every feature that the ledger promises really there?"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynaprop.pipeline.errors import DynapropError, InfrastructureError
from dynaprop.pipeline.io.side_by_side import side_by_side
from dynaprop.pipeline.store.checksum import has_checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest


@dataclass(frozen=True)
class Verification:
    """What a check of one feature key found."""

    shards: int
    """Published shards that were looked at."""
    videos: int
    unpublished: int
    """Shards of the manifest that are not extracted."""
    problems: tuple[str, ...]
    """One line each: feature key, shard, video, what is wrong."""
    bad_shards: tuple[int, ...]
    """Shards that have a problem."""


def verify_key(
    store: FeatureStore,
    key: str,
    *,
    shards: Collection[int] | None = None,
    on_shard: Callable[[], None] | None = None,
) -> Verification:
    """Check each published shard of a key: chunk present and of the right size, rows, values and checksums as promised.

    Args:
        store: the store.
        key: name of the feature key.
        shards: look at these alone.
        on_shard: called after each shard.

    Raises:
        DynapropError: the manifest or the array's description is damaged, or the store is away.
    """
    ledger = store.ledger(key)
    manifest = store.manifest()  # before the ledgers: what is published meanwhile has been in a manifest before
    needed = set(manifest.shards())
    published = ledger.published()
    chosen = published if shards is None else published & set(shards)
    videos = 0
    problems: list[str] = []
    bad: list[int] = []

    def check(shard: int) -> tuple[int, list[str]]:
        """Videos of a shard, and what is wrong with it."""
        try:
            rows = ledger.read_shard(shard)
        except InfrastructureError:
            raise
        except DynapropError:
            return 0, ["its ledger cannot be read"]
        return len(rows), list(_wrong(store, key, shard, rows, manifest))

    numbers = sorted(chosen)
    checks = map(check, numbers) if isinstance(store.root, Path) else side_by_side(store.root, check, numbers)
    for shard, (found, wrong) in zip(numbers, checks, strict=True):
        videos += found
        problems += [f"{key}, shard {shard}: {line}" for line in wrong]
        if wrong:
            bad.append(shard)
        if on_shard:
            on_shard()
    return Verification(len(chosen), videos, len(needed - published), tuple(problems), tuple(bad))


def _wrong(store: FeatureStore, key: str, shard: int, rows: pd.DataFrame, manifest: Manifest) -> Iterator[str]:
    promised = {(row.video_id, row.row): row for row in rows.itertuples()}
    for video_id, row in sorted(promised.keys() - manifest.places(shard)):
        yield f"{video_id}: in the ledger at row {row} but not in the manifest"
    for video in manifest.shard(shard).itertuples():
        row = promised.get((video.video_id, video.row))
        if row is None:
            yield f"{video.video_id}: in the manifest but not in the ledger"
        elif row.n_clips + row.n_missing != video.n_clips:
            found = row.n_clips + row.n_missing
            yield f"{video.video_id}: {found} clips in the ledger, {video.n_clips} in the manifest"
        elif not np.isin(row.timestamps, video.timestamps).all():
            yield f"{video.video_id}: other timestamps in the ledger than in the manifest"
    if not store.has_chunk(key, shard):
        yield "its features are gone"
        return
    found, expected = store.chunk_sizes(key, shard)
    if found != expected:
        yield f"its features take {found:,} bytes, which should be {expected:,}"
        return
    try:
        features = store.read_shard(key, shard)
    except (OSError, ValueError) as error:
        yield f"its features cannot be read ({error})"
        return
    if len(features) != store.shard_rows:
        yield "its array is too short"
        return
    for row in promised.values():
        if fault := _fault(row, features):
            yield f"{row.video_id}: {fault}"


def _fault(row: Any, features: np.ndarray) -> str | None:
    """What is wrong with one video's rows of ``[shard_rows, channels]``."""
    first = row.row % len(features)
    data, rest = np.split(features[first : first + row.n_clips + row.n_missing], [row.n_clips])
    if row.status == "failed":
        return None if np.isnan(data).all() else "a failed video has features"
    if not np.isfinite(data).all():
        return "a feature is not finite"
    if not has_checksum(data, row.checksum):
        return "the features' checksum differs"
    if not np.isnan(rest).all():
        return "there are features behind its last clip"
    return None
