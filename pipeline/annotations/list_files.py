"""Lines and paths of the files that list videos, each with its place for messages."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from dynaprop.pipeline.annotations.passed_over import VIDEO_SUFFIXES
from dynaprop.pipeline.annotations.types import SplitName
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.file_names import require_utf8_locale

# The path ends at a video's extension, so that both the path and the names of classes may contain spaces.
_ENTRY = re.compile(
    rf"(?P<path>.+(?:{'|'.join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)}))(?:\s+(?P<rest>.+))?", re.IGNORECASE
)
# A drive of Windows, a URL, somebody's home: a place, and none below the root.
_ELSEWHERE = re.compile(r"[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]+:/|~[^/]*/")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # a json may escape halves of surrogate pairs


def beside(root: Path, path: Path) -> Path:
    """Join without following links: ``../x`` of a linked root lies beside the link, as it is written."""
    folder = root.absolute()
    for part in path.parts:
        folder = folder.parent if part == ".." else folder / part
    return folder


def part_files(
    root: Path, *, train: Path | None = None, val: Path | None = None, test: Path | None = None
) -> list[tuple[SplitName, Path]]:
    """Return the parts that have a file, with where it lies."""
    parts: tuple[tuple[SplitName, Path | None], ...] = (("train", train), ("val", val), ("test", test))
    return [(split, beside(root, path)) for split, path in parts if path is not None]


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what goes wrong on reading a text file into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); correct the dataset's entry") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def read_text(file: Path) -> str:
    """Return a whole file, without its BOM.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    with reading(file):
        return file.read_text(encoding="utf-8-sig")


def all_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield ``file:number`` and the stripped text of every line, whatever ends it; a BOM is dropped.

    Raises:
        UsageError: the file cannot be read, or is not UTF-8.
    """
    name = str(file)
    with reading(file), file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            yield f"{name}:{number}", line.strip()


def list_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list of videos that are not blank, as ``all_lines`` does.

    Raises:
        UsageError: there are none, besides what ``all_lines`` raises.
    """
    empty = True
    for where, line in all_lines(file):
        if line:
            empty = False
            yield where, line
    if empty:
        raise UsageError(f"{file}: no videos are listed; fill the list or drop its key")


def path_and_rest(where: str, line: str) -> tuple[str, str]:
    """Split a line after the path of a video file; the rest may be empty."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise UsageError(f"{where}: should be `path label`, the path ending in {' '.join(VIDEO_SUFFIXES)}: {line!r}")
    return match["path"], match["rest"] or ""


def listed_path(where: str, text: str, root: Path) -> str:
    """Return a listed path relative to the root in its plain form, with ``/``.

    Absolute paths may lead into the root. A backslash separates folders, unless a file of that very name is there.

    Raises:
        UsageError: it does not lie inside the root, has ``..``, or names nothing; or the locale has no such name.
    """
    if "\\" in text:
        text = _with_slashes(text, root)
    # Strings, since lists have a hundred thousand lines and Path objects take most of the time.
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts or "\0" in text:
        raise outside(where, text, root)
    if text.startswith("/"):
        *folders, _ = parts
        depth = _depth_of_root("/" + "/".join(folders), os.path.realpath(root))
        if depth is None:
            raise outside(where, text, root)
        parts = parts[depth:]
    elif _ELSEWHERE.match(text) and not _is_there(root, parts[0]):
        raise outside(where, text, root)
    require_utf8_locale(text, where=where)
    return "/".join(parts)


@lru_cache(maxsize=4096)
def _depth_of_root(folder: str, real_root: str) -> int | None:
    """How many folders deep the root is, by whatever links, in the path of an absolute folder; None where it is not."""
    parts = folder.split("/")[1:]
    for depth in range(len(parts), -1, -1):
        if os.path.realpath("/" + "/".join(parts[:depth])) == real_root:
            return depth
    return None


def _with_slashes(text: str, root: Path) -> str:
    slashes = text.replace("\\", "/")
    inside = not slashes.startswith("/") and ".." not in slashes.split("/")
    return text if inside and _is_there(root, text) else slashes


def _is_there(root: Path, path: str) -> bool:
    try:
        return (root / path).exists()
    except (OSError, ValueError):  # a name too long, or one with a null byte
        return False


def outside(where: str, text: str, root: Path) -> UsageError:
    """Return the error of a listed path that leaves the root."""
    return UsageError(
        f"{where}: {text!r} does not lie inside {root}, the dataset's root: correct one of them, or write paths "
        "relative to it, without '..'"
    )


def filled(where: str, labels: list[str], line: str) -> list[str]:
    """Return the labels of a line.

    Raises:
        UsageError: one is empty: there is a separator too many.
    """
    if "" in labels:
        raise UsageError(f"{where}: a label is empty; correct the separators of {line!r}")
    return labels


def plain_id(where: str, text: str) -> str:
    """Return an id that files are named after.

    Raises:
        UsageError: no file can have this name, or none where the locale is not UTF-8.
    """
    if not text or "/" in text or _UNPRINTABLE.search(text):
        raise UsageError(f"{where}: {text!r} is no video id; it should be a name without '/'")
    require_utf8_locale(text, where=where)
    return text
