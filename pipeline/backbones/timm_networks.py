"""timm's networks: built for frames of a size, loaded with weights, and what one frame costs."""

from collections.abc import Iterable

import torch

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.backbones.fit import build_network, fit_network
from dynaprop.pipeline.backbones.state_dict import load_state_dict
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.errors import UsageError


def load_network(model: str, weights: Weights, size: int | None = None) -> torch.nn.Module:
    """Build a timm model without its classifier, in evaluation mode, with these weights.

    Args:
        model: timm's name.
        weights: the located weights; made at timm's own size, their embeddings of positions are resampled by timm.
        size: pixels a side of the frames that it is for; those of timm's own size by default.

    Raises:
        UsageError: unknown model, or one that does not take frames of this size.
        DynapropError: the file is none of weights, or its tensors are not the model's.
    """
    img_size = None if size is None else fit_network(model, size).img_size
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_network(model, img_size)
    network = build_network(model, img_size)
    return load_state_dict(network, model, weights.path, in_order=weights.in_order, img_size=img_size)


def check_backbones(backbones: Iterable[tuple[FeatureKey, Weights]]) -> None:
    """Make sure that backbones can be built, before anything is done for them.

    Raises:
        UsageError: one does not take frames of its size; names the backbone and sizes that it takes.
        DynapropError: its file of weights cannot be used.
    """
    backbones = list(backbones)
    for key, _ in backbones:  # first, as it takes a moment
        try:
            fit_network(key.model, key.size)
        except UsageError as error:
            raise UsageError(f"backbone {key.backbone!r}: {error}") from None
    for key, weights in backbones:
        if weights.path is not None:
            load_network(key.model, weights, key.size)


def channels(model: str, size: int) -> int:
    """Width of a model's features, of frames of a size."""
    return fit_network(model, size).channels


def gmacs_per_frame(model: str, size: int) -> float:
    """Multiply-adds of one frame in units of 1e9, counted on the real network at the real resolution."""
    return fit_network(model, size).gmacs
