"""What can be wrong with a video, and the one safe way to open a file as one."""

import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
from av.stream import Disposition
from av.video.stream import VideoStream

# Container demuxers that hold one self-contained video. Playlists (hls, concat, dash) are left out on purpose:
# under an innocent name they make the reader open other files.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mjpeg,m4v,h264,hevc,mpegvideo,ivf,rm"

# What the comment of a transcoded copy begins with.
COPY_MARK = "dynaprop copy: "

ERROR_KINDS = (
    "absent",  # listed, but not on disk: nothing has failed
    "unreadable",  # the file cannot be opened or is no video container
    "no_video",  # a container without a video stream
    "no_frames",  # a video stream without a frame that can be decoded
    "missing_frames",  # frames that the container announces cannot be decoded
    "decode",  # the decoder failed on the data
    "mismatch",  # a decoder contradicts the probe about counts, times or pixels
    "not_finite",  # a feature is not a finite half-precision number
    "changed",  # the file is not the one that was probed
    "encode",  # no copy of it can be encoded
    "memory",  # more than a decode child may use
    "timeout",  # no new frame within the deadline
    "crash",  # the decoder process died again and again
)


class VideoError(Exception):
    """A video that cannot be used.

    Args:
        kind: one of ``ERROR_KINDS``; this is what the ledger counts.
        detail: one line for people.
    """

    def __init__(self, kind: str, detail: str) -> None:
        if kind not in ERROR_KINDS:
            raise ValueError(f"unknown kind of video error: {kind!r}")
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = " ".join(detail.split())

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return VideoError, (self.kind, self.detail)  # between processes: pickle would give back the message alone


class VideoFile:
    """A local file, open as a video container, never as a playlist or a URL: a context manager.

    Where a file has several video streams, the one marked as default counts among those of more than one frame; of
    several such, or of none, the one with most frames. A picture attached to a file looks like a stream of one frame.

    Args:
        path: the file.
        stream: number of the stream to read, where it is known; by the rule above by default.
        on_packet: called after every packet where streams have to be compared, as a sign of life.

    Raises:
        VideoError: ``unreadable``, ``no_video``, or ``decode`` where nobody knows the codec.
    """

    def __init__(
        self, path: str | Path, *, stream: int | None = None, on_packet: Callable[[], None] | None = None
    ) -> None:
        self.container = _open(path)
        self.note = ""
        """What decided between several video streams; empty where there was no choice."""
        try:
            candidates = _video_streams(self.container)
            if stream is None and len(candidates) > 1:
                stream, self.note = _choose(path, candidates, on_packet)
            by_number = {candidate.index: candidate for candidate in candidates}
            if stream is not None and stream not in by_number:
                raise VideoError("mismatch", f"stream {stream}, which the probe chose, is no video stream any more")
            self.stream: VideoStream = candidates[0] if stream is None else by_number[stream]
            if self.stream.codec_context is None:
                raise VideoError("decode", "the video's codec is unknown")
        except BaseException:
            self.container.close()
            raise
        self.time_base = float(self.stream.time_base or 0)
        """Seconds a tick of the stream."""
        self.stream.thread_type = "NONE"  # one thread a child: children are what scales
        self.stream.codec_context.thread_count = 1  # for dav1d, too, whose threads can wait for one another for ever
        self.stream.codec_context.copy_opaque = True  # a frame tells the packet that it comes from
        if self.stream.codec_context.name == "h264":  # else bits that are left over behind a slice are no error
            self.stream.codec_context.options = {"err_detect": "aggressive"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.container.close()

    @property
    def codec(self) -> str:
        """Name of the codec, not of one of its decoders."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def formats(self) -> frozenset[str]:
        """Names of the container's format."""
        return frozenset(self.container.format.name.split(","))

    @property
    def timed(self) -> bool:
        """Whether packets have presentation times; AVI's and ASF's are in the order of decoding."""
        return self.formats.isdisjoint({"avi", "asf"})

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of the stream that hold data, as far as the container makes sense.

        Raises:
            OSError: the file cannot be read any further, as opposed to understood.
        """
        return _packets(self.container, self.stream)


def _open(path: str | Path) -> av.container.InputContainer:
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device may wait for ever
            raise VideoError("unreadable", "not a regular file")
        if status.st_size == 0:  # all of /proc, too
            raise VideoError("unreadable", "the file is empty")
        return av.open(f"file:{Path(path).absolute()}", options=options)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", _reason(error)) from None


def _video_streams(container: av.container.InputContainer) -> list[VideoStream]:
    """The video streams that are no attached pictures.

    Raises:
        VideoError: ``no_video``.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError("no_video", "the file has no video stream")
    return streams


def _choose(path: str | Path, streams: list[VideoStream], on_packet: Callable[[], None] | None) -> tuple[int, str]:
    """Number of the stream that counts, and why it is that one."""
    frames: Counter[int] = Counter()
    with _open(path) as container:  # of its own: reading it to the end is no use to whoever decodes
        for packet in _packets(container, *container.streams.video):
            frames[packet.stream_index] += not packet.is_discard
            if on_packet:
                on_packet()
    usable = [stream for stream in streams if stream.codec_context is not None] or streams
    real = [stream for stream in usable if frames[stream.index] > 1] or usable
    default = [stream for stream in real if stream.disposition & Disposition.default]
    among = default or real
    chosen = max(among, key=lambda stream: (frames[stream.index], -stream.index))
    if len(real) == 1:
        why = "the only one of more than one frame"
    elif len(default) == 1:
        why = "the one marked as default"
    elif len({frames[stream.index] for stream in among}) > 1:
        why = "the one with most frames"
    else:
        why = "the first of equals"
    numbers = ", ".join(str(stream.index) for stream in streams)
    return chosen.index, f"stream {chosen.index} of the video streams {numbers}: {why}"


def _packets(container: av.container.InputContainer, *streams: VideoStream) -> Iterator[av.Packet]:
    try:
        for packet in container.demux(*streams):
            if packet.size:  # an empty one ends the stream, or stands for a frame that was dropped while recording
                yield packet
    except (MemoryError, OSError):
        raise
    except (av.error.FFmpegError, IndexError):  # IndexError: PyAV's, about a stream that turns up in mid-file
        return


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
