"""Which files of a folder are videos, and whether they really lie in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
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

    Hidden files and folders are passed over. Links to folders inside the root are not followed: what they lead to is
    found where it lies. Links to files inside the root are listed; so are links that lead nowhere, wherever that is,
    since an absent video is no reason to stop.

    Raises:
        UsageError: a folder cannot be read, a name is not UTF-8, or a link leaves the root.
    """
    ids = [path.relative_to(root).as_posix() for path in _walk(root, os.path.realpath(root))]
    for video_id in ids:
        try:
            video_id.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{root}: the file name {video_id!a} is not UTF-8; rename the file") from None
    return sorted(ids)


def _walk(folder: Path, real_root: str) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            listing = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    for entry in listing:
        path = Path(entry.path)
        wanted = is_video_name(entry.name)
        linked_folder = entry.is_symlink() and is_folder(path)
        if entry.is_symlink() and (wanted or linked_folder) and _exists(path) and leaves(real_root, path):
            raise UsageError(
                f"{path}: this link leaves the dataset's folder {real_root}; put the videos themselves there"
            )
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, real_root)
        elif wanted and not linked_folder:
            yield path


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True
