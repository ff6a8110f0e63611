"""Videos that a dataset holds twice: what is known of a pair, and those pairs that are one file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from dynaprop.pipeline.annotations import Annotations, Video
from dynaprop.pipeline.annotations.splits import Split
from dynaprop.pipeline.store.manifest import Manifest
from dynaprop.pipeline.video.identity import NOTHING, Hashing, Source, identify_all

MOST_LISTED = 10_000
"""Pairs of each kind that are kept by name; the others are counted."""


@dataclass(frozen=True)
class Duplicate:
    """Two videos that show the same."""

    first: str
    second: str
    """Video ids; the first one is trained on where the split has two parts."""
    kind: Literal["same file", "near-identical"]
    cosine: float | None = None
    """Of their features, as `dynaprop.heads.features.near_identical` takes it; None for the same file."""
    first_seconds: float | None = None
    second_seconds: float | None = None
    """The two clips that are most alike."""


@dataclass(frozen=True)
class Duplicates:
    """What was found among some videos."""

    listed: tuple[Duplicate, ...]
    """Same files first, then those of the largest cosine; at most ``MOST_LISTED`` of each kind."""
    n_same: int
    """Pairs that are the same file."""
    n_near: int | None
    """Pairs that are near-identical and no same file; None where that was not looked for."""
    threshold: float | None = None
    """Cosine from which on two videos are called near-identical."""
    clips: int | None = None
    """So many clips of each video were compared at most; None for all."""
    unknown: str = ""
    """Why it was not looked for near-identical ones."""
    features: str = ""
    """Key of the features that were compared."""

    def of(self, kind: str) -> tuple[Duplicate, ...]:
        """The listed pairs of one kind."""
        return tuple(one for one in self.listed if one.kind == kind)


def same_files(contents: Mapping[str, str], parts: Mapping[str, int] | None = None) -> tuple[list[Duplicate], int]:
    """Pairs of videos whose files have the same content.

    Args:
        contents: what identifies a file's content, by video id.
        parts: the part of a split that a video is in; then only pairs across parts count, and videos without a part
            do not.

    Returns:
        At most ``MOST_LISTED`` pairs, and how many there are.
    """
    by_content: dict[str, list[str]] = {}
    for video, content in sorted(contents.items()):
        if parts is None or video in parts:
            by_content.setdefault(content, []).append(video)
    found: list[Duplicate] = []
    count = 0
    for videos in by_content.values():
        sizes: dict[int, int] = {}
        for index, video in enumerate(videos):
            part = index if parts is None else parts[video]
            sizes[part] = sizes.get(part, 0) + 1
        count += (len(videos) ** 2 - sum(size**2 for size in sizes.values())) // 2
        for pair in combinations(videos, 2):
            if len(found) == MOST_LISTED:
                break
            first, second = pair if parts is None else sorted(pair, key=lambda video: parts[video])
            if parts is None or parts[first] != parts[second]:
                found.append(Duplicate(first, second, "same file"))
    return found, count


def parts_of(annotations: Annotations, splits: Iterable[Split]) -> dict[str, int]:
    """The part that each video is in, by id: 0 for training and 1 for testing, or its fold; others have none.

    Two videos stand on both sides of a split, or of some fold, exactly if their parts differ.
    """
    parts: dict[str, int] = {}
    for split in splits:
        if split.fold is None:
            parts |= {annotations.videos[video].id: 0 for video in split.train}
        parts |= {annotations.videos[video].id: 1 if split.fold is None else split.fold for video in split.test}
    return parts


def contents_of(
    videos: Iterable[Video], manifest: Manifest | None = None, *, hashing: Hashing | None = None
) -> dict[str, str]:
    """What tells the content of each video that may be there twice, by id.

    A file is read only if another one has as many bytes, and the manifest does not know its content as it is now. Of a
    folder of pictures that counts which the manifest knows; those that it does not are left out.

    Args:
        videos: those that are on disk.
        manifest: of the store that they were extracted into.
        hashing: shows how far the reading is.
    """
    videos = list(videos)
    known = {} if manifest is None else manifest.identities()
    stamps = {video.id: Source(video.path).stamp() for video in videos if video.frames is None}
    sizes = Counter(size for size, *_ in stamps.values())
    found = {video.id: known[video.id].content for video in videos if video.frames is not None and video.id in known}
    unread = []
    for video in videos:
        stamp = stamps.get(video.id)
        if stamp is None or sizes[stamp[0]] < 2 or stamp == NOTHING.stamp:
            continue
        if video.id in known and known[video.id].is_of(stamp):
            found[video.id] = known[video.id].content
        else:
            unread.append(video)
    sources = [(Source(video.path), stamps[video.id]) for video in unread]
    read = zip(unread, identify_all(sources, hashing=hashing), strict=True)
    return found | {video.id: identity.content for video, identity in read if identity.content}
