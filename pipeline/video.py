"""What can be wrong with a video, and the one safe way to open a file as one."""

import stat
from collections.abc import Iterator
from pathlib import Path

import av
import av.container
import av.error
from av.video.stream import VideoStream

# Container demuxers that hold one self-contained video. Playlists (hls, concat, dash) are left out on purpose:
# under an innocent name they make the reader open other files.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mjpeg,m4v,h264,hevc,mpegvideo,ivf,rm"

# What the comment of a transcoded copy begins with: in such a file every group of frames stands for itself.
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


def open_video(path: str | Path) -> av.container.InputContainer:
    """Open a local file as a video container, never as a playlist or a URL.

    Raises:
        VideoError: ``unreadable``, ``no_video``, or ``decode`` where nobody knows the codec.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device may wait for ever
            raise VideoError("unreadable", "not a regular file")
        if status.st_size == 0:  # all of /proc, too
            raise VideoError("unreadable", "the file is empty")
        container = av.open(f"file:{Path(path).absolute()}", options=options)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", _reason(error)) from None
    try:
        stream = video_stream(container)
    except VideoError:
        container.close()
        raise
    stream.thread_type = "NONE"  # one thread a child: children are what scales
    stream.codec_context.thread_count = 1  # for dav1d, too, whose threads can wait for one another for ever
    stream.codec_context.copy_opaque = True  # a frame tells the packet that it comes from
    if stream.codec_context.name == "h264":  # else bits that are left over behind a slice are no error
        stream.codec_context.options = {"err_detect": "aggressive"}
    return container


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """The first video stream that is not a cover: a picture attached to a file looks like a stream of one frame.

    Raises:
        VideoError: ``no_video`` or ``decode``.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError("decode", "the video's codec is unknown")
            return stream
    raise VideoError("no_video", "the file has no video stream")


def read_packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """Yield the packets of the video stream that hold data, as far as the container makes sense.

    Raises:
        OSError: the file cannot be read any further, as opposed to understood.
    """
    try:
        for packet in container.demux(video_stream(container)):
            if packet.size:  # an empty one ends the stream, or stands for a frame that was dropped while recording
                yield packet
    except (MemoryError, OSError):
        raise
    except (av.error.FFmpegError, IndexError):  # IndexError: PyAV's, about a stream that turns up in mid-file
        return


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
