"""What the videos of the generated sample show: tinted shapes with a fine pattern, now and then, before backdrops.

A class is a shape and the pattern it is filled with. The shape is large and always has the same tint. The pattern's
period is the video's own: from one that is lost even at 224 px, over many that survive at 224 px and not at 112 px, to
some that are plain at 112 px. Only about a quarter of a video shows its class; the rest are empty backdrops and
distractors, drawn alike for all classes: other shapes with any class's tint and pattern, so that neither alone tells
the class. Place, size, tilt and movement mean nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

TINTS = {"cross": (190, 70, 60), "disc": (60, 160, 70), "ring": (60, 80, 200), "triangle": (190, 170, 50)}
PATTERNS = ("checks", "stripes")
CLASS_NAMES = tuple(f"{shape}-{pattern}" for shape in TINTS for pattern in PATTERNS)
DISTRACTORS = ("hexagon", "crescent", "bar")

FRAME_SIZES = ((340, 256), (256, 256), (256, 340))  # width, height
SHOT_SECONDS = 2.0  # mean
EVIDENCE_FRACTION = 0.27  # of a video's shots
DISTRACTOR_FRACTION = 0.25  # of a video's shots

# All lengths in pixels. Shortest period that can survive (Nyquist): 256 -> 112 px 4.6, 256 -> 224 px 2.3,
# 340 -> 112 px 6.1, 340 -> 224 px 3.0; the backbones need a little more.
PERIODS = (2.3, 11.0)
PATTERN_CONTRAST = 0.3  # of the tint
LENS_BLUR = 1.0  # standard deviation; what the finest patterns lose in the "camera"
DIAMETERS = (120, 160)
TINT_JITTER = 25.0  # of 255
TILT = 0.35  # largest, in radians
PAN = 24  # how far a shot's camera wanders
BACKDROP_LEVELS = (90, 166)  # of 255
BLOCKS = 3  # of random colour in a backdrop
GRAIN = 6.0  # standard deviation, of 255


@dataclass(frozen=True)
class Shot:
    """One shot of a video: how long it is and what is seen in it."""

    n_frames: int
    shape: str | None
    """A class's or a distractor's; None leaves the backdrop empty."""
    pattern: str


def plan_shots(rng: np.random.Generator, class_name: str, n_frames: int, fps: int) -> list[Shot]:
    """Cut a video of `n_frames` into shots in random order, at least one of which shows the class."""
    n_shots = max(1, round(n_frames / fps / SHOT_SECONDS))
    n_evidence = max(1, round(n_shots * EVIDENCE_FRACTION))
    n_distractors = min(n_shots - n_evidence, round(n_shots * DISTRACTOR_FRACTION))
    kinds = ["evidence"] * n_evidence + ["distractor"] * n_distractors
    kinds += ["empty"] * (n_shots - len(kinds))
    rng.shuffle(kinds)
    parts = rng.uniform(0.6, 1.4, n_shots)
    ends = np.rint(np.cumsum(parts) / parts.sum() * n_frames).astype(int)
    shots = []
    for kind, length in zip(kinds, np.diff(ends, prepend=0).tolist(), strict=True):
        if kind == "evidence":
            shape, pattern = class_name.split("-")
            shots.append(Shot(length, shape, pattern))
        else:
            other = str(rng.choice(DISTRACTORS)) if kind == "distractor" else None
            shots.append(Shot(length, other, str(rng.choice(PATTERNS))))
    return shots


def draw_shot(rng: np.random.Generator, shot: Shot, *, period: float, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the shot's frames, `[height, width, 3]` uint8 RGB: an object crosses a backdrop before a slow camera."""
    backdrop = draw_backdrop(rng, width + PAN, height + PAN)
    sprite = None if shot.shape is None else draw_sprite(rng, shot.shape, shot.pattern, period)
    camera = _walk(rng, shot.n_frames, PAN, PAN)
    size = 0 if sprite is None else sprite.width
    object_at = _walk(rng, shot.n_frames, width - size, height - size)
    for (left, top), place in zip(camera, object_at, strict=True):
        frame = backdrop.crop((left, top, left + width, top + height))
        if sprite is not None:
            frame.paste(sprite, place, mask=sprite)
        yield np.asarray(frame)


def draw_backdrop(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth random colours, a few tilted blocks, and grain that moves with them; RGB."""
    coarse = rng.integers(*BACKDROP_LEVELS, (5, 5, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(np.float32)
    y, x = np.mgrid[:height, :width]
    for _ in range(BLOCKS):
        u, v = _turn(x - rng.uniform(0, width), y - rng.uniform(0, height), rng.uniform(0, np.pi))
        block = (abs(u) < rng.uniform(8, 40)) & (abs(v) < rng.uniform(8, 80))
        pixels[block] = rng.uniform(30, 226, 3)
    pixels += GRAIN * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_sprite(rng: np.random.Generator, shape: str, pattern: str, period: float) -> Image.Image:
    """Draw the shape, filled with the pattern, on a transparent square; RGBA."""
    size = round(rng.uniform(*DIAMETERS))
    tilt = rng.uniform(-TILT, TILT)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2  # from the centre
    u, v = _turn(x, y, tilt)
    distance = _distance_to_edge(shape, u / size * 2, v / size * 2) * size / 2
    alpha = (0.5 - distance).clip(0, 1)  # one pixel of antialiasing
    # A Gaussian blur scales a wave by its transfer function; drawn so, since blurring pixels would keep what aliases.
    contrast = PATTERN_CONTRAST * np.exp(-2 * (np.pi * LENS_BLUR / period) ** 2)
    light = 1 + contrast * _wave(pattern, u / period, v / period)
    tint = TINTS[shape if shape in TINTS else str(rng.choice(tuple(TINTS)))]
    colour = tint + rng.uniform(-TINT_JITTER, TINT_JITTER, 3)
    rgba = np.dstack([colour * light[..., None], 255 * alpha])
    return Image.fromarray(rgba.clip(0, 255).astype(np.uint8))


def _wave(pattern: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Nearly square wave of period 1 in [-1, 1]; both patterns have mean 0, so that blurred they look the same."""
    wave = np.sin(2 * np.pi * u)
    if pattern == "checks":
        wave = 1.4 * wave * np.sin(2 * np.pi * v)
    return np.tanh(3 * wave)


def _distance_to_edge(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the edge of a shape within [-1, 1]^2, negative inside; exact enough near the edge."""
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
        case "bar":
            return np.maximum(abs(u) - 0.9, abs(v) - 0.3)
    raise ValueError(f"no shape {shape!r}")


def _turn(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in axes turned by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _walk(rng: np.random.Generator, n_frames: int, width: int, height: int) -> list[tuple[int, int]]:
    """Whole-pixel points, one a frame, from a random point of `[0, width] x [0, height]` straight to another."""
    start, end = rng.uniform(0, 1, (2, 2)) * (width, height)
    points = start + np.linspace(0, 1, n_frames)[:, None] * (end - start)
    return [(x, y) for x, y in np.rint(points).astype(int).tolist()]
