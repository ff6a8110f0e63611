"""Cached frame features of a set of videos, read from the store once and kept in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.annotations import Video
from pipeline.checksum import has_checksum
from pipeline.errors import DynapropError
from pipeline.ledger import USABLE
from pipeline.store import FeatureStore


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
    good = [_usable(store, key) for key in (student_key, teacher_key)]
    current = zip(*(store.manifest().current()[name] for name in ("video_id", "row")), strict=True)
    places = {video_id: (video_id, row) for video_id, row in current if all((video_id, row) in rows for rows in good)}
    common = {
        video_id: np.intersect1d(*(rows[place].timestamps for rows in good), return_indices=True)
        for video_id, place in places.items()
    }
    found = [video for video in videos if video.id in places and len(common[video.id][0])]
    rows = [[rows[places[video.id]] for video in found] for rows in good]
    timestamps, *clips = zip(*(common[video.id] for video in found), strict=True) if found else ((), (), ())
    n_clips = np.array([len(times) for times in timestamps], np.int64)
    starts = np.cumsum(n_clips) - n_clips
    split = FeatureSplit(
        video_ids=tuple(video.id for video in found),
        labels=tuple(video.labels for video in found),
        class_names=tuple(class_names),
        starts=starts,
        n_clips=n_clips,
        student=_gather(store, student_key, rows[0], clips[0]),
        teacher=_gather(store, teacher_key, rows[1], clips[1]),
        timestamps=np.concatenate(timestamps) if found else np.array([]),
    )
    taken = {video.id for video in found}
    return LoadedFeatures(
        split=split,
        missing=tuple(video.id for video in videos if video.id not in taken),
        digest=hashlib.sha256("".join(row.checksum for branch in rows for row in branch).encode()).hexdigest(),
    )


def _usable(store: FeatureStore, key: str) -> dict[tuple[str, int], Any]:
    """The ledger's row of every video that has features, by id and first row."""
    table = store.ledger(key).read()
    return {(row.video_id, row.row): row for row in table[table["status"].isin(USABLE)].itertuples()}


def _gather(store: FeatureStore, key: str, rows: list[Any], clips: Sequence[np.ndarray]) -> torch.Tensor:
    """The features of some clips of each video.

    Every shard is read once, and each video compared with the ledger's checksum.

    Args:
        store: the store.
        key: name of the feature key.
        rows: of the ledger.
        clips: which of each row's clips, in order.
    """
    ends = np.cumsum([len(chosen) for chosen in clips])
    by_shard: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_shard.setdefault(int(row.shard), []).append(index)
    if not rows:
        return torch.empty(0, 0, dtype=torch.float16)
    features: np.ndarray | None = None
    for shard, members in sorted(by_shard.items()):
        try:
            data = store.map_shard(key, shard)
            if features is None:
                features = np.empty((ends[-1], data.shape[1]), np.float16)
            for index in members:
                begin = rows[index].row - shard * store.shard_rows
                part = data[begin : begin + rows[index].n_clips]
                if not has_checksum(part, rows[index].checksum):
                    raise ValueError("a checksum differs")
                taken = features[ends[index] - len(clips[index]) : ends[index]]
                np.take(part, clips[index], axis=0, out=taken, mode="clip")  # the other modes copy twice
        except (OSError, ValueError) as error:
            raise DynapropError(
                f"{store.root}: shard {shard} of {key} is damaged ({error}); run `dynaprop verify TARGET --repair`"
            ) from None
    return torch.from_numpy(features)
