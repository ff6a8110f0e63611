"""Class lists, and the labels that refer to them by name or by number."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dynaprop.pipeline.annotations.class_lines import plain_names
from dynaprop.pipeline.annotations.list_files import all_lines
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError, did_you_mean

_NUMBER = re.compile(r"[0-9]{1,9}")
_FEW = 20  # so many names still fit into a message
_NUMBERED = re.compile(r"\W?([0-9]{1,9})(?![0-9A-Za-z]).+")


class ClassList:
    """The names of a dataset's classes in the order of their indices.

    Names are one however their accents are written.

    Args:
        names: the names, each once.
        file: where they were read, for messages.
        first: the number of the first class in the dataset's lists; indices always begin at 0.
    """

    def __init__(self, names: Sequence[str], *, file: Path, first: int = 0) -> None:
        self.names = tuple(map(comparable, names))
        self.file = file
        self.first = first
        self._index = {name: index for index, name in enumerate(self.names)}
        self._numbers = _numbers_before(self.names)

    def __contains__(self, name: str) -> bool:
        return comparable(name) in self._index

    def named(self, where: str, name: str) -> int:
        """Return the index of a class given by name.

        Raises:
            UsageError: there is no such class.
        """
        index = self._index.get(comparable(name))
        if index is None:
            hint = did_you_mean(name, list(self.names))
            raise UsageError(
                f"{where}: no class {name!r} in {self.file}{hint if 'mean' in hint or len(self.names) <= _FEW else ''}"
            )
        return index

    def label(self, where: str, text: str) -> int:
        """Return the index of a class given by number or by name.

        Raises:
            UsageError: there is no such class, or a number that is the name of another class, or stands before it.
        """
        if _NUMBER.fullmatch(text) is None:
            return self.named(where, text)
        index = int(text) - self.first
        if self._index.get(text, index) != index:
            raise UsageError(
                f"{where}: {text} is the name of one class and the index of another; use names that are words"
            )
        if self._numbers.get(int(text), index) != index:
            raise UsageError(
                f"{where}: is {text} the class {self.names[self._numbers[int(text)]]!r}, or the one in line "
                f"{index + 1} of {self.file}? order the names by their numbers from 0, or write names into the lists"
            )
        if not 0 <= index < len(self.names):
            raise UsageError(
                f"{where}: label {int(text)} is outside {self.file}, "
                f"which has {len(self.names)} classes (from {self.first})"
            )
        return index

    def labels(self, where: str, texts: Iterable[str]) -> tuple[int, ...]:
        """Return the indices of several classes, each once, as ``label`` reads them."""
        return tuple(dict.fromkeys(self.label(where, text) for text in texts))


def _numbers_before(names: Sequence[str]) -> dict[int, int]:
    """Return the numbers that names begin with, with indices; nothing where they rise one by one, or are few."""
    matches = {index: match for index, name in enumerate(names) if (match := _NUMBERED.fullmatch(name))}
    numbers = {int(match[1]): index for index, match in matches.items()}
    if len(numbers) < len(matches) or len(numbers) < 2 or 2 * len(numbers) < len(names):
        return {}
    return numbers if len({number - index for number, index in numbers.items()}) > 1 else {}


def read_classes(file: Path) -> ClassList:
    """Read a class list of one name a line; the first line has index 0. Numbers and a header: see ``plain_names``.

    Raises:
        UsageError: the list is empty, has a blank line inside or a name twice, or cannot be read, or what
            ``plain_names`` raises.
    """
    lines: list[tuple[str, str]] = []
    blank = None
    for where, name in all_lines(file):
        if not name:
            blank = blank or where
            continue
        if blank:
            raise UsageError(f"{blank}: a blank line inside the class list shifts the indices after it; delete it")
        lines.append((where, name))
    names: dict[str, str] = {}
    for where, name in plain_names(file, lines):
        _add(names, where, name)
    return _class_list(names, file, first=0)


def read_numbered_classes(file: Path) -> ClassList:
    """Read a class list of lines ``1 ApplyEyeMakeup``, numbered from 1 (UCF101's ``classInd.txt``).

    Raises:
        UsageError: a line without the next number, besides what ``read_classes`` raises.
    """
    names: dict[str, str] = {}
    for where, line in all_lines(file):
        if not line:
            continue
        number, name = [*line.split(None, 1), ""][:2]
        if number != str(len(names) + 1) or not name.strip():
            raise UsageError(f"{where}: should be `{len(names) + 1} name`, the classes numbered from 1: {line!r}")
        _add(names, where, name.strip())
    return _class_list(names, file, first=1)


def _add(names: dict[str, str], where: str, name: str) -> None:
    name = comparable(name)
    if name in names:
        raise UsageError(f"{where}: class {name!r} is already named at {names[name]}; delete one of the lines")
    names[name] = where


def _class_list(names: dict[str, str], file: Path, *, first: int) -> ClassList:
    if not names:
        raise UsageError(f"{file}: the class list is empty; write one class a line")
    return ClassList(tuple(names), file=file, first=first)
