"""Which videos show nearly the same pictures, by the teacher's cached features of their clips.

Raw cosines are high everywhere, since features of a network's last layer are positive and few directions hold most of
their variance. So features are centred, taken along the largest principal components of the videos' means, and each of
these is divided by the square root of its standard deviation. The cosine of two videos: each clip of one is compared
with all clips of the other and its best cosine taken; the mean of these over the clips of one video, the larger one of
both directions, since a shorter cut of a video is a part of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from dynaprop.heads.features.loaded import FeatureSplit

THRESHOLD = 0.65
"""Chosen on J-HMDB by `bench/near_identical.py`, whose figures stand in the README."""

COMPARISONS = 2e10
"""Pairs of clips that are compared at most; with more, fewer clips of each video are taken."""

_COMPONENTS = 256
_FITTED = 8192  # videos that the components are those of
_ROWS = 4096  # clips of a block
_FLOOR = 1e-3  # of the largest component's variance: what is smaller is noise


@dataclass(frozen=True)
class NearIdentical:
    """Pairs of videos, those of the largest cosine first."""

    first: np.ndarray
    """[pairs] indices of videos."""
    second: np.ndarray
    """[pairs] the other ones', which are larger."""
    cosine: np.ndarray
    """[pairs] float32"""


class Comparison:
    """The clips of some videos, made comparable.

    Args:
        split: the videos.
        clips: compare so many clips of each video at most, evenly spaced; all by default.
    """

    def __init__(self, split: FeatureSplit, clips: int | None = None) -> None:
        self._split = split
        counts = _counts(split, clips)
        each = [
            start + np.linspace(0, n - 1, count).round().astype(np.int64)
            for start, n, count in zip(split.starts, split.n_clips, counts, strict=True)
        ]
        self._rows = np.concatenate(each) if each else np.array([], np.int64)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._mean, self._basis = _fit(split.teacher, self._rows, self._starts)

    def pairs(
        self,
        *,
        parts: np.ndarray | None = None,
        threshold: float = THRESHOLD,
        on_videos: Callable[[int], None] = lambda _videos: None,
    ) -> NearIdentical:
        """The pairs of videos whose cosine is at least a threshold.

        Args:
            parts: [videos] the part of a split that each one is in; then pairs within a part are passed over.
            threshold: of the cosine.
            on_videos: called with how many videos more have been compared with all that come after them.
        """
        parts = np.arange(len(self._split)) if parts is None else parts
        features = self._comparable(self._rows)
        found = []
        blocks = list(self._blocks())
        for index, one in enumerate(blocks):
            for other in blocks[index:]:
                first, second = np.arange(one.start, one.stop), np.arange(other.start, other.stop)
                wanted = (first[:, None] < second[None]) & (parts[first][:, None] != parts[second][None])
                if wanted.any():
                    cosines = _cosines(*self._of(features, one), *self._of(features, other))
                    rows, columns = np.nonzero(wanted & (cosines >= threshold))
                    found.append((first[rows], second[columns], cosines[rows, columns]))
            on_videos(one.stop - one.start)
        empty = (np.array([], np.int64), np.array([], np.int64), np.array([], np.float32))
        first, second, cosine = (np.concatenate(arrays) for arrays in zip(empty, *found, strict=True))
        order = np.argsort(-cosine, kind="stable")
        return NearIdentical(first[order], second[order], cosine[order].astype(np.float32))

    def most_alike(self, first: int, second: int) -> tuple[float, float]:
        """Seconds of those two clips of two videos that are most alike, for somebody who wants to look."""
        rows = [self._rows[self._starts[video] : self._ends[video]] for video in (first, second)]
        a, b = map(self._comparable, rows)
        best = divmod(int((a @ b.T).argmax()), len(b))
        seconds = [float(self._split.timestamps[of[clip]]) for of, clip in zip(rows, best, strict=True)]
        return seconds[0], seconds[1]

    def _comparable(self, rows: np.ndarray) -> torch.Tensor:
        """``[rows, components]`` of length 1; what equals the mean is like nothing."""
        made = torch.empty(len(rows), self._basis.shape[1])
        for first in range(0, len(rows), _ROWS):
            part = self._split.teacher[torch.from_numpy(rows[first : first + _ROWS])].float()
            made[first : first + _ROWS] = torch.nn.functional.normalize((part - self._mean) @ self._basis, eps=1e-6)
        return made

    def _blocks(self) -> Iterator[slice]:
        """Videos, so many at a time that their clips are some ``_ROWS``."""
        begin = 0
        while begin < len(self._ends):
            end = int(np.searchsorted(self._ends, self._starts[begin] + _ROWS, side="right"))
            yield slice(begin, max(end, begin + 1))
            begin = max(end, begin + 1)

    def _of(self, features: torch.Tensor, videos: slice) -> tuple[torch.Tensor, np.ndarray]:
        first = self._starts[videos.start]
        return features[first : self._ends[videos.stop - 1]], self._starts[videos] - first


def clips_compared(split: FeatureSplit) -> int | None:
    """How many clips of each video can be compared within ``COMPARISONS``: None for all, 0 where not even one can."""
    if float(split.n_clips.sum()) ** 2 <= COMPARISONS:
        return None
    fits = (n for n in range(int(split.n_clips.max()), 0, -1) if float(_counts(split, n).sum()) ** 2 <= COMPARISONS)
    return next(fits, 0)


def _counts(split: FeatureSplit, clips: int | None) -> np.ndarray:
    return split.n_clips if clips is None else np.minimum(split.n_clips, clips)


def _fit(features: torch.Tensor, rows: np.ndarray, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``[d]`` and principal components ``[d, components]`` of the videos' means, divided as above.

    Of the means, since what differs within a video tells no two apart, and what a codec does is mostly there.
    """
    means = torch.empty(len(starts), features.shape[1])
    for video, (first, end) in enumerate(pairwise([*starts, len(rows)])):
        means[video] = features[torch.from_numpy(rows[first:end])].float().mean(0)
    mean = means.mean(0) if len(means) else means.new_zeros(features.shape[1])
    means = means[:: max(1, -(-len(means) // _FITTED))] - mean
    variances, vectors = torch.linalg.eigh((means.T @ means / max(len(means), 1)).double())
    kept = variances > max(_FLOOR * float(variances.max()), 1e-12)
    kept[:-_COMPONENTS] = False
    basis = vectors[:, kept] / variances[kept] ** 0.25
    return mean, basis.float()


def _cosines(a: torch.Tensor, a_starts: np.ndarray, b: torch.Tensor, b_starts: np.ndarray) -> np.ndarray:
    """Cosine of every two videos, ``[videos of a, videos of b]``.

    Args:
        a: [clips, d] of length 1.
        a_starts: [videos] first clip of each video.
        b, b_starts: of the other ones.
    """
    products = (a @ b.T).numpy()
    of_a, of_b = (np.diff(starts, append=len(clips)) for starts, clips in ((a_starts, a), (b_starts, b)))
    for_a = np.add.reduceat(np.maximum.reduceat(products, b_starts, axis=1), a_starts, axis=0) / of_a[:, None]
    for_b = np.add.reduceat(np.maximum.reduceat(products, a_starts, axis=0), b_starts, axis=1) / of_b
    cosines: np.ndarray = np.maximum(for_a, for_b)
    return cosines
