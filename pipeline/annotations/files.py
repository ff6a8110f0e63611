"""Which files of a folder are videos, and whether they really lie in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.errors import UsageError
from pipeline.file_names import require_utf8_locale
from pipeline.spec_types import is_folder

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".3gp", ".flv", ".wmv", ".ogv"),
)


def is_video_name(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_file(path: Path) -> bool:
    """Whether there is a file; False too where looking fails (a name too long, a folder that is closed to us)."""
    try:
        return path.is_file()
    except OSError:
        return False


def leaves(real_root: str, path: Path) -> bool:
    """Whether links lead a path to somewhere outside of a root, given as `os.path.realpath` of it."""
    # realpath, since Path.resolve raises on a link to itself.
    return not Path(os.path.realpath(path)).is_relative_to(real_root)


def video_files(root: Path) -> list[str]:
    """Return the ids of all video files below a folder, sorted: paths relative to it, with `/`.

    Links to files inside the root are listed, and so are links that lead nowhere, wherever that is, since an absent
    video is no reason to stop; see ``walk`` for the rest.

    Raises:
        UsageError: a folder cannot be read, a name or the locale is not UTF-8, or a link leaves the root.
    """
    ids = [found.path for found in walk(root)]
    for video_id in ids:
        require_utf8_locale(video_id, where=root)
        try:
            video_id.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{root}: the file name {video_id!a} is not UTF-8; rename the file") from None
    return sorted(ids)


class Found(NamedTuple):
    """What a walk came across."""

    path: str
    """Relative to the root, with `/`."""
    kind: Literal["file", "link", "folder"]
    """A link is one to a file, perhaps broken."""


def walk(
    root: Path, *, is_wanted: Callable[[str], bool] | None = None, is_frame: Callable[[str], bool] | None = None
) -> Iterator[Found]:
    """Yield all video files below a folder, and the folders that are wanted, in no order.

    Hidden files and folders are passed over. Links to folders inside the root are not followed: what they lead to is
    found where it lies.

    Args:
        root: the folder.
        is_wanted: told a folder's path relative to the root; a wanted folder is yielded and not looked into.
        is_frame: told the name of a file; a folder below the root that holds such a file is left at once with all that
            is in it, since folders of frames are many and long.

    Raises:
        UsageError: a folder cannot be read, or a link leaves the root.
    """
    real_root = os.path.realpath(root)
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for entry in _entries(root / prefix, is_frame if prefix else None):
            path, wanted = prefix + entry.name, is_video_name(entry.name)
            if entry.is_symlink():
                linked_folder = is_folder(root / path)
                if (wanted or linked_folder) and _exists(root / path) and leaves(real_root, root / path):
                    raise UsageError(
                        f"{root / path}: this link leaves the dataset's folder {real_root}; "
                        "put the videos themselves there"
                    )
                if wanted and not linked_folder:
                    yield Found(path, "link")
            elif entry.is_dir(follow_symlinks=False):
                if is_wanted and is_wanted(path):
                    yield Found(path, "folder")
                else:
                    waiting.append(f"{path}/")
            elif wanted:
                yield Found(path, "file")


def _entries(folder: Path, is_frame: Callable[[str], bool] | None) -> list[os.DirEntry[str]]:
    """Return what is in a folder and not hidden; nothing if one of its files is a frame."""
    listing = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_frame and is_frame(entry.name):
                    return []
                if not entry.name.startswith("."):
                    listing.append(entry)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    return listing


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True
