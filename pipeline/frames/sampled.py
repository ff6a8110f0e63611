"""Only what a model looks at: of each video the clips that its branches want, each decoded once and at their sizes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from dynaprop.pipeline.clips import ClipGrid, clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.decoding.stream import DecodedVideo
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest

_TOGETHER = 32  # videos probed before the first of them is decoded; probing and decoding share the children

ChooseClips = Callable[[int], Sequence[np.ndarray]]
"""From a video's number of clips to the clips ``[n]`` that each branch wants, increasing."""


@dataclass(frozen=True)
class BranchFrames:
    """The frames of one video that one branch sees."""

    frames: np.ndarray
    """[n, size, size, 3] uint8 RGB."""
    timestamps: np.ndarray
    """[n] seconds since the video's first frame."""


@dataclass(frozen=True)
class SampledVideo:
    """What was read of one video."""

    path: str
    branches: tuple[BranchFrames, ...]
    """In the order of the sizes; none where there is an error."""
    probe_seconds: float
    """Wall time of opening the file and reading its frames' times."""
    decode_seconds: float
    error: VideoError | None = None


def sample_videos(
    paths: Iterable[str],
    *,
    pool: DecodePool,
    choose: ChooseClips,
    sizes: Sequence[int],
    clip_seconds: float,
    min_clips: int,
    max_clips: int,
    min_share: float = 0.5,
) -> Iterator[SampledVideo]:
    """Read the wanted clips of each video, in order; a video that fails is an answer like any other.

    The grid of clips is the one that a dataset's features are extracted on. Of a damaged video the wanted clips are
    chosen among those that can be decoded, as they are from a cache: it is decoded a second time, whole.

    Args:
        paths: video files.
        pool: decode children.
        choose: which clips of the grid each branch wants.
        sizes: of the branches, pixels a side.
        clip_seconds, min_clips, max_clips: see ``clip_grid``.
        min_share: a video of which less is there fails: the part of its clips, times that of the file.
    """
    waiting = iter(paths)
    while together := list(islice(waiting, _TOGETHER)):
        plans: list[SampledVideo | _Plan] = []
        for path, probe in zip(together, pool.probe(together), strict=True):
            if isinstance(probe, VideoError):
                plans.append(SampledVideo(path, (), 0.0, 0.0, probe))
            else:
                grid = clip_grid(
                    probe.timestamps,
                    probe.duration,
                    clip_seconds=clip_seconds,
                    min_clips=min_clips,
                    max_clips=max_clips,
                )
                plans.append(_Plan(path, probe, grid, tuple(choose(len(grid))), sizes))
        asked = [plan for plan in plans if isinstance(plan, _Plan)]
        streams = pool.decode([plan.request() for plan in asked], [], [plan.probe.decoder for plan in asked])
        held: list[
            SampledVideo | _Damaged
        ] = []  # from the first damaged one on: all have to be read before it is again
        for plan in plans:
            found = _read(plan, next(streams), min_share) if isinstance(plan, _Plan) else plan
            if held or isinstance(found, _Damaged):
                held.append(found)
            else:
                yield found
        again = [one.plan for one in held if isinstance(one, _Damaged)]
        streams = pool.decode([plan.whole() for plan in again], list(sizes), [plan.probe.decoder for plan in again])
        for one in held:
            yield _read_damaged(one, next(streams), choose, min_share) if isinstance(one, _Damaged) else one


@dataclass(frozen=True)
class _Plan:
    """The clips of a video that will be decoded."""

    path: str
    probe: Probe
    grid: ClipGrid
    wanted: tuple[np.ndarray, ...]
    """[n] of each branch: its clips."""
    sizes: Sequence[int]

    @property
    def clips(self) -> np.ndarray:
        """[m] all wanted ones."""
        return np.unique(np.concatenate(self.wanted))

    def request(self) -> FrameRequest:
        """Each wanted clip at the sizes of the branches that want it."""
        branches = [*zip(self.sizes, self.wanted, strict=True)]
        sizes = tuple(tuple(size for size, own in branches if clip in own) for clip in self.clips)
        whole, clips = self.whole(), self.clips
        return replace(whole, frames=whole.frames[clips], timestamps=whole.timestamps[clips], clip_sizes=sizes)

    def whole(self) -> FrameRequest:
        """All clips of the video, at all sizes."""
        return FrameRequest.of_file(self.path, self.probe, self.grid.frames)


@dataclass(frozen=True)
class _Damaged:
    """A video of which some wanted clip could not be decoded."""

    plan: _Plan
    seconds: float
    """What trying took."""


def _read(plan: _Plan, stream: DecodedVideo, min_share: float) -> SampledVideo | _Damaged:
    decoded = dict(stream)  # of a clip that comes twice, the last one counts
    assert stream.outcome is not None
    seconds = plan.probe.seconds, stream.outcome.seconds
    error = stream.outcome.error
    if stream.outcome.missing or (error is not None and error.kind == "missing_frames"):
        return _Damaged(plan, stream.outcome.seconds)
    if error is not None:
        return SampledVideo(plan.path, (), *seconds, error)
    if plan.probe.share < min_share:
        return SampledVideo(plan.path, (), *seconds, _too_little(plan, len(plan.grid), min_share))
    branches = []
    for branch, (own, size) in enumerate(zip(plan.wanted, plan.sizes, strict=True)):
        frames = np.empty((len(own), size, size, 3), np.uint8)
        for place, (clip, position) in enumerate(zip(own, np.searchsorted(plan.clips, own), strict=True)):
            before = sum(clip in others for others in plan.wanted[:branch])  # branches that want this clip, too
            frames[place] = decoded[int(position)][before]
        branches.append(BranchFrames(frames, plan.grid.timestamps[own]))
    return SampledVideo(plan.path, tuple(branches), *seconds)


def _read_damaged(damaged: _Damaged, stream: DecodedVideo, choose: ChooseClips, min_share: float) -> SampledVideo:
    plan, decoded = damaged.plan, dict(stream)
    assert stream.outcome is not None
    seconds = plan.probe.seconds, damaged.seconds + stream.outcome.seconds
    if stream.outcome.error is not None:
        return SampledVideo(plan.path, (), *seconds, stream.outcome.error)
    there = np.setdiff1d(sorted(decoded), stream.outcome.missing).astype(np.int64)
    if not len(there) or plan.probe.share * len(there) / len(plan.grid) < min_share:
        return SampledVideo(plan.path, (), *seconds, _too_little(plan, len(there), min_share))
    branches = []
    for branch, own in enumerate(choose(len(there))):
        clips = there[own]
        frames = np.array([decoded[clip][branch] for clip in clips.tolist()], np.uint8)
        branches.append(BranchFrames(frames, plan.grid.timestamps[clips]))
    return SampledVideo(plan.path, tuple(branches), *seconds)


def _too_little(plan: _Plan, there: int, min_share: float) -> VideoError:
    share = f"the file holds {plan.probe.share:.1%} of what it announces" if plan.probe.share < 1 else ""
    clips = f"{there} of {len(plan.grid)} clips can be decoded" if there < len(plan.grid) else ""
    detail = ", and ".join(filter(None, (clips, share)))
    return VideoError("missing_frames", f"{detail}: less than the {min_share:.0%} that it takes (min_share)")
