"""Videos, labels and splits of a dataset, whatever format they come in.

A new label format is three things of one name: its keys as a class in ``pipeline.formats``, a function in a module here
that takes the dataset's ``root`` and those keys as keyword arguments, and a line in ``READERS``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from pipeline.annotations.activitynet import read_activitynet
from pipeline.annotations.folder import read_folder
from pipeline.annotations.frame_list import read_arnet_activitynet, read_arnet_mini_kinetics
from pipeline.annotations.hmdb51 import read_hmdb51
from pipeline.annotations.kinetics import read_kinetics
from pipeline.annotations.mmaction2 import read_mmaction2
from pipeline.annotations.path_list import read_path_lists
from pipeline.annotations.types import Annotations, SplitName, Video, require_labels, require_videos
from pipeline.annotations.ucf101 import read_ucf101
from pipeline.errors import UsageError
from pipeline.specs import DatasetSpec

__all__ = ["READERS", "Annotations", "SplitName", "Video", "read_annotations", "require_labels", "require_videos"]

READERS: dict[str, Callable[..., Annotations]] = {
    "folder": read_folder,
    "list": read_path_lists,
    "activitynet": read_activitynet,
    "kinetics": read_kinetics,
    "arnet-activitynet": read_arnet_activitynet,
    "arnet-mini-kinetics": read_arnet_mini_kinetics,
    "mmaction2": read_mmaction2,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
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
