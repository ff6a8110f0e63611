"""``path label`` lists, one video a line, with a class list: the form of mmaction2 and of many public splits."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.annotations.files import VIDEO_SUFFIXES, is_file, leaves
from pipeline.annotations.types import Annotations, SplitName, Video
from pipeline.errors import UsageError, did_you_mean

# The path ends at a video's extension, so that both the path and the names of classes may contain spaces.
_ENTRY = re.compile(
    rf"(?P<path>.+(?:{'|'.join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)}))(?:\s+(?P<labels>.+))?", re.IGNORECASE
)


def read_path_lists(
    *, root: Path, classes: Path, train: Path | None = None, val: Path | None = None, test: Path | None = None
) -> Annotations:
    """Read a dataset of ``path label`` lists.

    A label is an index into the class list (from 0) or the name of a class; several are separated by spaces or commas,
    and a line without one is an unlabelled video. Listed videos that do not exist are kept as ``absent``.

    Args:
        root: folder that the listed paths are relative to, and never leave.
        classes: the class list, one name a line. This path and those of the lists are relative to ``root`` too, but may
            lie outside of it (``../train.txt``).
        train: list of the training part; likewise ``val`` and ``test``.

    Raises:
        UsageError: a line that cannot be used, with file and line; a file that cannot be read; lists without a video.
    """
    class_file = _beside(root, classes)
    class_names = _read_classes(class_file)
    seen: dict[str, str] = {}  # id -> file and line
    videos: list[Video] = []
    absent: list[Video] = []
    real_root = os.path.realpath(root)
    parts: tuple[tuple[SplitName, Path | None], ...] = (("train", train), ("val", val), ("test", test))
    lists = [(split, _beside(root, path)) for split, path in parts if path is not None]
    for split, file in lists:
        for where, line in _lines(file):
            if not line:
                continue
            path, label_text = _fields(where, line)
            video_id = _inside(where, path, root, real_root)
            if video_id in seen:
                raise UsageError(f"{where}: {video_id} is already listed at {seen[video_id]}; delete one of the lines")
            seen[video_id] = where
            labels = _labels(where, label_text, class_names, class_file)
            video = Video(id=video_id, path=root / video_id, labels=labels, split=split)
            (videos if is_file(video.path) else absent).append(video)
    if not videos:
        what = f"none of the {len(absent)} listed videos exists" if absent else "no videos are listed"
        raise UsageError(f"{', '.join(str(file) for _, file in lists)}: {what}; paths are relative to {root}")
    return Annotations(
        videos=tuple(sorted(videos, key=lambda video: video.id)),
        class_names=class_names,
        absent=tuple(sorted(absent, key=lambda video: video.id)),
    )


def _beside(root: Path, path: Path) -> Path:
    """Join without following links: ``../x`` of a linked root lies beside the link, as it is written."""
    folder = root.absolute()
    for part in path.parts:
        folder = folder.parent if part == ".." else folder / part
    return folder


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield ``file:number`` and the stripped text of every line, whatever ends it; a BOM is dropped."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                yield f"{file}:{number}", line.strip()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); correct the dataset's entry") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def _read_classes(file: Path) -> tuple[str, ...]:
    names: dict[str, str] = {}
    blank = None
    for where, name in _lines(file):
        if not name:
            blank = blank or where
            continue
        if blank:
            raise UsageError(f"{blank}: a blank line inside the class list shifts the indices after it; delete it")
        if name in names:
            raise UsageError(f"{where}: class {name!r} is already named at {names[name]}; delete one of the lines")
        names[name] = where
    if not names:
        raise UsageError(f"{file}: the class list is empty; write one class a line")
    return tuple(names)


def _fields(where: str, line: str) -> tuple[str, str]:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise UsageError(f"{where}: should be `path label`, the path ending in {' '.join(VIDEO_SUFFIXES)}: {line!r}")
    return match["path"], match["labels"] or ""


def _inside(where: str, text: str, root: Path, real_root: str) -> str:
    """Return the id of a listed path, which must stay inside the root."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text or leaves(real_root, root / path):
        raise UsageError(f"{where}: {text!r} does not lie inside {root}; write paths relative to it, without '..'")
    return path.as_posix()


def _labels(where: str, text: str, class_names: tuple[str, ...], class_file: Path) -> tuple[int, ...]:
    # A class name may contain spaces and commas: try the whole text first.
    names = [text] if text in class_names else re.split(r"[\s,]+", text) if text else []
    return tuple(dict.fromkeys(_label(where, name, class_names, class_file) for name in names))


def _label(where: str, name: str, class_names: tuple[str, ...], class_file: Path) -> int:
    named = class_names.index(name) if name in class_names else None
    if re.fullmatch(r"[0-9]{1,9}", name) is None:
        if named is None:
            raise UsageError(f"{where}: no class {name!r} in {class_file}{did_you_mean(name, list(class_names))}")
        return named
    index = int(name)
    if named not in (None, index):
        raise UsageError(f"{where}: {name} is the name of one class and the index of another; use names that are words")
    if index >= len(class_names):
        raise UsageError(
            f"{where}: label {index} is outside {class_file}, which has {len(class_names)} classes (from 0)"
        )
    return index
