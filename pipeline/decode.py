"""Decode: (path, frame times) -> native RGB frames, by decord, by PyAV or from pictures; the one resizer for all sizes.

This module runs in decode children, which stay lean: it imports neither torch nor zarr.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av.error
import numpy as np
from PIL import Image

from pipeline.frame_folder import FrameFolder, read_picture
from pipeline.video import VideoError, open_video

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


def read_frames(
    request: FrameRequest, decoder: str, *, on_frame: Callable[[], None] | None = None
) -> Iterator[np.ndarray]:
    """Yield the requested frames in order as RGB ``[height, width, 3]`` uint8 arrays.

    Args:
        request: what to read.
        decoder: a name in ``READERS``.
        on_frame: called after decoding steps, also between requested frames, as a sign of life.

    Raises:
        VideoError: a frame is missing or cannot be decoded, or the decoder contradicts the probe.
    """
    if decoder == "decord":
        open_video(request.path).close()  # decord itself would follow a playlist that took the file's place
    return READERS[decoder](request, on_frame)


def read_with_pyav(request: FrameRequest, on_frame: Callable[[], None] | None = None) -> Iterator[np.ndarray]:
    """Decode from the start in presentation order; match frames by time, or by index where times are estimated."""
    with open_video(request.path) as container:
        wanted = 0
        try:
            for index, frame in enumerate(container.decode(video=0)):
                if wanted == len(request.frames):
                    return
                if on_frame:
                    on_frame()
                if request.estimated:
                    late = index - int(request.frames[wanted])
                else:
                    late = _lateness(frame.time, request.start + request.timestamps[wanted])
                if late > 0:
                    break
                if late == 0:
                    wanted += 1
                    yield _upright(frame.to_ndarray(format="rgb24"), frame.rotation)
        except MemoryError:  # FFmpeg's is one, too
            raise
        except av.error.FFmpegError as error:
            raise VideoError("decode", f"after {wanted} of {len(request.frames)} clips: {error}") from None
    if wanted < len(request.frames):
        seconds = request.timestamps[wanted]
        raise VideoError("missing_frames", f"{wanted} of {len(request.frames)} clips, none at {seconds:.2f} s")


def read_with_decord(request: FrameRequest, on_frame: Callable[[], None] | None = None) -> Iterator[np.ndarray]:
    """Decode with decord, trusted only where it agrees with the probe and a random read equals the forward one."""
    import decord

    try:
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
            if on_frame:
                on_frame()
            yield from batch
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError("decode", f"decord: {str(error).splitlines()[0]}") from None


def read_with_frames(request: FrameRequest, on_frame: Callable[[], None] | None = None) -> Iterator[np.ndarray]:
    """Read the wanted pictures of a frame folder by their numbers; no other one is opened."""
    if request.folder is None:
        raise ValueError(f"{request.path}: a frame folder is read, but not how its pictures are named")
    for index in request.frames:
        yield read_picture(request.path, request.folder.name(request.folder.first + int(index)))
        if on_frame:
            on_frame()


READERS: dict[str, Callable[[FrameRequest, Callable[[], None] | None], Iterator[np.ndarray]]] = {
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


def _lateness(time: float | None, wanted: float) -> int:
    """-1, 0 or 1: the frame comes before, at or after the wanted time."""
    if time is None:
        return -1
    return 0 if abs(time - wanted) < 1e-4 else int(np.sign(time - wanted))


def _upright(frame: np.ndarray, degrees: int) -> np.ndarray:
    """Apply the rotation tag, as decord does by itself."""
    return np.ascontiguousarray(np.rot90(frame, degrees // 90)) if degrees % 360 else frame
