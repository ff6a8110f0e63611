"""Compiled networks: torch's features, whatever the architecture; what cannot be compiled is left to torch."""

import os
import signal

import numpy as np
import pytest
import timm
import torch

from dynaprop.pipeline.backbones import backbone
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.feature_key import feature_key
from dynaprop.pipeline.backbones.openvino_network import CompiledNetwork
from dynaprop.pipeline.backbones.torch_network import TorchNetwork

NORMALISATION = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}


def frozen(model: str) -> torch.nn.Module:
    """A network whose normalisations do something: fresh ones are the identity."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=0).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_()
    return network


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize(
    "model", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "resnet18", "mobilenetv3_small_050"]
)
def test_features_are_those_of_torch_in_any_batch(model):
    network = frozen(model)
    size = 160 if model == "test_vit" else 64
    compiled = CompiledNetwork(network, size=size, **NORMALISATION)
    plain = TorchNetwork(network, device=torch.device("cpu"), **NORMALISATION)
    frames = noise(7, size)
    features = compiled.start(frames)()
    expected = plain.start(frames)()
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(compiled.start(frames[2:5][::-1])(), features[2:5][::-1])


def test_two_batches_run_at_a_time_and_keep_their_own_frames():
    compiled = CompiledNetwork(frozen("test_resnet"), size=64, **NORMALISATION)
    first, second = noise(4, 64), noise(5, 64)
    expected = [compiled.start(frames)() for frames in (first, second)]
    batch = first.copy()
    running = compiled.start(batch)
    batch[:] = 0
    results = [running, compiled.start(second)]
    for result, features in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result(), features)


class Counting(torch.nn.Module):
    """Gives something else each time."""

    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return pixels.mean((2, 3))[:, :1] + self.calls


class Unknown(torch.nn.Module):
    """Calls what OpenVINO does not know."""

    num_features = 1

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(pixels.mean((2, 3)))[:, :1]


class Inexact(torch.nn.Module):
    """Gives something else when it is traced: five per cent off."""

    num_features = 1

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.std((2, 3))[:, :1] * (1.05 if torch.jit.is_tracing() else 1)


class OfTwo(torch.nn.Module):
    """Fixes the size of the batch that it is traced with."""

    num_features = 1

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.std((2, 3))[: len(pixels), :1]


@pytest.mark.parametrize("network", [Counting(), Unknown(), Inexact(), OfTwo()])
def test_what_cannot_be_compiled_or_comes_out_otherwise_is_left_to_torch(network, monkeypatch):
    with pytest.raises(RuntimeError):
        CompiledNetwork(network, size=32, **NORMALISATION)
    monkeypatch.setattr(backbone, "load_network", lambda *_: network)
    key, weights = feature_key(backbone="tiny", model="test_resnet", size=32, weights="random")
    frames = noise(3, 32)
    notes: list[str] = []
    features = FrameBackbone(key=key, weights=weights, on_note=notes.append).features(frames)
    assert len(notes) == 1
    assert notes[0].startswith("tiny runs in torch, which is slower: ")
    expected = TorchNetwork(network, mean=key.mean, std=key.std, device=torch.device("cpu")).start(frames)()
    np.testing.assert_allclose(features + (isinstance(network, Counting)), expected, rtol=1e-6)


def test_an_interrupt_amid_the_conversion_is_an_interrupt_not_a_network_that_cannot_be_compiled(monkeypatch):
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    visit = TorchScriptPythonDecoder.visit_subgraph

    def interrupted(decoder, node_visitor):
        os.kill(os.getpid(), signal.SIGINT)
        visit(decoder, node_visitor)

    network = frozen("test_resnet")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # these tests may run in the background
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TorchScriptPythonDecoder, "visit_subgraph", interrupted)
            CompiledNetwork(network, size=64, **NORMALISATION)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert CompiledNetwork(network, size=64, **NORMALISATION).start(noise(1, 64))().shape == (1, network.num_features)
