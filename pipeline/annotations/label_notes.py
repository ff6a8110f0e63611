"""What a person should know of a dataset's labels and of a split before believing a number: notes, no errors.

Nothing here is surely wrong. A list may well hold classes that the test part lacks; but `train/Kick` beside `test/kick`
are two classes where one was meant, and no model trained on them says so.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from dynaprop.pipeline.annotations import Annotations
from dynaprop.pipeline.annotations.splits import Split, splits_of
from dynaprop.pipeline.errors import UsageError

_SHOWN = 3  # names or sets of names in one note
_PASSED_OVER = {"Zs", "Zl", "Zp", "Cc", "Cf", "Pd", "Pc"}  # spaces, characters without a width, dashes, underscores
_TITLES = {"test": "given split", "val": "given split (validation)", "stratified": "stratified split"}


def label_notes(annotations: Annotations, splits: Sequence[Split] = ()) -> tuple[str, ...]:
    """Return a sentence, without its full stop, for everything that may be a slip.

    Args:
        annotations: the videos, with what their reader has noted.
        splits: what is trained and measured on, one split or all folds; without them they are not looked at.
    """
    groups = {video.group for video in annotations.videos + annotations.absent if video.group is not None}
    notes = [*annotations.notes]
    notes += _alike("classes", annotations.class_names)
    notes += _alike("groups", sorted(groups))
    if splits:
        notes += _one_sided(annotations, splits)
        notes += _on_both_sides(annotations, splits)
    return tuple(notes)


def expected_notes(annotations: Annotations, *, seed: int, test_fraction: float) -> tuple[str, ...]:
    """The same before anything is trained, for the split that a training without folds would make.

    Why none can be made is a note, too: features of such videos are of use, but hours of extraction come first.
    """
    if not any(video.labels for video in annotations.videos):
        return label_notes(annotations)
    try:
        splits = splits_of(annotations, folds=0, seed=seed, test_fraction=test_fraction)
    except UsageError as error:
        return (*label_notes(annotations), f"as the labels are, training will be refused: {error}")
    return label_notes(annotations, splits)


def _alike(noun: str, names: Iterable[str]) -> list[str]:
    """Names that a person would take for one."""
    sets: dict[str, list[str]] = defaultdict(list)
    for name in names:
        sets[_loosely(name)].append(name)
    found = [" and ".join(map(repr, alike)) for alike in sets.values() if len(alike) > 1]
    if not found:
        return []
    return [
        f"{noun} that differ only in case, width, spaces, '_' or '-': {_listed(found, between='; ')}. If they are the "
        "same, give them one name"
    ]


def _loosely(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    letters = "".join(sign for sign in folded if unicodedata.category(sign) not in _PASSED_OVER)
    return letters or name


def _one_sided(annotations: Annotations, splits: Sequence[Split]) -> list[str]:
    """Classes that the training part or the test part lacks; of a video with several labels the first is trained on."""
    lacking: dict[str, Counter[int]] = defaultdict(Counter)  # what -> class -> in how many splits
    classes = set(range(len(annotations.class_names)))
    for split in splits:
        trained = {annotations.videos[video].labels[0] for video in split.train}
        tested = {label for video in split.test for label in annotations.videos[video].labels}
        lacking["training"].update(tested - trained)
        lacking["test"].update(trained - tested)
        lacking["any"].update(classes - trained - tested)
    ends = {
        "training": "without a training video: no model can learn them, and their test videos count as wrong",
        "test": "without a test video: nothing is measured of them, and each counts 0 in mAP",
        "any": "without any video: each counts 0 in mAP",
    }
    title = _title(splits)
    return [
        f"{title}: {len(found):,} of {len(classes):,} classes {ends[what]} "
        f"({_listed([_counted(annotations.class_names[label], found[label], len(splits)) for label in sorted(found)])})"
        for what, found in sorted(lacking.items(), key=lambda item: list(ends).index(item[0]))
        if found
    ]


def _on_both_sides(annotations: Annotations, splits: Sequence[Split]) -> list[str]:
    """Groups that a split which comes with the dataset does not keep apart."""
    both: dict[str, None] = {}
    for split in splits:
        train, test = ({annotations.videos[video].group for video in part} for part in (split.train, split.test))
        both |= dict.fromkeys(sorted(group for group in train & test if group is not None))
    if not both:
        return []
    what = "1 group lies" if len(both) == 1 else f"{len(both):,} groups lie"
    return [
        f"{_title(splits)}: {what} on both sides ({_listed([repr(group) for group in both])}), so models are tested on "
        "what they may have seen; cross-validation over folds keeps groups apart"
    ]


def _title(splits: Sequence[Split]) -> str:
    return f"{len(splits)} folds" if splits[0].fold is not None else _TITLES.get(splits[0].name, splits[0].name)


def _counted(name: str, times: int, of: int) -> str:
    return repr(name) if of == 1 else f"{name!r} in {times} of {of}"


def _listed(names: Sequence[str], *, between: str = ", ") -> str:
    more = len(names) - _SHOWN
    return between.join(names[:_SHOWN]) + (f"{between}and {more:,} more" if more > 0 else "")
