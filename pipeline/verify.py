"""Verify: is every feature that the ledger promises really there?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import DynapropError
from pipeline.ledger import USABLE
from pipeline.store import FeatureStore, checksum


@dataclass(frozen=True)
class Verification:
    """What a check of one feature key found."""

    shards: int
    videos: int
    unpublished: int
    """Shards of the manifest that are not extracted."""
    problems: tuple[str, ...]
    """One line each: ledger file, video, what is wrong."""


def verify_key(store: FeatureStore, key: str, *, repair: bool = False) -> Verification:
    """Check each published shard of a key: chunk present, features finite, checksums and rows as the ledger has them.

    Args:
        store: the store.
        key: name of the feature key.
        repair: withdraw the ledger of bad shards, so that the next extraction writes them anew.
    """
    ledger = store.ledger(key)
    manifest = store.manifest()
    published = ledger.published()
    videos = 0
    problems: list[str] = []
    for shard in sorted(published):
        try:
            rows = ledger.read_shard(shard)
        except DynapropError:
            wrong = ["its ledger cannot be read"]
        else:
            videos += len(rows)
            wrong = list(_wrong(store, key, shard, rows, manifest.shard(shard)))
        problems += [f"{ledger.folder.name}, shard {shard}: {line}" for line in wrong]
        if wrong and repair:
            ledger.withdraw(shard)
    return Verification(len(published), videos, len(set(manifest.shards()) - published), tuple(problems))


def _wrong(store: FeatureStore, key: str, shard: int, rows: pd.DataFrame, videos: pd.DataFrame) -> Iterator[str]:
    promised = set(zip(rows["video_id"], rows["row"], rows["n_clips"] + rows["n_missing"], strict=True))
    for place in zip(videos["video_id"], videos["row"], videos["n_clips"], strict=True):
        if place not in promised:
            yield f"{place[0]}: in the manifest but not in the ledger"
    if not store.has_chunk(key, shard):
        yield "its features are gone"
        return
    try:
        features = store.read_shard(key, shard)
    except (OSError, ValueError) as error:
        yield f"its features cannot be read ({error})"
        return
    for row in rows.itertuples():
        if fault := _fault(row, features):
            yield f"{row.video_id}: {fault}"


def _fault(row: Any, features: np.ndarray) -> str | None:
    """What is wrong with one video's rows of ``[shard_rows, channels]``."""
    first = row.row % len(features)
    data = features[first : first + row.n_clips]
    if row.status not in USABLE:
        return None if np.isnan(data).all() else "a failed video has features"
    if not np.isnan(features[first + row.n_clips :][: row.n_missing]).all():
        return "a missing clip has features"
    if not np.isfinite(data).all():
        return "a feature is not finite"
    if checksum(data) != row.checksum:
        return "the features' checksum differs"
    return None
