"""Frames to train on: the same for a seed and an epoch, of the right clips, whatever the batches and processes."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.batch import FrameBatch
from dynaprop.pipeline.frames.prefetch import prefetched
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.frames.training_videos import probe_videos
from dynaprop.pipeline.video.decoders import resize_frame
from dynaprop.pipeline.video.frame_folder import FrameFolder
from tests.pipeline.videos import all_frames, write_video

GRID = {"clip_seconds": 0.5, "min_clips": 3, "max_clips": 8, "min_share": 0.5}


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=2) as pool:
        yield pool


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    options = [
        {"frames": 12},
        {"frames": 20, "times": [int(100 * index + 30 * (index % 2)) for index in range(20)]},  # uneven
        {"frames": 16, "codec": "mpeg4"},
        {"frames": 35},
        {"frames": 1},
    ]
    endings = ["mp4", "mkv", "avi", "mp4", "mp4"]
    pairs = enumerate(zip(options, endings, strict=True))
    return [write_video(folder / f"{n}.{ending}", seed=n, **option) for n, (option, ending) in pairs]


@pytest.fixture(scope="module")
def videos(paths, pool):
    usable, failed = probe_videos([Video(id=path.name, path=path) for path in paths], pool=pool, **GRID)
    assert not failed
    return usable


def every_clip(n_clips: int, _rng: np.random.Generator | None, n: int = 4) -> np.ndarray:
    return np.arange(min(n, n_clips))


def some_clips(n_clips: int, rng: np.random.Generator | None, n: int = 3) -> np.ndarray:
    return np.arange(min(n, n_clips)) if rng is None else np.sort(rng.permutation(n_clips)[:n])


def source(videos, pool, **options) -> TrainingFrames:
    return TrainingFrames(
        videos, pool=pool, **({"sizes": [16, 24], "choose": some_clips, "batch_size": 2, "seed": 5} | options)
    )


def by_video(batches: list[FrameBatch]) -> dict[int, dict[int, np.ndarray]]:
    """Frames of every video at every size."""
    found = {}
    for batch in batches:
        for part in batch.parts(1):
            found[int(part.videos[0])] = part.frames
    return found


def assert_same(one: dict[int, dict[int, np.ndarray]], other: dict[int, dict[int, np.ndarray]]) -> None:
    assert one.keys() == other.keys()
    for video, frames in one.items():
        assert all(np.array_equal(frames[size], other[video][size]) for size in frames)


def test_an_epoch_is_the_same_every_time_and_unlike_every_other(videos, pool):
    first, again, second = (list(source(videos, pool).epoch(epoch)) for epoch in (1, 1, 2))
    assert [batch.videos.tolist() for batch in first] == [batch.videos.tolist() for batch in again]
    assert_same(by_video(first), by_video(again))
    assert [batch.videos.tolist() for batch in first] != [batch.videos.tolist() for batch in second]
    different = [
        video
        for video, frames in by_video(second).items()
        if not np.array_equal(frames[16], by_video(first)[video][16])
    ]
    assert len(different) >= 4
    other = list(source(videos, pool, seed=6).epoch(1))
    assert any(not np.array_equal(frames[16], by_video(first)[video][16]) for video, frames in by_video(other).items())


def test_frames_depend_on_neither_batches_nor_processes(videos, pool):
    whole = by_video(list(source(videos, pool).epoch(3)))
    assert_same(by_video(list(source(videos, pool, batch_size=4).epoch(3))), whole)
    parts = [list(source(videos, pool, rank=rank, ranks=2).epoch(3)) for rank in (0, 1)]
    assert [len(one) + len(other) for one, other in zip(*parts, strict=True)] == [2, 2, 1]
    assert_same(by_video(parts[0]) | by_video(parts[1]), whole)
    with DecodePool(workers=1) as alone:
        assert_same(by_video(list(source(videos, alone).epoch(3))), whole)


def test_left_out_videos_move_no_other(videos, pool):
    whole = list(source(videos, pool).epoch(1))
    first = int(whole[0].videos[0])
    without = list(source(videos, pool).epoch(1, without={first}))
    assert [batch.videos.tolist() for batch in without] == [
        [video for video in batch.videos.tolist() if video != first] for batch in whole
    ]
    assert_same(by_video(without), {video: frames for video, frames in by_video(whole).items() if video != first})


def test_plain_frames_are_those_of_the_clip_grid(videos, pool, paths):
    """What features are extracted of: the first frame of each clip, the whole of it, resized once."""
    found = by_video(list(source(videos, pool, choose=every_clip).plain()))
    for number, path in enumerate(paths):
        native = all_frames(path)
        wanted = videos[number].clips[:4]
        for size in (16, 24):
            expected = np.array([resize_frame(native[index], size) for index in wanted])
            assert np.array_equal(found[number][size], expected)


def test_some_videos_are_spread_over_the_list(videos, pool):
    some = [batch.videos.tolist() for batch in source(videos, pool).plain(most=2)]
    assert some == [[0, 2]]
    assert [batch.videos.tolist() for batch in source(videos, pool).plain(most=9)] == [[0, 1], [2, 3], [4]]


def test_jitter_shows_any_frame_of_a_clip_and_only_of_it(videos, pool, paths):
    """Without augmentation a shown frame is one of the video's own."""
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": False, "sizes": [14]}
    jittered = source(videos, pool, choose=every_clip, **whole)
    native = all_frames(paths[3])  # all alike but for their level of grey, which tells the index
    sizes = [resize_frame(resize_frame(frame, 16), 14) for frame in native]
    ends = np.append(videos[3].clips[1:], len(native))
    seen = set()
    for epoch in range(6):
        for clip, frame in enumerate(by_video(list(jittered.epoch(epoch)))[3][14]):
            (index,) = (index for index, own in enumerate(sizes) if np.array_equal(frame, own))
            assert videos[3].clips[clip] <= index < ends[clip]
            seen.add(index)
    assert len(seen) > 8
    still = by_video(list(source(videos, pool, choose=every_clip, jitter=False, **whole).epoch(1)))[3][14]
    assert np.array_equal(still, np.array([sizes[index] for index in videos[3].clips[:4]]))


