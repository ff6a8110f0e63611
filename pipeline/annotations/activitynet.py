"""ActivityNet's json: untrimmed videos, each with the labels of the actions in it.

The form of http://activity-net.org's ``activity_net.v1-3.min.json``::

    {"version": .., "taxonomy": [..], "database": {id: {"subset": "training" | "validation" | "testing",
     "duration": s, "url": .., "annotations": [{"label": .., "segment": [s, s]}, ..]}}}
"""

import json
import re
from pathlib import Path
from typing import Any

from dynaprop.pipeline.annotations.classes import ClassList, read_classes
from dynaprop.pipeline.annotations.list_files import beside, plain_id, read_text
from dynaprop.pipeline.annotations.listing import Row, find_videos
from dynaprop.pipeline.annotations.types import Annotations, SplitName
from dynaprop.pipeline.annotations.video_index import comparable
from dynaprop.pipeline.errors import UsageError, did_you_mean

_SUBSETS: dict[str, SplitName] = {"training": "train", "validation": "val", "testing": "test"}


def read_activitynet(*, root: Path, file: Path, classes: Path | None = None) -> Annotations:
    """Read a dataset of ActivityNet's form.

    The whole video is one example, and its labels are the distinct ones of its annotations in order of appearance; a
    video without annotations (the testing subset) is unlabelled. Ids are ``v_<id>``; files are called so or ``<id>``,
    with any extension, anywhere below the root.

    Args:
        root: folder of the videos.
        file: the json, relative to ``root``.
        classes: class list, one name a line; without it the classes are the sorted labels of the json.

    Raises:
        UsageError: the json cannot be used, or what ``find_videos`` raises.
    """
    file = beside(root, file)
    text = read_text(file)
    database = _database(file, text)
    videos = {video_id: _video(file, text, video_id, entry) for video_id, entry in database.items()}
    for subset in ("training", "validation"):
        if not any(split == _SUBSETS[subset] for split, _ in videos.values()):
            raise UsageError(f"{file}: the subset {subset!r} is empty; is this the whole json?")
    if classes is not None:
        class_list = read_classes(beside(root, classes))
    else:
        class_list = ClassList(sorted({name for _, names in videos.values() for name in names}), file=file)
    rows = []
    for video_id, (split, names) in videos.items():
        if split == "train" and not names:
            raise UsageError(
                f"{_place(file, text, video_id)}: has no 'annotations', and is to be trained on; give it some or "
                "delete it"
            )
        try:
            labels = tuple(class_list.named(str(file), name) for name in names)
        except UsageError:
            # Once more for the message: looking up the line of every video would take minutes.
            labels = tuple(class_list.named(_place(file, text, video_id), name) for name in names)
        rows.append(Row(str(file), f"v_{video_id}", (f"v_{video_id}", video_id), labels, split))
    return find_videos(rows, root=root, class_names=class_list.names)


class _RepeatedKey(Exception):
    """A key is twice in one object, of which Python's json silently keeps the last."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return mapping


def _database(file: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno}: is not json ({error.msg}); download the file again") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file}: is not json that can be read; download the file again") from None
    except _RepeatedKey as error:
        (key,) = error.args
        lines = _lines_of(text, key)
        line = f":{lines[1]}" if len(lines) == 2 else ""  # more: the key may be that of other objects
        raise UsageError(f"{file}{line}: {key!r} is there twice; delete one of the two") from None
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise UsageError(f"{file}: is not ActivityNet's json, which has videos by id under the key 'database'")
    if not database:
        raise UsageError(f"{file}: no videos are listed under the key 'database'")
    return database


def _video(file: Path, text: str, video_id: str, entry: Any) -> tuple[SplitName, tuple[str, ...]]:
    """Return the part and the distinct labels of a video."""
    subset = entry.get("subset") if isinstance(entry, dict) else None
    if not isinstance(subset, str) or subset not in _SUBSETS:
        hint = did_you_mean(subset, list(_SUBSETS)) if isinstance(subset, str) else ""
        raise UsageError(
            f"{_place(file, text, video_id)}: 'subset' should be {', '.join(_SUBSETS)}, not {subset!r}"
            f"{hint if 'mean' in hint else ''}"
        )
    annotations = entry.get("annotations", [])
    if not isinstance(annotations, list):
        raise UsageError(f"{_place(file, text, video_id)}: 'annotations' should be a list")
    names = [annotation.get("label") if isinstance(annotation, dict) else None for annotation in annotations]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f"{_place(file, text, video_id)}: each of the 'annotations' should have a 'label'")
    if any(not name.isprintable() for name in names if name):  # half a surrogate pair, for one, is no text at all
        raise UsageError(f"{_place(file, text, video_id)}: a 'label' holds characters that cannot be shown")
    plain_id(str(file), video_id)
    return _SUBSETS[subset], tuple(dict.fromkeys(comparable(name.strip()) for name in names if name))


def _place(file: Path, text: str, video_id: str) -> str:
    lines = _lines_of(text, video_id)
    return f"{file}{f':{lines[0]}' if lines else ''}: video {video_id!r}"


def _lines_of(text: str, key: str) -> list[int]:
    """Return the numbers of the lines in which a json has this key."""
    spellings = "|".join(re.escape(json.dumps(key, ensure_ascii=ascii_only)) for ascii_only in (True, False))
    return [text.count("\n", 0, match.start()) + 1 for match in re.finditer(rf"(?:{spellings})\s*:", text)]
