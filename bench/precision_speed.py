"""What half precision would bring: its speed, and how far features of real frames move."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

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
    half = "bf16" if device == "cpu" else "fp16"
    records = open_store(dataset, home).manifest().current().head(2).to_dict("records")
    seconds = {"fp32": 0.0, half: 0.0}
    cosine = 1.0
    for key, weights in map(locate_backbone, backbones):
        with DecodePool() as pool:
            requests = [frame_request(record, dataset.root) for record in records]
            streams = pool.decode(requests, [key.size], [record["decoder"] for record in records])
            frames = np.stack([frame for stream in streams for _, (frame,) in stream])
        batches = [frames[first : first + _BATCH] for first in range(0, len(frames) - _BATCH + 1, _BATCH)]
        steps = {}
        for precision in seconds:
            network = FrameBackbone(key=replace(key, precision=precision), weights=weights, device=device)
            steps[precision] = partial(_features, network, batches)
        single, rough = (step() for step in steps.values())
        products = (single * rough).sum(1) / np.linalg.norm(single, axis=1) / np.linalg.norm(rough, axis=1)
        cosine = min(cosine, float(products.min()))
        for precision, value in median_seconds(steps, repetitions).items():
            seconds[precision] += value
    return PrecisionSpeed(half, seconds["fp32"] / seconds[half], cosine)


def _features(network: FrameBackbone, batches: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([network.features(batch) for batch in batches])
