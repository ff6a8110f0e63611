"""Videos as people find them twice: coded again, smaller, cut, with a logo; made of real ones, frame by frame."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Frames = list[Image.Image]


def _each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Frames], Frames]:
    return lambda frames: [change(frame) for frame in frames]


def _smaller(frame: Image.Image) -> Image.Image:
    return frame.resize((frame.width // 2, frame.height // 2), Image.Resampling.BICUBIC)


def _cut(frames: Frames) -> Frames:
    return frames[len(frames) // 4 : len(frames) - len(frames) // 6]


def _with_logo(frame: Image.Image) -> Image.Image:
    frame = frame.copy()
    width, height = frame.width // 4, frame.height // 8
    left, top = frame.width - width - frame.width // 20, frame.height // 20
    draw = ImageDraw.Draw(frame)
    draw.rectangle((left, top, left + width, top + height), fill=(200, 20, 20))
    draw.text((left + width // 8, top + height // 6), "CLIPS.TV", fill=(255, 255, 255), font_size=max(6, height // 2))
    return frame


def _brighter(frame: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(frame).enhance(1.2)).enhance(1.15)


def _cropped(frame: Image.Image) -> Image.Image:
    x, y = frame.width // 14, frame.height // 14
    return frame.crop((x, y, frame.width - x, frame.height - y))


def _with_bars(frame: Image.Image) -> Image.Image:
    return ImageOps.expand(frame, border=(frame.width // 6, 0), fill=0)


# Name: what is done to the frames, x264's constant rate factor (a larger one is worse), every how many frames one goes.
ALTERATIONS: dict[str, tuple[Callable[[Frames], Frames], int, int | None]] = {
    "coded again": (_each(lambda frame: frame), 32, None),
    "half the size": (_each(_smaller), 26, None),
    "start and end cut off": (_cut, 26, None),
    "with a logo": (_each(_with_logo), 26, None),
    "brighter": (_each(_brighter), 26, None),
    "two thirds of the frame rate": (_each(lambda frame: frame), 26, 3),
    "edges cropped by a seventh": (_each(_cropped), 26, None),
    "with black bars": (_each(_with_bars), 26, None),
    "mirrored": (_each(ImageOps.mirror), 26, None),
}


def alter_video(source: Path, target: Path, alteration: str) -> None:
    """Write a video as H.264 with one of ``ALTERATIONS``."""
    change, crf, dropped = ALTERATIONS[alteration]
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or 30)
        frames = [frame.to_image() for frame in container.decode(stream)]
    if dropped is not None:
        frames = [frame for index, frame in enumerate(frames) if index % dropped != dropped - 1]
        rate = rate * (dropped - 1) / dropped
    frames = change(frames)
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        output = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
        output.width, output.height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
        output.pix_fmt = "yuv420p"
        for frame in frames:
            whole = np.asarray(frame.convert("RGB"))[: output.height, : output.width]
            container.mux(output.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(whole), format="rgb24")))
        container.mux(output.encode())
