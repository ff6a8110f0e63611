"""Files that many tools read wrongly: every clip is the frame that decoding everything in order shows at its time.

The files and their right values come with the test data (`odd-videos/README.md`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.sampled import sample_videos
from dynaprop.pipeline.video.decoders import resize_frame
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest

SIZE = 32  # pixels a side at which frames are compared
CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}
GRID = {"clip_seconds": 1.0, "min_clips": 25, "max_clips": 100}


@dataclass(frozen=True)
class Right:
    """What is right for one file."""

    frames: int
    stream: int = 0
    corners: str = ""
    """Top left, top right, bottom left, bottom right; empty where the file has no colours there."""
    turn: Callable[[np.ndarray], np.ndarray] = lambda picture: picture
    """From the coded picture to the one that is shown."""


def transposed(picture: np.ndarray) -> np.ndarray:
    return picture.swapaxes(0, 1)


def turned(quarters: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: np.rot90(picture, quarters)


RIGHT = {
    "all-packets-flagged-key.mkv": Right(100),
    "open-gop-h264.mkv": Right(100),
    "open-gop-h264-cut-noedit.mp4": Right(50),
    "mpeg2-b-frames.mkv": Right(50),
    "mpeg2-b-frames.mov": Right(50),
    "mpeg4-b-frames.mkv": Right(50),
    "h263p.mkv": Right(60),
    "paff-field.mkv": Right(60),
    "paff-field.mp4": Right(60),
    "rot180.mkv": Right(25, corners="WBGR", turn=turned(2)),
    "sei90.mp4": Right(25, corners="GWRB", turn=turned(1)),
    "sei90.mkv": Right(25, corners="GWRB", turn=turned(1)),
    "vflip.mp4": Right(25, corners="BWRG", turn=lambda picture: picture[::-1]),
    "transpose.mp4": Right(25, corners="RBGW", turn=transposed),
    "antitranspose.mp4": Right(25, corners="WGBR", turn=lambda picture: transposed(picture[::-1, ::-1])),
    "rot90-inexact-a.mp4": Right(25, corners="BRWG", turn=turned(-1)),
    "rot270-inexact-b.mp4": Right(25, corners="GWRB", turn=turned(1)),
    "rot180-inexact-b.mp4": Right(25, corners="WBGR", turn=turned(2)),
    "thumb-first.mov": Right(100, stream=1),
    "second-default.mkv": Right(100, stream=1),
}


@pytest.fixture(scope="module")
def folder(data_root: Path) -> Path:
    return data_root / "odd-videos"


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=2, deadline=20) as pool:
        yield pool


def full_read(path: Path, right: Right) -> list[np.ndarray]:
    """All frames by plain PyAV, as they are shown."""
    with av.open(str(path)) as container:
        decoded = container.decode(container.streams[right.stream])
        return [np.ascontiguousarray(right.turn(frame.to_ndarray(format="rgb24"))) for frame in decoded]


def corners(picture: np.ndarray) -> str:
    """The colours nearest to those of the four corners."""
    places = [picture[y, x].astype(int) for y in (4, -5) for x in (4, -5)]
    return "".join(min(CORNERS, key=lambda name: np.abs(place - CORNERS[name]).sum()) for place in places)


def choose(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Four clips for the teacher, the others for the student."""
    teacher = (np.arange(4) * count + count // 2) // 4
    return np.setdiff1d(np.arange(count), teacher), teacher


@dataclass(frozen=True)
class Counts:
    """Clips of one file."""

    clips: int
    wrong: int
    missing: int
    predict: int
    """Wrong or missing ones of those that `predict` looks at."""


def count_wrong(path: Path, right: Right, pool: DecodePool) -> Counts:
    frames = [resize_frame(picture, SIZE) for picture in full_read(path, right)]
    assert len(frames) == right.frames
    (probe,) = pool.probe([str(path)])
    assert isinstance(probe, Probe)
    grid = clip_grid(probe.timestamps, probe.duration, **GRID)
    (stream,) = pool.decode([FrameRequest.of_file(path, probe, grid.frames)], [SIZE], [probe.decoder])
    found = {clip: pictures[0] for clip, pictures in stream}
    assert stream.outcome.error is None
    there = [clip for clip in found if clip not in stream.outcome.missing]

    def is_wrong(seconds: float, picture: np.ndarray) -> bool:
        return not np.array_equal(picture, frames[int(round(25 * seconds, 3))])

    (sampled,) = sample_videos([str(path)], pool=pool, choose=choose, sizes=(SIZE, SIZE), **GRID)
    assert sampled.error is None
    shown = [pair for branch in sampled.branches for pair in zip(branch.timestamps, branch.frames, strict=True)]
    return Counts(
        clips=len(grid),
        wrong=sum(is_wrong(grid.timestamps[clip], found[clip]) for clip in there),
        missing=len(grid) - len(there),
        predict=len(grid) - len(shown) + sum(is_wrong(*pair) for pair in shown),
    )


def test_every_clip_of_every_file_equals_the_full_read(folder, pool, capsys):
    counts = {name: count_wrong(folder / name, right, pool) for name, right in RIGHT.items()}
    with capsys.disabled():
        print(f"\n{'file':32}{'clips':>6}{'wrong':>6}{'missing':>8}{'in predict':>11}")
        for name, count in counts.items():
            print(f"{name:32}{count.clips:6}{count.wrong:6}{count.missing:8}{count.predict:11}")
    assert counts == {name: Counts(25, 0, 0, 0) for name in RIGHT}


@pytest.mark.parametrize("name", [name for name, right in RIGHT.items() if right.corners])
def test_orientation_and_size_are_those_of_the_shown_frame(folder, pool, name):
    right = RIGHT[name]
    assert corners(full_read(folder / name, right)[0]) == right.corners, "the test's own way to turn it"
    (probe,) = pool.probe([str(folder / name)])
    height, width, _ = full_read(folder / name, right)[0].shape
    assert (probe.width, probe.height) == (width, height)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("thumb-first.mov", "stream 1 of the video streams 0, 1: the only one of more than one frame"),
        ("second-default.mkv", "stream 1 of the video streams 0, 1: the one marked as default"),
        ("rot180.mkv", ""),
    ],
)
def test_a_choice_between_streams_is_said(folder, pool, name, note):
    (probe,) = pool.probe([str(folder / name)])
    assert (probe.stream, probe.note) == (RIGHT[name].stream, note)


def test_the_table_is_about_all_files(folder):
    assert {path.name for path in folder.iterdir() if path.suffix in (".mkv", ".mp4", ".mov")} == RIGHT.keys()
