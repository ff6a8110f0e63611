"""From the rows of lists to videos: each id once, each with its file, its folder of frames, or neither."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dynaprop.pipeline.annotations.labels import check_labels
from dynaprop.pipeline.annotations.passed_over import describe_passed
from dynaprop.pipeline.annotations.types import Annotations, SplitName, Video
from dynaprop.pipeline.annotations.video_index import VideoIndex
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.video.frame_folder import FrameFolder


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
    part_of: str | None = None
    """The listed folder of which it is one part of several: never a file, and of one group with the other parts."""

    @property
    def listed(self) -> str:
        """Its listed path, with a file's extension."""
        return self.part_of or self.id


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
        UsageError: an id is listed twice, a video has two files or two folders, two videos share one, or what
            ``check_labels`` raises.
    """
    by_id: dict[str, Row] = {}
    for row in rows:
        if (other := by_id.setdefault(row.id, row)) is not row:
            raise UsageError(f"{row.where}: {row.id!r} is already listed at {other.where}; delete one of the two")
    notes = check_labels(((row.where, row.id, row.labels, row.split) for row in by_id.values()), class_names)
    listed = {row.listed for row in by_id.values()}
    index = VideoIndex(root, {name for row in by_id.values() for name in row.names}, template=template)
    taken: dict[str, Row] = {}
    videos: list[Video] = []
    absent: list[Video] = []
    for row in by_id.values():
        path, is_folder = _find(row, index, listed, root)
        if path is None:
            absent.append(Video(row.id, root / row.listed, row.labels, row.split, row.part_of, row.frames))
            continue
        other = taken.setdefault(path, row)
        if other is not row and (row.part_of is None or row.part_of != other.part_of):
            raise UsageError(
                f"{row.where}: {root / path} would be both {row.id!r} and {other.id!r} ({other.where}); "
                "put the videos into the folders that the list names"
            )
        frames = row.frames if is_folder else None
        videos.append(Video(row.id, root / path, row.labels, row.split, row.part_of, frames))
    return Annotations(
        videos=tuple(sorted(videos, key=lambda video: video.id)),
        class_names=tuple(class_names),
        absent=tuple(sorted(absent, key=lambda video: video.id)),
        notes=tuple(filter(None, (describe_passed(index.passed), *notes))),
    )


def _find(row: Row, index: VideoIndex, listed: Collection[str], root: Path) -> tuple[str | None, bool]:
    """Return the path of a video relative to the root, and whether it is a folder."""
    if index.is_folder(row.listed):
        return row.listed, True
    for is_folder, find in ((True, index.folders), (False, index.files)):
        if row.part_of is not None and not is_folder:
            break
        paths = [path for name in row.names for path in find(name)]
        if row.listed in paths:
            return row.listed, is_folder
        paths = [path for path in paths if path not in listed]  # x.avi is not x.mp4 where both are listed
        if len(paths) > 1:
            what = "folders" if is_folder else "files"
            raise UsageError(
                f"{row.where}: {row.listed!r} has two {what} below {root}, {paths[0]!r} and {paths[1]!r}; keep one of "
                "them"
            )
        if paths:
            return paths[0], is_folder
    return None, False
