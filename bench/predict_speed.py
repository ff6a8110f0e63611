"""What recognising a new video costs beside the work itself: `python -m bench.predict_speed`.

The work is decoding the frames that the model looks at, and their way through both networks and the heads.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.machine import median_seconds
from bench.transcode_speed import write_moving_pictures
from dynaprop.heads.evaluation.video_scores import score_videos
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier
from dynaprop.heads.recognise.recogniser import BranchNetwork, Recogniser
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.timm_networks import gmacs_per_frame
from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.store.names import locate_backbone
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest


@dataclass(frozen=True)
class PredictSpeed:
    """Seconds, medians, by turns."""

    predict: float
    """All of it: opening the file and reading its frames' times, decoding, both networks, the heads."""
    decode: float
    """The frames that are needed, which are known."""
    forward: float

    @property
    def ratio(self) -> float:
        """How many times the work itself."""
        return self.predict / (self.decode + self.forward)


def measure_predict(
    video: Path, backbones: tuple[BackboneSpec, BackboneSpec], *, n_s: int = 20, n_t: int = 5, repetitions: int = 5
) -> PredictSpeed:
    """Recognise a video, and do the same work with all frames known in advance.

    Args:
        video: the file.
        backbones: of student and teacher.
        n_s, n_t: frames.
        repetitions: of each, by turns, after one that does not count.
    """
    networks = [FrameBackbone(key=key, weights=weights) for key, weights in map(locate_backbone, backbones)]
    costs = [gmacs_per_frame(spec.model, spec.size) for spec in backbones]
    teacher = FrameClassifier(dim=networks[1].channels, n_classes=6)
    model = DynamicSTE(student_dim=networks[0].channels, teacher=teacher).eval()
    with DecodePool(workers=1) as pool:
        (probe,) = pool.probe([str(video)])
        if not isinstance(probe, Probe):
            raise probe
        grid = clip_grid(probe.timestamps, probe.duration, clip_seconds=1.0, min_clips=25, max_clips=1024)
        wanted = inference_clips(len(grid), n_s=n_s, n_t=n_t)
        clips = np.union1d(*wanted)
        request = replace(
            FrameRequest.of_file(video, probe, grid.frames[clips]),
            clip_sizes=tuple((backbones[int(clip in wanted[1])].size,) for clip in clips),
        )
        found: list[dict[int, list[np.ndarray]]] = []

        def decode() -> None:
            found[:] = [dict(stream) for stream in pool.decode([request], [], [probe.decoder])]

        @torch.inference_mode()
        def forward() -> None:
            inputs = []
            for network, own in zip(networks, wanted, strict=True):
                frames = np.stack([found[0][place][0] for place in np.searchsorted(clips, own)])
                features = torch.from_numpy(network.features(frames))[None]
                inputs.append((features, torch.ones(1, len(own), dtype=torch.bool)))
            score_videos(model, *inputs)

        recogniser = Recogniser(
            model,
            class_names="abcdef",
            n_s=n_s,
            n_t=n_t,
            branches={"student": BranchNetwork(networks[0], costs[0]), "teacher": BranchNetwork(networks[1], costs[1])},
            clip_seconds=1.0,
            min_clips=25,
            max_clips=1024,
            pool=DecodePool(workers=1),
        )
        with recogniser:
            steps: dict[str, Callable[[], object]] = {
                "decode": decode,
                "forward": forward,
                "predict": partial(recogniser.predict, [video]),
            }
            median_seconds(steps, 1)
            times = median_seconds(steps, repetitions)
    return PredictSpeed(predict=times["predict"], decode=times["decode"], forward=times["forward"])


def main() -> None:
    """Measure recipe ``lite`` on a 30-second 720p video and print one line."""
    catalog = load_catalog()
    recipe = catalog.recipe("lite")
    backbones = catalog.backbone(recipe.student), catalog.backbone(recipe.teacher)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "video.mp4")
        write_moving_pictures(video, seconds=30)
        speed = measure_predict(video, backbones)
    print(
        f"a 30-second 720p video: {speed.predict:.2f} s, {speed.ratio:.2f} times the work itself "
        f"(decoding 25 frames {speed.decode:.2f} s, networks {speed.forward:.2f} s)"
    )


if __name__ == "__main__":
    main()
