"""Videos that come as a folder of numbered pictures, as many public data sets are passed on."""

import os
import re
import stat
import string
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dynaprop.pipeline.video.container import VideoError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})  # 8 bits or less a channel
_MAX_PIXELS = 2**26  # twice an 8K frame, 192 MiB as RGB
_SPARSEST = 100  # of so many pictures at least one has to be there: a list may announce any number
_NUMBER = re.compile(r"(0[1-9][0-9]?)?d?")  # format specifications that give digits alone
# What Pillow raises on data that are no picture or a broken one.
_PICTURE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class FrameFolder:
    """How the pictures of one video are named and timed.

    Raises:
        ValueError: the template does not hold the number exactly once, or a figure makes no sense.
    """

    template: str
    """Name of a picture with its number in it, such as ``image_{:05d}.jpg``."""
    first: int
    """Number of the first picture."""
    fps: float
    """Pictures a second; a folder does not say."""
    n_frames: int | None = None
    """Pictures that the dataset's list announces; None where it does not say."""

    def __post_init__(self) -> None:
        _around_the_number(self.template)
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps should be a positive number, not {self.fps}")
        if self.first < 0 or (self.n_frames or 0) < 0:
            raise ValueError("the first number and the number of pictures should not be negative")

    def name(self, number: int) -> str:
        """The picture of a number."""
        return self.template.format(number)

    def number(self, name: str) -> int | None:
        """The number of a picture of this video; None for any other name."""
        before, after = _around_the_number(self.template)
        digits = name[len(before) : len(name) - len(after)]
        if not (digits.isascii() and digits.isdecimal()):
            return None
        number = int(digits) if len(digits) < 19 else -1
        wanted = self.first <= number and (self.n_frames is None or number < self.first + self.n_frames)
        return number if wanted and self.name(number) == name else None


def picture_numbers(
    folder: str | Path, frames: FrameFolder, *, on_entry: Callable[[], None] | None = None
) -> list[int]:
    """Numbers of the pictures that are there, in order, from one listing of the folder.

    Other files are passed over; so are pictures before ``first`` and beyond the ``n_frames`` that are announced, since
    results on a public list are results on the pictures that it names.

    Raises:
        OSError: the folder cannot be listed.
    """
    numbers = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if on_entry:
                on_entry()
            number = frames.number(entry.name)
            if number is not None:
                numbers.append(number)
    return sorted(numbers)


@dataclass(frozen=True)
class FoundPictures:
    """The pictures of one video that are there."""

    numbers: list[int]
    """Of those that are there, rising; at least one."""
    expected: int
    """How many there should be: announced, or up to the last one."""
    note: str
    """What is odd about them, for people; empty where nothing is."""


def find_pictures(
    folder: str | Path, frames: FrameFolder, *, on_entry: Callable[[], None] | None = None
) -> FoundPictures:
    """Find the pictures of a video; some may be missing, at its ends and between them.

    Raises:
        VideoError: ``unreadable``, ``no_frames``, or ``missing_frames`` where next to none of them is there, or where
            they seem to be numbered from another number than ``first``, so that each would be taken for its neighbour.
    """
    try:
        numbers = picture_numbers(folder, frames, on_entry=on_entry)
    except OSError as error:
        raise VideoError("unreadable", f"the folder cannot be listed: {error.strerror}") from None
    if not numbers:
        raise VideoError("no_frames", f"no picture {frames.name(frames.first)} or later in the folder")
    expected = numbers[-1] - frames.first + 1 if frames.n_frames is None else frames.n_frames
    _require_first(folder, frames, numbers, expected)
    notes = []
    if len(numbers) < expected:
        there = set(numbers)
        missing = next(number for number in range(frames.first, frames.first + expected) if number not in there)
        notes.append(f"{frames.name(missing)} is missing, {len(numbers)} of {expected} are there")
        if len(numbers) * _SPARSEST < expected:
            raise VideoError("missing_frames", notes[0])
    if frames.first == 1 and _is_there(folder, frames.name(0)):
        notes.append(f"{frames.name(0)} is there, too, before the first one that counts (`first: 1`)")
    return FoundPictures(numbers, expected, "; ".join(notes))


