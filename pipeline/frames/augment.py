"""Training augmentations of frames: a random resized crop and a horizontal flip, the same for all frames of a video."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_TRIES = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class View:
    """A part of the frame, in shares of its sides: the same part at every size of it, so that both branches see it."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    flipped: bool = False
    """Whether left and right are exchanged."""


WHOLE = View()
"""What is seen outside of training."""


def random_view(
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> View:
    """Draw a view as "random resized crop" does (Szegedy et al., CVPR 2015, section 6): by area and by aspect ratio.

    Args:
        rng: where chance comes from.
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest width over height, of the square that the frame is resized to.
        flip: whether every other view is flipped; False where left and right tell classes apart.
    """
    low, high = (math.log(bound) for bound in ratio)
    left, top, width, height = 0.0, 0.0, 1.0, 1.0
    for _ in range(_TRIES):
        area, aspect = rng.uniform(*scale), math.exp(rng.uniform(low, high))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= 1 and h <= 1:
            left, top, width, height = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h), w, h
            break
    flipped = flip and rng.random() < 0.5
    return View(left, top, min(left + width, 1.0), min(top + height, 1.0), flipped)


def show(frame: np.ndarray, view: View, size: int) -> np.ndarray:
    """Resize the seen part of a square frame to ``size``, by the rule that whole frames are resized by.

    Args:
        frame: RGB ``[side, side, 3]`` uint8.
        view: what of it is seen.
        size: pixels a side of the result.

    Returns:
        ``[size, size, 3]`` uint8; the frame as it is where the view is ``WHOLE`` and it has this size.
    """
    side = frame.shape[0]
    box = (view.left * side, view.top * side, view.right * side, view.bottom * side)
    shown = np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return shown[:, ::-1] if view.flipped else shown
