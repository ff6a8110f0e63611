"""What half precision would bring: its speed, and how far features of real frames move."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.machine import median_seconds
from pipeline.backbone import FrameBackbone
from pipeline.cached import locate_backbone, open_store
from pipeline.decode_pool import DecodePool
from pipeline.extract import frame_request
from pipeline.specs import BackboneSpec, DatasetSpec

_BATCH = 32  # as in extraction


@dataclass(frozen=True)
class PrecisionSpeed:
    """Autocast to half precision against single precision."""

    precision: str
    speed_up: float
    """Of both networks together."""
    cosine: float
    """The smallest one between a frame's features in both precisions."""


def measure_precision(
    dataset: DatasetSpec, backbones: Sequence[BackboneSpec], *, home: Path, repetitions: int, device: str
) -> PrecisionSpeed:
    """Forward the first frames of a dataset that is extracted."""
    half = torch.bfloat16 if device == "cpu" else torch.float16
    records = open_store(dataset, home).manifest().current().head(2).to_dict("records")
    networks = [
        FrameBackbone(key=key, weights=weights, device=device) for key, weights in map(locate_backbone, backbones)
    ]
    seconds = {"single": 0.0, "half": 0.0}
    cosine = 1.0
    for network in networks:
        with DecodePool() as pool:
            requests = [frame_request(record, dataset.root) for record in records]
            streams = pool.decode(requests, [network.key.size], [record["decoder"] for record in records])
            frames = np.stack([frame for stream in streams for _, (frame,) in stream])
        batches = [frames[first : first + _BATCH] for first in range(0, len(frames) - _BATCH + 1, _BATCH)]
        steps = {
            "single": partial(_features, network, batches, None),
            "half": partial(_features, network, batches, half),
        }
        single, rough = (step() for step in steps.values())
        products = (single * rough).sum(1) / np.linalg.norm(single, axis=1) / np.linalg.norm(rough, axis=1)
        cosine = min(cosine, float(products.min()))
        for name, value in median_seconds(steps, repetitions).items():
            seconds[name] += value
    return PrecisionSpeed(str(half).removeprefix("torch."), seconds["single"] / seconds["half"], cosine)


def _features(network: FrameBackbone, batches: Sequence[np.ndarray], half: torch.dtype | None) -> np.ndarray:
    with torch.autocast(network.device.type, half, enabled=half is not None):
        return np.concatenate([network.features(batch) for batch in batches])
