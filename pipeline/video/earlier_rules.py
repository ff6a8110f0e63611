"""Earlier rules: whether a version of dynaprop from before `READING_RULES` read the frames that are read today.

Told from packets and the first frame alone. Those versions trusted decord, which enters a file at packets that are
flagged as key and decodes from there; they knew turned pictures by whole degrees and none that are mirrored; they took
the first video stream; and in transcoded copies they entered at flags, too.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from math import inf
from pathlib import Path

import av
import av.error
import numpy as np
from av.stream import Disposition

from dynaprop.pipeline.video.container import COPY_MARK, VideoFile
from dynaprop.pipeline.video.entry_points import closed_groups
from dynaprop.pipeline.video.intact_frames import decode_frames
from dynaprop.pipeline.video.orientation import Matrix, display_matrix, upright

READING_RULES = 1
"""Raised whenever some file is read otherwise than before; rows of a manifest say under which rules they were made."""

# Every packet of these is a frame of its own.
_INTRA = frozenset({"mjpeg", "prores", "ffv1"})
_MPEG4_PICTURE = b"\x00\x00\x01\xb6"  # start code of a VOP, whose type is the next two bits
_ONE = 1 << 16  # in a display matrix
_FIRST = 32  # packets that a decoder may want for its first frame


def read_alike(path: str | Path, *, stream: int | None, on_frame: Callable[[], None] | None = None) -> tuple[str, ...]:
    """Decoders by which earlier versions read the same frames at the same places.

    Args:
        path: the file.
        stream: number of the stream that is read today.
        on_frame: called after every packet, as a sign of life.

    Raises:
        VideoError: the file cannot be used as a video.
    """
    with VideoFile(path, stream=stream) as video:
        streams = [one for one in video.container.streams.video if not one.disposition & Disposition.attached_pic]
        is_copy = video.container.metadata.get("comment", "").startswith(COPY_MARK)
        frame = next((frame for _, frame in decode_frames(video, on_packet=on_frame) if frame is not None), None)
        if frame is None or streams[0].index != stream or not _shown_alike(frame):
            return ()
        matrix = display_matrix(frame)
        known_to_decord = matrix is None or (_is_exact_turn(matrix) and "mov" in video.formats)
    safe = _enters_safely(path, stream, on_frame)
    by_bitstream = _orientation_of_bitstream(path, stream)  # where decord does not look for it
    pyav = ("pyav",) if not by_bitstream and (safe or not is_copy) else ()
    decord = ("decord",) if not by_bitstream and safe and known_to_decord and len(streams) == 1 else ()
    return pyav + decord


def _shown_alike(frame: av.VideoFrame) -> bool:
    """Whether an earlier version turned a frame as it is turned today."""
    corners = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)
    before = np.rot90(corners, frame.rotation // 90) if frame.rotation % 360 else corners
    return np.array_equal(before, upright(corners, display_matrix(frame)))


def _is_exact_turn(matrix: Matrix) -> bool:
    """Whether a matrix asks for quarter turns and no mirror, to the last bit."""
    a, b, _, c, d, *_ = matrix
    return {abs(a), abs(b)} == {0, _ONE} and (c, d) == (-b, a)


def _orientation_of_bitstream(path: str | Path, stream: int | None) -> bool:
    """Whether the first packets have an orientation of their own, whatever the container says."""
    with VideoFile(path, stream=stream) as video:
        bare = av.CodecContext.create(video.stream.codec_context.name, "r")
        assert isinstance(bare, av.VideoCodecContext)
        bare.thread_count = 1
        if video.stream.codec_context.extradata:
            bare.extradata = video.stream.codec_context.extradata
        with suppress(av.error.FFmpegError):
            for packet in islice(video.packets(), _FIRST):
                for frame in bare.decode(av.Packet(bytes(packet))):
                    return display_matrix(frame) is not None
    return False


def _enters_safely(path: str | Path, stream: int | None, on_frame: Callable[[], None] | None) -> bool:
    """Whether every packet that is flagged as key can be decoded, with all behind it, without any before it."""
    with VideoFile(path, stream=stream) as video:
        codec = video.codec
        if codec in _INTRA:
            return True
        if codec == "h264":
            entries = {group.packet for group in closed_groups(video, on_packet=on_frame)}
            with VideoFile(path, stream=stream) as again:
                for number, packet in enumerate(again.packets()):
                    if on_frame:
                        on_frame()
                    if packet.is_keyframe and number not in entries:
                        return False
            return True
        if codec not in _IS_KEY:
            return False
        newest = -inf
        for packet in video.packets():
            if on_frame:
                on_frame()
            order = packet.dts if packet.pts is None else packet.pts
            if order is None or order <= newest or packet.is_keyframe != _IS_KEY[codec](bytes(packet)):
                return False
            newest = order
    return True


def _is_mpeg4_key(packet: bytes) -> bool | None:
    pictures = packet.split(_MPEG4_PICTURE)[1:]
    return pictures[0][:1] < b"\x40" if len(pictures) == 1 and pictures[0] else None  # several: packed B-frames


def _is_vp8_key(packet: bytes) -> bool | None:
    return not packet[0] & 1


def _is_vp9_key(packet: bytes) -> bool | None:
    profile_3 = packet[0] & 0x30 == 0x30  # one bit longer
    return packet[0] >> (1 if profile_3 else 2) & 3 == 0  # show_existing_frame, frame_type


# By codec: whether a packet holds a key frame, None where it is not that simple.
_IS_KEY = {"mpeg4": _is_mpeg4_key, "vp8": _is_vp8_key, "vp9": _is_vp9_key}
