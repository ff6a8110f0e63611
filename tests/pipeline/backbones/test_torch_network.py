"""Networks as torch runs them, on every device that is here."""

import numpy as np
import pytest
import timm
import torch

from dynaprop.pipeline.backbones.torch_network import TorchNetwork

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
DEVICES = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


@pytest.mark.parametrize("device", DEVICES)
def test_batches_keep_their_own_frames_and_features(device):
    """Two batches at a time, from a buffer that is filled anew at once, as extraction does it."""
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=0).eval().requires_grad_(False)
    runner = TorchNetwork(network, mean=MEAN, std=STD, device=torch.device(device))
    batches = np.random.default_rng(0).integers(0, 256, (6, 8, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        pixels = torch.from_numpy(batches.reshape(-1, 64, 64, 3)) / 255
        normalised = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
        expected = network.cpu()(normalised.permute(0, 3, 1, 2)).numpy()
    network.to(device)
    buffer, running, found = np.empty_like(batches[0]), None, []
    for batch in batches:
        buffer[:] = batch
        started = runner.start(buffer)
        buffer[:] = 0
        if running:
            found.append(running())
        running = started
    found.append(running())
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4 * np.abs(expected).max())
