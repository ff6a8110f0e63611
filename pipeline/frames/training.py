"""Frames to train backbones on: every epoch other frames of every video, decoded, augmented and prefetched in batches.

What an epoch shows depends on the seed and the epoch alone: not on batches, processes or what was trained before.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import InfrastructureError
from dynaprop.pipeline.frames.augment import WHOLE, View, random_view, show
from dynaprop.pipeline.frames.batch import FrameBatch
from dynaprop.pipeline.frames.prefetch import prefetched
from dynaprop.pipeline.frames.training_videos import TrainingVideo
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.probe import share_there
from dynaprop.pipeline.video.request import FrameRequest

_MARGIN = 7  # frames are decoded larger by a seventh (224 from 256, 112 from 128): crops have something to cut off
_DEPTH = 2  # batches that wait ready-made

Choose = Callable[[int, np.random.Generator | None], np.ndarray]
"""The clips to show of a video of so many: drawn by a generator, or always the same ones without it."""


class TrainingFrames:
    """Batches of frames, epoch by epoch. Read an epoch to its end, or close the pool.

    Args:
        videos: what to train on.
        pool: decode children.
        sizes: pixels a side of the frames; each frame is decoded once for all of them.
        choose: which clips of a video are shown.
        batch_size: videos in a batch, of all processes together.
        seed: of order, clips, frames and views.
        jitter: show any frame of a chosen clip, not its first one.
        scale, ratio, flip: see ``random_view``.
        min_share: a video is not shown where a smaller part of the frames that were drawn can be decoded.
        rank, ranks: this process's number and how many there are: each has its part of every batch.
    """

    def __init__(
        self,
        videos: Sequence[TrainingVideo],
        *,
        pool: DecodePool,
        sizes: Sequence[int],
        choose: Choose,
        batch_size: int,
        seed: int = 0,
        jitter: bool = True,
        scale: tuple[float, float] = (0.5, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        min_share: float = 0.5,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.videos = videos
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self._pool = pool
        self._choose = choose
        self._seed = seed
        self._jitter = jitter
        self._scale, self._ratio, self._flip = scale, ratio, flip
        self._min_share = min_share
        self._rank, self._ranks = rank, ranks

    @cached_property
    def digest(self) -> str:
        """Of the videos and their frames, in order: what an epoch shows is the same only where this is."""
        digest = xxhash.xxh3_128()
        for video in self.videos:
            digest.update(f"{len(video.id)} {video.id} {len(video.times)} {video.clips.tolist()}\n".encode())
        return digest.hexdigest()

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.videos) // self.batch_size)

    def epoch(self, epoch: int, *, without: Collection[int] = ()) -> Iterator[FrameBatch]:
        """This process's part of every batch of an epoch, which is empty where nothing is left of it.

        Args:
            epoch: its number.
            without: positions of videos that are left out; the others stay where they would be with them.
        """
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self.videos))
        batches = [
            [int(video) for video in order[first : first + self.batch_size][self._rank :: self._ranks]]
            for first in range(0, len(order), self.batch_size)
        ]
        batches = [[video for video in batch if video not in without] for batch in batches]
        decoded = [size + size // _MARGIN for size in self.sizes]
        return prefetched(self._batches(batches, lambda video: self._draw(epoch, video), decoded), depth=_DEPTH)

    def plain(self, *, most: int | None = None) -> Iterator[FrameBatch]:
        """All videos in order, of each always the same clips, with the frames that features are extracted of.

        Each process gets all of them.

        Args:
            most: of more videos than so many, some that are spread evenly over the list.
        """
        step = 1 if most is None else max(1, len(self.videos) / most)
        chosen = [int(step * number) for number in range(int(len(self.videos) / step))]
        batches = [chosen[first : first + self.batch_size] for first in range(0, len(chosen), self.batch_size)]
        return prefetched(self._batches(batches, self._first_frames, self.sizes), depth=_DEPTH)

    def _first_frames(self, number: int) -> tuple[np.ndarray, View]:
        clips = self.videos[number].clips
        return clips[self._choose(len(clips), None)], WHOLE

    def _draw(self, epoch: int, number: int) -> tuple[np.ndarray, View]:
        """Frames and view of a video in an epoch, whatever is drawn for others."""
        video = self.videos[number]
        rng = np.random.default_rng([self._seed, epoch, number])
        chosen = self._choose(len(video.clips), rng)
        frames = video.clips[chosen]
        if self._jitter:
            ends = np.append(video.clips[1:], len(video.times))
            frames = rng.integers(frames, ends[chosen])
        return frames, random_view(rng, scale=self._scale, ratio=self._ratio, flip=self._flip)

    def _batches(
        self,
        batches: Sequence[Sequence[int]],
        draw: Callable[[int], tuple[np.ndarray, View]],
        decoded: list[int],
    ) -> Iterator[FrameBatch]:
        """Decode batches of videos (positions) at some sizes and show what ``draw`` says at those of the batches.

        Raises:
            InfrastructureError: a video's file has gone.
        """
        numbers = [number for batch in batches for number in batch]
        views: dict[int, View] = {}
        asked: dict[int, int] = {}

        def requests() -> Iterator[FrameRequest]:  # the pool is some videos ahead of us
            for number in numbers:
                frames, views[number] = draw(number)
                asked[number] = len(frames)
                yield self.videos[number].request(frames)

        streams = self._pool.decode(requests(), decoded, [self.videos[number].decoder for number in numbers])
        for batch in batches:
            pictures: list[tuple[int, list[list[np.ndarray]]]] = []
            failed = {}
            for number in batch:
                stream, found = next(streams), {}
                view, share = views.pop(number), self.videos[number].share
                for clip, frames in stream:  # from the beginning anew where another decoder takes over
                    found[clip] = [show(frame, view, size) for frame, size in zip(frames, self.sizes, strict=True)]
                assert stream.outcome is not None
                error, n = stream.outcome.error, asked.pop(number)
                there = share_there(share, len(found) / n, self.videos[number].decoder)
                if error is None and (not found or there < self._min_share):
                    error = VideoError("missing_frames", f"{len(found)} of {n} frames that were drawn can be decoded")
                if error is None:
                    pictures.append((number, [found[clip] for clip in sorted(found)]))
                    continue
                if not Path(path := self.videos[number].path).exists():  # it is no fault of the video
                    raise InfrastructureError(f"{path} has gone since it was probed; is its disk still mounted?")
                failed[number] = error
            yield _joined(pictures, self.sizes, failed)


def _joined(
    pictures: Sequence[tuple[int, list[list[np.ndarray]]]], sizes: Sequence[int], failed: Mapping[int, VideoError]
) -> FrameBatch:
    """A batch of ``(video, [[frame a size] a frame])``."""

    def stack(position: int, size: int) -> np.ndarray:
        frames: Iterable[np.ndarray] = (frame[position] for _, video in pictures for frame in video)
        return np.array([*frames], np.uint8).reshape(-1, size, size, 3)

    return FrameBatch(
        videos=np.array([number for number, _ in pictures], np.int64),
        counts=np.array([len(video) for _, video in pictures], np.int64),
        frames={size: stack(position, size) for position, size in enumerate(sizes)},
        failed=failed,
    )
