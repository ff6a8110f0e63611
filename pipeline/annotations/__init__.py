"""Videos, labels and splits of a dataset, whatever format they come in.

A new label format is three things of one name: its keys as a class in ``pipeline.catalog.formats``, a function in a
module here that takes the dataset's ``root`` and those keys as keyword arguments, and a line in ``READERS``.
"""

from collections.abc import Callable

from dynaprop.pipeline.annotations.activitynet import read_activitynet
from dynaprop.pipeline.annotations.folder import read_folder
from dynaprop.pipeline.annotations.frame_list import read_arnet_activitynet, read_arnet_mini_kinetics
from dynaprop.pipeline.annotations.groups import grouped_by_file, grouped_by_pattern
from dynaprop.pipeline.annotations.hmdb51 import read_hmdb51
from dynaprop.pipeline.annotations.kinetics import read_kinetics
from dynaprop.pipeline.annotations.mmaction2 import read_mmaction2
from dynaprop.pipeline.annotations.path_list import read_path_lists
from dynaprop.pipeline.annotations.types import Annotations, SplitName, Video, require_labels, require_videos
from dynaprop.pipeline.annotations.ucf101 import read_ucf101
from dynaprop.pipeline.catalog.datasets import DatasetSpec

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
        UsageError: the root does not exist, its labels cannot be used, or a video is left without a group.
    """
    form, root = spec.annotations, spec.require_root()
    keys = {key: getattr(form, key) for key in type(form).model_fields if key != "format"}
    annotations = READERS[form.format](root=root, **keys)
    if spec.group is not None:
        return grouped_by_pattern(annotations, spec.group, place=spec.place("group"))
    if spec.groups is not None:
        groups = spec.groups
        return grouped_by_file(annotations, root=root, file=groups.file, video=groups.video, group=groups.group)
    return annotations
