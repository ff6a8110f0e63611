"""Decode: (path, frame times) -> native RGB frames, by decord, by PyAV or from pictures; the one resizer for all sizes.

This module runs in decode children, which stay lean: it imports neither torch nor zarr.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import av.container
import av.error
import numpy as np
from PIL import Image

from pipeline.frame_folder import FrameFolder, read_picture
from pipeline.sound_frames import decode_frames
from pipeline.video import COPY_MARK, VideoError, open_video, video_stream

_SAME = 1e-4  # seconds: times that differ by less are one frame's
_BATCH_BYTES = 64 * 2**20  # native frames that decord holds at once


@dataclass(frozen=True)
class FrameRequest:
    """The frames of one video to decode."""

    path: str
    frames: np.ndarray
    """[T] int64, indices in presentation order, strictly increasing."""
    timestamps: np.ndarray
    """[T] float64, seconds of these frames since the first presented one."""
    n_frames: int
    """Frames that the probe counted."""
    start: float
    """Presentation time of the first frame, seconds."""
    estimated: bool
    """True when only the index says which frame is meant."""
    folder: FrameFolder | None = None
    """How the pictures are named where ``path`` is a frame folder."""
    clip_sizes: tuple[tuple[int, ...], ...] | None = None
    """[T] Pixels a side that each clip is wanted at; None where all are wanted at the same sizes."""


def read_frames(
    request: FrameRequest, decoder: str, *, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(clip, frame)``, the clips in order, the frames RGB ``[height, width, 3]`` uint8.

    A clip whose frame cannot be had is passed over, except by decord, which gives all or fails.

    Args:
        request: what to read.
        decoder: a name in ``READERS``.
        on_frame: called after decoding steps, also between requested frames, as a sign of life.

    Raises:
        VideoError: not one clip can be had, or the decoder contradicts the probe.
    """
    if decoder == "decord":
        open_video(request.path).close()  # decord itself would follow a playlist that took the file's place
    return READERS[decoder](request, on_frame)


