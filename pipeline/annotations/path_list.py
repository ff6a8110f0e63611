"""``path label`` lists, one video a line, with a class list: the form of many public splits and of people's own."""

import os
import re
from pathlib import Path

from dynaprop.pipeline.annotations.classes import ClassList, read_classes
from dynaprop.pipeline.annotations.labels import Listed, check_labels
from dynaprop.pipeline.annotations.list_files import (
    all_lines,
    beside,
    filled,
    listed_path,
    outside,
    part_files,
    path_and_rest,
)
from dynaprop.pipeline.annotations.types import Annotations, Video
from dynaprop.pipeline.annotations.video_files import is_file, leaves
from dynaprop.pipeline.errors import UsageError


def read_path_lists(
    *, root: Path, classes: Path, train: Path | None = None, val: Path | None = None, test: Path | None = None
) -> Annotations:
    """Read a dataset of ``path label`` lists.

    A label is an index into the class list (from 0) or the name of a class; several are separated by spaces or commas,
    and a line without one is an unlabelled video, which is for a part without labels. Listed videos that do not exist
    are kept as ``absent``.

    Args:
        root: folder that the listed paths are relative to, and never leave.
        classes: the class list, one name a line. This path and those of the lists are relative to ``root`` too, but may
            lie outside of it (``../train.txt``).
        train: list of the training part; likewise ``val`` and ``test``.

    Raises:
        UsageError: a line that cannot be used, with file and line; a file that cannot be read; lists without a video.
    """
    class_list = read_classes(beside(root, classes))
    seen: dict[str, str] = {}  # id -> file and line
    videos: list[Video] = []
    absent: list[Video] = []
    listed: list[Listed] = []
    real_root = os.path.realpath(root)
    lists = part_files(root, train=train, val=val, test=test)
    for split, file in lists:
        for where, line in all_lines(file):
            if not line:
                continue
            path, label_text = path_and_rest(where, line)
            video_id = listed_path(where, path, root)
            if leaves(real_root, root / video_id):
                raise outside(where, path, root)
            if video_id in seen:
                raise UsageError(f"{where}: {video_id} is already listed at {seen[video_id]}; delete one of the lines")
            seen[video_id] = where
            labels = _labels(where, label_text, class_list)
            listed.append((where, video_id, labels, split))
            video = Video(id=video_id, path=root / video_id, labels=labels, split=split)
            (videos if is_file(video.path) else absent).append(video)
    notes = check_labels(listed, class_list.names)
    if not videos:
        what = f"none of the {len(absent)} listed videos exists" if absent else "no videos are listed"
        raise UsageError(f"{', '.join(str(file) for _, file in lists)}: {what}; paths are relative to {root}")
    return Annotations(
        videos=tuple(sorted(videos, key=lambda video: video.id)),
        class_names=class_list.names,
        absent=tuple(sorted(absent, key=lambda video: video.id)),
        notes=notes,
    )


def _labels(where: str, text: str, classes: ClassList) -> tuple[int, ...]:
    # A class name may contain spaces and commas: try the whole text first.
    fields = [text] if text in classes else re.split(r"\s*,\s*|\s+", text) if text else []
    return classes.labels(where, filled(where, fields, text))
