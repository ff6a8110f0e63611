"""Fine-tuning from beginning to end: stage 1, stage 2, and what they leave in the run's folder (section 3.3).

backbones/{teacher,student}-seed0.safetensors    the backbones, in timm's names: weights of a catalog's backbone
checkpoints/                                     the heads, as those that are trained on cached features
epochs-seed0.parquet                             the loss curve, a row an epoch
state/seed0/                                     the last finished epoch, until all is done
finetuned-seed0.json                             what the backbones are; written last
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import safetensors.torch

from dynaprop.heads.finetune.networks import EndToEndDynamic, FrameEncoder, VideoClassifier
from dynaprop.heads.finetune.processes import ProcessGroup
from dynaprop.heads.finetune.stage import finetune_stage, measure_frames_std
from dynaprop.heads.finetune.state import EpochLog, TrainingState, remove_states
from dynaprop.heads.model.ensembles import DynamicSTE, FrameClassifier
from dynaprop.heads.runs.checkpoint import Checkpoint, Scalar, save_checkpoint
from dynaprop.heads.training.train import seeded
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.backbones.feature_key import FeatureKey
from dynaprop.pipeline.backbones.timm_networks import load_network
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.io.atomic import published, writing
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.sealed import publish_record, publish_sealed
from dynaprop.pipeline.video.container import VideoError

Stage = Literal["teacher", "student"]
Backbone = tuple[FeatureKey, Weights]


@dataclass(frozen=True)
class Places:
    """Where a fine-tuning keeps things."""

    run: StoragePath
    """The run's folder."""
    seed: int
    teacher: StoragePath
    """The teacher's heads, without suffix."""
    dynamic: StoragePath
    """Dynamic-STE's, the same."""

    @property
    def digest(self) -> str:
        """Of all that decides the outcome; the run's name ends with it."""
        return self.run.name.rpartition("-")[2]

    @property
    def done(self) -> StoragePath:
        return self.run / f"finetuned-seed{self.seed}.json"

    @property
    def epochs(self) -> StoragePath:
        return self.run / f"epochs-seed{self.seed}.parquet"

    @property
    def state(self) -> StoragePath:
        return self.run / "state" / f"seed{self.seed}"

    def backbone(self, branch: Stage) -> StoragePath:
        """Weights of a fine-tuned backbone."""
        return self.run / "backbones" / f"{branch}-seed{self.seed}.safetensors"


def starting_heads(
    init: Checkpoint, *, student: FeatureKey, teacher: FeatureKey, class_names: Sequence[str]
) -> DynamicSTE:
    """The heads of a checkpoint, to begin a fine-tuning with.

    Raises:
        UsageError: they are of another model, other backbones or other classes.
    """
    if not isinstance(init.model, DynamicSTE):
        raise UsageError("fine-tuning begins with Dynamic-STE, not with another model")
    if init.info.feature_keys != {"student": student.name, "teacher": teacher.name}:
        raise UsageError(
            "the heads to begin with were trained on features of other backbones than the recipe's: name a run of this "
            "recipe, or the recipe of that run"
        )
    if [comparable(name) for name in init.info.class_names] != list(class_names):  # of before names were composed
        raise UsageError("the heads to begin with know other classes than the dataset has")
    return init.model


