"""What a cached feature is keyed by: everything that shapes it. Nothing here waits for torch."""

import hashlib
import json
from dataclasses import asdict, dataclass

from dynaprop.pipeline.backbones.weights import Weights, find_weights, timm_normalisation

# Raised whenever the code from file to feature changes what comes out, so that old features are not mixed in.
FEATURE_VERSION = 2
RESIZE_RULE = "whole frame to square, Pillow bicubic antialiased, 8 bits"


@dataclass(frozen=True)
class FeatureKey:
    """Everything that shapes a cached feature apart from the clip grid."""

    backbone: str
    """The catalog's name; not part of the digest."""
    model: str
    size: int
    weights: str
    """SHA-256 of the weights."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str = "fp32"
    """Of the forward pass; features are stored in half precision whatever it is."""
    resize: str = RESIZE_RULE
    version: int = FEATURE_VERSION

    @property
    def name(self) -> str:
        """The array's name in the store: readable, and unique by digest."""
        parts = {name: value for name, value in asdict(self).items() if name != "backbone"}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return f"{self.model}-{self.size}-{digest[:12]}"


def feature_key(
    *,
    backbone: str,
    model: str,
    size: int,
    weights: str,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    precision: str = "fp32",
) -> tuple[FeatureKey, Weights]:
    """Locate a backbone's weights and derive the key of its features; builds no network.

    What has a normalisation of its own does not wait for timm's import; its model is looked up when it is built.

    Args:
        backbone: the catalog's name.
        model: timm's name.
        size: pixels a side.
        weights: source, see ``find_weights``.
        mean, std: normalisation of pixels in [0, 1]; timm's for this model by default.
        precision: of the forward pass, ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        UsageError: unknown model, or weights that do not exist.
        DynapropError: weights that cannot be fetched.
    """
    if mean is None or std is None:
        own = timm_normalisation(model, backbone=backbone)
        mean, std = mean or own[0], std or own[1]
    located = find_weights(weights, model)
    key = FeatureKey(
        backbone=backbone,
        model=model,
        size=size,
        weights=located.digest,
        mean=tuple(mean),
        std=tuple(std),
        precision=precision,
    )
    return key, located
