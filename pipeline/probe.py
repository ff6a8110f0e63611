"""Probe: how many frames a video presents, and when, before anything is decoded for real."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av.error
import numpy as np

from pipeline.frame_folder import FrameFolder, count_pictures, picture_format
from pipeline.video import VideoError, open_video

# Codecs whose packets announce exactly the frames that come out. Elsewhere (XVID's packed B-frames above all)
# only decoding tells.
_COUNTABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores", "ffv1"})

# decord decodes ahead into memory while its reader waits, in the worst case a whole video, and holds a dozen frames
# even of a shorter one: a child that reads 20 frames of 4K needs 730 MiB with it, 4 frames 340 MiB, PyAV's 190 MiB.
_DECORD_BYTES = 96 * 2**20
_DECORD_FRAMES = 16


@dataclass(frozen=True)
class Probe:
    """The frames of one video in presentation order."""

    timestamps: np.ndarray
    """[n_frames] float64, seconds since the first presented frame."""
    start: float
    """Presentation time of the first frame, seconds."""
    duration: float
    """Seconds from the first frame's appearance to the last one's end."""
    estimated: bool
    """True when the file's own times are absent or not increasing: time = index / average rate."""
    width: int
    height: int
    codec: str
    container: str
    decoder: str
    """First choice for decoding: ``decord`` or ``pyav``; for a folder of pictures ``frames``."""

    @property
    def n_frames(self) -> int:
        return len(self.timestamps)


def probe_video(path: str | Path, *, on_frame: Callable[[], None] | None = None) -> Probe:
    """Read the presentation times of all frames, from the packets where they can be trusted, else by decoding.

    Args:
        path: the file.
        on_frame: called after every packet or frame, as a sign of life.

    Raises:
        VideoError: the file cannot be used as a video.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        rate = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
        times, hidden = _packet_times(container, on_frame) if codec in _COUNTABLE_CODECS else (None, False)
        size = stream.codec_context.width, stream.codec_context.height
        format_name = container.format.name
    if times is None:
        times = _decoded_times(path, on_frame)
    if len(times) == 0:
        raise VideoError("no_frames", "no frame of the video stream can be decoded")
    estimated = bool(np.isnan(times).any() or (np.diff(times) <= 0).any())
    start = 0.0 if estimated else float(times[0])
    seconds = np.arange(len(times)) / rate if estimated else times - start
    frame_seconds = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / rate
    # decord hangs on MPEG-TS, knows no AV1, and counts frames that an edit list hides.
    plain = not (estimated or hidden or format_name == "mpegts" or codec == "av1")
    small = max(len(times), _DECORD_FRAMES) * size[0] * size[1] * 3 <= _DECORD_BYTES
    return Probe(
        timestamps=seconds,
        start=start,
        duration=float(seconds[-1]) + frame_seconds,
        estimated=estimated,
        width=size[0],
        height=size[1],
        codec=codec,
        container=format_name,
        decoder="decord" if plain and small else "pyav",
    )


def probe_frame_folder(path: str | Path, frames: FrameFolder, *, on_frame: Callable[[], None] | None = None) -> Probe:
    """List the pictures of a frame folder and look at the first one; the times are index / ``fps``, so estimated.

    Pictures of another size than the first one are allowed, as all are resized to one square.

    Args:
        path: the folder.
        frames: how its pictures are named and timed.
        on_frame: called after every entry of the folder, as a sign of life.

    Raises:
        VideoError: the folder cannot be used as a video; see ``count_pictures`` and ``read_picture``.
    """
    n_frames = count_pictures(path, frames, on_entry=on_frame)
    codec, width, height = picture_format(path, frames.name(frames.first))
    return Probe(
        timestamps=np.arange(n_frames) / frames.fps,
        start=0.0,
        duration=n_frames / frames.fps,
        estimated=True,
        width=width,
        height=height,
        codec=codec,
        container="frames",
        decoder="frames",
    )


def _packet_times(
    container: av.container.InputContainer, on_frame: Callable[[], None] | None
) -> tuple[np.ndarray | None, bool]:
    """Presentation times of all shown packets in seconds, sorted, and whether some are hidden by an edit list.

    The times are None where a packet lacks its own or shares one.
    """
    stream = container.streams.video[0]
    shown: list[int] = []
    hidden = False
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the flush packet at the end
                continue
            if on_frame:
                on_frame()
            if packet.is_discard:
                hidden = True
            elif packet.pts is None:
                return None, hidden
            else:
                shown.append(packet.pts)
    except av.error.FFmpegError:
        return None, hidden
    pts = np.sort(np.array(shown, np.int64))
    if len(pts) == 0 or (np.diff(pts) == 0).any():
        return None, hidden
    return pts * float(stream.time_base or 0), hidden


def _decoded_times(path: str | Path, on_frame: Callable[[], None] | None) -> np.ndarray:
    """Presentation times of all frames that decode, in output order, NaN where a frame has none."""
    times: list[float] = []
    with open_video(path) as container:
        try:
            for frame in container.decode(video=0):
                times.append(np.nan if frame.time is None else float(frame.time))
                if on_frame:
                    on_frame()
        except av.error.FFmpegError as error:
            if not times:
                raise VideoError("decode", str(error)) from None
    return np.array(times, np.float64)
