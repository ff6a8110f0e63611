"""Transcode: one video into a small copy that decodes fast, checked to show the same frames at the same times.

This module runs in decode children, which stay lean: it imports neither torch nor zarr.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from av.video.reformatter import Interpolation

from dynaprop.pipeline.video.container import COPY_MARK, VideoError, VideoFile
from dynaprop.pipeline.video.earlier_rules import READING_RULES, read_alike
from dynaprop.pipeline.video.intact_frames import decode_frames
from dynaprop.pipeline.video.orientation import Matrix, display_matrix, is_turned, upright
from dynaprop.pipeline.video.probe import Probe, probe_video

SHORT_SIDE = 256
TOLERANCE = 1e-3  # seconds that a frame's time may differ

# Closed groups of 16 frames without B-frames, so that the order of decoding is that of presentation and nothing has to
# be hidden by an edit list. Without the macroblock tree, with which small pictures come out a little different every
# time and features of all pictures differ more from the original's. One thread a child, as for decoding.
_X264 = {"preset": "veryfast", "crf": "18", "mbtree": "0", "g": "16", "bf": "0", "sc_threshold": "0", "threads": "1"}
_LONGEST = 16384  # pixels a side that H.264 encoders take
_FINEST = 120_000  # ticks a second: beyond it, gaps of some hours would not fit into mp4's 32 bits
_TICKS = 90_000


@dataclass(frozen=True)
class Transcoded:
    """A copy that was verified."""

    n_frames: int
    duration: float
    """Seconds, as in ``Probe``."""
    width: int
    height: int


class NotWritten(Exception):
    """The copy could not be written, which is not the video's fault: the disk is full or read-only.

    Args:
        number: as in ``errno``.
        reason: in the system's words.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


def transcode_video(
    path: str | Path,
    target: str | Path,
    *,
    short_side: int = SHORT_SIDE,
    tag: str = "",
    on_frame: Callable[[], None] | None = None,
) -> Transcoded:
    """Write a copy as H.264 in mp4, in groups of 16 frames, without sound, and verify it.

    The copy shows what ``pipeline.video.decoders`` shows of the original, upright and in square pixels. Its sides are
    even, the shorter one is ``short_side`` or, if that is less, the original's. Each frame keeps its time since the
    first one.

    Args:
        path: the video.
        target: the file to write, whatever its name ends in.
        short_side: pixels, even.
        tag: kept in the copy, for ``is_copy``.
        on_frame: called after every packet or frame, as a sign of life.

    Raises:
        VideoError: the video cannot be used, not all of its frames can be decoded, or the copy differs from it.
        NotWritten: the system refused.
    """
    original = probe_video(path, on_frame=on_frame)
    if original.share < 1:
        raise VideoError("missing_frames", f"the file holds {original.share:.1%} of the frames that it announces")
    _encode(path, target, original, copy_size(original.width, original.height, short_side), tag, on_frame)
    copy = probe_video(target, on_frame=on_frame)
    _compare(original, copy)
    return _transcoded(copy)


def check_copy(
    path: str | Path, copy: str | Path, *, tag: str, on_frame: Callable[[], None] | None = None
) -> Transcoded | None:
    """Whether a file is a whole copy of a video, made under this tag; None if it is not.

    A copy that an earlier version made counts where that version showed the same frames of the video.

    Args:
        path: the video.
        copy: what may be its copy.
        tag: as given to ``transcode_video``.
        on_frame: called after every packet or frame, as a sign of life.

    Raises:
        VideoError: the video itself cannot be used.
    """
    original = probe_video(path, on_frame=on_frame)
    try:
        with VideoFile(copy) as video:
            comment = video.container.metadata.get("comment")
        if comment not in (_comment(tag), COPY_MARK + tag):
            return None
        if comment != _comment(tag) and "pyav" not in read_alike(path, stream=original.stream, on_frame=on_frame):
            return None
        probe = probe_video(copy, on_frame=on_frame)
        _compare(original, probe)
    except VideoError:
        return None
    return _transcoded(probe) if probe.share == 1 else None


def _comment(tag: str) -> str:
    """What a copy says of itself."""
    return f"{COPY_MARK}{tag}, reading rules {READING_RULES}"


