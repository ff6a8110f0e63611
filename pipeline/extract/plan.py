"""What an extraction has to do: the shards that lack features, and the room that those take."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.arrays import channels_of
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.packing import NO_SHARD, PLACE

_DISK_RESERVE = 64 * 2**20  # bytes left free for ledgers, manifest and everybody else


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction has to do."""

    manifest: Manifest
    videos: int
    """Videos on disk; absent ones are not counted."""
    clips: int
    """Clips of all videos."""
    shards: dict[int, tuple[str, ...]]
    """Shards that are not done, with the names of the feature keys that they lack."""
    clips_to_do: int
    bytes_to_write: int
    reread: int = 0
    """Videos that an earlier version cached other frames of than are read today."""

    def videos_of(self, shard: int) -> int:
        """Videos of a shard."""
        return len(self.manifest.shard(shard))

    def clips_of(self, shard: int) -> int:
        """Clips of a shard's videos."""
        return int(self.manifest.shard(shard)["n_clips"].sum())


def shards_to_do(store: FeatureStore, manifest: Manifest, keys: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Shards with the names of the keys that are not published there, or not with the videos of this manifest."""
    wanted = manifest.current()[PLACE]
    wanted = wanted[wanted["shard"] != NO_SHARD]
    missing: dict[int, list[str]] = {}
    for key in keys:
        published = wanted.merge(store.ledger(key).outcomes()[PLACE], how="left", on=PLACE, indicator="where")
        for shard in published.loc[published["where"] == "left_only", "shard"].unique():
            missing.setdefault(int(shard), []).append(key)
    return {shard: tuple(missing[shard]) for shard in sorted(missing)}


def bytes_of(store: FeatureStore, shards: Mapping[int, Sequence[str]], keys: Iterable[FeatureKey]) -> int:
    """Bytes of the features that shards lack.

    Args:
        store: the store.
        shards: names of the keys that each shard lacks.
        keys: all keys.
    """
    missing_keys = set().union(*shards.values())
    width = {key.name: channels_of(key) for key in keys if key.name in missing_keys}
    return sum(store.shard_rows * width[key] * 2 for missing in shards.values() for key in missing)


def require_room(root: StoragePath, needed: int) -> None:
    """Raise DynapropError where so many bytes find no room on the store's disk."""
    if not isinstance(root, Path):
        return  # an object store does not say
    free = shutil.disk_usage(root).free
    if needed + _DISK_RESERVE > free:
        raise DynapropError(
            f"{root}: the features need {needed / 2**30:.2f} GiB and only {free / 2**30:.2f} GiB are "
            "free; make room or set DYNAPROP_HOME to a larger disk"
        )


def plan_of(
    store: FeatureStore,
    manifest: Manifest,
    shards: dict[int, tuple[str, ...]],
    keys: Iterable[FeatureKey],
    *,
    reread: int = 0,
) -> ExtractionPlan:
    """The plan that extracts these shards: names of the keys that each lacks, of all ``keys``."""
    return ExtractionPlan(
        manifest=manifest,
        videos=len(manifest.current()) - len(manifest.absent()),
        clips=int(manifest.current()["n_clips"].sum()),
        shards=shards,
        clips_to_do=int(sum(manifest.shard(shard)["n_clips"].sum() for shard in shards)),
        bytes_to_write=bytes_of(store, shards, keys),
        reread=reread,
    )
