"""A frozen backbone: square RGB frames in, one feature vector a frame out."""

from collections.abc import Callable

import numpy as np
import torch

from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.backbones.fit import width
from dynaprop.pipeline.backbones.openvino_network import CompiledNetwork
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.torch_network import TorchNetwork
from dynaprop.pipeline.backbones.weights import Weights


class FrameBackbone:
    """A timm model that turns square frames into features.

    Args:
        key: what the features are keyed by.
        weights: the located weights.
        device: torch device. On a CPU the network is compiled where that is possible.
        on_note: called with a line for people where it is not.
    """

    def __init__(
        self,
        *,
        key: FeatureKey,
        weights: Weights,
        device: str | torch.device = "cpu",
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.key = key
        network = load_network(key.model, weights, key.size).requires_grad_(False)
        self.channels = width(network)
        self.start = _runner(network, key, torch.device(device), on_note).start
        """Begins a batch, see ``CompiledNetwork.start``."""

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Features of a batch of frames.

        Args:
            frames: ``[b, size, size, 3]`` uint8 RGB.

        Returns:
            ``[b, channels]`` float32.
        """
        return self.start(frames)()


def _runner(
    network: torch.nn.Module, key: FeatureKey, device: torch.device, on_note: Callable[[str], None] | None
) -> CompiledNetwork | TorchNetwork:
    if device.type == "cpu":
        try:
            return CompiledNetwork(network, size=key.size, mean=key.mean, std=key.std, precision=key.precision)
        except RuntimeError as error:
            if on_note:
                on_note(f"{key.backbone} runs in torch, which is slower: {str(error).splitlines()[0]}")
    return TorchNetwork(network, mean=key.mean, std=key.std, precision=key.precision, device=device)