def _require_first(folder: str | Path, frames: FrameFolder, numbers: list[int], expected: int) -> None:
    """Refuse a folder whose pictures are numbered from 0 where ``first`` is 1, or the other way round."""
    if frames.first == 1 and numbers[-1] < expected and _is_there(folder, frames.name(0)):
        lacking, found, other = expected, 0, 0
    elif (
        frames.first == 0 and numbers[0] == 1 and (frames.n_frames is None or _is_there(folder, frames.name(expected)))
    ):
        lacking, found, other = 0, expected if frames.n_frames else 1, 1
    else:
        return
    raise VideoError(
        "missing_frames",
        f"{frames.name(lacking)} is missing and {frames.name(found)} is there: are the pictures numbered from {other}? "
        f"then write `first: {other}`",
    )


def _is_there(folder: str | Path, name: str) -> bool:
    return (Path(folder) / name).exists()


def read_picture(folder: str | Path, name: str) -> np.ndarray:
    """Decode one picture: RGB ``[height, width, 3]`` uint8, turned upright as its EXIF orientation says.

    Transparency is dropped; of an animation the first frame counts.

    Raises:
        VideoError: ``missing_frames``, ``unreadable`` (not a file of the folder, or of an unknown format) or
            ``decode``.
    """
    with _open_picture(folder, name) as image:
        try:
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(image.convert("RGB"))
        except _PICTURE_ERRORS as error:
            raise VideoError("decode", f"{name}: {error}") from None


def picture_format(folder: str | Path, name: str) -> tuple[str, int, int]:
    """Format (``jpeg``, ``png``, ...), width and height of a picture as it is shown; its pixels are not read.

    Raises:
        VideoError: as ``read_picture``.
    """
    with _open_picture(folder, name) as image:
        width, height = image.size
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
        except _PICTURE_ERRORS as error:
            raise VideoError("decode", f"{name}: {error}") from None
        return str(image.format).lower(), *((height, width) if turned else (width, height))


@lru_cache
def _around_the_number(template: str) -> tuple[str, str]:
    """What stands before and after the number."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        parts = []
    numbers = [(field, form, conversion) for _, field, form, conversion in parts if field is not None]
    if len(numbers) != 1 or len(parts) > 2 or "/" in template or "\0" in template:
        raise ValueError(f"{template!r} should be a file name with one number in it, like 'image_{{:05d}}.jpg'")
    field, form, conversion = numbers[0]
    if field not in ("", "0") or conversion or not _NUMBER.fullmatch(form or ""):
        raise ValueError(f"{template!r}: write the number as {{:05d}} (five digits) or {{}} (as many as it has)")
    return parts[0][0], parts[1][0] if len(parts) > 1 else ""


def is_picture_file(folder: str | Path, name: str) -> bool:
    """Whether a picture is a regular file that links do not lead out of the folder; an absent one raises OSError."""
    path = Path(folder) / name
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    return not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _open_picture(folder: str | Path, name: str) -> Image.Image:
    try:
        if not is_picture_file(folder, name):
            raise VideoError("unreadable", f"{name} is no file of this folder")
        image = Image.open(Path(folder) / name, formats=_FORMATS)
    except FileNotFoundError:
        raise VideoError("missing_frames", f"{name} is missing") from None
    except Image.DecompressionBombError:
        raise VideoError("decode", f"{name} is too large for a video frame") from None
    except _PICTURE_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"no picture of a known format ({', '.join(_FORMATS)})" if unknown else str(error)
        raise VideoError("unreadable", f"{name}: {reason}") from None
    if image.width * image.height > _MAX_PIXELS or image.mode not in _MODES:
        with image:
            raise VideoError(
                "decode", f"{name}: {image.width} x {image.height} pixels of mode {image.mode} are no frame"
            )
    return image
