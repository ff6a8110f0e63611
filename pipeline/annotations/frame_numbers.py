"""What pictures on disk say about the numbers in a list of frames: where they begin, and whether one is an offset."""

import re
from collections.abc import Sequence
from pathlib import Path

from dynaprop.pipeline.annotations.listing import Row
from dynaprop.pipeline.annotations.types import Annotations
from dynaprop.pipeline.annotations.video_files import is_file
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.paths import is_folder

_NUMBER = re.compile(r"[0-9]{1,9}")
_LOOKED_AT = 8  # folders: what is wrong is wrong with all


def require_no_longer_folders(annotations: Annotations, rows: Sequence[Row]) -> None:
    """Refuse several labels where folders hold more pictures than are announced: the first one may be the number."""
    several = [video for video in annotations.videos if video.frames and len(video.labels) > 1][:_LOOKED_AT]
    behind = [
        video.path / video.frames.name(video.frames.first + (video.frames.n_frames or 0))
        for video in several
        if video.frames
    ]
    if behind and all(map(is_file, behind)):
        where = next(row.where for row in rows if row.id == several[0].id)
        raise UsageError(
            f"{where}: {several[0].path} holds more pictures than this line says: is the second field an offset "
            "(`folder offset total_frames label`)? say `offset: true` in the dataset's entry, or `offset: false` if "
            "these are several labels"
        )


def require_folder(where: str, folder: str, root: Path) -> None:
    """Refuse a folder whose name ends in a number that belongs to the next field."""
    name, _, number = folder.rpartition(" ")
    name = name.rstrip()
    if name and _NUMBER.fullmatch(number) and is_folder(root / name) and not is_folder(root / folder):
        raise UsageError(
            f"{where}: there is no folder {folder!r}, but one {name!r}: is {number} an offset? then the list is one of "
            "mmaction2's: format mmaction2 with `offset: true`"
        )


def look_at_numbers(annotations: Annotations, rows: Sequence[Row], first: int) -> tuple[str, ...]:
    """Look at some folders for pictures that are numbered from 0 where ``first`` is 1, or the other way round.

    Raises:
        UsageError: it is so in all of them: each picture would be taken for its neighbour.
    """
    some = [(video, video.frames) for video in annotations.videos if video.frames is not None][:_LOOKED_AT]
    if first > 1 or not some:
        return ()
    outer, inner, wrong = [], [], []
    for video, frames in some:
        start = video.path / frames.name(0)
        last = frames.first + (frames.n_frames or 1) - 1
        outer.append(is_file(start))
        inner.append(is_file(video.path / frames.name(last)))
        wrong.append(is_file(video.path / frames.name(1)) and is_file(video.path / frames.name(last + 1)))
    video, frames = some[0]
    where = next(row.where for row in rows if row.id == video.id)
    if first == 1 and all(outer) and not any(inner):
        raise UsageError(
            f"{where}: {video.path} has {frames.name(0)}, and lacks the last picture that counts: if pictures are "
            "numbered from 0, say `first: 0` in the dataset's entry"
        )
    if first == 0 and not any(outer) and all(wrong):
        raise UsageError(
            f"{where}: {video.path} lacks {frames.name(0)}, and has one behind the last picture that counts: if "
            "pictures are numbered from 1, say `first: 1` in the dataset's entry"
        )
    if first == 1 and all(outer):
        return (
            f"{str(video.path)!r} has {frames.name(0)}, too, which does not count by `first: 1`; if pictures are "
            "numbered from 0, say `first: 0`",
        )
    return ()
