"""Views of frames: where they lie, how often they are flipped, and that they show what they should."""

import numpy as np
import pytest

from dynaprop.pipeline.frames.augment import WHOLE, View, random_view, show
from dynaprop.pipeline.video.decoders import resize_frame


def frame(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_views_lie_inside_and_have_the_area_and_shape_that_are_asked_for():
    rng = np.random.default_rng(0)
    views = [random_view(rng, scale=(0.3, 0.8), ratio=(0.5, 2.0)) for _ in range(500)]
    width = np.array([view.right - view.left for view in views])
    height = np.array([view.bottom - view.top for view in views])
    assert all(0 <= view.left < view.right <= 1 and 0 <= view.top < view.bottom <= 1 for view in views)
    assert (width * height > 0.299).all() and (width * height < 0.801).all()
    assert (width / height > 0.499).all() and (width / height < 2.001).all()
    assert np.ptp(width * height) > 0.4 and np.ptp(width / height) > 1
    assert 0.4 < np.mean([view.flipped for view in views]) < 0.6


def test_nothing_is_flipped_where_left_and_right_matter():
    rng = np.random.default_rng(0)
    assert not any(random_view(rng, flip=False).flipped for _ in range(50))


def test_a_crop_that_fits_nowhere_becomes_the_whole_frame():
    assert random_view(np.random.default_rng(0), scale=(1, 1), ratio=(2, 3), flip=False) == WHOLE


def test_the_whole_frame_at_its_own_size_is_untouched():
    assert np.array_equal(show(frame(32), WHOLE, 32), frame(32))
    assert np.array_equal(show(frame(48), WHOLE, 32), resize_frame(frame(48), 32))


def test_a_view_shows_its_part_of_the_frame():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10:30, 20:40] = 200
    assert (show(picture, View(0.5, 0.25, 1.0, 0.75), 20) == 200).all()
    assert not show(picture, View(0.0, 0.25, 0.5, 0.75), 20).any()


def test_flipping_exchanges_left_and_right():
    picture = frame(32)
    assert np.array_equal(show(picture, View(flipped=True), 32), picture[:, ::-1])


@pytest.mark.parametrize("size", [14, 28])
def test_both_branches_see_the_same_part(size):
    """A view in shares of the sides is the same place at every size of the frame."""
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, :64], picture[:, 64:] = (255, 0, 0), (0, 0, 255)
    small = resize_frame(picture, 128)
    view = View(0.25, 0.0, 0.75, 0.5)
    for each in (picture, small):
        shown = show(each, view, size)
        assert (shown[:, size // 4 :, 2] > 200).all()
