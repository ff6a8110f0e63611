"""What the tests of label formats share: writing label files, and looking at what was read."""

from pathlib import Path

import pytest

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.errors import UsageError

BOM = b"\xef\xbb\xbf"


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def everything(annotations: Annotations) -> dict[str, Video]:
    """Return all videos by id, on disk or not."""
    return {video.id: video for video in annotations.videos + annotations.absent}


def found(annotations: Annotations, root: Path) -> dict[str, str]:
    """Return `id -> path relative to the root` of the videos on disk."""
    return {video.id: video.path.relative_to(root).as_posix() for video in annotations.videos}


def touch(root: Path, *names: str) -> Path:
    """Make empty files; readers of labels never open a video."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def refused(function: object, *args: object, **kwargs: object) -> str:
    """Return the message of the UsageError, which must be one line."""
    with pytest.raises(UsageError) as caught:
        function(*args, **kwargs)  # type: ignore[operator]
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def facts(annotations: Annotations) -> dict[str, tuple[str | None, list[str]]]:
    """Return `id -> (split, names of classes)`."""
    return {v.id: (v.split, [annotations.class_names[label] for label in v.labels]) for v in annotations.videos}
