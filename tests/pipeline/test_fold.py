"""Folded networks: the same features, and really folded."""

import pytest
import timm
import torch

from pipeline.fold import fold_batch_norm


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


@pytest.mark.parametrize("model", ["test_efficientnet", "test_resnet", "resnet18"])
@torch.inference_mode()
def test_a_folded_network_gives_the_same_features_with_fewer_steps(model):
    network = frozen(model)
    folded = fold_batch_norm(network, torch.zeros(2, 3, 64, 64))
    for batch in (1, 2, 5):
        frames = torch.randn(batch, 3, 64, 64)
        expected = network(frames)
        assert (folded(frames) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)
    assert not any("running_mean" in name for name, _ in folded.named_buffers())


def test_a_network_without_batch_normalisation_is_left_alone():
    network = frozen("test_vit")
    assert fold_batch_norm(network, torch.zeros(2, 3, 160, 160)) is network
