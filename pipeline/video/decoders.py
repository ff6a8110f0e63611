"""Decode: (path, frame times) -> native RGB frames, by PyAV, by decord or from pictures; the one resizer for all sizes.

This module runs in decode children, which stay lean: it imports neither torch nor zarr.
"""

import importlib.util
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.container import VideoError, VideoFile
from dynaprop.pipeline.video.entry_points import closed_groups, may_save, wanted_groups
from dynaprop.pipeline.video.frame_folder import read_picture
from dynaprop.pipeline.video.intact_frames import SAME, decode_frames
from dynaprop.pipeline.video.orientation import display_matrix, upright
from dynaprop.pipeline.video.probe import shown_size
from dynaprop.pipeline.video.request import FrameRequest

_BATCH_BYTES = 64 * 2**20  # native frames that decord holds at once

_Frames = Iterator[tuple[float | None, av.VideoFrame | None]]


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
        VideoError: not one clip can be had, or a frame contradicts the probe or another decoder.
    """
    return READERS[decoder](request, on_frame)


def read_with_pyav(
    request: FrameRequest, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode in presentation order what is needed for the frames of the clips; match them by time, or by index.

    Left out are groups of frames without a clip, where they are proven to be closed, and frames that no clip wants and
    no other frame is predicted from. Where only the index says which frame is meant, all are decoded.
    """
    return _read(request, _all_frames if request.estimated else _needed_frames, on_frame)


def read_in_full(request: FrameRequest, on_frame: Callable[[], None] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Decode every frame from the first on, to compare with."""
    return _read(request, _all_frames, on_frame)


def _read(
    request: FrameRequest,
    decode: Callable[[VideoFile, FrameRequest, Callable[[], None] | None], _Frames],
    on_frame: Callable[[], None] | None,
) -> Iterator[tuple[int, np.ndarray]]:
    due = request.frames.tolist() if request.estimated else (request.start + request.timestamps).tolist()
    n_clips, clip, found = len(due), 0, 0
    form: tuple[int, int, str] | None = None
    first_size = matrix = None
    newest = -inf
    converter = VideoReformatter()  # one for all frames: to make one takes as long as to convert a small frame
    with VideoFile(request.path, stream=request.stream, on_packet=on_frame) as video:
        pixel_aspect = video.stream.sample_aspect_ratio
        for index, (time, frame) in enumerate(decode(video, request, on_frame) if n_clips else ()):
            if frame is not None:
                if form != (form := (frame.width, frame.height, frame.format.name)):
                    matrix = display_matrix(frame)  # a player sets itself up anew then, and only then
                    first_size = first_size or form[:2]
                if time is not None and not request.estimated:
                    if time <= newest:
                        raise VideoError("mismatch", f"frames do not come in the order of their times, at {time:.3f} s")
                    newest = time
            place = index if request.estimated else time
            while clip < n_clips and place is not None and place > due[clip] - SAME:
                if place < due[clip] + SAME and frame is not None:
                    if (frame.width, frame.height) == first_size:  # a stream may go on in another size
                        _require_size(request, clip, shown_size(frame, matrix, pixel_aspect))
                    found += 1
                    yield clip, upright(converter.reformat(frame, format="rgb24", threads=1).to_ndarray(), matrix)
                clip += 1
            if clip == n_clips:
                break
    if not found:
        raise VideoError("missing_frames", f"none of {n_clips} clips can be decoded")


def _all_frames(video: VideoFile, _request: FrameRequest, on_frame: Callable[[], None] | None) -> _Frames:
    return decode_frames(video, on_packet=on_frame)


def _needed_frames(video: VideoFile, request: FrameRequest, on_frame: Callable[[], None] | None) -> _Frames:
    times = (request.start + request.timestamps).tolist()
    if not may_save(video, times):
        yield from decode_frames(video, wanted=times, on_packet=on_frame)
        return
    with VideoFile(request.path, stream=video.stream.index) as other:
        groups = closed_groups(other, on_packet=on_frame)
    for number, (last, packets) in enumerate(wanted_groups(video, groups, times, on_packet=on_frame)):
        if number:
            video.stream.codec_context.flush_buffers()
        for time, frame in decode_frames(video, packets, wanted=times, on_packet=on_frame):
            yield time, frame
            if time is not None and time > last - SAME:
                break


def require_decoder(decoder: str) -> None:
    """Make sure that a decoder is installed, which decord is not on every platform.

    Raises:
        UsageError: it is not.
    """
    if decoder == "decord" and importlib.util.find_spec("decord") is None:
        raise UsageError(
            "'decoder: decord' needs the package decord, which is not here and does not exist for every platform: "
            "`pip install decord`, or leave the key out, since PyAV's frames are the ones that count"
        )


def read_with_decord(
    request: FrameRequest, on_frame: Callable[[], None] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode with decord, and every frame with PyAV, too: decord gives others where seek points are not what they seem.

    Raises:
        VideoError: ``mismatch`` at the first frame that is not the same, ``decode`` where decord fails.
    """
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    expected = read_with_pyav(request, on_frame)
    first = next(expected)  # PyAV opens the file before decord, which would follow a playlist in its place
    try:
        reader = decord.VideoReader(request.path, num_threads=1)
        step = max(1, _BATCH_BYTES // max(1, first[1].nbytes))
        places = [request.frames[begin : begin + step] for begin in range(0, len(request.frames), step)]
        theirs = (frame for place in places for frame in reader.get_batch(place).asnumpy())
        for number, (clip, frame) in enumerate(chain([first], expected)):
            other = next(theirs, None)
            if number != clip or other is None or not np.array_equal(frame, other):
                raise VideoError("mismatch", f"decord's frame for clip {number} is not the one that PyAV shows")
            yield clip, frame
        if next(theirs, None) is not None:
            raise VideoError("mismatch", "decord shows frames that PyAV cannot decode")
    except (decord.DECORDError, RuntimeError, IndexError) as error:
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
    "pyav": read_with_pyav,
    "decord": read_with_decord,
    "frames": read_with_frames,
    "full": read_in_full,
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


def _require_size(request: FrameRequest, clip: int, size: tuple[int, int]) -> None:
    if request.size is not None and size != tuple(request.size):
        at = f"the frame at {request.timestamps[clip]:.2f} s"
        shapes = [f"{width} x {height}" for width, height in (size, request.size)]
        raise VideoError("mismatch", f"{at} is {shapes[0]} pixels as it is shown, where the probe saw {shapes[1]}")
