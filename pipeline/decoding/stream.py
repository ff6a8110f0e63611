"""The frames of one video on their way from a decode child to their reader."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.video.container import VideoError

_FRAMES_AHEAD = 64  # decoded frames held a video: bounds memory whatever the video's length


@dataclass(frozen=True)
class DecodeOutcome:
    """How the decoding of one video ended."""

    decoder: str
    attempts: int
    seconds: float
    """Wall time from request to last frame."""
    error: VideoError | None = None
    missing: tuple[int, ...] = ()
    """Clips whose frames cannot be had, where the others can."""


_Item = tuple[int, list[np.ndarray]] | DecodeOutcome | BaseException


class DecodedVideo:
    """The stream of one video's frames, filled by a pool thread and read by the model's loop."""

    def __init__(self, stopped: threading.Event) -> None:
        self._frames: queue.Queue[_Item] = queue.Queue(_FRAMES_AHEAD)
        self._stopped = stopped
        self._newest = ("", -1)  # decoder and clip
        self.outcome: DecodeOutcome | None = None

    def put_frames(self, clip: int, frames: list[np.ndarray], decoder: str) -> None:
        """Hand over a clip, unless the same decoder has given it before its child was lost.

        So a lost child changes neither the batches behind it nor the last bits of their features.
        """
        if decoder != self._newest[0] or clip > self._newest[1]:
            self._newest = decoder, clip
            self.put((clip, frames))

    def put(self, item: _Item) -> None:
        """Hand over a clip, the outcome or what broke; waits while the reader is behind."""
        while not self._stopped.is_set():
            try:
                return self._frames.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield ``(clip, [frame a size])``; afterwards ``outcome`` is set.

        Clips come in order, and from the beginning anew where a decoder failed half-way and another one took over:
        the last one counts.
        """
        while True:
            try:
                item = self._frames.get(timeout=0.5)
            except queue.Empty:
                if self._stopped.is_set():
                    raise DynapropError("the decode pool was closed while it was read") from None
                continue
            if isinstance(item, DecodeOutcome):
                self.outcome = item
                return
            if isinstance(item, BaseException):
                raise item
            yield item
