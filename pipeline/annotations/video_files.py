"""Which files of a folder are videos, and whether they really lie in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from dynaprop.pipeline.annotations.passed_over import describe_passed, is_passed_folder, is_video_name, passed_kind
from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.io.file_names import require_utf8_locale
from dynaprop.pipeline.io.paths import is_folder

_PICTURES = (".jpg", ".jpeg", ".png")


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
    """Return the ids of all video files below a folder, sorted; see ``look_through``."""
    return look_through(root).videos


class Contents(NamedTuple):
    """The files below a folder: paths relative to it, with `/`, sorted."""

    videos: list[str]
    passed: list[str]
    """What looks like a video and is none; see ``passed_kind``."""
    kinds: list[str]
    """As what each of those is counted."""


def look_through(root: Path) -> Contents:
    """Find all videos below a folder, and what only looks like one.

    Links to files inside the root are listed, and so are links that lead nowhere, wherever that is, since an absent
    video is no reason to stop; see ``walk`` for the rest.

    Raises:
        UsageError: a folder cannot be read, a name or the locale is not UTF-8, or a link leaves the root.
    """
    found = sorted(walk(root))
    videos = [one.path for one in found if one.passed is None]
    for video_id in videos:
        require_utf8_locale(video_id, where=root)
        try:
            video_id.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{root}: the file name {video_id!a} is not UTF-8; rename the file") from None
    passed = [(one.path, one.passed) for one in found if one.passed is not None]
    return Contents(videos, [path for path, _ in passed], [kind for _, kind in passed])


def passed_over(root: Path, *, has_frames: bool) -> str:
    """One line about what only looks like a video below a folder; empty where there is nothing.

    Args:
        root: the folder.
        has_frames: whether folders of pictures are videos, and so not looked into.

    Raises:
        UsageError: see ``walk``.
    """
    is_frame = (lambda name: name.lower().endswith(_PICTURES)) if has_frames else None
    return describe_passed(found.passed for found in walk(root, is_frame=is_frame) if found.passed is not None)


class Found(NamedTuple):
    """What a walk came across."""

    path: str
    """Relative to the root, with `/`."""
    kind: Literal["file", "link", "folder"]
    """A link is one to a file, perhaps broken."""
    passed: str | None = None
    """As what a file is counted that is no video; None of videos and folders."""


def walk(
    root: Path, *, is_wanted: Callable[[str], bool] | None = None, is_frame: Callable[[str], bool] | None = None
) -> Iterator[Found]:
    """Yield all video files below a folder, what only looks like one, and the folders that are wanted, in no order.

    Hidden files and folders are passed over, and so are the folders of systems. Links to folders inside the root are
    not followed: what they lead to is found where it lies.

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
        entries = _entries(root / prefix, is_frame if prefix else None)
        names = {entry.name for entry in entries}
        for entry in entries:
            path, kind = prefix + entry.name, passed_kind(entry.name, names)
            wanted = kind is not None or is_video_name(entry.name)
            if entry.is_symlink():
                linked_folder = is_folder(root / path)
                if (
                    ((wanted and kind is None) or linked_folder)
                    and _exists(root / path)
                    and leaves(real_root, root / path)
                ):
                    raise UsageError(
                        f"{root / path}: this link leaves the dataset's folder {real_root}; "
                        "put the videos themselves there"
                    )
                if wanted and not linked_folder:
                    yield Found(path, "link", kind)
            elif entry.is_dir(follow_symlinks=False):
                if is_passed_folder(entry.name):
                    continue
                if is_wanted and is_wanted(path):
                    yield Found(path, "folder")
                else:
                    waiting.append(f"{path}/")
            elif wanted:
                yield Found(path, "file", kind)


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