def read_with_pyav(
    request: FrameRequest, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode in presentation order; match frames by time, or by index where times are estimated.

    Decoding begins at the start, as groups of frames may depend on one another; in a transcoded copy they do not, and
    those without a clip are left out.
    """
    n_clips, clip, found = len(request.frames), 0, 0
    with open_video(request.path) as container:
        is_copy = not request.estimated and container.metadata.get("comment", "").startswith(COPY_MARK)
        decoded = (_wanted_groups if is_copy else _all_frames)(container, request, on_frame)
        for index, (time, frame) in enumerate(decoded):
            while clip < n_clips and (late := _lateness(request, clip, index, time)) >= 0:
                if late == 0 and frame is not None:
                    found += 1
                    yield clip, _upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                clip += 1
            if clip == n_clips:
                break
    if not found:
        raise VideoError("missing_frames", f"none of {n_clips} clips can be decoded")


def _all_frames(
    container: av.container.InputContainer, _request: FrameRequest, on_frame: Callable[[], None] | None
) -> Iterator[tuple[float | None, av.VideoFrame | None]]:
    return decode_frames(container, on_packet=on_frame)


def _wanted_groups(
    container: av.container.InputContainer, request: FrameRequest, on_frame: Callable[[], None] | None
) -> Iterator[tuple[float | None, av.VideoFrame | None]]:
    """As ``decode_frames``, but of each group of frames that holds clips only what comes before the last of them."""
    stream = video_stream(container)
    keys = [entry.timestamp for entry in stream.index_entries or () if entry.is_keyframe]
    times = request.start + request.timestamps
    begins = np.array(keys, np.float64) * float(stream.time_base or 0)
    groups = np.searchsorted(begins, times + _SAME, side="right") - 1
    for group in np.unique(groups):
        if group >= 0:
            try:
                container.seek(keys[group], stream=stream)
            except av.error.FFmpegError as error:
                raise VideoError("decode", f"seeking: {error}") from None
            stream.codec_context.flush_buffers()
        last = times[groups == group][-1]
        for time, frame in decode_frames(container, on_packet=on_frame):
            yield time, frame
            if time is not None and time > last - _SAME:
                break


def read_with_decord(
    request: FrameRequest, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode with decord, trusted only where it agrees with the probe and a random read equals the forward one."""
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    try:
        with _stderr_in_file() as log:
            reader = decord.VideoReader(request.path, num_threads=1)
            if len(reader) != request.n_frames:
                raise VideoError("mismatch", f"decord counts {len(reader)} frames, the probe {request.n_frames}")
            begin, end = np.asarray(reader.get_frame_timestamp(np.append(request.frames, 0)), np.float64).T
            half_a_frame = np.maximum(end - begin, 2e-3)[:-1] / 2  # decord's times are single precision
            if (np.abs(begin[:-1] - begin[-1] - request.timestamps) > half_a_frame).any():
                raise VideoError("mismatch", "decord's frame times differ from the probe's")
            middle = len(request.frames) // 2
            witness = reader[int(request.frames[middle])].asnumpy()
            step = max(1, _BATCH_BYTES // max(1, witness.nbytes))
            for first in range(0, len(request.frames), step):
                batch = reader.get_batch(request.frames[first : first + step]).asnumpy()
                if first <= middle < first + step and not np.array_equal(batch[middle - first], witness):
                    raise VideoError("mismatch", "decord's random read differs from its forward read")
                if os.fstat(log).st_size:  # its FFmpeg conceals damage, and only says so
                    raise VideoError(
                        "mismatch", f"decord gives damaged frames: {os.pread(log, 200, 0).decode('latin1')}"
                    )
                if on_frame:
                    on_frame()
                yield from enumerate(batch, first)
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError("decode", f"decord: {str(error).splitlines()[0]}") from None


def read_with_frames(
    request: FrameRequest, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Read the wanted pictures of a frame folder by their numbers; no other one is opened."""
    if request.folder is None:
        raise ValueError(f"{request.path}: a frame folder is read, but not how its pictures are named")
    found, error = 0, None
    for clip, index in enumerate(request.frames):
        try:
            picture = read_picture(request.path, request.folder.name(request.folder.first + int(index)))
        except VideoError as reason:
            error = error or reason
        else:
            found += 1
            yield clip, picture
        if on_frame:
            on_frame()
    if error and not found:
        raise error


READERS: dict[str, Callable[[FrameRequest, Callable[[], None] | None], Iterator[tuple[int, np.ndarray]]]] = {
    "decord": read_with_decord,
    "pyav": read_with_pyav,
    "frames": read_with_frames,
}


def resize_frame(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize a whole frame to a square: bicubic, antialiased, 8 bits.

    Args:
        frame: RGB ``[height, width, 3]`` uint8.
        size: pixels a side.

    Returns:
        ``[size, size, 3]`` uint8.
    """
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))


def _lateness(request: FrameRequest, clip: int, index: int, time: float | None) -> int:
    """-1, 0 or 1: a frame, by index and time, comes before, at or after the one of a clip."""
    if request.estimated:
        return int(np.sign(index - request.frames[clip]))
    if time is None:
        return -1
    late = time - request.start - request.timestamps[clip]
    return 0 if abs(late) < _SAME else int(np.sign(late))


def _upright(frame: np.ndarray, degrees: int) -> np.ndarray:
    """Apply the rotation tag, as decord does by itself."""
    return np.ascontiguousarray(np.rot90(frame, degrees // 90)) if degrees % 360 else frame


@contextmanager
def _stderr_in_file() -> Iterator[int]:
    """Send to a file, whose descriptor is given, what native libraries print to standard error."""
    # In memory where the system can: a temporary folder may be full, and then damage would go unnoticed.
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("log"), "w") if in_memory else tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file.fileno()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
