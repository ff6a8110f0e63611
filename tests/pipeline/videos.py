"""Small real video files for tests, encoded with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    *,
    frames: int = 30,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Encode noise that changes from frame to frame; each frame's grey level tells its index.

    Args:
        path: the ending selects the container.
        frames: number of frames.
        fps: frames a second; the time base of ``times`` is milliseconds.
        size: width and height.
        times: presentation time of each frame in ms, for variable frame rates.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), 20 + 7 * index % 200, np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = rng.integers(0, 255, 3)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def all_frames(path: Path) -> list[np.ndarray]:
    """Every frame as PyAV presents it, in order, with default settings: the plain reference."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
