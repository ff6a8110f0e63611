"""From the rows of lists to videos: each id once, each with its file, its folder of frames, or neither."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.annotations.index import VideoIndex
from pipeline.annotations.types import Annotations, SplitName, Video
from pipeline.errors import UsageError
from pipeline.frame_folder import FrameFolder


class Row(NamedTuple):
    """What a dataset's lists say about one video."""

    where: str
    """File and line, for messages."""
    id: str
    names: tuple[str, ...]
    """Paths without extension, relative to the root, that the video may have."""
    labels: tuple[int, ...]
    split: SplitName | None
    frames: FrameFolder | None = None
    """How its frames are named where it may be a folder of them."""


def find_videos(
    rows: Iterable[Row], *, root: Path, class_names: Sequence[str], template: str | None = None
) -> Annotations:
    """Find the listed videos below a root; the others are ``absent``, with ``root / id`` as their path.

    Args:
        rows: what the lists say.
        root: folder of the videos.
        class_names: the classes in the order of their indices.
        template: name of a frame, where videos may be folders of frames.

    Raises:
        UsageError: an id is listed twice, a video has two files or two folders, or two videos share one.
    """
    by_id: dict[str, Row] = {}
    for row in rows:
        if (other := by_id.setdefault(row.id, row)) is not row:
            raise UsageError(f"{row.where}: {row.id!r} is already listed at {other.where}; delete one of the two")
    index = VideoIndex(root, {name for row in by_id.values() for name in row.names}, template=template)
    taken: dict[str, Row] = {}
    videos: list[Video] = []
    absent: list[Video] = []
    for row in by_id.values():
        path, is_folder = _find(row, index, by_id, root)
        if path is None:
            absent.append(Video(row.id, root / row.id, row.labels, row.split, frames=row.frames))
            continue
        if (other := taken.setdefault(path, row)) is not row:
            raise UsageError(
                f"{row.where}: {root / path} would be both {row.id!r} and {other.id!r} ({other.where}); "
                "put the videos into the folders that the list names"
            )
        frames = row.frames if is_folder else None
        videos.append(Video(row.id, root / path, row.labels, row.split, frames=frames))
    return Annotations(
        videos=tuple(sorted(videos, key=lambda video: video.id)),
        class_names=tuple(class_names),
        absent=tuple(sorted(absent, key=lambda video: video.id)),
    )


def _find(row: Row, index: VideoIndex, ids: dict[str, Row], root: Path) -> tuple[str | None, bool]:
    """Return the path of a video relative to the root, and whether it is a folder."""
    if index.is_folder(row.id):
        return row.id, True
    for is_folder, find in ((True, index.folders), (False, index.files)):
        paths = [path for name in row.names for path in find(name)]
        if row.id in paths:
            return row.id, is_folder
        paths = [path for path in paths if path not in ids]  # x.avi is not x.mp4 where both are listed
        if len(paths) > 1:
            what = "folders" if is_folder else "files"
            raise UsageError(
                f"{row.where}: {row.id!r} has two {what} below {root}, {paths[0]!r} and {paths[1]!r}; keep one of them"
            )
        if paths:
            return paths[0], is_folder
    return None, False
