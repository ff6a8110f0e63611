"""Probe: how many frames a video presents, and when, before anything is decoded for real."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np

from pipeline.frame_folder import FrameFolder, count_pictures, picture_format
from pipeline.sound_frames import decode_frames
from pipeline.video import VideoError, open_video, read_packets, video_stream

# Codecs whose packets announce exactly the frames that come out, in containers that give presentation times, which AVI
# does not. Elsewhere (XVID's packed B-frames above all) only decoding tells.
_COUNTABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores", "ffv1"})

# Containers that begin with the first frame of the video, not wherever a recording or a cut began.
_FILES = frozenset({"mov", "matroska", "avi"})

# decord is believed in the same containers alone: it hangs on MPEG-TS, and in ASF it gives other frames than were asked
# for. It knows no AV1, and keeps silent about HEVC frames whose references are gone and most damage to H.264 baseline,
# which PyAV notices.
_NOT_BY_DECORD = frozenset({"av1", "hevc"})

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
    """As the video is shown: upright, in square pixels."""
    codec: str
    container: str
    decoder: str
    """First choice for decoding: ``decord`` or ``pyav``; for a folder of pictures ``frames``."""
    share: float = 1.0
    """The part of what the container's index announces that is in the file; 1.0 where there is no such index."""
    seconds: float = 0.0
    """Wall time that a decode pool took to probe it."""

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
        stream = video_stream(container)
        codec, format_name = _codec(container), container.format.name
        baseline = codec == "h264" and "Baseline" in (stream.profile or "")
        rate = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
        packets = _read_packets(container, on_frame)
    with open_video(path) as container:
        times, first = packets.times, None
        frames = decode_frames(container, on_packet=on_frame)
        if times is None:
            decoded = []
            for time, frame in frames:
                decoded.append(np.nan if time is None else time)
                first = first or frame
            times = np.array(decoded, np.float64)
        else:
            first = next((frame for _, frame in frames if frame is not None), None)
        if first is None:
            raise VideoError("no_frames", "no frame of the video stream can be decoded")
        width, height = _shown_size(first, video_stream(container).sample_aspect_ratio)
        n_streams = len(container.streams.video)
    estimated = bool(np.isnan(times).any() or (np.diff(times) <= 0).any())
    start = 0.0 if estimated else float(times[0])
    seconds = np.arange(len(times)) / rate if estimated else times - start
    frame_seconds = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / rate
    known = not baseline and codec not in _NOT_BY_DECORD and not _FILES.isdisjoint(format_name.split(","))
    # It counts what an edit list hides, and of several streams it may take another one.
    plain = known and packets.share == 1.0 and n_streams == 1 and not (estimated or packets.hidden)
    small = max(len(times), _DECORD_FRAMES) * first.width * first.height * 3 <= _DECORD_BYTES
    return Probe(
        timestamps=seconds,
        start=start,
        duration=float(seconds[-1]) + frame_seconds,
        estimated=estimated,
        width=width,
        height=height,
        codec=codec,
        container=format_name,
        decoder="decord" if plain and small else "pyav",
        share=packets.share,
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


@dataclass(frozen=True)
class _Packets:
    """What the packets of a video stream say, before any is decoded."""

    times: np.ndarray | None
    """Presentation times of all frames, sorted, in seconds; None where only decoding tells."""
    hidden: bool
    """Whether an edit list hides some."""
    share: float
    """As in ``Probe``."""


def _read_packets(container: av.container.InputContainer, on_frame: Callable[[], None] | None) -> _Packets:
    stream = video_stream(container)
    names = set(container.format.name.split(","))
    shown: list[int | None] = []
    first_key: int | None = None
    dts: list[int] = []
    hidden = False
    for packet in read_packets(container):
        if on_frame:
            on_frame()
        dts.append(packet.dts or 0)
        if packet.is_keyframe and first_key is None:
            first_key = packet.pts
        if packet.is_discard:
            hidden = True
        else:
            shown.append(packet.pts)
    share = 1.0
    if "mov" in names and stream.index_entries:  # the sample table, less what an edit list cuts off
        share = min(1.0, len(dts) / len(stream.index_entries))
    elif "avi" in names and stream.frames and dts:  # counts its chunks, some of which may be empty
        share = min(1.0, (max(dts) - min(dts) + 1) / stream.frames)
    countable = _codec(container) in _COUNTABLE_CODECS and "avi" not in names
    if not countable or first_key is None or None in shown:
        return _Packets(None, hidden, share)
    pts = np.sort(np.array(shown, np.int64))
    if names.isdisjoint(_FILES):
        pts = pts[pts >= first_key]  # the beginning of a stream that was cut, with no references
    if len(pts) == 0 or (np.diff(pts) == 0).any():
        return _Packets(None, hidden, share)
    return _Packets(pts * float(stream.time_base or 0), hidden, share)


def _codec(container: av.container.InputContainer) -> str:
    """Name of the codec, not of one of its decoders."""
    return video_stream(container).codec_context.codec.canonical_name


def _shown_size(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height as the rotation tag and the shape of the pixels make them."""
    width, height = max(1, round(frame.width * float(pixel_aspect or 1))), frame.height
    return (height, width) if frame.rotation % 180 else (width, height)
