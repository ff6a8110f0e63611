"""Lists of folders of frames, ``folder num_frames label``: AR-Net's two forms and what they share with mmaction2's.

A line may name a part of a folder by an offset, ``folder offset num_frames label``: its first picture is the one of
number ``first + offset``. Its video is called ``folder@offset``, and all parts of a folder are of one group.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from dynaprop.pipeline.annotations.classes import ClassList, read_classes
from dynaprop.pipeline.annotations.frame_numbers import look_at_numbers, require_folder, require_no_longer_folders
from dynaprop.pipeline.annotations.list_files import beside, filled, list_lines, listed_path, part_files
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.types import Annotations, SplitName
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.frame_folder import FrameFolder

_NUMBER = re.compile(r"[0-9]{1,9}")

_Fields = tuple[SplitName, str, str, list[str]]
"""Part, file and line, text and fields of a line."""


def read_arnet(
    *,
    split_line: Callable[[str], list[str]],
    template: str,
    most_labels: int,
    root: Path,
    classes: Path,
    fps: float,
    frames: str | None = None,
    first: int = 1,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
) -> Annotations:
    """Read AR-Net's lists; see ``read_frame_lists``. The first three arguments are what its two data sets differ in.

    Args:
        split_line: cuts a line into fields.
        template: AR-Net's name of a frame, unless ``frames`` gives another.
        most_labels: of a line.
        root, classes, fps, frames, first: the keys of the catalog.
        train, val, test: lists, relative to ``root``.
    """
    parts = part_files(root, train=train, val=val, test=test)
    return read_frame_lists(
        parts,
        split_line,
        root=root,
        classes=classes,
        template=frames or template,
        first=first,
        fps=fps,
        offset=False,
        most_labels=most_labels,
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
    offset: bool | None,
    most_labels: int | None = None,
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
        offset: whether a line has an offset behind the folder; None where that is to be refused if it looks so.
        most_labels: of a line; any number by default.

    Raises:
        UsageError: a line that cannot be used, with file and line, pictures that are numbered from another number than
            ``first``, or what ``find_videos`` raises.
    """
    class_list = read_classes(beside(root, classes))
    lines = [(split, where, line, split_line(line)) for split, file in parts for where, line in list_lines(file)]
    if offset is None:
        _require_no_offsets(lines)
    for _, where, line, fields in lines:
        if most_labels is not None and len(fields) > 2 + most_labels:
            raise UsageError(f"{where}: should have {most_labels} labels at most: {line!r}")
    rows = list(_rows(lines, class_list, root=root, template=template, first=first, fps=fps, with_offset=bool(offset)))
    annotations = find_videos(rows, root=root, class_names=class_list.names, template=template)
    if offset is None:
        require_no_longer_folders(annotations, rows)
    return replace(annotations, notes=annotations.notes + look_at_numbers(annotations, rows, first))


def _require_no_offsets(lines: Sequence[_Fields]) -> None:
    """Refuse lists that are read one way or the other, and wrongly by one of them."""
    if any(len(fields) < 4 or _NUMBER.fullmatch(fields[2]) is None or int(fields[2]) == 0 for *_, fields in lines):
        return  # a number of frames is never 0
    _, where, line, _ = lines[0]
    raise UsageError(
        f"{where}: is the second field an offset (`folder offset total_frames label`)? every line has so many fields: "
        f"say `offset: true` in the dataset's entry, or `offset: false` if these are several labels: {line!r}"
    )


def _rows(
    lines: Sequence[_Fields],
    classes: ClassList,
    *,
    root: Path,
    template: str,
    first: int,
    fps: float,
    with_offset: bool,
) -> Iterator[Row]:
    @cache
    def folder_of(n_frames: int, offset: int) -> FrameFolder:
        return FrameFolder(template=template, first=first + offset, fps=fps, n_frames=n_frames)

    what = "folder, offset, number of frames and labels" if with_offset else "folder, number of frames and labels"
    for split, where, line, fields in lines:
        if len(fields) < 2 + with_offset:
            raise UsageError(f"{where}: should be {what}: {line!r}")
        folder, *numbers = fields[: 2 + with_offset]
        labels = filled(where, fields[2 + with_offset :], line)
        for number, name in zip(reversed(numbers), ("number of frames", "offset"), strict=False):
            if _NUMBER.fullmatch(number) is None:
                raise UsageError(f"{where}: the {name} should be a whole number, not {number!r}: {line!r}")
        *offsets, n_frames = map(int, numbers)
        if n_frames == 0:
            raise UsageError(
                f"{where}: a video of 0 frames; correct the number or delete the line. If it is an offset, the list is "
                "one of mmaction2's and its entry needs `offset: true`"
            )
        folder = listed_path(where, folder, root)
        if not offsets:
            require_folder(where, folder, root)
        yield Row(
            where,
            f"{folder}@{offsets[0]}" if offsets else folder,
            (folder,),
            classes.labels(where, labels),
            split,
            folder_of(n_frames, *offsets or (0,)),
            folder if offsets else None,
        )


def _commas(line: str) -> list[str]:
    return [field.strip() for field in line.split(",")]


def _from_the_end(line: str) -> list[str]:
    return line.rsplit(None, 2)


# ``folder,num_frames,label[,label2,label3]``
read_arnet_activitynet = partial(read_arnet, split_line=_commas, template="image_{:05d}.jpg", most_labels=3)

# ``folder num_frames label``; folders are named after classes and contain spaces, so a line is read from its end
read_arnet_mini_kinetics = partial(read_arnet, split_line=_from_the_end, template="{:05d}.jpg", most_labels=1)
