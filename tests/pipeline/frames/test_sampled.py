"""Reading only what a model looks at: each wanted clip once, at its branches' sizes, and what happens to damage."""

from types import SimpleNamespace

import numpy as np
import pytest

from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.decoding.stream import DecodeOutcome
from dynaprop.pipeline.frames.sampled import sample_videos
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import resize_frame
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.videos import all_frames, write_video

SIZES = [16, 24]
GRID = {"clip_seconds": 1.0, "min_clips": 10, "max_clips": 40}


def choose(n_clips):
    """The student's: all but the teacher's, the fourth clip; a single one goes to both."""
    teacher = np.array([min(3, n_clips - 1)])
    return [np.setdiff1d(np.arange(n_clips), teacher) if n_clips > 1 else teacher, teacher]


def test_each_clip_is_decoded_once_at_its_own_size(tmp_path, monkeypatch):
    video = write_video(tmp_path / "video.mp4", frames=25)
    frames = all_frames(video)
    asked = []
    with DecodePool(workers=1) as pool:
        decode = pool.decode
        monkeypatch.setattr(
            pool, "decode", lambda requests, *rest: (asked.extend(requests), decode(requests, *rest))[1]
        )
        (found,) = sample_videos([str(video)], pool=pool, choose=choose, sizes=SIZES, **GRID)
    assert found.error is None and found.probe_seconds > 0 and found.decode_seconds > 0
    grid = clip_grid(np.arange(25) / 10, 2.5, **GRID)
    np.testing.assert_array_equal(asked[0].frames, grid.frames)
    assert asked[0].clip_sizes == ((16,),) * 3 + ((24,),) + ((16,),) * 6
    for branch, clips, size in zip(found.branches, choose(10), SIZES, strict=True):
        np.testing.assert_allclose(branch.timestamps, grid.timestamps[clips], atol=1e-6)
        expected = [resize_frame(frames[index], size) for index in grid.frames[clips]]
        np.testing.assert_array_equal(branch.frames, expected)


def test_a_single_clip_is_decoded_once_for_both(tmp_path):
    video = write_video(tmp_path / "video.mp4", frames=1)
    with DecodePool(workers=1) as pool:
        (found,) = sample_videos([str(video)], pool=pool, choose=choose, sizes=SIZES, **GRID)
    (frame,) = all_frames(video)
    for branch, size in zip(found.branches, SIZES, strict=True):
        np.testing.assert_array_equal(branch.frames, [resize_frame(frame, size)])


class Damaged:
    """A pool in which some clips cannot be had."""

    def __init__(self, missing, *, share=1.0, error=None):
        self.missing, self.share, self.error = missing, share, error

    def probe(self, paths):
        for _ in paths:
            yield Probe(
                np.arange(100) / 10, 0.0, 10.0, False, 64, 48, "h264", "mp4", "pyav", share=self.share, seconds=1.0
            )

    def decode(self, requests, sizes, decoders):
        for request in requests:
            clips = [clip for clip in range(len(request.frames)) if clip not in self.missing]
            of_clip = request.clip_sizes or [sizes] * len(request.frames)
            items = [(clip, [np.full((s, s, 3), clip, np.uint8) for s in of_clip[clip]]) for clip in clips]
            outcome = DecodeOutcome("pyav", 1, 2.0, self.error, tuple(self.missing))
            # As after a change of decoder: all comes anew, and the last one counts.
            again = [(clip, [255 - frame for frame in frames]) for clip, frames in items[:2]]
            yield Stream([*again, *items], outcome)


class Stream(SimpleNamespace):
    def __init__(self, items, outcome):
        super().__init__(items=items, outcome=outcome)

    def __iter__(self):
        return iter(self.items)


def read(pool):
    (found,) = sample_videos(["video.mp4"], pool=pool, choose=choose, sizes=SIZES, **GRID)
    return found


def test_of_a_damaged_video_the_clips_that_are_there_are_chosen_from():
    found = read(Damaged([0, 5]))
    assert found.error is None and (found.probe_seconds, found.decode_seconds) == (1.0, 4.0)  # decoded twice
    student, teacher = found.branches
    assert student.frames[:, 0, 0, 0].tolist() == [1, 2, 3, 6, 7, 8, 9]
    np.testing.assert_allclose(student.timestamps, [1, 2, 3, 6, 7, 8, 9])
    assert teacher.frames[:, 0, 0, 0].tolist() == [4]


def test_a_damaged_file_is_looked_at_where_a_cache_of_it_is(tmp_path):
    video = write_video(tmp_path / "video.mp4", frames=120, options={"g": "10"})
    data = bytearray(video.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    video.write_bytes(data)
    with DecodePool(workers=1) as pool:
        (probe,) = pool.probe([str(video)])
        grid = clip_grid(probe.timestamps, probe.duration, **GRID)
        request = FrameRequest.of_file(video, probe, grid.frames)
        (stream,) = pool.decode([request], SIZES, [probe.decoder])
        cached = dict(stream)
        there = sorted(cached.keys() - set(stream.outcome.missing))
        assert 0.5 * len(grid) <= len(there) < len(grid), "the file is damaged, and not too much"
        (found,) = sample_videos([str(video)], pool=pool, choose=choose, sizes=SIZES, **GRID)
    assert found.error is None
    for branch, (frames, own) in enumerate(zip(found.branches, choose(len(there)), strict=True)):
        clips = np.array(there)[own]
        np.testing.assert_array_equal(frames.frames, [cached[clip][branch] for clip in clips.tolist()])
        np.testing.assert_allclose(frames.timestamps, grid.timestamps[clips])


@pytest.mark.parametrize(
    ("pool", "kind", "detail"),
    [
        (
            Damaged([0, 1, 2, 4, 5, 6]),
            "missing_frames",
            "4 of 10 clips can be decoded: less than the 50% that it takes (min_share)",
        ),
        (Damaged(range(10)), "missing_frames", "0 of 10 clips"),
        (Damaged([], share=0.4), "missing_frames", "the file holds 40.0% of what it announces: less than the 50%"),
        (Damaged([0], share=0.5), "missing_frames", "the file holds 50.0% of what it announces"),
        (Damaged([], error=VideoError("timeout", "no new frame")), "timeout", "no new frame"),
    ],
)
def test_a_video_of_which_too_little_is_there_fails(pool, kind, detail):
    found = read(pool)
    assert found.error.kind == kind and detail in found.error.detail
    assert found.branches == ()
