"""The arrays of feature keys in a store: made, and missed."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.store.feature_store import FeatureStore


def channels_of(key: FeatureKey) -> int:
    """Width of a key's features."""
    from dynaprop.pipeline.backbones.timm_networks import channels  # takes seconds, and what is cached needs no network

    return channels(key.model, key.size)


def array_attributes(key: FeatureKey) -> dict[str, Any]:
    """What the array of a key says about itself."""
    from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame

    return {**asdict(key), "gmacs_per_frame": gmacs_per_frame(key.model, key.size)}


def make_arrays(store: FeatureStore, keys: Iterable[FeatureKey], *, check: Callable[[], None]) -> None:
    """Create or grow the arrays of keys; ``check`` is called before each."""
    for key in keys:
        check()
        store.ensure_array(
            key,
            channels=channels_of(key),
            n_shards=store.manifest().n_shards,
            attributes=array_attributes(key),
        )


def gone_arrays(store: FeatureStore, keys: Iterable[FeatureKey]) -> list[FeatureKey]:
    """Keys that have ledgers and no array; raises DynapropError where one is damaged."""
    there = store.keys()
    return [key for key in keys if key.name not in there and store.ledger(key.name).published()]
