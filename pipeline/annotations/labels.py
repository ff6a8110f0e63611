"""What the labels of a list contradict each other in: lines that lack one, and numbers that begin elsewhere."""

from collections.abc import Iterable, Sequence

from dynaprop.pipeline.annotations.types import SplitName
from dynaprop.pipeline.errors import UsageError

Listed = tuple[str, str, tuple[int, ...], SplitName | None]
"""File and line, id, labels and part of a listed video."""


def check_labels(videos: Iterable[Listed], class_names: Sequence[str]) -> tuple[str, ...]:
    """Check that no label is lacking or shifted; return what is odd but not wrong, a line each.

    A training video has a label. In the other parts all videos have one, or none has: the test part of many data sets.
    Where videos lie in folders that are called like classes, not all labels are of the class before or behind.

    Raises:
        UsageError: at the first line that is wrong.
    """
    listed = list(videos)
    for part in ("train", "val", "test"):
        plain = next((one for one in listed if one[3] == part and not one[2]), None)
        if plain is None:
            continue
        where, video, *_ = plain
        if part == "train":
            raise UsageError(
                f"{where}: {video!r} has no label, and is to be trained on; give it one, delete the line, or list what "
                "has no labels under `test`"
            )
        if any(one[3] == part and one[2] for one in listed):
            raise UsageError(
                f"{where}: {video!r} has no label, as others of the {part} part have; give it one or delete the line"
            )
    _require_no_shift(listed, class_names)
    several = [one for one in listed if one[2]]
    if several and all(len(labels) > 1 for _, _, labels, _ in several):
        where = several[0][0]
        return (
            f"{where}: every video has several labels, of which the first is trained on; if it is a number of frames "
            "instead, take it out of the lists",
        )
    return ()


def _require_no_shift(listed: Sequence[Listed], class_names: Sequence[str]) -> None:
    """Refuse labels that all are those of the class before or behind the one that the folder is called like."""
    index = {name: label for label, name in enumerate(class_names)}
    first: tuple[str, str, int, int] | None = None
    shifts, folders = set(), set()
    for where, video, labels, _ in listed:
        said = next((index[folder] for folder in reversed(video.split("/")[:-1]) if folder in index), None)
        if said is None or not labels:
            continue
        shifts.add(labels[0] - said)
        folders.add(said)
        first = first or (where, video, labels[0], said)
        if len(shifts) > 1:
            return
    if first is not None and len(folders) > 1 and shifts in ({1}, {-1}):
        where, video, label, said = first
        raise UsageError(
            f"{where}: the label of {video!r} is {class_names[label]!r}, its folder is called {class_names[said]!r}, "
            "and so it is with all: numbers of classes begin at 0, the first line of the class list"
        )
