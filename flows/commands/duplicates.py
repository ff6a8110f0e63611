"""Videos that a dataset holds twice: those on both sides of a run's split, and the listing of `dynaprop datasets`."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from dynaprop.flows.terminal.printing import answer
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.heads.features.loaded import load_features
from dynaprop.heads.runs.find_leaks import classes_of, look_for_duplicates
from dynaprop.heads.runs.leaks import Leaks, how_looked_for, in_words
from dynaprop.pipeline.annotations.splits import given_or_stratified
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.extract.required import require_features
from dynaprop.pipeline.progress import reading_again
from dynaprop.pipeline.store.duplicates import Duplicate, contents_of, parts_of
from dynaprop.pipeline.store.names import open_store, store_path
from dynaprop.pipeline.workspace import DEFAULT_RECIPE, Workspace, open_workspace


def print_duplicates(target: str, catalog: str | None) -> None:
    """Print the same files and near-identical videos of a dataset, and what they mean for its split and labels.

    Before the features are extracted, same files alone.

    Raises:
        UsageError: no such dataset, or its labels cannot be read.
        DynapropError: damaged features.
    """
    workspace, keys = _extracted(target, catalog)
    annotations = workspace.annotations()
    place = store_path(workspace.dataset, workspace.home)
    store = open_store(workspace.dataset, workspace.home, read_only=True) if place.exists() else None
    manifest = None if store is None else store.manifest()
    features = None
    if store is not None and keys is not None:
        features = load_features(
            store,
            annotations.videos,
            class_names=annotations.class_names,
            student_key=keys["teacher"],
            teacher_key=keys["teacher"],
        ).split
    contents = contents_of(annotations.videos, manifest, hashing=partial(reading_again, TERMINAL))
    found = look_for_duplicates(features, contents, parts=None, key=keys["teacher"] if keys else "", reporter=TERMINAL)
    leaks = Leaks(found, classes_of(annotations, found))
    parts: dict[str, int] = {}
    dataset = workspace.dataset
    with suppress(UsageError):  # without labels there is no split
        split = given_or_stratified(annotations, seed=dataset.split_seed, test_fraction=dataset.test_fraction)
        parts = parts_of(annotations, [split])
    for pair in found.listed:
        answer(_line(pair, leaks, parts))
    _print_summary(leaks, parts, workspace)


def _extracted(target: str, catalog: str | None) -> tuple[Workspace, dict[str, str] | None]:
    """The dataset with the first recipe whose features are all there, and its keys; none where no recipe's are."""
    first = open_workspace(target, DEFAULT_RECIPE if catalog is None else None, catalog, reporter=TERMINAL)
    for recipe in sorted(first.catalog.recipes, key=lambda name: name != first.recipe.name):
        workspace = open_workspace(target, recipe, catalog, reporter=TERMINAL)
        with suppress(DynapropError):
            return workspace, require_features(workspace)
    return first, None


def _across(pair: Duplicate, parts: Mapping[str, int]) -> bool:
    return pair.first in parts and pair.second in parts and parts[pair.first] != parts[pair.second]


def _line(pair: Duplicate, leaks: Leaks, parts: Mapping[str, int]) -> str:
    if pair.kind == "same file":
        text = f"same file: {pair.first} and {pair.second}"
    else:
        text = (
            f"near-identical, cosine {pair.cosine:.2f}: {pair.first} at {pair.first_seconds:.1f} s "
            f"and {pair.second} at {pair.second_seconds:.1f} s"
        )
    if _across(pair, parts):
        text += "; on both sides of the split"
    if leaks.labels_differ(pair):
        classes = (", ".join(leaks.classes.get(video, ())) or "none" for video in (pair.first, pair.second))
        text += f"; other classes ({' / '.join(classes)})"
        text += ": a label is wrong" if pair.kind == "same file" else ""
    return text


def _print_summary(leaks: Leaks, parts: Mapping[str, int], workspace: Workspace) -> None:
    found = leaks.found
    across = sum(_across(pair, parts) for pair in found.listed)
    labels = sum(leaks.labels_differ(pair) for pair in found.listed)
    some = "" if len(found.listed) == leaks.count else f" of the {len(found.listed):,} listed"
    text = in_words(leaks) or "no duplicates"
    if leaks.count:
        text += f"; {across:,}{some} on both sides of the split; {labels:,}{some} with other classes"
    answer(f"{workspace.dataset.name}: {text}")
    answer(how_looked_for(found))
    if found.n_near is None and not found.features:
        answer(f"`dynaprop extract {workspace.quoted}` extracts them")
