"""Same files and near-identical videos of a dataset together, from what the cache holds."""

from collections.abc import Callable, Mapping

import numpy as np

from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.features.near_identical import THRESHOLD, Comparison, clips_compared
from dynaprop.pipeline.store.duplicates import MOST_LISTED, Duplicate, Duplicates, same_files

RULE = 1
"""Raised whenever other pairs come out of the same features, so that what a run has kept is looked for again."""


def find_duplicates(
    split: FeatureSplit | None,
    contents: Mapping[str, str],
    *,
    parts: Mapping[str, int] | None = None,
    features: str = "",
    on_videos: Callable[[int], None] = lambda _videos: None,
) -> Duplicates:
    """Find pairs of videos that show the same.

    Args:
        split: features of the videos that have any; None where there are none yet.
        contents: what identifies a file's content, by video id; pairs of the same content are the same file.
        parts: the part of a split that a video is in, by id; then only pairs across parts are looked for.
        features: key of the features.
        on_videos: see `dynaprop.heads.features.near_identical`.
    """
    same, n_same = same_files(contents, parts)
    if split is None:
        return Duplicates(tuple(same), n_same, None, unknown="features are not extracted yet")
    inside = [index for index, video in enumerate(split.video_ids) if parts is None or video in parts]
    split = split.select(np.array(inside, np.int64))
    clips = clips_compared(split) if len(split) else None
    if clips == 0:
        reason = f"{len(split):,} videos are too many to compare"
        return Duplicates(tuple(same), n_same, None, unknown=reason)
    comparison = Comparison(split, clips)
    numbers = None if parts is None else np.array([parts[video] for video in split.video_ids])
    pairs = comparison.pairs(parts=numbers, on_videos=on_videos)
    content = np.array([contents.get(video, f"?{video}") for video in split.video_ids])
    other = content[pairs.first] != content[pairs.second]
    near = []
    for first, second, cosine in zip(
        *(of[other][:MOST_LISTED] for of in (pairs.first, pairs.second, pairs.cosine)), strict=True
    ):
        if numbers is not None and numbers[first] > numbers[second]:
            first, second = second, first
        seconds = comparison.most_alike(first, second)
        ids = split.video_ids[first], split.video_ids[second]
        near.append(Duplicate(*ids, "near-identical", round(float(cosine), 3), *seconds))
    return Duplicates(tuple(same + near), n_same, int(other.sum()), THRESHOLD, clips, features=features)
