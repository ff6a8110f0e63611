"""Extraction against its parts: the same clips decoded alone, forwarded alone, extracted, and done the plain way."""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

from bench.machine import seconds_of
from dynaprop.pipeline.annotations import read_annotations
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.extract.dataset import Extraction
from dynaprop.pipeline.extract.estimate import decode_seconds_per_clip, seconds_per_frame
from dynaprop.pipeline.extract.shard import Extractor

PARTS = ("decode", "student", "teacher", "write", "extraction")


@dataclass(frozen=True)
class ExtractionSpeed:
    """Seconds for the clips of one shard, each the median over the shards, all measured in one run."""

    device: str
    clips: int
    """Of one shard."""
    shards: int
    start: float
    """Until the first shard begins: reading the labels, probing, weights, decode children."""
    decode: float
    """Decode and resize alone, all children."""
    student: float
    """The student's forward alone, with all cores or on the GPU."""
    teacher: float
    write: float
    """Writing, reading back and comparing alone."""
    extraction: float
    """All of it together."""
    extraction_total: float
    """Of all shards."""
    plain: float
    """One process: PyAV, torch's resize, both networks, video by video."""

    @property
    def efficiency(self) -> float:
        """Extraction against its necessary parts: one after the other on a CPU, side by side with a GPU."""
        forward = self.student + self.teacher
        needed = self.decode + forward if self.device == "cpu" else max(self.decode, forward)
        return needed / self.extraction

    @property
    def speed_up(self) -> float:
        """Against the plain loop."""
        return self.plain / self.extraction


def copy_videos(dataset: DatasetSpec, folder: Path, count: int) -> None:
    """Copy videos of a dataset below folders of their classes, each again and again until there are enough."""
    annotations = read_annotations(dataset)
    for index in range(count):
        again, place = divmod(index, len(annotations.videos))
        video = annotations.videos[place]
        target = folder / annotations.class_names[video.labels[0]] / f"{again}_{video.path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video.path, target)


def measure_extraction(
    dataset: DatasetSpec,
    backbones: Sequence[BackboneSpec],
    *,
    home: Path,
    plain_videos: int,
    device: str,
    on_step: Callable[[str], None],
) -> ExtractionSpeed:
    """Extract a dataset; before each shard its parts are measured alone, after it the plain loop on some of its videos.

    Args:
        dataset: with as many clips for each video as for any other.
        backbones: student and teacher.
        home: folder of ``stores/``, without this dataset.
        plain_videos: of each shard that the plain loop does; its time is scaled to the shard.
        device: of the networks.
        on_step: told what was measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (*PARTS, "plain")}
    began = time.perf_counter()
    with Extraction(
        dataset=dataset, annotations=read_annotations(dataset), backbones=backbones, home=home, device=device
    ) as extraction:
        plan = extraction.plan(extraction.changes())
        keys = list(extraction.backbones.values())
        extractor = Extractor(
            store=extraction.store,
            videos_of=plan.manifest.shard,
            n_shards=plan.manifest.n_shards,
            backbones=keys,
            root=str(dataset.root),
            pool=extraction.pool,
            check=extraction.check_lock,
            device=extraction.device,
        )
        networks = [FrameBackbone(key=key, weights=weights, device=extraction.device) for key, weights in keys]
        for key, _ in keys:
            seconds_per_frame(extractor, key.name)  # loads the network and warms it up
        start = time.perf_counter() - began
        plain = _PlainLoop(keys, clips=dataset.max_clips, device=extraction.device)
        for shard in plan.shards:
            table = plan.manifest.shard(shard)
            n_clips = int(table["n_clips"].sum())
            steps: dict[str, Callable[[], object]] = {
                "decode": partial(decode_seconds_per_clip, extractor, table),
                "student": partial(_forward, networks[0], extractor.batch_size, n_clips),
                "teacher": partial(_forward, networks[1], extractor.batch_size, n_clips),
                "extraction": partial(extractor.extract_shard, shard),
                "write": partial(_write_again, extraction, shard),
            }
            for name, step in steps.items():
                seconds[name].append(seconds_of(step))
                on_step(f"shard {shard + 1}/{len(plan.shards)}, {name}: {seconds[name][-1]:.1f} s")
            paths = [dataset.root / path for path in table["path"].head(plain_videos)]
            took = seconds_of(partial(plain.features_of, paths))
            seconds["plain"].append(took * len(table) / len(paths))
            on_step(f"shard {shard + 1}/{len(plan.shards)}, plain loop: {took:.1f} s for {len(paths)} videos")
    return ExtractionSpeed(
        device=extraction.device,
        clips=n_clips,
        shards=len(plan.shards),
        start=start,
        extraction_total=sum(seconds["extraction"]),
        **{name: statistics.median(times) for name, times in seconds.items()},
    )


class _PlainLoop:
    """What one would write first: file by file, all frames decoded, those of the clips resized and forwarded."""

    def __init__(self, keys: Sequence[tuple[FeatureKey, Weights]], *, clips: int, device: str) -> None:
        self._networks = [(key, load_network(key.model, weights, key.size).to(device)) for key, weights in keys]
        self._clips = clips
        self._device = device

    def features_of(self, paths: Sequence[Path]) -> list[list[np.ndarray]]:
        """The features of each file."""
        return [self._features(path) for path in paths]

    @torch.inference_mode()
    def _features(self, path: Path) -> list[np.ndarray]:
        """``[clips, d]`` of each network, for evenly spaced frames."""
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = np.linspace(0, len(frames) - 1, self._clips).round().astype(int)
        pixels = torch.from_numpy(np.stack([frames[index] for index in chosen])).to(self._device)
        pixels = pixels.permute(0, 3, 1, 2).float() / 255
        features = []
        for key, network in self._networks:
            small = interpolate(pixels, (key.size, key.size), mode="bicubic", antialias=True)
            mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (key.mean, key.std))
            features.append(network((small - mean) / std).half().cpu().numpy())
        return features


def _forward(network: FrameBackbone, batch_size: int, clips: int) -> None:
    size = network.key.size
    frames = np.random.default_rng(0).integers(0, 255, (batch_size, size, size, 3), dtype=np.uint8)
    for _ in range(-(-clips // batch_size)):
        network.features(frames)


def _write_again(extraction: Extraction, shard: int) -> None:
    store = extraction.store
    for key in extraction.key_names.values():
        store.write_shard(key, shard, store.read_shard(key, shard))
