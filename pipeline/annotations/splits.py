"""Which videos are trained on and which are measured: given splits, stratified ones, folds by group."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from dynaprop.pipeline.annotations import Annotations, Video, require_labels
from dynaprop.pipeline.errors import UsageError


@dataclass(frozen=True)
class Split:
    """Two disjoint lists of positions in a list of videos, both rising. Videos without labels are in neither."""

    name: str
    fold: int | None
    train: tuple[int, ...]
    test: tuple[int, ...]
    missing: tuple[str, ...] = ()
    """Ids that the test part would have and the disk lacks: a score says "evaluated N of M"."""


def splits_of(annotations: Annotations, *, folds: int, seed: int, test_fraction: float) -> tuple[Split, ...]:
    """Return what a command trains and measures on: ``group_folds`` where there are folds, else one split.

    Raises:
        UsageError: what ``group_folds`` and ``given_or_stratified`` raise.
    """
    if folds:
        return group_folds(annotations, folds, seed=seed)
    return (given_or_stratified(annotations, seed=seed, test_fraction=test_fraction),)


def given_or_stratified(annotations: Annotations, seed: int, test_fraction: float) -> Split:
    """Return the split that comes with the dataset (train against test, else val), otherwise a stratified one.

    A stratified split depends on the seed and the listed ids only, not on what is on disk. Where videos have groups,
    whole groups are held out, as evenly over the classes as they allow; otherwise every class has at least one video on
    each side.

    Raises:
        UsageError: the labels do not allow a split (see ``require_labels``), or a class lies in a single group.
    """
    require_labels(annotations)
    videos = annotations.videos
    if part := annotations.held_out_part:
        return Split(
            name=part,
            fold=None,
            train=tuple(i for i, video in enumerate(videos) if video.labels and video.split == "train"),
            test=tuple(i for i, video in enumerate(videos) if video.labels and video.split == part),
            missing=tuple(video.id for video in annotations.absent if video.split == part),
        )
    listed, labels, groups = _labelled(annotations)
    if groups is None:
        held = _hold_out(labels, [video.id for video in listed], test_fraction, seed)
    else:
        _require_groups(labels, groups, annotations.class_names, parts=2)
        held = _deal_groups(labels, groups, np.array([1 - test_fraction, test_fraction]), seed) == 1
    return _split("stratified", None, annotations, listed, held)


def group_folds(annotations: Annotations, k: int, *, seed: int = 0) -> tuple[Split, ...]:
    """Return k splits whose test parts cover all labelled videos once, whatever split the dataset came with.

    No group is on both sides of a fold; videos without groups are stratified by class.

    Raises:
        UsageError: k is below 2, or there are too few groups, or too few videos of a class, for k folds.
    """
    if k < 2:
        raise UsageError(f"{k} folds: cross-validation needs at least 2")
    require_labels(annotations)
    listed, labels, groups = _labelled(annotations)
    if groups is None:
        counts = np.bincount(labels)
        smallest = min(np.flatnonzero(counts), key=lambda label: counts[label])
        if counts[smallest] < k:
            raise UsageError(
                f"{k} folds: class {annotations.class_names[smallest]!r} has {counts[smallest]} videos; "
                "add videos of it or ask for fewer folds"
            )
        fold = np.empty(len(listed), dtype=np.int64)
        folds = StratifiedKFold(k, shuffle=True, random_state=seed).split(labels, labels)
        for number, (_, test) in enumerate(folds):
            fold[test] = number
    else:
        _require_groups(labels, groups, annotations.class_names, parts=k)
        fold = _deal_groups(labels, groups, np.full(k, 1 / k), seed)
    return tuple(_split(f"{k}-fold", number, annotations, listed, fold == number) for number in range(k))


def inner_holdout(
    labels: Sequence[int], groups: Sequence[str | None] | None = None, fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out part of a training list, for what must not be fitted on the videos that the models were trained on.

    Whole groups are held out where that leaves every class something to train on, otherwise videos by class.

    Args:
        labels: class of each training video.
        groups: group of each, if they have any.

    Returns:
        Positions in the list that are kept for training and that are held out, both rising.

    Raises:
        UsageError: no class has two videos.
    """
    classes = np.asarray(labels, dtype=np.int64)
    named = [group for group in groups or () if group is not None]
    if len(named) == len(classes) and len(set(named)) > 1:
        held = _deal_groups(classes, named, np.array([1 - fraction, fraction]), seed) == 1
        if set(classes[~held]) == set(classes):
            return np.flatnonzero(~held), np.flatnonzero(held)
    held = _hold_out(classes, [str(position) for position in range(len(classes))], fraction, seed)
    if not held.any():
        raise UsageError("no class has two training videos, so none can be held out; add videos")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _labelled(annotations: Annotations) -> tuple[list[Video], np.ndarray, list[str] | None]:
    """Return the labelled videos, absent ones too, their first labels, and their groups if all of them have one."""
    listed = [video for video in annotations.videos + annotations.absent if video.labels]
    listed.sort(key=lambda video: video.id)
    labels = np.array([video.labels[0] for video in listed], dtype=np.int64)
    groups = [video.group for video in listed if video.group is not None]
    return listed, labels, groups if len(groups) == len(listed) else None


