"""Orientation: all eight display matrices, inexact and odd ones, as FFmpeg's own filters show them."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av.filter import Graph

from dynaprop.pipeline.video.orientation import is_turned, upright

ONE = 1 << 16
# FFmpeg's filters for the matrices, as its programs insert them; the first two columns of each row of the matrix.
TURNS = {
    "identity": ((1, 0, 0, 1), []),
    "clockwise": ((0, 1, -1, 0), [("transpose", "clock")]),
    "half turn": ((-1, 0, 0, -1), [("hflip", None), ("vflip", None)]),
    "counter-clockwise": ((0, -1, 1, 0), [("transpose", "cclock")]),
    "mirrored": ((-1, 0, 0, 1), [("hflip", None)]),
    "upside down": ((1, 0, 0, -1), [("vflip", None)]),
    "transposed": ((0, 1, 1, 0), [("transpose", "cclock_flip")]),
    "transposed the other way": ((0, -1, -1, 0), [("transpose", "clock_flip")]),
}
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def matrix_of(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    return (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)


def filtered(picture: np.ndarray, filters: list[tuple[str, str | None]]) -> np.ndarray:
    """A picture after some of FFmpeg's filters."""
    graph = Graph()
    height, width, _ = picture.shape
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, 10))
    nodes = [source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink")]
    for node, following in pairwise(nodes):
        node.link_to(following)
    graph.configure()
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1, 10)
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


@pytest.mark.parametrize("name", TURNS)
def test_all_eight(name):
    numbers, filters = TURNS[name]
    matrix = matrix_of(*numbers)
    shown = upright(PICTURE, matrix)
    np.testing.assert_array_equal(shown, filtered(PICTURE, filters))
    assert shown.flags.c_contiguous
    assert is_turned(matrix) == (shown.shape != PICTURE.shape)


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("off", [-1, 1])
def test_inexact_ones_are_taken_for_what_they_mean(name, place, off):
    numbers, filters = TURNS[name]
    matrix = list(matrix_of(*numbers))
    matrix[place] += off
    np.testing.assert_array_equal(upright(PICTURE, tuple(matrix)), filtered(PICTURE, filters))


def test_none_and_nonsense_leave_the_picture_alone():
    for matrix in (None, (0,) * 9):
        np.testing.assert_array_equal(upright(PICTURE, matrix), PICTURE)
        assert not is_turned(matrix)


def test_an_odd_angle_turns_within_the_frame():
    """A white column in the middle becomes a diagonal from the top right to the bottom left."""
    picture = np.zeros((61, 61, 3), np.uint8)
    picture[:, 28:33] = 255
    half = round(ONE * 2**-0.5)
    shown = upright(picture, (half, half, 0, -half, half, 0, 0, 0, 1 << 30))
    assert shown.shape == picture.shape
    assert shown[15, 45].min() == 255 and shown[45, 15].min() == 255  # clockwise by 45 degrees
    assert shown[15, 15].max() == shown[45, 45].max() == 0
