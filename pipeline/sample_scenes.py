"""What the videos of the generated sample show: shots of textured shapes before random backdrops.

A class is a shape with a fill. The shape can be seen at any size; the fill is a pattern of four to five pixels'
period when the object is far away, which is gone once a frame of 256 px is resized to 112 px and still there at
224 px, and a coarse one in the rarer close-ups. The object is on screen in some shots only; the others show an
empty backdrop or a distractor, which may have any fill and is drawn alike for all classes. Colour, size, place,
tilt and movement say nothing about the class.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

SHAPES = ("cross", "disc", "ring", "triangle")
FILLS = ("checks", "stripes")
CLASS_NAMES = tuple(f"{shape}-{fill}" for shape in SHAPES for fill in FILLS)
DISTRACTOR_SHAPES = ("hexagon", "crescent", "bar")

FRAME_SIZES = ((340, 256), (256, 256), (256, 340))  # width, height; the short side is 256
SHOT_SECONDS = 3.5  # mean length of a shot
EVIDENCE_FRACTION = 0.33  # of a video's shots that show its class
DISTRACTOR_FRACTION = 0.25  # of a video's shots; the rest are empty

SIZE = (120, 160)  # px, the object's diameter
PERIOD = (2.0, 24.0)  # px
FILL_CONTRAST = 0.3
LENS_BLUR = 1.0  # px, standard deviation
COLOURS = {"cross": (190, 70, 60), "disc": (60, 160, 70), "ring": (60, 80, 200), "triangle": (190, 170, 50)}
COLOUR_JITTER = 25
TILT = 0.35  # rad, the largest
PAN = 24  # px that a shot's camera may wander
BACKDROP_RANGE = (90, 166)
CLUTTER = 3  # blocks of random colour in a backdrop
GRAIN = 6.0  # standard deviation, of 255


@dataclass(frozen=True)
class Shot:
    """One shot of a video: how long it is, and the object seen in it, if any."""

    n_frames: int
    shape: str | None
    """One of SHAPES or DISTRACTOR_SHAPES; None leaves the backdrop empty."""
    fill: str
    period: float


def plan_shots(rng: np.random.Generator, class_name: str, n_frames: int, fps: int) -> list[Shot]:
    """Cut a video of `n_frames` into shots, at least one of which shows the class."""
    n_shots = max(1, round(n_frames / fps / SHOT_SECONDS))
    n_evidence = max(1, round(n_shots * EVIDENCE_FRACTION))
    n_distractors = min(n_shots - n_evidence, round(n_shots * DISTRACTOR_FRACTION))
    kinds = ["evidence"] * n_evidence + ["distractor"] * n_distractors
    kinds += ["empty"] * (n_shots - len(kinds))
    rng.shuffle(kinds)
    weights = rng.uniform(0.6, 1.4, n_shots)
    ends = np.rint(np.cumsum(weights) / weights.sum() * n_frames).astype(int)
    lengths = np.diff(ends, prepend=0)
    period = float(np.exp(rng.uniform(*np.log(PERIOD))))
    shots = []
    for kind, length in zip(kinds, lengths.tolist(), strict=True):
        shape: str | None
        if kind == "evidence":
            shape, fill = class_name.split("-")
        else:
            shape = str(rng.choice(DISTRACTOR_SHAPES)) if kind == "distractor" else None
            fill = str(rng.choice(FILLS))
        shots.append(Shot(length, shape, fill, period))
    return shots


def draw_video(
    rng: np.random.Generator, class_name: str, n_frames: int, fps: int, width: int, height: int
) -> Iterator[np.ndarray]:
    """Yield the video's `n_frames` frames, `[height, width, 3]` uint8 RGB."""
    for shot in plan_shots(rng, class_name, n_frames, fps):
        yield from draw_shot(rng, shot, width, height)


def draw_shot(rng: np.random.Generator, shot: Shot, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the shot's frames, `[height, width, 3]` uint8 RGB."""
    backdrop = draw_backdrop(rng, width + PAN, height + PAN)
    sprite = None if shot.shape is None else draw_sprite(rng, shot.shape, shot.fill, shot.period)
    pan = _path(rng, shot.n_frames, PAN, PAN)
    size = 0 if sprite is None else sprite.width
    place = _path(rng, shot.n_frames, width - size, height - size)
    for (left, top), position in zip(pan, place, strict=True):
        frame = backdrop.crop((left, top, left + width, top + height))
        if sprite is not None:
            frame.paste(sprite, position, mask=sprite)
        yield np.asarray(frame)


def draw_backdrop(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth random colours, a few tilted blocks and static grain."""
    coarse = rng.integers(*BACKDROP_RANGE, (5, 5, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    y, x = np.mgrid[:height, :width]
    for _ in range(CLUTTER):
        dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
        cos, sin = np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)
        block = (abs(dx * cos + dy * sin) < rng.uniform(8, 40)) & (abs(dy * cos - dx * sin) < rng.uniform(8, 80))
        pixels[block] = rng.uniform(30, 226, 3)
    pixels += GRAIN * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_sprite(rng: np.random.Generator, shape: str, fill: str, period: float) -> Image.Image:
    """Return the filled shape on a transparent square, RGBA."""
    size = round(rng.uniform(*SIZE))
    tilt = rng.uniform(-TILT, TILT)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2  # px from the centre
    u, v = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    inside = _signed_distance(shape, u / size * 2, v / size * 2) * size / 2  # px
    alpha = (0.5 - inside).clip(0, 1)  # one pixel of antialiasing
    contrast = FILL_CONTRAST * np.exp(-2 * (np.pi * LENS_BLUR / period) ** 2)  # a Gaussian's transfer function
    light = 1 + contrast * _pattern(fill, u / period, v / period)
    own = COLOURS.get(shape) or COLOURS[str(rng.choice(SHAPES))]
    colour = own + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
    rgba = np.dstack([colour * light[..., None], 255 * alpha])
    return Image.fromarray(rgba.clip(0, 255).astype(np.uint8))


def _pattern(fill: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Value in [-1, 1] with mean 0 and one period a unit."""
    wave_u, wave_v = np.sin(2 * np.pi * u), np.sin(2 * np.pi * v)
    return np.tanh(3 * (wave_u if fill == "stripes" else wave_u * wave_v * 1.4))


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the shape's edge within [-1, 1]^2, about right near the edge; negative inside."""
    radius = np.hypot(u, v)
    match shape:
        case "disc":
            return radius - 0.95
        case "ring":
            return abs(radius - 0.7) - 0.25
        case "cross":
            return np.minimum(np.maximum(abs(u), 3 * abs(v)), np.maximum(3 * abs(u), abs(v))) - 0.85
        case "triangle":
            return np.maximum(v - 0.55, abs(u) * 0.866 - v * 0.5 - 0.5)
        case "hexagon":
            return np.maximum(abs(u), abs(u) / 2 + abs(v) * 0.866) - 0.85
        case "crescent":
            return np.maximum(radius - 0.95, 0.75 - np.hypot(u - 0.5, v))
        case _:  # bar
            return np.maximum(abs(u) - 0.9, abs(v) - 0.3)


def _path(rng: np.random.Generator, n_frames: int, width: int, height: int) -> list[tuple[int, int]]:
    """Whole-pixel way of `n_frames` points from a random point of `[0, width] x [0, height]` to another."""
    start, end = rng.uniform(0, 1, (2, 2)) * (width, height)
    points = start + np.linspace(0, 1, n_frames)[:, None] * (end - start)
    return [(x, y) for x, y in np.rint(points).astype(int).tolist()]
