"""Video files whose frames carry a number that survives compression, so that a wrong frame is noticed."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

DARK, LIGHT = 60, 196
SIDE = 32  # pixels a side at which numbers are read


def draw(number: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An RGB frame of 4 x 4 blocks under noise: two rows are the number's eight bits, two their complement.

    Seen in another orientation, it is unreadable or another number. Videos smaller than that are plain grey.
    """
    width, height = size
    if min(size) < 16:
        return np.full((height, width, 3), 20 + 3 * number, np.uint8)
    bits = np.unpackbits(np.array([number % 256, 255 - number % 256], np.uint8)).reshape(4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    frame = np.where(bits[rows][:, columns], LIGHT, DARK)[..., None] + rng.integers(-20, 21, (height, width, 1))
    return np.repeat(frame, 3, 2).astype(np.uint8)


def read_number(square: np.ndarray, *, grey: bool = False) -> int:
    """The number of a frame that was resized to ``[SIDE, SIDE, 3]``; -1 where none can be read."""
    if grey:
        return round((float(square.mean()) - 20) / 3)
    blocks = square.mean(2).reshape(4, SIDE // 4, 4, SIDE // 4)[:, 2:-2, :, 2:-2].mean((1, 3))
    number, complement = np.packbits(blocks.reshape(2, 8) > (DARK + LIGHT) / 2, axis=1)[:, 0]
    return int(number) if number == 255 - complement else -1


def encode(
    path: Path,
    *,
    frames: int = 60,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    form: str | None = None,
    form_options: dict[str, str] | None = None,
    seekable: bool = True,
) -> Path:
    """Write a video whose frame i carries the number i.

    Args:
        path: its ending selects the container, unless ``form`` names one.
        times: presentation time of each frame in ms, for variable frame rates.
        rotation: degrees counter-clockwise that the tag asks a player for; the stored picture is turned the other way.
        pixel_aspect: width of a pixel by its height.
        seekable: False writes as to a pipe, so that no header can be completed afterwards.
    """
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    target = str(path) if seekable else _Pipe(out)
    form = form or {".ts": "mpegts", ".mkv": "matroska", ".mpg": "mpeg"}.get(path.suffix, path.suffix[1:])
    defaults = {"g": "10", "bf": "0", "preset": "ultrafast", "coder": "cabac"} if codec == "libx264" else {}
    turned = size[::-1] if rotation % 180 else size
    with av.open(target, "w", format=form, options=form_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=defaults | {"threads": "1"} | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *turned, pix_fmt
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            picture = np.rot90(draw(number, size, rng), -rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if not seekable:
        path.write_bytes(out.getvalue())
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Position in the file and size of every video packet, in the order of the file."""
    with av.open(str(path)) as container:
        return sorted((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)


class _Pipe(io.RawIOBase):
    """A file that can only be written to from beginning to end."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._out.write(data)  # type: ignore[arg-type]
