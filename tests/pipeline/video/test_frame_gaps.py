"""Folders of pictures of which some are missing or broken: `partial` with the right pictures at their own times."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.summary import ExtractionSummary
from dynaprop.pipeline.frames.training_videos import probe_videos
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.video.frame_folder import FrameFolder
from tests.pipeline.video.test_frame_folder import write_frames
from tests.pipeline.videos import all_frames

FRAMES = FrameFolder(template="{:05d}.png", first=1, fps=10.0, n_frames=100)
CLIPS = 20  # one every five pictures: those of the numbers 1, 6, 11, .. 96
HOLES = {  # numbers of the missing pictures -> the clips that are missing
    "between two clips": ([43], []),
    "of a clip": ([41], [8]),
    "in the middle": (list(range(38, 63)), [8, 9, 10, 11, 12]),
    "at the start": (list(range(1, 13)), [0, 1, 2]),
    "at the end": (list(range(91, 101)), [18, 19]),
    "half": (list(range(2, 101, 2)), list(range(1, 20, 2))),
}


@pytest.fixture(scope="module")
def pictures(data_root: Path) -> list[np.ndarray]:
    """A hundred different frames of real videos, small ones."""
    found: list[np.ndarray] = []
    for path in sorted((data_root / "weizmann").rglob("*.avi")):
        found += [frame[::4, ::4] for frame in all_frames(path)]
        if len(found) >= 100:
            return found[:100]
    raise AssertionError("too few videos")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=1, deadline=20) as children:
        yield children


def extracted(root: Path, home: Path, min_share: float = 0.5) -> tuple[ExtractionSummary, FeatureStore]:
    """The whole extraction of the folder of pictures ``v``."""
    dataset = DatasetSpec(
        name="pictures", root=root, min_clips=CLIPS, max_clips=CLIPS, shard_rows=CLIPS, min_share=min_share
    )
    with Extraction(
        dataset=dataset,
        annotations=Annotations(videos=(Video(id="v", path=root / "v", frames=FRAMES),), class_names=()),
        backbones=[BackboneSpec(name="s", model="test_efficientnet", size=32, weights="random")],
        home=home,
        device="cpu",
        workers=1,
    ) as work:
        work.extract_shards(work.plan(work.changes()).shards)
        assert not work.changes()  # what is missing is no reason to do it again
        return work.summary(), work.store


def cached(store: FeatureStore, key: str) -> tuple[np.ndarray, np.ndarray]:
    *_, row = store.ledger(key).read().itertuples()  # of a video that changed the new one comes last
    return np.asarray(row.timestamps), store.read_shard(key, row.shard)[: row.n_clips].view(np.uint16)


@pytest.fixture(scope="module")
def whole(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Times and features of the folder that lacks nothing."""
    folder = tmp_path_factory.mktemp("whole")
    write_frames(folder / "v", FRAMES, pictures)
    summary, store = extracted(folder, folder / "home")
    assert (summary.usable, summary.partial) == (1, {})
    times, features = cached(store, summary.keys["s"])
    np.testing.assert_allclose(times, np.arange(CLIPS) / 2)
    assert len(np.unique(features, axis=0)) == CLIPS  # a shift by one would be seen
    return times, features


@pytest.mark.parametrize(
    ("hole", "damage"),
    [*((hole, "missing") for hole in HOLES), ("in the middle", "broken"), ("at the start", "no picture")],
)
def test_every_other_clip_is_what_it_is_without_a_hole(tmp_path, pictures, whole, hole, damage):
    numbers, clips = HOLES[hole]
    write_frames(tmp_path / "holed" / "v", FRAMES, pictures)
    for number in numbers:
        path = tmp_path / "holed" / "v" / FRAMES.name(number)
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:60] if damage == "broken" else b"")
    summary, store = extracted(tmp_path / "holed", tmp_path / "b")
    assert (summary.usable, summary.failed) == (1, {})
    times, features = whole
    there = np.setdiff1d(np.arange(CLIPS), clips)
    own_times, own_features = cached(store, summary.keys["s"])
    np.testing.assert_array_equal(own_times, times[there])
    np.testing.assert_array_equal(own_features, features[there])
    if clips or damage == "missing":
        lack = summary.partial["v"]
        assert lack.kind == "missing_frames"
        if damage == "missing":
            said = f"{FRAMES.name(numbers[0])} is missing, {100 - len(numbers)} of 100 are there"
            assert lack.detail.endswith(said)
        if clips:
            assert lack.detail.startswith(
                f"{len(clips)} of {CLIPS} clips cannot be decoded, first at {times[clips[0]]}"
            )


@pytest.mark.parametrize(
    ("numbers", "min_share", "usable"),
    [
        (range(51, 101), 0.5, 1),  # half of the pictures, and half of the clips: a half is there, not a quarter
        (range(50, 101), 0.5, 0),
        (range(50, 101), 0.49, 1),
        ([43], 0.99, 1),
        ([43], 1.0, 0),
        ([41], 0.95, 1),  # 99 of 100 pictures, 19 of 20 clips
        ([41], 0.96, 0),
        ([n for n in range(1, 101) if n % 5 != 1], 0.5, 0),  # all clips and a fifth of the pictures
    ],
)
def test_min_share(tmp_path, pictures, numbers, min_share, usable):
    write_frames(tmp_path / "v", FRAMES, pictures)
    for number in numbers:
        (tmp_path / "v" / FRAMES.name(number)).unlink()
    summary, _ = extracted(tmp_path, tmp_path / "home", min_share)
    assert (summary.usable, len(summary.partial), len(summary.failed)) == (usable, usable, 1 - usable)
    if not usable:
        assert summary.failed["v"].kind == "missing_frames"
        assert f"{100 - len(numbers)} of 100 are there; min_share is {min_share:g}" in summary.failed["v"].detail


def test_a_picture_that_comes_later_is_extracted(tmp_path, pictures):
    folder = write_frames(tmp_path / "v", FRAMES, pictures)
    late = (folder / FRAMES.name(41)).read_bytes()
    (folder / FRAMES.name(41)).unlink()
    assert extracted(tmp_path, tmp_path / "home")[0].partial.keys() == {"v"}
    (folder / FRAMES.name(41)).write_bytes(late)
    summary, store = extracted(tmp_path, tmp_path / "home")
    assert (summary.partial, summary.decoded) == ({}, 1)
    assert len(cached(store, summary.keys["s"])[0]) == CLIPS


def test_training_frames_leave_out_what_is_below_the_share(pool, tmp_path, pictures):
    folder = write_frames(tmp_path / "v", FRAMES, pictures)
    for number in range(60, 101):
        (folder / FRAMES.name(number)).unlink()
    video = Video(id="v", path=folder, frames=FRAMES)
    grid = {"clip_seconds": 1.0, "min_clips": 1, "max_clips": CLIPS}
    (usable,), failed = probe_videos([video], pool=pool, min_share=0.5, **grid)
    assert (usable.share, len(usable.times), failed) == (0.59, 100, {})
    usable, failed = probe_videos([video], pool=pool, min_share=0.6, **grid)
    assert usable == [] and failed["v"].detail == "00060.png is missing, 59 of 100 are there"
