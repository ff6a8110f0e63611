"""Cached frame features of a set of videos, read from the store once and kept in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.annotations import Video
from pipeline.errors import DynapropError
from pipeline.store import FeatureStore, checksum


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
    """Read the features of videos whose extraction both ledgers report as ``ok``.

    Args:
        store: the feature store.
        videos: what is wanted.
        class_names: the dataset's classes.
        student_key, teacher_key: names of the feature keys.

    Raises:
        DynapropError: what is stored is not what the ledger promises.
    """
    good = {key: _usable(store, key) for key in (student_key, teacher_key)}
    current = {
        row.video_id: row
        for row in store.manifest().current().itertuples()
        if all((row.video_id, row.row) in checksums for checksums in good.values())
    }
    found = [video for video in videos if video.id in current]
    rows = [current[video.id] for video in found]
    n_clips = np.array([row.n_clips for row in rows], np.int64)
    starts = np.cumsum(n_clips) - n_clips
    checksums = [[good[key][row.video_id, row.row] for row in rows] for key in (student_key, teacher_key)]
    split = FeatureSplit(
        video_ids=tuple(video.id for video in found),
        labels=tuple(video.labels for video in found),
        class_names=tuple(class_names),
        starts=starts,
        n_clips=n_clips,
        student=_gather(store, student_key, rows, starts, checksums[0]),
        teacher=_gather(store, teacher_key, rows, starts, checksums[1]),
        timestamps=np.concatenate([row.timestamps for row in rows]) if rows else np.array([]),
    )
    return LoadedFeatures(
        split=split,
        missing=tuple(video.id for video in videos if video.id not in current),
        digest=hashlib.sha256("".join(checksums[0] + checksums[1]).encode()).hexdigest(),
    )


def _usable(store: FeatureStore, key: str) -> dict[tuple[str, int], str]:
    """Checksum of every video that the ledger reports as ``ok``, by id and first row."""
    table = store.ledger(key).read()
    good = table[table["status"] == "ok"]
    return dict(zip(zip(good["video_id"], good["row"], strict=True), good["checksum"], strict=True))


def _gather(store: FeatureStore, key: str, rows: list[Any], starts: np.ndarray, checksums: list[str]) -> torch.Tensor:
    """Read shard by shard, every shard once, and compare with the ledger's checksums."""
    by_shard: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_shard.setdefault(int(row.shard), []).append(index)
    if not rows:
        return torch.empty(0, 0, dtype=torch.float16)
    features: np.ndarray | None = None
    for shard, members in sorted(by_shard.items()):
        try:
            if not store.has_chunk(key, shard):
                raise ValueError("its chunk is gone")
            data = store.read_shard(key, shard)
            if features is None:
                features = np.empty((int(starts[-1]) + rows[-1].n_clips, data.shape[1]), np.float16)
            for index in members:
                begin = rows[index].row - shard * store.shard_rows
                part = data[begin : begin + rows[index].n_clips]
                if checksum(part) != checksums[index]:
                    raise ValueError("a checksum differs")
                features[starts[index] : starts[index] + len(part)] = part
        except (OSError, ValueError) as error:
            raise DynapropError(
                f"{store.root}: shard {shard} of {key} is damaged ({error}); run `dynaprop verify --repair`"
            ) from None
    return torch.from_numpy(features)