def _split(name: str, fold: int | None, annotations: Annotations, listed: Sequence[Video], held: np.ndarray) -> Split:
    """Positions of the videos that are there, and the ids of the held-out ones that are not."""
    position = {video.id: index for index, video in enumerate(annotations.videos)}
    kept, out = ([video.id for video, is_held in zip(listed, held, strict=True) if is_held == side] for side in (0, 1))
    return Split(
        name,
        fold,
        train=tuple(position[video] for video in kept if video in position),
        test=tuple(position[video] for video in out if video in position),
        missing=tuple(video for video in out if video not in position),
    )


def _require_groups(labels: np.ndarray, groups: list[str], class_names: tuple[str, ...], *, parts: int) -> None:
    n_groups = len(set(groups))
    if n_groups < parts:
        raise UsageError(
            f"{parts} parts by group need {parts} groups, and there are {n_groups}; "
            "add videos of other groups or ask for fewer folds"
        )
    of_class = defaultdict(set)
    for label, group in zip(labels.tolist(), groups, strict=True):
        of_class[label].add(group)
    for label, found in sorted(of_class.items()):
        if len(found) == 1:
            raise UsageError(
                f"all videos of class {class_names[label]!r} are of the group {found.pop()!r}, so it cannot be both "
                "trained and tested on; add videos of another group or correct the dataset's groups"
            )


def _shuffled(names: Sequence[str], seed: int) -> list[int]:
    """Return positions in an order that depends on seed and names only, on every machine and library version."""
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed}\n{names[i]}".encode()).digest())


def _hold_out(labels: np.ndarray, names: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Return a mask of a fraction of each class: at least one video where there are two, and never all of them.

    scikit-learn's stratified splitters refuse a held-out part smaller than the number of classes.
    """
    held = np.zeros(len(labels), dtype=bool)
    order = np.array(_shuffled(names, seed), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        n_held = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[members[:n_held]] = True
    return held


def _deal_groups(labels: np.ndarray, groups: Sequence[str], shares: np.ndarray, seed: int) -> np.ndarray:
    """Deal whole groups into parts that hold, of every class, as nearly as possible the given shares.

    Groups are dealt one by one, the largest first, to the part that needs them most, so that small groups fill the gaps
    at the end. scikit-learn's ``StratifiedGroupKFold`` begins with the most uneven groups, which leaves UT-Interaction
    with folds of 23 and 25 videos where 24 with 4 of each class are possible; and it knows equal shares only.

    Args:
        labels: class of each video, [v].
        groups: group of each video, [v].
        shares: fraction of the videos that each part should get, [p], at most as many as there are groups.

    Returns:
        The part of each video, [v]; no part is empty.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)  # [g], [v]
    classes, class_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))  # [g, c]
    np.add.at(counts, (group_of, class_of), 1)
    sizes = counts.sum(axis=1)
    # What a group holds of each class and, in a last column, of all videos.
    held = np.column_stack([counts, sizes])
    held /= held.sum(axis=0)  # [g, c + 1]
    need = np.repeat(shares[:, None], held.shape[1], axis=1)  # [p, c + 1], to be brought near 0
    part = np.full(len(names), -1)
    order = sorted(_shuffled(names.tolist(), seed), key=lambda group: -sizes[group])
    for dealt, group in enumerate(order):
        cost = (held[group] ** 2 - 2 * need * held[group]).sum(axis=1)  # [p], change of |need|^2
        cost = cost.round(9)  # the order of summation differs between CPUs, and must not decide a tie
        empty = ~np.isin(np.arange(len(shares)), part)
        if empty.sum() == len(order) - dealt:
            cost[~empty] = np.inf
        part[group] = cost.argmin()
        need[part[group]] -= held[group]
    return part[group_of]
