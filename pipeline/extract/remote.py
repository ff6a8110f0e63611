"""An extraction as other processes see it, which extract some of its shards: see `shard_worker`."""

from dataclasses import dataclass

from dynaprop.pipeline.catalog.backbones import BackboneSpec


@dataclass(frozen=True, kw_only=True)
class RemoteExtraction:
    """All that a worker has to know besides a shard's videos; a few hundred bytes, sent with each shard."""

    store: str
    """Folder or URL, the same for all."""
    root: str
    """Folder of the videos, the same for all."""
    backbones: tuple[BackboneSpec, ...]
    feature_keys: tuple[str, ...]
    """Names of their feature keys: a worker with other weights is to refuse."""
    rules: int
    """Of which frames are read: a worker of another version is to refuse."""
    n_shards: int
    """Of the manifest."""
    owner: str
    """Who holds the store's lock."""
    device: str
    """Torch device, or ``auto``: the worker's own."""
    decoders: int | None
    """Decode children of a worker; by default its share of the cores that it may use."""
    peers: int
    """Workers that share a core, at most: not all of a machine where each was given some of its cores."""
    deadline: float
    """Seconds without a new frame after which a video is given up."""
    decoder: str
    """What reads video files."""
    min_share: float
