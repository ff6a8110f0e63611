"""Groups of videos (a person, a take, a film), which splits keep apart: from a video's id, or from a csv file."""

import csv
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dynaprop.pipeline.annotations.list_files import beside, reading
from dynaprop.pipeline.annotations.passed_over import is_video_name
from dynaprop.pipeline.annotations.types import Annotations, Video
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError, did_you_mean

_DELIMITERS = (",", ";", "\t", "|")
_FEW = 12  # so many columns still fit into a message


def grouped_by_pattern(annotations: Annotations, pattern: str, *, place: str) -> Annotations:
    """Give every video the group that a regular expression captures in its id.

    Args:
        annotations: the videos.
        pattern: its group named ``group``, else its first, is the video's group.
        place: of the pattern, for messages.

    Raises:
        UsageError: it does not fit a video.
    """
    compiled = re.compile(pattern)
    capture = "group" if "group" in compiled.groupindex else 1

    def group_of(video: Video) -> str:
        match = compiled.search(video.id)
        if match is None or not match[capture]:
            # Going on without a group could put one person on both sides of a split.
            raise UsageError(f"{place}: {pattern!r} finds no group in the video id {video.id!r}; correct the pattern")
        return comparable(match[capture])

    videos, absent = (
        tuple(replace(video, group=group_of(video)) for video in part)
        for part in (annotations.videos, annotations.absent)
    )
    return replace(annotations, videos=videos, absent=absent)


def grouped_by_file(annotations: Annotations, *, root: Path, file: Path, video: str, group: str) -> Annotations:
    """Give every video the group that a csv file names for it; how many there are becomes a note.

    A row names a video by its id, with another extension or with none. Accents may be written either way, folders with
    ``\\``, and the root may stand before the path.

    Args:
        annotations: the videos; those without a label, which no split takes, need no group.
        root: folder of the videos.
        file: the csv, relative to ``root``; its columns are separated by commas, semicolons, tabs or ``|``.
        video, group: names of its columns.

    Raises:
        UsageError: the file cannot be used, with file and line; or it has no group for some of the videos.
    """
    file = beside(root, file)
    videos = annotations.videos + annotations.absent
    ids = {comparable(one.id) for one in videos}
    rows: dict[str, _Row] = {}
    for row in _rows(file, video, group):
        name = _plain(row.video, root, ids)
        _require_one_group(name, rows.setdefault(name, row), row)
    of = _rows_of_videos(ids, rows)
    lacking = [one.id for one in videos if one.labels and comparable(one.id) not in of]
    if lacking:
        raise UsageError(
            f"{file}: has no group for {len(lacking):,} of {len(videos):,} videos, {lacking[0]!r} first (its first row "
            f"is about {next(iter(rows))!r}); add a row for each, by its path below {root}"
        )
    used = {row.where for found in of.values() for row in found}
    alone = _without_group((row for row in rows.values() if row.where in used), group)
    strangers = [row for row in rows.values() if row.where not in used]
    n_groups = len({found[0].group for found in of.values()})
    note = f"{file.name}: {n_groups:,} group{'s' if n_groups != 1 else ''} of {len(of):,} videos"
    if alone:
        note += f"; {alone.video!r} has an empty one ({alone.where}) and counts as a group of its own"
    if strangers:
        note += f"; {len(strangers):,} of its rows fit no video here, {strangers[0].video!r} first"

    def with_groups(part: Iterable[Video]) -> tuple[Video, ...]:
        found = ((one, of.get(comparable(one.id))) for one in part)
        return tuple(replace(one, group=rows[0].group if rows else None) for one, rows in found)

    return replace(
        annotations,
        videos=with_groups(annotations.videos),
        absent=with_groups(annotations.absent),
        notes=(*annotations.notes, note),
    )


class _Row(NamedTuple):
    where: str
    """File and line, for messages."""
    video: str
    """As it is written."""
    group: str


