"""What transcoding once is worth: `python -m bench.transcode_speed` decodes a 720p video and its copy by turns."""

import tempfile
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np

from bench.machine import median_seconds
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.copies.pool import CopyOutcome, CopyPool, CopyRequest
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.video.identity import file_stamp
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from dynaprop.pipeline.video.transcode import SHORT_SIDE

_FPS = 30


@dataclass(frozen=True)
class TranscodeSpeed:
    """Seconds in one decode child, medians."""

    frames: int
    clips: int
    """Frames that are decoded."""
    probe: float
    """Probing the video, once."""
    original: float
    """From the video as it comes: a key frame every 250 frames."""
    copy: float
    """From its copy."""
    transcode: float
    """Making the copy and verifying it, once."""
    original_bytes: int
    copy_bytes: int

    @property
    def ratio(self) -> float:
        """How many times faster the copy is decoded."""
        return self.original / self.copy


def measure_transcode(
    folder: Path,
    *,
    seconds: int = 30,
    repetitions: int = 5,
    size: tuple[int, int] = (1280, 720),
    clip_seconds: float = 1.0,
) -> TranscodeSpeed:
    """Draw a video, transcode it, and decode its clips from either.

    Args:
        folder: where both go.
        seconds: of the video.
        repetitions: decodings of each, by turns.
        size: of the video, width and height.
        clip_seconds: length of a clip, one second in the catalog's defaults.
    """
    video, copy = folder / "video.mp4", folder / "copy.mp4"
    write_moving_pictures(video, seconds=seconds, size=size)
    with DecodePool(workers=1) as pool:
        wanted = CopyRequest(path=str(video), stamp=file_stamp(video), copy=copy, tag="", short_side=SHORT_SIDE)
        (made,) = CopyPool(pool).transcode([wanted])
        if not isinstance(made, CopyOutcome):
            raise made
        requests, probing = {}, []
        for name, path in (("original", video), ("copy", copy)):
            began = time.perf_counter()
            (probe,) = pool.probe([str(path)])
            probing.append(time.perf_counter() - began)
            if not isinstance(probe, Probe):
                raise probe
            requests[name] = _every_clip(path, probe, clip_seconds), probe.decoder

        def decode(name: str) -> None:
            request, decoder = requests[name]
            for stream in pool.decode([request], [112, 224], [decoder]):
                deque(stream, maxlen=0)
                if stream.outcome is None or stream.outcome.error or stream.outcome.missing:
                    raise RuntimeError(f"{name}: {stream.outcome}")

        times = median_seconds({name: partial(decode, name) for name in requests}, repetitions)
    return TranscodeSpeed(
        frames=made.transcoded.n_frames,
        clips=len(requests["copy"][0].frames),
        probe=probing[0],
        original=times["original"],
        copy=times["copy"],
        transcode=made.seconds,
        original_bytes=video.stat().st_size,
        copy_bytes=copy.stat().st_size,
    )


def write_moving_pictures(path: Path, *, seconds: int, size: tuple[int, int] = (1280, 720)) -> None:
    """A camera that pans over a textured scene with things moving in it, as H.264 with a key frame every 250 frames."""
    rng = np.random.default_rng(0)
    width, height = 1280, 720  # as it is drawn
    scene = np.zeros((2 * height, 2 * width, 3), np.float32)
    for cell in (160, 40, 10, 2):  # coarse and fine structure, as in photographs
        cells = rng.normal(0, 8 + cell / 5, (2 * height // cell, 2 * width // cell, 3))
        scene += cells.repeat(cell, 0).repeat(cell, 1)
    scene = np.clip(scene + 128, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"g": "250", "crf": "23", "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=_FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(_FPS * seconds):
            top, left = (round(span / 2 * (1 + np.sin(index / rate))) for span, rate in ((height, 97), (width, 61)))
            picture = scene[top : top + height, left : left + width].copy()
            for thing in range(6):
                y, x = (index * (3 + thing) + 150 * thing) % (height - 120), (index * (7 - thing)) % (width - 120)
                picture[y : y + 120, x : x + 120] = 255 - scene[200 * thing :][:120, :120]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(*size, format="yuv420p")))
        container.mux(stream.encode())


def _every_clip(path: Path, probe: Probe, clip_seconds: float) -> FrameRequest:
    grid = clip_grid(probe.timestamps, probe.duration, clip_seconds=clip_seconds)
    return FrameRequest.of_file(path, probe, grid.frames)


def main() -> None:
    """Measure and print one line."""
    with tempfile.TemporaryDirectory() as folder:
        speed = measure_transcode(Path(folder))
    print(
        f"{speed.clips} clips of a 720p video of {speed.frames} frames ({speed.original_bytes / 2**20:.1f} MiB): "
        f"{speed.original:.2f} s; of its copy ({speed.copy_bytes / 2**20:.1f} MiB): {speed.copy:.2f} s, "
        f"{speed.ratio:.1f} times faster; made in {speed.transcode:.1f} s"
    )


if __name__ == "__main__":
    main()
