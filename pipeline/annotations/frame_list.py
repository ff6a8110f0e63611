"""Lists of folders of frames, ``folder num_frames label``: AR-Net's two forms and what they share with mmaction2's."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from pipeline.annotations.classes import ClassList, read_classes
from pipeline.annotations.listing import Row, find_videos
from pipeline.annotations.text import beside, list_lines, listed_path, part_files
from pipeline.annotations.types import Annotations, SplitName
from pipeline.errors import UsageError
from pipeline.frame_folder import FrameFolder

_NUMBER = re.compile(r"[0-9]{1,9}")


def read_arnet(
    *,
    split_line: Callable[[str], list[str]],
    template: str,
    root: Path,
    classes: Path,
    fps: float,
    frames: str | None = None,
    first: int = 1,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
) -> Annotations:
    """Read AR-Net's lists; see ``read_frame_lists``. The first two arguments are what its two data sets differ in.

    Args:
        split_line: cuts a line into fields.
        template: AR-Net's name of a frame, unless ``frames`` gives another.
        root, classes, fps, frames, first: the keys of the catalog.
        train, val, test: lists, relative to ``root``.
    """
    parts = part_files(root, train=train, val=val, test=test)
    return read_frame_lists(
        parts, split_line, root=root, classes=classes, template=frames or template, first=first, fps=fps
    )


def read_frame_lists(
    parts: Sequence[tuple[SplitName, Path]],
    split_line: Callable[[str], list[str]],
    *,
    root: Path,
    classes: Path,
    template: str,
    first: int,
    fps: float,
) -> Annotations:
    """Read lists of folders of frames. Where there is a video file instead of a folder, it is the video.

    Args:
        parts: the lists.
        split_line: cuts a line into folder, number of frames and labels; fewer than two fields are refused.
        root: folder that the listed folders are below.
        classes: class list, one name a line, relative to ``root``.
        template: name of a frame, such as ``image_{:05d}.jpg``.
        first: number of the first frame.
        fps: frames a second.

    Raises:
        UsageError: a line that cannot be used, with file and line, or what ``find_videos`` raises.
    """
    class_list = read_classes(beside(root, classes))
    rows = _rows(parts, split_line, class_list, root=root, template=template, first=first, fps=fps)
    return find_videos(rows, root=root, class_names=class_list.names, template=template)


def _rows(
    parts: Sequence[tuple[SplitName, Path]],
    split_line: Callable[[str], list[str]],
    classes: ClassList,
    *,
    root: Path,
    template: str,
    first: int,
    fps: float,
) -> Iterator[Row]:
    folder_of = cache(lambda n_frames: FrameFolder(template=template, first=first, fps=fps, n_frames=n_frames))
    for split, file in parts:
        for where, line in list_lines(file):
            fields = split_line(line)
            if len(fields) < 2:
                raise UsageError(f"{where}: should be folder, number of frames and labels: {line!r}")
            folder, number, *labels = fields
            if _NUMBER.fullmatch(number) is None:
                raise UsageError(f"{where}: the number of frames should be a whole number, not {number!r}: {line!r}")
            if int(number) == 0:
                raise UsageError(f"{where}: a video of 0 frames; correct the number or delete the line")
            folder = listed_path(where, folder, root)
            yield Row(where, folder, (folder,), classes.labels(where, labels), split, folder_of(int(number)))


def _commas(line: str) -> list[str]:
    return [field.strip() for field in line.split(",")]


def _from_the_end(line: str) -> list[str]:
    return line.rsplit(None, 2)


# ``folder,num_frames,label[,label2,label3]``
read_arnet_activitynet = partial(read_arnet, split_line=_commas, template="image_{:05d}.jpg")

# ``folder num_frames label``; folders are named after classes and contain spaces, so a line is read from its end
read_arnet_mini_kinetics = partial(read_arnet, split_line=_from_the_end, template="{:05d}.jpg")
