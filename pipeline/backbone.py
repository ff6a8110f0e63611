"""A frozen backbone: square RGB frames in, one feature vector a frame out."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.compiled_network import CompiledNetwork
from pipeline.torch_network import TorchNetwork
from pipeline.weights import Weights, create_network, find_weights, load_backbone, timm_normalisation

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


class FrameBackbone:
    """A timm model that turns square frames into features.

    Args:
        key: what the features are keyed by.
        weights: the located weights.
        device: torch device. On a CPU the network is compiled where that is possible.
    """

    def __init__(self, *, key: FeatureKey, weights: Weights, device: str | torch.device = "cpu") -> None:
        self.key = key
        network = load_backbone(key.model, weights).requires_grad_(False)
        self.channels = int(network.num_features)  # type: ignore[arg-type]
        self.start = _runner(network, key, torch.device(device)).start
        """Begins a batch, see ``CompiledNetwork.start``."""

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Features of a batch of frames.

        Args:
            frames: ``[b, size, size, 3]`` uint8 RGB.

        Returns:
            ``[b, channels]`` float32.
        """
        return self.start(frames)()


def _runner(network: torch.nn.Module, key: FeatureKey, device: torch.device) -> CompiledNetwork | TorchNetwork:
    if device.type == "cpu":
        with suppress(RuntimeError):
            return CompiledNetwork(network, size=key.size, mean=key.mean, std=key.std, precision=key.precision)
    return TorchNetwork(network, mean=key.mean, std=key.std, precision=key.precision, device=device)


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


@lru_cache
def gmacs_per_frame(model: str, size: int) -> float:
    """Multiply-adds of one frame in units of 1e9, counted on the real network at the real resolution."""
    with torch.device("meta"):
        network = create_network(model)
        frame = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frame)
    return counter.get_total_flops() / 2 / 1e9
