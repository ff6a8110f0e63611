"""Probe: how many frames a video presents, and when, before anything is decoded for real."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dynaprop.pipeline.video.container import VideoError, VideoFile
from dynaprop.pipeline.video.frame_folder import FrameFolder, find_pictures, picture_format
from dynaprop.pipeline.video.h264 import DEPENDENT, INDEPENDENT, H264Stream
from dynaprop.pipeline.video.intact_frames import decode_frames
from dynaprop.pipeline.video.orientation import Matrix, display_matrix, is_turned

# Codecs whose packets announce exactly the frames that come out, in containers that give presentation times. Elsewhere
# (XVID's packed B-frames above all) only decoding tells.
_COUNTABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores", "ffv1"})

# Containers that begin with the first frame of the video, not wherever a recording or a cut began.
_FILES = frozenset({"mov", "matroska", "avi"})


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
    """What reads it: ``pyav``; for a folder of pictures ``frames``."""
    share: float = 1.0
    """The part of what the container's index announces that is in the file; 1.0 where there is no such index. Of a
    folder the part of its pictures."""
    stream: int | None = None
    """Number of the video stream; None for a folder of pictures."""
    note: str = ""
    """What decided between several video streams; of a folder, which picture is missing."""
    content: str = ""
    """Hash of all bytes of the file, as a decode pool takes it; empty for a folder, or where the file changed."""
    seconds: float = 0.0
    """Wall time that a decode pool took to probe it."""

    @property
    def n_frames(self) -> int:
        return len(self.timestamps)


def probe_video(
    path: str | Path,
    *,
    by_decoding: bool = False,
    on_frame: Callable[[], None] | None = None,
    on_position: Callable[[int], None] | None = None,
) -> Probe:
    """Read the presentation times of all frames, from the packets where they can be trusted, else by decoding.

    Args:
        path: the file.
        by_decoding: decode all frames in any case.
        on_frame: called after every packet or frame, as a sign of life.
        on_position: called with the place of every packet in the file, as far as the container knows it.

    Raises:
        VideoError: the file cannot be used as a video.
    """
    with VideoFile(path, on_packet=on_frame) as video:
        rate = float(video.stream.average_rate or video.stream.guessed_rate or 0) or 25.0
        packets = _read_packets(video, on_frame, on_position)
        stream, note = video.stream.index, video.note
    with VideoFile(path, stream=stream) as video:
        times = None if by_decoding else packets.times
        frames = decode_frames(video, on_packet=on_frame)
        if times is None:
            times, first = _decoded_times(frames)
        else:
            first = next((frame for _, frame in frames if frame is not None), None)
        if first is None:
            raise VideoError("no_frames", "no frame of the video stream can be decoded")
        width, height = shown_size(first, display_matrix(first), video.stream.sample_aspect_ratio)
        codec, format_name = video.codec, video.container.format.name
    estimated = bool(np.isnan(times).any() or (np.diff(times) <= 0).any())
    start = 0.0 if estimated else float(times[0])
    seconds = np.arange(len(times)) / rate if estimated else times - start
    frame_seconds = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / rate
    return Probe(
        timestamps=seconds,
        start=start,
        duration=float(seconds[-1]) + frame_seconds,
        estimated=estimated,
        width=width,
        height=height,
        codec=codec,
        container=format_name,
        decoder="pyav",
        share=packets.share,
        stream=stream,
        note=note,
    )


def shown_size(frame: av.VideoFrame, matrix: Matrix | None, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame as it is shown: upright, in square pixels.

    Args:
        frame: as decoded.
        matrix: its display matrix.
        pixel_aspect: width of a pixel by its height; None where they are square.
    """
    width, height = max(1, round(frame.width * float(pixel_aspect or 1))), frame.height
    return (height, width) if is_turned(matrix) else (width, height)


