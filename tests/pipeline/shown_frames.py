"""What a plain player shows: everything decoded in order by PyAV alone, upright as FFmpeg's own player does it.

The measure that probe and decode are held against, so it shares no code with them.
"""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type

_TICK = 1e-4  # seconds; container time bases round by less


@dataclass(frozen=True)
class ShownFrames:
    """All frames of one video stream, in the order of their presentation."""

    frames: list[np.ndarray]
    """RGB, upright."""
    start: float
    """Presentation time of the first one, seconds; 0 where there are no times."""
    times: np.ndarray
    """[n] seconds since the first one."""
    estimated: bool
    """The file has no times, or they do not increase: time = index / average rate."""
    pixel_aspect: Fraction

    @property
    def duration(self) -> float:
        """To the end of the last frame, which is as long as most."""
        return float(self.times[-1] + np.median(np.diff(self.times))) if len(self.times) > 1 else math.nan

    def index_at(self, seconds: float) -> int:
        """The last frame presented at or before a time of the file; -1 where there is none yet."""
        return int(np.searchsorted(self.start + self.times, seconds + _TICK, side="right")) - 1


_NOTHING = ShownFrames([], 0.0, np.empty(0), True, Fraction(1))


def shown_frames(path: Path, stream_index: int) -> ShownFrames:
    """Decode a video stream from its first byte to its last, leaving nothing out and beginning nowhere else."""
    frames: list[np.ndarray] = []
    times: list[float | None] = []
    try:
        container = av.open(str(path))
    except FFmpegError:  # cut too short to be a file of its kind
        return _NOTHING
    with container:
        if stream_index >= len(container.streams.video):
            return _NOTHING
        stream = container.streams.video[stream_index]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        form, matrix = None, None
        for frame in _decoded(container, stream):
            if form != (form := (frame.width, frame.height, frame.format.name)):
                matrix = _matrix(frame)  # the player looks at it when it sets itself up, and only then
            frames.append(_upright(frame.to_ndarray(format="rgb24"), matrix))
            times.append(None if frame.pts is None else float(frame.pts * stream.time_base))
    seconds = np.array(times, np.float64)
    estimated = bool(np.isnan(seconds).any() or (np.diff(seconds) <= 0).any())
    if estimated or not frames:
        return ShownFrames(frames, 0.0, np.arange(len(frames)) / rate, True, aspect)
    return ShownFrames(frames, float(seconds[0]), seconds - seconds[0], False, aspect)


def _decoded(container: av.container.InputContainer, stream: av.VideoStream):
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, IndexError):
            packet = None  # the file makes no sense from here on; what the decoder holds is still shown
        try:
            yield from stream.codec_context.decode(packet if packet and packet.size else None)
        except FFmpegError:
            if packet is None or not packet.size:
                return
        if packet is None or not packet.size:
            return


def _matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    return struct.unpack("<9i", bytes(data)) if data else None


def _upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """As ``ffplay`` chooses its filters, word for word."""
    if matrix is None:
        return picture
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    # FFmpeg's angle is counter-clockwise, its player's clockwise.
    theta = round(math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0])))
    theta -= 360 * math.floor(theta / 360 + 0.9 / 360)
    if abs(theta - 90) < 1:
        picture = picture.swapaxes(0, 1) if matrix[3] > 0 else np.rot90(picture, -1)
    elif abs(theta - 180) < 1:
        picture = picture[:, ::-1] if matrix[0] < 0 else picture
        picture = picture[::-1] if matrix[4] < 0 else picture
    elif abs(theta - 270) < 1:
        picture = np.rot90(picture, -1)[::-1] if matrix[3] < 0 else np.rot90(picture, 1)
    elif abs(theta) < 1 and matrix[4] < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
