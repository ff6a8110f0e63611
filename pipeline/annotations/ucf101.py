"""UCF101's lists: ``Class/v_Class_g08_c01.avi 1``, numbered from 1; the test lists are without numbers."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dynaprop.pipeline.annotations.classes import ClassList, read_numbered_classes
from dynaprop.pipeline.annotations.list_files import beside, list_lines, listed_path, part_files, path_and_rest
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.types import Annotations
from dynaprop.pipeline.errors import UsageError


def read_ucf101(*, root: Path, classes: Path, train: Path | None = None, test: Path | None = None) -> Annotations:
    """Read one of UCF101's three splits; files are found whatever their extension.

    Args:
        root: folder of the videos; they may lie in another folder in it.
        classes: ``classInd.txt``, lines of number and name. This path and those of the lists are relative to ``root``.
        train: ``trainlist01.txt``.
        test: ``testlist01.txt``; the class is the folder in the path.

    Raises:
        UsageError: a line that cannot be used, with file and line, or what ``find_videos`` raises.
    """
    class_list = read_numbered_classes(beside(root, classes))
    return find_videos(_rows(root, class_list, train, test), root=root, class_names=class_list.names)


def _rows(root: Path, classes: ClassList, train: Path | None, test: Path | None) -> Iterator[Row]:
    for split, file in part_files(root, train=train, test=test):
        for where, line in list_lines(file):
            text, number = path_and_rest(where, line)
            path = listed_path(where, text, root)
            folder = PurePosixPath(path).parent.name
            if not number and folder not in classes:
                raise UsageError(f"{where}: has no number, and its folder {folder!r} is no class in {classes.file}")
            label = classes.label(where, number or folder)
            if folder in classes and classes.named(where, folder) != label:
                # The likely mistake: numbers from 0, which would shift every label by one.
                raise UsageError(
                    f"{where}: {number} is {classes.names[label]!r} in {classes.file}, but the video lies in "
                    f"{folder!r}; the numbers begin at 1"
                )
            yield Row(where, path, (path.rpartition(".")[0],), (label,), split)
