"""Frozen, strictly typed entries of the catalog: datasets, backbones, recipes, sweeps and clusters.

The configuration stops here: what lies below takes plain keyword arguments, not these models.
"""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dynaprop.pipeline.backbones.weights_file import WEIGHT_SUFFIXES, is_weights_file
from dynaprop.pipeline.catalog.fields import (
    AbsolutePath,
    BranchFrames,
    Count,
    Counts,
    FrameCounts,
    NotNegative,
    Positive,
    PositiveTriple,
    Seed,
    Seeds,
    Share,
    StrictModel,
    Triple,
    absolute_path,
    expand_variables,
    is_folder,
    refuse,
)
from dynaprop.pipeline.catalog.formats import AnnotationFormat, FolderFormat, GroupFile
from dynaprop.pipeline.errors import UsageError, did_you_mean
from dynaprop.pipeline.io.file_names import require_utf8_locale
from dynaprop.pipeline.io.paths import storage_path

INLINE = "inline"
"""The cluster that is none."""


class Entry(StrictModel):
    """What every entry of the catalog has."""

    noun: ClassVar[str] = "entry"
    """What a person calls it."""

    name: str
    source: str = Field(default="", exclude=True, repr=False)
    """The catalog file, for messages; empty for an entry that stands in none."""

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise refuse("should be letters, digits, '.', '_' and '-' only, at most 100: folders are named after it")
        return name

    def place(self, key: str) -> str:
        """Return where a key of this entry stands, for messages."""
        return f"{self.source + ': ' if self.source else ''}{self.noun} {self.name!r}, key {key!r}"


class GenerateSpec(StrictModel):
    """Arguments of the generated sample dataset."""

    videos_per_class: Annotated[int, Field(ge=1, le=100_000)] = 8
    seed: Seed = 0


