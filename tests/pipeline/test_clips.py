"""The clip grid as properties: counts, order, times, and no frame twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.clips import clip_grid

frame_gaps = st.lists(st.floats(0.005, 3.0), min_size=0, max_size=200)


def grid_of(gaps: list[float], **options: float):
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    duration = times[-1] + (np.median(gaps) if gaps else 0.04)
    return times, duration, clip_grid(times, duration, **options)


@given(frame_gaps, st.integers(1, 60), st.integers(0, 60))
def test_any_frame_times(gaps, min_clips, more):
    """Irregular frame times included, as in variable-rate files."""
    max_clips = min_clips + more
    times, _, grid = grid_of(gaps, min_clips=min_clips, max_clips=max_clips)
    assert (np.diff(grid.frames) > 0).all()  # sorted, no frame twice
    assert grid.frames[0] == 0
    assert grid.frames[-1] < len(times)
    assert min(min_clips, len(times)) <= len(grid) <= min(max_clips, len(times))
    np.testing.assert_array_equal(grid.timestamps, times[grid.frames])


@given(st.integers(1, 900), st.sampled_from([10, 24, 25, 30, 60]))
def test_constant_rate_takes_the_first_frame_of_every_second(frames, fps):
    times = np.arange(frames) / fps
    grid = clip_grid(times, frames / fps)
    assert len(grid) == max(1, frames // fps)
    np.testing.assert_array_equal(grid.frames, np.arange(len(grid)) * fps)


def test_times_that_a_container_rounds():
    """29.97 fps in Matroska's milliseconds: clip i is still the last frame at or before i seconds."""
    exact = np.arange(300) * 1001 / 30000
    grid = clip_grid(np.round(exact, 3), 300 * 1001 / 30000)
    assert len(grid) == 10
    for second, frame in enumerate(grid.frames):
        assert exact[frame] <= second + 1e-3
        assert exact[frame + 1] > second - 1e-3


def test_short_video_gets_shorter_clips():
    """Three seconds at 10 fps with min_clips 15: clips of 0.2 s."""
    grid = clip_grid(np.arange(30) / 10, 3.0, min_clips=15)
    np.testing.assert_array_equal(grid.frames, np.arange(15) * 2)


def test_never_more_clips_than_frames():
    grid = clip_grid(np.arange(7) / 10, 0.7, min_clips=80)
    np.testing.assert_array_equal(grid.frames, np.arange(7))


def test_long_video_gets_longer_clips():
    """100 seconds with max_clips 10: clips of 10 s."""
    grid = clip_grid(np.arange(1000) / 10, 100.0, max_clips=10)
    np.testing.assert_array_equal(grid.timestamps, np.arange(10) * 10.0)


def test_a_pause_in_the_frames_is_not_filled():
    """No frame for 5 s: the last one before the pause stands for one clip only."""
    times = np.concatenate([np.arange(20) / 10, 7 + np.arange(20) / 10])
    grid = clip_grid(times, 9.0)
    assert len(set(grid.frames)) == len(grid) < 9
