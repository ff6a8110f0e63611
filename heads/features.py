"""Cached frame features of a set of videos, read from the store once and kept in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.annotations import Video
from pipeline.errors import DynapropError
from pipeline.store import FeatureStore

_DAMAGED = "{root}: shard {shard} of {key} is damaged; run `dynaprop verify --repair`, then `dynaprop extract`"


@dataclass(frozen=True)
class FeatureSplit:
    """Frame features of a set of videos, resident in memory."""

    video_ids: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    """Class indices of each video; the first one is trained on."""
    class_names: tuple[str, ...]
    offsets: np.ndarray
    """[videos + 1] int64; the clips of video v are rows ``offsets[v]:offsets[v + 1]``."""
    student: torch.Tensor
    """[rows, d_s] as stored, in half precision."""
    teacher: torch.Tensor
    """[rows, d_t] as stored, in half precision."""
    timestamps: np.ndarray
    """[rows] seconds since the video's first frame."""

    def __len__(self) -> int:
        return len(self.video_ids)

    def select(self, videos: np.ndarray) -> "FeatureSplit":
        """The subset of these videos (indices), in this order."""
        spans = [np.arange(self.offsets[video], self.offsets[video + 1]) for video in videos]
        rows = np.concatenate(spans) if spans else np.array([], np.int64)
        return FeatureSplit(
            video_ids=tuple(self.video_ids[video] for video in videos),
            labels=tuple(self.labels[video] for video in videos),
            class_names=self.class_names,
            offsets=np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64),
            student=self.student[torch.from_numpy(rows)],
            teacher=self.teacher[torch.from_numpy(rows)],
            timestamps=self.timestamps[rows],
        )


def load_features(
    store: FeatureStore,
    videos: Sequence[Video],
    *,
    class_names: Sequence[str],
    student_key: str,
    teacher_key: str,
) -> tuple[FeatureSplit, tuple[str, ...]]:
    """Read the features of videos whose extraction both ledgers report as ``ok``.

    Args:
        store: the feature store.
        videos: what is wanted.
        class_names: the dataset's classes.
        student_key, teacher_key: names of the feature keys.

    Returns:
        The features in the order of ``videos``, and the ids of videos that are not there.
    """
    places = _usable(store, student_key) & _usable(store, teacher_key)
    current = {
        row.video_id: row for row in store.manifest().current().itertuples() if (row.video_id, row.row) in places
    }
    found = [video for video in videos if video.id in current]
    rows = [current[video.id] for video in found]
    counts = np.array([row.n_clips for row in rows], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    split = FeatureSplit(
        video_ids=tuple(video.id for video in found),
        labels=tuple(video.labels for video in found),
        class_names=tuple(class_names),
        offsets=offsets,
        student=_gather(store, student_key, rows, offsets),
        teacher=_gather(store, teacher_key, rows, offsets),
        timestamps=np.concatenate([row.timestamps for row in rows]) if rows else np.array([]),
    )
    return split, tuple(video.id for video in videos if video.id not in current)


def _usable(store: FeatureStore, key: str) -> set[tuple[str, int]]:
    table = store.ledger(key).read()
    good = table[table["status"] == "ok"]
    return set(zip(good["video_id"], good["row"], strict=True))


def _gather(store: FeatureStore, key: str, rows: list, offsets: np.ndarray) -> torch.Tensor:
    """Read shard by shard: every shard once, whole."""
    by_shard: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_shard.setdefault(int(row.shard), []).append(index)
    features = np.empty((int(offsets[-1]), store.channels(key)), np.float16)
    for shard, members in sorted(by_shard.items()):
        if not store.has_chunk(key, shard):
            raise DynapropError(_DAMAGED.format(root=store.root, key=key, shard=shard))
        data = store.read_shard(key, shard)
        for index in members:
            begin = rows[index].row - shard * store.shard_rows
            features[offsets[index] : offsets[index + 1]] = data[begin : begin + rows[index].n_clips]
            if not np.isfinite(features[offsets[index] : offsets[index + 1]]).all():
                raise DynapropError(_DAMAGED.format(root=store.root, key=key, shard=shard))
    return torch.from_numpy(features)
