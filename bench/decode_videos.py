"""Files that decoders are compared on: several kinds, drawn by the sample's generator or encoded from real videos."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path

import av
import numpy as np

from bench.transcode_speed import write_moving_pictures
from dynaprop.pipeline.sample_dataset.scenes import CLASS_NAMES, draw_shot, plan_shots

_PERIOD = 8.0  # pixels, of the pattern on what moves in the drawn scenes
_XVID_BITS = 800_000  # a second, as UT-Interaction and J-HMDB have


@dataclass(frozen=True)
class VideoKind:
    """Files of one kind."""

    name: str
    ordinary: bool
    """Whether it is H.264 with B-frames by x264's defaults or nearly so: what the target ratios are about."""
    paths: tuple[Path, ...]


def write_kinds(folder: Path, real: Sequence[Path], *, files: int, seconds: int) -> list[VideoKind]:
    """Write the files of all kinds.

    Args:
        folder: where they go.
        real: videos at 30 FPS; where there are none, the kinds that are made of them are left out.
        files: of each kind at 320x240; half as many of the others.
        seconds: of each file; half as many at 720p.
    """
    half = max(1, files // 2)
    kinds = [
        VideoKind("H.264 320x240 30 FPS, drawn", True, _h264(folder / "drawn", files, seconds, 30, (320, 240), [])),
        VideoKind("H.264 256p 10 FPS, drawn", True, _h264(folder / "drawn-10", half, seconds, 10, (340, 256), [])),
    ]
    if real:
        kinds += [
            VideoKind("H.264 320x240 30 FPS, real", True, _h264(folder / "real", files, seconds, 30, (320, 240), real)),
            VideoKind("H.264 256p 10 FPS, real", True, _h264(folder / "real-10", half, seconds, 10, (340, 256), real)),
        ]
    large = folder / "large.mp4"
    write_moving_pictures(large, seconds=max(1, seconds // 2))
    kinds.append(VideoKind("H.264 720p 30 FPS, drawn", True, (large,)))
    avi = [folder / f"{number}.avi" for number in range(half)]
    for number, path in enumerate(avi):
        _encode(path, _drawn(number, seconds, 30, (320, 240)), fps=30, size=(320, 240))
    kinds.append(VideoKind("MPEG-4 avi 320x240, drawn", False, tuple(avi)))
    if real:
        step = max(1, len(real) // (4 * files))  # over all classes
        kinds.append(VideoKind("MPEG-4 avi, real as they come", False, tuple(real[::step][: 4 * files])))
    return kinds


def _h264(
    stem: Path, files: int, seconds: int, fps: int, size: tuple[int, int], real: Sequence[Path]
) -> tuple[Path, ...]:
    paths = tuple(stem.with_name(f"{stem.name}-{number}.mp4") for number in range(files))
    joined = _joined(real, size, step=30 // fps)
    for number, path in enumerate(paths):
        frames = islice(joined, fps * seconds) if real else _drawn(number, seconds, fps, size)
        _encode(path, frames, fps=fps, size=size)
    return paths


def _drawn(seed: int, seconds: int, fps: int, size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Scenes of the sample: an object crosses a backdrop with grain before a slow camera, cut every few seconds."""
    rng = np.random.default_rng(seed)
    shots = plan_shots(rng, CLASS_NAMES[seed % len(CLASS_NAMES)], fps * seconds, fps)
    pictures = (draw_shot(rng, shot, period=_PERIOD, width=size[0], height=size[1]) for shot in shots)
    for rgb in chain.from_iterable(pictures):
        yield av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")


def _joined(videos: Sequence[Path], size: tuple[int, int], step: int) -> Iterator[av.VideoFrame]:
    """Every ``step``-th frame of the videos, one video after the other, again and again, brought to one size."""
    for path in cycle(videos):
        with av.open(str(path)) as container:
            for frame in islice(container.decode(video=0), 0, None, step):
                yield frame.reformat(*size, format="yuv420p")


def _encode(path: Path, frames: Iterable[av.VideoFrame], *, fps: int, size: tuple[int, int]) -> None:
    """By x264's defaults (B-frames, a key frame every 250 frames or at a cut); into avi as XVID would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if path.suffix == ".avi":
            stream = container.add_stream("mpeg4", rate=fps)
            stream.codec_context.codec_tag, stream.codec_context.bit_rate = "XVID", _XVID_BITS
        else:
            stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
