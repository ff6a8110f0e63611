"""Fold batch normalisation into the convolution before it: the same features with fewer passes over memory."""

import torch
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVOLUTIONS = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default)


def fold_batch_norm(network: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """A copy of a frozen network whose normalisations are part of the convolutions that they follow.

    Outputs differ from the network's by rounding alone, some 1e-6 of the largest one.

    Args:
        network: in evaluation mode; it is left as it is.
        example: input ``[b, 3, size, size]`` of at least two images; the copy takes any number of them.

    Returns:
        The copy, or the network itself where nothing can be folded.
    """
    from torch.export import Dim, export  # takes half a second, and what is cached needs no network

    graph_module = export(network, (example,), dynamic_shapes=({0: Dim.DYNAMIC},)).module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    pairs = [
        (node.args[0], node)
        for node in graph_module.graph.nodes
        if node.target is torch.ops.aten.batch_norm.default
        and isinstance(node.args[0], Node)
        and node.args[0].target in _CONVOLUTIONS
        and len(node.args[0].users) == 1
    ]
    if not pairs:
        return network
    for number, (convolution, normalisation) in enumerate(pairs):
        _fold(graph_module, convolution, normalisation, f"folded_{number}")
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def _fold(graph_module: GraphModule, convolution: Node, normalisation: Node, name: str) -> None:
    """Give the convolution scaled weights and a bias, and take the normalisation away."""
    arguments = list(convolution.args) + [None] * (3 - len(convolution.args))
    weight, bias = (_tensor(graph_module, node) for node in arguments[1:3])
    scale, shift, mean, variance = (_tensor(graph_module, node) for node in normalisation.args[1:5])
    epsilon = normalisation.args[7]
    assert weight is not None and mean is not None and variance is not None and isinstance(epsilon, float)
    weights = fuse_conv_bn_weights(weight, bias, mean, variance, epsilon, scale, shift)
    with graph_module.graph.inserting_before(convolution):
        nodes = []
        for part, tensor in zip(("weight", "bias"), weights, strict=True):
            graph_module.register_buffer(f"{name}_{part}", tensor.detach())
            nodes.append(graph_module.graph.get_attr(f"{name}_{part}"))
    convolution.args = (arguments[0], *nodes, *arguments[3:])
    normalisation.replace_all_uses_with(convolution)
    graph_module.graph.erase_node(normalisation)


def _tensor(graph_module: GraphModule, node: object) -> torch.Tensor | None:
    """The parameter or buffer that a node of the graph stands for."""
    if node is None:
        return None
    assert isinstance(node, Node)
    found: object = graph_module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    assert isinstance(found, torch.Tensor)
    return found
