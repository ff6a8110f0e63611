"""Verify: is every feature that the ledger promises really there?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.store import FeatureStore, checksum


@dataclass(frozen=True)
class Verification:
    """What a check of one feature key found."""

    shards: int
    videos: int
    problems: tuple[str, ...]
    """One line each: ledger file, video, what is wrong."""


def verify_key(store: FeatureStore, key: str) -> Verification:
    """Check each published shard of a key: chunk present, features finite, checksums as the ledger has them."""
    ledger = store.ledger(key)
    table = ledger.read()
    problems: list[str] = []
    for shard, rows in table.groupby("shard"):
        number = int(shard)
        place = ledger.folder / f"{number:06d}.parquet"
        if not store.has_chunk(key, number):
            problems.append(f"{place}: the shard's features are gone")
            continue
        try:
            features = store.read_shard(key, number)
        except (OSError, ValueError) as error:
            problems.append(f"{place}: the shard's features cannot be read ({error})")
            continue
        problems += [
            f"{place}: {row.video_id}: {wrong}" for row in rows.itertuples() if (wrong := _wrong(row, features))
        ]
    return Verification(len(ledger.published()), len(table), tuple(problems))


def _wrong(row: object, features: np.ndarray) -> str | None:
    first: int = row.row % len(features)  # type: ignore[attr-defined]
    data = features[first : first + row.n_clips]  # type: ignore[attr-defined]
    if row.status != "ok":  # type: ignore[attr-defined]
        return None if np.isnan(data).all() else "a failed video has features"
    if not np.isfinite(data).all():
        return "a feature is not finite"
    if pd.isna(row.checksum) or checksum(data) != row.checksum:  # type: ignore[attr-defined]
        return "the features' checksum differs"
    return None
