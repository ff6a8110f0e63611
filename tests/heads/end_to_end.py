"""Tiny networks and real little videos for the tests of end-to-end training; also run as a process of a group.

torchrun --nproc-per-node 2 -m tests.heads.end_to_end VIDEOS OUTPUT OPTIONS
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dynaprop.heads.features.sampling import training_clips
from dynaprop.heads.finetune.networks import EndToEndDynamic, FrameEncoder, VideoClassifier
from dynaprop.heads.finetune.processes import ProcessGroup, process_group
from dynaprop.heads.finetune.stage import finetune_stage
from dynaprop.heads.finetune.state import EpochLog, TrainingState
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier
from dynaprop.heads.training.train import seeded
from dynaprop.pipeline.annotations import Video
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import find_weights
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.frames.training_videos import TrainingVideo, probe_videos
from tests.pipeline.videos import write_video

STUDENT, TEACHER = 32, 48  # pixels
N_CLASSES = 3
PLAIN = {"jitter": False, "flip": False, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
SIZES = {"student_size": STUDENT, "teacher_size": TEACHER}


def write_videos(folder: Path, count: int = 7) -> list[Path]:
    """Some videos of different lengths, so that batches are ragged."""
    return [write_video(folder / f"{number}.mp4", frames=12 + 4 * number, seed=number) for number in range(count)]


def probed(paths: list[Path], pool: DecodePool) -> list[TrainingVideo]:
    videos = [Video(id=path.name, path=path) for path in paths]
    usable, failed = probe_videos(videos, pool=pool, clip_seconds=0.5, min_clips=3, max_clips=8, min_share=0.5)
    assert not failed
    return usable


def frames_of(videos: list[TrainingVideo], pool: DecodePool, **options: Any) -> TrainingFrames:
    defaults = {"sizes": [STUDENT, TEACHER], "choose": partial(choose, n=4), "batch_size": 4, "seed": 3}
    return TrainingFrames(videos, pool=pool, **(defaults | options))


def choose(n_clips, rng, n):
    return training_clips(n_clips, n, rng)


def encoder(model: str = "test_efficientnet", **options: Any) -> FrameEncoder:
    network = load_network(model, find_weights("random", model))
    return FrameEncoder(network, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **options)


def teacher_model(n_classes: int = N_CLASSES, *, model: str = "test_resnet", **options: Any) -> VideoClassifier:
    backbone = encoder(model, **options)
    with seeded(0):
        heads = FrameClassifier(dim=backbone.width, n_classes=n_classes, key_dim=8, feature_std=0.035)
    return VideoClassifier(backbone, heads)


def dynamic_model(teacher: VideoClassifier | None = None, *, feature_std: float = 0.001, **options: Any):
    teacher = teacher or teacher_model()
    student = encoder(**options)
    with seeded(1):
        heads = DynamicSTE(student_dim=student.width, teacher=teacher.heads, key_dim=8, feature_std=feature_std)
    return EndToEndDynamic(student, teacher.encoder, heads)


def train(
    model, source: TrainingFrames, folder: Path, *, group: ProcessGroup | None = None, **options: Any
) -> tuple[EpochLog, ...]:
    labels = [number % N_CLASSES for number in range(len(source.videos))]
    defaults = {"epochs": 3, "lr": 1e-2, "warmup": 0.5, **SIZES}
    return finetune_stage(
        model, source, labels, state=TrainingState(folder, "stage"), group=group, **(defaults | options)
    )


def predicted(model, source: TrainingFrames) -> list[int]:
    """Classes of all videos, in order, by frames that are not augmented; both branches see the same."""
    classes = []
    with torch.inference_mode():
        for batch in source.plain():
            mask = torch.from_numpy(batch.mask)
            frames_s, frames_t = (torch.from_numpy(batch.frames[size]) for size in (STUDENT, TEACHER))
            teacher = isinstance(model, VideoClassifier)
            scores = model(frames_t, mask) if teacher else model(frames_s, mask, frames_t, mask)
            classes += scores.video_logits.argmax(dim=1).tolist()
    return classes


def train_all(
    folder: Path,
    output: Path,
    *,
    epochs: int,
    pool: DecodePool,
    group: ProcessGroup | None = None,
    batch_size: int = 3,
    **options: Any,
):
    """Train Dynamic-STE on all videos of a folder, as one of a group or alone; returns the model."""
    group = group or ProcessGroup()
    model = dynamic_model(**options)
    for tensor in model.state_dict().values():
        tensor.mul_(1 + group.rank)  # only what the first process begins with counts
    videos = probed(sorted(folder.iterdir()), pool)
    source = frames_of(videos, pool, batch_size=batch_size, rank=group.rank, ranks=group.size)
    # The learning rate does not fall, so that the first epochs of a longer training are a shorter one.
    train(model, source, output / "state", group=group, epochs=epochs, milestones=())
    return model


def main(folder: str, output: str, options: str) -> None:
    torch.set_num_threads(1)
    with process_group("cpu") as (group, _), DecodePool(workers=1) as pool:
        model = train_all(Path(folder), Path(output), pool=pool, group=group, **json.loads(options))
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        safetensors.torch.save_file(tensors, Path(output) / f"{group.rank}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