class TwoStages:
    """Trains the teacher, then the student around it; a run that was interrupted goes on after its last epoch.

    Args:
        places: where things are kept.
        student, teacher: what the features of the backbones to begin with are keyed by, and their weights.
        labels: class index of each training video.
        class_names: of all classes.
        frames: makes the source of their frames at some sizes.
        clips: what it shows of each video.
        n_s, n_t: frames at inference, for the checkpoints.
        init: heads to begin with, of `starting_heads`; None to begin with new ones.
        teacher_epochs, student_epochs: of the stages; without any a teacher stays as it is.
        gamma, key_dim: of new heads.
        lambda_frm, lambda_cos: of eq. (5).
        train_batch_norm, checkpointing, precision: see `FrameEncoder`.
        training: other arguments of `finetune_stage`.
        device: where to train.
        group: the processes that train together.
        check: see `TrainingState`.
        on_videos, on_failure: see `finetune_stage`.
    """

    def __init__(
        self,
        places: Places,
        *,
        student: Backbone,
        teacher: Backbone,
        labels: Sequence[int],
        class_names: Sequence[str],
        frames: Callable[[Sequence[int]], TrainingFrames],
        clips: int,
        n_s: int,
        n_t: int,
        init: DynamicSTE | None = None,
        teacher_epochs: int = 10,
        student_epochs: int = 10,
        gamma: float = 4,
        key_dim: int = 256,
        lambda_frm: float = 0.5,
        lambda_cos: float = 0.5,
        train_batch_norm: bool = False,
        checkpointing: bool = False,
        precision: str = "fp32",
        training: dict[str, Any] | None = None,
        device: str = "cpu",
        group: ProcessGroup | None = None,
        check: Callable[[], None] | None = None,
        on_videos: Callable[[int], None] | None = None,
        on_failure: Callable[[str, VideoError], None] | None = None,
    ) -> None:
        self.epochs: dict[Stage, int] = {"teacher": teacher_epochs, "student": student_epochs}
        self.on_videos = on_videos
        self.places = places
        self._keys: dict[Stage, FeatureKey] = {"student": student[0], "teacher": teacher[0]}
        self._backbones: dict[Stage, Backbone] = {"student": student, "teacher": teacher}
        self._labels = labels
        self._class_names = tuple(class_names)
        self._frames = frames
        self._clips = clips
        self._counts = (n_s, n_t)
        self._gamma, self._key_dim = gamma, key_dim
        self._lambdas = {"lambda_frm": lambda_frm, "lambda_cos": lambda_cos}
        self._encoder_options = {
            "train_batch_norm": train_batch_norm,
            "checkpointing": checkpointing,
            "precision": precision,
        }
        self._training = {"precision": precision, **(training or {})}
        self._device = device
        self._group = group or ProcessGroup()
        self._check = check
        self._on_failure = on_failure
        self._logs: dict[Stage, tuple[EpochLog, ...]] = {}
        self._init = init

    def state(self, stage: Stage) -> TrainingState:
        """Where a stage is kept while it is trained."""
        return TrainingState(self.places.state, stage, check=self._check)

    def epochs_done(self, stage: Stage) -> int:
        """Finished epochs of a stage, of this run and those before it."""
        progress = self.state(stage).progress()
        return progress.epochs_done if progress else 0

    def run(self, stage: Stage) -> None:
        """Train a stage, as far as it is not."""
        _ = self.teacher if stage == "teacher" else self.dynamic

    @cached_property
    def teacher(self) -> VideoClassifier:
        """The teacher, trained by stage 1."""
        encoder, size = self._encoder("teacher"), self._keys["teacher"].size
        source = self._frames([size])
        if self._init is not None:
            heads = self._init.teacher.requires_grad_(True)
        else:
            std = self._feature_std("teacher", encoder, source)
            with seeded(self.places.seed):
                heads = FrameClassifier(
                    dim=encoder.width,
                    n_classes=len(self._class_names),
                    key_dim=self._key_dim,
                    gamma=self._gamma,
                    feature_std=std,
                )
        model = VideoClassifier(encoder, heads)
        self._train("teacher", model, source)
        if self._group.rank == 0:
            self._publish("teacher", encoder)
            self._save(self.places.teacher, heads, n_s=0, n_t=self._clips, stage="teacher")
        return model

    @cached_property
    def dynamic(self) -> EndToEndDynamic:
        """Dynamic-STE, trained by stage 2 around ``teacher``."""
        teacher = self.teacher
        encoder, size = self._encoder("student"), self._keys["student"].size
        source = self._frames([size, self._keys["teacher"].size])
        std = 1.0 if self._init else self._feature_std("student", encoder, source)
        with seeded(self.places.seed):
            heads = DynamicSTE(
                student_dim=encoder.width,
                teacher=teacher.heads,
                key_dim=self._init.student.key_dim if self._init else self._key_dim,
                gamma=self._init.gamma if self._init else self._gamma,
                fusion=self._init is None or self._init.student.fusion is not None,
                feature_std=std,
            )
        if self._init is not None:
            of_student = {
                name: tensor for name, tensor in self._init.state_dict().items() if not name.startswith("teacher.")
            }
            heads.load_state_dict(of_student, strict=False)  # the teacher's is what stage 1 has made of it
        model = EndToEndDynamic(encoder, teacher.encoder, heads)
        self._train("student", model, source, student_size=size, **self._lambdas)
        if self._group.rank == 0:
            self._publish("student", encoder)
            n_s, n_t = self._counts
            self._save(self.places.dynamic, heads, n_s=n_s, n_t=n_t, stage="student")
        return model

    def finish(self) -> None:
        """Write what the backbones are, and delete what was only needed to go on."""
        self._group.wait()  # all have read what is about to be deleted
        if self._group.rank == 0:
            backbones = {}
            for branch, key in self.keys.items():
                backbones[branch] = {
                    "model": key.model,
                    "size": key.size,
                    "weights": f"backbones/{self.places.backbone(branch).name}",
                    "weights_sha256": key.weights,
                    "mean": list(key.mean),
                    "std": list(key.std),
                    "precision": key.precision,
                    "feature_key": key.name,
                }
            publish_record(self.places.done, {"schema_version": 1, "backbones": backbones})
            remove_states(self.places.state)
        self._group.wait()

    @property
    def keys(self) -> dict[Stage, FeatureKey]:
        """What features of the fine-tuned backbones are keyed by."""
        return {branch: self._key_of(branch) for branch in self._keys}

    def _encoder(self, branch: Stage) -> FrameEncoder:
        key, weights = self._backbones[branch]
        network = load_network(key.model, weights, key.size)
        return FrameEncoder(network, mean=key.mean, std=key.std, **self._encoder_options)  # type: ignore[arg-type]

    def _feature_std(self, stage: Stage, encoder: FrameEncoder, source: TrainingFrames) -> float:
        """Of the backbone's features as it begins. What is kept has it; other processes are given the first one's."""
        if self._group.rank > 0 or self.epochs_done(stage):
            return 1.0
        return measure_frames_std(encoder, source, size=self._keys[stage].size, device=self._device)

    def _train(
        self, stage: Stage, model: VideoClassifier | EndToEndDynamic, source: TrainingFrames, **more: Any
    ) -> None:
        def on_epoch(log: tuple[EpochLog, ...]) -> None:
            self._logs[stage] = log
            self._write_log()

        self._logs[stage] = finetune_stage(
            model,
            source,
            self._labels,
            state=self.state(stage),
            teacher_size=self._keys["teacher"].size,
            epochs=self.epochs[stage],
            seed=self.places.seed,
            device=self._device,
            group=self._group,
            on_videos=self.on_videos,
            on_epoch=on_epoch,
            on_failure=self._on_failure,
            **self._training,
            **more,
        )
        if self._group.rank == 0 and self._logs[stage]:  # a kill may have come between an epoch's state and its log
            self._write_log()

    def _write_log(self) -> None:
        rows = [{"stage": stage, **one.model_dump()} for stage, log in self._logs.items() for one in log]
        table = pd.DataFrame(rows).astype({"frame_loss": "float64", "cosine_loss": "float64"})
        with writing(self.places.epochs):
            publish_sealed(self.places.epochs, table)

    def _publish(self, branch: Stage, encoder: FrameEncoder) -> None:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in encoder.backbone.state_dict().items()}
        path = self.places.backbone(branch)
        with writing(path), published(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(tensors))

    def _save(
        self, path: StoragePath, heads: FrameClassifier | DynamicSTE, *, n_s: int, n_t: int, stage: Stage
    ) -> None:
        branches: tuple[Stage, ...] = ("student", "teacher") if stage == "student" else ("teacher",)
        log = self._logs[stage]
        scalars = (bool, int, float, str, tuple)
        hyper_parameters: dict[str, Scalar | tuple[int, ...]] = {
            name: value for name, value in self._training.items() if isinstance(value, scalars) or value is None
        }
        save_checkpoint(
            path,
            heads,
            class_names=self._class_names,
            feature_keys={branch: self._key_of(branch).name for branch in branches},
            n_s=n_s,
            n_t=n_t,
            seed=self.places.seed,
            hyper_parameters={**hyper_parameters, **self._lambdas, "epochs": self.epochs[stage]},
            metrics={"training_loss": log[-1].loss, "training_top1": log[-1].top1} if log else {},
        )

    def _key_of(self, branch: Stage) -> FeatureKey:
        weights = self.places.backbone(branch).read_bytes()
        return replace(self._keys[branch], weights=hashlib.sha256(weights).hexdigest())
