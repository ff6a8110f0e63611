"""Both networks' forward in other ways: as torch runs them, and in half precision, on real frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.machine import median_seconds
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.torch_network import TorchNetwork
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.store.names import locate_backbone, open_store
from dynaprop.pipeline.store.recorded import frame_request

_BATCH = 32  # as in extraction


@dataclass(frozen=True)
class ForwardSpeed:
    """Both networks together, against single precision as extraction runs them."""

    torch: float
    """Speed of torch's own forward, uncompiled; 1 on a GPU, where that is what runs."""
    precision: str
    """The half precision that was tried."""
    half: float
    """Its speed."""
    cosine: float
    """The smallest one between a frame's features in single and in half precision."""


def measure_forward(
    dataset: DatasetSpec, backbones: Sequence[BackboneSpec], *, home: Path, repetitions: int, device: str
) -> ForwardSpeed:
    """Forward the first frames of a dataset that is extracted."""
    half = "bf16" if device == "cpu" else "fp16"
    records = open_store(dataset, home).manifest().current().head(2).to_dict("records")
    seconds = {"single": 0.0, "torch": 0.0, "half": 0.0}
    cosine = 1.0
    for key, weights in map(locate_backbone, backbones):
        with DecodePool() as pool:
            requests = [frame_request(record, dataset.root) for record in records]
            streams = pool.decode(requests, [key.size], [record["decoder"] for record in records])
            frames = np.stack([frame for stream in streams for _, (frame,) in stream])
        batches = [frames[first : first + _BATCH] for first in range(0, len(frames) - _BATCH + 1, _BATCH)]
        networks: dict[str, FrameBackbone | TorchNetwork] = {
            "single": FrameBackbone(key=key, weights=weights, device=device),
            "torch": TorchNetwork(
                load_network(key.model, weights, key.size).requires_grad_(False),
                mean=key.mean,
                std=key.std,
                device=torch.device(device),
            ),
            "half": FrameBackbone(key=replace(key, precision=half), weights=weights, device=device),
        }
        steps = {name: partial(_features, network, batches) for name, network in networks.items()}
        features = {name: step() for name, step in steps.items()}
        single, rough = features["single"], features["half"]
        products = (single * rough).sum(1) / np.linalg.norm(single, axis=1) / np.linalg.norm(rough, axis=1)
        cosine = min(cosine, float(products.min()))
        for name, value in median_seconds(steps, repetitions).items():
            seconds[name] += value
    return ForwardSpeed(seconds["single"] / seconds["torch"], half, seconds["single"] / seconds["half"], cosine)


def _features(network: FrameBackbone | TorchNetwork, batches: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([network.start(batch)() for batch in batches])
