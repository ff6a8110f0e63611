"""Small pictures of videos, evenly spaced over their clips, for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.recorded import decoder_of, frame_folder, stream_and_size
from dynaprop.pipeline.video.request import FrameRequest

_QUALITY = 80  # of 100, JPEG


@dataclass(frozen=True)
class Thumbnail:
    """One frame of a video."""

    timestamp: float
    """Seconds since the first frame."""
    jpeg: bytes


def video_thumbnails(
    manifest: Manifest,
    video_ids: Sequence[str],
    *,
    root: Path,
    pool: DecodePool,
    count: int = 6,
    width: int = 160,
) -> dict[str, tuple[Thumbnail, ...]]:
    """Decode the clips in the middle of equal parts of each video.

    Args:
        manifest: the store's manifest, which knows the clips' frames.
        video_ids: the videos.
        root: folder that the manifest's paths are relative to.
        pool: decode children.
        count: parts, and pictures, of a video; a video with fewer clips has fewer pictures.
        width: pixels; the height keeps the video's shape.

    Returns:
        The pictures of each video that could be decoded, in order of time; others are left out.
    """
    current = manifest.current()
    chosen = current[current["video_id"].isin(set(video_ids)) & (current["n_clips"] > 0)]
    records = chosen.drop_duplicates("video_id", keep="last").to_dict("records")
    records = [record for record in records if (root / record["path"]).exists()]
    requests = [_request(record, root, count) for record in records]
    pictures = {}
    for record, request, stream in zip(
        records, requests, pool.decode(requests, [width], [decoder_of(record) for record in records]), strict=True
    ):
        height = max(1, round(width * record["height"] / record["width"]))
        frames = {clip: _jpeg(sizes[0], width, height) for clip, sizes in stream}
        assert stream.outcome is not None
        if stream.outcome.error is None:
            pictures[str(record["video_id"])] = tuple(
                Thumbnail(float(request.timestamps[clip]), frames[clip]) for clip in sorted(frames)
            )
    return pictures


def _request(record: dict[Any, Any], root: Path, count: int) -> FrameRequest:
    n_clips = record["n_clips"]
    clips = np.unique((np.arange(count) + 0.5) * n_clips // count).astype(np.int64)
    return FrameRequest(
        path=str(root / record["path"]),
        frames=np.asarray(record["frames"])[clips],
        timestamps=np.asarray(record["timestamps"])[clips],
        start=record["start"],
        estimated=record["estimated"],
        folder=frame_folder(record),
        **stream_and_size(record),
    )


def _jpeg(square: np.ndarray, width: int, height: int) -> bytes:
    """The pool gives squares: stretch one back to the video's shape."""
    out = BytesIO()
    Image.fromarray(square).resize((width, height), Image.Resampling.LANCZOS).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
