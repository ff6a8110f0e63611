"""The keys of each label format and of a file of groups; the readers are in annotations/."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from dynaprop.pipeline.catalog.fields import AnyPath, Count, Positive, StrictModel, refuse

_WHY = {
    "classes": "its lists name classes by number, and copies of one dataset differ in their order",
    "fps": "a folder of frames does not say how many a second they are",
}


def _frame_name(template: str) -> str:
    if not re.fullmatch(r"[^{}/\\]*\{:(?:0[1-9])?d\}[^{}/\\]*\.(?:jpe?g|png)", template, re.IGNORECASE):
        raise refuse(f"should be the name of a frame such as img_{{:05d}}.jpg, not {template!r}")
    return template


FrameName = Annotated[str, AfterValidator(_frame_name)]
FrameNumber = Annotated[int, Field(ge=0)]


def _explain_missing(entry: Any, *keys: str) -> Any:
    for key in keys:
        if isinstance(entry, Mapping) and entry.get(key) is None:
            raise refuse(f"needs the key {key!r}: {_WHY[key]}")
    return entry


def _require_list(*lists: Path | None, keys: str = "'train', 'val' and 'test'") -> None:
    if not any(lists):
        raise refuse(f"needs a list: one of the keys {keys}")


class FolderFormat(StrictModel):
    """A folder per class, with or without train/, val/ and test/ folders above; see annotations/folder.py."""

    format: Literal["folder"] = "folder"


class PathListFormat(StrictModel):
    """``path label`` lists and a class list; paths relative to the dataset's root. See annotations/path_list.py."""

    format: Literal["list"] = "list"
    classes: AnyPath
    train: AnyPath | None = None
    val: AnyPath | None = None
    test: AnyPath | None = None

    @model_validator(mode="after")
    def _has_a_list(self) -> "PathListFormat":
        _require_list(self.train, self.val, self.test)
        return self


class ActivityNetFormat(StrictModel):
    """ActivityNet's json, whose labels are names; see annotations/activitynet.py."""

    format: Literal["activitynet"] = "activitynet"
    file: AnyPath
    classes: AnyPath | None = None
    """The sorted labels of the json where None."""


class KineticsFormat(StrictModel):
    """Kinetics' csv files, whose labels are names; see annotations/kinetics.py."""

    format: Literal["kinetics"] = "kinetics"
    classes: AnyPath | None = None
    """The sorted labels of the csv files where None."""
    train: AnyPath | None = None
    val: AnyPath | None = None
    test: AnyPath | None = None

    @model_validator(mode="after")
    def _has_a_list(self) -> "KineticsFormat":
        _require_list(self.train, self.val, self.test)
        return self


class ArnetFormat(StrictModel):
    """AR-Net's lists: ``folder,num_frames,label[,label2,label3]`` of ActivityNet, ``folder num_frames label`` of
    Mini-Kinetics, which come without a class list; see annotations/frame_list.py."""

    format: Literal["arnet-activitynet", "arnet-mini-kinetics"]
    classes: AnyPath
    fps: Positive
    frames: FrameName | None = None
    """AR-Net's own name of a frame where None."""
    first: FrameNumber = 1
    train: AnyPath | None = None
    val: AnyPath | None = None
    test: AnyPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_why(cls, entry: Any) -> Any:
        return _explain_missing(entry, "classes", "fps")

    @model_validator(mode="after")
    def _has_a_list(self) -> "ArnetFormat":
        _require_list(self.train, self.val, self.test)
        return self


class Mmaction2Format(StrictModel):
    """mmaction2's lists of videos, or of folders of frames if ``frames`` is given; see annotations/mmaction2.py.

    ``offset`` says whether a line of frames is ``folder offset total_frames label`` (mmaction2's ``with_offset``).
    """

    format: Literal["mmaction2"] = "mmaction2"
    classes: AnyPath
    delimiter: Annotated[str, Field(min_length=1)] | None = None
    """White space where None."""
    frames: FrameName | None = None
    first: FrameNumber = 1
    fps: Positive | None = None
    offset: bool | None = None
    train: AnyPath | None = None
    val: AnyPath | None = None
    test: AnyPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_why(cls, entry: Any) -> Any:
        frames = isinstance(entry, Mapping) and entry.get("frames") is not None
        return _explain_missing(entry, "classes", *(["fps"] if frames else []))

    @model_validator(mode="after")
    def _fits(self) -> "Mmaction2Format":
        _require_list(self.train, self.val, self.test)
        if self.frames is None and self.model_fields_set & {"fps", "first", "offset"}:
            raise refuse(
                "'fps', 'first' and 'offset' are about folders of frames: give 'frames', the name of a frame, too"
            )
        return self


class Ucf101Format(StrictModel):
    """UCF101's lists and ``classInd.txt``, numbered from 1; see annotations/ucf101.py."""

    format: Literal["ucf101"] = "ucf101"
    classes: AnyPath
    train: AnyPath | None = None
    test: AnyPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_why(cls, entry: Any) -> Any:
        return _explain_missing(entry, "classes")

    @model_validator(mode="after")
    def _has_a_list(self) -> "Ucf101Format":
        _require_list(self.train, self.test, keys="'train' and 'test'")
        return self


class Hmdb51Format(StrictModel):
    """HMDB51's folder of split files, one a class; see annotations/hmdb51.py."""

    format: Literal["hmdb51"] = "hmdb51"
    splits: AnyPath
    split: Count = 1


AnnotationFormat = Annotated[
    FolderFormat
    | PathListFormat
    | ActivityNetFormat
    | KineticsFormat
    | ArnetFormat
    | Mmaction2Format
    | Ucf101Format
    | Hmdb51Format,
    Field(discriminator="format"),
]


ColumnName = Annotated[str, Field(min_length=1)]


class GroupFile(StrictModel):
    """A csv file that names the group of each video; see annotations/groups.py."""

    file: AnyPath
    video: ColumnName = "video"
    """Name of the column of videos."""
    group: ColumnName = "group"

    @model_validator(mode="after")
    def _two_columns(self) -> "GroupFile":
        if self.video == self.group:
            raise refuse(f"'video' and 'group' name one column, {self.video!r}")
        return self