def _rows(file: Path, video: str, group: str) -> Iterator[_Row]:
    """Yield the rows of a csv file that has these columns, whatever separates them."""
    empty = True
    with reading(file), file.open(encoding="utf-8-sig", newline="") as lines:
        header = next((line for line in lines if line.strip()), "")
        columns, delimiter = _columns(file, header, video, group)
        lines.seek(0)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            next(fields for fields in reader if any(map(str.strip, fields)))
            for fields in reader:
                where = f"{file}:{reader.line_num}"
                values = [field.strip() for field in fields]
                if not any(values):
                    continue
                if len(values) != len(columns):
                    raise UsageError(
                        f"{where}: {len(values)} fields under a header of {len(columns)}; quote names that hold "
                        f"{delimiter!r}"
                    )
                row = _Row(where, values[columns.index(video)], comparable(values[columns.index(group)]))
                if not row.video:
                    raise UsageError(f"{where}: the column {video!r} is empty; fill it or delete the row")
                empty = False
                yield row
        except csv.Error as error:
            raise UsageError(f"{file}:{reader.line_num}: is not csv ({error})") from None
    if empty:
        raise UsageError(f"{file}: lists no video; write a row for each")


def _columns(file: Path, header: str, video: str, group: str) -> tuple[list[str], str]:
    """Return the names in a header, and what separates them."""
    wanted = [comparable(video), comparable(group)]
    found: list[str] = []
    for delimiter in _DELIMITERS:
        try:
            (fields,) = csv.reader([header], delimiter=delimiter, strict=True)
        except (csv.Error, ValueError):
            continue
        columns = [comparable(field.strip()) for field in fields]
        if all(columns.count(name) == 1 for name in wanted):
            return columns, delimiter
        found = max(found, columns, key=len)
    name = next((name for name in wanted if name not in found), None)
    if name is None:
        raise UsageError(f"{file}: two columns of one name in the header {header.strip()!r}; rename one")
    raise UsageError(
        f"{file}: no column {name!r} in the header{did_you_mean(name, found[:_FEW])}; rename the column, or name it in "
        "the catalog: groups: {file:, video:, group:}"
    )


def _plain(text: str, root: Path, ids: Collection[str]) -> str:
    """Return how ids are written, of a path that may be absolute or have ``\\``."""
    name = comparable(text)
    if name in ids:
        return name
    name = name.replace("\\", "/")
    for folder in (str(root.absolute()), os.path.realpath(root)):
        name = name.removeprefix(f"{comparable(folder)}/")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _rows_of_videos(ids: Collection[str], rows: Mapping[str, _Row]) -> dict[str, list[_Row]]:
    """Return the rows that are about each video, all of one group; without the videos that have none."""
    other: dict[str, list[_Row]] = {}  # with an extension that no video here has, by what they have before it
    for name, row in rows.items():
        if name not in ids and _stem(name) != name:
            other.setdefault(_stem(name), []).append(row)
    found: dict[str, list[_Row]] = {}
    for video_id in ids:
        named = [rows[name] for name in dict.fromkeys((video_id, _stem(video_id))) if name in rows]
        if of_video := named or other.get(_stem(video_id), []):
            for row in of_video[1:]:
                _require_one_group(video_id, of_video[0], row)
            found[video_id] = of_video
    return found


def _without_group(rows: Iterable[_Row], column: str) -> _Row | None:
    """Return the row whose group is empty, if there is one.

    A single video is in a group with no other, whatever that is called; of several nobody knows who belongs together.
    """
    empty = [row for row in rows if not row.group]
    if len(empty) > 1:
        raise UsageError(
            f"{empty[0].where}: the column {column!r} is empty here and in {len(empty) - 1:,} more rows, so nobody "
            "knows which of these videos belong together; fill it"
        )
    return empty[0] if empty else None


def _require_one_group(video: str, first: _Row, second: _Row) -> None:
    if first.group != second.group:
        raise UsageError(
            f"{second.where}: puts {video!r} into the group {second.group!r}, and {first.where} into {first.group!r}; "
            "delete one of the rows"
        )


def _stem(name: str) -> str:
    """Return a video's id without its extension."""
    return name.rpartition(".")[0] if is_video_name(name) else name
