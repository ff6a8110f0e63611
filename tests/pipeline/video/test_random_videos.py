"""Random videos of all kinds, into a cache and for ``predict``: a frame that is given is the one a plain player shows.

Of every file the number is its recipe: ``random_recipe(number)`` makes it again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dynaprop.heads.features.sampling import inference_clips
from dynaprop.pipeline.clips import ClipGrid, clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.sampled import SampledVideo, sample_videos
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.coded_frames import SIDE, read_number
from tests.pipeline.random_kinds import KINDS
from tests.pipeline.random_recipes import ANY_TIME, Recipe, random_recipe
from tests.pipeline.random_videos import build_video
from tests.pipeline.shown_frames import ShownFrames, shown_frames

FILES = 20 * len(KINDS)
FEW = len(KINDS)  # one of each
GRID = {"clip_seconds": 0.5, "min_clips": 12, "max_clips": 40}
SIZES = [SIDE, 48]
TOGETHER = 32
TICK = 2e-3  # seconds


def request_of(path: Path, probe: Probe, grid: ClipGrid) -> FrameRequest:
    """All clips of a video, as extraction asks for them."""
    return FrameRequest.of_file(path, probe, grid.frames)


def choose(n_clips: int) -> Sequence[np.ndarray]:
    """So few that groups of frames between them may be left out."""
    return inference_clips(n_clips, n_s=2, n_t=2)


@dataclass
class Verdict:
    """What became of one file."""

    recipe: Recipe
    wrong: list[str] = field(default_factory=list)
    """Clips that show another frame, each with the way it came."""
    misses: list[str] = field(default_factory=list)
    """What should be there and is not; only of files that are whole."""
    grid: list[str] = field(default_factory=list)
    """How the probe contradicts what is shown; only of files that are whole."""
    missing: int = 0
    """Clips that are not given of files that are not whole."""
    concealed: int = 0
    """Clips given as a player shows them, though what it shows was never filmed."""

    @property
    def bad(self) -> bool:
        return bool(self.wrong or self.misses or self.grid)

    def __str__(self) -> str:
        found = [*self.grid, *self.misses, *self.wrong]
        return f"{self.recipe}: {'; '.join(found[:3])}{f' and {len(found) - 3} more' * (len(found) > 3)}"


@dataclass(frozen=True)
class Video:
    """One file and all that it shows."""

    recipe: Recipe
    path: Path
    shown: ShownFrames
    sound: list[bool]
    """Of each frame whether it was filmed so: it has a number, and a higher one than those before."""

    def due(self, probe: Probe, seconds: float) -> int:
        """Index of the frame that a clip at this time of the probe's shows; out of range where there is none."""
        if probe.estimated or self.shown.estimated:
            return int(np.searchsorted(probe.timestamps, seconds + TICK / 20, side="right")) - 1
        return self.shown.index_at(probe.start + seconds)

    def check(
        self, verdict: Verdict, way: str, probe: Probe, seconds: float, frame: np.ndarray, *, exact: bool
    ) -> None:
        """One clip, as native RGB or as a square."""
        index = self.due(probe, seconds)
        if not 0 <= index < len(self.shown.frames):
            verdict.wrong.append(f"{way} at {seconds:.3f} s, where nothing is shown")
            return
        right = self.shown.frames[index]
        if frame.shape != right.shape:
            right = resize_frame(right, frame.shape[0])
        if frame.shape != right.shape or not _same(frame, right, exact=exact):
            shown, given = (read_number(resize_frame(one, SIDE)) for one in (self.shown.frames[index], frame))
            verdict.wrong.append(f"{way} at {seconds:.3f} s: number {given} for {shown}")
        elif not self.sound[index]:
            verdict.concealed += 1


def _same(frame: np.ndarray, right: np.ndarray, *, exact: bool) -> bool:
    """To the byte by PyAV; decord converts colours by itself, and two numbers differ by 17 at least."""
    return np.array_equal(frame, right) if exact else bool(np.abs(frame.astype(int) - right).mean() < 2)


def built(numbers: Iterable[int], folder: Path) -> Iterator[Video]:
    """Files one after another; what their frames carry is known, and a player has to show just that."""
    for number in numbers:
        recipe = random_recipe(number)
        path = build_video(recipe, folder)
        shown = shown_frames(path, recipe.stream)
        carried = [read_number(resize_frame(frame, SIDE)) for frame in shown.frames]
        highest = np.maximum.accumulate([-1, *carried])
        if recipe.whole and recipe.start != "hidden":
            first = 0 if recipe.cut == "none" else carried[0]
            assert carried == [*range(first, recipe.frames)], f"the measure itself is wrong: {recipe}"
            filmed = np.array(recipe.times) / 1000 if recipe.times else np.arange(recipe.frames) / recipe.rate
            if recipe.form in ANY_TIME and recipe.start != "no-list":
                np.testing.assert_allclose(shown.times, filmed.astype(float)[first:] - float(filmed[first]), atol=TICK)
        yield Video(recipe, path, shown, [now > before for now, before in zip(carried, highest, strict=False)])


def judged(numbers: Iterable[int], folder: Path, pool: DecodePool) -> Iterator[Verdict]:
    videos = built(numbers, folder)
    while together := list(islice(videos, TOGETHER)):
        verdicts = [Verdict(video.recipe) for video in together]
        probes = list(pool.probe([str(video.path) for video in together]))
        for video, probe, verdict in zip(together, probes, verdicts, strict=True):
            check_probe(video, probe, verdict)
        check_cached(together, probes, verdicts, pool)
        paths = [str(video.path) for video in together]
        sampled = sample_videos(paths, pool=pool, choose=choose, sizes=SIZES, min_share=0.0, **GRID)
        for video, probe, verdict, found in zip(together, probes, verdicts, sampled, strict=True):
            check_predicted(video, probe, verdict, found)
            video.path.unlink()
        yield from verdicts


