"""Datasets of the catalog: where videos and labels are, and how videos are cut into clips."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.fields import AbsolutePath, Count, Seed, StrictModel, refuse
from dynaprop.pipeline.catalog.formats import AnnotationFormat, FolderFormat, GroupFile
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.file_names import require_utf8_locale
from dynaprop.pipeline.io.paths import is_folder


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
