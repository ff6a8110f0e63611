"""timm's networks: built, loaded with weights, and what one frame costs."""

from functools import lru_cache
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import DynapropError, UsageError, did_you_mean
from pipeline.weights import Weights


def create_network(model: str) -> torch.nn.Module:
    """A timm model without its classifier, in evaluation mode, with the weights that timm draws.

    Raises:
        UsageError: unknown model.
    """
    try:
        return timm.create_model(model, num_classes=0).eval()
    except RuntimeError as error:
        raise UsageError(f"timm cannot build {model!r}: {error}{did_you_mean(model, timm.list_models())}") from None


def load_network(model: str, weights: Weights) -> torch.nn.Module:
    """Build a timm model without its classifier, in evaluation mode, with these weights.

    Raises:
        DynapropError: the file's tensors are not the model's.
    """
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create_network(model)
    network = create_network(model)
    expected = network.state_dict()
    tensors = _read_tensors(weights.path)
    if weights.in_order:
        # The packages name tensors their own way; order and shapes are the same. The classifier comes last.
        tensors = dict(zip(expected, tensors.values(), strict=False))
    else:
        tensors = {name: tensors[name] for name in expected if name in tensors}
    wrong = [name for name, tensor in expected.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if wrong:
        raise DynapropError(
            f"{weights.path}: not weights of timm's {model} ({len(wrong)} tensors differ, e.g. {wrong[0]})"
        )
    network.load_state_dict(tensors)
    return network


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise DynapropError(f"{path} is damaged ({error}): put the weights there again") from None
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        state = state.get(key, state)
    return state


def width(network: torch.nn.Module) -> int:
    """d, of the features that a timm model without its classifier gives; some (MobileNetV3) widen them in its place."""
    return int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]


@lru_cache
def channels(model: str) -> int:
    """Width of a model's features."""
    with torch.device("meta"):
        return width(create_network(model))


@lru_cache
def gmacs_per_frame(model: str, size: int) -> float:
    """Multiply-adds of one frame in units of 1e9, counted on the real network at the real resolution."""
    with torch.device("meta"):
        network = create_network(model)
        frame = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frame)
    return counter.get_total_flops() / 2 / 1e9
