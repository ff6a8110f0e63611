"""The search for videos that a run has on both sides of its split."""

from collections.abc import Mapping, Sequence
from functools import partial

from dynaprop.heads.features.duplicates import find_duplicates
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.runs.leaks import Leaks, read_leaks, write_leaks
from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.annotations.splits import Split
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.progress import Reporter, reading_again
from dynaprop.pipeline.store.duplicates import Duplicates, contents_of, parts_of
from dynaprop.pipeline.store.feature_store import FeatureStore


def keep_leaks(
    run: StoragePath,
    annotations: Annotations,
    splits: Sequence[Split],
    features: FeatureSplit,
    *,
    store: FeatureStore,
    key: str,
    reporter: Reporter,
) -> None:
    """Look for duplicates across a run's splits, unless it has kept them, and keep them.

    Args:
        run: the run's folder.
        annotations: the dataset's videos.
        splits: of one kind: one split, or all folds.
        features: of all these videos.
        store: where they are from.
        key: the teacher's feature key.
        reporter: is told.
    """
    name = splits[0].name
    if read_leaks(run, name) is not None:
        return
    parts = parts_of(annotations, splits)
    videos = [video for video in annotations.videos if video.id in parts]
    contents = contents_of(videos, store.manifest(), hashing=partial(reading_again, reporter))
    found = look_for_duplicates(features, contents, parts=parts, key=key, reporter=reporter)
    write_leaks(run, name, Leaks(found, classes_of(annotations, found)))


def look_for_duplicates(
    features: FeatureSplit | None,
    contents: Mapping[str, str],
    *,
    parts: Mapping[str, int] | None,
    key: str,
    reporter: Reporter,
) -> Duplicates:
    """As `find_duplicates`, which see, with its progress shown."""
    with reporter.steps("duplicates", 0 if features is None else len(features), "videos") as progress:
        found = find_duplicates(features, contents, parts=parts, features=key, on_videos=progress.advance)
        progress.total = progress.done  # videos outside of the split are not compared
    return found


def classes_of(annotations: Annotations, found: Duplicates) -> dict[str, tuple[str, ...]]:
    """Class names of the videos that are listed, by id."""
    named = {video for pair in found.listed for video in (pair.first, pair.second)}
    return {
        video.id: tuple(annotations.class_names[label] for label in video.labels)
        for video in annotations.videos
        if video.id in named
    }