def probe_frame_folder(path: str | Path, frames: FrameFolder, *, on_frame: Callable[[], None] | None = None) -> Probe:
    """List the pictures of a frame folder and look at the first one; the times are index / ``fps``, so estimated.

    A picture that is missing keeps its time, as a frame of a file does that cannot be decoded: a clip that it stands
    for is missing, and no other picture moves. Pictures of another size than the first one are allowed, as all are
    resized to one square.

    Args:
        path: the folder.
        frames: how its pictures are named and timed.
        on_frame: called after every entry of the folder, as a sign of life.

    Raises:
        VideoError: the folder cannot be used as a video; see ``find_pictures`` and ``picture_format``.
    """
    found = find_pictures(path, frames, on_entry=on_frame)
    codec, width, height = _first_format(path, map(frames.name, found.numbers), on_frame)
    return Probe(
        timestamps=np.arange(found.expected) / frames.fps,
        start=0.0,
        duration=found.expected / frames.fps,
        estimated=True,
        width=width,
        height=height,
        codec=codec,
        container="frames",
        decoder="frames",
        share=len(found.numbers) / found.expected,
        note=found.note,
    )


def _first_format(path: str | Path, names: Iterable[str], on_frame: Callable[[], None] | None) -> tuple[str, int, int]:
    """Format and size of the first picture that can be opened; raises what is wrong with the first where none can."""
    error: VideoError | None = None
    for name in names:
        try:
            return picture_format(path, name)
        except VideoError as reason:
            error = error or reason
        if on_frame:
            on_frame()
    raise error or VideoError("no_frames", "no picture in the folder")


def share_there(share: float, clips: float, decoder: str) -> float:
    """The part of a video that is there.

    Args:
        share: of what was announced, as in ``Probe``.
        clips: the part of the clips that could be read.
        decoder: as in ``Probe``. The clips of a file are spread over what is in it, those of a folder over all
            pictures that are announced: there a missing picture counts once.
    """
    return min(share, clips) if decoder == "frames" else share * clips


@dataclass(frozen=True)
class _Packets:
    """What the packets of a video stream say, before any is decoded."""

    times: np.ndarray | None
    """Presentation times of all frames, sorted, in seconds; None where only decoding tells."""
    share: float
    """As in ``Probe``."""


def _read_packets(
    video: VideoFile, on_frame: Callable[[], None] | None, on_position: Callable[[int], None] | None
) -> _Packets:
    formats = video.formats
    h264 = H264Stream(video.stream.codec_context.extradata) if video.codec == "h264" else None
    shown: list[int | None] = []
    key: int | None = None  # time of the first key frame
    dts: list[int] = []
    entered = True
    for packet in video.packets():
        if on_frame:
            on_frame()
        if on_position and packet.pos is not None:
            on_position(packet.pos)
        picture = h264.look(packet) if h264 else INDEPENDENT if packet.is_keyframe else DEPENDENT
        if not dts and picture not in (INDEPENDENT, None):  # cut off from what was before; what is none is damaged
            entered = False
        if key is not None and packet.pts is not None and packet.pts < key:  # it leads the key frame in presentation
            entered = False
        if packet.is_keyframe and key is None:
            key = packet.pts
        dts.append(packet.dts or 0)
        if not packet.is_discard:
            shown.append(packet.pts)
    share = 1.0
    if "mov" in formats and video.stream.index_entries:  # the sample table, less what an edit list cuts off
        share = min(1.0, len(dts) / len(video.stream.index_entries))
    elif "avi" in formats and video.stream.frames and dts:  # counts its chunks, some of which may be empty
        share = min(1.0, (max(dts) - min(dts) + 1) / video.stream.frames)
    countable = video.codec in _COUNTABLE_CODECS and video.timed and entered
    if h264 and not h264.progressive:  # a packet may be one of a frame's two fields
        countable = False
    if not countable or key is None or None in shown:
        return _Packets(None, share)
    pts = np.array(shown, np.int64)
    if video.stream.codec_context.has_b_frames and (np.diff(pts) > 0).all():
        return _Packets(None, share)  # frames come in another order than packets, whose times know nothing of it
    pts = np.sort(pts)
    if formats.isdisjoint(_FILES):
        pts = pts[pts >= key]  # the beginning of a stream that was cut, with no references
    if len(pts) == 0 or (np.diff(pts) == 0).any():
        return _Packets(None, share)
    return _Packets(pts * video.time_base, share)


def _decoded_times(
    frames: Iterable[tuple[float | None, av.VideoFrame | None]],
) -> tuple[np.ndarray, av.VideoFrame | None]:
    """Times of all frames, NaN where one has none, and the first frame."""
    times, first = [], None
    for time, frame in frames:
        times.append(np.nan if time is None else time)
        first = first or frame
    return np.array(times, np.float64), first
