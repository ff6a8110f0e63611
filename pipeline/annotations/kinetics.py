"""Kinetics' csv files: a trimmed clip of a YouTube video a row."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from dynaprop.pipeline.annotations.classes import ClassList, read_classes
from dynaprop.pipeline.annotations.list_files import beside, part_files, plain_id, reading
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.types import Annotations, SplitName
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError

_SECONDS = re.compile(r"([0-9]{1,6})(?:\.0*)?")


def read_kinetics(
    *,
    root: Path,
    classes: Path | None = None,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
) -> Annotations:
    """Read csv files with the header ``label,youtube_id,time_start,time_end,split[,is_cc]``.

    Ids are ``<youtube_id>_<start>_<end>``, the seconds in six digits, and files are called so, with any extension,
    anywhere below the root. The part is that of the key: the column ``split`` is passed over. Only the test csv may
    lack labels.

    Args:
        root: folder of the videos.
        classes: class list, one name a line; without it the classes are the sorted labels of all csv files.
        train: csv of the training part, relative to ``root``; likewise ``val`` and ``test``.

    Raises:
        UsageError: a line that cannot be used, with file and line, or what ``find_videos`` raises.
    """
    parts = part_files(root, train=train, val=val, test=test)
    clips = [clip for split, file in parts for clip in _clips(file, split)]
    if classes is not None:
        class_list = read_classes(beside(root, classes))
    else:
        class_list = ClassList(sorted({comparable(label) for *_, label in clips if label}), file=parts[0][1])
    rows = [
        Row(where, clip_id, (clip_id,), (class_list.named(where, label),) if label else (), split)
        for where, split, clip_id, label in clips
    ]
    return find_videos(rows, root=root, class_names=class_list.names)


def _clips(file: Path, split: SplitName) -> Iterator[tuple[str, SplitName, str, str]]:
    """Yield file and line, part, id and label of each row."""
    required = ["youtube_id", "time_start", "time_end"] + ([] if split == "test" else ["label"])
    with reading(file), file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        header: list[str] | None = None
        empty = True
        try:
            for fields in reader:
                where = f"{file}:{reader.line_num}"
                values = [field.strip() for field in fields]
                if not any(values):
                    continue
                if header is None:
                    header = values
                    if missing := [name for name in required if name not in header]:
                        raise UsageError(
                            f"{where}: the header lacks {', '.join(missing)}; it should be "
                            "label,youtube_id,time_start,time_end,split"
                        )
                    if twice := [name for name in ("label", *required) if header.count(name) > 1]:
                        raise UsageError(f"{where}: the header has {twice[0]} twice; delete one of the columns")
                    continue
                if len(values) != len(header):
                    raise UsageError(
                        f"{where}: {len(values)} fields under a header of {len(header)}; quote labels with commas"
                    )
                empty = False
                row = dict(zip(header, values, strict=True))
                label = row.get("label", "")
                if not label and split != "test":
                    raise UsageError(f"{where}: the label is empty; only the test csv may lack labels")
                yield where, split, _clip_id(where, row), label
        except csv.Error as error:
            raise UsageError(f"{file}:{reader.line_num}: is not csv ({error})") from None
    if empty:
        raise UsageError(f"{file}: no videos are listed; fill the csv or drop its key")


def _clip_id(where: str, row: dict[str, str]) -> str:
    seconds = []
    for name in ("time_start", "time_end"):
        match = _SECONDS.fullmatch(row[name])
        if match is None:
            raise UsageError(f"{where}: {name} should be a whole number of seconds, not {row[name]!r}")
        seconds.append(int(match[1]))
    return f"{plain_id(where, row['youtube_id'])}_{seconds[0]:06d}_{seconds[1]:06d}"
