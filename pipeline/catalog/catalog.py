"""The entries of a catalog file by name, and datasets that have none."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from dynaprop.pipeline.catalog.backbones import BackboneSpec
from dynaprop.pipeline.catalog.clusters import INLINE, ClusterSpec
from dynaprop.pipeline.catalog.datasets import DatasetSpec
from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.formats import GroupFile
from dynaprop.pipeline.catalog.recipes import RecipeSpec
from dynaprop.pipeline.catalog.sweeps import SweepSpec
from dynaprop.pipeline.errors import UsageError, did_you_mean
from dynaprop.pipeline.io.paths import is_folder

E = TypeVar("E", bound=Entry)

_COPIES = re.compile(r"(?P<original>.+):(?P<short_side>[1-9][0-9]{0,3})p", re.DOTALL)
GROUPS = "groups.csv"
"""In a folder of videos without an entry: the group of each video."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The entries of one catalog file by name."""

    path: Path
    datasets: Mapping[str, DatasetSpec]
    backbones: Mapping[str, BackboneSpec]
    recipes: Mapping[str, RecipeSpec]
    sweeps: Mapping[str, SweepSpec]
    clusters: Mapping[str, ClusterSpec]

    def dataset(self, name: str) -> DatasetSpec:
        """Raises UsageError if there is none of this name, as the other look-ups do."""
        return _look_up(self.path, "dataset", self.datasets, name)

    def backbone(self, name: str) -> BackboneSpec:
        return _look_up(self.path, "backbone", self.backbones, name)

    def recipe(self, name: str) -> RecipeSpec:
        return _look_up(self.path, "recipe", self.recipes, name)

    def sweep(self, name: str) -> SweepSpec:
        return _look_up(self.path, "sweep", self.sweeps, name)

    def cluster(self, name: str) -> ClusterSpec:
        """``inline`` is there without an entry, too."""
        if name == INLINE:
            return ClusterSpec(name=INLINE)
        spec = _look_up(self.path, "cluster", self.clusters, name)
        spec.scheduler()  # refused before the work begins
        return spec

    def sweeps_of(self, name: str) -> tuple[SweepSpec, ...]:
        """The sweep of this name, or those that it includes."""
        sweep = self.sweep(name)
        return tuple(self.sweeps[included] for included in sweep.include) or (sweep,)

    def dataset_or_folder(self, name_or_path: str | Path) -> DatasetSpec:
        """Return the entry of this name or at this root, else a spec for the folder of videos there.

        A name wins over a folder of the same name; ``./name`` is always the folder. Either one followed by ``:256p``
        stands for its transcoded copies of short side 256: a dataset of its own, named ``name.256p``, with its own
        store and results, so that features of copies and of originals never mix. Its ``root`` here is still that of the
        labels; ``dynaprop.pipeline.copies.dataset`` knows where the copies are.

        Raises:
            UsageError: neither an entry nor a folder.
        """
        name = str(name_or_path)
        if (spec := self._find(name)) is not None:
            return spec
        if (copies := _COPIES.fullmatch(name)) is not None:
            name = copies["original"]
            if (spec := self._find(name)) is not None:
                return self._copies(spec, int(copies["short_side"]))
        what = "a file, not a folder" if os.access(Path(name), os.F_OK) else "no folder"
        raise UsageError(
            f"{name!r}: {what}, and no dataset of {self.path} has this name{did_you_mean(name, list(self.datasets))}"
        )

    def copies_named(self, name: str) -> DatasetSpec | None:
        """The transcoded copies of an entry that have this name as a dataset (``weizmann.256p``); None if none have."""
        original, _, side = name.rpartition(".")
        copies = _COPIES.fullmatch(f"{original}:{side}")
        if copies is None or name in self.datasets or original not in self.datasets:
            return None
        return self.datasets[original].copies(int(copies["short_side"]))

    def _find(self, name: str) -> DatasetSpec | None:
        if name in self.datasets:
            return self.datasets[name]
        path = Path(name)
        if not name or not is_folder(path):
            return None
        root = os.path.realpath(path)
        at_root = (spec for spec in self.datasets.values() if os.path.realpath(spec.root) == root)
        return next(at_root, None) or folder_dataset(path)

    def _copies(self, spec: DatasetSpec, short_side: int) -> DatasetSpec:
        copies = spec.copies(short_side)
        taken = {name.casefold() for name in self.datasets}
        if copies.name.casefold() in taken:
            raise UsageError(
                f"{self.path}: dataset {copies.name!r} has the name that the copies of {spec.name!r} would have; "
                "rename one of the two"
            )
        return copies


def folder_dataset(path: Path) -> DatasetSpec:
    """Return a spec for any folder of videos by class; its name differs from that of every other folder.

    A ``groups.csv`` in it names the groups, without being asked for: it would be forgotten with one command of several.
    """
    root = path.resolve()
    slug = re.sub(r"[^a-z0-9]+", "-", root.name.lower())[:40].strip("-") or "folder"
    groups = GroupFile(file=Path(GROUPS)) if os.path.lexists(root / GROUPS) else None
    return DatasetSpec(name=f"{slug}-{sha256(os.fsencode(root)).hexdigest()[:8]}", root=root, groups=groups)


def _look_up(file: Path, noun: str, entries: Mapping[str, E], name: str) -> E:
    if name not in entries:
        raise UsageError(f"{file}: no {noun} {name!r}{did_you_mean(name, list(entries))}")
    return entries[name]