class DatasetSpec(Entry):
    """Where videos and labels are, and how videos are cut into clips."""

    noun: ClassVar[str] = "dataset"

    root: AbsolutePath
    annotations: AnnotationFormat = FolderFormat()
    group: str | None = None
    """Regular expression searched in the video id; its group named ``group``, else its first, is the video's group."""
    groups: GroupFile | None = None
    """Instead of the expression: a file that names the group of each video."""
    min_clips: Count = 25
    max_clips: Count = 1024
    clip_seconds: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of a damaged video so much must be there; otherwise it fails."""
    decoder: Literal["pyav", "decord"] = "pyav"
    """What reads video files. Each of decord's frames is compared with PyAV's, which counts where they differ."""
    shard_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 2048
    metric: Literal["top1", "map"] = "top1"
    """The headline metric."""
    split_seed: Seed = 0
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The part held out where the dataset comes without a split."""
    generate: GenerateSpec | None = None
    note: str | None = None
    """Where to get the videos, and their licence."""
    short_side: int | None = None
    """Of the transcoded copies that are meant instead of the videos themselves, in pixels; no key of an entry."""

    given_by_parser: ClassVar[frozenset[str]] = Entry.given_by_parser | {"short_side"}

    @field_validator("group")
    @classmethod
    def _group_captures(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise refuse(f"{pattern!r} is no regular expression: {error}") from None
            if not groups:
                raise refuse(f"{pattern!r} captures nothing: put parentheses around the group's name")
        return pattern

    @model_validator(mode="after")
    def _one_kind_of_groups(self) -> "DatasetSpec":
        if self.group is not None and self.groups is not None:
            raise refuse("has both 'group' and 'groups': keep the expression or the file")
        return self

    @model_validator(mode="after")
    def _clips_fit(self) -> "DatasetSpec":
        if self.min_clips > self.max_clips:
            raise refuse(f"min_clips ({self.min_clips}) should be at most max_clips ({self.max_clips})")
        if self.max_clips > self.shard_rows:
            raise refuse(
                f"max_clips ({self.max_clips}) should be at most shard_rows ({self.shard_rows}): "
                "a video never straddles two shards"
            )
        return self

    def copies(self, short_side: int) -> "DatasetSpec":
        """The spec of this dataset's transcoded copies: a dataset of its own, whose labels are read where ours are."""
        return self.model_copy(update={"name": f"{self.name}.{short_side}p", "short_side": short_side})

    def original(self) -> "DatasetSpec":
        """The spec that ``copies`` was asked for; this one if it is about the videos themselves."""
        name = self.name.removesuffix(f".{self.short_side}p")
        return self.model_copy(update={"name": name, "short_side": None})

    def require_root(self) -> Path:
        """Return the root, which is only now looked for: a catalog may name datasets that are not here.

        Raises:
            UsageError: there is no such folder, or the locale has no such name.
        """
        require_utf8_locale(str(self.root), where=self.place("root"))
        if is_folder(self.root):
            return self.root
        note = f" ({' '.join(self.note.split())})" if self.note else ""
        raise UsageError(f"{self.place('root')}: no folder {self.root}; put the videos there or change the key{note}")


class BackboneSpec(Entry):
    """A timm model at one resolution with given weights."""

    noun: ClassVar[str] = "backbone"

    model: str
    """timm's name."""
    size: Annotated[int, Field(ge=1, le=4096)]
    """Side of the square input in pixels."""
    weights: str
    """``package:NAME``, ``timm`` (its hub), ``random`` (tests only), or an absolute path or URL of a weights file."""
    gflops_paper: Positive | None = None
    """Published multiply-adds a frame, in units of 10^9; None where the paper has no figure."""
    mean: Triple | None = None
    std: PositiveTriple | None = None
    """Normalisation of the input; timm's own where None."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the forward pass, half ones by autocast; the features of each have a key of their own."""

    @field_validator("model")
    @classmethod
    def _is_model_name(cls, model: str) -> str:
        if not re.fullmatch(r"\w+(\.\w+)?", model, re.ASCII) or len(model) > 100:
            raise refuse(
                "should be timm's name, of letters, digits, '_' and one '.' at most: folders are named after it"
            )
        return model

    @field_validator("weights")
    @classmethod
    def _weights_source(cls, weights: str) -> str:
        if weights in ("timm", "random") or re.fullmatch(r"package:\w+", weights):
            return weights
        text = expand_variables(weights)
        try:
            path = storage_path(text) if "://" in text else absolute_path(weights)
        except UsageError as error:
            raise refuse(f"{error}") from None
        if not is_weights_file(path.name):
            hint = did_you_mean(weights, ["timm", "random"]) if len(weights) < 10 else ""
            raise refuse(
                f"should be package:NAME, timm, random or a path or URL ending in {', '.join(WEIGHT_SUFFIXES)}, "
                f"not {weights!r}{hint}"
            )
        return str(path)

    def require_weights(self) -> str:
        """Return ``weights`` once a file that it names is known to exist.

        Raises:
            UsageError: there is no such file.
        """
        if Path(self.weights).is_absolute() and not Path(self.weights).is_file():
            raise UsageError(f"{self.place('weights')}: no file {self.weights}; put it there or change the key")
        return self.weights


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


ModelName = Literal["teacher", "student", "student-kd", "static-avg", "static-weighted", "dynamic", "dynamic-shuffled"]


class SweepRow(StrictModel):
    """Some models at some numbers of frames: every combination is a line of the table."""

    models: Annotated[tuple[ModelName, ...], Strict(False), Field(min_length=1)]
    frames: Annotated[tuple[FrameCounts, ...], Strict(False)] = ()
    """Pairs (n_s, n_t), 0 for a branch that the models lack; the recipe's own pair where empty."""
    fusion: Annotated[tuple[Literal["none", "student", "teacher", "both"], ...], Strict(False)] = ("both",)
    """Which branches have temporal fusion (Table 4)."""
    losses: Annotated[tuple[Literal["vid", "vid+frm", "vid+cos", "vid+frm+cos"], ...], Strict(False)] = ()
    """Loss sets of Dynamic-STE (Table 5); the whole one where empty."""

    @model_validator(mode="after")
    def _consistent(self) -> "SweepRow":
        for key in ("models", "frames", "fusion", "losses"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise refuse(f"key {key!r} lists the same value twice")
        for pair in self.frames:
            lacking = [name for name in self.models if not _suits(name, *pair)]
            if lacking:
                raise refuse(f"key 'frames': {lacking[0]} cannot be measured at {list(pair)}, which is [n_s, n_t]")
        if self.losses and not all(name.startswith("dynamic") for name in self.models):
            raise refuse("key 'losses': only dynamic has loss sets; give the other models a row of their own")
        return self


def _suits(model: str, n_s: int, n_t: int) -> bool:
    if model == "teacher":
        return n_s + n_t > 0
    return n_s > 0 and (n_t > 0 or model.startswith("student"))


class SweepSpec(Entry):
    """What is trained and measured: an experiment of the paper, or one of your own."""

    noun: ClassVar[str] = "sweep"

    rows: Annotated[tuple[SweepRow, ...], Strict(False)] = ()
    include: Annotated[tuple[str, ...], Strict(False)] = ()
    """Instead of rows: other sweeps, all of which are run."""
    recipes: Annotated[tuple[str, ...], Strict(False)] = ()
    """Recipes to run it for, those whose features are cached, where none is named."""
    seeds: Seeds = (0,)
    """In the file: a list, or a number n for the seeds 0 .. n-1."""

    @model_validator(mode="after")
    def _has_content(self) -> "SweepSpec":
        if bool(self.rows) == bool(self.include):
            raise refuse("needs either rows or, to run other sweeps, include")
        if self.include and (given := {"recipes", "seeds"} & self.model_fields_set):
            raise refuse(f"key {min(given)!r}: the sweeps that it includes have their own")
        if len(set(self.recipes)) < len(self.recipes):
            raise refuse("key 'recipes' lists the same value twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise refuse("key 'seeds' lists the same value twice")
        return self


class ClusterSpec(Entry):
    """Where shards are extracted: ``inline``, in the command's own process, or by the workers of a Dask cluster."""

    noun: ClassVar[str] = "cluster"

    processes: Annotated[int, Field(ge=1, le=4096)] | None = None
    """So many worker processes on this machine."""
    address: str | None = None
    """Of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``; may hold environment variables."""
    cuda: bool = False
    """A worker for each GPU of this machine."""
    resources: dict[str, Positive] | None = None
    """What the task of a shard takes of its worker; by default one GPU where ``cuda``, else nothing."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "ClusterSpec":
        kinds = [key for key in ("processes", "address", "cuda") if getattr(self, key)]
        if self.name == INLINE and self.model_fields_set - {"name", "source"}:
            raise refuse("is this process itself and has no keys; give the cluster another name")
        if self.name != INLINE and len(kinds) != 1:
            raise refuse(f"needs one of processes, address and cuda{', not ' + ' and '.join(kinds) if kinds else ''}")
        return self

    def scheduler(self) -> str | None:
        """The address with the environment's values, looked at only where the cluster is used.

        Raises:
            UsageError: a variable is not set, or it is no address.
        """
        if self.address is None:
            return None
        try:
            address = expand_variables(self.address)
        except PydanticCustomError as error:
            raise UsageError(f"{self.place('address')}: {error}") from None
        if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://[^\s/@]+:[0-9]+", address):
            raise UsageError(
                f"{self.place('address')}: should be that of a Dask scheduler, such as tcp://10.0.0.1:8786, "
                f"not {address!r}"
            )
        return address
