"""One backbone's features of a shard in the making."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dynaprop.pipeline.backbones.backbone import FrameBackbone  # imports torch, which what is cached does not need


class ShardFeatures:
    """Takes a shard's frames one by one, and runs them through a backbone in batches, which fill across videos.

    Args:
        backbone: the backbone.
        rows: of a shard.
        batch_size: frames a forward pass.
    """

    def __init__(self, backbone: "FrameBackbone", *, rows: int, batch_size: int) -> None:
        self.backbone = backbone
        self.features = np.full((rows, backbone.channels), np.nan, np.float16)
        """[rows, channels], NaN where no frame was added."""
        self.forwarded = 0
        """Frames that went through the backbone."""
        size = backbone.key.size
        self._batch = np.zeros((batch_size, size, size, 3), np.uint8)
        self._rows: list[int] = []
        self._running: tuple[list[int], Callable[[], np.ndarray]] | None = None

    def add(self, row: int, frame: np.ndarray) -> None:
        """Take the frame ``[size, size, 3]`` of a row; it may be overwritten at once."""
        self._batch[len(self._rows)] = frame
        self._rows.append(row)
        if len(self._rows) == len(self._batch):
            self._start()

    def finish(self) -> None:
        """Run the last batch, wait for it; a short one is filled up with what lies there: the shape never changes."""
        if self._rows:
            self._start()
        self._wait()

    def _start(self) -> None:
        """Begin a batch, then take the features of the one before: a GPU always has one to work on."""
        rows, running = self._rows, self.backbone.start(self._batch)
        self._wait()
        self._rows, self._running = [], (rows, running)

    def _wait(self) -> None:
        if self._running is not None:
            rows, result = self._running
            with np.errstate(over="ignore"):  # an overflow becomes inf and fails the video
                self.features[rows] = result()[: len(rows)]
            self.forwarded += len(rows)
            self._running = None
