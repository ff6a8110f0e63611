"""Orientation: a frame as it is meant to be shown, turned and mirrored as FFmpeg's player does it.

A file says it by a display matrix, of the container or of the bitstream (the display orientation SEI of H.264 and
HEVC); FFmpeg hands either over with the frame.
"""

import math
import struct
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from PIL import Image

_EXACT = 1.0  # degrees: matrices are often a little off


Matrix = tuple[int, ...]
"""The nine numbers of a display matrix, 16.16 and 2.30 fixed point."""


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """A frame's display matrix.

    FFmpeg's player asks for it with the first frame, and again where size or format change: a bitstream may say it once
    for all.
    """
    # Not frame.side_data: it and its frame keep one another in memory until garbage is collected.
    data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    return None if data is None else struct.unpack("=9i", cast(bytes, data))


def is_turned(matrix: Matrix | None) -> bool:
    """Whether width and height change places."""
    return matrix is not None and abs(_degrees(matrix) % 180 - 90) < _EXACT


def upright(picture: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Apply a display matrix to a picture.

    Args:
        picture: ``[height, width, 3]`` uint8.
        matrix: from ``display_matrix``.

    Returns:
        The picture as it is shown, with the sides exchanged where ``is_turned``; contiguous. By an odd angle it is
        turned within its frame, black where nothing is shown.
    """
    if matrix is None or math.isnan(degrees := _degrees(matrix)):
        return picture
    if abs(degrees - 90) < _EXACT:
        picture = picture.swapaxes(0, 1) if matrix[3] > 0 else np.rot90(picture, -1)
    elif abs(degrees - 180) < _EXACT:
        picture = picture[:, ::-1] if matrix[0] < 0 else picture
        picture = picture[::-1] if matrix[4] < 0 else picture
    elif abs(degrees - 270) < _EXACT:
        picture = np.rot90(picture, 2).swapaxes(0, 1) if matrix[3] < 0 else np.rot90(picture)
    elif degrees > _EXACT:
        return np.asarray(Image.fromarray(picture).rotate(-degrees, Image.Resampling.BILINEAR))
    elif matrix[4] < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _degrees(matrix: Matrix) -> float:
    """Clockwise turn that a matrix asks for, whole degrees in [0, 360); NaN where it makes no sense."""
    scale = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scale):
        return math.nan
    return float(round(math.degrees(math.atan2(matrix[1] / scale[1], matrix[0] / scale[0]))) % 360)
