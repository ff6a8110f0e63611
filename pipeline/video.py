"""What can be wrong with a video, and the one safe way to open a file as one."""

from pathlib import Path

import av
import av.container
import av.error

# Container demuxers that hold one self-contained video. Playlists (hls, concat, dash) are left out on purpose:
# under an innocent name they make the reader open other files.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mjpeg,m4v,h264,hevc,mpegvideo,ivf,rm"

ERROR_KINDS = (
    "absent",  # listed, but not on disk: nothing has failed
    "unreadable",  # the file cannot be opened or is no video container
    "no_video",  # a container without a video stream
    "no_frames",  # a video stream without a frame that can be decoded
    "missing_frames",  # frames that the container announces cannot be decoded
    "decode",  # the decoder failed on the data
    "mismatch",  # a decoder contradicts the probe about counts, times or pixels
    "not_finite",  # a feature is not a finite half-precision number
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


def open_video(path: str | Path) -> av.container.InputContainer:
    """Open a local file as a video container, never as a playlist or a URL.

    Raises:
        VideoError: ``unreadable`` or ``no_video``.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    try:
        container = av.open(f"file:{Path(path).absolute()}", options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", _reason(error)) from None
    if not container.streams.video or _is_cover_art(container):
        container.close()
        raise VideoError("no_video", "the file has no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # one thread a child: children are what scales
    return container


def _is_cover_art(container: av.container.InputContainer) -> bool:
    """A picture attached to an audio file shows up as a video stream of one frame."""
    return bool(container.streams.video[0].disposition & av.stream.Disposition.attached_pic)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
