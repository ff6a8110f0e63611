"""How long an extraction will take: measured on a few videos and frames, and scaled."""

import time
from collections import deque

import numpy as np
import pandas as pd

from dynaprop.pipeline.extract.plan import ExtractionPlan
from dynaprop.pipeline.extract.shard import Extractor
from dynaprop.pipeline.store.recorded import decoder_of, frame_request


def estimate_seconds(extractor: Extractor, plan: ExtractionPlan) -> float:
    """Measure decoding on a few videos and each backbone on two batches, and scale to the plan."""
    shard_clips = {shard: plan.clips_of(shard) for shard in plan.shards}
    seconds = 0.0
    for key in {key for missing in plan.shards.values() for key in missing}:
        clips = sum(shard_clips[shard] for shard, missing in plan.shards.items() if key in missing)
        seconds += clips * seconds_per_frame(extractor, key)
    table = plan.manifest.current()
    sample = table[table["shard"].isin(list(plan.shards))].head(2 * extractor.pool.workers)
    return seconds + plan.clips_to_do * decode_seconds_per_clip(extractor, sample)


def seconds_per_frame(extractor: Extractor, key: str) -> float:
    """Measured time of one frame through the backbone of a key: the second of two batches."""
    backbone = extractor.backbone(next(candidate for candidate in extractor.keys if candidate.name == key))
    frames = np.zeros((extractor.batch_size, backbone.key.size, backbone.key.size, 3), np.uint8)
    backbone.features(frames)
    began = time.perf_counter()
    backbone.features(frames)
    return (time.perf_counter() - began) / extractor.batch_size


def decode_seconds_per_clip(extractor: Extractor, videos: pd.DataFrame) -> float:
    """Measured time of decoding one clip with all children at work, on rows of a manifest."""
    records = videos.to_dict("records")
    sizes = sorted({key.size for key in extractor.keys})
    began = time.perf_counter()
    requests = [frame_request(record, extractor.root) for record in records]
    for stream in extractor.pool.decode(requests, sizes, [decoder_of(record, extractor.decoder) for record in records]):
        deque(stream, maxlen=0)
    return (time.perf_counter() - began) / max(1, sum(record["n_clips"] for record in records))