def check_probe(video: Video, probe: Probe | VideoError, verdict: Verdict) -> None:
    if not video.recipe.whole:
        return
    shown = video.shown
    if isinstance(probe, VideoError):
        verdict.misses.append(f"probe: {probe}")
        return
    if probe.n_frames != len(shown.frames):
        verdict.grid.append(f"{probe.n_frames} frames for {len(shown.frames)}")
    elif probe.estimated == shown.estimated and np.abs(probe.timestamps - shown.times).max() > TICK:
        verdict.grid.append(f"times differ by {np.abs(probe.timestamps - shown.times).max():.3f} s")
    elif not probe.estimated and not shown.estimated and abs(probe.start - shown.start) > TICK:
        verdict.grid.append(f"begins at {probe.start:.3f} s, not {shown.start:.3f}")
    if abs(probe.duration - shown.duration) > 0.6 / video.recipe.rate and probe.estimated == shown.estimated:
        verdict.grid.append(f"{probe.duration:.3f} s for {shown.duration:.3f}")
    size = shown.frames[0].shape[1::-1]
    if shown.pixel_aspect == 1 and (probe.width, probe.height) != size:
        verdict.grid.append(f"{probe.width} x {probe.height} for {size[0]} x {size[1]}")


def check_cached(
    videos: list[Video], probes: list[Probe | VideoError], verdicts: list[Verdict], pool: DecodePool
) -> None:
    """The grid's clips by a decode child, at the sizes of two branches."""
    sound = [one for one in zip(videos, probes, verdicts, strict=True) if isinstance(one[1], Probe)]
    grids = [clip_grid(probe.timestamps, probe.duration, **GRID) for _, probe, _ in sound]
    requests = [request_of(video.path, probe, grid) for (video, probe, _), grid in zip(sound, grids, strict=True)]
    streams = pool.decode(requests, SIZES, [probe.decoder for _, probe, _ in sound])
    for (video, probe, verdict), grid, stream in zip(sound, grids, streams, strict=True):
        clips = dict(stream)
        assert stream.outcome is not None
        given = sorted(clips.keys() - set(stream.outcome.missing)) if stream.outcome.error is None else []
        for clip in given:
            seconds, exact = grid.timestamps[clip], stream.outcome.decoder == "pyav"
            for frame in clips[clip]:
                video.check(verdict, f"cache by {stream.outcome.decoder}", probe, seconds, frame, exact=exact)
        if len(given) < len(grid) and video.recipe.whole:
            verdict.misses.append(f"{len(grid) - len(given)} of {len(grid)} clips {stream.outcome.error or ''}")
        verdict.missing += (len(grid) - len(given)) * (not video.recipe.whole)
        check_native(video, probe, verdict, grid)


def check_native(video: Video, probe: Probe, verdict: Verdict, grid: ClipGrid) -> None:
    """By PyAV in the native size: the grid's clips, and a few frames, between which much may be left out."""
    rng = np.random.default_rng([video.recipe.number, 3])
    few = rng.choice(probe.n_frames, min(3, probe.n_frames), replace=False)
    few = np.union1d(few, np.arange(few[0], min(few[0] + 4, probe.n_frames)))  # and some neighbours
    for way, asked in (("native", grid), ("sparse", ClipGrid(few, probe.timestamps[few]))):
        given = 0
        try:
            for clip, frame in read_frames(request_of(video.path, probe, asked), "pyav"):
                given += 1
                video.check(verdict, way, probe, asked.timestamps[clip], frame, exact=True)
        except VideoError as error:
            if video.recipe.whole:
                verdict.misses.append(f"{way}: {error}")
            continue
        if given < len(asked) and video.recipe.whole:
            verdict.misses.append(f"{way}: {len(asked) - given} of {len(asked)} clips")


def check_predicted(video: Video, probe: Probe | VideoError, verdict: Verdict, found: SampledVideo) -> None:
    if isinstance(probe, VideoError) or found.error is not None:
        if video.recipe.whole:
            verdict.misses.append(f"predict: {found.error}")
        return
    for branch in found.branches:
        for seconds, frame in zip(branch.timestamps, branch.frames, strict=True):
            video.check(verdict, "predict", probe, seconds, frame, exact=probe.decoder != "decord")


def table(verdicts: list[Verdict]) -> str:
    """A line a kind, then a line a file of which something is to be said."""
    lines = [f"{'kind':17} files  wrong: files  clips  misses  grid  (files not whole: missing  concealed)"]
    for kind in dict.fromkeys(verdict.recipe.kind.name for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.recipe.kind.name == kind]
        wrong, misses, grids = (sum(bool(getattr(one, part)) for one in own) for part in ("wrong", "misses", "grid"))
        clips, missing = sum(len(one.wrong) for one in own), sum(one.missing for one in own)
        concealed = sum(one.concealed for one in own)
        lines.append(f"{kind:17} {len(own):5} {wrong:13} {clips:6} {misses:7} {grids:5} {missing:26} {concealed:10}")
    return "\n".join([*lines, *(str(one) for one in verdicts if one.bad)])


def assert_right(numbers: Iterable[int], folder: Path) -> None:
    with DecodePool(workers=2, deadline=20) as pool:
        verdicts = list(judged(numbers, folder, pool))
    print(table(verdicts))
    assert not any(one.bad for one in verdicts), f"of {len(verdicts)} files:\n{table(verdicts)}"


def test_a_few_random_videos_show_the_right_frames(tmp_path):
    assert_right(range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_videos_show_the_right_frames(tmp_path):
    assert FILES >= 400
    assert_right(range(FILES), tmp_path)
