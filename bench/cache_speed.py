"""The cache against memory and against the videos: writing, reading a whole split, an epoch of training."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench.machine import median_seconds
from bench.synthetic import ProbesAtOnce, fill_store, synthetic_videos
from dynaprop.heads.features.loaded import FeatureSplit, load_features
from dynaprop.heads.features.sampling import training_clips
from dynaprop.heads.training.train import train_classifier, train_dynamic
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.extract.apply import apply_changes
from dynaprop.pipeline.extract.changes import Changes
from dynaprop.pipeline.store.feature_store import FeatureStore
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.store.names import locate_backbone, open_store
from dynaprop.pipeline.store.recorded import frame_request

_VIDEOS_A_SHARD, _CLIPS, _CHANNELS = 25, 80, 1280  # UT-Interaction's clips in shards of the default size
_EPOCHS = 40  # the recipe's
_FRAMES = 16  # the paper's number of frames a video


@dataclass(frozen=True)
class StoreSpeed:
    """Seconds for the features of one split, both branches; medians."""

    mebibytes: float
    write: float
    """Into the store, read back and compared, with ledgers."""
    write_memmap: float
    """The same bytes into a ``numpy.memmap``, flushed."""
    read: float
    """As training reads them: manifest, ledgers and every checksum."""
    read_memmap: float
    """The same bytes from ``numpy.memmap`` into arrays."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Seconds of an epoch of stage 1 and stage 2, 16 frames a video."""

    videos: int
    from_store: float
    """Reading the features included, over 40 epochs."""
    in_memory: float
    """The same loop on features that are in memory already."""
    from_videos: float
    """The same loop, plus, once an epoch, decoding the sampled frames and both networks' forward."""


def measure_store(backbones: Sequence[BackboneSpec], *, shards: int, repetitions: int) -> StoreSpeed:
    """Write and read a synthetic split of so many shards, beside plain files of the same bytes."""
    keys = [locate_backbone(backbone)[0] for backbone in backbones]
    with tempfile.TemporaryDirectory(prefix="dynaprop-bench-") as scratch:
        folder = Path(scratch)
        videos = synthetic_videos(folder, shards * _VIDEOS_A_SHARD)
        grid = {"dataset": "synthetic"}
        rows = _VIDEOS_A_SHARD * _CLIPS
        *_, manifest = apply_changes(
            Manifest.empty(shard_rows=rows),
            Changes(videos, ()),
            pool=cast(DecodePool, ProbesAtOnce(_CLIPS)),
            root=folder,
            clip_seconds=1.0,
            min_clips=_CLIPS,
            max_clips=_CLIPS,
        )
        numbers = iter(range(10**6))
        shape = manifest.n_shards * rows, _CHANNELS
        noise = np.random.default_rng(0).standard_normal((rows, _CHANNELS), np.float32).astype(np.float16)

        def new_store() -> FeatureStore:
            store = FeatureStore(folder / f"store{next(numbers)}", grid=grid, shard_rows=rows)
            fill_store(store, keys, manifest, channels=_CHANNELS, rows=noise)
            return store

        def new_memmaps() -> list[Path]:
            paths = [folder / f"{next(numbers)}.raw" for _ in keys]
            for path in paths:
                mapped = np.memmap(path, np.float16, "w+", shape=shape)
                for first in range(0, len(mapped), rows):
                    mapped[first : first + rows] = noise
                mapped.flush()
            return paths

        store, paths = new_store(), new_memmaps()

        def read() -> object:
            return load_features(store, videos, class_names=["any"], student_key=keys[0].name, teacher_key=keys[1].name)

        def read_memmaps() -> list[np.ndarray]:
            return [np.array(np.memmap(path, np.float16, "r", shape=shape)) for path in paths]

        reading = median_seconds({"read": read, "read_memmap": read_memmaps}, repetitions)
        writing = median_seconds({"write": new_store, "write_memmap": new_memmaps}, max(1, repetitions // 2))
    return StoreSpeed(mebibytes=2 * 2 * shape[0] * shape[1] / 2**20, **writing, **reading)


def measure_training(
    dataset: DatasetSpec,
    backbones: Sequence[BackboneSpec],
    *,
    home: Path,
    repetitions: int,
    decoded_videos: int,
    device: str,
) -> TrainingSpeed:
    """Train on features that are read each time, and on the same in memory; decode and forward some of the videos.

    Args:
        dataset: whose features are extracted.
        backbones: student and teacher.
        home: folder of ``stores/``.
        repetitions: trainings of each kind.
        decoded_videos: videos whose decoding and forward are measured; the time is scaled to all.
        device: of the networks and the training.
    """
    store, annotations = open_store(dataset, home), read_annotations(dataset)
    located = [locate_backbone(backbone) for backbone in backbones]

    def load() -> FeatureSplit:
        names = [key.name for key, _ in located]
        return load_features(
            store,
            annotations.videos,
            class_names=annotations.class_names,
            student_key=names[0],
            teacher_key=names[1],
        ).split

    resident = load()
    times = median_seconds(
        {"store": lambda: _train(load(), device), "memory": lambda: _train(resident, device)}, repetitions
    )
    networks = [FrameBackbone(key=key, weights=weights, device=device) for key, weights in located]
    records = store.manifest().current().head(decoded_videos).to_dict("records")
    with DecodePool() as pool:
        once = median_seconds(
            {"videos": lambda: _see_videos(records, dataset.root, pool, networks)}, max(3, repetitions // 2)
        )
    in_memory = times["memory"] / _EPOCHS
    return TrainingSpeed(
        videos=len(resident),
        from_store=times["store"] / _EPOCHS,
        in_memory=in_memory,
        from_videos=in_memory + once["videos"] * len(resident) / len(records),
    )


def _train(split: FeatureSplit, device: str) -> None:
    teacher = train_classifier(split, branch="teacher", n=_FRAMES, epochs=_EPOCHS, device=device)
    train_dynamic(split, teacher, n=_FRAMES, epochs=_EPOCHS, device=device)


def _see_videos(records: list[dict[Any, Any]], root: Path, pool: DecodePool, networks: Sequence[FrameBackbone]) -> None:
    """Decode the clips that one epoch samples of each video, and run both networks on them."""
    rng = np.random.default_rng(0)
    requests = []
    for record in records:
        clips = training_clips(record["n_clips"], _FRAMES, rng)
        request = frame_request(record, root)
        requests.append(replace(request, frames=request.frames[clips], timestamps=request.timestamps[clips]))
    sizes = sorted(network.key.size for network in networks)
    for stream in pool.decode(requests, sizes, [record["decoder"] for record in records]):
        frames = [frames for _, frames in stream]
        for network in networks:
            network.features(np.stack([by_size[sizes.index(network.key.size)] for by_size in frames]))
