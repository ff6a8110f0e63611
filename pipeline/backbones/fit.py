"""Whether a timm model takes frames of a size, and how it is built for them: tried on torch's meta device, in a moment.

Most models take frames of any size and are built as timm has them. Transformers with an embedding a position take their
own size alone, unless they are built for another: timm's argument ``img_size``. Some take only what their strides or
windows divide.

A network that is built for a size is refused where its patches or its first convolution's strides would leave pixels
out at the right and the bottom. Later strides are not looked at (visformer_tiny at 100), nor what timm takes as it is.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynaprop.pipeline.errors import UsageError, did_you_mean

_STEPS = (32, 16, 14, 48, 64, 128)  # what strides, patches and windows multiply to
_SEARCH_SECONDS = 0.7  # of a core's time, for the sizes that a model does take once it lacks the one asked for


@dataclass(frozen=True)
class Fit:
    """How a model takes frames of a size."""

    img_size: int | None
    """timm's argument of that name; None where the model is built as it is for any size."""
    channels: int
    """Width of the features."""
    gmacs: float
    """Multiply-adds of one frame in units of 1e9, counted on the real network at the real resolution."""
    n_bytes: int
    """Of its weights."""


def build_network(model: str, img_size: int | None = None) -> torch.nn.Module:
    """A timm model without its classifier, in evaluation mode, with the weights that timm draws.

    Args:
        model: timm's name.
        img_size: pixels a side of the frames that it is built for, where it takes no others.

    Raises:
        UsageError: unknown model.
    """
    try:
        return timm.create_model(model, num_classes=0, img_size=img_size).eval()
    except RuntimeError as error:
        raise UsageError(f"timm cannot build {model!r}: {error}{did_you_mean(model, timm.list_models())}") from None


def width(network: torch.nn.Module) -> int:
    """d, of the features that a timm model without its classifier gives; some (MobileNetV3) widen them in its place."""
    return int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]


@lru_cache
def fit_network(model: str, size: int) -> Fit:
    """How a model takes frames of ``size`` pixels a side.

    As timm has it where that works; built for the size where only that does.

    Raises:
        UsageError: unknown model; one that does not take this size, with those that it takes; one that gives no vector.
    """
    until = time.thread_time() + _SEARCH_SECONDS
    with torch.device("meta"):
        network = build_network(model)
    img_size, (shape, flops) = None, _counted(network, size)
    if shape is None and (built := _built_for(model, size)):
        img_size, network, (shape, flops) = size, built, _counted(built, size)
    if shape is None:
        sizes = _sizes(model, network, size, until=until)
        raise UsageError(f"timm's {model} takes no frames of {size} x {size} pixels{sizes}")
    if shape != (1, width(network)):
        raise UsageError(f"timm's {model} gives no vector a frame but {' x '.join(map(str, shape[1:]))} numbers")
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return Fit(img_size, shape[1], flops / 2 / 1e9, n_bytes)


def _counted(network: torch.nn.Module, size: int) -> tuple[tuple[int, ...] | None, int]:
    """The output's shape, see `_output_shape`, and the floating-point operations that it took."""
    network.requires_grad_(False)  # class tokens that ask for a gradient, and have none here, end torch's count early
    with FlopCounterMode(display=False) as counter:
        shape = _output_shape(network, size)
    return shape, counter.get_total_flops()


def _output_shape(network: torch.nn.Module, size: int) -> tuple[int, ...] | None:
    """Shape of what a network on the meta device makes of one frame; None if it cannot."""
    try:
        with torch.device("meta"), torch.no_grad():
            return tuple(network(torch.empty(1, 3, size, size)).shape)
    except Exception:  # models check their input, or do not, each in its way
        return None


def _built_for(model: str, size: int) -> torch.nn.Module | None:
    """A model built for a size, on the meta device; None where timm has no such thing, or it would cut pixels off."""
    try:
        with torch.device("meta"):
            network = build_network(model, size)
    except Exception:  # TypeError of a model without the argument, others of one that cannot be built so
        return None
    return None if any(size % side for side in _strides(network)) else network


def _strides(network: torch.nn.Module) -> set[int]:
    """Sides of a network's patches, as timm's modules name them, and strides of its first convolution."""
    first = next((module for module in network.modules() if isinstance(module, torch.nn.Conv2d)), None)
    found = {*first.stride} if first else set()
    for module in network.modules():
        for name in ("patch_size", "new_patch_size"):
            sides = getattr(module, name, None)
            found |= {side for side in (sides if isinstance(sides, Sequence) else [sides]) if isinstance(side, int)}
    return found - {0}


def _sizes(model: str, network: torch.nn.Module, size: int, *, until: float) -> str:
    """The sizes near another one that a model does take, for messages, as far as they are found in time.

    Args:
        model: timm's name.
        network: the model as timm has it, on the meta device.
        size: the one that it does not take.
        until: when to stop, by ``time.thread_time``.
    """

    def takes(side: int) -> bool:
        return bool(_output_shape(network, side) or ((built := _built_for(model, side)) and _output_shape(built, side)))

    config = timm.get_pretrained_cfg(model)
    known = {config.input_size[-1]} if config and config.input_size[-1] != size else set()
    for step in _STEPS:
        below = size // step * step
        near = [side for side in (below, below + step, below + 2 * step) if side not in (0, size)]
        taken = [side for side in near if time.thread_time() < until and takes(side)]
        known |= set(taken)
        if taken == near and size % step:
            multiples = sorted(side for side in known if side % step == 0)  # the model's own size may be none
            return f"; it takes multiples of {step}, such as {', '.join(map(str, multiples))}"
        if taken or time.thread_time() >= until:
            break
    return f"; it takes {', '.join(map(str, sorted(known)))}, for example" if known else ""
