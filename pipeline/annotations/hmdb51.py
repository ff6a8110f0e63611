"""HMDB51's splits: a file a class, ``<class>_test_split<N>.txt``, of lines ``video.avi 0|1|2``."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dynaprop.pipeline.annotations.classes import ClassList
from dynaprop.pipeline.annotations.list_files import beside, list_lines, plain_id, reading
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.passed_over import is_video_name
from dynaprop.pipeline.annotations.types import Annotations, SplitName
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError

_PARTS: dict[str, SplitName] = {"1": "train", "2": "test"}  # 0: not used in this split


def read_hmdb51(*, root: Path, splits: Path, split: int) -> Annotations:
    """Read one of HMDB51's three splits; files are found whatever their extension.

    Ids are ``<class>/<video>``, and the classes those of the split's files, sorted.

    Args:
        root: folder of the videos, in a folder each class; these may lie in another folder in it.
        splits: folder of the split files, relative to ``root``.
        split: which split, 1 to 3.

    Raises:
        UsageError: a line that cannot be used, with file and line, or what ``find_videos`` raises.
    """
    folder = beside(root, splits)
    files = _split_files(folder, split)
    classes = ClassList(sorted({comparable(name) for name in files}), file=folder)
    rows = (row for name, file in files.items() for row in _rows(file, name, classes))
    return find_videos(rows, root=root, class_names=classes.names)


def _split_files(folder: Path, split: int) -> Mapping[str, Path]:
    """Return the files of a split by class."""
    with reading(folder):
        names = sorted(path.name for path in folder.iterdir())
    matches = (re.fullmatch(rf"([^.].*)_test_split{split}\.txt", name) for name in names)
    files = {match[1]: folder / match[0] for match in matches if match}
    if not files:
        raise UsageError(f"{folder}: has no files <class>_test_split{split}.txt; correct 'splits' or 'split'")
    return files


def _rows(file: Path, name: str, classes: ClassList) -> Iterator[Row]:
    label = classes.named(str(file), name)
    for where, line in list_lines(file):
        video, part = [*line.rsplit(None, 1), ""][:2]
        if part not in ("0", *_PARTS) or not is_video_name(video):
            raise UsageError(f"{where}: should be `video.avi 0`, 1 (train) or 2 (test): {line!r}")
        path = f"{name}/{plain_id(where, video)}"
        # A video of neither part stays in the store, since another split uses it; without a label nothing trains on it.
        yield Row(where, path, (path.rpartition(".")[0],), (label,) if part in _PARTS else (), _PARTS.get(part))