def test_all_frames_of_a_video_get_the_same_view(pool, tmp_path):
    """Two videos are one still picture: what is unlike in their frames is the view."""
    down, across = np.mgrid[0:64, 0:64]
    picture = np.stack([4 * across, 4 * down, 0 * down], axis=2).astype(np.uint8)  # colours tell the place
    for number in range(1, 21):
        Image.fromarray(picture).save(tmp_path / f"{number:03d}.png")
    frames = FrameFolder(template="{:03d}.png", first=1, fps=10.0)
    still = [Video(id=name, path=tmp_path, frames=frames) for name in ("one", "other")]
    twice = source(probe_videos(still, pool=pool, **GRID)[0], pool)
    views = set()
    for epoch in range(5):
        for shown in by_video(list(twice.epoch(epoch))).values():
            for own in shown.values():
                assert len(own) == 3 and (own == own[0]).all()
            small, large = shown[16][0], resize_frame(shown[24][0], 16)
            assert np.abs(small.astype(int) - large).mean() < 2
            views.add(small.tobytes())
    assert len(views) == 10  # each video and epoch has one of its own


def test_parts_are_the_batch(videos, pool):
    (batch,) = source(videos, pool, batch_size=5).epoch(1)
    parts = list(batch.parts(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert np.array_equal(np.concatenate([part.frames[16] for part in parts]), batch.frames[16])
    assert batch.mask.sum() == len(batch.frames[16]) == batch.counts.sum()
    assert all(part.mask.shape == (len(part), part.counts.max()) for part in parts)


def test_what_cannot_be_probed_or_decoded_is_said(videos, pool, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    usable, failed = probe_videos([Video(id="bad", path=bad)], pool=pool, **GRID)
    assert usable == [] and failed["bad"].kind == "unreadable"
    path = write_video(tmp_path / "overwritten.mp4")
    overwritten, _ = probe_videos([Video(id="overwritten", path=path)], pool=pool, **GRID)
    path.write_bytes(b"no video")
    batches = list(source([*videos[:1], *overwritten], pool).epoch(1))
    assert [batch.videos.tolist() for batch in batches] == [[0]]
    assert {video: error.kind for video, error in batches[0].failed.items()} == {1: "unreadable"}


def test_of_a_damaged_video_enough_of_what_was_drawn_has_to_be_there(pool, tmp_path):
    """As a cache of features refuses one of which too little is there."""
    path = write_video(tmp_path / "short.mp4", frames=20)
    (video,), _ = probe_videos([Video(id="short", path=path)], pool=pool, **GRID)
    # As if half of it could not be decoded.
    more = replace(video, clips=np.arange(40), times=np.arange(40) / 10, decoder="pyav")
    for min_share, shown in ((0.4, [0]), (0.6, [])):
        frames = source([more], pool, choose=lambda n, _: np.arange(0, n, 4), min_share=min_share, jitter=False)
        (batch,) = frames.epoch(1)
        assert batch.videos.tolist() == shown
        assert len(batch.frames[16]) == 5 * len(shown)
    assert batch.failed[0].kind == "missing_frames"


def test_folders_of_pictures_are_trained_on_too(pool, paths, tmp_path):
    for index, picture in enumerate(all_frames(paths[0])):
        Image.fromarray(picture).save(tmp_path / f"{index + 1:03d}.png")
    frames = FrameFolder(template="{:03d}.png", first=1, fps=10.0, n_frames=None)
    (video,), _ = probe_videos([Video(id="pictures", path=tmp_path, frames=frames)], pool=pool, **GRID)
    (batch,) = source([video], pool).plain()
    expected = resize_frame(all_frames(paths[0])[0], 16)
    assert np.array_equal(batch.frames[16][0], expected)


def test_prefetching_keeps_the_order_and_works_ahead():
    made = []

    def items():
        for number in range(6):
            made.append(number)
            yield number

    reader = prefetched(items(), depth=2)
    assert next(reader) == 0
    end = time.monotonic() + 30
    while len(made) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert 3 <= len(made) <= 4
    assert list(reader) == [1, 2, 3, 4, 5]


def test_an_error_reaches_the_reader_after_what_came_before():
    def items():
        yield 1
        raise ValueError("broken")

    reader = prefetched(items(), depth=2)
    assert next(reader) == 1
    with pytest.raises(ValueError, match="broken"):
        next(reader)


def test_a_reader_that_stops_ends_the_thread():
    def endless():
        while True:
            yield 0

    reader = prefetched(endless(), depth=1)
    next(reader)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "prefetch")
    reader.close()
    thread.join(30)
    assert not thread.is_alive()
