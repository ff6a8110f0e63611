"""Videos on both sides of a split that show the same, as a run keeps them: one json a kind of split.

A run's folder is another one as soon as features, labels or splits change, so that what it keeps is never of others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dynaprop.heads.features.duplicates import RULE
from dynaprop.pipeline.io.paths import StoragePath
from dynaprop.pipeline.io.sealed import publish_record, read_record
from dynaprop.pipeline.store.duplicates import Duplicate, Duplicates


@dataclass(frozen=True)
class Leaks:
    """The duplicates across a split."""

    found: Duplicates
    classes: Mapping[str, tuple[str, ...]]
    """Names of each listed video's classes, by id."""

    @property
    def count(self) -> int:
        """Pairs of both kinds."""
        return self.found.n_same + (self.found.n_near or 0)

    def labels_differ(self, pair: Duplicate) -> bool:
        """Whether the two videos of a pair have other classes, so that one of them is labelled wrongly or both."""
        return set(self.classes.get(pair.first, ())) != set(self.classes.get(pair.second, ()))


def write_leaks(run: StoragePath, split: str, leaks: Leaks) -> None:
    """Keep what was found across a split of a run."""
    body = {"rule": RULE, "found": asdict(leaks.found), "classes": {k: list(v) for k, v in leaks.classes.items()}}
    publish_record(_file(run, split), body)


def read_leaks(run: StoragePath, split: str) -> Leaks | None:
    """What a run has kept; None where it was not looked for, by another rule, or the file is damaged."""
    try:
        body = read_record(_file(run, split))
        if body["rule"] != RULE:
            return None
        found = body["found"]
        listed = tuple(Duplicate(**pair) for pair in found.pop("listed"))
        classes = {video: tuple(names) for video, names in body["classes"].items()}
        return Leaks(Duplicates(listed=listed, **found), classes)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def in_words(leaks: Leaks) -> str:
    """How many pairs of each kind, for people; empty without any."""
    found = leaks.found
    kinds = [(found.n_same, "of the same file"), (found.n_near or 0, "of near-identical videos")]
    parts = [f"{count:,} pair{'s' if count > 1 else ''} {kind}" for count, kind in kinds if count]
    return " and ".join(parts)


def how_looked_for(found: Duplicates) -> str:
    """What is called near-identical and what was compared, for people."""
    if found.n_near is None:
        return f"Near-identical videos were not looked for: {found.unknown}."
    clips = "" if found.clips is None else f", of at most {found.clips} clips of each video, evenly spaced"
    return (
        f"Near-identical is a mean cosine of {found.threshold:g} or more between the clips of one video and those of "
        f"the other that are most like them, of centred and evened features of {found.features}{clips}. Copies "
        "that were coded again are mostly missed among videos that all show one place."
    )


def _file(run: StoragePath, split: str) -> StoragePath:
    return run / "leaks" / f"{split}.json"
