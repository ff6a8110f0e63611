"""What is asked of a decoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.probe import Probe


@dataclass(frozen=True)
class FrameRequest:
    """The frames of one video to decode."""

    path: str
    frames: np.ndarray
    """[T] int64, indices in presentation order, strictly increasing."""
    timestamps: np.ndarray
    """[T] float64, seconds of these frames since the first presented one."""
    start: float
    """Presentation time of the first frame, seconds."""
    estimated: bool
    """True when only the index says which frame is meant."""
    folder: FrameFolder | None = None
    """How the pictures are named where ``path`` is a frame folder."""
    stream: int | None = None
    """Number of the video stream; chosen anew where None."""
    size: tuple[int, int] | None = None
    """Width and height that the probe saw, upright and in square pixels."""
    clip_sizes: tuple[tuple[int, ...], ...] | None = None
    """[T] Pixels a side that each clip is wanted at; None where all are wanted at the same sizes."""

    @classmethod
    def of_file(cls, path: str | Path, probe: Probe, frames: np.ndarray) -> Self:
        """Ask for some frames, ``[T]`` rising indices, of a video file."""
        return cls(
            path=str(path),
            frames=frames,
            timestamps=probe.timestamps[frames],
            start=probe.start,
            estimated=probe.estimated,
            stream=probe.stream,
            size=(probe.width, probe.height),
        )
