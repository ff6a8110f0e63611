"""mmaction2's lists: ``path label [label ..]``, or ``folder [offset] total_frames label [label ..]`` for frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dynaprop.pipeline.annotations.classes import ClassList, read_classes
from dynaprop.pipeline.annotations.frame_list import read_frame_lists
from dynaprop.pipeline.annotations.list_files import beside, filled, list_lines, listed_path, part_files
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.passed_over import is_video_name
from dynaprop.pipeline.annotations.types import Annotations, SplitName
from dynaprop.pipeline.errors import UsageError


def read_mmaction2(
    *,
    root: Path,
    classes: Path,
    delimiter: str | None = None,
    frames: str | None = None,
    first: int = 1,
    fps: float | None = None,
    offset: bool | None = None,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
) -> Annotations:
    """Read the lists of mmaction2's ``VideoDataset``, or of its ``RawframeDataset`` if ``frames`` is given.

    Files are found whatever their extension, and below further folders too.

    Args:
        root: folder that the listed paths are relative to.
        classes: class list, one name a line. This path and those of the lists are relative to ``root``.
        delimiter: what separates the fields; None means any white space.
        frames: name of a frame, such as ``img_{:05d}.jpg``.
        first: number of the first frame.
        fps: frames a second; needed with ``frames``.
        offset: whether lines of frames have an offset behind the folder; None where they must not look like it.
        train: list of the training part; likewise ``val`` and ``test``.

    Raises:
        UsageError: a line that cannot be used, with file and line, or what ``find_videos`` raises.
    """
    parts = part_files(root, train=train, val=val, test=test)
    if frames is not None:
        if fps is None:
            raise UsageError("mmaction2 lists of frames need 'fps': a folder does not say its rate")
        return read_frame_lists(
            parts,
            lambda line: _fields(line, delimiter),
            root=root,
            classes=classes,
            template=frames,
            first=first,
            fps=fps,
            offset=offset,
        )
    class_list = read_classes(beside(root, classes))
    return find_videos(_rows(parts, class_list, root, delimiter), root=root, class_names=class_list.names)


def _rows(
    parts: Sequence[tuple[SplitName, Path]], classes: ClassList, root: Path, delimiter: str | None
) -> Iterator[Row]:
    for split, file in parts:
        for where, line in list_lines(file):
            path, *labels = _fields(line, delimiter)
            if not is_video_name(path):
                raise UsageError(
                    f"{where}: {path!r} is no name of a video; give the key 'delimiter' where paths contain spaces, "
                    "the key 'frames' where they are folders of frames"
                )
            path = listed_path(where, path, root)
            yield Row(
                where, path, (path.rpartition(".")[0],), classes.labels(where, filled(where, labels, line)), split
            )


def _fields(line: str, delimiter: str | None) -> list[str]:
    return line.split() if delimiter is None else [field.strip() for field in line.split(delimiter)]
