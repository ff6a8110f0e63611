"""Cached frame features of a set of videos, read from the store once and kept in memory."""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.io.side_by_side import side_by_side
from dynaprop.pipeline.store.checksum import has_checksum
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.ledger import USABLE


@dataclass(frozen=True)
class FeatureSplit:
    """Frame features of a set of videos, resident in memory; subsets share the features."""

    video_ids: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    """Class indices of each video; the first one is trained on."""
    class_names: tuple[str, ...]
    starts: np.ndarray
    """[videos] int64, first row of each video."""
    n_clips: np.ndarray
    """[videos] int64; the clips of video v are rows ``starts[v]:starts[v] + n_clips[v]``."""
    student: torch.Tensor
    """[rows, d_s] as stored, in half precision; rows of other videos may lie between."""
    teacher: torch.Tensor
    """[rows, d_t] as stored, in half precision."""
    timestamps: np.ndarray
    """[rows] seconds since the video's first frame."""

    def __len__(self) -> int:
        return len(self.video_ids)

    def select(self, videos: np.ndarray) -> "FeatureSplit":
        """The subset of these videos (indices), in this order."""
        return replace(
            self,
            video_ids=tuple(self.video_ids[video] for video in videos),
            labels=tuple(self.labels[video] for video in videos),
            starts=self.starts[videos],
            n_clips=self.n_clips[videos],
        )

    @property
    def rows(self) -> np.ndarray:
        """Rows of all videos, one video after the other."""
        spans = [start + np.arange(n) for start, n in zip(self.starts, self.n_clips, strict=True)]
        return np.concatenate(spans) if spans else np.array([], np.int64)


@dataclass(frozen=True)
class LoadedFeatures:
    """What the store has of the videos that were asked for."""

    split: FeatureSplit
    """In the order that was asked for."""
    missing: tuple[str, ...]
    """Ids of the videos that are not there."""
    digest: str
    """SHA-256 of the ledger's checksums: other features, another digest."""


def load_features(
    store: FeatureStore,
    videos: Sequence[Video],
    *,
    class_names: Sequence[str],
    student_key: str,
    teacher_key: str,
) -> LoadedFeatures:
    """Read the features of videos that both ledgers report as ``ok`` or ``partial``.

    Of a video whose branches hold different clips, as after a change of decoder, those that both hold are taken.

    Args:
        store: the feature store.
        videos: what is wanted.
        class_names: the dataset's classes.
        student_key, teacher_key: names of the feature keys.

    Raises:
        DynapropError: what is stored is not what the ledger promises.
    """
    current = store.manifest().current()
    places = dict(zip(current["video_id"], current["row"], strict=True))
    student, teacher = (_usable(store, key, places) for key in (student_key, teacher_key))
    found: list[_Found] = []
    for video in videos:
        if video.id in student and video.id in teacher:
            rows = student[video.id], teacher[video.id]
            timestamps, *clips = _in_both(*(row.timestamps for row in rows))
            if len(timestamps):
                found.append(_Found(video, timestamps, rows, clips))
    n_clips = np.array([len(each.timestamps) for each in found], np.int64)
    ends = np.cumsum(n_clips)
    split = FeatureSplit(
        video_ids=tuple(each.video.id for each in found),
        labels=tuple(each.video.labels for each in found),
        class_names=tuple(class_names),
        starts=ends - n_clips,
        n_clips=n_clips,
        student=_gather(store, student_key, found, 0, ends),
        teacher=_gather(store, teacher_key, found, 1, ends),
        timestamps=np.concatenate([each.timestamps for each in found]) if found else np.array([]),
    )
    taken = set(split.video_ids)
    checksums = [each.rows[branch].checksum for branch in (0, 1) for each in found]
    return LoadedFeatures(
        split=split,
        missing=tuple(video.id for video in videos if video.id not in taken),
        digest=hashlib.sha256("".join(checksums).encode()).hexdigest(),
    )


@dataclass(frozen=True)
class _Found:
    """A video that both branches have features of."""

    video: Video
    timestamps: np.ndarray
    """Of the clips that both have."""
    rows: tuple[Any, Any]
    """Of student's and teacher's ledger."""
    clips: Sequence[np.ndarray | slice]
    """Which of each one's clips."""


def _usable(store: FeatureStore, key: str, places: Mapping[str, int]) -> dict[str, Any]:
    """The ledger's row of every video that has features, by id; ``places`` are first rows by id."""
    table = store.ledger(key).read(("n_clips", "timestamps", "checksum"))
    rows = table[table["status"].isin(USABLE)].itertuples(index=False)
    return {row.video_id: row for row in rows if places.get(row.video_id) == row.row}


def _in_both(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray | slice, np.ndarray | slice]:
    """Times that both have, and where in each."""
    if np.array_equal(first, second):
        return first, slice(None), slice(None)
    return np.intersect1d(first, second, return_indices=True)


def _gather(store: FeatureStore, key: str, found: Sequence[_Found], branch: int, ends: np.ndarray) -> torch.Tensor:
    """The features of some clips of each video, ``[ends[-1], d]``.

    Every shard is read once, several at a time, and each video compared with the ledger's checksum.

    Args:
        store: the store.
        key: name of the feature key.
        found: the videos.
        branch: 0 for student, 1 for teacher.
        ends: one behind the last row of each video in the result.
    """
    if not found:
        return torch.empty(0, 0, dtype=torch.float16)
    by_shard: dict[int, list[int]] = {}
    for index, video in enumerate(found):
        by_shard.setdefault(int(video.rows[branch].shard), []).append(index)
    features = np.empty((ends[-1], store.channels(key)), np.float16)

    def copy(shard: int) -> None:
        try:
            data = store.map_shard(key, shard)
            runs: list[list[int]] = []  # first row here, first row in the result, rows: what lies side by side in both
            for index in by_shard[shard]:
                row, clips = found[index].rows[branch], found[index].clips[branch]
                begin = row.row - shard * store.shard_rows
                part = data[begin : begin + row.n_clips]
                if not has_checksum(part, row.checksum):
                    raise ValueError("a checksum differs")
                target = int(ends[index]) - len(found[index].timestamps)
                if not isinstance(clips, slice):
                    features[target : ends[index]] = part[clips]
                elif runs and [runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]] == [begin, target]:
                    runs[-1][2] += len(part)
                else:
                    runs.append([begin, target, len(part)])
            for begin, target, n in runs:  # copies of megabytes are twice as fast as many small ones
                features[target : target + n] = data[begin : begin + n]
        except (OSError, ValueError) as error:
            raise DynapropError(f"{store.root}: shard {shard} of {key} is damaged ({error})", remedy="repair") from None

    deque(side_by_side(store.root, copy, by_shard), maxlen=0)  # copying and hashing need no interpreter lock
    return torch.from_numpy(features)