def copy_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height of a copy: even, the shorter side ``short_side``, and neither enlarged (2 pixels at least).

    Raises:
        VideoError: ``encode``: a picture so long and thin that no encoder takes it.
    """
    scale = min(1.0, short_side / min(width, height))

    def even(side: int) -> int:
        return max(2, min(2 * round(side * scale / 2), side // 2 * 2))

    size = even(width), even(height)
    if max(size) > _LONGEST:
        raise VideoError("encode", f"its pictures would be {size[0]} x {size[1]}, more than H.264 takes")
    return size


def _encode(
    path: str | Path,
    target: str | Path,
    original: Probe,
    size: tuple[int, int],
    tag: str,
    on_frame: Callable[[], None] | None,
) -> None:
    """Decode, resize and encode frame by frame."""
    with VideoFile(path, stream=original.stream) as video:
        stream = video.stream
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)  # of the probe's estimated times, too
        source_base = Fraction(1) / rate if original.estimated else stream.time_base or Fraction(1)
        exact = source_base.denominator <= _FINEST
        time_base = Fraction(1, source_base.denominator if exact else _TICKS)
        first: int | None = None
        with _output(target, size, rate, time_base, tag) as write:
            form = matrix = None
            for index, (_, frame) in enumerate(decode_frames(video, on_packet=on_frame)):
                if frame is None:
                    at = original.timestamps[min(index, original.n_frames - 1)]
                    raise VideoError(
                        "missing_frames", f"not all frames can be decoded; the first is lost at {at:.2f} s"
                    )
                ticks = index if original.estimated else frame.pts
                if ticks is None:
                    raise VideoError("mismatch", f"frame {index} has no time, other than the probe says")
                first = ticks if first is None else first
                if form != (form := (frame.width, frame.height, frame.format.name)):
                    matrix = display_matrix(frame)
                write(_shown(frame, matrix, size), round((ticks - first) * source_base / time_base))
                if on_frame:
                    on_frame()


@contextmanager
def _output(
    target: str | Path, size: tuple[int, int], rate: Fraction, time_base: Fraction, tag: str
) -> Iterator[Callable[[np.ndarray, int], None]]:
    """A function that writes an RGB frame at a time, in ticks of the time base; the file is whole afterwards."""
    with _refusals():
        container = av.open(f"file:{Path(target).absolute()}", "w", format="mp4")
    try:
        with _refusals():
            container.metadata["comment"] = _comment(tag)
            stream = container.add_stream("libx264", rate=rate, options=_X264)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.time_base = time_base

        def write(picture: np.ndarray, ticks: int) -> None:
            with _refusals():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", threads=1)
                frame.pts, frame.time_base = ticks, time_base
                container.mux(stream.encode(frame))

        yield write
        with _refusals():
            container.mux(stream.encode(None))
            container.close()
    finally:
        with suppress(av.error.FFmpegError, OSError, ValueError):  # closed already, or of no more interest
            container.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """Tell a disk that takes nothing from an encoder that does not take a video."""
    try:
        yield
    except MemoryError:  # FFmpeg's is one, too
        raise
    except OSError as error:
        raise NotWritten(error.errno or 0, error.strerror or str(error)) from None
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError("encode", f"{getattr(error, 'strerror', None) or error}") from None


def _shown(frame: av.VideoFrame, matrix: Matrix | None, size: tuple[int, int]) -> np.ndarray:
    """The frame as it is shown, ``[height, width, 3]``: RGB, so that no colour matrix or range is mistaken."""
    width, height = size[::-1] if is_turned(matrix) else size
    small = frame.reformat(width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1).to_ndarray()
    return upright(small, matrix)


def _compare(original: Probe, copy: Probe) -> None:
    """Raises VideoError ``mismatch`` unless the copy has the original's frames at the original's times."""
    if copy.n_frames != original.n_frames:
        raise VideoError("mismatch", f"the copy has {copy.n_frames} frames, the original {original.n_frames}")
    late = np.abs(copy.timestamps - original.timestamps)
    if copy.estimated or late.max() > TOLERANCE:
        at = int(late.argmax())
        raise VideoError("mismatch", f"the copy's frame {at} comes {late[at]:.3f} s away from the original's")


def _transcoded(copy: Probe) -> Transcoded:
    return Transcoded(n_frames=copy.n_frames, duration=copy.duration, width=copy.width, height=copy.height)
