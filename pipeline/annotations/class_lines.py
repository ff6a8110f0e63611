"""The names in the lines of a class list, which may be numbered, quoted, or have a header."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from dynaprop.pipeline.errors import UsageError

Line = tuple[str, str]
"""File and line, and text."""

_NUMBER_FIRST = re.compile(r"[(]?(?P<number>[0-9]{1,9})(?P<sign>\s*[,;:|=\t]\s*|[.)]{0,2}\s+(?:-\s+)?)(?P<name>\S.*)")
_NUMBER_LAST = re.compile(r"(?P<name>.*[^\s,;:|=])(?P<sign>[\s,;:|=]+)(?P<number>[0-9]{1,9})")
_HEADER_WORDS = frozenset(
    {
        *("", "id", "ids", "index", "idx", "number", "no", "class", "classes", "class_id", "class_name", "class_index"),
        *("classname", "classid", "label", "labels", "label_id", "label_name", "name", "names", "category"),
        *("category_id", "category_name", "action", "actions"),
    }
)


def plain_names(file: Path, lines: Sequence[Line]) -> list[Line]:
    """Return the names alone, each with its place.

    Names may be in double quotes, and numbered by their lines from 0 (``0 kick``, ``0,kick``, ``kick,0``), with or
    without a header (``id,name``) above.

    Raises:
        UsageError: numbers that are not those of the lines, a header over names alone, a comment, json, or a line that
            ends in a separator.
    """
    for where, text in lines:
        if text.startswith(("{", "[")) and (file.suffix == ".json" or where == lines[0][0]):
            raise UsageError(f"{where}: is json; write the names of the classes, one a line")
        if text.startswith("#"):
            raise UsageError(f"{where}: a comment is no class; delete the line")
        if text.startswith(("- ", "* ")):
            raise UsageError(f"{where}: write the name alone, without {text[0]!r} before it: {text!r}")
    header, rest = _split_header(lines)
    names = None
    for pattern in (_NUMBER_FIRST, _NUMBER_LAST):
        names = names or _numbered(file, rest, pattern)
    if names is None:
        if header:
            where, text = header[0]
            raise UsageError(
                f"{where}: {text!r} is a header over names that have no numbers; delete the line, or, where it is a "
                f"class, number all lines: `0 {text}`"
            )
        names = list(rest)
    return [(where, _unquoted(where, name)) for where, name in names]


def _split_header(lines: Sequence[Line]) -> tuple[Sequence[Line], Sequence[Line]]:
    """Take the first line off where all of its words are those of headers."""
    if not lines:
        return [], []
    words = [word.strip("\"' ").lower() for word in re.split(r"[,;\t]", lines[0][1])]
    if len(words) == 1:
        words = words[0].split()
    return (lines[:1], lines[1:]) if len(lines) > 1 and set(words) <= _HEADER_WORDS else ([], lines)


def _numbered(file: Path, lines: Sequence[Line], pattern: re.Pattern[str]) -> list[Line] | None:
    """Return the names without their numbers; None where these are no numbers of lines, but parts of names."""
    found = [(where, text, pattern.fullmatch(text)) for where, text in lines]
    matches = [match for *_, match in found if match is not None]
    if not matches:
        return None
    numbers = [int(match["number"]) for match in matches]
    listed = any(match["sign"].strip(" ") for match in matches)  # by a comma or a tab: not by accident
    if len(matches) < len(found):
        if not listed or 2 * len(matches) < len(found):
            return None
        where, text, _ = next(one for one in found if one[2] is None)
        raise UsageError(f"{where}: has no number, as other lines have: {text!r}")
    places = list(range(len(numbers)))
    in_order = numbers == places
    if not listed and pattern is _NUMBER_LAST and (in_order or sorted(numbers) != places):
        return None  # `take 1`
    if not listed and numbers[0] not in (0, 1) and sorted(numbers) != places:
        return None  # `100 m run`
    if len(numbers) == 1 and numbers != [0] and not listed:
        return None
    if numbers == [place + 1 for place in places]:
        raise UsageError(
            f"{found[0][0]}: the classes are numbered from 1; write the names alone, and number labels from 0"
        )
    if not in_order:
        expected, (where, text, _) = next(
            (number, one) for number, (one, own) in enumerate(zip(found, numbers, strict=True)) if number != own
        )
        raise UsageError(
            f"{where}: should have the number {expected}, as classes are numbered by their lines from 0: {text!r}"
        )
    if extra := next((one for one in found if one[2] and _has_more_fields(one[2])), None):
        raise UsageError(f"{extra[0]}: should be number and name, a name with separators in quotes: {extra[1]!r}")
    return [(where, match["name"]) for where, _, match in found if match is not None]


def _has_more_fields(match: re.Match[str]) -> bool:
    sign = match["sign"].strip(" ")[:1]
    return sign in (",", ";", "|", "\t") and sign in match["name"] and not match["name"].startswith('"')


def _unquoted(where: str, name: str) -> str:
    if name.startswith('"'):
        try:
            fields = next(csv.reader([name]), [])
        except csv.Error:
            fields = []
        if not name.endswith('"') or len(fields) != 1 or not fields[0].strip():
            raise UsageError(f"{where}: should be one name, in quotes or without: {name!r}")
        return fields[0].strip()
    if "\t" in name:
        raise UsageError(f"{where}: should be one name, not several fields: {name!r}")
    if name.endswith((",", ";")):
        raise UsageError(f"{where}: ends in {name[-1]!r}; write the name alone: {name!r}")
    return name
