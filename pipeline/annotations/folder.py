"""Videos in a folder per class: ``<class>/<video>``, or ``<train|val|test>/<class>/<video>``."""

from pathlib import Path, PurePosixPath

from dynaprop.pipeline.annotations.passed_over import VIDEO_SUFFIXES, describe_passed
from dynaprop.pipeline.annotations.types import Annotations, SplitName, Video
from dynaprop.pipeline.annotations.video_files import Contents, is_file, look_through
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError

_KNOWN = " ".join(VIDEO_SUFFIXES)
_SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read_folder(*, root: Path) -> Annotations:
    """Read a folder of videos; folders further down than the class belong to the class.

    Two folders whose names differ in how their accents are written alone are one class.

    Videos that lie in no class folder have no labels: they can be extracted and predicted, not trained on.

    Raises:
        UsageError: no videos, split folders beside class folders, or what ``look_through`` raises.
    """
    contents = look_through(root)
    ids, passed = contents.videos, describe_passed(contents.kinds)
    if not ids:
        raise UsageError(f"{root}: no videos here{f'; {passed}' if passed else f' (known extensions: {_KNOWN})'}")
    has_splits = _has_split_folders(root, ids)
    places = {video_id: _place(video_id, has_splits) for video_id in ids}
    class_names = tuple(sorted({name for _, name in places.values() if name is not None}))
    index = {name: label for label, name in enumerate(class_names)}
    videos = [
        Video(id=video_id, path=root / video_id, labels=() if name is None else (index[name],), split=split)
        for video_id, (split, name) in places.items()
    ]
    return Annotations(
        videos=tuple(video for video in videos if is_file(video.path)),
        class_names=class_names,
        absent=tuple(video for video in videos if not is_file(video.path)),  # broken links
        notes=tuple(filter(None, (passed, _no_classes(contents, class_names, has_splits), _unlabelled(videos)))),
    )


def _no_classes(contents: Contents, class_names: tuple[str, ...], has_splits: bool) -> str:
    """Say which folders would be classes if what was passed over were videos."""
    places = {_place(path, has_splits)[1] for path in contents.passed}
    names = sorted(name for name in places if name is not None and name not in class_names)
    if not names or not class_names:
        return ""
    return f"no class, as no video lies in it: {', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"


def _unlabelled(videos: list[Video]) -> str:
    """Say which videos are beside the class folders, so that nothing is trained on them."""
    plain = [video.id for video in videos if not video.labels and video.split == "train"]
    if not plain or len(plain) == len(videos):
        return ""
    are = "1 training video lies" if len(plain) == 1 else f"{len(plain):,} training videos lie"
    return f"{are} in no class folder, so nothing is trained on {plain[0]!r}{' and the others' * (len(plain) > 1)}"


def _has_split_folders(root: Path, ids: list[str]) -> bool:
    """Whether the folders right below the root are train/, val/ and test/ rather than classes.

    A class may well be called "train": next to other classes such a name means a split only if it holds folders, and
    then the two readings contradict each other.
    """
    nested: dict[str, bool] = {}  # folder below the root -> does it hold folders with videos
    for parts in (PurePosixPath(video_id).parts for video_id in ids):
        if len(parts) > 1:
            nested[parts[0]] = nested.get(parts[0], False) or len(parts) > 2
    splits = [name for name in nested if name.lower() in _SPLIT_FOLDERS]
    others = sorted(nested.keys() - splits)
    if splits and not others:
        return True
    if contradicting := sorted(name for name in splits if nested[name]):
        raise UsageError(
            f"{root}: {contradicting[0]!r} looks like a split with class folders in it, {others[0]!r} like a class; "
            "keep either split folders or class folders here, and move the others away"
        )
    return False


def _place(video_id: str, has_splits: bool) -> tuple[SplitName | None, str | None]:
    """Return the split and the class that a video's folders say."""
    folders = PurePosixPath(video_id).parts[:-1]
    split = _SPLIT_FOLDERS.get(folders[0].lower()) if has_splits and folders else None
    below = folders[1:] if split else folders
    return split, comparable(below[0]) if below else None
