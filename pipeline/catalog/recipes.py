"""Recipes of the catalog: which backbones, and the hyper-parameters of a training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, field_validator, model_validator

from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.fields import (
    BranchFrames,
    Count,
    Counts,
    NotNegative,
    Positive,
    Share,
    StrictModel,
    refuse,
)


class FinetuneSpec(StrictModel):
    """Hyper-parameters of the end-to-end training, of which the paper gives Adam, 1e-4 and 40 epochs alone."""

    teacher_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Of stage 1; 0 leaves the teacher's backbone as it is, and its heads too where they come from a run."""
    student_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Of stage 2."""
    clips: BranchFrames | None = None
    """Clips a video in training; the recipe's n_s where None."""
    lr: Positive = 1e-4
    """Of the heads."""
    backbone_lr: Positive = 0.1
    """Learning rate of the backbone as a share of ``lr``."""
    weight_decay: NotNegative = 0.01
    warmup: NotNegative = 1.0
    """Epochs in which learning rates rise from 0."""
    milestones: Counts | None = None
    """Epochs after which learning rates drop to a tenth; None: they fall to 0 by a half cosine."""
    batch_size: Count = 8
    """Videos a step, of all processes together."""
    micro_batch: Count = 2
    """Videos that pass through the networks at once; gradients are accumulated over as many as make a batch."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the backbones while they are trained."""
    checkpointing: bool = False
    """Gradient checkpointing: less memory, more time."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    scale: Annotated[tuple[Share, Share], Strict(False)] = (0.5, 1.0)
    """Smallest and largest share of a frame's area that a crop shows."""
    ratio: Annotated[tuple[Positive, Positive], Strict(False)] = (0.75, 1.3333)
    """Smallest and largest width over height of a crop."""
    flip: bool = True
    """Off where left and right tell classes apart."""
    jitter: bool = True
    """Any frame of a clip, not its first one."""

    @model_validator(mode="after")
    def _bounds_rise(self) -> "FinetuneSpec":
        for key in ("scale", "ratio"):
            low, high = getattr(self, key)
            if low > high:
                raise refuse(f"key {key!r} should be [smallest, largest], not {[low, high]}")
        return self

    @model_validator(mode="after")
    def _statistics_move_once(self) -> "FinetuneSpec":
        if self.checkpointing and self.batch_norm == "trained":
            raise refuse("key 'checkpointing' needs 'batch_norm: frozen', whose statistics it would move twice")
        return self


class RecipeSpec(Entry):
    """Student and teacher (names of backbones) and hyper-parameters; the defaults are the paper's."""

    noun: ClassVar[str] = "recipe"

    student: str
    teacher: str
    n_s: BranchFrames = 20
    n_t: BranchFrames = 5
    gamma: Count = 4
    """k = max(1, floor(n / gamma)) frames make a video's score, eq. (3)."""
    key_dim: Annotated[int, Field(ge=1, le=65_536)] = 256
    lambda_frm: NotNegative = 0.5
    lambda_cos: NotNegative = 0.5
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    lr: Positive = 1e-4
    milestones: Counts = (15, 30)
    """Epochs after which the learning rate drops to a tenth."""
    batch_size: Count = 32
    finetune: FinetuneSpec = FinetuneSpec()

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise refuse(f"should rise from one epoch to the next, not {list(milestones)}")
        return milestones
