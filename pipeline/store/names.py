"""What datasets and backbones are called in the cache: the store of one, the feature key of the other."""

from dynaprop.pipeline.backbones.feature_key import FEATURE_VERSION, FeatureKey, feature_key
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.store.feature_store import FeatureStore


def store_path(dataset: DatasetSpec, home: StoragePath) -> StoragePath:
    """Folder of the store: one a dataset and clip grid."""
    grid = f"clips-{dataset.clip_seconds:g}s-min{dataset.min_clips}-max{dataset.max_clips}"
    return home / "stores" / dataset.name / grid


def clip_rule(dataset: DatasetSpec) -> dict[str, float]:
    """What decides which frames of a video have features: ``clip_seconds`` and others, by the names of `clip_grid`."""
    return {name: getattr(dataset, name) for name in ("clip_seconds", "min_clips", "max_clips", "min_share")}


def open_store(dataset: DatasetSpec, home: StoragePath, *, read_only: bool = False) -> FeatureStore:
    """Open a dataset's store, or create it; see ``FeatureStore``."""
    grid = {
        "dataset": dataset.name,
        "clip_seconds": dataset.clip_seconds,
        "min_clips": dataset.min_clips,
        "max_clips": dataset.max_clips,
    }
    return FeatureStore(store_path(dataset, home), grid=grid, shard_rows=dataset.shard_rows, read_only=read_only)


def locate_backbone(backbone: BackboneSpec) -> tuple[FeatureKey, Weights]:
    """The feature key and the weights of a catalog backbone."""
    return feature_key(
        backbone=backbone.name,
        model=backbone.model,
        size=backbone.size,
        weights=backbone.require_weights(),
        mean=backbone.mean,
        std=backbone.std,
        precision=backbone.precision,
    )


def cached_key(backbone: BackboneSpec, store: FeatureStore) -> str | None:
    """Name of the key under which a store holds a backbone's features; None if it holds none.

    Weights are looked for only where there is something to compare them with, and timm's, which are the same for
    everybody, need not be here to read what they made.

    Raises:
        DynapropError: the weights are not here, and which of several keys is theirs cannot be told.
    """
    parts = {part: getattr(backbone, part) for part in ("model", "size", "precision")} | {"version": FEATURE_VERSION}
    alike = [
        name
        for name, attributes in store.keys().items()
        if all(attributes.get(part) == value for part, value in parts.items())
    ]
    if not alike:
        return None
    try:
        name = locate_backbone(backbone)[0].name
    except DynapropError:
        if backbone.weights != "timm" or len(alike) > 1:
            raise
        return alike[0]
    return name if name in alike else None
