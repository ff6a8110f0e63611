"""Videos, labels and splits of a dataset, whatever format they come in.

A new label format is three things of one name: its keys as a class in ``pipeline.specs``, a module here with a function
that takes the dataset's ``root`` and those keys as keyword arguments, and a line in ``READERS``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from pipeline.annotations.folder import read_folder
from pipeline.annotations.path_list import read_path_lists
from pipeline.annotations.types import Annotations, SplitName, Video, require_labels
from pipeline.errors import UsageError
from pipeline.specs import DatasetSpec

__all__ = ["READERS", "Annotations", "SplitName", "Video", "read_annotations", "require_labels"]

READERS: dict[str, Callable[..., Annotations]] = {
    "folder": read_folder,
    "list": read_path_lists,
}


def read_annotations(spec: DatasetSpec) -> Annotations:
    """Read a dataset's videos and labels from disk.

    Raises:
        UsageError: the root does not exist, its labels cannot be used, or the group's pattern does not fit a video.
    """
    form = spec.annotations
    keys = {key: getattr(form, key) for key in type(form).model_fields if key != "format"}
    annotations = READERS[form.format](root=spec.require_root(), **keys)
    if spec.group is None:
        return annotations
    return replace(
        annotations,
        videos=tuple(_grouped(annotations.videos, spec.group, spec.place("group"))),
        absent=tuple(_grouped(annotations.absent, spec.group, spec.place("group"))),
    )


def _grouped(videos: Iterable[Video], pattern: str, place: str) -> Iterable[Video]:
    compiled = re.compile(pattern)
    capture = "group" if "group" in compiled.groupindex else 1
    for video in videos:
        match = compiled.search(video.id)
        if match is None or not match[capture]:
            # Going on without a group could put one person on both sides of a split.
            raise UsageError(f"{place}: {pattern!r} finds no group in the video id {video.id!r}; correct the pattern")
        yield replace(video, group=match[capture])
