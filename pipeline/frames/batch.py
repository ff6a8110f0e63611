"""Frames of some videos, at the sizes that networks take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from dynaprop.pipeline.video.container import VideoError


@dataclass(frozen=True)
class FrameBatch:
    """Frames of some videos, those of one video after those of another."""

    videos: np.ndarray
    """[b] int64, positions in the list of training videos."""
    counts: np.ndarray
    """[b] int64, frames of each, at least one."""
    frames: Mapping[int, np.ndarray]
    """By size in pixels: ``[sum(counts), size, size, 3]`` uint8, the same frames at every size."""
    failed: Mapping[int, VideoError] = field(default_factory=dict)
    """Videos that would be here, by position, and why they are not."""

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def mask(self) -> np.ndarray:
        """Bool ``[b, max(counts)]``, False at padding."""
        return np.arange(self.counts.max(initial=0)) < self.counts[:, None]

    def parts(self, size: int) -> "Iterator[FrameBatch]":
        """The same in parts of at most ``size`` videos."""
        ends = np.cumsum(self.counts)
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            rows = slice(ends[first] - self.counts[first], ends[last - 1])
            frames = {side: frames[rows] for side, frames in self.frames.items()}
            yield FrameBatch(self.videos[first:last], self.counts[first:last], frames)
